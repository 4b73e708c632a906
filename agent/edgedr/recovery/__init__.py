"""Putting a node back: files out of an archive, and nothing outside the target."""
