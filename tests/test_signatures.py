"""Signatures: OpenSSH accepts ours and we accept OpenSSH's; what was changed, or is not meant for us, is refused."""

import base64
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from edgedr.errors import ConfigurationError, Damaged, RestoreStopped
from edgedr.sealing.signatures import PublicKey, Signer, Trust, allowed_signers_line, parse_allowed_signers, verify
from tests.lab.tools import need

MESSAGE = b'{\n "schema": 1\n}\n'
WHEN = datetime(2026, 11, 22, 22, 15, tzinfo=UTC)
SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(b"a node's own key, only for tests"))
KEY = str(SIGNER.public)
OTHER = Signer(Ed25519PrivateKey.from_private_bytes(b"somebody else's, only for tests!")).public
NAME = "cp-1@plant-7"


def _keygen(*words: str | Path, message: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([need("ssh-keygen"), *words], input=message, capture_output=True, check=False)


def _openssh_verifies(directory: Path, line: str, signature: bytes, message: bytes = MESSAGE) -> bool:
    (directory / "allowed").write_text(line + "\n")
    (directory / "signature").write_bytes(signature)
    options = ("-f", directory / "allowed", "-I", NAME, "-n", "edgedr", "-s", directory / "signature")
    return _keygen("-Y", "verify", *options, message=message).returncode == 0


def test_openssh_accepts_ours(tmp_path: Path) -> None:
    """``ssh-keygen -Y verify`` takes our signature with the line that ``init`` prints, and no other message."""
    signature = SIGNER.sign(MESSAGE)
    line = allowed_signers_line("plant-7", "cp-1", SIGNER.public)
    assert _openssh_verifies(tmp_path, line, signature)
    assert not _openssh_verifies(tmp_path, line, signature, MESSAGE + b" ")
    assert not _openssh_verifies(tmp_path, allowed_signers_line("plant-7", "cp-2", SIGNER.public), signature)


@pytest.mark.parametrize("digest", ["sha256", "sha512"])
def test_we_accept_openssh_s(tmp_path: Path, digest: str) -> None:
    """A key of ``ssh-keygen`` signs with either hash; its fingerprint is the one that ``ssh-keygen -l`` prints."""
    _keygen("-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key")
    (tmp_path / "message").write_bytes(MESSAGE)
    _keygen("-Y", "sign", "-f", tmp_path / "key", "-n", "edgedr", "-O", f"hashalg={digest}", tmp_path / "message")
    key = verify(MESSAGE, (tmp_path / "message.sig").read_bytes(), "x")
    assert key == PublicKey.parse((tmp_path / "key.pub").read_text())
    assert key.fingerprint in _keygen("-l", "-f", tmp_path / "key.pub").stdout.decode()
    loaded = Signer.load((tmp_path / "key").read_bytes(), "key")
    assert loaded.public == key
    assert verify(b"more", loaded.sign(b"more"), "x") == key


def test_our_key_file_is_openssh_s(tmp_path: Path) -> None:
    """``ssh-keygen`` reads the signing key that ``init`` writes."""
    (tmp_path / "key").write_bytes(SIGNER.private_bytes())
    (tmp_path / "key").chmod(0o600)
    assert _keygen("-y", "-f", tmp_path / "key").stdout.decode().split()[:2] == KEY.split()
    assert Signer.load(SIGNER.private_bytes(), "key").public == SIGNER.public


@pytest.mark.parametrize("options", [["-t", "ecdsa", "-N", ""], ["-t", "ed25519", "-N", "passphrase"]])
def test_other_signing_keys_are_refused(tmp_path: Path, options: list[str]) -> None:
    """A key of another kind, a protected one, or junk is a configuration error with the file's name."""
    _keygen("-q", *options, "-f", tmp_path / "key")
    for data in ((tmp_path / "key").read_bytes(), b"junk"):
        with pytest.raises(ConfigurationError, match="key/here"):
            Signer.load(data, "key/here")


def _refused(message: bytes, signature: bytes) -> str:
    with pytest.raises(Damaged) as caught:
        verify(message, signature, "the manifest of X")
    assert "the signature of the manifest of X" in caught.value.message
    return caught.value.message


def test_a_changed_message_is_refused() -> None:
    """One bit of the manifest, and the signature no longer holds."""
    assert "does not hold" in _refused(MESSAGE.replace(b"1", b"2"), SIGNER.sign(MESSAGE))


def test_another_namespace_is_refused(tmp_path: Path) -> None:
    """What the key signed for another purpose, a git commit say, is no signature of a backup."""
    (tmp_path / "key").write_bytes(SIGNER.private_bytes())
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "message").write_bytes(MESSAGE)
    _keygen("-Y", "sign", "-f", tmp_path / "key", "-n", "git", tmp_path / "message")
    assert "made for b'git'" in _refused(MESSAGE, (tmp_path / "message.sig").read_bytes())


