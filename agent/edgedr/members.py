"""The headers of ``node.tar``, written and read: PAX, and nothing in it that edgedr does not write itself."""

import base64
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from edgedr.errors import Damaged
from edgedr.inventory import Entry, EntryKind

FILES = "files"
BLOCK = 512
MAX_NAME = 16 << 10
MAX_PAX = 1 << 20
"""Bytes of one extended header. Attributes of one path are kept to half of it."""

_TYPES = {
    EntryKind.FILE: tarfile.REGTYPE,
    EntryKind.DIRECTORY: tarfile.DIRTYPE,
    EntryKind.SYMLINK: tarfile.SYMTYPE,
    EntryKind.HARDLINK: tarfile.LNKTYPE,
}
_KINDS = {type_: kind for kind, type_ in _TYPES.items()}
_XATTR = "SCHILY.xattr."
_KEYWORDS = frozenset({"path", "linkpath", "size", "uid", "gid", "mtime", "hdrcharset"})
_NUMBER = re.compile(r"\d{1,20}", re.ASCII)
_TIME = re.compile(r"(-?)(\d{1,20})(?:\.(\d{1,9}))?", re.ASCII)
_SECOND = 10**9


@dataclass(frozen=True, slots=True)
class Member:
    """One member as its header says. ``target`` is a symbolic link's text, or the member that a hard link points to."""

    name: str
    kind: EntryKind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    target: str | None = None
    xattrs: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, entry: Entry) -> "Member":
        """Return the one member that stands for an inventory entry. Attributes that are not base64 are ``Damaged``."""
        try:
            xattrs = {name: base64.b64decode(value, validate=True) for name, value in entry.xattrs.items()}
        except ValueError as error:
            raise Damaged(f"the attributes of {entry.path!a} are not base64", hint="take another backup") from error
        return cls(
            name=FILES + entry.path,
            kind=entry.kind,
            mode=entry.mode,
            uid=entry.uid,
            gid=entry.gid,
            mtime_ns=entry.mtime_ns,
            size=entry.size,
            target=FILES + (entry.target or "") if entry.kind is EntryKind.HARDLINK else entry.target,
            xattrs=xattrs,
        )

    @classmethod
    def document(cls, name: str, size: int) -> "Member":
        """Return the member for a document, or the inventory: nobody's, of no time, for the owner's eyes."""
        return cls(name=name, kind=EntryKind.FILE, mode=0o600, size=size)


def encode(member: Member) -> bytes:
    """Write a header, in whole blocks; the same member, the same bytes."""
    info = tarfile.TarInfo(member.name)
    info.type = _TYPES[member.kind]
    info.mode, info.uid, info.gid, info.size = member.mode, member.uid, member.gid, member.size
    info.linkname = member.target or ""
    records: dict[str, str] = {}
    info.mtime, fraction = divmod(member.mtime_ns, _SECOND)
    if fraction or member.mtime_ns < 0:
        seconds, fraction = divmod(abs(member.mtime_ns), _SECOND)
        records["mtime"] = f"{'-' if member.mtime_ns < 0 else ''}{seconds}.{fraction:09d}"
    for name, value in sorted(member.xattrs.items()):
        # a keyword ends at the first "=": GNU tar writes these two escapes, and reads them back
        keyword = _XATTR + name.replace("%", "%25").replace("=", "%3D")
        records[keyword] = value.decode("utf-8", "surrogateescape")
    info.pax_headers = records
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def read(take: Callable[[int], bytes], what: str) -> Member | None:
    """Read the next header with ``take``, which gives exactly so many bytes; ``None`` for the first block of the end.

    Whatever ``encode`` does not write is ``Damaged``: other kinds of members, other extensions, names that leave the
    archive. So is anything longer than its limit, before it is read.
    """
    block = take(BLOCK)
    if block == bytes(BLOCK):
        return None
    info = _info(block, what)
    records: dict[str, str] = {}
    if info.type == tarfile.XHDTYPE:
        if not 0 < info.size <= MAX_PAX:
            refuse(what, info.name, f"an extended header of {info.size} bytes")
        records = _records(take(info.size), info.name, what)
        take(-info.size % BLOCK)
        info = _info(take(BLOCK), what)
    return _member(info, records, what)


