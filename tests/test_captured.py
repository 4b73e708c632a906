"""What was captured reads like the node that it was captured from: closure is checked on the one, written for both."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedr.archive_writer import ArchiveWriter
from edgedr.captured import CapturedFiles
from edgedr.node.files import Files

MIB = 1 << 20


@contextmanager
def captured(root: Path) -> Iterator[CapturedFiles]:
    """Capture everything below ``root``, and look at what was captured."""
    files = Files(root)
    with TemporaryDirectory() as directory, ArchiveWriter(Path(directory) / "spool", files) as writer:
        for path in files.expand(("/**",)):
            writer.take(path, "files")
        yield writer.captured()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root/etc/pki").mkdir(parents=True)
    (tmp_path / "root/etc/pki/ca.key").write_bytes(b"key")
    (tmp_path / "root/etc/other").mkdir()
    (tmp_path / "root/srv").mkdir()
    return tmp_path / "root"


def test_a_content_is_of_one_mebibyte_at_most(root: Path) -> None:
    """A file may be as large as on the node; a larger one is there and is not read."""
    (root / "etc/fits").write_bytes(b"x" * MIB)
    (root / "etc/large").write_bytes(b"x" * (MIB + 1))
    with captured(root) as files:
        assert files.contents("/etc/fits") == b"x" * MIB
        assert files.exists("/etc/large")
        assert files.contents("/etc/large") is None
        assert files.text("/etc/large") is None


def test_contents_are_those_of_their_own_file(root: Path) -> None:
    """Each content begins where it was spooled: empty ones, ones beside others, two names of one inode."""
    (root / "etc/a").write_bytes(b"first")
    (root / "etc/b").write_bytes(b"")
    (root / "etc/c").write_bytes(b"\xff third")
    (root / "srv/a-too").hardlink_to(root / "etc/a")
    with captured(root) as files:
        assert [files.contents(f"/etc/{name}") for name in "abc"] == [b"first", b"", b"\xff third"]
        assert (files.text("/etc/a"), files.text("/etc/b"), files.text("/etc/c")) == ("first", "", None)
        assert files.text("/srv/a-too") == "first"
        assert (files.contents("/etc"), files.contents("/etc/none"), files.text("/etc/none")) == (None, None, None)
        assert files.exists("/etc")
        assert not files.exists("/etc/a/b")


@pytest.mark.parametrize(
    ("target", "leads"),
    [
        ("pki/ca.key", True),
        ("./pki//ca.key", True),
        ("/etc/pki/ca.key", True),
        ("../etc/pki/ca.key", True),
        ("../../../etc/pki/ca.key", True),
        ("/../etc/other/../pki/ca.key", True),
        ("ca.key", False),
        ("/pki/ca.key", False),
        ("pki/ca.key/x", False),
        ("link", False),
        ("/etc/link", False),
    ],
)
def test_links_lead_where_they_lead_on_the_node(root: Path, target: str, leads: bool) -> None:
    """Relative ones begin beside the link, absolute ones at the node's root, above which there is nothing."""
    (root / "etc/link").symlink_to(target)
    (root / "srv/chain").symlink_to("../etc/link")
    expected = b"key" if leads else None
    assert Files(root).contents("/srv/chain") == expected
    with captured(root) as files:
        assert files.contents("/etc/link") == expected
        assert files.contents("/srv/chain") == expected
        assert files.exists("/etc/link") is files.exists("/srv/chain") is leads


def test_a_link_to_a_directory_has_what_is_in_it(root: Path) -> None:
    """A PKI directory on another disk is looked into through its link; ``..`` leads out of where it leads to."""
    (root / "srv/pki").symlink_to("/etc/pki")
    (root / "srv/ca.crt").symlink_to("pki/../pki/ca.key")
    with captured(root) as files:
        assert files.contents("/srv/pki/ca.key") == b"key"
        assert files.contents("/srv/ca.crt") == b"key"
        assert files.exists("/srv/pki/../pki/ca.key")
        assert not files.exists("/srv/pki/../chain")


@pytest.mark.parametrize(("links", "leads"), [(40, True), (41, False)])
def test_links_are_followed_as_far_as_the_kernel_does(root: Path, links: int, leads: bool) -> None:
    """A chain of forty leads somewhere; a longer one does not, nor does one that leads in circles."""
    (root / "etc/0").symlink_to("pki/ca.key")
    for number in range(1, links):
        (root / f"etc/{number}").symlink_to(str(number - 1))
    (root / "etc/round").symlink_to("about")
    (root / "etc/about").symlink_to("/etc/round")
    assert Files(root).exists(f"/etc/{links - 1}") is leads
    with captured(root) as files:
        assert files.exists(f"/etc/{links - 1}") is leads
        assert not files.exists("/etc/round")
        assert files.contents("/etc/about") is None


def test_what_a_link_leads_to_must_have_been_captured(root: Path, tmp_path: Path) -> None:
    """A key that lies elsewhere on the node is not in the backup because a link to it is."""
    (root / "etc/pki/front.key").symlink_to("/srv/hsm/front.key")
    (root / "srv/hsm").mkdir()
    (root / "srv/hsm/front.key").write_bytes(b"key")
    files = Files(root)
    with ArchiveWriter(tmp_path / "spool", files) as writer:
        writer.take(PurePosixPath("/etc/pki/front.key"), "certificates")
        seen = writer.captured()
        assert seen.expand(("/etc/pki/*.key",)) == [PurePosixPath("/etc/pki/front.key")]
        assert not seen.exists("/etc/pki/front.key")
        assert seen.contents("/etc/pki/front.key") is None
        assert not seen.exists("/srv/hsm/front.key")


