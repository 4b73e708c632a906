"""What an API server's EncryptionConfiguration says, without the keys themselves: which values it can read, with what.

A value in etcd that is encrypted begins with the name of the provider and of the key that wrote it; a value that does
not begin with ``k8s:enc:`` is in the clear. Without I/O.
"""

import base64
import binascii
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from edgedr.yaml_text import load_yaml

IDENTITY = "identity"
"""The provider that writes values in the clear."""

_KEY_SIZES = {"aescbc": (16, 24, 32), "aesgcm": (16, 24, 32), "secretbox": (32,)}  # bytes
_KINDS = frozenset({"EncryptionConfiguration", "EncryptionConfig"})  # the second until Kubernetes 1.13


@dataclass(frozen=True, slots=True)
class Provider:
    """One way to encrypt: ``aescbc``, ``aesgcm``, ``secretbox`` with named keys, ``kms``, or ``identity``.

    ``version`` is that of its values, ``v1`` or ``v2``. ``keys`` are the names of its keys, of a ``kms`` that of its
    plugin, whose socket is ``endpoint``. ``unusable`` are those of its keys that no API server could use.
    """

    kind: str
    version: str = "v1"
    keys: tuple[str, ...] = ()
    endpoint: str | None = None
    unusable: tuple[str, ...] = ()

    def prefixes(self) -> tuple[str, ...]:
        """Return what the values begin with that it can read; none for ``identity``."""
        return tuple(f"k8s:enc:{self.kind}:{self.version}:{key}:" for key in self.keys)

    def __str__(self) -> str:
        version = f" {self.version}" if self.kind == "kms" else ""
        return " ".join((self.kind + version, ", ".join(self.keys))).strip()


@dataclass(frozen=True, slots=True)
class Encrypted:
    """Resources as the file names them, like ``secrets`` or ``*.apps``, and their providers: the first one writes."""

    resources: tuple[str, ...]
    providers: tuple[Provider, ...]

    def __str__(self) -> str:
        return f"{', '.join(self.resources)}: {'; '.join(map(str, self.providers))}"


@dataclass(frozen=True, slots=True)
class EncryptionConfiguration:
    """All of one file, in its order. It holds names of keys, never a key."""

    rules: tuple[Encrypted, ...]

    def providers(self) -> tuple[Provider, ...]:
        """Return every provider once, in the order of the file."""
        return tuple(dict.fromkeys(provider for rule in self.rules for provider in rule.providers))

    def prefixes(self) -> tuple[str, ...]:
        """Return what the values begin with that it can read, like ``k8s:enc:secretbox:v1:key1:``; each once."""
        return tuple(dict.fromkeys(prefix for provider in self.providers() for prefix in provider.prefixes()))

    def keys(self) -> tuple[str, ...]:
        """Return its keys by name, like ``secretbox key1`` or ``kms v2 vault``; each once."""
        named = (str(Provider(each.kind, each.version, (key,))) for each in self.providers() for key in each.keys)
        return tuple(dict.fromkeys(named))

    def unusable(self) -> tuple[str, ...]:
        """Return those keys, by name, that no API server could use: not base64, or of a wrong length."""
        return tuple(dict.fromkeys(f"{each.kind} {key}" for each in self.providers() for key in each.unusable))


def read_encryption(text: str) -> EncryptionConfiguration:
    """Read an EncryptionConfiguration, YAML or JSON; ``ValueError`` if it is none. No error repeats any of its text."""
    try:
        rules = tuple(_rules(load_yaml(text)))
    except (ValueError, LookupError, TypeError, AttributeError):
        # not "from error": a parser's error quotes the line that it stumbled over, which may be a key
        raise ValueError("not an EncryptionConfiguration") from None
    if not rules:
        raise ValueError("an EncryptionConfiguration without resources")
    return EncryptionConfiguration(rules)


def _rules(loaded: Any) -> Iterator[Encrypted]:
    if loaded["kind"] not in _KINDS:
        raise ValueError("its kind is another")
    yield from (_rule(entry) for entry in _list(loaded["resources"]))


def _rule(entry: Any) -> Encrypted:
    providers = tuple(provider for each in _list(entry["providers"]) for provider in _providers(each))
    resources = tuple(_text(name) for name in _list(entry["resources"]))
    if not providers or not resources:
        raise ValueError("nothing is encrypted")
    return Encrypted(resources, providers)


def _providers(entry: Any) -> Iterator[Provider]:
    for kind, settings in entry.items():
        if kind == IDENTITY:
            yield Provider(IDENTITY)
        elif kind == "kms":
            version = _text(settings.get("apiVersion") or "v1")
            if version not in {"v1", "v2"}:
                raise ValueError("a KMS of an unknown version")
            yield Provider("kms", version, (_text(settings["name"]),), _text(settings["endpoint"]))
        elif kind in _KEY_SIZES:
            keys = [(_text(key["name"]), key.get("secret")) for key in _list(settings["keys"])]
            unusable = tuple(name for name, secret in keys if not _is_key(secret, _KEY_SIZES[kind]))
            yield Provider(kind, "v1", tuple(name for name, _ in keys), None, unusable)
        else:
            raise ValueError("an unknown provider")


def _is_key(secret: object, sizes: Iterable[int]) -> bool:
    try:
        if not isinstance(secret, str):
            return False
        unbroken = secret.replace("\r", "").replace("\n", "")  # as the API server does: a block scalar ends with one
        return len(base64.b64decode(unbroken, validate=True)) in sizes
    except (ValueError, binascii.Error):
        return False


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise TypeError("not a text")
    return value
