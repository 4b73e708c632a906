"""The configuration: a TOML file into frozen objects. Everything that is wrong is said at once, with "did you mean".

A section decodes into the object that does the work, so that a source's fields are its settings. Units are in the type:
durations are written like "24h" or "15 min", sizes like "64 MiB".
"""

import difflib
import re
import tomllib
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from edgedr.errors import ConfigurationError
from edgedr.model import NAME, Bytes
from edgedr.repository.chains import ChainPolicy
from edgedr.sealing.recipients import Recipient, parse_recipient
from edgedr.sources.table import SOURCE_NAMES, SourceTable

T = TypeVar("T")

DEFAULT_PATH = Path("/etc/edgedr/edgedr.toml")
_MAX_FILE = 1 << 20
_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB|TiB|kB|MB|GB|TB)", re.ASCII)
_SIZE_UNITS = {
    "B": 1,
    **{f"{prefix}iB": 1 << 10 * power for power, prefix in enumerate("KMGT", 1)},
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("kMGT", 1)},
}
_SPAN = re.compile(r"(\d+)\s*(s|min|h|d|w)", re.ASCII)
_SPAN_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_SEGMENT_MIN, _SEGMENT_MAX = 1 << 20, 1 << 30
_SEGMENT = Bytes(64 << 20)  # the largest whose deltas keep a worker below 256 MiB
_KEEP_FREE = Bytes(256 << 20)
_MAX_CHAIN = 10_000


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """``[node]``: which node this is, and where its root is."""

    site: str
    name: str
    root: Path = Path("/")


@dataclass(frozen=True, slots=True)
class RepositorySettings:
    """``[repository]``: where backups are committed first, and how much of that disk stays free."""

    path: Path = Path("/var/lib/edgedr/repository")
    keep_free: Bytes = _KEEP_FREE


@dataclass(frozen=True, slots=True)
class StateSettings:
    """``[state]``: where the signing key, the cached parent and the lock are. Never on a shared disk."""

    path: Path = Path("/var/lib/edgedr")


@dataclass(frozen=True, slots=True)
class SealingSettings:
    """``[sealing]``: for whom backups are sealed, and in what pieces. Encryption has no off switch."""

    recipients: tuple[str, ...]
    segment: Bytes = _SEGMENT


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration."""

    node: NodeSettings
    sealing: SealingSettings
    repository: RepositorySettings = field(default_factory=RepositorySettings)
    state: StateSettings = field(default_factory=StateSettings)
    chain: ChainPolicy = field(default_factory=ChainPolicy)
    sources: SourceTable = field(default_factory=SourceTable)

    @property
    def recipients(self) -> tuple[Recipient, ...]:
        """The recipients, parsed."""
        return tuple(parse_recipient(text) for text in self.sealing.recipients)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where: ``[sealing] segment``."""

    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}" if self.where else self.text


def load(path: Path) -> Settings:
    """Read and check a configuration file. Raises ``ConfigurationError`` that lists every problem."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the configuration {path}: {error.strerror}",
            hint="`edgedr init` writes one; --config names another",
        ) from error
    return parse(data, str(path))


def parse(data: bytes, where: str) -> Settings:
    """Read and check a configuration; ``where`` names it in errors."""
    if len(data) > _MAX_FILE:
        raise ConfigurationError(f"{where} is longer than {_MAX_FILE} bytes", hint="it is not our configuration")
    try:
        table = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(
            f"{where} is not TOML: {error}", hint="see config/edgedr.toml for an example"
        ) from error
    problems: list[Problem] = []
    settings = _decode(Settings, table, "", problems)
    if isinstance(settings, Settings):
        problems += _contradictions(settings)
    if problems:
        listing = "".join(f"\n  {problem}" for problem in problems)
        count = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
        raise ConfigurationError(f"{where} has {count}:{listing}", hint="config/edgedr.toml explains every setting")
    assert isinstance(settings, Settings)
    return settings


def size_text(size: int) -> str:
    """Write a size as this file reads it."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _SIZE_UNITS[unit] == 0:
            return f"{size // _SIZE_UNITS[unit]} {unit}"
    return f"{size} B"


