"""Zones from real nameservers, and from those that break off, lie, or never answer."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.rrset
import dns.tsig
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedr.credentials import Secret
from edgedr.node import zonefile
from edgedr.node.nameservers import ALGORITHMS, Nameserver, TransferError, TransferKey, transfer
from edgedr.node.zonefile import Zone, read_zone, zone_name
from tests.lab.etcd import free_port
from tests.lab.nameserver import (
    CANARIES,
    CLOSED,
    KEY,
    OTHER_SECRET,
    PUBLIC,
    SECRET,
    ZONES,
    Bind,
    Knot,
    OddNameserver,
    RealNameserver,
    records_of,
)

SOA = "ns1.odd.test. hostmaster.odd.test. {} 7200 3600 1209600 300"
Parts = list[dns.message.Message | bytes]


def key(secret: str = SECRET, name: str = KEY, algorithm: str = "hmac-sha256") -> TransferKey:
    return TransferKey(name, algorithm, Secret(secret.encode()))


def ask(
    server: str, zone: str, with_key: TransferKey | None = None, *, seconds: float = 60, most: int = 100_000
) -> Zone:
    within = timedelta(seconds=seconds)
    return transfer(Nameserver.parse(server), zone, with_key, within=within, most=most)


def refusal(server: str, zone: str, with_key: TransferKey | None = None, **limits: Any) -> TransferError:
    with pytest.raises(TransferError) as caught:
        ask(server, zone, with_key, **limits)
    error = caught.value
    assert zone in error.message
    assert server in error.message
    assert not any(canary in f"{error!r} {error} {error.__cause__!r}" for canary in CANARIES)
    return error


@pytest.fixture(scope="module", params=[Knot, Bind])
def nameserver(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealNameserver]:
    with request.param(tmp_path_factory.mktemp("nameserver"), ZONES, public=PUBLIC, closed=CLOSED) as running:
        yield running


@pytest.mark.parametrize("zone", [zone for zone in ZONES if zone not in CLOSED])
def test_what_comes_is_what_the_server_loaded(nameserver: RealNameserver, zone: str) -> None:
    """Every record of the server's own zone file, with its TTL, and nothing else; counted, and with its serial."""
    got = ask(nameserver.server, zone, None if zone in PUBLIC else key())
    loaded = records_of(ZONES[zone], zone)
    assert records_of(got.text, zone) == loaded
    assert got.records == len(loaded)
    assert f" {got.serial} " in ZONES[zone]
    assert got.name == f"{zone}."
    assert got.outside == 0
    assert read_zone(got.text, zone) == got
    assert ask(nameserver.server, zone, None if zone in PUBLIC else key()) == got


def test_a_zone_file_can_be_read(nameserver: RealNameserver) -> None:
    """It says what it is, begins with the SOA, has one record a line in columns, and sorts names as DNSSEC does."""
    lines = ask(nameserver.server, "0/25.2.0.192.in-addr.arpa", key()).text.splitlines()
    assert lines[:3] == [
        f"; 0/25.2.0.192.in-addr.arpa. as {nameserver.server} served it",
        "; serial 7, 4 records",
        "$ORIGIN 0/25.2.0.192.in-addr.arpa.",
    ]
    assert [line.split()[0] for line in lines[3:]] == ["@", "@", "25", "53"]
    assert [line.split()[3] for line in lines[3:]] == ["SOA", "NS", "PTR", "PTR"]
    assert lines[5] == "25   3600 IN PTR    mail.example.test."


def test_a_zone_with_other_letters_comes_by_its_own_name(nameserver: RealNameserver) -> None:
    """Whoever writes Bücher.test means xn--bcher-kva.test."""
    assert ask(nameserver.server, "Bücher.test", key()).name == "xn--bcher-kva.test."


