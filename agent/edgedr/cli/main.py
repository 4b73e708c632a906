"""The way in: read the command line, run one command, turn what went wrong into a message and an exit code."""

import gc
import importlib
import io
import os
import re
import resource
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from edgedr.cli import terminal
from edgedr.cli.parser import Arguments, build_parser
from edgedr.errors import EdgedrError

_INTERRUPTED = 130  # as a shell says of a command that SIGINT ended
_UNREAD = 141  # likewise SIGPIPE: what could not be said may have been that something is damaged
_SECRET = re.compile(r"AGE-(?:SECRET-KEY|PLUGIN-[A-Z0-9]+)-1[A-Z0-9]+", re.IGNORECASE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core holds keys in the clear
    os.umask(0o077)  # every file is made with its own mode; this is for what libraries may write
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no text at all
    try:
        code = _run(argv)
        terminal.flush()
    except EdgedrError as error:
        code = error.exit_code
        _complain(error.message, error.hint, code)
        with suppress(OSError):
            sys.stdout.flush()
            return code
        _let_go_of_stdout()
    except BrokenPipeError:
        _let_go_of_stdout()
        return _UNREAD
    except KeyboardInterrupt as interrupt:  # a command that has written more than the next run sweeps says so in it
        terminal.complain("", str(interrupt) or "interrupted; what was begun will be swept by the next run")
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the boundary: a bug becomes a message and exit code 1
        return _bug(error)
    return code


def _run(argv: Sequence[str] | None) -> int:
    try:
        words = sys.argv[1:] if argv is None else argv
        arguments = build_parser(words).parse_args(words)
    except SystemExit:  # --help or --version, which argparse has printed
        return 0
    if arguments.config is None:
        arguments.config = Path(os.environ.get("EDGEDR_CONFIG", "/etc/edgedr/edgedr.toml"))
    module, name = arguments.command.function
    function: Callable[[Arguments], int] = getattr(importlib.import_module(module), name)
    gc.enable()
    return function(arguments)


def _let_go_of_stdout() -> None:
    """Keep the interpreter from complaining at its end that nobody takes what is left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _veiled(text: str) -> str:
    """Leave a secret out that was pasted where something else belongs, and what would steer a terminal."""
    text = _SECRET.sub("(a private key)", text)
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)


def _complain(message: str, hint: str | None, code: int) -> None:
    message, hint = _veiled(message), hint and _veiled(hint)
    terminal.complain("error: ", message, "bad")
    if hint:
        terminal.complain(terminal.HINT, hint)
    terminal.complain("", f"(exit {code})")


def _bug(error: Exception) -> int:
    """Say where, but no values: a traceback's locals may be secrets."""
    import traceback  # noqa: PLC0415

    frames = traceback.extract_tb(error.__traceback__)
    terminal.complain("error: ", f"bug in edgedr: {type(error).__name__}")
    for frame in frames[-4:]:
        terminal.complain("  ", f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}")
    terminal.complain(terminal.HINT, "please report these lines; earlier backups are untouched")
    terminal.complain("", "(exit 1)")
    return EdgedrError.exit_code