def _contradictions(settings: Settings) -> Iterator[Problem]:
    for name, value in (("site", settings.node.site), ("name", settings.node.name)):
        if not NAME.fullmatch(value):
            yield Problem(f"[node] {name}", f"{value!r} is not a name: lower case letters, digits, dots and hyphens")
    yield from _recipient_problems(settings.sealing.recipients)
    segment = settings.sealing.segment
    if segment & (segment - 1) or not _SEGMENT_MIN <= segment <= _SEGMENT_MAX:
        yield Problem("[sealing] segment", f"{size_text(segment)} is not a power of two from 1 MiB to 1 GiB")
    if not 0 <= settings.chain.max_chain <= _MAX_CHAIN:
        yield Problem("[chain] max_chain", f"{settings.chain.max_chain} is not between 0 and {_MAX_CHAIN}")
    for name, path in (("[repository] path", settings.repository.path), ("[state] path", settings.state.path)):
        if not path.is_absolute():
            yield Problem(name, f"{str(path)!r} is not an absolute path")
    if settings.repository.path == settings.state.path:
        yield Problem("[repository] path", "it must not be the state directory itself: take a directory below it")
    for name in set(settings.sources.disabled) - set(SOURCE_NAMES):
        yield Problem("[sources] disabled", f"{name!r} is {_unknown(name, dict.fromkeys(SOURCE_NAMES))}")


def _recipient_problems(recipients: tuple[str, ...]) -> Iterator[Problem]:
    where = "[sealing] recipients"
    if not recipients:
        yield Problem(where, "there is none; encryption has no off switch and there is no default key")
    seen = set()
    for text in recipients:
        try:
            recipient = parse_recipient(text)
        except ConfigurationError as error:
            yield Problem(where, f"{error.message} ({error.hint})")
            continue
        if recipient.fingerprint in seen:
            yield Problem(where, f"{recipient} is there twice")
        seen.add(recipient.fingerprint)


def _decode(kind: Any, value: Any, where: str, problems: list[Problem]) -> Any:
    """Make a value of type ``kind``; what does not fit is added to ``problems`` and comes out as ``None``."""
    if is_dataclass(kind):
        return _decode_section(kind, value, where, problems)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {Union, types.UnionType}:
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return _decode(inner, value, where, problems)
    if origin is tuple:
        if not isinstance(value, list):
            problems.append(Problem(where, f"{_shown(value)} is not a list"))
            return None
        return tuple(_decode(arguments[0], item, where, problems) for item in value)
    try:
        return _scalar(kind, value)
    except ValueError as error:
        problems.append(Problem(where, str(error)))
        return None


def _decode_section(kind: Any, value: Any, where: str, problems: list[Problem]) -> Any:
    if not isinstance(value, Mapping):
        problems.append(Problem(where, f"{_shown(value)} is not a section"))
        return None
    hints = get_type_hints(kind)
    known = {item.name: item for item in fields(kind) if item.init}
    before = len(problems)
    values = {}
    for key, item in value.items():
        if key in known:
            values[key] = _decode(hints[key], item, _inside(where, key, section=is_dataclass(hints[key])), problems)
        else:
            problems.append(Problem(_inside(where, key, section=isinstance(item, Mapping)), _unknown(key, known)))
    for name, item in known.items():
        if name not in value and item.default is MISSING and item.default_factory is MISSING:
            problems.append(Problem(_inside(where, name, section=is_dataclass(hints[name])), "it is missing"))
    return kind(**values) if len(problems) == before else None


def _unknown(key: str, known: Mapping[str, object]) -> str:
    if key.lower() in {"encrypt", "encryption", "no_encryption"}:
        return "unknown; encryption has no off switch"
    close = difflib.get_close_matches(key, known, n=1)
    return f"unknown; did you mean {close[0]}?" if close else f"unknown; known are {', '.join(sorted(known))}"


def _inside(where: str, key: str, *, section: bool) -> str:
    if section:
        return f"[{where[1:-1]}.{key}]" if where else f"[{key}]"
    return f"{where} {key}" if where else key


def _scalar(kind: Any, value: Any) -> Any:
    match kind:
        case _ if kind is Bytes:
            return _size(value)
        case _ if kind is timedelta:
            return _span(value)
        case _ if kind is Path and isinstance(value, str):
            return Path(value)
        case _ if kind is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        case _ if kind in {str, bool} and isinstance(value, kind):
            return value
    words = {str: "a text in quotes", bool: "true or false", int: "a whole number", Path: "a path in quotes"}
    raise ValueError(f"{_shown(value)} is not {words[kind]}")


def _size(value: Any) -> Bytes:
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'{_shown(value)} is not a size: write it like "64 MiB"')
    return Bytes(int(match[1]) * _SIZE_UNITS[match[2]])


def _span(value: Any) -> timedelta:
    match = _SPAN.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[1]) == 0:
        raise ValueError(f'{_shown(value)} is not a duration: write it like "24 h", "15 min" or "30 s"')
    try:
        return timedelta(seconds=int(match[1]) * _SPAN_UNITS[match[2]])
    except OverflowError as error:
        raise ValueError(f"{_shown(value)} is too long a duration") from error


def _shown(value: Any) -> str:
    """Show a value, but nothing that could be a secret."""
    text = repr(value)
    if "SECRET" in text.upper() or "PRIVATE KEY" in text.upper():
        return "a private key"
    return text if len(text) <= 40 else f"{text[:40]}…"  # noqa: PLR2004
