"""``node.tar``: what goes in comes out, in the same bytes each time, with and without edgedr."""

import io
import os
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from edgedr import durable
from edgedr.archive import ArchiveReader
from edgedr.archive_writer import ArchiveWriter
from edgedr.errors import Damaged, StorageError
from edgedr.inventory import EntryKind, Inventory, SourceRecord
from edgedr.model import Status
from edgedr.node.files import Files
from edgedr.recovery.extract import extract
from edgedr.storage.base import Spool
from tests.lab import kubeadm, trees
from tests.lab.tools import need

LIMIT = 64 << 20


class Bytes(io.BytesIO):
    """A ``ByteSink`` in memory."""

    size = 0

    def write(self, data: object) -> int:
        written = super().write(data)  # type: ignore[arg-type]
        self.size += written
        return written


def archive(
    root: Path,
    spool: Path,
    taken: Iterable[tuple[str, Iterable[str]]] = (("files", ("/**",)),),
    documents: Iterable[tuple[str, bytes]] = (),
) -> tuple[bytes, Inventory]:
    """Capture what each source's patterns name below ``root``."""
    files = Files(root)
    sink = Bytes()
    with ArchiveWriter(spool, files) as writer:
        for source, patterns in taken:
            for path in files.expand(patterns):
                writer.take(path, source)
        for member, data in documents:
            writer.document(member, data)
        records = {source: SourceRecord(Status.OK) for source, _ in taken}
        inventory = writer.finish("hall-7", "cp-1", records, sink)
    return sink.getvalue(), inventory


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    trees.odd(root)
    return root


def test_a_kubeadm_node_comes_back_as_it_was(tmp_path: Path) -> None:
    """Capture, archive, extract: modes, times, owners, contents and names are those of the node."""
    root = kubeadm.unpack(tmp_path / "root")
    data, inventory = archive(root, tmp_path / "spool")
    extracted, findings = extract(io.BytesIO(data), tmp_path / "new", max_bytes=len(data))
    assert extracted == inventory
    assert not inventory.left_out
    came_back = {name: seen for name, seen in trees.picture(tmp_path / "new").items() if not name.startswith(".edgedr")}
    assert came_back == trees.picture(root)
    assert (tmp_path / "new" / ".edgedr" / "inventory.json").stat().st_mode & 0o777 == 0o600
    assert os.geteuid() or not findings


def test_odd_files_come_back_as_they_were(tmp_path: Path, odd: Path) -> None:
    """Long, non-UTF-8 and newline names, links of both kinds, holes, attributes, odd owners and times survive."""
    data, inventory = archive(odd, tmp_path / "spool")
    extract(io.BytesIO(data), tmp_path / "new", max_bytes=len(data))
    came_back = {name: seen for name, seen in trees.picture(tmp_path / "new").items() if not name.startswith(".edgedr")}
    assert came_back == trees.picture(odd)
    kinds = {entry.path: entry.kind for entry in inventory.entries}
    assert kinds["/odd/a-first"] is EntryKind.FILE
    assert kinds["/odd/links/hard"] is EntryKind.HARDLINK
    assert (tmp_path / "new/odd/sparse").stat().st_blocks * 512 < 1 << 20


