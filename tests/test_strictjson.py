"""Records as JSON: what is written can be read, and nothing else can."""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgedr.errors import Damaged
from edgedr.inventory import Entry, EntryKind, Inventory, LeftOut, SourceRecord
from edgedr.model import (
    Artifact,
    BackupId,
    Class,
    EtcdFacts,
    Finding,
    Manifest,
    Proof,
    Segment,
    Severity,
    SourceResult,
    Status,
)
from edgedr.strictjson import MAX_STRING, decode, encode

LIMIT = 1 << 20
UNTIMED = settings(deadline=None, database=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])

COUNTS = st.integers(0, 2**63 - 1)
TEXTS = st.binary(max_size=20).map(lambda data: data.decode("utf-8", "surrogateescape"))
TIMES = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(lambda time: time.replace(tzinfo=UTC))  # noqa: DTZ001
IDS = st.builds(
    BackupId,
    st.datetimes(datetime(1000, 1, 1), datetime(9999, 12, 31)).map(  # noqa: DTZ001
        lambda time: time.replace(tzinfo=UTC, microsecond=0)
    ),
    st.integers(0, 99_999_999),
    st.from_regex(r"[0-9a-f]{8}", fullmatch=True),
)
RESULTS = st.builds(
    SourceResult, st.sampled_from(Status), st.none() | TEXTS, st.dictionaries(TEXTS, COUNTS, max_size=2)
)
SEGMENTS = st.builds(Segment, TEXTS, COUNTS, TEXTS, COUNTS)
ARTIFACTS = st.builds(
    Artifact, TEXTS, st.sampled_from(Class), st.none() | IDS, COUNTS, TEXTS, st.lists(SEGMENTS, max_size=2).map(tuple)
)
MANIFESTS = st.builds(
    Manifest,
    schema=st.just(1),
    id=IDS,
    lineage=TEXTS,
    sequence=COUNTS,
    site=TEXTS,
    node=TEXTS,
    created=TIMES,
    clock_offset_ms=st.none() | st.integers(-(2**64), 2**64),
    edgedr_version=TEXTS,
    distribution=st.none() | TEXTS,
    kubernetes_version=st.none() | TEXTS,
    segment_size=COUNTS,
    artifacts=st.lists(ARTIFACTS, max_size=2).map(tuple),
    sources=st.dictionaries(TEXTS, RESULTS, max_size=2),
    etcd=st.none() | st.builds(EtcdFacts, TEXTS, TEXTS, COUNTS, TEXTS),
    recipients=st.lists(TEXTS, max_size=2).map(tuple),
    proof=st.sampled_from(Proof),
    reasons=st.lists(TEXTS, max_size=2).map(tuple),
)
ENTRIES = st.builds(
    Entry,
    path=TEXTS,
    kind=st.sampled_from(EntryKind),
    source=TEXTS,
    mode=COUNTS,
    uid=COUNTS,
    gid=COUNTS,
    mtime_ns=st.integers(-(2**94), 2**94),
    size=COUNTS,
    sha256=st.none() | TEXTS,
    target=st.none() | TEXTS,
    xattrs=st.dictionaries(TEXTS, TEXTS, max_size=2),
    sparse=st.booleans(),
)
FINDINGS = st.builds(Finding, st.sampled_from(Severity), TEXTS, TEXTS, st.none() | TEXTS)
RECORDS = st.builds(
    SourceRecord,
    st.sampled_from(Status),
    st.none() | TEXTS,
    st.dictionaries(TEXTS, TEXTS, max_size=2),
    st.lists(FINDINGS, max_size=2).map(tuple),
)
INVENTORIES = st.builds(
    Inventory,
    st.just(1),
    TEXTS,
    TEXTS,
    st.dictionaries(TEXTS, RECORDS, max_size=2),
    st.lists(ENTRIES, max_size=2).map(tuple),
    st.lists(st.builds(LeftOut, TEXTS, TEXTS, TEXTS), max_size=2).map(tuple),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)

