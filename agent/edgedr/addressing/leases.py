"""Who was given which address: lease files of dnsmasq, Kea and ISC dhcpd, and the ranges that they give out. Pure.

What a server marked as expired or released is no lease; when a lease ends is not kept: it changes with every renewal,
and on the bad day it is past. Lines that cannot be read are counted, never guessed.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from itertools import pairwise

MAX_LEASES = 10_000
"""Leases of one file that are read; a site has some hundred."""

# Hostile input must not make a search quadratic: blanks stop at the line's end, and what is never closed ends with the
# line or, a comment, with the file.
_ISC_LEASE = re.compile(r'^[ \t]*(?:lease[ \t]+[0-9.]+[ \t]*\{|ia-(?:na|ta|pd)[ \t]+")', re.MULTILINE)
_ISC_PIECE = re.compile(r'"(?:\\.|[^"\\\n])*+"?|#[^\n]*|[{};]|[^\s{};"]+')
_KEA_POOL = re.compile(r'"pool"\s*:\s*"([^"\n]{1,200})"')
_KEA_COMMENT = re.compile(r'("(?:\\.|[^"\\\n])*+"?)|//[^\n]*|#[^\n]*|/\*(?:.*?\*/|.*)', re.DOTALL)
_DNSMASQ_RANGE = re.compile(r"^[ \t]*dhcp-range[ \t]*=([^\n#]*)", re.MULTILINE)
_MAC = re.compile(r"(?:[0-9a-fA-F]{2}:){5,19}[0-9a-fA-F]{2}")
_KEA_ASSIGNED, _KEA_DECLINED, _KEA_RECLAIMED = "0", "1", "2"
_KEA_PREFIX = "2"
_DNSMASQ_FIELDS = 4


@dataclass(frozen=True, slots=True, order=True)
class Lease:
    """An address, or a delegated prefix, that a client has; ``client`` is its hardware address, or its DUID.

    ``name`` is what the client calls itself, empty if it does not.
    """

    address: str
    client: str
    name: str


@dataclass(frozen=True, slots=True)
class Leases:
    """What a lease file tells, each address once.

    ``unreadable`` is how many lines or leases made no sense; ``more`` tells that there were more than ``MAX_LEASES``.
    """

    leases: tuple[Lease, ...]
    unreadable: int = 0
    more: bool = False


class _Reading:
    """What was read so far: later lines speak for an address anew."""

    def __init__(self) -> None:
        self._leases: dict[str, Lease] = {}
        self.unreadable = 0
        self._more = False

    def tell(self, address: str, client: str, name: str, *, active: bool) -> None:
        try:
            at = str(ip_network(address)) if "/" in address else str(ip_address(address))
        except ValueError:
            self.unreadable += 1
            return
        if not active:
            self._leases.pop(at, None)
        elif at in self._leases or len(self._leases) < MAX_LEASES:
            self._leases[at] = Lease(at, client, name)
        else:
            self._more = True

    def result(self) -> Leases:
        return Leases(tuple(sorted(self._leases.values())), self.unreadable, self._more)


def read_leases(*texts: str) -> Leases:
    """Read a lease file in whichever format it is; Kea keeps several generations of one, the oldest comes first."""
    reading = _Reading()
    for text in texts:
        if text.startswith("address,"):
            _read_kea(text, reading)
        elif _ISC_LEASE.search(text):
            _read_isc(text, reading)
        else:
            _read_dnsmasq(text, reading)
    return reading.result()


def dhcp_ranges(text: str) -> tuple[str, ...]:
    """Return what a configuration of dnsmasq, Kea or ISC dhcpd gives out: ``a-b``, a CIDR or an address; sorted."""
    return tuple(sorted({*_dnsmasq_ranges(text), *_kea_ranges(text), *_isc_ranges(text)}))


def _read_dnsmasq(text: str, reading: _Reading) -> None:
    """``expiry mac address name client-id``; below a line ``duid …``: ``expiry iaid address name client-duid``."""
    for line in text.split("\n"):
        words = line.split()
        if not words or words[0] == "duid":
            continue
        if len(words) < _DNSMASQ_FIELDS or not words[0].isdecimal():
            reading.unreadable += 1
            continue
        client = words[1]
        if not _MAC.search(client):  # IPv6: the second word is a number of the client's own choice
            client = words[4] if len(words) > _DNSMASQ_FIELDS else client
        reading.tell(words[2], client, "" if words[3] == "*" else words[3], active=True)


def _read_kea(text: str, reading: _Reading) -> None:
    header, _, body = text.partition("\n")
    columns = header.strip().split(",")
    for line in body.split("\n"):
        values = line.strip().split(",")
        if values in ([""], columns):
            continue
        row = dict(zip(columns, values, strict=False))
        state, lifetime = row.get("state") or _KEA_ASSIGNED, row.get("valid_lifetime", "")
        if state not in {_KEA_ASSIGNED, _KEA_DECLINED, _KEA_RECLAIMED} or not lifetime.isdecimal():
            reading.unreadable += 1
            continue
        address = row["address"]
        if row.get("lease_type") == _KEA_PREFIX:
            address += f"/{row.get('prefix_len', '')}"
        client = row.get("hwaddr") or row.get("duid") or row.get("client_id") or ""
        name = row.get("hostname", "").replace("&#x2c", ",").rstrip(".")
        if state == _KEA_DECLINED:
            client, name = "declined: another host answers there", ""
        reading.tell(address, client, name, active=state != _KEA_RECLAIMED and lifetime.strip("0") != "")


def _read_isc(text: str, reading: _Reading) -> None:
    """Read statements: ``lease A { … }``, and for IPv6 ``ia-na "DUID" { iaaddr A { … } }``; the last one counts."""
    above: list[list[str]] = []
    said: dict[str, str] = {}
    statement: list[str] = []
    for piece in _isc_pieces(text):
        if piece == "{":
            above.append(statement)
            said = {}
        elif piece == ";":
            _remember(statement, said)
        elif piece == "}":
            if above:
                _end_of_block(above, said, reading)
                above.pop()
        else:
            statement.append(piece)
            continue
        statement = []
    if above:  # cut off in the middle
        reading.unreadable += 1


def _remember(statement: list[str], said: dict[str, str]) -> None:
    match statement:
        case ["binding", "state", state, *_]:
            said["state"] = state
        case ["hardware", _, address, *_]:
            said["client"] = address
        case ["client-hostname", name, *_]:
            said["name"] = name.strip('"')


def _end_of_block(above: list[list[str]], said: dict[str, str], reading: _Reading) -> None:
    match above[-1]:
        case ["lease" | "iaaddr" | "iaprefix", address, *_]:
            outer = above[-2] if len(above) > 1 else []
            duid = outer[1].strip('"') if len(outer) > 1 and outer[0].startswith("ia-") else ""
            client = said.get("client") or duid
            reading.tell(address, client, said.get("name", ""), active=said.get("state", "active") == "active")


def _isc_pieces(text: str) -> Iterator[str]:
    return (match[0] for match in _ISC_PIECE.finditer(text) if not match[0].startswith("#"))


def _isc_ranges(text: str) -> Iterator[str]:
    """``range [dynamic-bootp] low [high];`` and ``range6 low high;`` or ``range6 prefix;``."""
    statement: list[str] = []
    for piece in _isc_pieces(text):
        if piece not in "{};":
            if len(statement) < 8:  # noqa: PLR2004 - longer ones are no range
                statement.append(piece)
            continue
        if piece == ";" and statement and statement[0] in {"range", "range6"}:
            yield from _range([word for word in statement[1:] if word != "dynamic-bootp"])
        statement = []


def _kea_ranges(text: str) -> Iterator[str]:
    if '"pool"' not in text:
        return
    for match in _KEA_POOL.finditer(_KEA_COMMENT.sub(lambda found: found[1] or "", text)):
        yield from _range([part.strip() for part in match[1].split("-")])


def _dnsmasq_ranges(text: str) -> Iterator[str]:
    """``dhcp-range=[tag:…,]start,end[,…]``; with ``static`` or ``proxy`` in the place of the end none is given out."""
    for match in _DNSMASQ_RANGE.finditer(text):
        words = [word.strip() for word in match[1].split(",")]
        if any(word.startswith("constructor:") for word in words):
            continue  # its prefix is only known to the interface
        at = [index for index, word in enumerate(words) if _is_address(word)]
        yield from (
            f"{words[low]}-{words[high]}" for low, high in list(pairwise(at))[:1] if high == low + 1
        )  # a netmask may follow


def _range(words: list[str]) -> Iterator[str]:
    match words:
        case [low, high] if _is_address(low) and _is_address(high):
            yield f"{low}-{high}"
        case [one] if _is_address(one) or _is_network(one):
            yield one


def _is_address(word: str) -> bool:
    try:
        ip_address(word)
    except ValueError:
        return False
    return True


def _is_network(word: str) -> bool:
    try:
        ip_network(word, strict=False)
    except ValueError:
        return False
    return True