@pytest.mark.parametrize("tree", ["kubeadm", "odd"])
def test_stock_tar_extracts_the_same_tree(tmp_path: Path, tree: str) -> None:
    """``tar --xattrs -xpf`` alone gives the node's files back: no lock-in."""
    tar = need("tar")
    root = tmp_path / "root"
    _ = trees.odd(root) if tree == "odd" else kubeadm.unpack(root)
    data, _ = archive(root, tmp_path / "spool", documents=[("runbooks/restore.md", b"# Restore\n")])
    (tmp_path / "node.tar").write_bytes(data)
    (tmp_path / "out").mkdir()
    command = [tar, "--xattrs", "--xattrs-include=*", "-xpf", str(tmp_path / "node.tar"), "-C", str(tmp_path / "out")]
    done = subprocess.run(command, check=True, capture_output=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
    assert trees.picture(tmp_path / "out" / "files") == trees.picture(root)
    assert (tmp_path / "out" / "runbooks" / "restore.md").read_bytes() == b"# Restore\n"
    complaints = [
        line for line in done.stderr.splitlines() if b"hdrcharset" not in line and b"implausibly old" not in line
    ]
    assert complaints == []
    listed = subprocess.run([tar, "-tf", tmp_path / "node.tar"], check=True, capture_output=True).stdout
    assert listed.startswith(b"inventory.json\nrunbooks/restore.md\nfiles/")


def test_the_same_node_gives_the_same_bytes(tmp_path: Path, odd: Path) -> None:
    """An unchanged node costs nothing to back up again, whatever the order in which sources ask."""
    documents = [("dns/zones.md", b"z"), ("addresses/ip.json", b"{}")]
    first, _ = archive(odd, tmp_path / "spool", [("files", ("/odd/links", "/odd"))], documents)
    again, _ = archive(odd, tmp_path / "spool", [("files", ("/odd", "/odd/links"))], documents[::-1])
    assert first == again
    assert not (tmp_path / "spool").exists()


def test_members_are_in_the_documented_order(tmp_path: Path, odd: Path) -> None:
    """The inventory comes first, then documents, then files; a directory before what is in it; owners without names."""
    data, _ = archive(odd, tmp_path / "spool", documents=[("runbooks/b.md", b""), ("dns/a.md", b"")])
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        members = opened.getmembers()
    assert [member.name for member in members[:4]] == ["inventory.json", "dns/a.md", "runbooks/b.md", "files/odd"]
    names = [os.fsencode(member.name) for member in members[3:]]
    assert names == sorted(names)
    assert {member.uname + member.gname for member in members} == {""}
    assert len(data) % 10240 == 0


def test_a_path_belongs_to_the_source_that_takes_it_first(tmp_path: Path) -> None:
    """Certificates below a directory of another source are not stored twice, nor taken over."""
    root = kubeadm.unpack(tmp_path / "root")
    _, inventory = archive(
        root, tmp_path / "spool", [("certificates", ("/etc/kubernetes/pki",)), ("files", ("/etc/kubernetes",))]
    )
    owners = {entry.path: entry.source for entry in inventory.entries}
    assert len(owners) == len(inventory.entries)
    assert owners["/etc/kubernetes/pki/ca.key"] == "certificates"
    assert owners["/etc/kubernetes/admin.conf"] == "files"
    assert owners["/etc"] == "certificates"


def test_directories_above_a_taken_path_are_taken_too(tmp_path: Path) -> None:
    """A restored key lies in a directory as closed as the one it came from."""
    (tmp_path / "root/secret/deep").mkdir(parents=True)
    (tmp_path / "root/secret").chmod(0o700)
    (tmp_path / "root/secret/deep/key").write_bytes(b"k")
    data, _ = archive(tmp_path / "root", tmp_path / "spool", [("files", ("/secret/deep/key",))])
    extract(io.BytesIO(data), tmp_path / "new", max_bytes=len(data))
    assert (tmp_path / "new/secret").stat().st_mode & 0o777 == 0o700


def test_dropping_a_source_keeps_what_others_stand_on(tmp_path: Path) -> None:
    """A source that fails half-way leaves no path behind, and takes no directory away from another."""
    root = kubeadm.unpack(tmp_path / "root")
    files, sink = Files(root), Bytes()
    with ArchiveWriter(tmp_path / "spool", files) as writer:
        writer.take(PurePosixPath("/etc/kubernetes/pki/ca.crt"), "certificates")
        writer.take(PurePosixPath("/etc/kubernetes/admin.conf"), "files")
        writer.drop("certificates")
        inventory = writer.finish("s", "n", {"files": SourceRecord(Status.OK)}, sink)
    assert {(entry.path, entry.source) for entry in inventory.entries} == {
        ("/etc", "files"),
        ("/etc/kubernetes", "files"),
        ("/etc/kubernetes/admin.conf", "files"),
    }
    extract(io.BytesIO(sink.getvalue()), tmp_path / "new", max_bytes=LIMIT)


def test_what_was_not_kept_is_said(tmp_path: Path) -> None:
    """A dropped setuid bit, a link that leads out of the backup, a FIFO: each is in the inventory by name."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "tool").write_bytes(b"#!")
    (root / "tool").chmod(0o4755)
    (root / "elsewhere").write_bytes(b"x")
    (root / "link").symlink_to("/elsewhere")
    os.mkfifo(root / "pipe")
    _, inventory = archive(root, tmp_path / "spool", [("files", ("/tool", "/pipe", "/l*k"))])
    assert "/elsewhere" in {entry.path for entry in inventory.entries}  # a named link brings along what it leads to
    _, inventory = archive(root, tmp_path / "spool", [("files", ("/[tp]*",))])
    assert {entry.path: entry.mode for entry in inventory.entries} == {"/tool": 0o755}
    assert [(left.path, left.reason) for left in inventory.left_out] == [("/pipe", "a FIFO")]
    assert "setuid" in inventory.sources["files"].findings[0].text


def test_a_link_out_of_the_backup_is_a_finding(tmp_path: Path) -> None:
    """A key that is only linked to from the PKI directory is not in the backup, and the inventory says so."""
    root = tmp_path / "root"
    (root / "pki").mkdir(parents=True)
    (root / "hsm").write_bytes(b"key")
    (root / "pki" / "ca.key").symlink_to("../hsm")
    _, inventory = archive(root, tmp_path / "spool", [("certificates", ("/pki",))])
    (finding,) = inventory.sources["certificates"].findings
    assert (finding.subject, finding.text) == ("/pki/ca.key", "points to ../hsm, which is not in the backup")


def test_our_own_directory_is_left_out(tmp_path: Path) -> None:
    """A tree that was itself restored by edgedr can be captured, without its restore's documents."""
    root = tmp_path / "root"
    (root / ".edgedr/runbooks").mkdir(parents=True)
    (root / ".edgedr/runbooks/x.md").write_bytes(b"x")
    (root / "file").write_bytes(b"x")
    data, inventory = archive(root, tmp_path / "spool")
    assert {entry.path for entry in inventory.entries} == {"/file"}
    assert inventory.left_out[0].path == "/.edgedr"
    extract(io.BytesIO(data), tmp_path / "new", max_bytes=len(data))


def test_a_full_disk_leaves_no_spool(tmp_path: Path) -> None:
    """What cannot be spooled fails cleanly: keys are not left lying about."""
    root = kubeadm.unpack(tmp_path / "root")
    (tmp_path / "state").mkdir()
    with pytest.raises(StorageError), ArchiveWriter(tmp_path / "state/spool", Files(root), floor=1 << 60) as writer:
        writer.take(PurePosixPath("/etc/kubernetes/pki/ca.key"), "certificates")
    assert list((tmp_path / "state").iterdir()) == []


def test_the_spool_is_for_its_owner_alone(tmp_path: Path) -> None:
    """With umask 000 the keys in the spool are still readable by nobody else."""
    before = os.umask(0)
    try:
        with ArchiveWriter(tmp_path / "spool", Files(tmp_path)):
            assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o600]
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    "name", ["files/x", "inventory.json", "../x", "runbooks/../x", "Runbooks/x", "/x/y", "runbooks/.x"]
)
def test_documents_have_names_that_extraction_accepts(tmp_path: Path, name: str) -> None:
    """A source cannot give a document a name that would stop the restore."""
    with ArchiveWriter(tmp_path / "spool", Files(tmp_path)) as writer, pytest.raises(ValueError, match="name"):
        writer.document(name, b"")


