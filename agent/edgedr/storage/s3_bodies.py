"""What goes to a bucket and comes from it, while it is on its way."""

import hashlib
import io
import tempfile
from typing import BinaryIO, cast

from edgedr.errors import Damaged, StorageError
from edgedr.storage.base import Progress
from edgedr.storage.pacing import Throttle

_IN_MEMORY = 4 << 20  # bytes


class Held:
    """Bytes on their way in or out: small ones in memory, others in a file without a name."""

    def __init__(self) -> None:
        self.file = cast("BinaryIO", tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))  # noqa: SIM115
        self.restart()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take all of ``data``."""
        try:
            self.file.write(data)
        except OSError as error:
            raise StorageError(
                f"cannot keep what was fetched in {tempfile.gettempdir()}: {error.strerror or error}",
                hint="free space there, or set TMPDIR to a directory on another disk",
            ) from error
        self.digest.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: libraries call it out of habit."""

    def restart(self) -> None:
        """Forget everything written so far."""
        self.file.seek(0)
        self.file.truncate()
        self.digest = hashlib.sha256()
        self.size = 0

    def close(self) -> None:
        """Let go of it."""
        self.file.close()


class Body:
    """What a PUT carries. boto3 reads it twice: to sign its hash, and, from ``begin`` on, to send it."""

    def __init__(
        self, source: BinaryIO, start: int, size: int, sha256: str, name: str, throttle: Throttle, progress: Progress
    ) -> None:
        self.size = size
        self._source, self._start, self._sha256, self._name = source, start, sha256, name
        self._throttle, self._progress = throttle, progress
        self._at = self._read = 0
        self._sending = False
        self._told = 0

    def begin(self, signed: str) -> None:
        """Compare what was hashed with what it should be, before a byte of it leaves."""
        if (self._read, signed) != (self.size, self._sha256):
            raise Damaged(f"what was to be stored as {self._name} is not what its hash says")
        self._sending = True

    def restart(self) -> None:
        """Begin again: what travelled counts for nothing."""
        self._sending = False
        self._progress(-self._told)
        self._told = 0
        self.seek(0)

    def read(self, size: int | None = -1) -> bytes:
        """Read for boto3, no faster than allowed once it is sent."""
        left = self.size - self._at
        try:
            block = self._source.read(left if size is None or size < 0 else min(size, left))
        except OSError as error:
            raise Damaged(f"what was to be stored as {self._name} cannot be read: {error.strerror or error}") from error
        self._at += len(block)
        self._read = max(self._read, self._at)
        if self._sending:
            self._throttle.take(len(block))
            self._told += len(block)
            self._progress(len(block))
        return block

    def tell(self) -> int:
        """Say where reading is."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Read on from another place."""
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence] + offset
        self._source.seek(self._start + self._at)
        return self._at