SAMPLE = Manifest(
    schema=1,
    id=BackupId.parse("20261122T221500Z-00000097-1f2e3d4c"),
    lineage="a1",
    sequence=97,
    site="hall-7",
    node="cp-1",
    created=datetime(2026, 11, 22, 22, 15, tzinfo=UTC),
    clock_offset_ms=-40,
    edgedr_version="0.1.0",
    distribution=None,
    kubernetes_version="1.36.2",
    segment_size=64 << 20,
    artifacts=(Artifact("etcd.db", Class.FULL, None, 5, "aa", (Segment("etcd.db.000.zst.age", 4, "bb", 5),)),),
    sources={"etcd": SourceResult(Status.OK, None, {"keys": 7008})},
    etcd=EtcdFacts("c1", "d1", 12, "3.5.1"),
    recipients=("f1",),
    proof=Proof.L1,
    reasons=("there is none yet",),
)
GOOD = encode(SAMPLE)


def manifest(data: bytes) -> Manifest:
    return decode(Manifest, data, what="manifest.json", max_bytes=LIMIT)


@UNTIMED
@given(MANIFESTS)
def test_manifests_come_back(record: Manifest) -> None:
    """Whatever can be recorded can be read again, and equal records are equal bytes."""
    data = encode(record)
    assert manifest(data) == record
    assert encode(manifest(data)) == data
    assert data.isascii()
    assert data.endswith(b"}\n")


@UNTIMED
@given(INVENTORIES)
def test_inventories_come_back(record: Inventory) -> None:
    """Names that are not UTF-8 survive, and times before 1970, and far in the future."""
    assert decode(Inventory, encode(record), what="inventory.json", max_bytes=LIMIT) == record


@UNTIMED
@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_anything_else_is_damaged(data: bytes) -> None:
    """No bytes whatever lead to another failure than ``Damaged``."""
    with pytest.raises(Damaged, match=r"manifest\.json is not valid"):
        manifest(data)


@UNTIMED
@given(st.data())
def test_any_value_in_any_place_is_damaged_or_fits(data: st.DataObject) -> None:
    """A value of another type, anywhere in a good record, is ``Damaged`` and never a crash."""
    record = json.loads(GOOD)
    place = record
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else list(range(len(place)))))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            break
        place = inner
    place[key] = data.draw(JSON)
    with suppress(Damaged):
        assert encode(manifest(json.dumps(record).encode())).isascii()


@UNTIMED
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_any_changed_byte_is_damaged_or_another_record(position: int, value: int) -> None:
    """One changed byte never crashes, and never goes by as the same record unless it is only a space."""
    changed = GOOD[:position] + bytes([value]) + GOOD[position + 1 :]
    try:
        record = manifest(changed)
    except Damaged:
        return
    assert record != SAMPLE or changed.split() == GOOD.split()