def test_refusals_are_told_apart(nameserver: RealNameserver) -> None:
    """Wrong secret, unknown key, wrong algorithm, no key, not allowed, no such zone: each in words, none is silence."""
    asked = {
        "has another secret for the key edgedr.test. (BADSIG)": ("example.test", key(OTHER_SECRET)),
        "does not know the key other. with hmac-sha256, or not for this zone (BADKEY)": (
            "example.test",
            key(name="other."),
        ),
        "does not know the key edgedr.test. with hmac-sha512, or not for this zone (BADKEY)": (
            "example.test",
            key(algorithm="hmac-sha512"),
        ),
    }
    for text, (zone, with_key) in asked.items():
        assert refusal(nameserver.server, zone, with_key).message.endswith(f"the server {text}")
    for zone, maybe in (("example.test", None), ("closed.test", key()), ("nowhere.test", key())):
        error = refusal(nameserver.server, zone, maybe)
        assert error.message.endswith(("(REFUSED)", "(NOTAUTH)", "(BADKEY)"))
        assert not error.silent


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_is_spoken(tmp_path: Path, algorithm: str) -> None:
    """What the configuration takes, a real server takes too."""
    with Knot(tmp_path, {"example.test": ZONES["example.test"]}, algorithm=algorithm) as knot:
        assert ask(knot.server, "example.test", key(algorithm=algorithm)).serial == 2026112201


def test_a_secret_that_is_none_is_not_shown() -> None:
    """A password in the place of the key is refused before anything is sent, and not quoted."""
    for secret in ("CANARY-tsig not base64!", "CANARY-tsig", "CANARY-tsigAA", ""):
        error = refusal("127.0.0.1:1", "example.test", key(secret))
        assert error.message.endswith("the secret of the key edgedr.test. is not base64")


def test_a_server_that_is_down_is_silent() -> None:
    """Nobody listens: said at once."""
    error = refusal(f"127.0.0.1:{free_port()}", "example.test", key())
    assert error.message.endswith("no connection: connection refused")
    assert error.silent


def test_a_server_without_an_address_is_silent() -> None:
    """A name that no resolver knows is no reason to stop with an unknown error."""
    error = refusal("no-such-host.invalid:53", "example.test", key())
    assert "its address cannot be found" in error.message or "did not answer" in error.message
    assert error.silent


def test_a_server_that_hangs_is_left() -> None:
    """It takes the connection and the question, and never answers."""
    with OddNameserver(lambda _: [], hold=True) as odd:
        error = refusal(odd.server, "odd.test", seconds=0.3)
        assert error.message.endswith("the server did not answer within 0.3 s")
        assert error.silent


def test_a_server_that_trickles_is_left() -> None:
    """The deadline is for all of it: a byte now and then does not move it."""

    def answer(query: Any) -> Iterator[bytes]:
        yield struct.pack("!H", 65535)
        while True:
            yield b"\0"

    def slowly(query: Any) -> Iterator[bytes]:
        for part in answer(query):
            done.wait(0.05)
            yield part

    done = threading.Event()
    with OddNameserver(slowly) as odd:
        assert refusal(odd.server, "odd.test", seconds=0.5).message.endswith("did not answer within 0.5 s")
        done.set()


def rows(query: Any, *records: str, zone: str = "odd.test.") -> dns.message.Message:
    """Answer with records: each an owner, a type, and a content."""
    response = dns.message.make_response(query)
    response.flags |= dns.flags.AA
    for record in records:
        owner, kind, content = record.split(" ", 2)
        name = dns.name.from_text(owner, dns.name.from_text(zone))
        response.answer.append(dns.rrset.from_text(name, 60, "IN", kind, content))
    return response


def soa(serial: int = 7) -> str:
    return f"@ SOA {SOA.format(serial)}"


def bulk(count: int) -> list[str]:
    return [f"host-{number} A 192.0.2.{number % 256}" for number in range(count)]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (lambda q: [], "the server closed the connection without an answer"),
        (lambda q: [rows(q, soa(), *bulk(3))], "the server closed the connection after 4 records"),
        (lambda q: [rows(q, soa()), b"\x02\x00half"], "the server closed the connection after 1 records"),
        (
            lambda q: [rows(q, soa(7), *bulk(3)), rows(q, *bulk(2), soa(8))],
            "the server changed the zone while it sent it: serial 7 at its begin, 8 at its end",
        ),
        (lambda q: [rows(q)], "the server sent an empty answer"),
        (lambda q: [rows(q, *bulk(1), soa(), soa())], "the server sent something else than the zone"),
        (lambda q: [rows(q, soa(), soa(), *bulk(1))], "the server sent more after the end of the zone"),
        (lambda q: [rows(q, soa(), *bulk(200), soa())], "the server sent more than 100 records"),
        (lambda q: [b"\x00\x04junk"], "the server sent what cannot be read as DNS"),
        (lambda q: [b"\x00\x00"], "the server sent what cannot be read as DNS"),
        (lambda q: [q], "the server answered another question"),
        (lambda q: [_renumbered(rows(q, soa(), soa()))], "the server answered another question"),
        (lambda q: [_failed(q)], "the server has no copy of the zone that it trusts (SERVFAIL)"),
    ],
)
def test_what_is_not_the_zone_is_not_taken(answer: Callable[[Any], Parts], text: str) -> None:
    """Cut, changed, empty, endless or garbled: no part of it passes for the zone, and the reason is told."""
    with OddNameserver(answer) as odd:
        error = refusal(odd.server, "odd.test", most=100)
        assert error.message.endswith(text)
        assert not error.silent