def test_every_cut_and_every_flipped_header_bit_is_noticed(tmp_path: Path) -> None:
    """A truncated or damaged archive is ``Damaged`` wherever it was hit, never half extracted."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "key").write_bytes(b"secret")
    data, _ = archive(root, tmp_path / "spool")
    end = len(data.rstrip(b"\0")) // 512 * 512 + 512 + 1024  # where the second empty block ends
    for size in range(0, end, 256):
        with pytest.raises(Damaged):
            extract(io.BytesIO(data[:size]), tmp_path / "new", max_bytes=len(data))
    for position in range(0, 512, 3):
        hit = bytearray(data)
        hit[position] ^= 0x10
        with pytest.raises(Damaged):
            extract(io.BytesIO(hit), tmp_path / "new", max_bytes=len(data))
    with pytest.raises(Damaged, match="longer than its manifest says"):
        extract(io.BytesIO(data), tmp_path / "new", max_bytes=1024)
    with pytest.raises(Damaged, match="goes on after its end"):
        extract(io.BytesIO(data + b"more"), tmp_path / "new", max_bytes=len(data) + 4)
    assert not (tmp_path / "new").exists()


def test_reading_gives_contents_and_may_skip_them(tmp_path: Path) -> None:
    """A reader can stream one member out of many without holding any of them."""
    root = kubeadm.unpack(tmp_path / "root")
    data, inventory = archive(root, tmp_path / "spool")
    reader = ArchiveReader(io.BytesIO(data), max_bytes=len(data))
    assert reader.inventory == inventory
    found = {member.name: b"".join(content) for member, content in reader.members() if member.name.endswith("ca.crt")}
    assert found["files/etc/kubernetes/pki/ca.crt"] == (root / "etc/kubernetes/pki/ca.crt").read_bytes()
    assert len(found) == 3


def test_a_hard_link_reused_for_another_file_is_not_taken_for_it(tmp_path: Path) -> None:
    """An inode number that was freed and given to another file in mid-capture does not mix up two contents."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "a").write_bytes(b"old")
    (root / "b").hardlink_to(root / "a")
    files, sink = Files(root), Bytes()
    with ArchiveWriter(tmp_path / "spool", files) as writer:
        writer.take(PurePosixPath("/a"), "files")
        (root / "b").write_bytes(b"newer")
        writer.take(PurePosixPath("/b"), "files")
        inventory = writer.finish("s", "n", {}, sink)
    assert [(entry.kind, entry.size) for entry in inventory.entries] == [(EntryKind.FILE, 3), (EntryKind.FILE, 5)]
    extract(io.BytesIO(sink.getvalue()), tmp_path / "new", max_bytes=LIMIT)
    assert (tmp_path / "new/b").read_bytes() == b"newer"


