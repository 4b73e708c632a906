"""Records as JSON, strictly: what ``encode`` writes, ``decode`` reads, and nothing else gets through.

The bytes may come from a hostile bucket, so size, depth, strings and numbers are bounded before they are believed, and
whatever is wrong is a ``Damaged`` that names the record and the place in it. Encoded are frozen dataclasses of str,
int, bool, enums, UTC times, backup ids, ``tuple[X, ...]``, ``dict[str, X]`` and ``X | None``.
"""

import json
import re
import types
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum, IntEnum, StrEnum
from functools import cache
from typing import Any, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from edgedr.errors import Damaged
from edgedr.model import SCHEMA, BackupId

T = TypeVar("T")

MAX_DEPTH = 16
MAX_STRING = 128 << 10
"""Characters in one string: the largest extended attribute that Linux knows is 64 KiB, and base64 makes 88 of it."""

_MAX_INT = 2**63 - 1
_SIGNED = frozenset({"clock_offset_ms", "mtime_ns"})
"""The only fields that may be negative. Everything else counts, measures or identifies."""
_MAX_SIGNED = 2**94  # 64-bit seconds in nanoseconds: some file systems keep such times
_MAX_DIGITS = 40  # beyond any number above; a longer one is not even converted
_SHOWN = 60  # characters of a foreign key or value in a message

_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)  # possessive: linear whatever the input
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{6})?Z", re.ASCII)


