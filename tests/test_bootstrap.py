"""The token of k3s: its own cluster's, and the one that opens the bootstrap data; never echoed."""

import base64
import hashlib
import os
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Certificate, CertificateBuilder, Name, NameAttribute, random_serial_number
from cryptography.x509.oid import NameOID

from edgedr.bootstrap import authority_hash, authority_of, password_of, token_problem
from tests.lab.pki import Authority

AUTHORITY = hashlib.sha256(b"an authority").hexdigest()
PASSWORD = "p4ss:w0rd"
FULL = f"K10{AUTHORITY}::server:{PASSWORD}"


def bootstrap(password: str, content: bytes = b"{}") -> dict[bytes, bytes]:
    """Seal bootstrap data as k3s does."""
    salt = os.urandom(8).hex()
    key = hashlib.pbkdf2_hmac("sha1", password.encode(), salt.encode(), 4096, 32)
    nonce = os.urandom(12)
    sealed = base64.b64encode(nonce + AESGCM(key).encrypt(nonce, content, None))
    name = b"/bootstrap/" + hashlib.sha256(password.encode()).hexdigest()[:12].encode()
    return {name: salt.encode() + b":" + sealed}


@pytest.mark.parametrize(
    ("token", "password", "authority"),
    [(FULL, PASSWORD, AUTHORITY), (PASSWORD, PASSWORD, None), ("K10::node:x", "x", None), ("K10short::u:x", "x", None)],
)
def test_what_a_token_says(token: str, password: str, authority: str | None) -> None:
    """The long form names its cluster, the short one is the password alone; a password may have a colon in it."""
    assert (password_of(token), authority_of(token)) == (password, authority)


@pytest.mark.parametrize("token", [FULL, PASSWORD])
def test_the_right_token(token: str) -> None:
    """Both forms open what was sealed with the password."""
    assert token_problem(token, authority=AUTHORITY, bootstrap=bootstrap(PASSWORD)) is None
    assert token_problem(token, authority=None, bootstrap=None) is None


def test_a_token_of_another_cluster() -> None:
    """Its hash is that of another authority."""
    other = hashlib.sha256(b"other").hexdigest()
    assert "another cluster" in str(token_problem(FULL, authority=other, bootstrap=None))


def test_a_token_of_another_day() -> None:
    """After a rotation the old token opens nothing: fact 11."""
    assert "is not the token" in str(token_problem(FULL, authority=AUTHORITY, bootstrap=bootstrap("new")))
    assert "nothing to open" in str(token_problem(FULL, authority=AUTHORITY, bootstrap={}))


@pytest.mark.parametrize("change", [b"", b"no colon", b"a:b", b"salt:" + base64.b64encode(bytes(40)), b"\xff:\xff"])
def test_sealed_data_that_does_not_open(change: bytes) -> None:
    """A name that fits and content that does not open is no proof."""
    (name,) = bootstrap(PASSWORD)
    assert "does not open" in str(token_problem(FULL, authority=AUTHORITY, bootstrap={name: change}))


def test_the_hash_of_a_bundle_is_that_of_its_root() -> None:
    """As k3s has it: one certificate counts as its file, of several the root counts as its DER."""
    root, other = Authority.make("root"), Authority.make("other")
    alone = root.certificate.public_bytes(Encoding.PEM)
    assert authority_hash(alone) == hashlib.sha256(alone).hexdigest()
    leaf = intermediate(root, "middle").public_bytes(Encoding.PEM)
    for bundle in (leaf + alone, leaf + other.certificate.public_bytes(Encoding.PEM) + alone):
        assert authority_hash(bundle) == hashlib.sha256(root.certificate.public_bytes(Encoding.DER)).hexdigest()
    rootless = leaf + other.certificate.public_bytes(Encoding.PEM)
    assert authority_hash(rootless) == hashlib.sha256(rootless).hexdigest()
    assert authority_hash(b"none") == hashlib.sha256(b"none").hexdigest()


def intermediate(root: Authority, name: str) -> Certificate:
    """Let an authority sign another one."""
    key = ec.generate_private_key(ec.SECP256R1())
    start = datetime.now(UTC) - timedelta(days=1)
    builder = (
        CertificateBuilder()
        .subject_name(Name([NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(root.certificate.subject)
        .public_key(key.public_key())
        .serial_number(random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=30))
    )
    return builder.sign(root.key, hashes.SHA256())
