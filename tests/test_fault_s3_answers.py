"""Faults 9 to 11: what a server, or somebody in its place, says instead of yes is named, and never taken for a yes."""

import gc
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import botocore.auth  # type: ignore[import-untyped,unused-ignore]
import pytest

from edgedr.errors import ObjectExists, Refused, StorageError, Unreachable
from edgedr.storage import s3_trouble
from edgedr.storage.s3 import S3Storage
from edgedr.storage.s3_trouble import BadCredential
from tests.lab.s3faults import (
    Answer,
    Fault,
    always,
    first,
    moved,
    portal,
    portal_page,
    s3_error,
    skewed,
)
from tests.lab.s3road import EAGER, PATIENCE, Junction, Road, by_way_of, node_road, waits
from tests.lab.s3servers import Ceph, Rclone
from tests.storage_contract import get, names, put, send
from tests.test_fault_s3 import ACTS, DATA
from tests.test_storage_s3 import A, B


@pytest.fixture
def road(crossing: Junction) -> Iterator[Road]:
    with crossing.road() as made:
        send(made.past, A, DATA)
        yield made


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits of the clients."""
    return waits(monkeypatch)


@pytest.mark.parametrize("act", ACTS)
def test_a_wrong_clock_is_named_with_its_error(road: Road, slept: list[float], act: str) -> None:
    """RequestTimeTooSkewed says by how much, and which way, the clocks differ; nobody asks again for that."""
    road.breaks(always(skewed(timedelta(hours=1))))
    with pytest.raises(Refused, match=r"this clock is (3599|3600) s behind the server's") as caught:
        ACTS[act](road.storage)
    assert "RequestTimeTooSkewed" in caught.value.message
    assert "clock" in (caught.value.hint or "")
    assert slept == []
    assert round(road.storage.clock_offset or 0, -1) == -3600
    road.breaks(lambda _: None)
    ACTS[act](road.storage)


def test_a_real_server_refuses_a_wrong_clock(road: Road, slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with nobody's help: this machine's clock is an hour ahead, and Ceph says so."""
    ahead = timedelta(hours=1)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_: datetime.now(UTC) + ahead)
    monkeypatch.setattr(s3_trouble, "time", SimpleNamespace(time=lambda: time.time() + ahead.total_seconds()))
    for act in ACTS.values():
        with pytest.raises(Refused, match=r"too much \(RequestTimeTooSkewed\): this clock is 36\d\d s ahead of the"):
            act(road.past)
    assert slept == []
    monkeypatch.undo()
    assert names(road.past) == [A]


def test_the_clock_is_compared_with_every_answer(road: Road) -> None:
    """Also where nothing is wrong: the offset is known before it is too large."""
    road.proxy.set_date = timedelta(seconds=-90)
    send(road.storage, B, DATA)
    road.proxy.set_date = timedelta(0)
    assert round(road.storage.clock_offset or 0, -1) == 90
    names(road.storage)
    assert round(road.storage.clock_offset or 0, -1) == 0


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"])
@pytest.mark.parametrize("act", ACTS)
def test_a_credential_that_does_not_count_is_not_tried_again(
    road: Road, slept: list[float], act: str, code: str
) -> None:
    """Somebody must mend that: one answer is enough, and is said; it works again as soon as it is mended."""
    road.breaks(always(s3_error(403, code)))
    with pytest.raises(Refused, match=code) as caught:
        ACTS[act](road.storage)
    assert caught.value.hint
    assert isinstance(caught.value, BadCredential) == (code != "AccessDenied")
    assert slept == []
    assert len(road.proxy.requests) <= 2
    road.breaks(lambda _: None)
    ACTS[act](road.storage)


@pytest.mark.parametrize("act", ACTS)
def test_a_bucket_that_is_gone_is_neither_empty_nor_missing_an_object(road: Road, slept: list[float], act: str) -> None:
    """A real server without the bucket: it is said, with what to look at, and not asked again."""
    gone = S3Storage(replace(road.past._options, bucket="lab-gone"), patience=PATIENCE)
    with pytest.raises(Refused, match="NoSuchBucket") as caught:
        ACTS[act](gone)
    assert "the bucket is gone" in (caught.value.hint or "")
    assert slept == []


