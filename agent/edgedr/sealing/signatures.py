"""SSH signatures (SSHSIG) by the node's Ed25519 key, as ``ssh-keygen -Y sign`` makes and ``-Y verify`` accepts them.

Format: PROTOCOL.sshsig of OpenSSH. Encryption to a public key says nothing about the sender; this does.
"""

import base64
import binascii
import fnmatch
import hashlib
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Self

from edgedr.errors import ConfigurationError, Damaged, RestoreStopped
from edgedr.model import Manifest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

NAMESPACE = "edgedr"
_MAGIC = b"SSHSIG"
_KEY_TYPE = b"ssh-ed25519"
_KEY_SIZE = 32
_HASH = b"sha512"
_LINE = re.compile(
    r"""(?P<principals>"[^"]*"|[^\s"]+)\s+(?:(?P<options>(?!(?:ssh|ecdsa|sk)-)(?:[^\s"]|"[^"]*")+)\s+)?"""
    r"(?P<key>(?:ssh|ecdsa|sk)-\S+\s.*)"
)
_OPTION = re.compile(r'([A-Za-z-]+)(?:="([^"]*)")?(?:,|$)')
_OPTIONS = frozenset({"cert-authority", "namespaces", "valid-after", "valid-before"})
_STAMP = re.compile(r"\d{8}(?:\d{4}(?:\d\d)?)?Z?", re.ASCII)
_BEGIN = "-----BEGIN SSH SIGNATURE-----"
_END = "-----END SSH SIGNATURE-----"
MAX_SIGNATURE = 4 << 10


def principal(site: str, node: str) -> str:
    """Return the name under which a node signs: what stands first on its line of ``allowed_signers``."""
    return f"{node}@{site}"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 public key in SSH's wire form."""

    blob: bytes

    @property
    def fingerprint(self) -> str:
        """``SHA256:…`` as ``ssh-keygen -l`` prints it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    def __str__(self) -> str:
        return f"ssh-ed25519 {base64.b64encode(self.blob).decode()}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``ssh-ed25519 AAAA… [comment]``; anything else is a ``ValueError``."""
        kind, _, rest = text.strip().partition(" ")
        if kind != _KEY_TYPE.decode():
            raise ValueError(f"{kind[:30]!r} is not ssh-ed25519")
        blob = base64.b64decode((rest.split() or [""])[0], validate=True)
        try:
            whole = [len(part) for part in _strings(blob, 2)] == [len(_KEY_TYPE), _KEY_SIZE]
        except struct.error:
            whole = False
        if not whole or not blob.startswith(_string(_KEY_TYPE)):
            raise ValueError("the key is not whole")
        return cls(blob)


