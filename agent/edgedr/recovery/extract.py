"""Extract ``node.tar`` into a new directory: what its inventory lists, exactly, and nothing anywhere else.

Not ``tarfile``'s filters, which were escaped from more than once: every name is opened below its parent's descriptor,
links are never followed, and what is not allowed by name is refused. ``files/<absolute path>`` lands at the same path
below the target; the inventory and the documents land in ``.edgedr/`` there. Nothing is written before the whole
archive has been read and agrees with its inventory; if writing fails, what was written is taken away again.
"""

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from edgedr import durable, strictjson
from edgedr.archive import DOCUMENT, INVENTORY, OWN, ArchiveReader
from edgedr.inventory import Entry, EntryKind, Inventory
from edgedr.members import FILES, Member, is_inside, refuse
from edgedr.model import Finding
from edgedr.recovery.target import Target

_WHAT = "node.tar"
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MAX_NAME = 255  # bytes of one name, on every Linux file system
_MAX_OWNER = 2**32 - 2  # the one above means "leave it"
_MODES = {
    EntryKind.FILE: 0o1777,  # neither setuid nor setgid: a restore must not hand out rights
    EntryKind.HARDLINK: 0o1777,
    EntryKind.DIRECTORY: 0o3777,
    EntryKind.SYMLINK: 0o777,
}
_FORBIDDEN_XATTR = "security.capability"  # setuid by another name


def extract(
    archive: BinaryIO | Path, target: Path, *, sources: Collection[str] | None = None, max_bytes: int
) -> tuple[Inventory, list[Finding]]:
    """Extract a seekable archive of at most ``max_bytes`` (its signed size) into ``target``, new or empty.

    With ``sources``, only their paths, and the directories above those. Returns the inventory, and what could not be
    restored as it was: owners (without root) and attributes. Raises ``Damaged`` for an archive that is not what
    edgedr writes, ``RestoreStopped`` for a target in use, ``StorageError`` when the disk refuses.
    """
    if isinstance(archive, Path):
        try:
            stream = durable.open_for_reading(archive)
        except OSError as error:
            raise durable.storage_error(error, "read", archive) from error
        with stream:
            return extract(stream, target, sources=sources, max_bytes=max_bytes)
    start = archive.tell()
    reader = ArchiveReader(archive, max_bytes=max_bytes, what=_WHAT)
    entries = _entries(reader.inventory)
    _validate(reader, entries)
    archive.seek(start)
    with Target(target) as out:
        _place(ArchiveReader(archive, max_bytes=max_bytes, what=_WHAT), entries, sources, out)
        out.document(INVENTORY, [strictjson.encode(reader.inventory)])
        out.finish()
    return reader.inventory, out.findings


def _validate(reader: ArchiveReader, entries: dict[str, Entry]) -> None:
    order = iter(entries.values())
    documents: set[str] = set()
    for member, content in reader.members():
        entry = entries.get(member.name)
        if entry is None:
            _check_document(member, documents)
        elif entry is not next(order, None):
            refuse(_WHAT, member.name, "appears twice, or not in the order of the inventory")
        elif member != Member.of(entry):
            wrong = [name for name in Member.__slots__ if getattr(member, name) != getattr(Member.of(entry), name)]
            refuse(_WHAT, member.name, f"{', '.join(wrong)} differs from what the inventory says")
        else:
            for _ in _checked(entry, content):
                pass
    missing = next(order, None)
    if missing is not None:
        refuse(_WHAT, FILES + missing.path, "listed by the inventory, but not there")


def _entries(inventory: Inventory) -> dict[str, Entry]:
    """Check the inventory against itself, so that later only the archive needs to be compared with it."""
    known: dict[str, Entry] = {}
    for entry in inventory.entries:
        name = FILES + entry.path
        problem = _problem(entry, known)
        if problem is not None:
            refuse(_WHAT, name, problem)
        known[name] = entry
    return known


