"""Who opens a backup: age private keys, read from the operator's file, used, and never stored or shown."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgedr.errors import Damaged, WrongKey
from edgedr.sealing.recipients import fingerprint

_MAX_IDENTITY_FILE = 1 << 20
_AGE_MAGIC = b"age-encryption.org/v1"
_ARMOR_MAGIC = b"-----BEGIN AGE ENCRYPTED FILE-----"
_MAX_WORK = 22  # 2^22 is what age itself takes at most, and some seconds; `age -p` writes 2^18


@dataclass(frozen=True, slots=True)
class Identity:
    """A private key that opens backups. ``fingerprint`` is its recipient's; ``None`` where only a plugin knows."""

    fingerprint: str | None
    key: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewIdentity:
    """A pair made a moment ago. ``secret`` is shown once, by the caller, and kept nowhere."""

    recipient: str
    secret: str = field(repr=False)


def make_identity() -> NewIdentity:
    """Make an X25519 identity."""
    import pyrage  # noqa: PLC0415

    identity = pyrage.x25519.Identity.generate()
    return NewIdentity(str(identity.to_public()), str(identity))


def load_identities(path: Path, ask_passphrase: Callable[[str], str]) -> tuple[Identity, ...]:
    """Read an identity file: plain, passphrase-protected, plugin lines, or an SSH private key.

    ``ask_passphrase`` gets a prompt and is called only if the file is protected. Raises ``WrongKey``, which tells a
    missing file, a wrong passphrase, a missing plugin and a file that holds no identity apart.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_IDENTITY_FILE)
    except OSError as error:
        raise WrongKey(
            f"cannot read the identity {path}: {error.strerror}",
            hint="--identity names the file with the AGE-SECRET-KEY line, as `age-keygen -o` wrote it",
        ) from error
    if data.startswith((_AGE_MAGIC, _ARMOR_MAGIC)):
        protected = _protected(path, data)
        data = _unlock(path, protected, ask_passphrase(f"passphrase of {path}: "))
    if b"-----BEGIN" in data and b"PRIVATE KEY-----" in data:
        return (_ssh_identity(path, data),)
    identities = tuple(_identity(path, line) for line in _lines(path, data))
    if not identities:
        raise WrongKey(f"{path} holds no identity", hint="an identity line looks like AGE-SECRET-KEY-1…")
    return identities


def require_match(identities: Sequence[Identity], recipients: Sequence[str], what: str) -> None:
    """Fail before anything is fetched if none of ``identities`` can open what was sealed for ``recipients``."""
    known = [identity.fingerprint for identity in identities]
    if None in known or set(known) & set(recipients):
        return
    raise WrongKey(
        f"the identity {', '.join(str(k) for k in known)} is not one that {what} was sealed for: "
        f"{', '.join(recipients)}",
        hint="take the identity whose recipient was configured when the backup was made, or the escrow identity",
    )


def open_text(ciphertext: bytes, identities: Sequence[Identity]) -> bytes:
    """Decrypt a small age file whole. Raises ``WrongKey``, or ``Damaged``."""
    import pyrage  # noqa: PLC0415

    try:
        return bytes(pyrage.decrypt(ciphertext, [identity.key for identity in identities]))
    except (pyrage.DecryptError, OSError) as error:
        raise refusal(error, "the ciphertext") from error


def refusal(error: Exception, what: str) -> WrongKey | Damaged:
    """Tell a wrong key from damage by what age says."""
    if "No matching keys" in str(error):
        return WrongKey(f"no identity given opens {what}", hint="take the identity of one of its recipients")
    if "plugin" in str(error):
        return WrongKey(
            f"cannot open {what}: {' '.join(str(error).split())}", hint="install the age plugin that the identity names"
        )
    return Damaged(f"{what} is damaged: {error}", hint="take another copy of it")


def _lines(path: Path, data: bytes) -> list[str]:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise WrongKey(f"{path} is not an identity file", hint="it should be text, or an age file") from error
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def _identity(path: Path, line: str) -> Identity:
    import pyrage  # noqa: PLC0415

    try:
        if line.startswith("AGE-PLUGIN-"):
            plugin = pyrage.plugin.Identity.from_str(line)
            return Identity(None, pyrage.plugin.IdentityPluginV1(plugin.plugin(), [plugin], _Terminal()))
        key = pyrage.x25519.Identity.from_str(line)
    except pyrage.DecryptError as error:
        raise WrongKey(
            f"the identity in {path} needs an age plugin: {' '.join(str(error).split())}",
            hint="install the plugin on this machine and plug in the device",
        ) from error
    except pyrage.IdentityError as error:
        public = line.startswith(("age1", "ssh-"))
        raise WrongKey(
            f"{path} holds {'a recipient, which only seals' if public else 'a line that is no identity'}",
            hint="an identity line looks like AGE-SECRET-KEY-1…; copy it whole",
        ) from error
    return Identity(fingerprint(str(key.to_public())), key)


def _ssh_identity(path: Path, data: bytes) -> Identity:
    import pyrage  # noqa: PLC0415
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    try:
        private = serialization.load_ssh_private_key(data, password=None)
        public = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        return Identity(fingerprint(public.decode()), pyrage.ssh.Identity.from_buffer(data))
    except (ValueError, TypeError, UnsupportedAlgorithm, pyrage.IdentityError) as error:
        raise WrongKey(
            f"cannot use the SSH key {path}: {error}",
            hint="passphrase-protected SSH keys: take the passphrase off a copy with `ssh-keygen -p` on a safe machine",
        ) from error


def _protected(path: Path, data: bytes) -> bytes:
    """Return the binary form of a passphrase-protected file that is safe to try a passphrase on."""
    try:
        if data.startswith(_ARMOR_MAGIC):
            body = b"".join(line.strip() for line in data.splitlines() if not line.startswith(b"-----"))
            data = base64.b64decode(body, validate=True)
        stanza = data.split(b"\n", 2)[1].split(b" ")
        if stanza[:2] != [b"->", b"scrypt"]:
            raise WrongKey(
                f"{path} is an age file sealed for another key, not an identity protected by a passphrase",
                hint="decrypt it first: age -d -i OTHER-KEY -o key.txt FILE",
            )
        work = int(stanza[3])
    except (ValueError, IndexError) as error:
        raise WrongKey(f"{path} is an age file, but damaged", hint="take another copy of the identity") from error
    if work > _MAX_WORK:
        raise WrongKey(f"{path} asks for 2^{work} rounds of scrypt", hint="`age -p` never writes that: do not trust it")
    return data


def _unlock(path: Path, data: bytes, passphrase: str) -> bytes:
    import pyrage  # noqa: PLC0415

    try:
        return bytes(pyrage.passphrase.decrypt(data, passphrase))
    except pyrage.DecryptError as error:
        raise WrongKey(f"cannot unlock {path}: {error}", hint="the passphrase is wrong: try again") from error
    except OSError as error:
        raise WrongKey(f"{path} is an age file, but damaged", hint="take another copy of the identity") from error


class _Terminal:
    """What a plugin says and asks goes to the person at the terminal."""

    def display_message(self, message: str) -> None:
        import sys  # noqa: PLC0415

        sys.stderr.write(f"{message}\n")

    def confirm(self, message: str, yes_string: str, no_string: str | None) -> bool:
        return input(f"{message} ({yes_string}/{no_string or 'no'}) ").strip() == yes_string

    def request_public_string(self, description: str) -> str:
        return input(f"{description} ")

    def request_passphrase(self, description: str) -> str:
        import getpass  # noqa: PLC0415

        return getpass.getpass(f"{description} ")