class Signer:
    """The node's signing key. It has no printable form."""

    def __init__(self, key: "Ed25519PrivateKey") -> None:
        self._key = key

    @classmethod
    def generate(cls) -> Self:
        """Make a new key."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, data: bytes, where: str) -> Self:
        """Read an OpenSSH private key file without passphrase; ``where`` names it in errors."""
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

        try:
            key = serialization.load_ssh_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConfigurationError(
                f"{where} is not a usable signing key",
                hint="move it away and run `edgedr init` again: restores will then ask to trust the new key",
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigurationError(f"{where} is not an Ed25519 key", hint="make one with `ssh-keygen -t ed25519`")
        return cls(key)

    def private_bytes(self) -> bytes:
        """Return the key as an OpenSSH private key file, for a 0600 file and nothing else."""
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )

    @property
    def public(self) -> PublicKey:
        """The public half."""
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

        raw = self._key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return PublicKey(_string(_KEY_TYPE) + _string(raw))

    def sign(self, message: bytes) -> bytes:
        """Return an armored signature of ``message``."""
        signature = _string(_KEY_TYPE) + _string(self._key.sign(_signed_data(message)))
        blob = (
            _MAGIC
            + struct.pack(">I", 1)
            + _string(self.public.blob)
            + _string(NAMESPACE.encode())
            + _string(b"")
            + _string(_HASH)
            + _string(signature)
        )
        text = base64.b64encode(blob).decode()
        lines = [text[at : at + 70] for at in range(0, len(text), 70)]
        return "\n".join([_BEGIN, *lines, _END, ""]).encode()


def verify(message: bytes, signature: bytes, what: str) -> PublicKey:
    """Check that ``signature`` is one of ``message`` in our namespace; return whose. Trust is not asked here.

    Raises ``Damaged``, naming ``what``.
    """
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    try:
        key, signed_hash, raw_key, raw_signature = _parse(signature)
        Ed25519PublicKey.from_public_bytes(raw_key).verify(raw_signature, _signed_data(message, signed_hash))
    except (ValueError, binascii.Error, struct.error) as error:
        raise Damaged(f"the signature of {what} is damaged: {error}") from error
    except InvalidSignature as error:
        raise Damaged(
            f"the signature of {what} does not hold: it was changed after it was signed, or forged",
            hint="do not restore it; look at the backups before and after it, and at who may write to this repository",
        ) from error
    return key


@dataclass(frozen=True, slots=True)
class AllowedSigner:
    """One line of an OpenSSH ``allowed_signers`` file."""

    patterns: tuple[str, ...]
    key: PublicKey
    valid_after: str | None = None
    valid_before: str | None = None

    def allows(self, name: str, key: PublicKey, signed_at: datetime) -> bool:
        """Whether this line lets ``key`` sign as ``name`` at that time."""
        stamp = f"{signed_at:%Y%m%d%H%M%S}"
        return (
            key == self.key
            and _matches(name, self.patterns)
            and (self.valid_after is None or stamp >= self.valid_after.ljust(14, "0"))
            and (self.valid_before is None or stamp < self.valid_before.ljust(14, "0"))
        )


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose signatures to believe: lines of ``allowed_signers``, fingerprints told by a person."""

    signers: tuple[AllowedSigner, ...] = ()
    fingerprints: tuple[str, ...] = ()

    def believes(self, name: str, key: PublicKey, signed_at: datetime) -> bool:
        """Whether a signature by ``key`` in the name of ``name`` counts."""
        return key.fingerprint in self.fingerprints or any(s.allows(name, key, signed_at) for s in self.signers)

    def accepts(self, manifest: Manifest, key: PublicKey) -> bool:
        """Whether the signer of a manifest is believed."""
        return self.believes(principal(manifest.site, manifest.node), key, manifest.created)

    def contradicts(self, name: str, key: PublicKey) -> bool:
        """Whether ``name`` is known to sign with another key: then nobody needs to be asked."""
        keys = [line.key for line in self.signers if _matches(name, line.patterns)]
        return bool(keys) and key not in keys

    def require(self, name: str, key: PublicKey, signed_at: datetime, what: str) -> None:
        """Stop where ``believes`` says no."""
        if self.believes(name, key, signed_at):
            return
        if self.contradicts(name, key):
            raise Damaged(
                f"{what} is signed by {key.fingerprint}, which is not the key known for {name}: refused",
                hint="somebody else wrote it, or the node was set up anew: compare with the line `edgedr init` printed",
            )
        raise RestoreStopped(
            f"{what} is signed by {key.fingerprint}, which this machine does not know",
            hint="give --allowed-signers with the line that `edgedr init` printed, or, if you know this fingerprint "
            f"to be that of {name}: --trust-signer {key.fingerprint}",
        )


def parse_allowed_signers(text: str, where: str) -> tuple[AllowedSigner, ...]:
    """Read an ``allowed_signers`` file; lines for other namespaces or key types, and authorities, are passed over."""
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            signer = _allowed_signer(line.strip())
        except (ValueError, binascii.Error) as error:
            raise ConfigurationError(
                f"{where}, line {number}: {error}",
                hint='a line looks like: cp-1@plant-7 namespaces="edgedr" ssh-ed25519 AAAA…',
            ) from error
        if signer is not None:
            found.append(signer)
    return tuple(found)


