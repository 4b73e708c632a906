"""The machine as sources see it."""

from dataclasses import dataclass
from pathlib import Path

from edgedr.layouts import Layout
from edgedr.node.files import Files


@dataclass(frozen=True, slots=True)
class Node:
    """One control-plane machine: its files below ``root``, and where its distribution keeps what."""

    files: Files
    layout: Layout

    @property
    def root(self) -> Path:
        """Where the machine's ``/`` is: ``/`` itself, or a private directory in a test or a drill."""
        return self.files.root