def test_globs_and_directories_expand(root: Path) -> None:
    """A glob names what matches it, a directory all below it, ``**`` any number of directories; each once, sorted."""
    for name in ("etc/pki/.hidden", "etc/pki/ca.crt", "etc/other/ca.crt", "etc/pki-old"):
        (root / name).write_bytes(b"")
    with captured(root) as files:

        def expand(*patterns: str) -> list[str]:
            return [str(path) for path in files.expand(patterns)]

        assert expand("/etc/pki/*.crt", "/etc/*/ca.crt") == ["/etc/other/ca.crt", "/etc/pki/ca.crt"]
        assert expand("/etc/pki") == ["/etc/pki", "/etc/pki/.hidden", "/etc/pki/ca.crt", "/etc/pki/ca.key"]
        assert expand("/etc/pki/*") == expand("/etc/pki")[1:]
        assert expand("/etc/**/ca.crt") == ["/etc/other/ca.crt", "/etc/pki/ca.crt"]
        assert expand("/**/ca.crt") == expand("/etc/**/ca.crt")
        assert expand("/etc/pki*")[:2] == ["/etc/pki", "/etc/pki-old"]  # by bytes, as in the archive
        assert expand("/etc/pki/ca.key") == ["/etc/pki/ca.key"]
        assert expand("/pki", "/etc/pki/*.pem", "/etc/pki/ca.key/x") == []
        assert expand() == []


def test_below_a_file_there_is_nothing(root: Path) -> None:
    """``**`` stands for what is in a directory, and a file is none."""
    with captured(root) as files:
        assert files.expand(("/etc/pki/ca.key/**",)) == Files(root).expand(("/etc/pki/ca.key/**",)) == []


def test_a_link_to_the_root_is_no_file(root: Path) -> None:
    """The root itself is never captured: a link to it, as a chroot has, leads to a directory without a content."""
    (root / "etc/host").symlink_to("/")
    (root / "etc/above").symlink_to("../../..")
    with captured(root) as files:
        for name in ("/etc/host", "/etc/above", "/"):
            assert files.exists(name)
            assert (files.contents(name), files.text(name)) == (None, None)
        assert files.contents("/etc/host/etc/pki/ca.key") == b"key"


def test_a_linked_directory_is_expanded(root: Path) -> None:
    """With the PKI on another disk, what lies there is seen as on the node; the link stands for itself besides."""
    (root / "srv/kubernetes").symlink_to("/etc")
    patterns = ("/srv/kubernetes/pki/*.key", "/srv/kubernetes/other")
    expected = [PurePosixPath(path) for path in ("/etc/other", "/etc/pki/ca.key", "/srv/kubernetes")]
    assert Files(root).expand(patterns) == expected
    with captured(root) as files:
        assert files.expand(patterns) == expected


What: TypeAlias = bytes | str | tuple[str, ...] | None
"""What to lay somewhere: a content, a link's target, another name for what lies there already, or a directory."""

NAMES = ("a", "b", "c", "aa.d")
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(tuple)
CONTENTS = st.sampled_from([b"", b"text", b"\xff\xfe", "späße".encode()])
TARGETS = st.builds(
    lambda start, up, names: start + "/".join(("..",) * up + names) or ".",
    st.sampled_from(["", "/", "./"]),
    st.integers(0, 3),
    st.lists(st.sampled_from(NAMES), max_size=3).map(tuple),
)
TREES = st.lists(
    st.tuples(PATHS, st.one_of(CONTENTS, TARGETS, st.none(), PATHS)),
    max_size=14,
)
PATTERNS = st.lists(
    st.lists(st.sampled_from((*NAMES, "*", "a*", "[bc]", "**")), min_size=1, max_size=4).map(
        lambda parts: "/" + "/".join(parts)
    ),
    max_size=3,
)


def lay(root: Path, tree: list[tuple[tuple[str, ...], What]]) -> None:
    """Make a tree out of what can be made of it: a name that is taken, or leads nowhere, is passed over."""
    for names, what in tree:
        path = root.joinpath(*names)
        above = [root.joinpath(*names[:depth]) for depth in range(1, len(names))]
        if os.path.lexists(path) or any(each.is_symlink() or each.is_file() for each in above):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        match what:
            case bytes():
                path.write_bytes(what)
            case str():
                path.symlink_to(what)
            case None:
                path.mkdir()
            case _:
                other = root.joinpath(*what)
                if other.is_file() and not any(each.is_symlink() for each in (other, *other.parents)):
                    path.hardlink_to(other)


@given(tree=TREES, asked=st.lists(PATHS, max_size=8))
def test_it_agrees_with_the_node_on_paths(
    tree: list[tuple[tuple[str, ...], What]], asked: list[tuple[str, ...]]
) -> None:
    """Whatever tree was captured whole: what exists on the node exists, with the same content, through any link."""
    with TemporaryDirectory() as directory:
        root = Path(directory)
        lay(root, tree)
        node = Files(root)
        paths = [*node.expand(("/**",)), *(PurePosixPath("/", *names) for names in asked)]
        with captured(root) as files:
            for path in paths:
                assert files.exists(path) is node.exists(path), path
                assert files.contents(path) == node.contents(path), path
                assert files.text(path) == node.text(path), path


@given(tree=TREES, patterns=PATTERNS)
def test_it_agrees_with_the_node_on_patterns(tree: list[tuple[tuple[str, ...], What]], patterns: list[str]) -> None:
    """Globs and directories name the same paths, with the links on their way and what those lead to."""
    with TemporaryDirectory() as directory:
        root = Path(directory)
        lay(root, tree)
        with captured(root) as files:
            assert files.expand(patterns) == Files(root).expand(patterns)