def test_another_key_type_is_refused(tmp_path: Path) -> None:
    """Ed25519 is what nodes sign with; anything else is named."""
    _keygen("-q", "-t", "ecdsa", "-N", "", "-f", tmp_path / "key")
    (tmp_path / "message").write_bytes(MESSAGE)
    _keygen("-Y", "sign", "-f", tmp_path / "key", "-n", "edgedr", tmp_path / "message")
    assert "ecdsa" in _refused(MESSAGE, (tmp_path / "message.sig").read_bytes())


def test_a_key_put_into_a_signature_is_refused() -> None:
    """A signature that names another key than the one that made it is no signature by that one."""
    body = b"".join(SIGNER.sign(MESSAGE).splitlines()[1:-1])
    forged = base64.b64encode(base64.b64decode(body).replace(SIGNER.public.blob, OTHER.blob, 1))
    armor = b"-----BEGIN SSH SIGNATURE-----\n%s\n-----END SSH SIGNATURE-----\n"
    assert verify(MESSAGE, armor % body, "x") == SIGNER.public
    assert "does not hold" in _refused(MESSAGE, armor % forged)


@pytest.mark.parametrize("junk", [b"", b"\xff", b"-----BEGIN SSH SIGNATURE-----END SSH SIGNATURE-----", b"x" * 5000])
def test_junk_is_refused(junk: bytes) -> None:
    """What is no armor is damage, with the name of what it should have signed."""
    _refused(MESSAGE, junk)