def allowed_signers_line(site: str, node: str, key: PublicKey) -> str:
    """Return the line that the operator keeps beside the identity."""
    return f'{principal(site, node)} namespaces="{NAMESPACE}" {key}'


def _allowed_signer(line: str) -> AllowedSigner | None:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError("there is no key")
    options = _options(match["options"] or "")
    if not match["key"].startswith(f"{_KEY_TYPE.decode()} ") or "cert-authority" in options:
        return None
    if "namespaces" in options and not _matches(NAMESPACE, options["namespaces"].split(",")):
        return None
    after, before = (options.get(name) for name in ("valid-after", "valid-before"))
    for stamp in (after, before):
        if stamp is not None and not _STAMP.fullmatch(stamp):
            raise ValueError(f"{stamp[:30]!r} is not a time like 20261122 or 20261122221500Z")
    return AllowedSigner(
        tuple(match["principals"].strip('"').split(",")),
        PublicKey.parse(match["key"]),
        after.rstrip("Z") if after else None,
        before.rstrip("Z") if before else None,
    )


def _options(text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    if _OPTION.sub("", text):
        raise ValueError(f"{text[:60]!r} are no options; values stand in double quotes")
    for name, value in _OPTION.findall(text):
        if name.lower() not in _OPTIONS:
            raise ValueError(f"the option {name[:30]!r} is unknown")
        options[name.lower()] = value
    return options


def _matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether OpenSSH's pattern list takes ``name``: ``*``, ``?``, and ``!`` before what it must not be."""
    wanted = False
    for pattern in patterns:
        bare = pattern.removeprefix("!").replace("[", "[[]")  # a bracket is nothing special to OpenSSH
        if fnmatch.fnmatchcase(name, bare):
            if pattern.startswith("!"):
                return False
            wanted = True
    return wanted


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _signed_data(message: bytes, digest: bytes = _HASH) -> bytes:
    hashed = hashlib.new(digest.decode(), message).digest()
    return _MAGIC + _string(NAMESPACE.encode()) + _string(b"") + _string(digest) + _string(hashed)


def _parse(armored: bytes) -> tuple[PublicKey, bytes, bytes, bytes]:
    text = armored.decode("ascii").strip()
    if not (text.startswith(_BEGIN) and text.endswith(_END)):
        raise ValueError("it is not an SSH signature")
    blob = base64.b64decode("".join(text[len(_BEGIN) : -len(_END)].split()), validate=True)
    if not blob.startswith(_MAGIC) or struct.unpack_from(">I", blob, len(_MAGIC)) != (1,):
        raise ValueError("it is of an unknown version")
    key, namespace, _, digest, signature = _strings(blob[len(_MAGIC) + 4 :], 5)
    if namespace != NAMESPACE.encode():
        raise ValueError(f"it was made for {namespace[:20]!r}, not for {NAMESPACE}")
    if digest not in {b"sha512", b"sha256"}:
        raise ValueError(f"it uses the hash {digest[:20]!r}")
    if not key.startswith(_string(_KEY_TYPE)):
        raise ValueError(f"it is by a key of type {key[4:34].split(bytes(1))[0]!r}, not ssh-ed25519")
    _, raw_key = _strings(key, 2)
    signature_type, raw_signature = _strings(signature, 2)
    if signature_type != _KEY_TYPE:
        raise ValueError(f"it is of type {signature_type[:30]!r}, not ssh-ed25519")
    return PublicKey(key), digest, raw_key, raw_signature


def _strings(blob: bytes, count: int) -> list[bytes]:
    found: list[bytes] = []
    at = 0
    for _ in range(count):
        (length,) = struct.unpack_from(">I", blob, at)
        if at + 4 + length > len(blob):
            raise ValueError("it ends early")
        found.append(blob[at + 4 : at + 4 + length])
        at += 4 + length
    if at != len(blob):
        raise ValueError("something follows it")
    return found
