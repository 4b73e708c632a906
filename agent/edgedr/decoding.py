"""Configuration tables into frozen dataclasses: every problem at once, with "did you mean", never echoing a secret.

Units are in the type: a ``timedelta`` is written like "24 h" or "15 min", ``Bytes`` like "64 MiB".
"""

import difflib
import re
import tomllib
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any, Union, get_args, get_origin, get_type_hints

from edgedr.errors import ConfigurationError
from edgedr.model import Bytes

_EXPLAINED = "the comments that `edgedr init` writes there explain every setting"
_MAX_FILE = 1 << 20
_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB|TiB|kB|MB|GB|TB)", re.ASCII)
_SIZE_UNITS = {
    "B": 1,
    **{f"{prefix}iB": 1 << 10 * power for power, prefix in enumerate("KMGT", 1)},
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("kMGT", 1)},
}
_SPAN = re.compile(r"(\d+)\s*(s|min|h|d|w)", re.ASCII)
_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_SECRETS = ("SECRET", "PRIVATE KEY", "AGE-PLUGIN-")
_NEVER_SHOWN = frozenset({"secret", "credential", "ping"})
"""Settings whose value is not shown whatever it is: somebody may have put there what it should refer to."""
_SPAN_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where: ``[sealing] segment``."""

    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}" if self.where else self.text


@dataclass(slots=True)
class Reading:
    """What has been seen so far: every problem, and each value that could be read or has a default, by its place.

    So that what contradicts itself is found among the good values, however many bad ones are around them.
    """

    problems: list[Problem] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)


def read_table(path: Path) -> tuple[dict[str, Any], str]:
    """Read a TOML file; return it and its name for messages. Raises ``ConfigurationError``."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except OSError as error:
        hint = "`edgedr init` writes one; --config names another"
        if isinstance(error, PermissionError):
            hint = "run as root, or as the owner of the file"
        raise ConfigurationError(f"cannot read the configuration {path}: {error.strerror}", hint=hint) from error
    return parse_table(data, str(path)), str(path)


def parse_table(data: bytes, where: str) -> dict[str, Any]:
    """Parse TOML; ``where`` names it in errors."""
    if len(data) > _MAX_FILE:
        raise ConfigurationError(f"{where} is longer than {_MAX_FILE} bytes", hint="it is not our configuration")
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # of which TOML's, Unicode's, and a number of 5000 digits
        raise ConfigurationError(
            f"{where} is not TOML: {error}", hint="look at the line it names; strings are in quotes, lists in brackets"
        ) from error


def refuse(problems: list[Problem], where: str, *, hint: str = _EXPLAINED) -> None:
    """Raise one ``ConfigurationError`` that lists all problems, if there are any."""
    if problems:
        listing = "".join(f"\n  {problem}" for problem in problems)
        count = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
        raise ConfigurationError(f"{where} has {count}:{listing}", hint=hint)


def why_not_absolute(text: str) -> str | None:
    """Say why a path or glob cannot be looked up below a root; ``None`` if it can."""
    if not text.startswith("/"):
        return f"{shown(text)} is not an absolute path"
    if ".." in PurePosixPath(text).parts:
        return f"{shown(text)} leads upwards: write it without .."
    return f"{shown(text)} has a NUL in it" if "\0" in text else None


