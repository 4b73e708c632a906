"""The plaintext artifacts of the newest backup, kept on the node (0600) so that the next one can be a delta.

One directory per backup, named by its id and filled before the backup is committed: whatever a killed run leaves, the
directory that carries the newest committed id is the right one, or there is none. Losing it costs one full, never data.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from edgedr import durable
from edgedr.errors import StorageError
from edgedr.model import BackupId, Manifest

_BLOCK = 1 << 20


class ParentCache:
    """Plaintext artifacts below ``directory``, leaving ``keep_free`` bytes of its file system to others."""

    def __init__(self, directory: Path, *, keep_free: int = 0) -> None:
        self.directory = directory
        self.keep_free = keep_free

    def path(self, backup: BackupId, artifact: str) -> Path:
        """Return where an artifact of a backup is, or would be."""
        return self.directory / str(backup) / artifact

    @contextmanager
    def create(self, backup: BackupId, artifact: str) -> Iterator[durable.Writer]:
        """Write an artifact of the backup to be."""
        path = self.path(backup, artifact)
        durable.make_directory(path.parent)
        with durable.create(path, floor=self.keep_free) as writer:
            yield writer

    def spool(self, backup: BackupId) -> Path:
        """Return a directory for passing files of the backup to be; it goes with the next ``keep_only``."""
        path = self.directory / str(backup)
        durable.make_directory(path)
        return path

    def problem(self, manifest: Manifest) -> str | None:
        """Hash the artifacts kept of a backup; say why they cannot be compressed against, or ``None``."""
        for artifact in manifest.artifacts:
            path = self.path(manifest.id, artifact.name)
            try:
                with durable.open_for_reading(path) as file:
                    digest = hashlib.sha256()
                    while block := file.read(_BLOCK):
                        digest.update(block)
                    size = file.tell()
            except (OSError, StorageError):
                return f"the cached {artifact.name} of {manifest.id} is gone"
            if (size, digest.hexdigest()) != (artifact.size, artifact.sha256):
                return f"the cached {artifact.name} of {manifest.id} is not what its manifest says"
        return None

    def keep_only(self, backup: BackupId | None) -> None:
        """Forget the artifacts of all other backups."""
        if self.directory.is_symlink():
            raise StorageError(
                f"{self.directory} is a symbolic link",
                hint="edgedr removes what is in there: set [state] path to the directory itself, or mount it there",
            )
        try:
            found = sorted(os.listdir(self.directory))  # noqa: PTH208
        except FileNotFoundError:
            return
        except OSError as error:
            raise durable.storage_error(error, "list", self.directory) from error
        for name in found:
            if _is_ours(name) and (backup is None or name != str(backup)):
                _remove_tree(self.directory / name)
        if backup is not None:
            for path in sorted((self.directory / str(backup)).glob(f".*{durable.PART_SUFFIX}")):
                durable.remove(path)

    def forget(self, backup: BackupId) -> None:
        """Drop what was captured for a backup that will not be."""
        _remove_tree(self.directory / str(backup))


class Reread:
    """A cached artifact that is hashed once more while it is read from its beginning; a context manager."""

    def __init__(self, path: Path) -> None:
        self._file = durable.open_for_reading(path)
        self._digest = hashlib.sha256()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, at most ``size``."""
        data = self._file.read(size)
        self._digest.update(data)
        return data

    def rest(self) -> str:
        """Read what is left, and return the SHA-256 of the whole, in hex."""
        while self.read(_BLOCK):
            pass
        return self._digest.hexdigest()


def _is_ours(name: str) -> bool:
    try:
        BackupId.parse(name)
    except ValueError:
        return False
    return True


def _remove_tree(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            durable.remove(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise durable.storage_error(error, "remove", path) from error
