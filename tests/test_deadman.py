"""The dead man's switch: told once, over whatever network there is; its URL is a secret and stays one."""

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edgedr import deadman
from edgedr.errors import Unreachable

SECRET = "/ping/CANARY-6f1a3c52"


class Switch(http.server.ThreadingHTTPServer):
    """Answers with ``status``; what it was asked is in ``asked``."""

    daemon_threads = True
    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{SECRET}"


class _Connection(http.server.BaseHTTPRequestHandler):
    server: Switch

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        if self.server.status in range(300, 400):
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def switch() -> Iterator[Switch]:
    with Switch() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextmanager
def answering(data: bytes | None) -> Iterator[str]:
    """Give the URL of something that says ``data`` to whoever connects, whatever is asked; ``None``: nothing, ever."""
    ended = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            if data is None:
                ended.wait(20)
            else:
                connection.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}{SECRET}"
        ended.set()
        thread.join()


def refused(url: str) -> str:
    """Return why nobody was told, which never shows the URL."""
    with pytest.raises(Unreachable) as caught:
        deadman.ping(url)
    error = caught.value
    assert "CANARY" not in f"{error.message} {error.hint} {error.__cause__} {error!r}"
    assert error.__suppress_context__
    assert "127.0.0.1" in error.message
    assert error.hint
    return error.message


@pytest.mark.parametrize("status", [200, 201, 204])
def test_it_is_told_once(switch: Switch, status: int) -> None:
    """One request, to just that URL; any kind of success is success."""
    switch.status = status
    deadman.ping(switch.url)
    assert switch.asked == [SECRET]


@pytest.mark.parametrize("status", [400, 403, 404, 429, 500, 503])
def test_an_error_is_no_success(switch: Switch, status: int) -> None:
    """The status is told."""
    switch.status = status
    assert refused(switch.url) == f"the dead man's switch at 127.0.0.1 answers {status}"
    assert switch.asked == [SECRET]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_portal_is_not_followed(switch: Switch, status: int) -> None:
    """A redirect is an answer of somebody else: what it leads to is not asked, and is no success."""
    switch.status = status
    assert refused(switch.url) == f"the dead man's switch at 127.0.0.1 answers {status}"
    assert switch.asked == [SECRET]


def test_nobody_is_there() -> None:
    """A closed port is told as what it is."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "Connection refused" in refused(f"http://127.0.0.1:{port}{SECRET}")


def test_somebody_who_never_answers_makes_nobody_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stalled connection ends with its time."""
    monkeypatch.setattr(deadman, "_SECONDS", 0.05)
    with answering(None) as url:
        assert refused(url).endswith("does not answer: timed out")


@pytest.mark.parametrize(
    "data", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x15\x03\x01\x00\x02\x02\x50", b"HTTP/1.1 abc\r\n\r\n", b"H" * 100_000]
)
def test_what_is_no_answer_is_no_success(data: bytes) -> None:
    """Another service behind that port, or one that hangs up, is no switch, and no bug."""
    with answering(data) as url:
        refused(url)


def test_an_answer_that_repeats_what_it_was_asked_shows_nothing() -> None:
    """What is not HTTP is not shown: it may hold the URL."""
    with answering(f"no such page: {SECRET}\r\n".encode()) as url:
        assert refused(url) == "the dead man's switch at 127.0.0.1 gives no answer of HTTP"


@pytest.mark.parametrize("path", [f"{SECRET} x", f"{SECRET}\x7f", f"/{SECRET}/ü"])
def test_a_url_that_cannot_be_asked_is_not_shown(switch: Switch, path: str) -> None:
    """A slip in the configuration does not put the secret into a log."""
    refused(switch.url.replace(SECRET, path))
    assert switch.asked == []


def test_no_such_scheme_is_shown_without_the_rest() -> None:
    """Even what was never a URL of the web keeps its path."""
    refused(f"gopher://127.0.0.1{SECRET}")
