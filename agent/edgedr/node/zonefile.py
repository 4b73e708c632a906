"""Zone files, as dnspython reads them: one record a line, in an order that depends on nothing but the zone.

Every zone that is written here was read again: dnspython writes some records in a way that it cannot read. Those are
written as RFC 3597 has it, by length and bytes, which every nameserver reads.

The library is slow to import, so nothing here imports it before a first zone. Names of zones are absolute and in lower
case; one with other letters than DNS has is meant in its IDNA form.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_WIDEST = 24  # columns that an owner's name is padded to
_FIRST = ("SOA", "NS")


@dataclass(frozen=True, slots=True)
class Zone:
    """A whole zone: its name, its serial, how many records, and all of them as a zone file.

    ``outside`` is how many records came along that are not of this zone, and were left out.
    """

    name: str
    serial: int
    records: int
    text: str
    outside: int = 0


class NoName(ValueError):
    """A text is not the name of a zone or key."""


class NotWritable(ValueError):
    """A zone cannot be written as a file, and why."""


def zone_name(text: str) -> str:
    """Return a zone's name as it is kept: absolute, in lower case, IDNA. ``ValueError`` for what is no name."""
    return str(absolute(text).to_text())


def absolute(text: str) -> Any:
    """Return a name as dnspython has it. Raises ``NoName``."""
    dns = library()
    try:
        name = dns.name.from_text(text).canonicalize() if text else None
    except (dns.exception.DNSException, UnicodeError) as error:
        raise NoName(f"{text!a} is not a name that DNS can have") from error
    if name is None:
        raise NoName("there is no name")
    return name


def write_zone(origin: Any, soa: Any, records: Mapping[tuple[Any, Any], int], whence: str) -> Zone:
    """Write a zone: for each owner and content its TTL, as dnspython has them. ``whence`` is for who reads the file.

    Raises ``NotWritable`` for records that no file could have, or not together.
    """
    name = str(origin.to_text())
    head = f"; {name} {whence}\n; serial {soa.serial}, {len(records)} records\n$ORIGIN {name}\n"
    texts = {record: str(record.to_text()) for _, record in records}
    try:
        return _read_again(name, head + _lines(origin, records, texts), records)
    except ValueError:
        texts = {record: _readable(record, text) for record, text in texts.items()}
    try:
        return _read_again(name, head + _lines(origin, records, texts), records)
    except ValueError as error:
        raise NotWritable(f"written down, it {error}") from error


def read_zone(text: str, name: str) -> Zone:
    """Read a zone file that this module wrote. ``ValueError`` if it is none, or has not one SOA at its top."""
    zone, _ = _read(text, name)
    return zone


def library() -> Any:
    """Return the library."""
    import dns.message  # noqa: PLC0415 - slow to import
    import dns.zone  # noqa: PLC0415 - these two bring with them all that is used here

    return dns


def _read(text: str, name: str) -> tuple[Zone, Any]:
    """Return a zone, and as dnspython has it. Raises as ``read_zone``."""
    dns = library()
    try:
        zone: Any = dns.zone.from_text(text, origin=absolute(name), relativize=False, check_origin=False)
        soa = zone.get_rdataset(zone.origin, dns.rdatatype.SOA)
    except (dns.exception.DNSException, KeyError, ValueError) as error:
        raise ValueError(f"is not a zone file: {' '.join(str(error).split())}") from error
    if soa is None:
        raise ValueError("has no SOA record")
    records = sum(len(rdataset) for _, rdataset in zone.iterate_rdatasets())
    lines = sum(1 for line in text.split("\n") if line and line[0] not in ";$")
    if lines != records:  # a second SOA takes the place of the first when it is read
        raise ValueError(f"has {lines} records, of which {records} are different and can stand together")
    return Zone(zone_name(name), soa[0].serial, records, text), zone


def _read_again(name: str, text: str, records: Mapping[tuple[Any, Any], int]) -> Zone:
    """Read a zone that was written. ``ValueError`` if it does not have these records."""
    zone, read = _read(text, name)
    if any((owner, record) not in records for owner, rdataset in read.iterate_rdatasets() for record in rdataset):
        raise ValueError("has records that a zone file makes others of")
    return zone


def _readable(record: Any, text: str) -> str:
    """Return the text of a record, or its bytes as RFC 3597 writes them where that is not read as the same record."""
    wire = record.to_wire()
    for each in (text, f"\\# {len(wire)} {wire.hex()}".rstrip()):
        if _reads_as(record, each):
            return each
    kind = library().rdatatype.to_text(record.rdtype)
    raise NotWritable(f"it has a {kind} record that no zone file can have")


def _reads_as(record: Any, text: str) -> bool:
    dns = library()
    try:
        return bool(dns.rdata.from_text(record.rdclass, record.rdtype, text, relativize=False) == record)
    except (dns.exception.DNSException, ValueError, LookupError, TypeError):
        return False


def _lines(origin: Any, records: Mapping[tuple[Any, Any], int], texts: Mapping[Any, str]) -> str:
    """Write one record a line: SOA first, then by name as DNSSEC orders them, type and content."""
    dns = library()
    rows = []
    for (name, record), ttl in records.items():
        kind = dns.rdatatype.to_text(record.rdtype)
        rank = _FIRST.index(kind) if kind in _FIRST else len(_FIRST)
        rows.append(((name, rank, kind, record.to_digestable(), texts[record]), ttl))
    owners = {name: name.relativize(origin).to_text() for name, _ in records}
    width = min(max(map(len, owners.values()), default=0), _WIDEST)
    return "".join(
        f"{owners[name]:<{width}} {ttl:>6} IN {kind:<6} {text}\n"
        for (name, _, kind, _, text), ttl in sorted(rows, key=lambda row: row[0])
    )
