"""A small API server: real TLS and HTTP/1.1 on loopback, answering from a recording as a real one would.

It pages, knows namespaces, wants a client certificate or a token, and can be told to fail in each way that the real one
has. Nothing but GET is answered; what else is tried is kept in ``writes``.
"""

import base64
import json
import os
import re
import ssl
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import SHUT_RDWR, SHUT_WR, socket
from tempfile import TemporaryDirectory
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from edgedr.sealing.zstandard import zstd
from tests.lab.pki import SERVER, Authority

_RECORDING = Path(__file__).parent.parent / "data" / "kubeadm-api.json.zst"
_ROOT = r"/api/v1|/apis/[^/]+/[^/]+"
_NAMESPACED = re.compile(rf"({_ROOT})/namespaces/([^/]+)/([^/]+)(?:/([^/]+))?")
_CLUSTER_WIDE = re.compile(rf"({_ROOT})/([^/]+)/([^/]+)")
_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}
_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME: a recorded client certificate outlives its year
_CHUNK = 64 << 10
_BUFFER = 2048  # Go's: what is longer is sent in chunks
_PATIENCE = 5.0  # seconds
_SPARE = timedelta(days=1)


@cache
def _recorded() -> bytes:
    return zstd.decompress(_RECORDING.read_bytes())


def recording() -> dict[str, Any]:
    """Return what a kubeadm cluster answered, by path: yours to change."""
    answers: dict[str, Any] = json.loads(_recorded())
    return answers


class Many(Sequence[dict[str, Any]]):
    """``count`` objects that are made when they are asked for, and not kept."""

    def __init__(self, count: int, make: Callable[[int], dict[str, Any]]) -> None:
        self._numbers = range(count)
        self._make = make

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:
        numbers = self._numbers[index]
        return self._make(numbers) if isinstance(numbers, int) else [self._make(number) for number in numbers]


