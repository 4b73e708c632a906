"""Sealing: what goes in comes out, stock tools read it, and what was tampered with is refused within bounds."""

import base64
import hashlib
import hmac
import io
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from edgedr.errors import ConfigurationError, Damaged, StorageError, WrongKey
from edgedr.repository.checking import check
from edgedr.repository.names import segment_sizes
from edgedr.repository.repository import Repository
from edgedr.sealing.identities import Identity, load_identities, make_identity, open_text, require_match
from edgedr.sealing.recipients import Recipient, parse_recipient, seal_text
from edgedr.sealing.segments import Prefix, seal, unseal
from edgedr.sealing.zstandard import zstd
from edgedr.storage.base import Storage
from edgedr.storage.memory import MemoryStorage
from tests.lab.fake_source import Lab, bytes_of
from tests.lab.tools import need

AGE_CHUNK = 64 << 10  # plaintext bytes; each is 16 bytes longer when sealed
SEGMENT = 128 << 10


class Sink:
    def __init__(self) -> None:
        self.data = bytearray()

    @property
    def size(self) -> int:
        return len(self.data)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self.data += data
        return len(data)

    def flush(self) -> None:
        pass


class FullDisk(Sink):
    """Takes so many bytes, then no more."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def write(self, data: bytes | bytearray | memoryview) -> int:
        if self.size + len(data) > self.room:
            raise StorageError("cannot write x: No space left on device")
        return super().write(data)


class Key:
    """An identity in a file, and its recipient."""

    def __init__(self, path: Path) -> None:
        made = make_identity()
        self.path = path
        self.secret = made.secret
        path.write_text(f"# made for a test\n{made.secret}\n")
        self.recipient = parse_recipient(made.recipient)

    @property
    def identities(self) -> tuple[Identity, ...]:
        return load_identities(self.path, _nobody)


def _nobody(prompt: str) -> str:
    raise AssertionError(f"asked for a passphrase: {prompt}")


def noise(size: int, seed: int) -> bytes:
    """Return bytes that do not compress."""
    return bytes_of(seed, size)


def changed(data: bytes, seed: int, *, places: int = 20) -> bytes:
    """Return ``data`` with some of it written anew."""
    new = bytearray(data)
    for place in range(places if data else 0):
        start = int.from_bytes(bytes_of(seed * 1000 + place, 4)) % len(data)
        new[start : start + 200] = bytes_of(seed, 200)[: len(data) - start]
    return bytes(new)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key(tmp_path_factory.mktemp("key") / "key.txt")


def sealed(plain: bytes, *recipients: Recipient, prefix: bytes | None = None) -> bytes:
    out = Sink()
    done = seal(
        io.BytesIO(plain), len(plain), out, recipients=recipients, prefix=Prefix(prefix) if prefix is not None else None
    )
    assert done.size == len(out.data)
    return bytes(out.data)


def opened(data: bytes, size: int, identities: tuple[Identity, ...], prefix: bytes | None = None) -> bytes:
    out = Sink()
    against = Prefix(prefix) if prefix is not None else None
    unseal(io.BytesIO(data), size, out, identities=identities, what="segment x", prefix=against)
    return bytes(out.data)


def in_age(frame: bytes, key: Key) -> bytes:
    """Put any bytes where a zstd frame belongs."""
    return seal_text(frame, [key.recipient])


# -- round trips

EDGES = [0, 1, 17, 18, 1024, AGE_CHUNK - 1, AGE_CHUNK, AGE_CHUNK + 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 << 20]


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
    for identities in [*(one.identities for one in keys), load_identities(tmp_path / "ssh", _nobody)]:
        assert opened(data, len(plain), identities) == plain
    (tmp_path / "sealed").write_bytes(data)
    done = subprocess.run([age, "-d", "-i", tmp_path / "ssh", tmp_path / "sealed"], capture_output=True, check=True)
    assert zstd.decompress(done.stdout) == plain


def test_an_ssh_key_matches_its_fingerprint_without_the_comment(tmp_path: Path) -> None:
    """The manifest's fingerprint is that of the key, whatever its comment says on either side."""
    subprocess.run([need("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "ssh"], check=True)
    kind, blob, *_ = (tmp_path / "ssh.pub").read_text().split()
    recipient = parse_recipient(f"{kind}   {blob} another comment")
    (identity,) = load_identities(tmp_path / "ssh", _nobody)
    assert identity.fingerprint == recipient.fingerprint
    require_match((identity,), (recipient.fingerprint,), "x")


# -- errors of the places below


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


# -- hostile ciphertext


def refused(data: bytes, size: int, key: Key, prefix: bytes | None = None) -> str:
    """Open what must not open; return the message. Nothing beyond the signed size may have come out."""
    out = Sink()
    with pytest.raises(Damaged) as caught:
        unseal(
            io.BytesIO(data),
            size,
            out,
            identities=key.identities,
            what="segment x",
            prefix=Prefix(prefix) if prefix is not None else None,
        )
    assert out.size <= size
    assert "segment x" in caught.value.message
    return caught.value.message


def _unsized(plain: bytes, **options: int) -> bytes:
    chosen: dict[int, int] = {zstd.CompressionParameter[name]: value for name, value in options.items()}
    compressor = zstd.ZstdCompressor(options={**chosen, zstd.CompressionParameter.content_size_flag: 0})
    return compressor.compress(plain) + compressor.flush()


def test_a_bomb_that_says_so_is_refused_unopened(key: Key) -> None:
    """A frame that claims more than is signed never starts."""
    assert "8388608 bytes, 1000 are signed" in refused(in_age(zstd.compress(bytes(8 << 20)), key), 1000, key)


def test_a_bomb_that_lies_is_stopped_at_the_signed_size(key: Key) -> None:
    """A frame that claims the signed size and unpacks to more gives no more than that."""
    frame = bytearray(zstd.compress(bytes(8 << 20)))
    claimed = zstd.get_frame_info(bytes(frame)).decompressed_size
    assert claimed == 8 << 20
    position = frame.index(struct.pack("<I", 8 << 20))
    frame[position : position + 4] = struct.pack("<I", 100_000)
    refused(in_age(bytes(frame), key), 100_000, key)


def test_an_unknown_size_is_refused(key: Key) -> None:
    """Without a content size there is nothing to compare with what is signed."""
    assert "an unknown number of bytes" in refused(in_age(_unsized(b"x" * 1000), key), 1000, key)


def test_an_oversize_window_is_refused(key: Key) -> None:
    """A frame may not ask for more memory than its content and its parent need."""
    plain = noise(3 << 20, 1)
    frame = bytearray(_unsized(plain, window_log=27))
    # magic, descriptor, window descriptor: give it a content size of four bytes, and keep its window
    frame[4] = frame[4] & 0x3F | 0x80
    frame[6:6] = struct.pack("<I", len(plain))
    assert zstd.decompress(bytes(frame)) == plain  # it is a frame that a careless reader takes
    assert "too much memory" in refused(in_age(bytes(frame), key), len(plain), key)


@pytest.mark.parametrize("size", [0, 10, 1000, AGE_CHUNK, 200_000])
@pytest.mark.parametrize("tail", ["frame", "empty frame", "skippable", "garbage", "one byte"])
def test_nothing_may_follow_the_frame(key: Key, size: int, tail: str) -> None:
    """A second frame, a skippable one, or anything else behind the frame was not made by edgedr."""
    plain = noise(size, 2)
    tails = {
        "frame": zstd.compress(b"more"),
        "empty frame": zstd.compress(b""),
        "skippable": struct.pack("<II", 0x184D2A50, 4) + b"skip",
        "garbage": b"\xff" * 300,
        "one byte": b"\0",
    }
    assert "follows its zstd frame" in refused(in_age(zstd.compress(plain) + tails[tail], key), size, key)


def test_a_skippable_frame_before_ours_is_refused(key: Key) -> None:
    """Frames that zstd would pass over are not passed over."""
    refused(in_age(struct.pack("<II", 0x184D2A50, 4) + b"skip" + zstd.compress(b"x" * 50), key), 50, key)


@pytest.mark.parametrize("frame", [b"", b"\x28", b"\x28\xb5\x2f\xfd", b"not zstd at all, but long enough", b"\0" * 18])
def test_what_is_no_frame_is_refused(key: Key, frame: bytes) -> None:
    """An age file of ours that holds something else."""
    refused(in_age(frame, key), 1000, key)


def test_truncation_at_every_chunk_boundary_is_seen(key: Key) -> None:
    """Each age file ends with a marked chunk: a file cut exactly between two chunks does not pass for a shorter one."""
    plain = noise(5 * AGE_CHUNK, 3)
    data = sealed(plain, key.recipient)
    start = data.index(b"\n--- ")
    payload = data.index(b"\n", start + 1) + 1 + 16  # the header's last line, then a nonce
    cuts = [*range(payload, len(data), AGE_CHUNK + 16), payload - 1, payload + 1, len(data) - 1, start, 10, 0]
    assert len(cuts) > 10
    for cut in cuts:
        refused(data[:cut], len(plain), key)


@pytest.fixture(scope="module")
def small(key: Key) -> bytes:
    return sealed(b"etcd" * 200, key.recipient)


@given(at=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_one_changed_byte_is_seen(key: Key, small: bytes, at: int, flip: int) -> None:
    """Whichever byte: damage, or in a stanza a key that no longer fits; never other bytes, never a bug."""
    whole = bytearray(small)
    whole[at % len(whole)] ^= flip
    with pytest.raises((Damaged, WrongKey)):
        opened(bytes(whole), 800, key.identities)


@given(junk=st.binary(max_size=300))
def test_junk_is_damage(key: Key, junk: bytes) -> None:
    """Anything in the place of a segment is refused by name."""
    refused(junk, 100, key)
    refused(b"age-encryption.org/v1\n" + junk, 100, key)


def test_a_passphrase_is_never_ground_on(key: Key) -> None:
    """A scrypt stanza, whatever its work factor, is refused by its header: edgedr never writes one."""
    salt = base64.b64encode(b"s" * 16).rstrip(b"=")
    body = base64.b64encode(b"b" * 32).rstrip(b"=")
    mac = base64.b64encode(b"m" * 32).rstrip(b"=")
    header = b"age-encryption.org/v1\n-> scrypt " + salt + b" 30\n" + body + b"\n--- " + mac + b"\n"
    assert "sealed with a passphrase" in refused(header + b"n" * 60, 100, key)
    hidden = header.replace(b"-> scrypt", b"-> X25519 " + salt + b"\n" + body + b"\n-> scrypt")
    assert "sealed with a passphrase" in refused(hidden + b"n" * 60, 100, key)


def test_a_header_of_many_recipients_is_refused(key: Key) -> None:
    """A thousand stanzas are not tried one by one."""
    stanza = b"-> X25519 " + b"A" * 43 + b"\n" + b"B" * 43 + b"\n"
    assert "age header" in refused(b"age-encryption.org/v1\n" + stanza * 1000 + b"--- " + b"C" * 43 + b"\n", 100, key)
    short = b"-> x\n\n"
    assert "1000 recipients" in refused(b"age-encryption.org/v1\n" + short * 1000 + b"--- " + b"C" * 43 + b"\n", 9, key)


def test_an_endless_header_is_refused(key: Key) -> None:
    """A header without an end is not read to its end."""

    class Endless(io.BytesIO):
        given = 0

        def read(self, count: int | None = -1) -> bytes:
            assert count is not None
            assert count >= 0
            self.given += count
            assert self.given <= 1 << 20
            return (b"age-encryption.org/v1\n" + b"-> X25519 " + b"A" * count)[:count]

    with pytest.raises(Damaged, match="age header has no end"):
        unseal(Endless(), 100, Sink(), identities=key.identities, what="segment x")


@pytest.mark.parametrize("wrong", [None, b"", b"x" * 100, "shorter", "changed"])
def test_a_wrong_parent_is_damage_not_garbage(key: Key, wrong: bytes | str | None) -> None:
    """Unpacked against anything but its parent, a delta fails: the frame's checksum or its references do not hold."""
    parent = noise(200_000, 4)
    plain = changed(parent, 5)
    data = sealed(plain, key.recipient, prefix=parent)
    others = {"shorter": parent[:-1], "changed": changed(parent, 6, places=300)}
    refused(data, len(plain), key, others[wrong] if isinstance(wrong, str) else wrong)


# -- identities, told apart


def _message(path: Path, ask: Callable[[str], str] = _nobody) -> tuple[str, str]:
    with pytest.raises(WrongKey) as caught:
        load_identities(path, ask)
    assert caught.value.exit_code == 6
    assert caught.value.hint
    return caught.value.message, caught.value.hint


def test_identity_files_that_are_none_are_told_apart(key: Key, tmp_path: Path) -> None:
    """Each mistake has its own message with the file's name, and no message has a secret."""
    plugin = "AGE-PLUGIN-NOSUCH-1" + "Q" * 10
    contents = {
        "missing": None,
        "empty": b"",
        "only comments": b"# nothing\n\n",
        "binary": bytes(range(256)),
        "recipient": key.recipient.text.encode(),
        "ssh recipient": b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== me\n",
        "cut short": key.secret[:-4].encode(),
        "sealed for another": seal_text(b"x", [key.recipient]),
        "damaged age file": b"age-encryption.org/v1\n-> scrypt",
        "damaged armor": b"-----BEGIN AGE ENCRYPTED FILE-----\n!!!a\n-----END AGE ENCRYPTED FILE-----\n",
        "scrypt bomb": b"age-encryption.org/v1\n-> scrypt c2FsdHNhbHRzYWx0c2FsdA 30\nYm9k\n--- bWFj\nxx",
        "damaged SSH key": b"-----BEGIN OPENSSH PRIVATE KEY-----\nzzz\n-----END OPENSSH PRIVATE KEY-----\n",
        "plugin": f"{plugin}\n".encode(),
    }
    said = {}
    for name, content in contents.items():
        path = tmp_path / "identity"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        message, hint = _message(path)
        assert str(path) in message
        assert key.secret[:-4] not in message + hint
        said[name] = message
    assert said["missing"].endswith("No such file or directory")
    assert said["empty"] == said["only comments"]
    assert said["recipient"] == said["ssh recipient"]
    assert said["damaged age file"] == said["damaged armor"]
    assert "a recipient, which only seals" in said["recipient"]
    assert "2^30" in said["scrypt bomb"]
    distinct = set(contents) - {"only comments", "ssh recipient", "damaged armor", "plugin"}
    assert len({said[name] for name in distinct}) == len(distinct)


def test_a_missing_plugin_is_named(tmp_path: Path) -> None:
    """An identity on a device needs its plugin: the message says which."""
    words = _bech32("age-plugin-nosuch-", b"\1" * 16).upper()
    (tmp_path / "identity").write_text(f"{words}\n")
    message, hint = _message(tmp_path / "identity")
    assert "age-plugin-nosuch" in message
    assert "plugin" in hint
    with pytest.raises(ConfigurationError, match="age-plugin-nosuch") as caught:
        parse_recipient(_bech32("age1nosuch", b"\1" * 16))
    assert "\n" not in caught.value.message


def test_a_protected_identity_opens_with_its_passphrase(key: Key, tmp_path: Path) -> None:
    """The right passphrase opens it; a wrong one is said to be wrong; armor makes no difference."""
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return "correct horse"

    protected = tmp_path / "protected.age"
    locked = _locked(key.secret.encode(), "correct horse")
    protected.write_bytes(locked)
    (identity,) = load_identities(protected, ask)
    assert identity.fingerprint == key.recipient.fingerprint
    assert str(protected) in asked[0]
    armored = (
        b"-----BEGIN AGE ENCRYPTED FILE-----\n" + base64.encodebytes(locked) + b"-----END AGE ENCRYPTED FILE-----\n"
    )
    protected.write_bytes(armored)
    assert load_identities(protected, ask)[0].fingerprint == key.recipient.fingerprint
    message, hint = _message(protected, lambda _: "wrong")
    assert "cannot unlock" in message
    assert "passphrase is wrong" in hint


def test_unusable_ssh_keys_are_named(tmp_path: Path) -> None:
    """A protected SSH key, and one of a kind that age does not know, are refused with their file's name."""
    keygen = need("ssh-keygen")
    for name, options in {"locked": ["-t", "ed25519", "-N", "secret"], "ecdsa": ["-t", "ecdsa", "-N", ""]}.items():
        subprocess.run([keygen, "-q", *options, "-f", tmp_path / name], check=True)
        message, _ = _message(tmp_path / name)
        assert f"cannot use the SSH key {tmp_path / name}" in message


def test_a_wrong_identity_is_not_damage(key: Key, tmp_path: Path) -> None:
    """Whoever opens with another key is told so, for segments and for small texts."""
    other = Key(tmp_path / "other.txt")
    with pytest.raises(WrongKey, match="no identity given opens segment x"):
        opened(sealed(b"x", key.recipient), 1, other.identities)
    with pytest.raises(WrongKey):
        open_text(seal_text(b"x", [key.recipient]), other.identities)
    with pytest.raises(Damaged):
        open_text(seal_text(b"x" * 99, [key.recipient])[:-1], key.identities)


def test_an_identity_has_no_printable_form(key: Key) -> None:
    """Neither a loaded nor a new identity shows its secret when it is printed."""
    made = make_identity()
    assert made.secret not in f"{made} {made!r}"
    assert key.secret not in f"{key.identities} {key.identities[0]!r}"


class NoSegments(MemoryStorage):
    """A storage from which segments cannot be read at all."""

    def __init__(self, filled: Storage) -> None:
        super().__init__()
        self.objects = {stored.name: filled.open(stored.name).read() for stored in filled.list()}

    def open(self, name: str) -> BinaryIO:
        assert not name.endswith(".age"), f"{name} was opened"
        return super().open(name)


def test_a_wrong_identity_is_told_before_any_segment_is_opened(key: Key, tmp_path: Path) -> None:
    """Nobody downloads gigabytes to learn that the key in hand is the wrong one."""
    lab = Lab(tmp_path, storage=MemoryStorage())
    for content in (b"etcd", b"etcd, later"):
        lab.back_up(content, recipients=(key.recipient,))
    repository = Repository(NoSegments(lab.storage))
    listed = repository.list()
    other = Key(tmp_path / "other.txt")
    with pytest.raises(WrongKey, match=r"is not one that .* was sealed for"):
        check(repository, listed, [backup.id for backup in listed], trust=None, identities=other.identities)


def test_what_is_sealed_for_others_stays_at_l1(key: Key, tmp_path: Path) -> None:
    """After recipients changed, a key opens some backups only: the rest is proven without it, not called damaged."""
    other = Key(tmp_path / "other.txt")
    lab = Lab(tmp_path, storage=MemoryStorage())
    lab.back_up(b"etcd", recipients=(other.recipient,))
    lab.back_up(b"etcd, later", recipients=(key.recipient,))
    listed = lab.listed()
    ids = [backup.id for backup in listed]
    verdicts = check(lab.repository, listed, ids, trust=None, identities=key.identities)
    assert [str(verdict.level) for verdict in verdicts] == ["L1", "L2"]
    assert all(verdict.intact for verdict in verdicts)


def _bech32(prefix: str, data: bytes) -> str:
    """Encode as BIP 173 does, to make plugin identities that exist nowhere."""
    alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    bits = int.from_bytes(data)
    length = -(-len(data) * 8 // 5)
    bits <<= length * 5 - len(data) * 8
    values = [(bits >> 5 * (length - 1 - at)) & 31 for at in range(length)]
    spread = [ord(char) >> 5 for char in prefix] + [0] + [ord(char) & 31 for char in prefix]
    check = 1
    for value in [*spread, *values, 0, 0, 0, 0, 0, 0]:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if top >> bit & 1 else 0
    check ^= 1
    values += [(check >> 5 * (5 - at)) & 31 for at in range(6)]
    return f"{prefix}1{''.join(alphabet[value] for value in values)}"


def _locked(plain: bytes, passphrase: str, *, work: int = 10) -> bytes:
    """Encrypt as ``age -p`` does, but with a work factor that a test can afford, and that may lie."""
    file_key, salt, nonce = b"k" * 16, b"s" * 16, b"n" * 16
    label = b"age-encryption.org/v1/scrypt"
    wrap = hashlib.scrypt(passphrase.encode(), salt=label + salt, n=1 << work, r=8, p=1, maxmem=1 << 26, dklen=32)
    body = ChaCha20Poly1305(wrap).encrypt(bytes(12), file_key, None)
    header = f"age-encryption.org/v1\n-> scrypt {_base64(salt)} {work}\n{_base64(body)}\n---".encode()
    mac = hmac.digest(_derived(file_key, b"", b"header"), header, "sha256")
    payload = ChaCha20Poly1305(_derived(file_key, nonce, b"payload")).encrypt(bytes(11) + b"\1", plain, None)
    return header + f" {_base64(mac)}\n".encode() + nonce + payload


def _derived(key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt, info).derive(key)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")
