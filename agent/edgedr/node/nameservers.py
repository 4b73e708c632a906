"""Zones from nameservers: by AXFR, over TCP, signed with TSIG.

Whatever dnspython raises leaves this module as ``TransferError``, which is a ``SourceError``.
"""

import binascii
import ipaddress
import queue
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Self

from edgedr.credentials import Secret
from edgedr.errors import SourceError
from edgedr.node.zonefile import NoName, NotWritable, Zone, absolute, library, write_zone

ALGORITHMS = ("hmac-sha256", "hmac-sha512", "hmac-sha384", "hmac-sha224", "hmac-sha1")
"""What TSIG may sign with: RFC 8945, without what it tells not to use."""

_PORT = 53
_MAX_PORT = 65535
_SERVER = re.compile(
    r"(?:\[(?P<v6>[^\]]+)\]|(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}))(?::(?P<port>\d{1,5}))?", re.ASCII
)
_MAX_BYTES = 128 << 20  # of one transfer's messages


@dataclass(frozen=True, slots=True)
class Nameserver:
    """Where a nameserver listens."""

    host: str
    port: int = _PORT

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``host``, ``host:port``, ``[v6]`` or ``[v6]:port``. Anything else is a ``ValueError``."""
        match = _SERVER.fullmatch(text)
        if match is None:
            raise ValueError("it is not a host, host:port or [v6]:port")
        if match["v6"]:
            ipaddress.IPv6Address(match["v6"])  # raises a ValueError of its own
        port = int(match["port"] or _PORT)
        if not 0 < port <= _MAX_PORT:
            raise ValueError("its port is not between 1 and 65535")
        return cls(match["v6"] or match["host"], port)


@dataclass(frozen=True, slots=True)
class TransferKey:
    """A TSIG key: the name and algorithm that the server knows it by, and its secret in base64."""

    name: str
    algorithm: str
    secret: Secret


class TransferError(SourceError):
    """A zone did not come, and why.

    ``silent``: the server did not answer at all, and would not for another zone. ``stalled``: it began to answer, and
    had to be left after the whole time.
    """

    def __init__(self, message: str, *, silent: bool = False, stalled: bool = False) -> None:
        super().__init__(message)
        self.silent = silent
        self.stalled = stalled


class _Refused(Exception):
    """Why there is no zone, in words."""


def transfer(server: Nameserver, zone: str, key: TransferKey | None, *, within: timedelta, most: int) -> Zone:
    """Ask a server for a whole zone: of at most ``most`` records, and done ``within`` that time.

    Raises ``TransferError``, also for a zone that is not complete or, with a key, not signed from end to end.
    """
    received = 0
    try:
        origin = absolute(zone)
        query = _query(origin, key)
        incoming = _Incoming(origin, most, signed=key is not None)
        until = time.monotonic() + within.total_seconds()
        with _connect(server, until) as connection:
            for message in _messages(connection, query, until):
                incoming.take(message)
                received = incoming.count
                if incoming.done:
                    break
        written = write_zone(origin, incoming.soa, incoming.records, f"as {server} served it")
        return replace(written, outside=incoming.outside)
    except Exception as error:
        why = _why(error, key, within, received)
        if why is None:
            raise
        silent = isinstance(error, OSError) and not isinstance(error, _CUT) and not received
        stalled = isinstance(error, TimeoutError) and not silent
        raise TransferError(f"zone {zone} did not come from {server}: {why}", silent=silent, stalled=stalled) from error


class _Incoming:
    """A zone while it comes, message by message: an SOA, the records, the same SOA again (RFC 5936)."""

    def __init__(self, origin: Any, most: int, *, signed: bool) -> None:
        self._dns = library()
        self._origin = origin
        self._most = most
        self._signed = signed
        self.soa: Any = None
        self.records: dict[tuple[Any, Any], int] = {}
        self.outside = 0
        self.done = False
        self.count = 0

    def take(self, message: Any) -> None:
        code = self._dns.rcode.to_text(message.rcode())
        if code != "NOERROR":
            raise _Refused(f"the server {_REFUSALS.get(code, 'has an error')} ({code})")
        # Messages in between may be unsigned, as the next signature covers them; the first one and the last must not.
        if self._signed and self.soa is None and not message.had_tsig:
            raise _Refused("the server did not sign its answer")
        for rrset in message.answer:
            self._take(rrset.name, rrset.ttl, rrset[0])  # which has one record each
        if self.soa is None:
            raise _Refused("the server sent an empty answer")
        if self._signed and self.done and not message.had_tsig:
            raise _Refused("the server did not sign the end of its answer")

    def _take(self, name: Any, ttl: int, record: Any) -> None:
        is_soa = record.rdtype == self._dns.rdatatype.SOA and name == self._origin
        if self.done:
            raise _Refused("the server sent more after the end of the zone")
        if self.soa is None and not is_soa:
            raise _Refused("the server sent something else than the zone")
        if is_soa and self.soa is not None:
            if record != self.soa:
                text = f"serial {self.soa.serial} at its begin, {record.serial} at its end"
                raise _Refused(f"the server changed the zone while it sent it: {text}")
            self.done = True
            return
        if is_soa:
            self.soa = record
        self.count += 1
        if self.count > self._most:
            raise _Refused(f"the server sent more than {self._most} records")
        if not name.is_subdomain(self._origin) or record.rdclass != self._dns.rdataclass.IN:
            self.outside += 1  # glue of elsewhere: no server would load it with the zone
            return
        known = self.records.get((name, record))
        self.records[name, record] = ttl if known is None else min(known, ttl)


_CUT = (EOFError, ConnectionResetError, BrokenPipeError)
_REFUSALS = {
    "REFUSED": "refuses the transfer",
    "NOTAUTH": "does not have the zone, or does not give it to whom it does not know",
    "SERVFAIL": "has no copy of the zone that it trusts",
    "NOTIMP": "does not know zone transfers",
    "FORMERR": "does not understand the question",
}


def _query(origin: Any, key: TransferKey | None) -> Any:
    dns = library()
    query = dns.message.make_query(origin, dns.rdatatype.AXFR)
    if key is None:
        return query
    if key.algorithm not in ALGORITHMS:
        raise _Refused(f"{key.algorithm!a} is none of {', '.join(ALGORITHMS)}")
    try:
        secret = binascii.a2b_base64(b"".join(key.secret.reveal().split()), strict_mode=True)
    except binascii.Error:
        secret = b""
    if not secret:
        raise _Refused(f"the secret of the key {key.name} is not base64")
    # One key, not a ring of them: an answer that another one signed is no answer to this question.
    query.use_tsig(dns.tsig.Key(absolute(key.name), secret, key.algorithm))
    return query


def _connect(server: Nameserver, until: float) -> socket.socket:
    refusal: OSError = OSError("it has no address")
    for family, _, _, _, address in _addresses(server, until):
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(_left(until))
            connection.connect(address)
        except OSError as error:
            connection.close()
            refusal = error
        else:
            return connection
    raise refusal


def _addresses(server: Nameserver, until: float) -> list[Any]:
    """Look up a host's addresses; elsewhere, since the resolver cannot be given a deadline."""
    found: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def look() -> None:
        try:
            found.put(socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.put(error)

    threading.Thread(target=look, daemon=True).start()
    try:
        answer = found.get(timeout=_left(until))
    except queue.Empty as error:
        raise TimeoutError from error
    if isinstance(answer, Exception):
        raise OSError("its address cannot be found") from answer
    return answer


def _messages(connection: socket.socket, query: Any, until: float) -> Iterator[Any]:
    """Send the question and yield the messages of the answer, each with its signature checked."""
    dns = library()
    wire = query.to_wire()
    connection.sendall(struct.pack("!H", len(wire)) + wire)
    total, context = 0, None
    while True:
        (size,) = struct.unpack("!H", _read(connection, 2, until))
        total += size
        if total > _MAX_BYTES:
            raise _Refused(f"the server sent more than {_MAX_BYTES >> 20} MiB")
        message: Any = dns.message.from_wire(
            _read(connection, size, until),
            keyring=query.keyring,
            request_mac=query.mac,
            xfr=True,
            tsig_ctx=context,
            multi=True,
            one_rr_per_rrset=True,
        )
        if message.id != query.id or not message.flags & dns.flags.QR or message.opcode() != query.opcode():
            raise _Refused("the server answered another question")
        context = message.tsig_ctx
        yield message


def _read(connection: socket.socket, size: int, until: float) -> bytes:
    data = bytearray()
    while len(data) < size:
        connection.settimeout(_left(until))
        chunk = connection.recv(size - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return bytes(data)


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _why(error: Exception, key: TransferKey | None, within: timedelta, received: int) -> str | None:
    """Say in words why a zone did not come; ``None`` for what is no reason but a bug."""
    match error:
        case _Refused() | NoName() | NotWritable():
            return str(error)
        case TimeoutError():
            done = "had not sent all of it" if received else "did not answer"
            return f"the server {done} within {within.total_seconds():g} s"
        case _ if isinstance(error, _CUT):
            when = f"after {received} records" if received else "without an answer"
            return f"the server closed the connection {when}"
        case OSError():
            return f"no connection: {(error.strerror or str(error)).lower()}"
    return _why_not_taken(error, key)


def _why_not_taken(error: Exception, key: TransferKey | None) -> str | None:
    dns = library()
    named, algorithm = (f"the key {key.name}", key.algorithm) if key else ("the key", "this algorithm")
    reasons: tuple[tuple[type[Exception], str], ...] = (
        (dns.tsig.PeerBadKey, f"does not know {named} with {algorithm}, or not for this zone (BADKEY)"),
        (dns.tsig.PeerBadSignature, f"has another secret for {named} (BADSIG)"),
        (dns.tsig.PeerBadTime, "has another time than this node (BADTIME)"),
        (dns.tsig.PeerError, f"does not take what {named} signed"),
        (dns.tsig.BadSignature, f"sent what was not signed with the secret of {named}"),
        (dns.tsig.BadTime, "signed its answer at another time than this node's"),
        (dns.tsig.BadKey, f"signed its answer with another key than {named}"),
        (dns.tsig.BadAlgorithm, f"signed its answer with another algorithm than {named} has"),
        (dns.message.UnknownTSIGKey, "signed its answer with a key that it was not asked with"),
        (dns.exception.DNSException, "sent what cannot be read as DNS"),
    )
    return next((f"the server {text}" for kind, text in reasons if isinstance(error, kind)), None)
