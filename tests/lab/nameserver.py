"""Real nameservers on loopback: Knot DNS and BIND, with TSIG; and one that answers as no real one should.

``with Knot(directory, {"example.test": text}) as knot: ...`` runs one at ``knot.server``. Zones are handed out to who
has the key; those in ``public`` to everybody; those in ``closed`` to nobody.
"""

import base64
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.zone

from tests.lab.etcd import free_port
from tests.lab.tools import need

KEY = "edgedr.test."
SECRET = base64.b64encode(b"CANARY-tsig-secret-of-the-tests!").decode()
"""What the servers know; no output of edgedr may have it."""
OTHER_SECRET = base64.b64encode(b"CANARY-tsig-secret-of-somebody-e").decode()
CANARIES = (SECRET, OTHER_SECRET, "CANARY-tsig")

ZONES = {
    "example.test": """\
$TTL 3600
@ IN SOA ns1 hostmaster 2026112201 7200 3600 1209600 300
@ NS ns1
@ NS ns2.example.net.
@ MX 10 mail
@ 300 TXT "v=spf1 -all" "two; \\"strings\\" \\195\\164"
@ CAA 0 issue "ca.example.net"
ns1 A 192.0.2.53
ns1 AAAA 2001:db8::53
mail 60 A 192.0.2.25
mail 60 A 192.0.2.26
Mixed.Case A 192.0.2.1
* A 192.0.2.80
www CNAME @
_https._tcp SRV 0 5 443 www
with\\032space TXT "a name with a space"
\\@at A 192.0.2.2
a\\.dot A 192.0.2.3
\\$dollar A 192.0.2.4
sub NS ns.sub
ns.sub A 192.0.2.54
unknown TYPE65280 \\# 4 0A000001
key SSHFP 4 2 123456789abcdef67890123456789abcdef67890123456789abcdef123456789
naptr NAPTR 100 50 "s" "SIP+D2U" "" _sip._udp
""",
    "0/25.2.0.192.in-addr.arpa": """\
@ 3600 IN SOA ns1.example.test. hostmaster.example.test. 7 7200 3600 1209600 300
@ 3600 IN NS ns1.example.test.
25 3600 IN PTR mail.example.test.
53 3600 IN PTR ns1.example.test.
""",
    "8.b.d.0.1.0.0.2.ip6.arpa": """\
@ 3600 IN SOA ns1.example.test. hostmaster.example.test. 4294967295 7200 3600 1209600 300
@ 3600 IN NS ns1.example.test.
3.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0 3600 IN PTR ns1.example.test.
""",
    "xn--bcher-kva.test": """\
@ 3600 IN SOA ns1.example.test. hostmaster.example.test. 1 7200 3600 1209600 300
@ 3600 IN NS ns1.example.test.
xn--strae-oqa 3600 IN A 192.0.2.9
""",
    "large.test": """\
@ 3600 IN SOA ns1.example.test. hostmaster.example.test. 5 7200 3600 1209600 300
@ 3600 IN NS ns1.example.test.
"""
    + "".join(f'host-{number} 3600 IN TXT "{"x" * 40}"\n' for number in range(4000)),
    "public.test": """\
@ 3600 IN SOA ns1.example.test. hostmaster.example.test. 1 7200 3600 1209600 300
@ 3600 IN NS ns1.example.test.
""",
    "closed.test": """\
@ 3600 IN SOA ns1.example.test. hostmaster.example.test. 1 7200 3600 1209600 300
@ 3600 IN NS ns1.example.test.
""",
}
"""What a site may have: odd names, reverse zones, one with other letters, one of several messages."""
PUBLIC, CLOSED = ("public.test",), ("closed.test",)

_START_SECONDS = 60