def size_text(size: int) -> str:
    """Write a size as this file reads it."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _SIZE_UNITS[unit] == 0:
            return f"{size // _SIZE_UNITS[unit]} {unit}"
    return f"{size} B"


def decode(kind: Any, value: Any, where: str, reading: Reading) -> Any:
    """Make a value of type ``kind``; what does not fit is added to the problems and comes out as ``None``."""
    before = len(reading.problems)
    made = _decode(kind, value, where, reading)
    if len(reading.problems) == before:
        reading.values[where] = made
    return made


def _decode(kind: Any, value: Any, where: str, reading: Reading) -> Any:
    if is_dataclass(kind):
        return _decode_section(kind, value, where, reading)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {Union, types.UnionType}:
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return _decode(inner, value, where, reading)
    if origin is tuple:
        if not isinstance(value, list):
            reading.problems.append(Problem(where, f"{shown(value)} is not a list"))
            return None
        numbered = is_dataclass(arguments[0])
        places = [f"{where} #{number}" if numbered else where for number in range(1, len(value) + 1)]
        return tuple(_decode(arguments[0], item, place, reading) for item, place in zip(value, places, strict=True))
    try:
        return _scalar(kind, value)
    except ValueError as error:
        hidden = where.rpartition(" ")[2] in _NEVER_SHOWN
        reading.problems.append(Problem(where, "it is not a reference in quotes" if hidden else str(error)))
        return None


def _decode_section(kind: Any, value: Any, where: str, reading: Reading) -> Any:
    if not isinstance(value, Mapping):
        reading.problems.append(Problem(where, f"{shown(value)} is not a section"))
        return None
    hints = get_type_hints(kind)
    known = {item.name: item for item in fields(kind) if item.init}
    before = len(reading.problems)
    values = {}
    for key, item in value.items():
        if key in known:
            values[key] = decode(hints[key], item, _inside(where, key, section=is_dataclass(hints[key])), reading)
        else:
            place = _inside(where, _plain(key), section=isinstance(item, Mapping))
            reading.problems.append(Problem(place, unknown(key, known)))
    for name, item in known.items():
        place = _inside(where, name, section=is_dataclass(hints[name]))
        if name in value:
            continue
        if item.default is not MISSING:
            reading.values[place] = item.default
        elif is_dataclass(hints[name]):
            values[name] = decode(hints[name], {}, place, reading)  # so that its own fields tell what is missing
        elif item.default_factory is MISSING:
            reading.problems.append(Problem(place, "it is missing"))
    return kind(**values) if len(reading.problems) == before else None


def unknown(key: str, known: Mapping[str, object]) -> str:
    """Say of a key that it is unknown, and what was probably meant."""
    if key.lower() in {"encrypt", "encryption", "no_encryption"}:
        return "unknown; encryption has no off switch"
    close = difflib.get_close_matches(key.lower(), known, n=1)
    return f"unknown; did you mean {close[0]}?" if close else f"unknown; known are {', '.join(sorted(known))}"


def _plain(key: str) -> str:
    return key if _KEY.fullmatch(key) and key == shown(key).strip("'") else shown(key)


def _inside(where: str, key: str, *, section: bool) -> str:
    if section:
        return f"[{where[1:-1]}.{key}]" if where else f"[{key}]"
    return f"{where} {key}" if where else key


def _scalar(kind: Any, value: Any) -> Any:
    match kind:
        case _ if isinstance(kind, type) and issubclass(kind, StrEnum):
            return _one_of(kind, value)
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
    raise ValueError(f"{shown(value)} is not {words[kind]}")


def _one_of(kind: type[StrEnum], value: Any) -> StrEnum:
    known = [str(member) for member in kind]
    if value not in known:
        raise ValueError(f"{shown(value)} is none of {', '.join(known)}")
    return kind(value)


def _size(value: Any) -> Bytes:
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'{shown(value)} is not a size: write it like "64 MiB"')
    return Bytes(int(match[1]) * _SIZE_UNITS[match[2]])


def _span(value: Any) -> timedelta:
    match = _SPAN.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[1]) == 0:
        raise ValueError(f'{shown(value)} is not a duration: write it like "24 h", "15 min" or "30 s"')
    try:
        return timedelta(seconds=int(match[1]) * _SPAN_UNITS[match[2]])
    except OverflowError as error:
        raise ValueError(f"{shown(value)} is too long a duration") from error


def shown(value: Any) -> str:
    """Show a value on one line, but nothing that could be a secret."""
    text = ascii(value)
    if any(mark in text.upper() for mark in _SECRETS):
        return "a private key"
    return text if len(text) <= 40 else f"{text[:40]}…"  # noqa: PLR2004
