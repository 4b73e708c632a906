"""The inventory of a backup: from the plaintext that the node still keeps, or out of what is sealed."""

import hashlib
import io
from collections.abc import Sequence

from edgedr import durable
from edgedr.archive import MAX_INVENTORY, NODE_TAR, ArchiveReader
from edgedr.errors import Damaged, StorageError
from edgedr.inventory import Inventory
from edgedr.members import BLOCK
from edgedr.model import Manifest
from edgedr.repository.parents import ParentCache
from edgedr.repository.reading import read_artifact
from edgedr.repository.repository import Repository
from edgedr.sealing.identities import Identity

_CHUNK = 1 << 20
_HEADERS = 64 * BLOCK


def cached_inventory(cache: ParentCache, manifest: Manifest) -> Inventory | None:
    """Return the inventory from the plaintext kept of a backup; ``None`` where that is gone or not what was signed."""
    artifact = manifest.artifact(NODE_TAR)
    if artifact is None:
        return None
    try:
        with durable.open_for_reading(cache.path(manifest.id, NODE_TAR)) as file:
            digest = hashlib.sha256()
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
            if digest.hexdigest() != artifact.sha256:
                return None
            file.seek(0)
            return ArchiveReader(file, max_bytes=artifact.size).inventory
    except (OSError, StorageError, Damaged):
        return None


def sealed_inventory(repository: Repository, chain: Sequence[Manifest], identities: Sequence[Identity]) -> Inventory:
    """Decrypt the inventory of the last backup of a chain, full first; nothing touches a disk.

    Raises ``Damaged``, ``WrongKey``.
    """
    artifact = chain[-1].artifact(NODE_TAR)
    if artifact is None:
        raise Damaged(f"{chain[-1].id} has no {NODE_TAR}", hint="take another backup")
    head = _Head()
    read_artifact(repository, chain, NODE_TAR, identities, {chain[-1].id: head})
    return ArchiveReader(io.BytesIO(head.data), max_bytes=artifact.size).inventory


class _Head:
    """Keeps the beginning of an archive, where its inventory is, and lets the rest go by."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self.data += data[: max(0, MAX_INVENTORY + _HEADERS - len(self.data))]
        return len(data)