def swap(old: str, new: str) -> bytes:
    assert old.encode() in GOOD
    return GOOD.replace(old.encode(), new.encode(), 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "line 1, column 1"),
        (b"\xff", "byte 0: not UTF-8"),
        (GOOD + b"{}", "extra data"),
        (b"[" * 500_000, "nested deeper than 16"),
        (b'{"a":' * 100_000, "nested deeper than 16"),
        (b'["' + b'\\"' * 200_000, "invalid control character|unterminated"),
        (b" " * (LIMIT + 1), "bytes long, at most"),
        (b"[]", "expected an object, found an array"),
        (b"null", "expected an object, found null"),
        (swap('"schema": 1', '"schema": 2, "new": {}'), "schema 2 is unknown, this edgedr reads 1"),
        (swap('"schema": 1', '"schema": true'), "at schema: expected a whole number, found true or false"),
        (swap('"schema": 1,', ""), ""),
        (swap('"sequence": 97', '"sequence": -97'), "at sequence: -97 is out of range"),
        (swap('"sequence": 97', '"sequence": 97.0'), "at sequence: expected a whole number, found a fraction"),
        (swap('"sequence": 97', '"sequence": 1e2'), "at sequence: expected a whole number, found a fraction"),
        (swap('"sequence": 97', '"sequence": "97"'), "at sequence: expected a whole number, found a string"),
        (swap('"sequence": 97', '"sequence": NaN'), "NaN is not a JSON number"),
        (swap('"sequence": 97', '"sequence": -Infinity'), "-Infinity is not a JSON number"),
        (swap('"sequence": 97', '"sequence": 9223372036854775808'), "at sequence: 9223372036854775808 is out of range"),
        (swap('"sequence": 97', '"sequence": ' + "9" * 10_000), "a number of 10000 digits"),
        (swap('"sequence": 97', '"sequence": 97, "sequence": 97'), "key 'sequence' appears twice"),
        (swap('"keys": 7008', '"keys": 1, "keys": 7008'), "key 'keys' appears twice"),
        (swap('"sequence": 97,', ""), "sequence is missing"),
        (swap('"sequence": 97', '"sequence": 97, "sequel": 98'), "unknown key 'sequel'"),
        (swap('"size": 4', '"size": -4'), r"at artifacts\[0\].segments\[0\].size: -4 is out of range"),
        (swap('"keys": 7008', '"keys": false'), "at sources.etcd.counts.keys: expected a whole number"),
        (swap('"keys": 7008', '"k\\u001b[2J": -1'), r"at sources.etcd.counts.\['k\\x1b\[2J'\]: -1"),
        (swap('"kind": "full"', '"kind": "fool"'), "'fool' is not one of full, delta"),
        (swap('"kind": "full"', '"kind": {}'), "an object is not one of full, delta"),
        (swap('"proof": 1', '"proof": true'), "at proof: True is not one of 0, 1, 2"),
        (swap('"proof": 1', '"proof": 7'), "at proof: 7 is not one of 0, 1, 2"),
        (swap('"proof": 1', '"proof": "1"'), "at proof: '1' is not one of 0, 1, 2"),
        (swap("-1f2e3d4c", "-1F2E3D4C"), "is not a backup id"),
        (swap("20261122T", "20261322T"), "is not a backup id"),
        (swap("22:15:00Z", "22:15:00+00:00"), "at created: .* is not a time like"),
        (swap("22:15:00Z", "22:65:00Z"), "at created: .* is not a time like"),
        (swap('"hall-7"', '"\\ud800"'), "at site: a lone surrogate"),
        (swap('"hall-7"', "null"), "at site: expected a string, found null"),
        (swap('"hall-7"', '"' + "x" * (MAX_STRING + 1) + '"'), "at site: a string of"),
        (swap('"reasons": [', '"reasons": [1, '), r"at reasons\[0\]: expected a string, found a number"),
    ],
)
def test_hostile_manifests_are_refused_by_name(data: bytes, message: str) -> None:
    """Each is told with the record, the place and the reason, before it can do harm."""
    with pytest.raises(Damaged, match=message or ".") as caught:
        manifest(data)
    assert str(caught.value).startswith("manifest.json is not valid")
    assert len(str(caught.value)) < 300
    assert caught.value.hint


def test_a_newer_schema_asks_for_a_newer_edgedr() -> None:
    """A record of tomorrow is not called damaged for its unknown keys, but told apart."""
    with pytest.raises(Damaged) as caught:
        manifest(b'{"schema": 2, "everything": "new"}')
    assert caught.value.hint == "a newer edgedr is needed to read it"


@dataclass(frozen=True)
class _Outer:
    at: datetime
    inner: "tuple[_Inner, ...]" = ()


@dataclass(frozen=True)
class _Inner:
    schema: int = 1
    names: dict[str, str] = field(default_factory=dict)


def test_other_records_use_the_same_rules() -> None:
    """State files with nested records, times in other zones and fractions of seconds work too."""
    noon = datetime(2026, 1, 1, 13, 0, 0, 500, tzinfo=timezone(timedelta(hours=1)))
    record = _Outer(noon, (_Inner(names={"b": "1", "a": "2"}),))
    data = encode(record)
    assert b'"2026-01-01T12:00:00.000500Z"' in data
    assert decode(_Outer, data, what="state.json", max_bytes=LIMIT) == record
    with pytest.raises(Damaged, match="schema 1 is unknown, this edgedr reads 3"):
        decode(_Inner, encode(_Inner()), what="state.json", max_bytes=LIMIT, schema=3)
    with pytest.raises(TypeError):
        encode({"a": object()})
