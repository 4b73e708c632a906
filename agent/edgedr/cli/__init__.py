"""One function per command. Only ``main`` turns errors into exit codes."""
