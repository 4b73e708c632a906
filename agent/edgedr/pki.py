"""What is in certificate and key files: read, paired and chained. No clock: whether something expired is not said here.

Understands PEM files with any number of certificates and one key, and kubeconfigs that carry both inside.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from edgedr.model import Finding, Severity
from edgedr.yaml_text import load_yaml

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----.*?-----END \1-----", re.DOTALL)
_KUBECONFIG = re.compile(rb"^kind: *[\"']?Config\b", re.MULTILINE)
_INSIDE = ("certificate-authority-data", "client-certificate-data", "client-key-data")


@dataclass(frozen=True, slots=True)
class Issued:
    """One certificate: where it is, whose, by whom, for which names, from when until when.

    ``serial`` is hex, ``fingerprint`` the SHA-256 of the certificate as OpenSSL prints it, in hex without colons.
    """

    path: PurePosixPath
    subject: str
    issuer: str
    serial: str
    not_before: datetime
    not_after: datetime
    is_authority: bool
    names: tuple[str, ...]
    fingerprint: str
    certificate: "Certificate" = field(repr=False)

    @property
    def is_host_bound(self) -> bool:
        """Whether it speaks for one machine by name or address: on another one it must be made anew."""
        return not self.is_authority and (bool(self.names) or "CN=system:node:" in self.subject)

    @property
    def is_self_signed(self) -> bool:
        """Whether it vouches for itself: a root."""
        return self.subject == self.issuer

    def __str__(self) -> str:
        kind = "authority" if self.is_authority else "leaf"
        names = f"; for {', '.join(self.names)}" if self.names else ""
        return f"{kind} {self.subject}; by {self.issuer}; until {self.not_after:%Y-%m-%dT%H:%M:%SZ}{names}"


@dataclass(slots=True)
class Ledger:
    """Everything that was found, and what is wrong with it.

    ``pairs`` says of each key which public half it was compared with, and whether it fits. ``orphans`` are certificates
    whose authority is not here.
    """

    certificates: list[Issued] = field(default_factory=list)
    keys: int = 0
    pairs: list[tuple[PurePosixPath, PurePosixPath, bool]] = field(default_factory=list)
    chained: int = 0
    orphans: list[Issued] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def paired(self) -> int:
        """How many keys fit a public half."""
        return sum(fits for _, _, fits in self.pairs)

    @property
    def first_to_expire(self) -> Issued | None:
        """The certificate with the earliest end."""
        return min(self.certificates, key=lambda issued: (issued.not_after, issued.path), default=None)


def examine(files: Mapping[PurePosixPath, bytes], *, thorough: bool) -> Ledger:
    """Read the contents of files, by path. What is neither certificate nor key is passed over.

    ``thorough`` checks the private numbers of RSA keys too: a second of CPU for a whole PKI, so not at each capture.
    """
    ledger = Ledger()
    publics: dict[PurePosixPath, list[bytes]] = {}
    privates: dict[PurePosixPath, list[bytes]] = {}
    for path, content in files.items():
        for label, block in _blocks(path, content, ledger):
            try:
                _read(path, label, block, ledger, publics, privates, thorough=thorough)
            except Exception as error:  # noqa: BLE001 - cryptography has many ways to dislike a block; each is one finding
                text = f"its {label.lower()} cannot be read: {error}"
                ledger.findings.append(Finding(Severity.BAD, str(path), text, "look whether the file is damaged"))
    _pair(ledger, publics, privates)
    _chain(ledger)
    return ledger


def public_keys(path: PurePosixPath, content: bytes) -> tuple[bytes, ...]:
    """Return the public half of each key and certificate in a file, in DER; what cannot be read is passed over."""
    publics: dict[PurePosixPath, list[bytes]] = {}
    privates: dict[PurePosixPath, list[bytes]] = {}
    scrap = Ledger()
    for label, block in _blocks(path, content, scrap):
        with suppress(Exception):  # whoever examines the file says what is wrong with it
            _read(path, label, block, scrap, publics, privates, thorough=False)
    return tuple(publics.get(path, []) + privates.get(path, []))


def _blocks(path: PurePosixPath, content: bytes, ledger: Ledger) -> Iterator[tuple[str, bytes]]:
    if b"-----BEGIN " not in content and _KUBECONFIG.search(content):
        try:
            content = b"\n".join(_inside(content))
        except (ValueError, TypeError, AttributeError, binascii.Error) as error:
            ledger.findings.append(Finding(Severity.BAD, str(path), f"a kubeconfig that cannot be read: {error}"))
            return
    for match in _PEM.finditer(content):
        yield match[1].decode(), match[0]


def _inside(content: bytes) -> Iterator[bytes]:
    config: Any = load_yaml(content.decode())
    parts = [item.get("cluster", {}) for item in config.get("clusters") or ()]
    parts += [item.get("user", {}) for item in config.get("users") or ()]
    for part in parts:
        for key in _INSIDE:
            if key in part:
                yield base64.b64decode("".join(part[key].split()), validate=True)


def _read(
    path: PurePosixPath,
    label: str,
    block: bytes,
    ledger: Ledger,
    publics: dict[PurePosixPath, list[bytes]],
    privates: dict[PurePosixPath, list[bytes]],
    *,
    thorough: bool,
) -> None:
    from cryptography import x509  # noqa: PLC0415 - 87 ms and 17 MB that only a capture or a proof pays
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    if label == "CERTIFICATE":
        issued = _issued(path, x509.load_pem_x509_certificate(block))
        ledger.certificates.append(issued)
        publics.setdefault(path, []).append(_spki(issued.certificate.public_key()))
    elif label.endswith("PUBLIC KEY"):
        publics.setdefault(path, []).append(_spki(serialization.load_pem_public_key(block)))
    elif label == "ENCRYPTED PRIVATE KEY" or b"Proc-Type: 4,ENCRYPTED" in block:
        ledger.keys += 1
        text = "the key is protected by a passphrase, so whether it fits is not known"
        ledger.findings.append(Finding(Severity.WARN, str(path), text, "keep its passphrase where a restore finds it"))
    elif label.endswith("PRIVATE KEY"):
        ledger.keys += 1
        key = serialization.load_pem_private_key(block, password=None, unsafe_skip_rsa_key_validation=not thorough)
        privates.setdefault(path, []).append(_spki(key.public_key()))


def _spki(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _issued(path: PurePosixPath, certificate: "Certificate") -> Issued:
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415

    def extension(kind: type[Any]) -> Any:
        try:
            return certificate.extensions.get_extension_for_class(kind).value
        except x509.ExtensionNotFound:
            return None

    constraints, names = extension(x509.BasicConstraints), extension(x509.SubjectAlternativeName)
    return Issued(
        path=path,
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        serial=f"{certificate.serial_number:x}",
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        is_authority=bool(constraints and constraints.ca),
        names=tuple(str(name.value) for name in names or ()),
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        certificate=certificate,
    )


def _pair(
    ledger: Ledger, publics: Mapping[PurePosixPath, list[bytes]], privates: Mapping[PurePosixPath, list[bytes]]
) -> None:
    """Compare each key with its public half: in the same file, or beside it under the same name."""
    for path, keys in privates.items():
        beside = [path, *(path.with_suffix(suffix) for suffix in (".crt", ".pub", ".pem"))]
        found = [(other, publics[other]) for other in dict.fromkeys(beside) if other in publics]
        for other, halves in found:
            fits = any(key in halves for key in keys)
            ledger.pairs.append((path, other, fits))
            if not fits:
                text = f"is not the key of {other}"
                ledger.findings.append(Finding(Severity.BAD, str(path), text, "one of the two is from another day"))


def _chain(ledger: Ledger) -> None:
    by_name: dict[str, list[Issued]] = {}
    for issued in ledger.certificates:
        if issued.is_authority or issued.is_self_signed:
            by_name.setdefault(issued.subject, []).append(issued)
    for issued in ledger.certificates:
        authorities = by_name.get(issued.issuer, [])
        if _signed_by_one(issued, authorities):
            ledger.chained += 1
        elif authorities:
            text = f"was not signed by the {issued.issuer} that is here"
            hint = "the authority was made anew, or the certificate is from another cluster"
            ledger.findings.append(Finding(Severity.BAD, str(issued.path), text, hint))
        else:
            ledger.orphans.append(issued)
            text = f"its authority {issued.issuer} is not here"
            ledger.findings.append(Finding(Severity.WARN, str(issued.path), text, "know where that authority is kept"))


def _signed_by_one(issued: Issued, authorities: Iterable[Issued]) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

    for authority in authorities:
        try:
            issued.certificate.verify_directly_issued_by(authority.certificate)
        except (InvalidSignature, ValueError, TypeError):
            continue
        return True
    return False
