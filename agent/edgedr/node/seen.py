"""What one path of a node is: its metadata as a backup keeps it, and what is never taken."""

import os
import stat
from dataclasses import dataclass, field

from edgedr.inventory import EntryKind

_BLOCK = 4096
_MAX_XATTRS = 512 << 10  # bytes of one path's attributes: they travel in one archive header, which readers bound
_CAPABILITY = "security.capability"


@dataclass(frozen=True, slots=True)
class Seen:
    """What one path was when it was looked at; ``notes`` say what of it was not kept."""

    kind: EntryKind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    inode: tuple[int, int]
    links: int
    target: str | None = None
    xattrs: dict[str, bytes] = field(default_factory=dict)
    sparse: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Skipped:
    """A path that cannot be taken, and why. ``lost``: it holds something that a restore would miss."""

    reason: str
    lost: bool = True


class Unfit(Exception):
    """The path is nothing that can be taken: why; and whether it holds something that a restore would miss."""

    def __init__(self, reason: str, *, lost: bool = True) -> None:
        super().__init__(reason)
        self.lost = lost


def refuse_unfit(mode: int) -> None:
    """Raise ``Unfit`` for what must not even be opened: reading it could wait forever, or do something."""
    for is_kind, word in (
        (stat.S_ISFIFO, "FIFO"),
        (stat.S_ISSOCK, "socket"),
        (stat.S_ISBLK, "block device"),
        (stat.S_ISCHR, "character device"),
    ):
        if is_kind(mode):
            raise Unfit(f"a {word}", lost=False)


def describe(
    status: os.stat_result, at: int | str, *, follow: bool = False, target: str | None = None, size: int | None = None
) -> Seen:
    """Put together what is kept of a path; ``at`` is where its attributes are read: a descriptor, or a link's name."""
    mode = stat.S_IMODE(status.st_mode)
    notes = []
    if stat.S_ISDIR(status.st_mode):
        kind, kept = EntryKind.DIRECTORY, 0o3777
    elif stat.S_ISLNK(status.st_mode):
        kind, kept = EntryKind.SYMLINK, 0o777
    else:
        kind, kept = EntryKind.FILE, 0o1777
    if mode & ~kept:
        notes.append(f"setuid or setgid not kept: mode {mode:04o} becomes {mode & kept:04o}")
    xattrs, dropped = _xattrs(at, follow=follow or isinstance(at, int))
    notes += dropped
    return Seen(
        kind=kind,
        mode=mode & kept,
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        size=(status.st_size if size is None else size) if kind is EntryKind.FILE else 0,
        inode=(status.st_dev, status.st_ino),
        links=status.st_nlink,
        target=target,
        xattrs=xattrs,
        # a whole block less than its size says: small inline files, which have no blocks at all, are not meant
        sparse=kind is EntryKind.FILE and status.st_blocks * 512 + _BLOCK <= status.st_size,
        notes=tuple(notes),
    )


def _xattrs(at: int | str, *, follow: bool) -> tuple[dict[str, bytes], list[str]]:
    kept: dict[str, bytes] = {}
    notes: list[str] = []
    total = 0
    try:
        names = sorted(os.listxattr(at, follow_symlinks=follow))
    except OSError:
        return {}, []  # this file system, or this kind of file, has none
    for name in names:
        if name == _CAPABILITY:  # as good as setuid
            notes.append(f"{_CAPABILITY} not kept")
            continue
        try:
            name.encode()
            value = os.getxattr(at, name, follow_symlinks=follow)
        except (OSError, UnicodeEncodeError):
            notes.append(f"attribute {name!a} could not be read")
            continue
        total += len(name) + len(value)
        if total > _MAX_XATTRS:
            notes.append(f"attribute {name!a} not kept: more than {_MAX_XATTRS} bytes of them")
            break
        kept[name] = value
    return kept, notes