ELSEWHERE = {
    "301 of S3": moved("eu-north-1"),
    "301": Fault(answer=Answer(301, {"Location": "https://127.0.0.1:1/x"})),
    "302 of a portal": portal(),
    "307": Fault(answer=Answer(307, {"Location": "http://127.0.0.1:1/x"}, b"<html></html>")),
    "308": Fault(answer=Answer(308, {"Location": "/login"})),
    "200 and a page": portal_page(),
    "200 and XHTML": Fault(answer=Answer(200, {"Content-Type": "text/html"}, b"<html><body>Log in</body></html>")),
    "200 and nothing": Fault(answer=Answer(200)),
    "200 and JSON": Fault(answer=Answer(200, {"Content-Type": "application/json"}, b'{"login": "here"}')),
    "204": Fault(answer=Answer(204)),
    "304": Fault(answer=Answer(304)),
    "511": Fault(answer=Answer(511, {"Content-Type": "text/html"}, b"<html>Network Authentication Required</html>")),
}


@pytest.mark.parametrize(
    ("act", "fault"), [(act, fault) for act in ACTS for fault in ELSEWHERE if (act, fault) != ("delete", "204")]
)
def test_an_answer_from_elsewhere_is_no_success(road: Road, act: str, fault: str) -> None:
    """A redirect or a portal's page: not stored, not read, not empty, not gone, not deleted; and nobody follows it.

    204 to a deletion is left out: it is what a server says, too.
    """
    road.breaks(always(ELSEWHERE[fault]))
    with pytest.raises(StorageError) as caught:
        ACTS[act](road.storage)
    assert isinstance(caught.value, Unreachable | Refused), repr(caught.value)
    assert isinstance(caught.value, Unreachable) or fault == "301 of S3", repr(caught.value)
    assert caught.value.hint
    assert {each.path.split("/")[1] for each in road.proxy.requests} == {road.past._options.bucket}
    assert names(road.past) == [A]
    road.breaks(lambda _: None)
    ACTS[act](road.storage)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_redirect_that_boto3_stumbles_over_is_none_either(road: Road) -> None:
    """303 is one that urllib3 means to follow, and fails to, losing its connection: not stored, and nobody followed."""
    road.breaks(always(Fault(answer=Answer(303, {"Location": "http://portal.invalid/"}))))
    for act in ACTS.values():
        with pytest.raises(Unreachable):
            act(road.storage)
    gc.collect()
    assert names(road.past) == [A]


@pytest.mark.parametrize("fault", ELSEWHERE)
def test_a_portal_does_not_make_a_storage_blind(road: Road, fault: str) -> None:
    """Who may look goes on looking once the portal is gone: somebody else's object is never taken for ours."""
    put(road.past, B, b"a stranger's")
    road.breaks(first(1, ELSEWHERE[fault], method="HEAD"))
    with pytest.raises((ObjectExists, Refused)):
        send(road.storage, B, DATA)
    road.breaks(lambda _: None)
    with pytest.raises(ObjectExists):
        send(road.storage, B, DATA, again=True)
    assert get(road.past, B) == b"a stranger's"


def test_an_attempt_that_was_refused_never_got_through(ceph: Ceph, crossing: Junction) -> None:
    """A node that may not look takes nothing for its own that it cannot have sent: its first try was refused."""
    road = node_road(crossing.proxy, ceph, locked=False)
    admin = crossing.direct
    admin._connected().put_object(Bucket=road.storage._options.bucket, Key=f"edge/{B}", Body=b"a stranger's")
    credential = road.storage._options.credential
    assert credential is not None
    right = credential.read().reveal().decode()
    file = Path(credential.place)
    file.write_text(f"{right.split(':')[0]}:wrong")
    road.breaks(first(1, Fault(after=lambda: file.write_text(right)), method="PUT"))
    with pytest.raises(ObjectExists):
        send(road.storage, B, DATA)
    assert len(road.seen("PUT")) == 2


@pytest.mark.parametrize("act", ACTS)
def test_somebody_elses_certificate_is_refused(road: Road, rclone: Rclone, act: str) -> None:
    """TLS with another authority's certificate: nothing is sent, nobody asks again, and there is no way without it."""
    storage = S3Storage(by_way_of(road.proxy, road.past._options), patience=EAGER)
    storage = S3Storage(replace(storage._options, ca=rclone.ca), patience=EAGER)
    with pytest.raises(Refused, match="certificate is not to be trusted"):
        ACTS[act](storage)
    assert road.proxy.requests == []
