"""What people see: plain lines of at most 80 columns, colour and progress bars on a terminal only."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any

from edgedr.errors import StorageError

_LABEL = 15  # as wide as the longest name of a source
_WIDTH = 80
_NARROW = 40  # columns in which a text still reads well
_COLOURS = {"good": "32", "warn": "33", "bad": "31"}
_JOINT = "\u00a0"
_SAID_OF_NONE = frozenset({"overlaps"})
"""Counts that are good to know when they are zero."""

HINT = "  hint: "
"""What stands before the next act, below every message."""


def say(text: str = "") -> None:
    """Print a line. Raises ``StorageError`` if the output takes no more; so does all else that prints."""
    with _output():
        print(parted(text))


def flush() -> None:
    """Send what was printed on its way. Raises ``StorageError``."""
    with _output():
        sys.stdout.flush()


@contextmanager
def _output() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # a reader that leaves has seen enough; that is no fault of any place
        raise
    except OSError as error:
        raise StorageError(
            f"cannot write the output: {error.strerror or error}",
            hint="free space where it goes, or print elsewhere; what the command did is done",
        ) from error


def say_json(value: Any) -> None:
    """Print a document for scripts."""
    say(json.dumps(value, indent=1, sort_keys=True, default=str))


def line(label: str, *facts: str, style: str | None = None) -> None:
    """Print a label and what is to say about it: facts beside each other, or below where that is too wide.

    ``style`` colours the label.
    """
    room = _WIDTH - _LABEL - 2
    rows: list[str] = []
    for fact in map(plain, facts):
        if rows and len(rows[-1]) + 2 + len(fact) <= room and fact:
            rows[-1] += f"  {fact}"
        elif fact:
            rows += wrapped(fact, room)
    for row in rows or [""]:
        shown = colour(label, style) if style else label
        say(f"{shown}{'':<{max(0, _LABEL - len(label))}}  {row}".rstrip())
        label, style = "", None


def sentence(text: str) -> None:
    """Print a text that may be longer than a line; a word that is wider, a key say, stays whole."""
    for row in wrapped(plain(text), _WIDTH):
        say(row)


def joined(text: str) -> str:
    """Return a text that is not broken at the end of a line: a number with its noun, a command to type."""
    return text.replace(" ", _JOINT)


def parted(text: str) -> str:
    """Return a text with the spaces that it should have once it is on its line, or in a document."""
    return text.replace(_JOINT, " ")


def wrapped(text: str, room: int) -> list[str]:
    """Break a text between words; a word that is wider, a path say, stays whole."""
    import textwrap  # noqa: PLC0415

    return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) if len(text) > room else [text]


def plain(text: str) -> str:
    """Show what would steer a terminal, or is no character at all, by its number."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == _JOINT else ascii(c)[1:-1] for c in text)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Print a table; columns listed in ``right`` are aligned to the right. Too long a last cell goes on below."""
    lines = [header, *([plain(cell) for cell in row] for row in rows)]
    last = len(header) - 1
    widths = [max(len(row[column]) for row in lines) for column in range(len(header))]
    room = _WIDTH - sum(widths[:last]) - 2 * last
    for row in lines:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        if len(row[last]) <= room:
            say("  ".join(cells).rstrip())
            continue
        if room >= _NARROW:
            first, *others = wrapped(row[last], room)
            say("  ".join((*cells[:last], first)))
            indent = _WIDTH - room
        else:
            say("  ".join(cells[:last]).rstrip())
            indent, others = 4, wrapped(row[last], _WIDTH - 4)
        for rest in others:
            say(f"{'':{indent}}{rest}")


def size(count: int) -> str:
    """Write bytes for people: ``0.54 MB``, powers of ten as on a bill."""
    if count < 1000:  # noqa: PLR2004
        return f"{count} B"
    for unit, factor in (("kB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        if count < factor * 1000 or unit == "GB":
            number = count / factor
            return f"{number:.2f} {unit}" if number < 10 else f"{number:.1f} {unit}"  # noqa: PLR2004
    raise AssertionError


def age(span: timedelta) -> str:
    """Write a time span for people: ``4 min``, ``2 h``, ``9 days``."""
    seconds = int(span.total_seconds())
    if seconds < 0:
        return "in the future"
    for unit, length in (("s", 120), ("min", 7200), ("h", 172800)):
        if seconds < length:
            return f"{seconds // {'s': 1, 'min': 60, 'h': 3600}[unit]} {unit}"
    return f"{seconds // 86400} days"


def when(time: datetime) -> str:
    """Write a time: UTC, to the second."""
    return f"{time:%Y-%m-%d %H:%M:%SZ}"


def plural(count: int, noun: str) -> str:
    """Write ``1 file``, ``41 files``, ``2 addresses``."""
    return f"{count} {noun if count == 1 else noun + ('es' if noun.endswith('s') else 's')}"


def counts(found: Mapping[str, int]) -> str:
    """Write what a source holds, by noun in the plural: ``20 certificates, 1 key``; what it has none of is left out."""
    said = [(noun, count) for noun, count in sorted(found.items()) if count or noun in _SAID_OF_NONE]
    return ", ".join(joined(plural(count, _singular(noun))) for noun, count in said)


def _singular(noun: str) -> str:
    return noun.removesuffix("es") if noun.endswith("sses") else noun.removesuffix("s")


def colour(text: str, style: str) -> str:
    """Colour a word on a terminal; it must say the same without."""
    return f"\033[{_COLOURS[style]}m{text}\033[0m" if sys.stdout.isatty() and style in _COLOURS else text


def warn(text: str, hint: str | None = None) -> None:
    """Print something to look at, on stderr."""
    complain("warn: ", plain(text))
    if hint:
        complain(HINT, plain(hint))


def complain(label: str, text: str, style: str | None = None) -> None:
    """Print a label and a text on stderr: for scripts as it is, on a terminal broken below the label."""
    rows = text.split("\n")
    shown = label
    if sys.stderr.isatty():
        rows = [part for row in rows for part in wrapped(row, _WIDTH - len(label))]
        rows[1:] = [f"{'':<{len(label)}}{row}" for row in rows[1:]]
        shown = f"\033[{_COLOURS[style]}m{label}\033[0m" if style else label
    with suppress(OSError):  # nobody is left to tell; the exit code still says it
        print(shown + "\n".join(rows), file=sys.stderr)


class Silent:
    """Watches without a word."""

    def begin(self, act: str, total: int | None) -> None:
        """Say nothing."""

    def advance(self, count: int) -> None:
        """Say nothing."""


class _Bars:
    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._task: Any = None

    def begin(self, act: str, total: int | None) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(act, total=total)

    def advance(self, count: int) -> None:
        if self._task is not None:
            self._progress.advance(self._task, count)


@contextmanager
def watching(*, quiet: bool = False) -> Iterator[Silent | _Bars]:
    """Show progress bars on a terminal, and nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield Silent()
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description:<22}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Bars(progress)
