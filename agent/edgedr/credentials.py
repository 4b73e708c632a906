"""References to secrets: where one is kept, never the secret itself. What is read has no printable form.

``file:/path`` is a file of this machine, ``env:NAME`` an environment variable, ``credential:NAME`` what systemd hands
to the unit in ``$CREDENTIALS_DIRECTORY`` (``LoadCredential=``, ``LoadCredentialEncrypted=``).
"""

import os
import re
import stat
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn, Self

from edgedr.errors import ConfigurationError

_FORMS = "write file:/path, env:NAME or credential:NAME, and keep the secret there"
_MAX_SECRET = 64 << 10  # bytes
_DIRECTORY = "CREDENTIALS_DIRECTORY"


class Secret:
    """A secret that was read: it can be used, but not printed, compared or stored by accident."""

    __slots__ = ("_value",)
    _value: bytes

    def __init__(self, value: bytes) -> None:
        object.__setattr__(self, "_value", value)

    def reveal(self) -> bytes:
        """Return it. What is revealed must not be kept."""
        return self._value

    def __repr__(self) -> str:
        return "<secret>"

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a secret does not change")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written anywhere")


class Keeper(StrEnum):
    """Who keeps a secret."""

    FILE = "file"
    ENVIRONMENT = "env"
    SYSTEMD = "credential"


_PLACES = {
    Keeper.FILE: re.compile(r"/[^\0\n]*[^\0\n/]"),
    Keeper.ENVIRONMENT: re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII),
    Keeper.SYSTEMD: re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII),
}


@dataclass(frozen=True, slots=True)
class Credential:
    """Where a secret is kept: who keeps it, and under what path or name. It may be shown."""

    keeper: Keeper
    place: str

    def __str__(self) -> str:
        return f"{self.keeper}:{self.place}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a reference. ``ConfigurationError`` for anything else, which is not shown: it may be the secret."""
        keeper, colon, place = text.partition(":")
        if not colon or keeper not in set(Keeper):
            raise ConfigurationError("it is not a reference to a secret", hint=_FORMS)
        if not _PLACES[Keeper(keeper)].fullmatch(place):
            wanted = "an absolute path" if keeper == Keeper.FILE else "a name"
            raise ConfigurationError(f"what follows {keeper}: is not {wanted}", hint=_FORMS)
        return cls(Keeper(keeper), place)

    def read(self) -> Secret:
        """Read the secret, without the line end that an editor left.

        Raises ``ConfigurationError`` where there is none, it is empty, or it cannot be read; never waits.
        """
        match self.keeper:
            case Keeper.FILE:
                value = self._content(self.place)
            case Keeper.ENVIRONMENT:
                if self.place not in os.environ:
                    raise ConfigurationError(f"{self} is not set", hint=f"set {self.place} where edgedr is started")
                value = os.environb[self.place.encode()]
            case Keeper.SYSTEMD:
                directory = os.environ.get(_DIRECTORY)
                if not directory:
                    hint = f"LoadCredential={self.place}:/path in the unit; by hand, use file: or env:"
                    raise ConfigurationError(f"{self} cannot be read: ${_DIRECTORY} is not set", hint=hint)
                value = self._content(f"{directory}/{self.place}")
        value = value.rstrip(b"\r\n")
        if not value:
            raise ConfigurationError(f"{self} is empty", hint="put the secret there")
        return Secret(value)

    def _content(self, path: str) -> bytes:
        try:
            # O_NONBLOCK: a FIFO in its place must not make us wait.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise ConfigurationError(f"{self} is not a file", hint="name the file that holds the secret")
                value = os.read(descriptor, _MAX_SECRET + 1)
            finally:
                os.close(descriptor)
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            hint = "put the secret there, readable for whom edgedr runs as"
            raise ConfigurationError(f"{self} cannot be read: {reason}", hint=hint) from error
        if len(value) > _MAX_SECRET:
            raise ConfigurationError(f"{self} is longer than {_MAX_SECRET} bytes", hint="it is no secret")
        return value