def _renumbered(message: dns.message.Message) -> dns.message.Message:
    message.id ^= 1
    return message


def _failed(query: Any) -> dns.message.Message:
    message = dns.message.make_response(query)
    message.set_rcode(dns.rcode.SERVFAIL)
    return message


def test_an_endless_zone_ends() -> None:
    """A server that never stops is stopped by the number of records."""

    def answer(query: Any) -> Iterator[dns.message.Message]:
        yield rows(query, soa())
        while True:
            yield rows(query, *bulk(500))

    with OddNameserver(answer) as odd:
        assert refusal(odd.server, "odd.test", most=2000).message.endswith("the server sent more than 2000 records")


def test_records_of_elsewhere_are_left_out_and_counted() -> None:
    """Glue that is not of the zone would not load with it; that it was there is not hidden."""
    with OddNameserver(lambda q: [rows(q, soa(), "ns.elsewhere.test. A 192.0.2.1", *bulk(1), soa())]) as odd:
        got = ask(odd.server, "odd.test")
    assert (got.records, got.outside) == (2, 1)
    assert "elsewhere" not in got.text
    assert read_zone(got.text, "odd.test").records == 2


def in_wire(query: Any, *records: tuple[str, int, bytes]) -> dns.message.Message:
    """Answer with records as bytes: each an owner, a type, and a content that no zone file may have."""
    response = rows(query, soa())
    for owner, kind, content in records:
        record = dns.rdata.from_wire("IN", dns.rdatatype.RdataType(kind), content, 0, len(content))
        name = dns.name.from_text(owner, dns.name.from_text("odd.test."))
        response.answer.append(dns.rrset.from_rdata(name, 60, record))
    response.answer.append(response.answer[0])
    return response


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("DS", b"\0\1\x08\5"),
        ("CDS", b"\0\1\x08\5"),
        ("DLV", b"\0\1\x08\5"),
        ("DNSKEY", b"\1\0\3\x08"),
        ("CDNSKEY", b"\1\0\3\x08"),
        ("SSHFP", b"\1\7"),
        ("OPENPGPKEY", b""),
        ("DHCID", b""),
        ("KEY", b"\xc0\0\3\0" + b"\xff" * 16),
        ("HIP", b"\0\2\0\0"),
    ],
)
def test_what_the_library_cannot_read_again_is_written_as_bytes(kind: str, content: bytes) -> None:
    """An empty digest or key is no zone file that it wrote itself: such a record is written as RFC 3597 has it."""
    of = dns.rdatatype.from_text(kind)
    with OddNameserver(lambda q: [in_wire(q, ("x", of, content), ("y", 1, bytes(4)))]) as odd:
        got = ask(odd.server, "odd.test")
    assert read_zone(got.text, "odd.test") == got
    assert got.records == 3
    (line,) = [line for line in got.text.splitlines() if line.startswith("x ")]
    assert line.split()[3:] == [kind, "\\#", str(len(content)), *filter(None, [content.hex()])]
    assert " A      0.0.0.0\n" in got.text


def test_records_that_cannot_stand_together_are_no_zone() -> None:
    """A zone that would not load on the bad day is not stored as one today."""
    with OddNameserver(lambda q: [rows(q, soa(), "x CNAME y.odd.test.", "x A 192.0.2.1", soa())]) as odd:
        error = refusal(odd.server, "odd.test")
    assert error.message.endswith(
        ": written down, it is not a zone file: CNAME rdataset is not compatible with a regular data node"
    )
    assert not error.silent
    assert not error.stalled


