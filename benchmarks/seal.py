"""Seal one artifact as a backup does, segment by segment: ``python -m benchmarks.seal FILE DIRECTORY [PARENT]``."""

import sys
from pathlib import Path

from edgedr.repository.names import segment_sizes
from edgedr.sealing.identities import make_identity
from edgedr.sealing.recipients import parse_recipient
from edgedr.sealing.segments import Prefix, seal
from edgedr.storage.directory import DirectoryStorage

_SEGMENT_SIZE = 64 << 20  # bytes: what edgedr takes unless told otherwise


def seal_file(plain: Path, directory: Path, parent: Path | None = None) -> None:
    """Write the sealed segments of ``plain`` below ``directory``, as deltas where ``parent`` reaches as far."""
    recipients = (parse_recipient(make_identity().recipient),)
    storage = DirectoryStorage(directory)
    with plain.open("rb") as file:
        for number, size in enumerate(segment_sizes(plain.stat().st_size, _SEGMENT_SIZE)):
            prefix = _prefix(parent, number * _SEGMENT_SIZE) if parent else None
            with storage.create(f"{plain.name}.{number:03d}.zst.age") as out:
                seal(file, size, out, recipients=recipients, prefix=prefix)
            del prefix


def _prefix(parent: Path, offset: int) -> Prefix:
    with parent.open("rb") as file:
        file.seek(offset)
        return Prefix(file.read(_SEGMENT_SIZE))


if __name__ == "__main__":
    seal_file(*map(Path, sys.argv[1:]))