def _problem(entry: Entry, known: dict[str, Entry]) -> str | None:
    parts = entry.path.split("/")[1:] or [""]
    above = known.get(FILES + "/" + "/".join(parts[:-1]))
    linked = known.get(FILES + (entry.target or ""))
    is_file, is_link = entry.kind is EntryKind.FILE, entry.kind in {EntryKind.SYMLINK, EntryKind.HARDLINK}
    problems = {
        "not a path inside the target": not entry.path.startswith("/") or not is_inside(entry.path[1:]),
        "a name that is too long": any(len(os.fsencode(part)) > _MAX_NAME for part in parts),
        f"{OWN} is edgedr's own": parts[0] == OWN[1:],
        "listed twice": FILES + entry.path in known,
        "not below a directory of the archive": len(parts) > 1
        and (above is None or above.kind is not EntryKind.DIRECTORY),
        f"mode {entry.mode:o}: setuid, setgid and the like are never captured": bool(entry.mode & ~_MODES[entry.kind]),
        "an owner that cannot be": max(entry.uid, entry.gid) > _MAX_OWNER,
        "a hash where none belongs, or none": is_file != (entry.sha256 is not None),
        "a hash that is none": entry.sha256 is not None and not _SHA256.fullmatch(entry.sha256),
        "a size where none belongs": bool(entry.size) and not is_file,
        "a target where none belongs, or none": is_link != bool(entry.target) or "\0" in (entry.target or ""),
        "a hard link to something that is not a file of this archive": entry.kind is EntryKind.HARDLINK
        and (linked is None or linked.kind is not EntryKind.FILE),
        f"{_FORBIDDEN_XATTR}, which is never captured": _FORBIDDEN_XATTR in entry.xattrs,
    }
    return next((problem for problem, is_so in problems.items() if is_so), None)


def _check_document(member: Member, documents: set[str]) -> None:
    if not DOCUMENT.fullmatch(member.name):
        refuse(_WHAT, member.name, "the inventory does not list it")
    if member != Member.document(member.name, member.size):
        refuse(_WHAT, member.name, "a document that is not a plain file")
    if member.name in documents or any(str(above) in documents for above in PurePosixPath(member.name).parents):
        refuse(_WHAT, member.name, "appears twice, or below another document")
    documents.add(member.name)


def _checked(entry: Entry, content: Iterable[bytes]) -> Iterator[bytes]:
    """Pass content on, and check its hash: while validating, and again while writing, when it could have changed."""
    digest = hashlib.sha256()
    for chunk in content:
        digest.update(chunk)
        yield chunk
    if entry.sha256 not in {None, digest.hexdigest()}:
        refuse(_WHAT, FILES + entry.path, "its content is not what the inventory says")


def _place(reader: ArchiveReader, entries: dict[str, Entry], sources: Collection[str] | None, out: Target) -> None:
    chosen = {entry.path for entry in entries.values() if sources is None or entry.source in sources}
    wanted = chosen | {str(above) for path in chosen for above in PurePosixPath(path).parents}
    directories = [entry for entry in entries.values() if entry.kind is EntryKind.DIRECTORY and entry.path in wanted]
    # All directories before anything else: from then on no name in this tree can be a link that leads out of it.
    for entry in directories:
        out.directory(entry.path)
    holders = _holders(entries.values(), chosen)
    for member, content in reader.members():
        match entries.get(member.name):
            case None:
                out.document(member.name, content)
            case Entry(kind=EntryKind.FILE) as entry if entry.path in holders:
                out.file(holders[entry.path], entry, _checked(entry, content))
            case Entry(kind=EntryKind.SYMLINK) as entry if entry.path in chosen:
                out.symlink(entry)
            case Entry(kind=EntryKind.HARDLINK, target=str(linked)) as entry if entry.path in chosen:
                if holders[linked] != entry.path:
                    out.hardlink(entry.path, holders[linked])
            case _:
                pass  # a directory, made above, or not chosen
    # After all content, because that changes their times; deepest first, because a mode may forbid to enter.
    for entry in reversed(directories):
        out.finish_directory(entry)


def _holders(entries: Iterable[Entry], chosen: set[str]) -> dict[str, str]:
    """Say under which chosen name each file's content lands: its own, or a link's if only that was chosen."""
    holders: dict[str, str] = {}
    for entry in entries:
        if entry.path in chosen and entry.kind is EntryKind.FILE:
            holders[entry.path] = entry.path
        elif entry.path in chosen and entry.kind is EntryKind.HARDLINK and entry.target is not None:
            holders.setdefault(entry.target, entry.path)
    return holders
