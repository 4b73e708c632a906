"""Faults 6, 7, 8 and 12 between a storage and a real S3 server: a way that breaks loses, doubles and forges nothing."""

import hashlib
import io
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edgedr.errors import Damaged, ObjectExists, Unreachable
from edgedr.repository.repository import Repository
from edgedr.repository.sending import Forgetful
from edgedr.repository.sending import send as ship
from edgedr.storage.pacing import Patience
from edgedr.storage.s3 import S3Storage
from tests.lab import proxy as tcp
from tests.lab.fake_source import SEGMENT, Lab, bytes_of
from tests.lab.s3faults import (
    Answer,
    Fault,
    always,
    either,
    first,
    http_date,
    internal_error,
    nth,
    s3_error,
    slow_down,
    too_many,
)
from tests.lab.s3proxy import S3Proxy
from tests.lab.s3road import PATIENCE, Junction, Road, by_way_of, node_road, waits
from tests.lab.s3servers import Ceph
from tests.storage_contract import get, names, put, send
from tests.test_storage_s3 import A, B, contents, overwrite

DATA = bytes_of(1, 300_000)


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits of the clients."""
    return waits(monkeypatch)


ACTS: dict[str, Callable[[S3Storage], object]] = {
    "put": lambda storage: send(storage, B, DATA),
    "replace": lambda storage: storage.replace(B, DATA),
    "get": lambda storage: get(storage, A),
    "list": names,
    "list below": lambda storage: names(storage, "v1/full"),
    "delete": lambda storage: storage.delete(A),
    "others": lambda storage: contents(storage, A),
}
PAGE = {"Content-Type": "text/html"}
BUSY = {
    "500": internal_error(),
    "502": Fault(answer=Answer(502, PAGE, b"<html><hr>nginx<br></html>")),
    "503": slow_down(),
    "429": too_many(3),
    "cut in words": s3_error(400, "RequestTimeout"),
}


@pytest.mark.parametrize("fault", BUSY)
@pytest.mark.parametrize("act", ACTS)
def test_a_busy_server_is_asked_again(road: Road, slept: list[float], act: str, fault: str) -> None:
    """After 500, 502, 503 and 429 the same request is made again, later each time, and as late as the server asks."""
    send(road.past, A, DATA)
    road.breaks(first(2, BUSY[fault], method="PUT" if act in {"put", "replace"} else None))
    ACTS[act](road.storage)
    assert len(slept) == 2
    for wait, longest in zip(slept, (1.0, 2.0), strict=True):
        least = 3.0 if fault == "429" else longest / 2
        assert least <= wait <= (3.0 + longest / 2 if fault == "429" else longest)
    stored = {"put": [A, B], "replace": [A, B], "delete": []}
    assert names(road.past) == stored.get(act, [A])
    assert all(get(road.past, name) == DATA for name in names(road.past))


@pytest.mark.parametrize("act", ACTS)
def test_a_server_that_stays_busy_is_left_alone(road: Road, slept: list[float], act: str) -> None:
    """There is an end to asking again; what comes out may do better later by itself."""
    road.breaks(always(slow_down()))
    with pytest.raises(Unreachable, match=r"SlowDown|status 503") as caught:
        ACTS[act](road.storage)
    assert caught.value.hint
    assert len(slept) == PATIENCE.attempts - 1
    assert len(road.proxy.requests) == PATIENCE.attempts


def test_how_long_the_server_asks_to_wait(road: Road, slept: list[float]) -> None:
    """Retry-After may be a date; one of an hour is cut to the longest wait that there is."""
    when = datetime.now(UTC) + timedelta(seconds=7)
    dated = s3_error(503, "SlowDown", Retry_After=http_date(when))
    road.breaks(either(nth(1, dated), nth(2, too_many(3600)), nth(3, s3_error(429, "x", Retry_After="soon"))))
    assert names(road.storage) == []
    assert slept[0] <= 7.5
    assert 8.0 <= slept[1] <= 9.0
    assert 2.0 <= slept[2] <= 4.0


@pytest.mark.parametrize(
    ("fault", "sent"),
    [(Fault(reset_after=0), 2), (Fault(reset_after=100_000), 2), (Fault(lose_reply=True), 1)],
    ids=["before the body", "within the body", "reply lost"],
)
def test_a_put_breaks_off(road: Road, fault: Fault, sent: int) -> None:
    """A put that was cut off is made again; one whose reply was lost is found, and not sent twice. One object."""
    road.breaks(first(1, fault, method="PUT"))
    seen: list[int] = []
    assert road.storage.put(B, io.BytesIO(DATA), len(DATA), hashlib.sha256(DATA).hexdigest(), progress=seen.append)
    assert [(each.name, each.size) for each in road.past.list()] == [(B, len(DATA))]
    assert get(road.past, B) == DATA
    assert len(road.seen("PUT")) == sent
    assert sum(seen) == len(DATA)


@pytest.mark.parametrize("locked", [False, True])
def test_a_node_that_cannot_look_takes_its_own_for_its_own(crossing: Junction, ceph: Ceph, locked: bool) -> None:
    """Reply lost, and no right to look: what was sent once may be there, and is. Each version of it is ours."""
    road = node_road(crossing.proxy, ceph, locked=locked)
    road.breaks(first(1, Fault(lose_reply=True), method="PUT"))
    assert send(road.storage, A, DATA)
    road.breaks(lambda _: None)
    assert send(road.storage, B, DATA)
    assert [each.method for each in road.proxy.requests] == ["PUT"]  # who may not look is not asked to, again
    versions = road.past.client.call("list_object_versions", A, Prefix=f"edge/{A}")["Versions"]
    assert len(versions) == (2 if locked else 1)
    for each in versions:
        got = road.past.client.call("get_object", A, Key=each["Key"], VersionId=each["VersionId"])
        assert got["Body"].read() == DATA


def meanwhile(past: S3Storage, **more: Any) -> Fault:
    """Somebody else stores something of that name while our request is on its way."""
    return Fault(before=lambda: put(past, B, b"a stranger's"), **more)


@pytest.mark.parametrize("reset", [None, 0])
def test_what_somebody_else_stored_meanwhile_stays(road: Road, reset: int | None) -> None:
    """Whether our put got through to the server or not: the other content is reported, and never overwritten."""
    road.breaks(first(1, meanwhile(road.past, reset_after=reset), method="PUT"))
    with pytest.raises(ObjectExists, match=B):
        send(road.storage, B, DATA)
    assert get(road.past, B) == b"a stranger's"


STALLS = {
    "asked": ("get", Fault(stall=True)),
    "sent": ("put", Fault(stall=True)),
    "answering": ("get", Fault(stall_after=0)),
    "within the answer": ("get", Fault(stall_after=1000)),
}


@pytest.mark.parametrize("stall", STALLS)
def test_a_stall_ends(road: Road, ceph: Ceph, stall: str) -> None:
    """What is silent for as long as `timeout` is unreachable; the same storage goes on once it speaks again."""
    act, fault = STALLS[stall]
    send(road.past, A, DATA)
    with S3Proxy(ceph.endpoint, ceph.ca, first(1, fault, method=act.upper())) as proxy:
        there = by_way_of(proxy, road.past.client.options, timeout=timedelta(seconds=0.5))
        storage = S3Storage(replace(there, prefix=road.past._options.prefix), patience=Patience(attempts=1))
        with pytest.raises(Unreachable, match=r"(?i)timed? ?out") as caught:
            ACTS[act](storage)
        assert caught.value.hint
        assert proxy.stalled.is_set()
        proxy.release()
        storage.client._patience = PATIENCE
        ACTS[act](storage)
    assert get(road.past, B if act == "put" else A) == DATA


@pytest.mark.parametrize("fault", [tcp.Fault(cut_after=0), tcp.Fault(black_hole=True), tcp.Fault(cut_after=900)])
def test_a_handshake_that_breaks_is_no_bad_certificate(road: Road, ceph: Ceph, fault: tcp.Fault) -> None:
    """A connection that ends or stalls before TLS is up says nothing of certificates: it is unreachable."""
    with tcp.FaultProxy(ceph.endpoint, fault) as broken:
        there = replace(road.past._options, endpoint=broken.url, timeout=timedelta(seconds=0.3))
        storage = S3Storage(there, patience=Patience(attempts=1))
        for act in ("put", "get", "list"):
            with pytest.raises(Unreachable):
                ACTS[act](storage)


@pytest.mark.parametrize("times", [1, 5])
def test_a_download_goes_on_where_it_broke(road: Road, times: int) -> None:
    """Each further request asks for what is missing, of the same object, and nothing comes twice."""
    send(road.past, A, DATA)
    road.breaks(first(times, Fault(truncate=50_000), method="GET"))
    assert get(road.storage, A) == DATA
    asked = [each.headers.get("range") for each in road.seen("GET")]
    assert asked == [None, *(f"bytes={50_000 * number}-" for number in range(1, times + 1))]
    assert [each.status for each in road.seen("GET")] == [200, *[206] * times]
    assert all("if-match" in each.headers for each in road.seen("GET")[1:])


def test_a_download_of_what_changed_begins_anew(road: Road) -> None:
    """Two halves of two objects never make one."""
    send(road.past, A, DATA)
    road.breaks(
        first(1, Fault(truncate=50_000, after=lambda: overwrite(road.past, A, b"another" * 20_000)), method="GET")
    )
    assert get(road.storage, A) == b"another" * 20_000
    road.breaks(first(1, Fault(truncate=50_000, after=lambda: overwrite(road.past, A, b"short")), method="GET"))
    assert get(road.storage, A) == b"short"


def test_a_server_that_knows_no_ranges_sends_it_whole(road: Road) -> None:
    """What is sent from the beginning is not appended to what is there."""
    send(road.past, A, DATA)
    whole = Fault(answer=Answer(200, {"ETag": '"x"'}, DATA))
    road.breaks(either(nth(1, Fault(truncate=50_000), method="GET"), nth(2, whole, method="GET")))
    assert get(road.storage, A) == DATA


SEGMENTS = tuple(f"etcd.db.{number:03d}.zst.age" for number in range(3))


@pytest.fixture
def shipped(road: Road, tmp_path: Path) -> Lab:
    """A backup of three segments of a database, there and here."""
    lab = Lab(tmp_path)
    place = lab.get(lab.back_up(bytes_of(7, 2 * SEGMENT + 5000)).manifest.id).place
    ship(lab.repository, place, road.past, Forgetful())
    return lab


def read(road: Road, lab: Lab) -> Repository:
    """Read every segment of the backup, hashed, from the bucket; return what read it."""
    there = Repository(road.storage, site=lab.site, node=lab.node)
    (backup,) = there.list()
    assert backup.manifest is not None
    for artifact in backup.manifest.artifacts:
        for segment in artifact.segments:
            with there.open(backup.place, segment) as file, lab.repository.open(backup.place, segment) as here:
                assert file.read() == here.read()
    return there


SPOILT = {
    "corrupted": Fault(corrupt=20),
    "corrupted at its end": Fault(corrupt=-20),
    "short": Fault(answer=Answer(200, {"ETag": '"x"'}, b"short")),
    "empty": Fault(answer=Answer(200, {"ETag": '"x"'}, b"")),
}


@pytest.mark.parametrize("fault", SPOILT)
@pytest.mark.parametrize("name", [SEGMENTS[1], "manifest.json", "manifest.json.sig"])
def test_what_is_spoilt_once_is_read_once_more(road: Road, shipped: Lab, name: str, fault: str) -> None:
    """A download that is not what is signed for is made once again; that it was needed is remembered."""
    road.breaks(first(1, SPOILT[fault], method="GET", matching=f"{name}$"))
    there = read(road, shipped)
    assert there.check(*there_is(there)) == ()
    assert [stray.rpartition("/")[2] for stray in there.strays] == [name]


def there_is(repository: Repository) -> Any:
    (backup,) = repository.list()
    return backup.place, repository.signed_manifest(backup.place)[0]


@pytest.mark.parametrize("fault", SPOILT)
def test_what_is_spoilt_for_good_is_damaged_and_named(road: Road, shipped: Lab, fault: str) -> None:
    """Twice is damage: object and backup are named, and nothing of it is handed on."""
    road.breaks(always(SPOILT[fault], method="GET", matching=f"{SEGMENTS[1]}$"))
    with pytest.raises(Damaged, match=f"{SEGMENTS[1]} of {shipped.ids()[0]}"):
        read(road, shipped)
    assert len(road.seen("GET", SEGMENTS[1])) == 2
    there = Repository(road.storage, site=shipped.site, node=shipped.node)
    (problem,) = there.check(*there_is(there))
    assert SEGMENTS[1] in problem


@pytest.mark.parametrize("fault", [Fault(truncate=0), Fault(reset_after=0), slow_down()])
def test_what_cannot_be_read_is_not_damaged(road: Road, shipped: Lab, fault: Fault) -> None:
    """Unknown is not damaged: where the way breaks again and again, that is what is said, and nothing is listed bad."""
    road.breaks(always(fault, method="GET", matching=f"({SEGMENTS[1]}|manifest.json)$"))
    there = Repository(road.storage, site=shipped.site, node=shipped.node)
    with pytest.raises(Unreachable, match=r"manifest\.json"):
        there.list()
    place, manifest = there_is(Repository(road.past, site=shipped.site, node=shipped.node))
    with pytest.raises(Unreachable, match=SEGMENTS[1]):
        there.check(place, manifest)


def test_only_the_segment_that_broke_is_sent_again(road: Road, tmp_path: Path) -> None:
    """A cut in the middle of one segment costs that segment; the manifest still comes last."""
    lab = Lab(tmp_path)
    place = lab.get(lab.back_up(bytes_of(7, 2 * SEGMENT + 5000)).manifest.id).place
    road.breaks(first(1, Fault(reset_after=20_000), method="PUT", matching=SEGMENTS[1]))
    ship(lab.repository, place, road.storage, Forgetful(), at_once=2)
    sent = [each.path.rpartition("/")[2] for each in road.seen("PUT")]
    assert sorted(sent) == sorted(
        [*SEGMENTS, SEGMENTS[1], "node.tar.000.zst.age", "manifest.json", "manifest.json.sig"]
    )
    assert sent[-2:] == ["manifest.json.sig", "manifest.json"]


def test_no_more_at_once_than_is_allowed(road: Road, tmp_path: Path) -> None:
    """However many segments there are and however slow the server: `at_once` requests are under way, no more."""
    lab = Lab(tmp_path)
    place = lab.get(lab.back_up(bytes_of(7, 5 * SEGMENT)).manifest.id).place
    under_way, most, lock = 0, 0, threading.Lock()

    def count(by: int) -> None:
        nonlocal under_way, most
        with lock:
            under_way += by
            most = max(most, under_way)

    slow = Fault(before=lambda: count(1), delay=timedelta(seconds=0.05), after=lambda: count(-1))
    road.breaks(always(slow))
    ship(lab.repository, place, road.storage, Forgetful(), at_once=3)
    assert most == 3