def test_a_record_that_no_file_can_have_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither form of it is read as it was sent: its type is said."""
    monkeypatch.setattr(zonefile, "_reads_as", lambda record, text: record.rdtype != dns.rdatatype.DS)
    of = dns.rdatatype.DS
    with OddNameserver(lambda q: [in_wire(q, ("x", of, b"\0\1\x08\5"))]) as odd:
        assert refusal(odd.server, "odd.test").message.endswith(": it has a DS record that no zone file can have")


def test_what_began_and_stalled_is_told() -> None:
    """A server that sends something and then nothing is another matter than one that never answers."""
    with OddNameserver(lambda q: [rows(q, soa(), *bulk(3))], hold=True) as odd:
        error = refusal(odd.server, "odd.test", seconds=0.5)
    assert error.message.endswith("the server had not sent all of it within 0.5 s")
    assert (error.silent, error.stalled) == (False, True)


def test_a_record_that_comes_twice_is_one() -> None:
    """And the order in which a server sends changes nothing."""
    records = [*bulk(3), "@ NS ns1.odd.test.", "@ TXT x"]
    with (
        OddNameserver(lambda q: [rows(q, soa(), *records, *records, soa())]) as one,
        OddNameserver(lambda q: [rows(q, soa(), *reversed(records)), rows(q, soa())]) as two,
    ):
        first, second = ask(one.server, "odd.test"), ask(two.server, "odd.test")
    assert first.records == 6
    assert first.text.splitlines()[1:] == second.text.splitlines()[1:]


def signed(
    query: Any, *parts: dns.message.Message, secret: str = SECRET, sign: Callable[[int], bool]
) -> Iterator[bytes]:
    """Yield the parts of an answer, of which those that ``sign`` names are signed, as a server does it (RFC 8945)."""
    ring = dns.tsig.Key(KEY, secret)
    request = dns.message.from_wire(query.wire, keyring=dns.tsig.Key(KEY, SECRET))
    context: Any = None
    for number, part in enumerate(parts):
        part.request_mac = request.mac or b""
        if sign(number):
            part.use_tsig(ring)
        wire = part.to_wire(max_size=65535, multi=True, tsig_ctx=context)
        if part.had_tsig or part.tsig is not None:
            context = part.tsig_ctx
        elif context is not None:
            context.update(wire)
        yield struct.pack("!H", len(wire)) + wire


def three(query: Any) -> list[dns.message.Message]:
    return [rows(query, soa(), *bulk(2)), rows(query, "between A 192.0.2.1"), rows(query, "last A 192.0.2.2", soa())]


def test_messages_in_between_may_be_unsigned() -> None:
    """The next signature covers them."""
    with OddNameserver(lambda q: signed(q, *three(q), sign=lambda number: number != 1)) as odd:
        assert ask(odd.server, "odd.test", key()).records == 5


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (three, "the server did not sign its answer"),
        (lambda q: signed(q, *three(q), sign=lambda n: n > 0), "the server did not sign its answer"),
        (lambda q: signed(q, *three(q), sign=lambda n: n < 2), "the server did not sign the end of its answer"),
        (
            lambda q: signed(q, *three(q), secret=OTHER_SECRET, sign=lambda n: True),
            "the server sent what was not signed with the secret of the key edgedr.test.",
        ),
        (
            lambda q: _without_the_middle(signed(q, *three(q), sign=lambda n: n != 1)),
            "the server sent what was not signed with the secret of the key edgedr.test.",
        ),
        (lambda q: [_at_another_time(q)], "the server has another time than this node (BADTIME)"),
    ],
)
def test_what_is_not_signed_to_its_end_is_not_taken(answer: Callable[[Any], Any], text: str) -> None:
    """Somebody on the way must not be able to leave the signature away, or a message out."""
    with OddNameserver(answer) as odd:
        assert refusal(odd.server, "odd.test", key()).message.endswith(text)


def _without_the_middle(parts: Iterator[bytes]) -> list[bytes]:
    first, _, last = parts
    return [first, last]


def _at_another_time(query: Any) -> dns.message.Message:
    message = dns.message.make_response(query)
    message.set_rcode(dns.rcode.NOTAUTH)
    message.use_tsig(dns.tsig.Key(KEY, SECRET), tsig_error=dns.rcode.BADTIME)
    message.request_mac = query.mac
    return message


def test_an_answer_signed_with_a_key_that_was_not_asked_with_is_not_taken() -> None:
    """Who asks without a key cannot check a signature, and does not take it for none."""

    def answer(query: Any) -> list[dns.message.Message]:
        response = rows(query, soa(), soa())
        response.use_tsig(dns.tsig.Key(KEY, SECRET))
        return [response]

    with OddNameserver(answer) as odd:
        text = "the server signed its answer with a key that it was not asked with"
        assert refusal(odd.server, "odd.test").message.endswith(text)


def test_no_junk_is_a_bug() -> None:
    """Whatever bytes a server sends, the error is ours, and no traceback."""
    sent: list[bytes] = []
    with OddNameserver(lambda q: [_frame(q, sent[-1])]) as odd:

        @given(st.binary(max_size=200), st.binary(max_size=40))
        def check(junk: bytes, tail: bytes) -> None:
            sent.append(junk + tail)
            refusal(odd.server, "odd.test")

        check()


def _frame(query: Any, junk: bytes) -> bytes:
    """Put junk behind a header that fits the question, with one question and some answers announced."""
    wire = struct.pack("!HHHHHH", query.id, 0x8400, 0, 1 + len(junk) % 3, 0, len(junk) % 2) + junk
    return struct.pack("!H", len(wire)) + wire


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("192.0.2.1", "192.0.2.1", 53),
        ("ns1.example.test:5353", "ns1.example.test", 5353),
        ("[2001:db8::53]:5353", "2001:db8::53", 5353),
        ("[::1]", "::1", 53),
    ],
)
def test_servers_are_understood(text: str, host: str, port: int) -> None:
    """Host, host and port, IPv6 in brackets."""
    server = Nameserver.parse(text)
    assert (server.host, server.port) == (host, port)
    assert Nameserver.parse(str(server)) == server


@pytest.mark.parametrize(
    "text",
    ["", ":53", "host:", "host:0", "host:65536", "::1", "[host]:53", "a b", "user@host", "host:5x", "[::1", "-a"],
)
def test_what_is_no_server_is_refused(text: str) -> None:
    """A typo is a ``ValueError``, not a question to somebody else."""
    with pytest.raises(ValueError):
        Nameserver.parse(text)


def test_ipv6_is_spoken() -> None:
    """A server on ``::1`` is asked like any other: what the system says of its port is what is told."""
    with pytest.raises(OSError) as asked, socket.socket(socket.AF_INET6) as client:
        client.connect(("::1", 1))
    error = refusal("[::1]:1", "example.test")
    assert error.message.endswith(f"no connection: {(asked.value.strerror or '').lower()}")


def test_names_are_kept_in_one_form() -> None:
    """Absolute, in lower case, IDNA; so that one zone has one name."""
    assert zone_name("Example.Test") == zone_name("example.test.") == "example.test."
    assert zone_name("Bücher.test") == "xn--bcher-kva.test."
    assert zone_name("0/25.2.0.192.in-addr.arpa") == "0/25.2.0.192.in-addr.arpa."
    for text in ("", "a..b", "x" * 64 + ".test", "\udcff.test", ".".join(["x" * 60] * 5)):
        with pytest.raises(ValueError):
            zone_name(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "has no SOA record"),
        ("@ 60 IN A 192.0.2.1\n", "has no SOA record"),
        ("@ 60 IN SOA " + SOA.format(1) + "\n@ 60 IN SOA " + SOA.format(2) + "\n", "has 2 records, of which 1"),
        ("@ 60 IN SOA " + SOA.format(1) + "\na 60 IN A 192.0.2.1\na 60 IN A 192.0.2.1\n", "has 3 records, of which 2"),
        ("@ 60 IN SOA " + SOA.format(1) + "\n\na 60 IN A 192.0.2\n", "is not a zone file"),
        ("$INCLUDE /etc/passwd\n", "is not a zone file"),
        ('@ 60 IN TXT "', "is not a zone file"),
    ],
)
def test_what_is_no_zone_file_is_not_read(text: str, reason: str) -> None:
    """A zone file that was damaged is found to be, and leads nowhere else."""
    with pytest.raises(ValueError, match=reason):
        read_zone(text, "odd.test")
