"""What the person at the command line brings along: identities, and whose signatures to believe."""

import os
import re
import sys
from pathlib import Path

from edgedr.cli.parser import Arguments
from edgedr.errors import ConfigurationError, WrongKey
from edgedr.locations import Locations
from edgedr.sealing.identities import Identity, load_identities
from edgedr.sealing.signatures import PublicKey, Trust, parse_allowed_signers

_MAX_SIGNERS = 1 << 20
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}", re.ASCII)


def identities(arguments: Arguments) -> tuple[Identity, ...]:
    """Load the identities named on the command line."""
    return tuple(identity for path in arguments.identity for identity in load_identities(path, _ask_passphrase))


def trust(arguments: Arguments, here: Locations | None) -> Trust:
    """Gather whom to believe: told, else kept beside the identity; and, on the node itself, its own key."""
    beside = dict.fromkeys(identity.parent / "allowed_signers" for identity in arguments.identity)
    told = arguments.allowed_signers  # whoever names a file believes nobody but those in it
    files = [path for path in beside if os.path.lexists(path)] if told is None else [told]
    signers = tuple(signer for path in files for signer in parse_allowed_signers(_read(path), str(path)))
    fingerprints: tuple[str, ...] = () if arguments.trust_signer is None else (arguments.trust_signer,)
    if not all(_FINGERPRINT.fullmatch(fingerprint) for fingerprint in fingerprints):
        raise ConfigurationError(
            f"--trust-signer {arguments.trust_signer} is not a fingerprint", hint="it looks like SHA256:… and 43 more"
        )
    own = own_key(here)
    if own is not None:
        fingerprints += (own.fingerprint,)
    return Trust(signers, fingerprints)


def own_key(here: Locations | None) -> PublicKey | None:
    """Return the public half of this node's signing key, if this is a node."""
    if here is None:
        return None
    try:
        return PublicKey.parse((here.state.path / "signing.key.pub").read_text())
    except (OSError, ValueError):
        return None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_SIGNERS).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"cannot read {path}: {error}", hint="it is an OpenSSH allowed_signers file"
        ) from error


def _ask_passphrase(prompt: str) -> str:
    if not sys.stdin.isatty():
        raise WrongKey(
            "the identity is protected by a passphrase, and there is no terminal to ask for it",
            hint="run this on a terminal, or decrypt the identity first: age -d -o key.txt protected.age",
        )
    import getpass  # noqa: PLC0415

    try:
        return getpass.getpass(prompt)
    except EOFError as error:
        raise WrongKey("no passphrase was given", hint="run this on a terminal, and type it") from error
