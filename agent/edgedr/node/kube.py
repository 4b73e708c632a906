"""The door to the Kubernetes API: lists in pages, at a rate that a small API server does not feel, within a deadline.

The client library is slow to import, so nothing here imports it before a first request. Whatever it raises leaves this
module as ``KubeError``, which is a ``SourceError``. Objects are what the server sent, as parsed JSON.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self
from urllib.parse import urlencode

from edgedr.errors import SourceError
from edgedr.node.kube_answers import Kind, Kinds, Object, groups, items, listable, once, parse, root
from edgedr.node.kube_trouble import KubeError, Silence, refusal, shown, silence
from edgedr.node.kubeconfig import KubeAccess

__all__ = ["Kind", "Kinds", "Kube", "KubeError", "KubeSettings", "Object"]

# Bytes. Parsed, real objects take five times as many; at worst, as a list of nothing but `{}`, twenty-five times. A
# larger page is asked for again in smaller ones. One object, or what the server can list, cannot be cut any further:
# etcd takes objects of 1.5 MiB, other API servers may have larger ones.
_MAX_PAGE = 4 << 20
_MAX_ANSWER = 16 << 20
_MAX_SMALL = 10_000  # objects of a list that is held in memory
_CHUNK = 256 << 10
_LEAST = 0.1  # seconds that a last answer has before the deadline
_TRIES = 3
_OK, _NOT_FOUND, _GONE = 200, 404, 410
_TRANSIENT = frozenset({429, 500, 502, 503, 504})
_BACKOFF = 1.0  # seconds before the second try; doubled for the third
_MAX_WAIT = 10.0  # seconds that a Retry-After is believed
_SILENT = 3  # questions in a row without an answer: one may be a broken extension's fault, three are the server's


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeSettings:
    """``[kubernetes]``: how the API server is asked. What is not set here is found in the layout."""

    kubeconfig: str | None = None
    """Kubeconfig to use: an absolute path on the node; with a certificate or a token in it."""

    server: str | None = None
    """URL to use instead of the kubeconfig's."""

    requests_per_second: int = 10
    """Most requests a second; never more than one at a time."""

    page: int = 250
    """Objects asked for in one request."""

    answer: timedelta = timedelta(seconds=30)
    """How long the server may take for one answer."""

    deadline: timedelta = timedelta(minutes=5)
    """How long all of its answers together may take in one backup, and what is done with each object that they have."""