@given(at=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_any_changed_byte_is_refused_or_harmless(at: int, flip: int) -> None:
    """A changed signature is damaged; where only the armor's white space changed it holds, by the same key."""
    signature = bytearray(SIGNER.sign(MESSAGE))
    signature[at % len(signature)] ^= flip
    try:
        assert verify(MESSAGE, bytes(signature), "x") == SIGNER.public
    except Damaged:
        return


@given(blob=st.binary(max_size=200))
def test_any_blob_is_refused(blob: bytes) -> None:
    """Lengths that lie, fields that are missing: nothing but damage comes of it."""
    for inside in (blob, b"SSHSIG\0\0\0\1" + blob):
        armored = b"-----BEGIN SSH SIGNATURE-----\n" + base64.b64encode(inside) + b"\n-----END SSH SIGNATURE-----\n"
        _refused(MESSAGE, armored)


# -- allowed_signers

ACCEPTED = [
    f"{NAME} {KEY}",
    f"{NAME} {KEY} John's key",
    f'{NAME} namespaces="edgedr" {KEY}',
    f'{NAME} namespaces="git,edgedr" {KEY}',
    f'{NAME} namespaces="edge*" {KEY}',
    f'{NAME} Namespaces="edgedr" {KEY}',
    f'"{NAME}" {KEY}',
    f"other@place,{NAME} {KEY}",
    f"*@plant-7 {KEY}",
    f"cp-?@plant-* {KEY}",
    f"!cp-2@plant-7,*@plant-7 {KEY}",
    f'{NAME} valid-after="20261122",valid-before="20261123" {KEY}',
    f'{NAME} valid-after="20261122221500Z" {KEY}',
    f"\t{NAME}\t\t{KEY}  ",
    f"# a comment\n\n  # another\n{NAME} {KEY}\n",
    f"{NAME} {KEY}\r\n",
]
PASSED_OVER = [
    "",
    "# only a comment",
    f"cp-2@plant-7 {KEY}",
    f"{NAME} {OTHER}",
    f'{NAME} namespaces="git" {KEY}',
    f"!{NAME},* {KEY}",
    f"*,!{NAME} {KEY}",
    f"cp-[1]@plant-7 {KEY}",
    f"{NAME}x {KEY}",
    f"{NAME} cert-authority {KEY}",
    f'{NAME} cert-authority,namespaces="edgedr" {KEY}',
    f'{NAME} valid-before="20261122" {KEY}',
    f'{NAME} valid-after="20261123" {KEY}',
    f"{NAME} ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ==",
    f"{NAME} sk-ssh-ed25519@openssh.com AAAA",
    f"{NAME} ecdsa-sha2-nistp256 AAAA comment",
]
BAD = [
    NAME,
    f"{NAME} ssh-ed25519",
    f"{NAME} ssh-ed25519 AAAA",
    f"{NAME} {KEY[:-6]}",
    f"{NAME} {KEY[:-4]}!!!!",
    f"{NAME} namespaces=edgedr {KEY}",
    f'{NAME} namespaces="edgedr {KEY}',
    f'{NAME} valid-after="soon" {KEY}',
    f"{NAME} no-touch-required {KEY}",
]


def _trust(text: str) -> Trust:
    return Trust(parse_allowed_signers(text, "signers"))


@pytest.mark.parametrize("text", ACCEPTED)
def test_a_signer_that_is_allowed(text: str) -> None:
    """Options, several principals, wildcards, negation, comments and odd spacing, as OpenSSH reads them."""
    assert _trust(text).believes(NAME, SIGNER.public, WHEN)


@pytest.mark.parametrize("text", PASSED_OVER)
def test_a_signer_that_is_not(text: str) -> None:
    """Other names, keys, purposes, times, key types and authorities give nobody anything, and stop nobody."""
    assert not _trust(text).believes(NAME, SIGNER.public, WHEN)


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_line_is_named(bad: str) -> None:
    """A line that cannot be meant is an error with its number: passed over, it would make its owner a stranger."""
    with pytest.raises(ConfigurationError, match="signers, line 3: ") as caught:
        parse_allowed_signers(f"# mine\n{NAME} {KEY}\n{bad}\n", "signers")
    assert caught.value.hint


@pytest.mark.parametrize("text", [line for line in ACCEPTED + PASSED_OVER if "valid-" not in line and "\r" not in line])
def test_openssh_agrees(tmp_path: Path, text: str) -> None:
    """``ssh-keygen -Y verify`` believes the same lines as edgedr does; times aside, which it compares with today."""
    ours = _trust(text).believes(NAME, SIGNER.public, WHEN)
    assert _openssh_verifies(tmp_path, text, SIGNER.sign(MESSAGE)) == ours


@given(
    text=st.text(max_size=100)
    | st.from_regex(r"[a-z*!,@\[\]]{1,9} ([a-z-]{1,9}(=\"[a-z,*]*\")?,?)* ?ssh-ed25519 [A-Za-z=]*")
)
def test_any_text_is_read_or_refused(text: str) -> None:
    """No file makes anything but signers or a configuration error."""
    try:
        _trust(text).believes(NAME, SIGNER.public, WHEN)
    except ConfigurationError as error:
        assert "signers, line " in error.message  # noqa: PT017 - both endings are right


def test_strangers_impostors_and_told_fingerprints() -> None:
    """A stranger is asked about, an impostor refused, and a fingerprint that a person gave is believed."""
    known = _trust(f"{NAME} {KEY}")
    known.require(NAME, SIGNER.public, WHEN, "X")
    with pytest.raises(Damaged, match="not the key known for cp-1@plant-7"):
        known.require(NAME, OTHER, WHEN, "X")
    with pytest.raises(RestoreStopped) as caught:
        Trust().require(NAME, OTHER, WHEN, "X")
    assert f"--trust-signer {OTHER.fingerprint}" in str(caught.value.hint)
    Trust(fingerprints=(OTHER.fingerprint,)).require(NAME, OTHER, WHEN, "X")


def test_the_signing_key_has_no_printable_form() -> None:
    """Printing a signer shows nothing of its key."""
    secret = SIGNER.private_bytes().decode().splitlines()[2]
    assert secret not in f"{SIGNER} {SIGNER!r} {vars(SIGNER)}"
