"""Archives that want to write where they must not, and targets that somebody else plays with."""

import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from edgedr import archive as archive_module
from edgedr import members, strictjson
from edgedr.errors import Damaged, EdgedrError, RestoreStopped, StorageError
from edgedr.inventory import Entry, EntryKind, Inventory
from edgedr.members import Member
from edgedr.recovery.extract import extract
from tests.lab.trees import picture

CONTENT = b"content"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def entry_of(path: str, kind: EntryKind, mode: int, **changes: object) -> Entry:
    plain = Entry(path, kind, "files", mode, uid=os.geteuid(), gid=os.getegid(), mtime_ns=0)
    return replace(plain, **changes)  # type: ignore[arg-type]


def file(path: str, **changes: object) -> Entry:
    return replace(entry_of(path, EntryKind.FILE, 0o600, size=len(CONTENT), sha256=SHA256), **changes)  # type: ignore[arg-type]


def directory(path: str, **changes: object) -> Entry:
    return replace(entry_of(path, EntryKind.DIRECTORY, 0o755), **changes)  # type: ignore[arg-type]


def symlink(path: str, target: str) -> Entry:
    return entry_of(path, EntryKind.SYMLINK, 0o777, target=target)


def hardlink(path: str, target: str) -> Entry:
    return entry_of(path, EntryKind.HARDLINK, 0o600, target=target)


def record(entries: Iterable[Entry]) -> bytes:
    return strictjson.encode(Inventory(1, "s", "n", {}, tuple(entries), ()))


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def member(entry: Entry, content: bytes = CONTENT) -> bytes:
    header = members.encode(Member.of(entry))
    return header + (padded(content) if entry.kind is EntryKind.FILE else b"")