class Kube:
    """One API server. Nothing is sent before the first question. One thread at a time."""

    def __init__(
        self,
        access: KubeAccess,
        settings: KubeSettings | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.server = access.server
        self._access = access
        self._settings = settings or KubeSettings()
        self._clock = clock
        self._sleep = sleep
        self._connection: tuple[Any, Any] | None = None
        self._spent = 0.0  # seconds of all questions before this one
        self._until = 0.0
        self._next = 0.0
        self._silent = 0
        self._down: KubeError | None = None
        self._kinds: Kinds | None = None

    @classmethod
    def unusable(cls, error: SourceError, settings: KubeSettings | None = None) -> Self:
        """Return one that raises ``error`` as ``KubeError`` for every question, and asks nobody."""
        kube = cls(KubeAccess("https://unusable.invalid", None), settings)
        kube._down = KubeError(error.message, hint=error.hint)
        return kube

    def get(self, path: str) -> Object:
        """Return one answer. Raises ``KubeError``."""
        with self._timed():
            body = self._ask(path, _MAX_ANSWER)
        return parse(_whole(body, path), path)

    def every(self, path: str) -> list[Object]:
        """Return all objects of a small list. Raises ``KubeError``, also for one that is not small."""
        found: list[Object] = []

        def take(item: Object) -> None:
            if len(found) == _MAX_SMALL:
                raise KubeError(f"the list of {shown(path)} has more than {_MAX_SMALL} objects")
            found.append(item)

        self.scan(path, take, found.clear)
        return found

    def find(self, path: str) -> list[Object]:
        """Like ``every``; a kind that the server does not have has no objects."""
        try:
            return self.every(path)
        except KubeError as error:
            if error.status == _NOT_FOUND:
                return []
            raise

    def scan(self, path: str, take: Callable[[Object], object], again: Callable[[], object]) -> int:
        """Hand each object of a list to ``take``, page by page, and return how many there were.

        Each says its ``apiVersion`` and ``kind``, and has ``metadata`` with a ``name``. Where the server has forgotten
        the page to come (410), ``again`` is called and the list begins anew: a list is of one moment or it is none. It
        is called before any ``KubeError`` too, so that no part is taken for the whole. What ``take`` raises ends it;
        its time counts for the deadline, so that a list without an end has one.
        """
        for _ in range(_TRIES):
            try:
                with self._timed():
                    return self._pages(path, take)
            except KubeError as error:
                again()
                if error.status != _GONE:
                    raise
        text = f"the list of {path} was outdated before it was read, {_TRIES} times"
        raise KubeError(text, hint="the API server is slow, or etcd is compacted too often", status=_GONE)

    def kinds(self) -> Kinds:
        """Ask what can be listed; asked once. Raises ``KubeError`` if even the groups cannot be listed."""
        if self._kinds is None:
            self._kinds = self._ask_for_kinds()
        return self._kinds

    def _ask_for_kinds(self) -> Kinds:
        offered: list[tuple[Kind, str]] = []
        broken: list[tuple[str, str]] = []
        # Of the versions of a group the preferred one comes first, and a kind is taken in the first that has it.
        for group, version in (("", "v1"), *groups(self.get("/apis"), "/apis")):
            try:
                offered += listable(group, version, self.get(root(group, version)))
            except KubeError as error:
                if self._down is not None:
                    raise
                broken.append((f"{group}/{version}".lstrip("/"), error.message))
        return Kinds(tuple(sorted(once(offered), key=lambda kind: kind.name)), tuple(broken))

    def _pages(self, path: str, take: Callable[[Object], object]) -> int:
        count, limit, token = 0, self._settings.page, ""
        begun: set[int] = set()
        while True:
            page = self._page(path, limit, token, take)
            if page is None:
                limit = max(1, limit // 8)
                continue
            if page.begin in begun:
                text = f"the API server's pages of {shown(path)} go round in a circle"
                raise KubeError(text, hint="is that an API server?")
            begun.add(page.begin)
            count += page.length
            if not page.following:
                return count
            token, limit = page.following, min(2 * limit, self._settings.page)

    def _page(self, path: str, limit: int, token: str, take: Callable[[Object], object]) -> "_Page | None":
        """Take one page, or return ``None`` if it was too large."""
        query = urlencode({"limit": limit, **({"continue": token} if token else {})})
        body = self._ask(f"{path}{'&' if '?' in path else '?'}{query}", _MAX_PAGE if limit > 1 else _MAX_ANSWER)
        if body is None and limit > 1:
            return None
        found, following = items(parse(_whole(body, path), path), path)
        for item in found:
            take(item)
        metadata = found[0]["metadata"] if found else {}
        begin = (str(metadata.get("namespace")), metadata["name"]) if found else following
        return _Page(len(found), hash(begin), following)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Let time count, all of it together, from the first question on."""
        began = self._clock()
        self._until = began + self._settings.deadline.total_seconds() - self._spent
        try:
            yield
        finally:
            self._spent += self._clock() - began

    def _ask(self, path: str, limit: int) -> bytes | None:
        """Ask, again where that may help. Returns the body, or ``None`` if it is longer than ``limit``."""
        if self._down is not None:
            raise KubeError(self._down.message, hint=self._down.hint)
        for attempt in range(1, _TRIES + 1):
            self._pace()
            wait = _BACKOFF * 2 ** (attempt - 1)
            trouble: KubeError
            try:
                status, body, after = self._send(path, limit)
            except Silence as nothing:
                trouble, again = nothing, nothing.again
            else:
                self._silent = 0
                if status == _OK:
                    return body
                trouble, again = refusal(path, status, body, self._access.token), status in _TRANSIENT
                wait = after or wait
            if not again or attempt == _TRIES:
                break
            self._sleep(min(wait, _MAX_WAIT, max(0.0, self._left())))
        if isinstance(trouble, Silence):
            self._note(trouble)
        raise trouble

    def _note(self, trouble: Silence) -> None:
        self._silent += 1
        if trouble.down:
            self._down = trouble
        elif self._silent == _SILENT:
            self._down = KubeError(f"the API server at {self.server} no longer answers", hint=trouble.hint)

    def _pace(self) -> None:
        now = self._clock()
        if self._next > now:
            self._sleep(self._next - now)
        if self._left() <= 0:
            allowed = f"{self._settings.deadline.total_seconds():g} s"
            text = f"the API server at {self.server} was not done within {allowed}"
            self._down = KubeError(text, hint="look at its load, or raise [kubernetes] deadline")
            raise self._down
        self._next = self._clock() + 1 / self._settings.requests_per_second

    def _left(self) -> float:
        return self._until - self._clock()

    def _send(self, path: str, limit: int) -> tuple[int, bytes | None, float]:
        """Send one request: its status, its body (``None`` beyond ``limit``), and how long to wait before another."""
        import urllib3  # noqa: PLC0415 - what the Kubernetes client speaks HTTP with

        within = min(self._settings.answer.total_seconds(), max(_LEAST, self._left()))
        headers = {"Accept": "application/json", "User-Agent": "edgedr"}
        if self._access.token:
            headers["Authorization"] = f"Bearer {self._access.token}"
        try:
            pool, tls = self._connect()
            tls.until = time.monotonic() + within
            response = pool.request(
                "GET",
                self.server + path,
                headers=headers,
                timeout=urllib3.Timeout(connect=within, read=within),
                preload_content=False,
                redirect=False,
                retries=False,
            )
            try:
                return response.status, _body(response, limit), _retry_after(response)
            finally:
                response.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise silence(self.server, path, error, within) from error

    def _connect(self) -> tuple[Any, Any]:
        if self._connection is None:
            from kubernetes.client.configuration import Configuration  # noqa: PLC0415 - slow to import
            from kubernetes.client.rest import RESTClientObject  # noqa: PLC0415

            from edgedr.node.kube_tls import open_tls  # noqa: PLC0415

            configuration = Configuration(host=self.server)
            configuration.proxy = None  # a proxy for the way out has no business between us and our own API server
            configuration.retries = False
            pool, tls = RESTClientObject(configuration).pool_manager, open_tls(self._access)
            pool.connection_pool_kw["ssl_context"] = tls
            self._connection = pool, tls
        return self._connection


@dataclass(frozen=True, slots=True)
class _Page:
    """What is known of a page once it was taken; ``begin`` stands for the name of its first object."""

    length: int
    begin: int
    following: str


def _body(response: Any, limit: int) -> bytes | None:
    body = bytearray()
    while chunk := response.read1(_CHUNK, decode_content=False):
        body += chunk
        if len(body) > limit:
            response.close()
            return None
    return bytes(body)


def _whole(body: bytes | None, path: str) -> bytes:
    if body is None:
        raise KubeError(f"the API server's answer to {shown(path)} is longer than {_MAX_ANSWER >> 20} MiB")
    return body


def _retry_after(response: Any) -> float:
    text = response.headers.get("Retry-After") or ""
    return float(text) if re.fullmatch(r"[0-9]{1,9}", text) else 0.0
