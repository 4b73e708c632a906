"""The machine as sources see it."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from edgedr.layouts import Layout
from edgedr.node.commands import Commands, NoCommands
from edgedr.node.files import Files
from edgedr.node.kube import Kube


@dataclass(frozen=True, slots=True)
class Node:
    """One control-plane machine.

    Its files below ``root``, where its distribution keeps what, who runs commands on it, and its API server: ``None``
    where none is known. ``elsewhere`` names the other node that captures what belongs to the whole cluster; ``None``
    means that this one does. ``now`` is when it is looked at; ``None`` where nothing depends on it.
    """

    files: Files
    layout: Layout
    commands: Commands = field(default_factory=NoCommands)
    kube: Kube | None = None
    elsewhere: str | None = None
    now: datetime | None = None

    @property
    def root(self) -> Path:
        """Where the machine's ``/`` is: ``/`` itself, or a private directory in a test or a drill."""
        return self.files.root