def raw(name: str, type_: bytes = tarfile.REGTYPE, content: bytes = b"", **fields: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = type_, len(content), 0o600
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape") + padded(content)


def packed(entries: Iterable[Entry], body: bytes | None = None, *, inventory: bytes | None = None) -> bytes:
    """Put an archive together without any of the writer's care; by default it agrees with its inventory."""
    entries = list(entries)
    inventory = record(entries) if inventory is None else inventory
    body = b"".join(member(entry) for entry in entries) if body is None else body
    data = members.encode(Member.document("inventory.json", len(inventory))) + padded(inventory) + body
    return data + bytes(1024 + -(len(data) + 1024) % 10240)


@pytest.fixture
def around(tmp_path: Path) -> Path:
    """Return a directory with something to destroy beside the target."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "shadow").write_bytes(b"root:!:")
    return tmp_path


def refused(around: Path, data: bytes, match: str = ".", kind: type[EdgedrError] = Damaged) -> None:
    before = picture(around)
    with pytest.raises(kind, match=match) as caught:
        extract(io.BytesIO(data), around / "new", max_bytes=len(data))
    assert caught.value.hint
    assert picture(around) == before, "something was written"


def test_the_plain_case_is_accepted(around: Path) -> None:
    """The hand-made archives of this file are refused for what is wrong with them, not for how they are made."""
    data = packed([directory("/d"), file("/d/f"), hardlink("/d/h", "/d/f"), symlink("/d/s", "/anywhere")])
    extract(io.BytesIO(data), around / "new", max_bytes=len(data))
    assert (around / "new/d/h").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "path",
    ["/../outside/x", "/d/../../outside/x", "/..", "//etc/x", "/d//x", "/./x", "/d/.", "/", "etc/x", "", "/d/x\0y"],
)
def test_names_that_leave_the_target_are_refused(around: Path, path: str) -> None:
    """``..``, absolute, empty and NUL names do not get past the inventory, even if archive and inventory agree."""
    refused(around, packed([directory("/d"), file(path)]))
    if path.startswith("/"):
        refused(around, packed([directory("/d")], member(directory("/d")) + member(file(path))))


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("/etc/passwd", "not a name inside"),
        ("../x", "not a name inside"),
        ("files/../../x", "not a name inside"),
        ("runbooks/../../x", "not a name inside"),
        ("runbooks//x", "not a name inside"),
        ("x", "does not list"),
        ("files", "does not list"),
        (".edgedr/x", "does not list"),
        ("inventory.json", "does not list"),
    ],
)
def test_members_outside_the_known_places_are_refused(around: Path, name: str, match: str) -> None:
    """A member that is neither a listed file nor a document has no place to go."""
    refused(around, packed([], raw(name, content=CONTENT)), match)


def test_only_files_have_content(around: Path) -> None:
    """A directory with a size would put one reader out of step with another."""
    refused(around, packed([], raw("files/x", tarfile.DIRTYPE, CONTENT)), "with content")


def test_a_link_as_a_directory_is_refused(around: Path) -> None:
    """A symbolic link to the outside, followed by a file below it, writes nothing (CVE-2025-4517 and its kin)."""
    refused(around, packed([symlink("/d", str(around / "outside")), file("/d/x")]), "not below a directory")
    refused(around, packed([directory("/d"), symlink("/d", str(around / "outside")), file("/d/x")]), "listed twice")
    refused(around, packed([file("/d"), file("/d/x")]), "not below a directory")
    refused(around, packed([file("/d/x")]), "not below a directory")


@pytest.mark.parametrize("target", ["/../outside/shadow", "/absent", "/d", "/s", "/h", ""])
def test_hard_links_lead_to_files_of_the_archive_only(around: Path, target: str) -> None:
    """A hard link cannot give a name to a file outside, a directory, a symbolic link, itself, or nothing."""
    entries = [directory("/d"), file("/f"), symlink("/s", str(around / "outside/shadow")), hardlink("/h", target)]
    refused(around, packed(entries))


def test_hard_links_to_later_files_are_refused(around: Path) -> None:
    """Only a file that is there already can be linked to."""
    refused(around, packed([hardlink("/a", "/b"), file("/b")]), "hard link")


@pytest.mark.parametrize(
    "type_",
    [
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.CONTTYPE,
        tarfile.GNUTYPE_SPARSE,
        b"L",
        b"K",
        b"g",
        b"V",
        b"\0",
    ],
)
def test_other_kinds_of_members_are_refused(around: Path, type_: bytes) -> None:
    """Devices, FIFOs and the extensions of other archivers are never made, listed or not."""
    refused(around, packed([file("/x", size=0)], raw("files/x", type_)), "type")


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6600, 0o10600])
def test_setuid_files_are_refused(around: Path, mode: int) -> None:
    """Nothing that a restore makes runs with somebody else's rights."""
    refused(around, packed([file("/x", mode=mode)]), "setuid" if mode < 0o10000 else ".")
    refused(around, packed([directory("/x", mode=0o4755)]), "setuid")


def test_file_capabilities_are_refused(around: Path) -> None:
    """Capabilities are setuid by another name."""
    refused(around, packed([file("/x", xattrs={"security.capability": "AAAA"})]), "capability")


@pytest.mark.parametrize("owner", [{"uid": 2**32 - 1}, {"gid": 2**40}])
def test_impossible_owners_are_refused(around: Path, owner: dict[str, int]) -> None:
    """The owner -1 means "leave it as it is", which is not what the inventory says."""
    refused(around, packed([file("/x", **owner)]), "owner")


def test_owners_by_name_are_refused(around: Path) -> None:
    """Stock tar would give the file to whoever has that name here, and we to a number."""
    refused(around, packed([file("/x")], raw("files/x", content=CONTENT, uname="root")), "owner by name")


def test_duplicates_are_refused(around: Path) -> None:
    """One name, one content: the second of two would win with one reader and the first with another."""
    refused(around, packed([file("/x"), file("/x")]), "listed twice")
    refused(around, packed([file("/x")], member(file("/x")) * 2), "twice")
    document = raw("runbooks/a.md", content=b"#")
    refused(around, packed([], document * 2), "twice")
    refused(around, packed([], document + raw("runbooks/a.md/b.md")), "below another")


def test_members_and_inventory_must_be_the_same_set(around: Path) -> None:
    """A member that is not listed, a listed one that is not there, and another order are refused."""
    refused(around, packed([file("/x")], member(file("/x")) + member(file("/y"))), "does not list")
    refused(around, packed([file("/x"), file("/y")], member(file("/x"))), "but not there")
    refused(around, packed([file("/x"), file("/y")], member(file("/y")) + member(file("/x"))), "order")


@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("mode", file("/x", mode=0o644)),
        ("uid", file("/x", uid=77)),
        ("gid", file("/x", gid=77)),
        ("mtime_ns", file("/x", mtime_ns=1)),
        ("size", file("/x", size=3)),
        ("xattrs", file("/x", xattrs={"user.a": "AA=="})),
        ("kind", directory("/x", mode=0o600)),
        ("kind", symlink("/x", "/y")),
        ("kind", hardlink("/x", "/y")),
    ],
)
def test_headers_must_be_what_the_inventory_says(around: Path, what: str, other: Entry) -> None:
    """The sealed record is what a person reads; the archive cannot do something else."""
    refused(around, packed([file("/x")], member(other, CONTENT[: other.size])), f"{what}.* differs")