class RealNameserver(ABC):
    """A nameserver's process, and the zone files that it loaded."""

    def __init__(
        self,
        directory: Path,
        zones: Mapping[str, str],
        *,
        public: Iterable[str] = (),
        closed: Iterable[str] = (),
        algorithm: str = "hmac-sha256",
    ) -> None:
        self.directory = directory
        self.zones = dict(zones)
        self.public = frozenset(public)
        self.closed = frozenset(closed)
        self.algorithm = algorithm
        self.port = free_port()
        self.log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def server(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        for number, text in enumerate(self.zones.values()):
            (self.directory / f"{number}.zone").write_text(text)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=self.directory)
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @abstractmethod
    def command(self) -> list[str]:
        """Write the configuration, and return the command line."""

    def stop(self) -> None:
        """End it, and wait for it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _wait(self) -> None:
        """Wait until it answers for every zone."""
        assert self._process is not None
        left = list(self.zones)
        for _ in range(_START_SECONDS * 20):
            if self._process.poll() is not None:
                break
            with suppress(OSError, EOFError, dns.exception.DNSException):
                answer = dns.query.tcp(dns.message.make_query(left[-1], "SOA"), "127.0.0.1", 5, self.port)
                if answer.rcode() == dns.rcode.NOERROR and answer.answer:
                    left.pop()
                    if not left:
                        return
                    continue
            time.sleep(0.05)
        raise RuntimeError(f"{type(self).__name__} is not ready for {left}:\n{self.log.read_text()[-4000:]}")

    def _files(self) -> Iterable[tuple[str, Path]]:
        return ((zone, self.directory / f"{number}.zone") for number, zone in enumerate(self.zones))


class Knot(RealNameserver):
    """Knot DNS."""

    def __enter__(self) -> Self:
        self._run = tempfile.mkdtemp(prefix="knot")  # not below the directory: a socket's path must be short
        return super().__enter__()

    def stop(self) -> None:
        super().stop()
        shutil.rmtree(self._run, ignore_errors=True)

    def command(self) -> list[str]:
        lines = [
            "server:",
            f"  listen: 127.0.0.1@{self.port}",
            f"  rundir: {self._run}",
            "database:",
            f"  storage: {self.directory}",
            "log:",
            "- target: stderr",
            "  any: info",
            "key:",
            f"- id: {KEY}",
            f"  algorithm: {self.algorithm}",
            f"  secret: {SECRET}",
            "acl:",
            "- id: with-the-key",
            f"  key: {KEY}",
            "  action: transfer",
            "- id: everybody",
            "  address: 127.0.0.1",
            "  action: transfer",
            "zone:",
        ]
        for zone, file in self._files():
            lines += [f'- domain: "{zone}"', f"  file: {file}", "  zonefile-sync: -1"]
            if zone not in self.closed:
                lines.append(f"  acl: {'everybody' if zone in self.public else 'with-the-key'}")
        configuration = self.directory / "knot.conf"
        configuration.write_text("\n".join(lines) + "\n")
        return [need("knotd"), "-c", str(configuration)]


class Bind(RealNameserver):
    """BIND 9."""

    def command(self) -> list[str]:
        lines = [
            "options {",
            f'  directory "{self.directory}";',
            f"  listen-on port {self.port} {{ 127.0.0.1; }};",
            "  listen-on-v6 { none; };",
            "  recursion no;",
            "  notify no;",
            "  dnssec-validation no;",
            "  pid-file none;",
            "  session-keyfile none;",
            "  lock-file none;",
            "  allow-transfer { none; };",
            "};",
            "controls { };",
            f'key "{KEY}" {{ algorithm {self.algorithm}; secret "{SECRET}"; }};',
        ]
        for zone, file in self._files():
            who = "none;" if zone in self.closed else "any;" if zone in self.public else f'key "{KEY}";'
            lines.append(
                f'zone "{zone}" {{ type primary; file "{file}"; check-names ignore; allow-transfer {{ {who} }}; }};'
            )
        configuration = self.directory / "named.conf"
        configuration.write_text("\n".join(lines) + "\n")
        # A copy of it: where AppArmor is on, the one in its place may read nothing but its own directories.
        program = shutil.copy(need("named"), self.directory / "named")
        return [str(program), "-g", "-n", "1", "-c", str(configuration)]


class OddNameserver:
    """Takes connections on a free port, and answers each question with what ``answer`` makes of it.

    ``answer`` returns messages, or bytes that are sent as they are; after them the connection is closed, or, with
    ``hold``, kept open until the end. ``questions`` are all that were asked, each as it came.
    """

    def __init__(self, answer: Callable[[Any], Iterable[dns.message.Message | bytes]], *, hold: bool = False) -> None:
        self._answer = answer
        self._hold = hold
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self.questions: list[bytes] = []

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.server = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._begin(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        for each in (self._listener, *self._connections):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(10)

    def _begin(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                self._begin(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, EOFError), connection:
            (size,) = struct.unpack("!H", _exactly(connection, 2))
            self.questions.append(_exactly(connection, size))
            query = dns.message.from_wire(self.questions[-1], keyring=False)
            for part in self._answer(query):
                connection.sendall(part if isinstance(part, bytes) else framed(part))
            if self._hold:
                self._ended.wait()


def records_of(text: str, zone: str) -> set[tuple[Any, int, Any]]:
    """Return each record of a zone file: owner, TTL, content, as DNS compares them."""
    read = dns.zone.from_text(text, origin=zone, relativize=False, check_origin=False)
    return {(name, rdataset.ttl, record) for name, rdataset in read.iterate_rdatasets() for record in rdataset}


def framed(message: dns.message.Message) -> bytes:
    """Return a message as TCP carries it."""
    wire = message.to_wire(max_size=65535)
    return struct.pack("!H", len(wire)) + wire


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = connection.recv(size - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return data
