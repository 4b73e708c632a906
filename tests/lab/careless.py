"""An S3 server that takes everything: any signature, any overwriting, and locks, of which it keeps none.

For what servers were seen to do that no test can start: they give ids to versions and accept COMPLIANCE, and delete all
the same. One that is ``forgetful`` lets go of older versions too; one with ``requests`` answers so many, and then none.
"""

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

_LOCK = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>"


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"
    protocol_version = "HTTP/1.1"

    def handle_one_request(self) -> None:
        self.server.requests -= 1
        if self.server.requests < 0:
            self.close_connection = True
            return
        super().handle_one_request()

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        key, asked = self._asked()
        if asked:
            self._reply(200)  # retention, versioning: all is well
            return
        version = secrets.token_hex(8)
        self.server.objects[key, version] = body
        self._reply(200, headers={"ETag": '"0"', "x-amz-version-id": version})

    def do_GET(self) -> None:
        key, asked = self._asked()
        if "versioning" in asked:
            self._reply(200, "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>")
        elif "object-lock" in asked:
            self._reply(200, _LOCK)
        elif "list-type" in asked:
            self._reply(200, "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
        elif "versions" in asked:
            self._reply(200, "<ListVersionsResult><IsTruncated>false</IsTruncated></ListVersionsResult>")
        elif "lifecycle" in asked:
            self._reply(404, "<Error><Code>NoSuchLifecycleConfiguration</Code></Error>")
        else:
            self._object(key, asked)

    def do_HEAD(self) -> None:
        self._object(*self._asked())

    def do_DELETE(self) -> None:
        key, asked = self._asked()
        self.server.objects.pop((key, asked.get("versionId", "")), None)
        if self.server.forgetful:
            for held in [each for each in self.server.objects if each[0] == key]:
                del self.server.objects[held]
        version = {} if "versionId" in asked else {"x-amz-version-id": secrets.token_hex(8)}
        self._reply(204, headers=version)

    def _object(self, key: str, asked: dict[str, str]) -> None:
        wanted = asked.get("versionId")
        bodies = [
            body for (name, version), body in self.server.objects.items() if name == key and wanted in {None, version}
        ]
        if bodies:
            self._reply(200, bodies[-1].decode("latin-1"))
        else:
            self._reply(404, "<Error><Code>NoSuchKey</Code></Error>")

    def _asked(self) -> tuple[str, dict[str, str]]:
        url = urlsplit(self.path)
        return url.path, {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}

    def _reply(self, status: int, body: str = "", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body.encode("latin-1"))

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, requests: int, *, forgetful: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[tuple[str, str], bytes] = {}
        self.requests, self.forgetful = requests, forgetful

    def handle_error(self, *_: object) -> None:
        """Say nothing: a client that has seen enough goes away."""


@contextmanager
def careless(requests: int = 1_000_000, *, forgetful: bool = False) -> Iterator[str]:
    """Run one; give its endpoint."""
    with _Server(requests, forgetful=forgetful) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
