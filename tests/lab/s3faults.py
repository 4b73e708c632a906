"""What can go wrong with an S3 request on its way, and scripts that say with which: for ``tests.lab.s3proxy``.

A script is asked about each request: ``first(2, slow_down(), method="PUT")`` breaks two, ``either(...)`` joins several.
"""

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime


@dataclass
class Request:
    """One request, as far as it went; times are of ``time.monotonic``."""

    method: str
    path: str
    """``/bucket/key``, unquoted."""
    query: dict[str, str]
    headers: dict[str, str]
    """Names in lower case."""
    size: int
    """Of the body, as announced."""
    started: float
    """When its head had been read."""
    finished: float | None = None
    """When the client had been sent the whole answer; None if it never was."""
    status: int | None = None
    """What the client was told."""
    upstream: int | None = None
    """What the server answered; None if it was not asked."""


@dataclass(frozen=True)
class Answer:
    """What a client is told instead of the server's word."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request; the fields act in this order, and what they leave goes on as usual."""

    before: Callable[[], object] | None = None
    """Called when the head has been read, and nothing of the body."""
    reset_after: int | None = None
    """Reset the connection after so many bytes of the body, which never get to the server."""
    delay: timedelta = timedelta(0)
    """Wait before the server is asked."""
    stall: bool = False
    """Do not ask the server until ``S3Proxy.release``."""
    answer: Answer | None = None
    """Say this, and never ask the server."""
    after: Callable[[], object] | None = None
    """Called when the server has answered, and the client does not know it."""
    lose_reply: bool = False
    """Close the connection instead of passing the answer on."""
    corrupt: int | None = None
    """Flip a bit of this byte of the answer's body, which must have it; negative numbers count from its end."""
    stall_after: int | None = None
    """Pass no more than so many bytes of the answer's body on, until ``S3Proxy.release``."""
    truncate: int | None = None
    """Close the connection after so many bytes of the answer's body, which was announced whole."""


Faults = Callable[[Request], Fault | None]
"""Asked when a request's head has been read, from many threads."""


def always(fault: Fault, *, method: str | None = None, matching: str | None = None) -> Faults:
    """Break each request with that method whose path has that regular expression."""
    return _counted(lambda _: True, fault, method, matching)


def first(n: int, fault: Fault, *, method: str | None = None, matching: str | None = None) -> Faults:
    """Break the first ``n`` of them."""
    return _counted(lambda number: number <= n, fault, method, matching)


def nth(n: int, fault: Fault, *, method: str | None = None, matching: str | None = None) -> Faults:
    """Break the ``n``-th of them, counted from 1."""
    return _counted(lambda number: number == n, fault, method, matching)


def either(*scripts: Faults) -> Faults:
    """Let every script count each request; the first that has a fault for it wins."""
    return lambda request: next((fault for fault in [script(request) for script in scripts] if fault), None)


def _counted(chosen: Callable[[int], bool], fault: Fault, method: str | None, matching: str | None) -> Faults:
    seen, lock = 0, threading.Lock()

    def script(request: Request) -> Fault | None:
        nonlocal seen
        if (method and request.method != method) or (matching and not re.search(matching, request.path)):
            return None
        with lock:
            seen += 1
            return fault if chosen(seen) else None

    return script


def s3_error(status: int, code: str, **headers: str) -> Fault:
    """Answer with an error as S3 words it; ``_`` in a header's name stands for ``-``."""
    body = f'<?xml version="1.0"?>\n<Error><Code>{code}</Code><Message>{code}, says the lab</Message></Error>'
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Fault(answer=Answer(status, {"Content-Type": "application/xml", **named}, body.encode()))


def slow_down() -> Fault:
    return s3_error(503, "SlowDown")


def internal_error() -> Fault:
    return s3_error(500, "InternalError")


def too_many(retry_after: int) -> Fault:
    """Answer 429, with the seconds to wait."""
    return s3_error(429, "TooManyRequests", Retry_After=str(retry_after))


def skewed(by: timedelta) -> Fault:
    """Refuse the client's clock; the server's is ahead of it by so much, and its Date says it."""
    return s3_error(403, "RequestTimeTooSkewed", Date=http_date(datetime.now(UTC) + by))


def expired_token() -> Fault:
    return s3_error(403, "ExpiredToken")


def moved(region: str) -> Fault:
    """Answer 301: the bucket is in another region."""
    return s3_error(301, "PermanentRedirect", x_amz_bucket_region=region)


def portal(location: str = "http://portal.invalid/login") -> Fault:
    """Redirect to where a network wants its guests to go first."""
    return Fault(answer=Answer(302, {"Location": location, "Content-Type": "text/html"}, b"<html>Log in</html>"))


def portal_page() -> Fault:
    """Answer everything with 200 and a page, as a captive portal does."""
    return Fault(answer=Answer(200, {"Content-Type": "text/html"}, b"<!DOCTYPE html><html>Welcome, guest</html>"))


def killing(kill: Callable[[], object], *, done: bool) -> Fault:
    """Kill the client when it has asked: when the server has done it, or with the server never asked."""
    return Fault(after=kill, lose_reply=True) if done else Fault(before=kill, reset_after=0)


def http_date(of: datetime) -> str:
    """Write a time as the Date header has it."""
    return format_datetime(of, usegmt=True)