def refuse(what: str, name: str, problem: str) -> NoReturn:
    """Raise ``Damaged`` about a member of the archive ``what``."""
    raise Damaged(f"{what}: {name!a}: {problem}", hint="take another backup, and find out who made this one")


def _info(block: bytes, what: str) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise Damaged(f"{what} has a damaged header: {error}", hint="take another backup") from error


def _records(data: bytes, name: str, what: str) -> dict[str, str]:
    found: dict[str, str] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 9)
        digits = data[at:space] if space > at else b""
        end = at + int(digits) if digits.isdigit() else 0
        if end <= space or data[end - 1 : end] != b"\n":
            refuse(what, name, "a damaged extended header")
        keyword, equals, value = data[space + 1 : end - 1].partition(b"=")
        key = keyword.decode("utf-8", "surrogateescape")
        if not equals or key in found or not (key.startswith(_XATTR) or key in _KEYWORDS):
            refuse(what, name, f"extended header {key[:64]!a} twice, or one that edgedr never writes")
        found[key] = value.decode("utf-8", "surrogateescape")
        at = end
    if found.pop("hdrcharset", "BINARY") != "BINARY":
        refuse(what, name, "an unknown character set")
    return found


def _member(info: tarfile.TarInfo, records: dict[str, str], what: str) -> Member:
    name = records.pop("path", info.name)
    target: str | None = records.pop("linkpath", info.linkname)
    kind = _KINDS.get(info.type)
    if kind is None:
        refuse(what, name[:MAX_NAME], f"a member of type {info.type!a}: devices, FIFOs and the like are never captured")
    if kind is EntryKind.DIRECTORY:
        name = name.removesuffix("/")
    if len(name) > MAX_NAME or not is_inside(name):
        refuse(what, name[:MAX_NAME], "not a name inside the archive")
    if info.uname or info.gname:
        refuse(what, name, "an owner by name, which could be someone else here")
    if kind not in {EntryKind.SYMLINK, EntryKind.HARDLINK}:
        target = None
    elif not target or len(target) > MAX_NAME or "\0" in target:
        refuse(what, name, "a link without a proper target")
    uid, gid, size = (
        _number(records.pop(key, None), plain, name, what)
        for key, plain in (("uid", info.uid), ("gid", info.gid), ("size", info.size))
    )
    if size and kind is not EntryKind.FILE:
        refuse(what, name, f"a {kind} with content")
    mtime_ns = _time(records.pop("mtime", None), info.mtime, name, what)
    xattrs = {
        key.removeprefix(_XATTR).replace("%3D", "=").replace("%25", "%"): value.encode("utf-8", "surrogateescape")
        for key, value in records.items()
    }
    return Member(name, kind, info.mode, uid, gid, mtime_ns, size, target, xattrs)


def is_inside(name: str) -> bool:
    """Tell whether a relative name stays where it is: no empty part, no ``.`` or ``..``, no NUL."""
    return "\0" not in name and not {"", ".", ".."} & set(name.split("/"))


def _number(record: str | None, plain: int, name: str, what: str) -> int:
    if record is None and plain >= 0:
        return plain
    if record is None or not _NUMBER.fullmatch(record):
        refuse(what, name, "an owner or a size that is no number")
    return int(record)


def _time(record: str | None, plain: float, name: str, what: str) -> int:
    if record is None:
        return int(plain) * _SECOND
    match = _TIME.fullmatch(record)
    if match is None:
        refuse(what, name, "a time that is no number")
    nanoseconds = int(match[2]) * _SECOND + int((match[3] or "0").ljust(9, "0"))
    return -nanoseconds if match[1] else nanoseconds
