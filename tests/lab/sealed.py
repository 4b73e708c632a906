"""Keys, sealed bytes, and places to put them: what tests of sealing share."""

import base64
import hashlib
import hmac
import io
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edgedr.errors import StorageError
from edgedr.sealing.identities import Identity, load_identities, make_identity
from edgedr.sealing.recipients import Recipient, parse_recipient, seal_text
from edgedr.sealing.segments import Prefix, seal, unseal
from tests.lab.fake_source import bytes_of

AGE_CHUNK = 64 << 10
"""Plaintext bytes in one chunk of age; each is 16 bytes longer when sealed."""


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
        return load_identities(self.path, nobody)


def nobody(prompt: str) -> str:
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


def bech32(prefix: str, data: bytes) -> str:
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


def locked(plain: bytes, passphrase: str, *, work: int = 10) -> bytes:
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