def synthetic(count: int, *, size: int = 1000, kind: str = "ConfigMap", api_version: str = "v1") -> dict[str, Any]:
    """Return a list of ``count`` objects, each of about ``size`` bytes, that takes no memory."""

    def make(number: int) -> dict[str, Any]:
        name = f"object-{number:06d}"
        metadata = {"name": name, "namespace": "default", "uid": f"00000000-0000-4000-8000-{number:012d}"}
        return {"metadata": metadata, "data": {"value": (name * (size // len(name) + 1))[:size]}}

    metadata = {"resourceVersion": "4711"}
    return {"apiVersion": api_version, "kind": f"{kind}List", "metadata": metadata, "items": Many(count, make)}


class ApiServer:
    """Serves ``recording`` at ``url`` until left. All faults are told by path, without the query."""

    def __init__(self, pki: Path, recording: dict[str, Any] | None = None) -> None:
        """Take ``ca.crt``, ``apiserver.crt`` and ``apiserver.key`` from ``pki``."""
        self.recording = globals()["recording"]() if recording is None else recording
        self.tokens: set[str] = set()
        """Bearer tokens that do instead of a client certificate."""
        self.requests: list[str] = []
        """Paths with their queries, in order."""
        self.times: list[float] = []
        """When each of them began: seconds on the monotonic clock."""
        self.headers: list[dict[str, str]] = []
        """What each of them sent along."""
        self.writes: list[str] = []
        """Requests that were no GET: method and path."""
        self.most_at_once = 0
        """Most requests that were under way at the same moment."""
        self.refuse: dict[str, int] = {}
        """Status to answer with."""
        self.refusals: dict[str, int] = {}
        """How many times ``refuse`` holds; for ever where it says nothing."""
        self.retry_after: dict[str, str] = {}
        """Retry-After of such an answer."""
        self.expire: dict[str, int] = {}
        """How many times a continue token is answered with 410 Gone."""
        self.delay: dict[str, float] = {}
        """Seconds before the answer."""
        self.cut: dict[str, int] = {}
        """How many times the connection is cut in the middle of the body; negative: always."""
        self.trickle: set[str] = set()
        """The body comes a byte at a time, twenty a second."""
        self.trickle_headers: set[str] = set()
        """So do headers, without an end."""
        self.stall: set[str] = set()
        """Headers are sent, and then nothing until the server is closed."""
        self.html: set[str] = set()
        """A web page is sent, with status 200."""
        self.raw: dict[str, bytes] = {}
        """Sent as it is, as JSON, with status 200."""
        self.huge: dict[str, int] = {}
        """Bytes of white space before the answer."""
        self.redirect: dict[str, str] = {}
        """URL to redirect to."""
        self.pki = pki
        """The directory whose ``ca.crt`` vouches for it."""
        self._context = _context(pki)
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._under_way = 0
        self._http: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where it listens: ``https://127.0.0.1:PORT``."""
        assert self._http is not None
        return f"https://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._http = _Server(self, self._context)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._http is not None
        assert self._thread is not None
        self._closed.set()
        self._http.shutdown()
        self._http.hang_up()
        self._http.server_close()
        self._thread.join()

    def hang_up(self) -> None:
        """Close every connection, as a server that restarts."""
        assert self._http is not None
        self._http.hang_up()

    def begin(self, path: str, headers: dict[str, str]) -> None:
        """Note a request."""
        with self._lock:
            self.requests.append(path)
            self.times.append(time.monotonic())
            self.headers.append(headers)
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)

    def end(self) -> None:
        """Note that it is answered."""
        with self._lock:
            self._under_way -= 1

    def wait(self, seconds: float | None) -> bool:
        """Let time go by, but not beyond the end of the server; tell whether it has come."""
        return self._closed.wait(seconds)

    def takes(self, counts: dict[str, int], path: str) -> bool:
        """Tell whether a fault that is counted strikes now; it counts."""
        with self._lock:
            left = counts.get(path, 0)
            if left > 0:
                counts[path] = left - 1
            return left != 0

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        """Return status and body of a question that is allowed."""
        if path in self.refuse and self.takes(self.refusals if path in self.refusals else {path: -1}, path):
            return _status(self.refuse[path], f"{path} is refused")
        if "watch" in query:
            return _status(400, "this server does not watch")
        if "continue" in query and self.takes(self.expire, path):
            return _status(410, "The provided continue parameter is too old to display a consistent list result.")
        found = self.recording.get(path, self._derived(path))
        if found is None:
            return _status(404, "the server could not find the requested resource")
        if isinstance(found, dict) and "items" in found:
            return _page(found, query)
        return 200, found

    def _derived(self, path: str) -> Any:
        """What follows from the recording: the list of one namespace, or one object."""
        if match := _NAMESPACED.fullmatch(path):
            root, namespace, plural, name = match.groups()
        elif match := _CLUSTER_WIDE.fullmatch(path):
            (root, plural, name), namespace = match.groups(), ""
        else:
            return self._other_version(path)
        whole = self.recording.get(f"{root}/{plural}")
        if not isinstance(whole, dict) or "items" not in whole:
            return None
        items = [item for item in whole["items"] if item["metadata"].get("namespace", "") == namespace]
        if name is None:
            return {**whole, "items": items}
        of = {"apiVersion": whole.get("apiVersion"), "kind": whole["kind"].removesuffix("List")}
        return next(({**of, **item} for item in items if item["metadata"]["name"] == name), None)

    def _other_version(self, path: str) -> Any:
        """Resources of a version that is offered and was not recorded: those of the version that was."""
        for group in self.recording.get("/apis", {}).get("groups", ()):
            versions = [version["groupVersion"] for version in group["versions"]]
            if path.removeprefix("/apis/") in versions:
                recorded = next((v for v in versions if f"/apis/{v}" in self.recording), None)
                if recorded is not None:
                    return {**self.recording[f"/apis/{recorded}"], "groupVersion": path.removeprefix("/apis/")}
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # they are joined

    def __init__(self, api: ApiServer, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.api = api
        self._context = context
        self._open: set[socket] = set()
        self._lock = threading.Lock()

    def get_request(self) -> tuple[socket, Any]:
        plain, address = super().get_request()
        secured = self._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        with self._lock:
            self._open.add(secured)
        return secured, address

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Free whoever waits for a client."""
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet: clients that hang up, or that are not let in, belong to the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server
    request: ssl.SSLSocket
    timeout = 60.0

    def setup(self) -> None:
        try:
            self.request.do_handshake()
        except OSError:
            self._hear_out()
            raise
        super().setup()

    def _hear_out(self) -> None:
        """Take what the client sends, or its system would throw away why it is not let in."""
        with suppress(OSError), socket(fileno=os.dup(self.request.fileno())) as plain:
            plain.shutdown(SHUT_WR)
            plain.settimeout(_PATIENCE)
            while plain.recv(_CHUNK):
                pass

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        pass

    def do_GET(self) -> None:
        api = self.server.api
        api.begin(self.path, dict(self.headers.items()))
        try:
            parts = urlsplit(self.path)
            self._serve(parts.path, dict(parse_qsl(parts.query, keep_blank_values=True)))
        finally:
            api.end()

    def _write(self) -> None:
        self.server.api.writes.append(f"{self.command} {self.path}")
        self.close_connection = True
        self._send(*_status(405, "this server only reads"))

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _write  # noqa: N815 - their names there

    def _serve(self, path: str, query: dict[str, str]) -> None:
        api = self.server.api
        if path in api.delay:
            api.wait(api.delay[path])
        if not self._allowed():
            self._send(*_status(401, "Unauthorized"))
        elif path in api.redirect:
            self._send(302, "", {"Location": api.redirect[path]})
        elif path in api.html:
            self._send(200, "<html><body>Welcome to nginx!</body></html>", {"Content-Type": "text/html"})
        elif path in api.raw:
            self._send(200, api.raw[path])
        else:
            status, body = api.answer(path, query)
            after = {"Retry-After": api.retry_after[path]} if status != 200 and path in api.retry_after else {}
            self._send(status, body, after, path)

    def _allowed(self) -> bool:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return bool(self.request.getpeercert()) or (scheme == "Bearer" and token in self.server.api.tokens)

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None, path: str = "") -> None:
        api = self.server.api
        content, kind = _encoded(body)
        size = len(content) + api.huge.get(path, 0)
        chunked = size > _BUFFER
        length = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(size)}
        if path in api.trickle_headers:
            self._trickle_headers()
            return
        self.send_response(status)
        for name, value in {"Content-Type": kind, **length, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        whole = True
        for piece in self._pieces(path, content):
            if piece is None:
                self.close_connection, whole = True, False
                break
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked and whole:
            self.wfile.write(b"0\r\n\r\n")

    def _trickle_headers(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Endless: ")
        while not self.server.api.wait(0.05):
            self.wfile.write(b"x")

    def _pieces(self, path: str, content: bytes) -> Iterator[bytes | None]:
        """Yield the body; ``None`` where the connection ends before its end."""
        api = self.server.api
        if path in api.stall:
            api.wait(None)
            yield None
        for start in range(0, api.huge.get(path, 0), _CHUNK):
            yield b" " * min(_CHUNK, api.huge[path] - start)
        if api.takes(api.cut, path):
            yield content[: len(content) // 2]
            yield None
        if path in api.trickle:
            for byte in content:
                yield bytes((byte,))
                api.wait(0.05)
        elif content:
            yield content


def _encoded(body: Any) -> tuple[bytes, str]:
    if isinstance(body, bytes):
        return body, "application/json"
    if isinstance(body, str):
        return body.encode(), "text/plain"
    return json.dumps(body).encode(), "application/json"


def _status(code: int, message: str) -> tuple[int, dict[str, Any]]:
    reason = _REASONS.get(code, "")
    metadata: dict[str, Any] = {}
    of = {"kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure"}
    return code, {**of, "message": message, "reason": reason, "code": code}


def _key(item: dict[str, Any]) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _page(whole: dict[str, Any], query: dict[str, str]) -> tuple[int, Any]:
    items: Sequence[dict[str, Any]] = whole["items"]
    if isinstance(items, list):
        items = sorted(items, key=_key)
    start, limit = 0, int(query.get("limit") or 0)
    if token := query.get("continue"):
        try:
            start = bisect_right(items, tuple(json.loads(base64.urlsafe_b64decode(token))["start"]), key=_key)
        except (ValueError, LookupError, TypeError):
            return _status(400, "continue key is not valid")
    end = min(start + limit, len(items)) if limit else len(items)
    page = items[start:end]
    metadata = dict(whole.get("metadata") or {})
    if end < len(items):
        mark = {"v": "meta.k8s.io/v1", "rv": int(metadata.get("resourceVersion") or 0), "start": _key(page[-1])}
        metadata["continue"] = base64.urlsafe_b64encode(json.dumps(mark).encode()).decode()
        metadata["remainingItemCount"] = len(items) - end
    return 200, {**whole, "metadata": metadata, "items": list(page)}


def _context(pki: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with TemporaryDirectory() as directory:
        stem = _serving(pki, Path(directory))
        context.load_cert_chain(f"{stem}.crt", f"{stem}.key")
    context.load_verify_locations(pki / "ca.crt")
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
    return context


def _serving(pki: Path, scratch: Path) -> Path:
    """Return the stem of our certificate: the one that was recorded, or, when its year is over, one like it."""
    recorded = x509.load_pem_x509_certificate((pki / "apiserver.crt").read_bytes())
    if recorded.not_valid_after_utc > datetime.now(UTC) + _SPARE:
        return pki / "apiserver"
    certificate = x509.load_pem_x509_certificate((pki / "ca.crt").read_bytes())
    key: Any = load_pem_private_key((pki / "ca.key").read_bytes(), password=None)
    Authority(certificate, key).issue(scratch / "apiserver", "kube-apiserver", SERVER, sans=("127.0.0.1", "localhost"))
    return scratch / "apiserver"
