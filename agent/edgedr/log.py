"""What happened, for machines: structlog events to stderr, JSON under systemd, colour on a terminal.

An event is a dotted identifier in the past tense (``backup.committed``), facts are fields. structlog is imported with
the first event, since commands that only look never need it.
"""

import os
import sys
from typing import Any


class Log:
    """Events of one run; ``context`` is bound to each."""

    def __init__(self, **context: Any) -> None:
        self._context = context
        self._logger: Any = None

    def event(self, name: str, **facts: Any) -> None:
        """Write one event."""
        if self._logger is None:
            self._logger = _structlog().bind(**self._context)
        self._logger.info(name, **facts)


def _structlog() -> Any:
    import structlog  # noqa: PLC0415

    terminal = sys.stderr.isatty() and "JOURNAL_STREAM" not in os.environ
    renderer = structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[structlog.processors.TimeStamper(fmt="iso", utc=True), renderer],
    )