def test_one_source_can_be_extracted_alone(tmp_path: Path, odd: Path) -> None:
    """``--only`` brings one source's paths with their directories, and content where only a hard link was chosen."""
    data, inventory = archive(odd, tmp_path / "spool", [("files", ("/odd/a-first",)), ("other", ("/odd/links",))])
    assert replace(inventory, left_out=()) == inventory
    extract(io.BytesIO(data), tmp_path / "new", sources=["other"], max_bytes=len(data))
    assert not (tmp_path / "new/odd/a-first").exists()
    assert (tmp_path / "new/odd/links/hard").read_bytes() == b"shared"


@pytest.mark.parametrize(
    "name",
    ["", "x", "x/", "/x", "runbooks//x", "runbooks/x/", "runbooks/x\n", "runbooks/ä", "runbooks/-x", "1x/y", "x/y z"],
)
def test_documents_have_names_that_every_tool_takes(tmp_path: Path, name: str) -> None:
    """No name of a document can be mistaken for a directory, an option or another line; none leads elsewhere."""
    with ArchiveWriter(tmp_path / "spool", Files(tmp_path)) as writer, pytest.raises(ValueError, match="no name"):
        writer.document(name, b"")


def test_a_document_is_written_once(tmp_path: Path) -> None:
    """Two sources cannot write under one name: the first stays, and a name that was dropped is free again."""
    sink = Bytes()
    with ArchiveWriter(tmp_path / "spool", Files(tmp_path)) as writer:
        writer.document("dns/zone.txt", b"first")
        for content in (b"second", lambda spool: spool.write(b"second")):
            with pytest.raises(ValueError, match="taken"):
                writer.document("dns/zone.txt", content)
        writer.document("dns/other.txt", b"half")
        writer.drop_documents(["dns/other.txt", "dns/never.txt"])
        writer.document("dns/other.txt", b"whole")
        writer.finish("s", "n", {}, sink)
    reader = ArchiveReader(io.BytesIO(sink.getvalue()), max_bytes=LIMIT)
    found = {member.name: b"".join(content) for member, content in reader.members()}
    assert found == {"dns/zone.txt": b"first", "dns/other.txt": b"whole"}


def test_what_was_forgotten_takes_no_room(tmp_path: Path) -> None:
    """A document that begins again gives back what it had written: a floor that stopped it lets others go on."""

    def hesitating(spool: Spool) -> None:
        spool.write(bytes(100_000))
        spool.restart()
        spool.write(b"after all")

    (tmp_path / "node").mkdir()
    with ArchiveWriter(tmp_path / "spool", Files(tmp_path / "node")) as writer:
        writer.document("dns/first.txt", b"first")
        writer.document("dns/second.txt", hesitating)
        writer.document("dns/third.txt", b"third")
        (part,) = tmp_path.glob(".spool.*")
        assert part.stat().st_size == len(b"first") + len(b"after all") + len(b"third")


def test_room_is_left_for_the_archive_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is spooled is written once more: a spool stops while the floor would still hold for it alone."""
    monkeypatch.setattr(durable, "free_space_of", lambda _: 1000)
    monkeypatch.setattr(durable, "_SPACE_CHECK_EVERY", 1)
    with durable.replacing(tmp_path / "twice", floor=600, twice=True) as spool:
        spool.write(bytes(300))
        spool.write(bytes(300))
        with pytest.raises(StorageError, match="are kept free"):
            spool.write(b"x")
    with durable.replacing(tmp_path / "spool", floor=600) as spool:
        for _ in range(10):
            spool.write(bytes(300))