class _Refused(Exception):
    """What is wrong, and where in the record."""

    def __init__(self, problem: str, where: str = "", *, hint: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.where = where
        self.hint = hint or "it was damaged, or changed after edgedr wrote it"


def encode(record: object) -> bytes:
    """Write a dataclass as ASCII, keys sorted, one value a line, a newline at the end: equal records, equal bytes."""
    return json.dumps(_plain(record), ensure_ascii=True, allow_nan=False, sort_keys=True, indent=1).encode() + b"\n"


def decode(
    cls: type[T], data: bytes, *, what: str, max_bytes: int, max_depth: int = MAX_DEPTH, schema: int = SCHEMA
) -> T:
    """Read a dataclass back; ``what`` names the record in messages.

    Every field must be there, and nothing else. A field named ``schema`` is looked at first: a value other than
    ``schema`` is refused with the advice to take a newer edgedr. All refusals are ``Damaged``.
    """
    try:
        return cls(**_fields(cls, _parse(data, max_bytes=max_bytes, max_depth=max_depth), "", schema=schema))
    except _Refused as refusal:
        where = f" at {refusal.where}" if refusal.where else ""
        raise Damaged(f"{what} is not valid{where}: {refusal.problem}", hint=refusal.hint) from refusal


def _plain(value: object) -> object:  # noqa: PLR0911 - one line for each type
    match value:
        case Enum():
            return value.value
        case None | bool() | int() | str():
            return value
        case BackupId():
            return str(value)
        case datetime():
            return value.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
        case tuple():
            return [_plain(item) for item in value]
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case _ if is_dataclass(value):
            return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    raise TypeError(f"{type(value).__name__} has no place in a record")


def _parse(data: bytes, *, max_bytes: int, max_depth: int) -> object:
    if len(data) > max_bytes:
        raise _Refused(f"{len(data)} bytes long, at most {max_bytes} are allowed")
    try:
        text = data.decode()
        _refuse_depth(text, max_depth)
        return json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer)
    except UnicodeDecodeError as error:
        raise _Refused("not UTF-8", f"byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise _Refused(error.msg.lower(), f"line {error.lineno}, column {error.colno}") from error


def _refuse_depth(text: str, max_depth: int) -> None:
    """Count brackets outside strings before the parser recurses into them."""
    depth = 0
    for token in _TOKEN.finditer(text):
        if token[0] in "[{":
            depth += 1
            if depth > max_depth:
                raise _Refused(f"nested deeper than {max_depth}", f"character {token.start()}")
        elif token[0] in "]}":
            depth -= 1


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise _Refused(f"key {_show(key)} appears twice in one object")
        found[key] = value
    return found


def _constant(text: str) -> NoReturn:
    raise _Refused(f"{text} is not a JSON number")


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise _Refused(f"a number of {len(text)} digits")
    return int(text)


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _fields(cls: type, value: object, where: str, *, schema: int | None = None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Refused(f"expected an object, found {_kind(value)}", where)
    hints = _hints(cls)
    if schema is not None and "schema" in hints:
        found = value.get("schema")
        if isinstance(found, int) and not isinstance(found, bool) and found != schema:
            raise _Refused(
                f"schema {found} is unknown, this edgedr reads {schema}", hint="a newer edgedr is needed to read it"
            )
    unknown = sorted(value.keys() - hints.keys())
    if unknown:
        raise _Refused(f"unknown key {_show(unknown[0])}", where)
    missing = [name for name in hints if name not in value]
    if missing:
        raise _Refused(f"{missing[0]} is missing", where)
    return {name: _value(hints[name], value[name], _at(where, name), name) for name in hints}


def _value(hint: Any, value: object, where: str, name: str) -> object:  # noqa: PLR0911 - one line for each type
    origin = get_origin(hint)
    if origin in {types.UnionType, Union}:
        (inner,) = (arg for arg in get_args(hint) if arg is not types.NoneType)
        return None if value is None else _value(inner, value, where, name)
    if origin is tuple:
        items = _typed(list, "an array", value, where)
        return tuple(_value(get_args(hint)[0], item, f"{where}[{index}]", name) for index, item in enumerate(items))
    if origin is dict:
        entries = _typed(dict, "an object", value, where)
        of = get_args(hint)[1]
        return {_text(key, where): _value(of, item, _at(where, key), name) for key, item in entries.items()}
    if hint is bool:
        return _typed(bool, "true or false", value, where)
    if hint is int:
        return _number(value, where, name)
    if hint is str:
        return _text(value, where)
    if hint is datetime:
        return _time(value, where)
    if hint is BackupId:
        return _backup_id(value, where)
    if issubclass(hint, StrEnum | IntEnum):
        return _member(hint, value, where)
    return hint(**_fields(hint, value, where))


def _typed(kind: type[T], expected: str, value: object, where: str) -> T:
    if not isinstance(value, kind):
        raise _Refused(f"expected {expected}, found {_kind(value)}", where)
    return value


def _number(value: object, where: str, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _Refused(f"expected a whole number, found {_kind(value)}", where)
    low, high = (-_MAX_SIGNED, _MAX_SIGNED) if name in _SIGNED else (0, _MAX_INT)
    if not low <= value <= high:
        raise _Refused(f"{value} is out of range", where)
    return value


def _text(value: object, where: str) -> str:
    text = _typed(str, "a string", value, where)
    if len(text) > MAX_STRING:
        raise _Refused(f"a string of {len(text)} characters, at most {MAX_STRING} are allowed", where)
    try:
        text.encode(errors="surrogateescape")
    except UnicodeEncodeError as error:
        raise _Refused("a lone surrogate that stands for no byte", where) from error
    return text


def _time(value: object, where: str) -> datetime:
    text = _typed(str, "a time", value, where)
    try:
        if _TIME.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError:
        pass  # a thirteenth month: said below, like any other text
    raise _Refused(f"{_show(text)} is not a time like 2026-11-22T22:15:00Z", where)


def _backup_id(value: object, where: str) -> BackupId:
    text = _typed(str, "a backup id", value, where)
    try:
        return BackupId.parse(text)
    except ValueError as error:
        raise _Refused(f"{_show(text)} is not a backup id", where) from error


def _member(enum: type[StrEnum] | type[IntEnum], value: object, where: str) -> StrEnum | IntEnum:
    kind = str if issubclass(enum, StrEnum) else int
    if isinstance(value, kind) and not isinstance(value, bool):
        for member in enum:
            if member.value == value:
                return member
    raise _Refused(f"{_show(value)} is not one of {', '.join(str(member.value) for member in enum)}", where)


def _at(where: str, name: str) -> str:
    step = name if name.isidentifier() and name.isascii() and len(name) <= _SHOWN else f"[{_show(name)}]"
    return f"{where}.{step}" if where else step


def _kind(value: object) -> str:
    return {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "true or false",
        type(None): "null",
        float: "a fraction",
    }.get(type(value), "a number")


def _show(value: object) -> str:
    """Make a foreign value fit for a screen: ASCII, quoted, short."""
    text = ascii(value) if not isinstance(value, dict | list) else _kind(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
