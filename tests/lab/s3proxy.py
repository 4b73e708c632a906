"""A proxy between an S3 client and a server that knows HTTP, records each request, and breaks what a script names.

``with S3Proxy(server.endpoint, server.ca, first(2, slow_down())) as proxy: ...`` speaks TLS on both sides, and leaves
target and headers as they are, so that signatures stay valid. ``proxy.endpoint`` and ``proxy.ca`` are for the client.
"""

import http.client
import http.server
import shutil
import socket
import socketserver
import ssl
import sys
import tempfile
import threading
import time
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.lab.pki import SERVER, Authority
from tests.lab.s3faults import Answer, Fault, Faults, Request, http_date

_UPSTREAM_SECONDS = 300
_OF_ONE_CONNECTION = {"connection", "expect", "keep-alive", "transfer-encoding"}


class S3Proxy:
    """Listen on a free port of 127.0.0.1; each connection has a thread, and each request one to the server.

    It leaves its block with the error of a thread, if the lab itself broke.
    """

    def __init__(self, upstream_endpoint: str, upstream_ca: Path, faults: Faults = lambda _: None) -> None:
        self.faults = faults
        self.set_date = timedelta(0)
        """What is added to the Date of each answer that comes from the server."""
        self.requests: list[Request] = []
        """All of them, in the order of their arrival."""
        self.stalled = threading.Event()
        """Set when a request first stalls."""
        self._upstream = urlsplit(upstream_endpoint)
        self._upstream_context = ssl.create_default_context(cafile=str(upstream_ca))
        self.sockets: set[socket.socket] = set()
        self._released, self._ends = threading.Event(), threading.Event()

    def __enter__(self) -> Self:
        self._directory = Path(tempfile.mkdtemp(prefix="s3proxy-"))
        authority = Authority.make("proxy-ca")
        authority.write(self._directory / "ca")
        authority.issue(self._directory / "server", "proxy", SERVER, sans=("127.0.0.1", "localhost"))
        self.ca = self._directory / "ca.crt"
        self._server = _Server(self, self._directory / "server")
        self.endpoint = f"https://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._ends.set()
        self.release()
        for each in list(self.sockets):
            with suppress(OSError):
                socket.socket.shutdown(each, socket.SHUT_RDWR)  # not TLS's own, which its reader must not see
        self._server.server_close()  # joins the threads of the connections
        shutil.rmtree(self._directory)
        if self._server.broken and value is None:
            raise self._server.broken[0]

    def release(self) -> None:
        """Let what stalls go on, now and from now on."""
        self._released.set()

    def wait_for_release(self) -> None:
        """Stall the calling thread; a proxy that ends lets none go on."""
        self.stalled.set()
        self._released.wait()
        self.wait(timedelta(0))

    def wait(self, delay: timedelta) -> None:
        """Hold the calling thread up; a proxy that ends lets none go on."""
        if self._ends.wait(delay.total_seconds()):
            raise ConnectionAbortedError("the proxy ends")

    def connect(self) -> http.client.HTTPSConnection:
        """Connect to the server."""
        to, port = self._upstream.hostname or "", self._upstream.port
        made = http.client.HTTPSConnection(to, port, timeout=_UPSTREAM_SECONDS, context=self._upstream_context)
        made.connect()
        return made


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    request_queue_size = 128

    def __init__(self, proxy: S3Proxy, certificate: Path) -> None:
        self.proxy = proxy
        self.broken: list[BaseException] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(f"{certificate}.crt", f"{certificate}.key")
        super().__init__(("127.0.0.1", 0), _Connection)

    def get_request(self) -> tuple[socket.socket, Any]:
        plain, address = super().get_request()
        # The handshake is for the connection's thread: a client that stalls in it must not hold the others up.
        client = self._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        self.proxy.sockets.add(client)
        return client, address

    def shutdown_request(self, request: Any) -> None:
        self.proxy.sockets.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        wrong = sys.exception()
        assert wrong is not None
        if not isinstance(wrong, OSError):  # a connection's end, which is what this is all about
            self.broken.append(wrong)


class _Connection(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or head and body of each answer lie 40 ms apart
    server: _Server

    def setup(self) -> None:
        self.request.do_handshake()
        super().setup()

    def _serve(self) -> None:
        proxy, target = self.server.proxy, self.requestline.split(" ")[1]
        place = urlsplit(target)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(
            method=self.command,
            path=unquote(place.path),
            query=dict(parse_qsl(place.query, keep_blank_values=True)),
            headers=headers,
            size=int(headers.get("content-length", 0)),
            started=time.monotonic(),
        )
        proxy.requests.append(request)
        fault = proxy.faults(request) or Fault()
        if fault.before:
            fault.before()
        body = self._body(request, fault)
        proxy.wait(fault.delay)
        if fault.stall:
            proxy.wait_for_release()
        answer = fault.answer or self._ask(request, target, body)
        if fault.after:
            fault.after()
        if fault.lose_reply:
            self.close_connection = True
            return
        self._reply(request, answer, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815

    def handle_expect_100(self) -> bool:
        return True  # said when the body is wanted

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the standard library
        pass

    def _body(self, request: Request, fault: Fault) -> bytes:
        assert "transfer-encoding" not in request.headers, "the lab takes no chunks: S3 wants a Content-Length"
        if fault.reset_after != 0 and request.headers.get("expect", "").lower() == "100-continue":
            self.send_response_only(HTTPStatus.CONTINUE)
            self.end_headers()
        wanted = request.size if fault.reset_after is None else min(fault.reset_after, request.size)
        body = self.rfile.read(wanted)
        if fault.reset_after is not None:
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            socket.close(self.request.detach())  # at once: close() would wait for the files made from it
            raise ConnectionAbortedError("reset by the script")
        if len(body) < wanted:
            raise ConnectionAbortedError("the client is gone")
        return body

    def _ask(self, request: Request, target: str, body: bytes) -> Answer:
        """Ask the server, with the client's own words."""
        proxy = self.server.proxy
        with closing(proxy.connect()) as server:
            proxy.sockets.add(held := server.sock)
            try:
                server.putrequest(self.command, target, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in _OF_ONE_CONNECTION:
                        server.putheader(name, value)
                server.endheaders(body or None)
                said = server.getresponse()
                content = said.read()
            finally:
                proxy.sockets.discard(held)
        request.upstream = said.status
        headers = {name.title(): value for name, value in said.getheaders() if name.lower() not in _OF_ONE_CONNECTION}
        if "Date" in headers:
            headers["Date"] = http_date(parsedate_to_datetime(headers["Date"]) + proxy.set_date)
        return Answer(said.status, headers, content)

    def _reply(self, request: Request, answer: Answer, fault: Fault) -> None:
        body = bytearray(answer.body)
        if fault.corrupt is not None:
            body[fault.corrupt] ^= 1
        headers = {"Date": http_date(datetime.now(UTC) + self.server.proxy.set_date), **answer.headers}
        if answer.status not in {204, 304}:
            headers.setdefault("Content-Length", str(len(body)))
        self.send_response_only(answer.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        request.status = answer.status
        if self.command != "HEAD":
            end = len(body) if fault.truncate is None else fault.truncate
            pause = end if fault.stall_after is None else min(end, fault.stall_after)
            self.wfile.write(body[:pause])
            if fault.stall_after is not None:
                self.server.proxy.wait_for_release()
            self.wfile.write(body[pause:end])
        if fault.truncate is None:
            request.finished = time.monotonic()
        else:
            self.close_connection = True