def test_link_targets_must_be_what_the_inventory_says(around: Path) -> None:
    """A link cannot point elsewhere than its record says."""
    refused(around, packed([symlink("/x", "/a")], member(symlink("/x", "/b"))), "target differs")


def test_contents_must_be_what_the_inventory_says(around: Path) -> None:
    """A content of the right size and the wrong hash is found before anything is written."""
    refused(around, packed([file("/x")], member(file("/x"), b"CONTENT")), "content")


@pytest.mark.parametrize(
    ("entry", "match"),
    [
        (file("/x", sha256=None), "a hash where none belongs, or none"),
        (file("/x", sha256="0" * 63), "a hash that is none"),
        (file("/x", sha256="Z" * 64), "a hash that is none"),
        (file("/x", target="/y"), "a target where none belongs, or none"),
        (directory("/x", sha256=SHA256), "a hash where none belongs"),
        (directory("/x", target="/y"), "a target where none belongs"),
        (directory("/x", size=7), "a size where none belongs"),
        (symlink("/x", ""), "a target where none belongs, or none"),
        (symlink("/x", "a\0b"), "a target where none belongs, or none"),
        (file("/x", xattrs={"user.a": "not base64!"}), "not base64"),
        (file("/" + "x" * 256), "too long"),
        (file("/.edgedr"), "edgedr's own"),
        (directory("/.edgedr"), "edgedr's own"),
    ],
)
def test_entries_that_make_no_sense_are_refused(around: Path, entry: Entry, match: str) -> None:
    """An inventory that contradicts itself is not interpreted."""
    refused(around, packed([entry], raw("files/x", content=CONTENT)), match)


@pytest.mark.parametrize(
    ("inventory", "match"),
    [
        (b"", "line 1"),
        (b"[" * 100_000, "nested deeper"),
        (b'{"schema": NaN}', "NaN"),
        (b'{"schema": 2, "future": [1]}', "schema 2"),
        (record([file("/x")]).replace(b'"size": 7', b'"size": -7'), "out of range"),
        (record([file("/x")]).replace(b'"size": 7', b'"size": 9223372036854775808'), "out of range"),
        (record([file("/x")]).replace(b'"size": 7', b'"size": 7, "size": 7'), "twice"),
        (record([file("/x")]).replace(b'"file"', b'"device"'), "not one of"),
        (record([file("/x")]).replace(b'"/x"', b'"/\\ud800"'), "surrogate"),
    ],
)
def test_hostile_inventories_are_refused(around: Path, inventory: bytes, match: str) -> None:
    """Deep, huge, negative, doubled, unknown or newer records are refused by name, and without a crash."""
    refused(around, packed([file("/x")], inventory=inventory), match)


def test_an_archive_without_an_inventory_is_refused(around: Path) -> None:
    """Someone else's tar file is not extracted, and neither is an empty one."""
    refused(around, raw("files/x", content=CONTENT) + bytes(1024), "does not begin with")
    refused(around, bytes(1024), "does not begin with")
    refused(around, raw("inventory.json", tarfile.SYMTYPE, linkname="/etc/shadow") + bytes(1024), "does not begin with")


def test_an_inventory_of_huge_size_is_refused_before_it_is_read(around: Path) -> None:
    """The header alone cannot make us allocate."""
    data = members.encode(Member.document("inventory.json", 1 << 40)) + bytes(1024)
    with pytest.raises(Damaged, match="bytes long"):
        extract(io.BytesIO(data), around / "new", max_bytes=1 << 50)


def pax(*records: tuple[bytes, bytes]) -> bytes:
    content = b""
    for key, value in records:
        rest = b" " + key + b"=" + value + b"\n"
        size = next(n for n in range(len(rest), len(rest) + 9) if len(str(n)) + len(rest) == n)
        content += str(size).encode() + rest
    return raw("x", tarfile.XHDTYPE, content)


