"""What happened, for machines: structlog events on stderr, as JSON under systemd or where ``EDGEDR_LOG`` asks.

An event is a dotted identifier in the past tense (``backup.committed``), facts are fields. ``EDGEDR_LOG`` is ``json``,
or ``console`` for colour. A command run by a person says what it has to say itself: structlog is not even imported.
"""

import os
import sys
from typing import Any


class Log:
    """Events of one run; ``context`` is bound to each."""

    def __init__(self, **context: Any) -> None:
        wanted = os.environ.get("EDGEDR_LOG", "json" if "JOURNAL_STREAM" in os.environ else "")
        self._logger = _structlog(wanted).bind(**context) if wanted in {"json", "console"} else None

    def event(self, name: str, **facts: Any) -> None:
        """Write one event."""
        if self._logger is not None:
            self._logger.info(name, **facts)


def _structlog(form: str) -> Any:
    import structlog  # noqa: PLC0415

    renderer = structlog.dev.ConsoleRenderer() if form == "console" else structlog.processors.JSONRenderer()
    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[structlog.processors.TimeStamper(fmt="iso", utc=True), renderer],
    )
