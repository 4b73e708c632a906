"""Ciphertext that was tampered with is refused by name, within the signed sizes, and before it costs anything."""

import base64
import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedr.errors import Damaged, WrongKey
from edgedr.sealing.segments import Prefix, unseal
from edgedr.sealing.zstandard import zstd
from tests.lab.sealed import (
    AGE_CHUNK,
    Key,
    Sink,
    changed,
    in_age,
    noise,
    opened,
    sealed,
)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key(tmp_path_factory.mktemp("key") / "key.txt")


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