@pytest.mark.parametrize(
    ("header", "match"),
    [
        (pax((b"path", b"files/a\0b")), "not a name"),
        (pax((b"path", b"/etc/passwd")), "not a name"),
        (pax((b"path", b"files/../x")), "not a name"),
        (pax((b"path", b"files/" + b"x/" * 20_000 + b"x")), "not a name"),
        (pax((b"path", b"files/x"), (b"path", b"files/y")), "'path' twice"),
        (pax((b"GNU.sparse.major", b"1")), "never writes"),
        (pax((b"uname", b"root")), "never writes"),
        (pax((b"size", b"-5")), "no number"),
        (pax((b"size", b"1e3")), "no number"),
        (pax((b"uid", "\u0663".encode())), "no number"),
        (pax((b"mtime", b"nan")), "no number"),
        (pax((b"hdrcharset", b"EBCDIC")), "character set"),
        (raw("x", tarfile.XHDTYPE, b"99 path=short\n"), "damaged extended header"),
        (raw("x", tarfile.XHDTYPE, b"0 path=x\n"), "damaged extended header"),
        (raw("x", tarfile.XHDTYPE, b"-3 path=x\n"), "damaged extended header"),
        (raw("x", tarfile.XHDTYPE, b"path"), "damaged extended header"),
        (raw("x", tarfile.XHDTYPE), "of 0 bytes"),
        (raw("x", tarfile.XHDTYPE, b"\0" * ((1 << 20) + 1)), "of 1048577 bytes"),
        (pax((b"path", b"files/x")) * 2, "type"),
    ],
)
def test_hostile_extended_headers_are_refused(around: Path, header: bytes, match: str) -> None:
    """Extended headers are bounded, each keyword once, only of those that edgedr writes, with sound values."""
    refused(around, packed([file("/x")], header + raw("files/x", content=CONTENT)), match)


@pytest.mark.parametrize(
    "document",
    [
        raw("runbooks/a.md", tarfile.SYMTYPE, linkname="/etc/shadow"),
        raw("runbooks/a.md", tarfile.DIRTYPE),
        raw("runbooks/a.md", mode=0o4755),
        raw("runbooks/a.md", uid=1),
        raw("runbooks/.hidden"),
        raw("Runbooks/a.md"),
        raw("runbooks/a\nb"),
        raw("runbooks/a\x1b[2J"),
    ],
)
def test_documents_are_plain_files_with_plain_names(around: Path, document: bytes) -> None:
    """A document is text for people, and nothing else can pass for one."""
    refused(around, packed([], document))


