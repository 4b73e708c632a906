"""Sealing: what goes in comes out, stock tools read it, and a failing disk is never taken for success or damage."""

import io
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedr.errors import StorageError
from edgedr.repository.names import segment_sizes
from edgedr.sealing.identities import load_identities, require_match
from edgedr.sealing.recipients import parse_recipient
from edgedr.sealing.segments import seal, unseal
from edgedr.sealing.zstandard import zstd
from tests.lab.sealed import AGE_CHUNK, FullDisk, Key, Sink, changed, nobody, noise, opened, sealed
from tests.lab.tools import need

SEGMENT = 128 << 10
EDGES = [0, 1, 17, 18, 1024, AGE_CHUNK - 1, AGE_CHUNK, AGE_CHUNK + 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 << 20]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key(tmp_path_factory.mktemp("key") / "key.txt")


@pytest.mark.parametrize("size", EDGES)
@pytest.mark.parametrize("kind", ["full", "delta", "against nothing"])
def test_every_size_comes_back(key: Key, size: int, kind: str) -> None:
    """Around the boundaries of segments and of age's chunks, alone and against a parent, empty ones included."""
    plain = noise(size, 1)
    prefix = {"full": None, "delta": changed(plain, 2) + b"more", "against nothing": b""}[kind]
    assert opened(sealed(plain, key.recipient, prefix=prefix), size, key.identities, prefix) == plain


@given(plain=st.binary(max_size=3000), prefix=st.none() | st.binary(max_size=3000), repeat=st.integers(1, 60))
def test_anything_comes_back(key: Key, plain: bytes, prefix: bytes | None, repeat: int) -> None:
    """Whatever the bytes, and whatever they are compressed against."""
    plain *= repeat
    assert opened(sealed(plain, key.recipient, prefix=prefix), len(plain), key.identities, prefix) == plain


@given(size=st.integers(0, 1 << 30), power=st.integers(16, 30))
def test_segments_cover_an_artifact(size: int, power: int) -> None:
    """All of one size but the last, and at least one: nothing is cut off."""
    sizes = segment_sizes(size, 1 << power) if size >> power < 10_000 else [size]
    assert sum(sizes) == size
    assert sizes[:-1] == [1 << power] * (len(sizes) - 1) or len(sizes) == 1
    assert sizes[-1] > 0 or sizes == [0]


def test_a_delta_is_small(key: Key) -> None:
    """Compressed against its parent, incompressible data costs what changed."""
    parent = noise(1 << 20, 3)
    assert len(sealed(changed(parent, 4), key.recipient, prefix=parent)) < 12_000


@pytest.mark.parametrize("size", EDGES)
@pytest.mark.parametrize("kind", ["full", "delta"])
def test_stock_tools_read_it(key: Key, tmp_path: Path, size: int, kind: str) -> None:
    """``age -d | zstd -d`` gives the plaintext, with ``--patch-from`` for a delta."""
    age, zstd_tool = need("age"), need("zstd")
    plain = noise(size, 5)
    (tmp_path / "parent").write_bytes(changed(plain, 6) + b"x")
    prefix = (tmp_path / "parent").read_bytes() if kind == "delta" else None
    (tmp_path / "sealed").write_bytes(sealed(plain, key.recipient, prefix=prefix))
    frame = subprocess.run([age, "-d", "-i", key.path, tmp_path / "sealed"], capture_output=True, check=True).stdout
    options = ["--patch-from", str(tmp_path / "parent")] if kind == "delta" else []
    done = subprocess.run([zstd_tool, "-q", "-d", "-c", *options], input=frame, capture_output=True, check=True)
    assert done.stdout == plain


def test_each_recipient_opens_it(tmp_path: Path) -> None:
    """Three age keys and an SSH key: any one of them is enough, for edgedr and for age."""
    age, keygen = need("age"), need("ssh-keygen")
    keys = [Key(tmp_path / f"key-{n}.txt") for n in range(3)]
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-C", "operator 1", "-f", tmp_path / "ssh"], check=True)
    ssh = parse_recipient((tmp_path / "ssh.pub").read_text())
    plain = noise(100_000, 7)
    data = sealed(plain, *(one.recipient for one in keys), ssh)
    for identities in [*(one.identities for one in keys), load_identities(tmp_path / "ssh", nobody)]:
        assert opened(data, len(plain), identities) == plain
    (tmp_path / "sealed").write_bytes(data)
    done = subprocess.run([age, "-d", "-i", tmp_path / "ssh", tmp_path / "sealed"], capture_output=True, check=True)
    assert zstd.decompress(done.stdout) == plain


def test_an_ssh_key_matches_its_fingerprint_without_the_comment(tmp_path: Path) -> None:
    """The manifest's fingerprint is that of the key, whatever its comment says on either side."""
    subprocess.run([need("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "ssh"], check=True)
    kind, blob, *_ = (tmp_path / "ssh.pub").read_text().split()
    recipient = parse_recipient(f"{kind}   {blob} another comment")
    (identity,) = load_identities(tmp_path / "ssh", nobody)
    assert identity.fingerprint == recipient.fingerprint
    require_match((identity,), (recipient.fingerprint,), "x")


@pytest.mark.parametrize("room", [0, 100, 70_000, 199_000])
def test_a_full_disk_is_never_taken_for_success(key: Key, room: int) -> None:
    """Wherever the disk refuses, also on the last bytes, sealing fails with what the disk said."""
    with pytest.raises(StorageError, match="No space left"):
        seal(io.BytesIO(noise(200_000, 8)), 200_000, FullDisk(room), recipients=[key.recipient])


@pytest.mark.parametrize("size", [1000, 200_000])
def test_a_full_disk_is_not_damage(key: Key, size: int) -> None:
    """When plaintext cannot be written, the backup is not blamed."""
    data = sealed(noise(size, 8), key.recipient)
    with pytest.raises(StorageError, match="No space left"):
        unseal(io.BytesIO(data), size, FullDisk(size - 1), identities=key.identities, what="segment x")


def test_an_unreadable_disk_is_not_damage(key: Key) -> None:
    """An input/output error below is the storage's, not the backup's."""

    class Failing(io.BytesIO):
        def read(self, count: int | None = -1) -> bytes:
            if self.tell() > AGE_CHUNK:
                raise OSError(5, "Input/output error")
            return super().read(count)

    data = sealed(noise(300_000, 9), key.recipient)
    with pytest.raises(StorageError, match="cannot read segment x: Input/output error"):
        unseal(Failing(data), 300_000, Sink(), identities=key.identities, what="segment x")


def test_plaintext_that_ends_early_is_not_sealed(key: Key) -> None:
    """A spool shorter than it was measured is an error, not a shorter segment."""
    with pytest.raises(EOFError):
        seal(io.BytesIO(b"short"), 6, Sink(), recipients=[key.recipient])
