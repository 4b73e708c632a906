"""A TCP proxy that breaks connections in the ways that networks and servers do."""

import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_CHUNK = 16 << 10


@dataclass(frozen=True)
class Fault:
    """What goes wrong on each connection, in what the server sends; offsets count from the connection's first byte."""

    cut_after: int | None = None
    """Reset the connection after so many bytes."""
    stall_after: int | None = None
    """Pass nothing on after so many bytes, until ``FaultProxy.release``."""
    corrupt: bytes | None = None
    """Invert the last bit of each occurrence of these bytes; one that lies across two reads may go unharmed."""
    black_hole: bool = False
    """Take connections, and never answer."""


@dataclass
class FaultProxy:
    """Listen on a free port of 127.0.0.1, and pass everything on to ``target`` (a URL), as far as ``fault`` lets it.

    With ``certificate`` (``<stem>`` of a ``.crt`` and ``.key``) it speaks TLS to its clients and none to the target, so
    that a fault can happen inside of TLS, where no record check sees it.
    """

    target: str
    fault: Fault = field(default_factory=Fault)
    certificate: Path | None = None
    stalled: threading.Event = field(default_factory=threading.Event)
    _released: threading.Event = field(default_factory=threading.Event)
    _sockets: list[socket.socket] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        scheme = "https" if self.certificate or self.target.startswith("https") else "http"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._begin(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.release()
        self._sockets.append(self._listener)
        for each in list(self._sockets):
            _close(each)
        for thread in self._threads:
            thread.join(5)

    def release(self) -> None:
        """Let stalled connections go on."""
        self._released.set()

    def _begin(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(client)
            if not self.fault.black_hole:
                self._begin(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        try:
            if self.certificate:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(f"{self.certificate}.crt", f"{self.certificate}.key")
                context.set_alpn_protocols(["h2"])
                client = context.wrap_socket(client, server_side=True)
                self._sockets.append(client)
            place = urlsplit(self.target)
            server = socket.create_connection((place.hostname or "", place.port or 0))
        except OSError:
            _close(client)
            return
        self._sockets.append(server)
        self._begin(_copy, client, server)
        self._answer(server, client)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        """Pass on what the server sends, with the fault."""
        sent, corrupt = 0, self.fault.corrupt
        with suppress(OSError):
            while data := server.recv(_CHUNK):
                if corrupt:
                    data = data.replace(corrupt, corrupt[:-1] + bytes([corrupt[-1] ^ 1]))
                for limit, act in ((self.fault.cut_after, self._cut), (self.fault.stall_after, self._stall)):
                    if limit is not None and sent <= limit < sent + len(data):
                        client.sendall(data[: limit - sent])
                        data = data[limit - sent :]
                        sent = limit
                        act(client)
                client.sendall(data)
                sent += len(data)
        _close(client)
        _close(server)

    def _cut(self, client: socket.socket) -> None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset, instead of a clean end
        client.close()
        raise OSError("cut")

    def _stall(self, client: socket.socket) -> None:
        self.stalled.set()
        self._released.wait()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(_CHUNK):
            target.sendall(data)
    _close(source)
    _close(target)


def _close(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        each.close()