def test_counts_are_bounded(around: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of members is refused when the limit is reached, not when memory is."""
    monkeypatch.setattr(archive_module, "MAX_MEMBERS", 2)
    refused(around, packed([file("/a"), file("/b"), file("/c")]), "more than 2 members")


class Interrupted(io.BytesIO):
    """An archive whose second reading lets somebody else act first."""

    def __init__(self, data: bytes, act: Callable[[], None], *, after: int) -> None:
        super().__init__(data)
        self._act: Callable[[], None] | None = act
        self._after = after
        self._readings = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._readings += 1
        return super().seek(offset, whence)

    def read(self, size: int | None = -1) -> bytes:
        if self._readings and self._act is not None and self.tell() >= self._after:
            act, self._act = self._act, None
            act()
        return super().read(size)


def test_a_name_that_is_taken_meanwhile_is_refused(around: Path) -> None:
    """Where two names are one (a file system without case), or somebody else was first, nothing is overwritten."""
    data = packed([directory("/d"), file("/d/Key")])

    def act() -> None:
        (around / "new/d/Key").write_bytes(b"theirs")

    stream = Interrupted(data, act, after=data.index(b"files/d/Key\0"))
    with pytest.raises(Damaged, match="is there already") as caught:
        extract(stream, around / "new", max_bytes=len(data))
    assert "case" in (caught.value.hint or "")
    assert (around / "new/d/Key").read_bytes() == b"theirs"


def test_a_directory_that_becomes_a_link_meanwhile_is_not_followed(around: Path) -> None:
    """Somebody who swaps a directory for a link while we write gains no write outside."""
    data = packed([directory("/d"), file("/d/shadow")])

    def act() -> None:
        (around / "new/d").rmdir()
        (around / "new/d").symlink_to(around / "outside")

    before = (around / "outside/shadow").read_bytes()
    stream = Interrupted(data, act, after=data.index(b"files/d/shadow\0"))
    with pytest.raises(RestoreStopped, match="replaced by a link"):
        extract(stream, around / "new", max_bytes=len(data))
    assert (around / "outside/shadow").read_bytes() == before
    assert [path.name for path in (around / "outside").iterdir()] == ["shadow"]


def test_an_archive_that_changes_between_the_readings_is_refused(around: Path) -> None:
    """What was validated is what is written, or nothing stays."""
    data = packed([directory("/d"), file("/d/a"), file("/d/x")])
    stream = Interrupted(data, lambda: None, after=0)
    at = data.rindex(CONTENT)

    def act() -> None:
        stream.getbuffer()[at : at + len(CONTENT)] = CONTENT.upper()

    stream._act = act
    with pytest.raises(Damaged, match="content"):
        extract(stream, around / "new", max_bytes=len(data))
    assert not (around / "new").exists()


def test_a_target_in_use_is_left_alone(around: Path) -> None:
    """A directory with something in it, a link and a file are refused as targets."""
    data = packed([file("/x")])
    (around / "link").symlink_to(around / "empty")
    (around / "empty").mkdir()
    for target in (around / "outside", around / "link", around / "outside" / "shadow"):
        with pytest.raises(RestoreStopped):
            extract(io.BytesIO(data), target, max_bytes=len(data))
    assert [path.name for path in (around / "outside").iterdir()] == ["shadow"]
    assert list((around / "empty").iterdir()) == []
    with pytest.raises(StorageError):
        extract(io.BytesIO(data), around / "outside" / "shadow" / "below", max_bytes=len(data))
    extract(io.BytesIO(data), around / "empty", max_bytes=len(data))


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_do_not_depend_on_the_umask(around: Path, umask: int) -> None:
    """With any umask: the target 0700, documents 0600, files and directories exactly as recorded."""
    entries = [directory("/d", mode=0o1777), file("/d/f", mode=0o664), file("/d/key")]
    data = packed(entries, raw("runbooks/a.md") + b"".join(member(entry) for entry in entries))
    before = os.umask(umask)
    try:
        extract(io.BytesIO(data), around / "new", max_bytes=len(data))
    finally:
        os.umask(before)
    modes = {
        str(path.relative_to(around / "new")): path.stat().st_mode & 0o7777 for path in (around / "new").rglob("*")
    }
    assert modes == {
        ".edgedr": 0o700,
        ".edgedr/inventory.json": 0o600,
        ".edgedr/runbooks": 0o700,
        ".edgedr/runbooks/a.md": 0o600,
        "d": 0o1777,
        "d/f": 0o664,
        "d/key": 0o600,
    }
    assert (around / "new").stat().st_mode & 0o777 == 0o700


def test_nothing_is_open_to_others_while_it_is_written(around: Path) -> None:
    """With umask 000, a look into the middle of an extraction finds directories 0700 and files 0600."""
    content = bytes(range(256)) * (8 << 10)
    large = {"mode": 0o666, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    entries = [directory("/d", mode=0o777), file("/d/f", **large)]
    document = raw("runbooks/a.md", content=content)
    data = packed(entries, document + member(entries[0]) + member(entries[1], content))
    seen: dict[str, int] = {}

    def look() -> None:
        seen.update((path.name, path.stat().st_mode & 0o777) for path in (around / "new").rglob("*"))

    before = os.umask(0)
    try:
        for position in (data.index(content), data.rindex(content)):
            extract(Interrupted(data, look, after=position + (1 << 20)), around / "new", max_bytes=len(data))
            shutil.rmtree(around / "new")
    finally:
        os.umask(before)
    assert seen == {".edgedr": 0o700, "runbooks": 0o700, "d": 0o700, "a.md": 0o600, "f": 0o600}


def test_attributes_that_cannot_be_set_are_said(around: Path) -> None:
    """An attribute that this file system refuses is a finding; the file comes back all the same."""
    data = packed([file("/x", xattrs={"nonsense.name": "AA==", "user.ok": "AA=="})])
    _, findings = extract(io.BytesIO(data), around / "new", max_bytes=len(data))
    assert [(finding.subject, finding.text.split(":")[0]) for finding in findings] == [
        ("/x", "attribute 'nonsense.name' could not be restored")
    ]
    assert os.getxattr(around / "new/x", "user.ok") == b"\0"


def test_an_archive_that_is_not_there_is_a_storage_error(around: Path) -> None:
    """A path to nothing is told as such, and a path to an archive is read."""
    with pytest.raises(StorageError):
        extract(around / "absent.tar", around / "new", max_bytes=1)
    data = packed([file("/x")])
    (around / "node.tar").write_bytes(data)
    extract(around / "node.tar", around / "new", max_bytes=len(data))
    assert (around / "new/x").read_bytes() == CONTENT
