"""Who can open a backup: age public keys. The node holds nothing else, so it cannot read its own past."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgedr.errors import ConfigurationError

_SECRET_MARKS = ("AGE-SECRET-KEY-", "AGE-PLUGIN-", "PRIVATE KEY-----")
_NATIVE = "age1"
_SSH = ("ssh-ed25519 ", "ssh-rsa ")


@dataclass(frozen=True, slots=True)
class Recipient:
    """An age public key, as text (``age1…`` or an SSH public key)."""

    text: str

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that stand for the key in manifests, which never hold the key itself."""
        return fingerprint(self.text)

    def __str__(self) -> str:
        return self.text if len(self.text) < 70 else f"{self.text[:24]}…{self.text[-12:]}"  # noqa: PLR2004


def fingerprint(public: str) -> str:
    """Return the first 16 hex digits of SHA-256 over the public key's text, without an SSH key's comment."""
    return hashlib.sha256(" ".join(public.split()[:2]).encode()).hexdigest()[:16]


def parse_recipient(text: str) -> Recipient:
    """Read one recipient. A ``ConfigurationError`` tells a typo from a private key, and never echoes the latter."""
    text = " ".join(text.split())
    if any(mark in text.upper() for mark in _SECRET_MARKS):
        raise ConfigurationError(
            "a private key stands where a recipient belongs; it must never be on this node",
            hint="consider it exposed: make a new one with `age-keygen`, and give only its `age1…` line here",
        )
    recipient = Recipient(text)
    age_recipient(recipient)
    return recipient


def age_recipient(recipient: Recipient) -> Any:
    """Return pyrage's object for a recipient, or a ``ConfigurationError``."""
    import pyrage  # noqa: PLC0415

    text = recipient.text
    shown = text if len(text) <= 12 else f"{text[:12]}…"  # noqa: PLR2004
    try:
        if text.startswith(_SSH):
            return pyrage.ssh.Recipient.from_str(text)
        if text.startswith(_NATIVE) and "1" in text[len(_NATIVE) :]:
            plugin = pyrage.plugin.Recipient.from_str(text)
            return pyrage.plugin.RecipientPluginV1(plugin.plugin(), [plugin], [], _NoTalk())
        return pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError as error:
        raise ConfigurationError(
            f"{shown} is not an age recipient: {error}",
            hint="a recipient looks like age1…; copy the `public key` line of `age-keygen` whole",
        ) from error
    except pyrage.EncryptError as error:
        raise ConfigurationError(
            f"{shown} needs an age plugin that does not run here: {' '.join(str(error).split())}",
            hint="install age-plugin-… on this node, or use a plain age1… recipient",
        ) from error


class _NoTalk:
    """Answers of a machine without a person: what a plugin has to say is dropped, what it asks is declined."""

    def display_message(self, message: str) -> None:
        del message

    def confirm(self, message: str, yes_string: str, no_string: str | None) -> None:
        del message, yes_string, no_string

    def request_public_string(self, description: str) -> None:
        del description

    def request_passphrase(self, description: str) -> None:
        del description


def seal_text(plain: bytes, recipients: Sequence[Recipient]) -> bytes:
    """Encrypt something small, as an age file."""
    import pyrage  # noqa: PLC0415

    return bytes(pyrage.encrypt(plain, [age_recipient(recipient) for recipient in recipients]))
