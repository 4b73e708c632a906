"""A node as kubeadm left it: Kubernetes 1.36, one control plane ``cp-1``, keys that were thrown away."""

import io
import tarfile
from pathlib import Path

from edgedr.layouts import KUBEADM
from edgedr.node.files import Files
from edgedr.node.node import Node
from edgedr.sealing.zstandard import zstd

_ROOT = Path(__file__).parent.parent / "data" / "kubeadm-root.tar.zst"


def unpack(to: Path) -> Path:
    """Lay the node's files below ``to``, with their modes and times, and return it."""
    with tarfile.open(fileobj=io.BytesIO(zstd.decompress(_ROOT.read_bytes()))) as archive:
        archive.extractall(to, filter="fully_trusted")
    return to


def node(root: Path) -> Node:
    """Return the machine whose ``/`` is ``root``."""
    return Node(Files(root), KUBEADM)
