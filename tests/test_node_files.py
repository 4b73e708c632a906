"""Reading a node's files: everything odd is kept or named, nothing makes edgedr wait, follow astray or keep half."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest

from edgedr.errors import ConfigurationError, SourceError
from edgedr.inventory import EntryKind
from edgedr.node.files import Files, matches
from edgedr.node.seen import Seen, Skipped
from tests.lab.trees import NANOSECONDS


class Sink:
    """Takes content; ``act`` happens after the first chunk of each reading, as if by somebody else."""

    def __init__(self, act: Callable[[int], None] = lambda reading: None) -> None:
        self.data = b""
        self.readings = 0
        self._act = act

    def restart(self) -> None:
        self.data = b""
        self.readings += 1

    def write(self, data: bytes) -> int:
        first, self.data = not self.data, self.data + data
        if first:
            self._act(self.readings)
        return len(data)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return an empty node."""
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture(autouse=True)
def _never_waits() -> Iterator[None]:
    def stop(signum: int, frame: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def at(path: str) -> PurePosixPath:
    return PurePosixPath(path)


def expanded(root: Path, *patterns: str) -> list[str]:
    return [str(path) for path in Files(root).expand(patterns)]


def reason(seen: Seen | Skipped) -> str:
    assert isinstance(seen, Skipped)
    return seen.reason


def kept(seen: Seen | Skipped) -> Seen:
    assert isinstance(seen, Seen)
    return seen


def test_patterns_name_paths(root: Path) -> None:
    """A path names itself, a directory all below it, ``*`` one part, ``**`` any number; sorted, each once."""
    make(root, "etc/b/one.conf", "etc/b/two.txt", "etc/.hidden", "etc/a", "other")
    assert expanded(root, "/etc/a", "/etc/a", "/absent") == ["/etc/a"]
    assert expanded(root, "/etc/b", "/etc/b/*.conf") == ["/etc/b", "/etc/b/one.conf", "/etc/b/two.txt"]
    assert expanded(root, "/etc/*") == ["/etc/.hidden", "/etc/a", "/etc/b", "/etc/b/one.conf", "/etc/b/two.txt"]
    assert expanded(root, "/**/*.conf", "/etc/**/a") == ["/etc/a", "/etc/b/one.conf"]
    assert expanded(root, "/e[st]c/?") == ["/etc/a", "/etc/b", "/etc/b/one.conf", "/etc/b/two.txt"]
    assert expanded(root, "/etc/a/below", "/etc/**/absent/*") == []
    assert "/other" in expanded(root, "/")
    assert "/" not in expanded(root, "/")


@pytest.mark.parametrize("pattern", ["etc/x", "", "/etc/../x", "*"])
def test_patterns_are_absolute(root: Path, pattern: str) -> None:
    """A relative pattern is a mistake in the configuration, and is said to be one."""
    with pytest.raises(ConfigurationError) as caught:
        Files(root).expand([pattern])
    assert caught.value.hint


def test_exclusion_patterns_cover_what_is_below() -> None:
    """An exclusion of a directory excludes its content."""
    assert matches(at("/a/b/c"), "/a")
    assert matches(at("/a/b/c"), "/a/*/c")
    assert matches(at("/a/b/c"), "/**/c")
    assert matches(at("/a/b/c"), "/**/b")
    assert not matches(at("/a/b/c"), "/b")
    assert not matches(at("/a/b"), "/a/b/c")


def test_a_named_link_brings_along_what_it_leads_to(root: Path) -> None:
    """``/etc/kubernetes`` may be a link to another disk: both come, and an absolute link stays below the root."""
    make(root, "data/k8s/pki/ca.key", "data/k8s/x.conf")
    (root / "etc").mkdir()
    (root / "etc/kubernetes").symlink_to("/data/k8s")
    assert expanded(root, "/etc/kubernetes/pki") == ["/data/k8s/pki", "/data/k8s/pki/ca.key", "/etc/kubernetes"]
    assert expanded(root, "/etc/*/*.conf") == ["/data/k8s/x.conf", "/etc/kubernetes"]
    assert Files(root).text("/etc/kubernetes/x.conf") == "data/k8s/x.conf"
    assert Files(root).real("/etc/kubernetes/../k8s/x.conf") == at("/data/k8s/x.conf")


def test_links_found_below_a_directory_are_not_followed(root: Path) -> None:
    """A link in a tree is one entry, wherever it leads: no loop, no excursion through the whole disk."""
    make(root, "tree/file", "elsewhere/much")
    (root / "tree/loop").symlink_to(".")
    (root / "tree/away").symlink_to("/elsewhere")
    assert expanded(root, "/tree") == ["/tree", "/tree/away", "/tree/file", "/tree/loop"]
    assert expanded(root, "/**/much") == ["/elsewhere/much"]


def test_link_loops_end(root: Path) -> None:
    """Links that lead to each other are listed, and lead nowhere."""
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    assert expanded(root, "/a/x") == ["/a", "/b"]
    assert not Files(root).exists("/a")
    assert Files(root).contents("/a") is None


def test_a_link_cannot_leave_the_root(tmp_path: Path, root: Path) -> None:
    """In a drill the machine's own files are out of reach, by ``..`` and by absolute links."""
    (tmp_path / "secret").write_bytes(b"s")
    (root / "up").symlink_to("../../secret")
    (root / "absolute").symlink_to(tmp_path / "secret")
    files = Files(root)
    assert files.contents("/up") is None
    assert files.contents("/absolute") is None
    assert files.contents("/../secret") is None


def test_a_flood_of_entries_is_bounded(root: Path) -> None:
    """Too many paths, or too deep ones, are an error that names the place, not an endless walk."""
    make(root, *(f"many/{number}" for number in range(20)), "a/b/c/d/e/f")
    with pytest.raises(SourceError, match="more than 10 paths"):
        Files(root, max_entries=10).expand(["/many"])
    for pattern in ("/a", "/**/f"):
        with pytest.raises(SourceError, match="levels deep"):
            Files(root, max_depth=4).expand([pattern])


def test_metadata_is_kept(root: Path) -> None:
    """Mode, owner, time to the nanosecond, attributes, targets and holes are seen as they are."""
    make(root, "file", "dir/x")
    os.setxattr(root / "file", "user.note", b"\0\xff")
    (root / "file").chmod(0o640)
    os.utime(root / "file", ns=(0, NANOSECONDS))
    (root / "dir").chmod(0o3775)
    (root / "link").symlink_to("file")
    (root / "sparse").touch()
    os.truncate(root / "sparse", 1 << 20)
    files = Files(root)
    file = kept(files.look(at("/file")))
    assert (file.kind, file.mode, file.uid, file.size) == (EntryKind.FILE, 0o640, os.geteuid(), 4)
    assert (file.mtime_ns, file.xattrs, file.sparse, file.notes) == (NANOSECONDS, {"user.note": b"\0\xff"}, False, ())
    directory = kept(files.look(at("/dir")))
    assert (directory.kind, directory.mode, directory.notes) == (EntryKind.DIRECTORY, 0o3775, ())
    link = kept(files.read(at("/link"), Sink()))
    assert (link.kind, link.target, link.size) == (EntryKind.SYMLINK, "file", 0)
    sink = Sink()
    assert kept(files.read(at("/sparse"), sink)).sparse
    assert sink.data == bytes(1 << 20)


@pytest.mark.parametrize("bits", [0o4000, 0o2000, 0o6000])
def test_rights_of_others_are_dropped_and_said(root: Path, bits: int) -> None:
    """No restore can make a setuid program out of a backup, and the inventory says what was lost."""
    make(root, "tool")
    (root / "tool").chmod(bits | 0o755)
    seen = kept(Files(root).look(at("/tool")))
    assert seen.mode == 0o755
    assert "setuid or setgid not kept" in seen.notes[0]


def test_file_capabilities_are_dropped_and_said(root: Path) -> None:
    """Capabilities are treated as setuid is."""
    make(root, "tool")
    try:
        os.setxattr(root / "tool", "security.capability", b"\x01\x00\x00\x02" + b"\x20\0\0\0" + bytes(12))
    except OSError:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("only root can give capabilities")
    seen = kept(Files(root).look(at("/tool")))
    assert (seen.xattrs, seen.notes) == ({}, ("security.capability not kept",))


def test_what_would_wait_or_act_is_skipped(root: Path) -> None:
    """FIFOs, sockets and devices are left out by name, without being opened."""
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(root)  # a socket's path is at most 107 bytes long
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
        files = Files(root)
        assert reason(files.read(at("/fifo"), Sink())) == "a FIFO"
        assert reason(files.read(at("/socket"), Sink())) == "a socket"
        assert files.text("/fifo") is None
    assert reason(Files(Path("/dev")).read(at("/null"), Sink())) == "a character device"


def test_a_file_that_becomes_a_fifo_does_not_hold_us(root: Path) -> None:
    """Swapped between two looks, a FIFO is still not waited for."""
    make(root, "file")

    def swap(reading: int) -> None:
        with (root / "file").open("ab") as file:
            file.write(b"more")
        (root / "file").unlink()
        os.mkfifo(root / "file")

    assert reason(Files(root).read(at("/file"), Sink(swap))) == "a FIFO"


def test_a_directory_that_becomes_a_link_is_not_followed(tmp_path: Path, root: Path) -> None:
    """Between listing and reading, a link put in a parent's place leads nowhere."""
    make(root, "dir/file")
    make(tmp_path, "outside/file")
    files = Files(root)
    (path,) = files.expand(["/dir/file"])
    (root / "dir").rename(root / "was")
    (root / "dir").symlink_to(tmp_path / "outside")
    sink = Sink()
    assert reason(files.read(path, sink)) == "a symbolic link stands in its way"
    assert sink.data == b""


def test_a_file_that_changes_once_is_read_again(root: Path) -> None:
    """What was half old and half new is forgotten; the second reading is whole."""
    make(root, "file")

    def rewrite(reading: int) -> None:
        if reading == 1:
            (root / "file").write_bytes(b"rewritten")

    sink = Sink(rewrite)
    seen = kept(Files(root).read(at("/file"), sink))
    assert (sink.data, seen.size, sink.readings) == (b"rewritten", 9, 2)


def test_a_file_of_the_same_size_that_changes_is_noticed(root: Path) -> None:
    """A changed time is a change, whatever the size says."""
    make(root, "file")

    def act(reading: int) -> None:
        (root / "file").write_bytes(b"elif")
        os.utime(root / "file", ns=(0, reading))

    assert reason(Files(root).read(at("/file"), Sink(act))) == "changed each time it was read"


def test_a_file_that_never_rests_is_skipped(root: Path) -> None:
    """After the second try it is left out with its reason: half a change is not a backup."""
    make(root, "log")

    def grow(reading: int) -> None:
        with (root / "log").open("ab") as file:
            file.write(b"line\n")

    sink = Sink(grow)
    assert reason(Files(root).read(at("/log"), sink)) == "changed each time it was read"
    assert sink.readings == 2


def test_a_file_that_shrinks_is_noticed(root: Path) -> None:
    """Truncation in mid-reading is a change, even when time stands still."""
    (root / "file").write_bytes(bytes(3 << 20))

    def shrink(reading: int) -> None:
        os.truncate(root / "file", (3 - reading) << 20)

    assert reason(Files(root).read(at("/file"), Sink(shrink))) == "changed each time it was read"


def test_a_file_that_is_renamed_into_place_is_read_whole(root: Path) -> None:
    """A writer that replaces its file gives the old content or the new one, and the new one is taken."""
    make(root, "file", "new")

    def replace(reading: int) -> None:
        if reading == 1:
            (root / "new").rename(root / "file")

    sink = Sink(replace)
    kept(Files(root).read(at("/file"), sink))
    assert sink.data == b"new"


def test_a_file_that_vanishes_is_recorded(root: Path) -> None:
    """Gone before or while it was read: left out with that reason."""
    make(root, "file")
    assert reason(Files(root).read(at("/absent"), Sink())) == "vanished while it was being read"

    def remove(reading: int) -> None:
        (root / "file").unlink()

    assert reason(Files(root).read(at("/file"), Sink(remove))) == "vanished while it was being read"


def test_huge_files_are_left_out(root: Path) -> None:
    """The apparent size counts: a hole of a terabyte is not read. Nor is a file that outgrows the limit meanwhile."""
    make(root, "grows")
    (root / "hole").touch()
    os.truncate(root / "hole", 1 << 40)
    sink = Sink()
    assert reason(Files(root).read(at("/hole"), sink)) == f"huge: {1 << 40} bytes, at most {64 << 20} are taken"
    assert sink.data == b""

    def grow(reading: int) -> None:
        with (root / "grows").open("ab") as file:
            file.write(bytes(100))

    assert reason(Files(root, max_file_bytes=50).read(at("/grows"), Sink(grow))).startswith("huge: it grew beyond 50")


def test_files_of_proc_have_no_size_and_are_read(root: Path) -> None:
    """A file whose size is a guess of the kernel is read to its end, bounded."""
    sink = Sink()
    seen = kept(Files(Path("/proc")).read(at("/version"), sink))
    assert seen.size == len(sink.data) > 0
    assert reason(Files(Path("/proc"), max_file_bytes=5).read(at("/version"), Sink())).startswith("huge")


def test_unreadable_files_are_left_out_with_the_reason(root: Path) -> None:
    """What not even root can read stops nothing."""
    assert reason(Files(Path("/proc/self")).read(at("/mem"), Sink())) == "unreadable: input/output error"
    if os.geteuid():
        make(root, "closed")
        (root / "closed").chmod(0)
        assert reason(Files(root).read(at("/closed"), Sink())) == "unreadable: permission denied"


def test_odd_names_are_names(root: Path) -> None:
    """A newline and bytes that are not UTF-8 go in and come out as they are."""
    (root / "new\nline").write_bytes(b"1")
    odd = Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe"))
    odd.write_bytes(b"2")
    files = Files(root)
    paths = files.expand(["/*"])
    assert [os.fsencode(path) for path in paths] == [b"/new\nline", b"/\xff\xfe"]
    assert [files.contents(path) for path in paths] == [b"1", b"2"]


def test_text_is_bounded_and_decoded(root: Path) -> None:
    """Text is UTF-8 within the limit, or nothing."""
    (root / "text").write_text("ä")
    (root / "bytes").write_bytes(b"\xff")
    (root / "dir").mkdir()
    files = Files(root)
    assert files.text("/text") == "ä"
    assert files.text(at("/text"), limit=1) is None
    assert files.text("/bytes") is None
    assert files.text("/dir") is None
    assert files.text("/absent") is None
    assert files.exists("/dir")
    assert not files.exists("/absent")


def test_a_root_that_is_not_there_has_no_files(tmp_path: Path) -> None:
    """Nothing is found, and nothing crashes."""
    files = Files(tmp_path / "absent")
    assert files.expand(["/etc", "/**/x", "/*"]) == []
    assert reason(files.look(at("/etc"))) == "vanished while it was being read"


def test_attributes_that_are_too_many_are_dropped_and_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One path's attributes always fit the archive's header, and what did not fit is named."""
    make(root, "file")
    for name in ("a", "b", "c"):
        os.setxattr(root / "file", f"user.{name}", bytes(100))
    monkeypatch.setattr("edgedr.node.seen._MAX_XATTRS", 250)
    seen = kept(Files(root).look(at("/file")))
    assert sorted(seen.xattrs) == ["user.a", "user.b"]
    assert seen.notes == ("attribute 'user.c' not kept: more than 250 bytes of them",)
