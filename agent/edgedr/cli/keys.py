"""``edgedr keys``: show that a person can open what this fleet seals."""

import base64
import re

from edgedr.cli import terminal
from edgedr.cli.keyring import identities
from edgedr.cli.parser import Arguments
from edgedr.errors import ConfigurationError, WrongKey
from edgedr.sealing.identities import open_text

_AGE = b"age-encryption.org/v1\n"
ANSWER = re.compile(r"\d{4}-\d{4}-\d{4}", re.ASCII)


def prove(arguments: Arguments) -> int:
    """Decrypt the challenge of `edgedr init` and print the answer."""
    ciphertext = _ciphertext(arguments.challenge)
    if not arguments.identity:
        raise WrongKey("no identity was given", hint="--identity names the file with the AGE-SECRET-KEY line")
    answer = open_text(ciphertext, identities(arguments)).decode(errors="replace")
    if not ANSWER.fullmatch(answer):  # whoever asks for another plaintext wants this key to decrypt for him
        raise ConfigurationError(
            "this opens, but it is no challenge of `edgedr init`: its content is not shown",
            hint="do not answer it; look who sent it, it may be a stolen backup",
        )
    terminal.say(answer)
    return 0


def _ciphertext(challenge: str) -> bytes:
    """Return the age file that a challenge is, in base64."""
    try:
        ciphertext = base64.b64decode(challenge, validate=True)
    except ValueError:  # no base64, or no ASCII
        ciphertext = b""
    if not ciphertext.startswith(_AGE):
        raise ConfigurationError("this is no challenge of `edgedr init`", hint="paste the whole line")
    return ciphertext
