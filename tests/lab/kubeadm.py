"""A node as kubeadm left it: Kubernetes 1.36, one control plane ``cp-1``, keys that were thrown away."""

import io
import tarfile
from pathlib import Path

from edgedr.layouts import KUBEADM
from edgedr.node.files import Files
from edgedr.node.node import Node
from edgedr.sealing.zstandard import zstd

_DATA = Path(__file__).parent.parent / "data"
_ROOT = _DATA / "kubeadm-root.tar.zst"
_DATASTORE = _DATA / "kubeadm-etcd.db.zst"


def unpack(to: Path) -> Path:
    """Lay the node's files below ``to``, with their modes and times, and return it."""
    with tarfile.open(fileobj=io.BytesIO(zstd.decompress(_ROOT.read_bytes()))) as archive:
        archive.extractall(to, filter="fully_trusted")
    return to


def datastore(to: Path) -> Path:
    """Write a snapshot of that cluster's etcd to ``to``: 417 of its objects, of which 30 Secrets, sealed with key1."""
    to.write_bytes(zstd.decompress(_DATASTORE.read_bytes()))
    return to


def node(root: Path) -> Node:
    """Return the machine whose ``/`` is ``root``."""
    return Node(Files(root), KUBEADM)
