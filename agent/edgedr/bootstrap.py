"""The token of k3s and rke2, and the bootstrap data that it seals in the datastore.

As k3s's pkg/cluster and pkg/clientaccess have it: a token is ``K10<SHA-256 of its authority>::<user>:<password>``,
or the password alone. What a new server needs is in the datastore below ``/bootstrap/<first 12 hex digits of the
password's SHA-256>``, as ``salt:base64``: AES-GCM, nonce in front, under a key that PBKDF2 makes of password and salt.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping

_PREFIX = "K10"
_HASH = 64
_PATH = b"/bootstrap/"
_ROUNDS, _KEY, _NONCE = 4096, 32, 12


def password_of(token: str) -> str:
    """Return the password in a token."""
    if not token.startswith(_PREFIX):
        return token
    return token.partition("::")[2].partition(":")[2]


def authority_of(token: str) -> str | None:
    """Return the SHA-256 of the authority that a token belongs to, in hex; ``None`` if it does not say."""
    digest, colons, _ = token.removeprefix(_PREFIX).partition("::")
    return digest if token.startswith(_PREFIX) and colons and len(digest) == _HASH else None


def authority_hash(bundle: bytes) -> str:
    """Return what a token calls an authority: the hash of the file, or of the root's DER where it is a bundle."""
    from cryptography import x509  # noqa: PLC0415 - only nodes of k3s and rke2 pay for it
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415

    try:
        certificates = x509.load_pem_x509_certificates(bundle)
    except ValueError:
        certificates = []
    at = certificates[0] if len(certificates) > 1 else None
    for _ in certificates:
        if at is not None and at.subject != at.issuer:
            at = next((above for above in certificates if above.subject == at.issuer), None)
    return hashlib.sha256(bundle if at is None else at.public_bytes(Encoding.DER)).hexdigest()


def token_problem(token: str, *, authority: str | None, bootstrap: Mapping[bytes, bytes] | None) -> str | None:
    """Say why a token is of no use here; ``None`` if it is.

    ``authority`` is the SHA-256 of the cluster's authority, ``bootstrap`` what the datastore has below ``/bootstrap/``;
    each may be unknown.
    """
    said = authority_of(token)
    if said is not None and authority is not None and said != authority:
        return "is a token of another cluster: its hash is not that of the authority beside it"
    if bootstrap is None:
        return None
    if not bootstrap:
        return "has nothing to open: there is no bootstrap data in the datastore"
    password = password_of(token)
    key = _PATH + hashlib.sha256(password.encode()).hexdigest()[:12].encode()
    if key not in bootstrap:
        return "is not the token that the bootstrap data in the datastore was sealed with"
    return None if _opens(password, bootstrap[key]) else "does not open the bootstrap data in the datastore"


def _opens(password: str, sealed: bytes) -> bool:
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - only nodes of k3s and rke2 pay for it
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

    salt, colon, text = sealed.partition(b":")
    try:
        data = base64.b64decode(text, validate=True)
        key = hashlib.pbkdf2_hmac("sha1", password.encode(), salt, _ROUNDS, _KEY)
        AESGCM(key).decrypt(data[:_NONCE], data[_NONCE:], None)
    except (binascii.Error, ValueError, InvalidTag):
        return False
    return bool(colon)
