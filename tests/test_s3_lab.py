"""The S3 servers and the proxy of the lab are what other tests take them for."""

import base64
import hashlib
import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import (  # type: ignore[import-untyped,unused-ignore]
    ClientError,
    ConnectionClosedError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)

from tests.lab.s3faults import (
    Fault,
    Faults,
    always,
    either,
    expired_token,
    first,
    internal_error,
    killing,
    moved,
    nth,
    portal,
    portal_page,
    skewed,
    slow_down,
    too_many,
)
from tests.lab.s3proxy import S3Proxy
from tests.lab.s3servers import Ceph, Moto, Rclone, S3Server, client

NO_ANSWER = (ConnectionClosedError, SSLError)  # the latter for a reset while TLS was writing
BODY = bytes(range(256)) * 1200  # more than any buffer on the way


def code(call: Callable[[], object]) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    return str(caught.value.response["Error"]["Code"])


@pytest.mark.parametrize("kind", ["moto", "rclone", "ceph"])
def test_each_server_stores_gives_and_lists_over_tls(kind: str, request: pytest.FixtureRequest) -> None:
    """Each works with the client's settings, keeps strangers out, and says whether it keeps versions."""
    server: S3Server = request.getfixturevalue(kind)
    bucket, s3 = server.bucket(versioned=server.versions), server.client()
    for body in (BODY, b"new"):
        s3.put_object(Bucket=bucket, Key="a/b c+%ü", Body=body)
    assert s3.get_object(Bucket=bucket, Key="a/b c+%ü")["Body"].read() == b"new"
    assert [each["Key"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["a/b c+%ü"]
    if server.versions:
        assert len(s3.list_object_versions(Bucket=bucket)["Versions"]) == 2
    assert code(lambda: server.client(secret_key="wrong").list_objects_v2(Bucket=bucket)) == "SignatureDoesNotMatch"
    with pytest.raises(AssertionError, match="keeps no versions"):
        Rclone().bucket(locked=True)


def test_ceph_writes_only_where_nothing_is(ceph: Ceph) -> None:
    """If-None-Match is honoured on a plain bucket."""
    bucket, s3 = ceph.bucket(), ceph.client()
    s3.put_object(Bucket=bucket, Key="k", Body=b"old", IfNoneMatch="*")
    assert code(lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"new", IfNoneMatch="*")) == "PreconditionFailed"
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"old"


def test_ceph_keeps_what_is_locked(ceph: Ceph) -> None:
    """A version under COMPLIANCE cannot be deleted, and its term not shortened, not even by the administrator."""
    bucket, s3 = ceph.bucket(locked=True), ceph.client()
    until = datetime.now(UTC) + timedelta(days=1)
    lock = {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": until}
    checksum = base64.b64encode(hashlib.sha256(b"kept").digest()).decode()  # to have it computed is to have it trail
    s3.put_object(Bucket=bucket, Key="k", Body=b"kept", ChecksumSHA256=checksum, **lock)
    version = s3.list_object_versions(Bucket=bucket)["Versions"][0]["VersionId"]
    assert code(lambda: s3.delete_object(Bucket=bucket, Key="k", VersionId=version)) == "AccessDenied"
    shorter = {"Mode": "COMPLIANCE", "RetainUntilDate": until - timedelta(hours=1)}
    put = s3.put_object_retention
    assert code(lambda: put(Bucket=bucket, Key="k", VersionId=version, Retention=shorter)) == "AccessDenied"
    s3.delete_object(Bucket=bucket, Key="k")
    assert s3.get_object(Bucket=bucket, Key="k", VersionId=version)["Body"].read() == b"kept"


def test_a_further_user_of_ceph_sees_nothing_of_the_administrators(ceph: Ceph) -> None:
    """Users are apart until a bucket's policy says otherwise."""
    bucket, other = ceph.bucket(), ceph.client(*ceph.user("lab-other"))
    assert code(lambda: other.list_objects_v2(Bucket=bucket)) == "AccessDenied"


def test_rclone_takes_the_condition_and_overwrites(rclone: Rclone) -> None:
    """The weak server ignores If-None-Match."""
    bucket, s3 = rclone.bucket(), rclone.client()
    for body in (b"old", b"new"):
        s3.put_object(Bucket=bucket, Key="k", Body=body, IfNoneMatch="*")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"new"


def test_a_server_ends_with_a_process_that_is_killed() -> None:
    """Nothing keeps running after kill -9 of a test's process."""
    text = (
        "from tests.lab.s3servers import Rclone, started; s = started(Rclone); print(s.port, s.directory, flush=True)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", f"{text}; input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )
    with child:
        assert child.stdout is not None
        port, directory = child.stdout.readline().decode().split()
        os.kill(child.pid, signal.SIGKILL)
    shutil.rmtree(directory)
    for _ in range(1000):
        try:
            socket.create_connection(("127.0.0.1", int(port)), timeout=5).close()
        except ConnectionRefusedError:
            return
        except OSError:
            pass  # caught as it ended
        time.sleep(0.01)
    pytest.fail("it goes on")


class Through:
    """A client of a proxy to moto, and another that goes past the proxy."""

    def __init__(self, proxy: S3Proxy, server: S3Server) -> None:
        self.proxy = proxy
        self.s3 = client(proxy.endpoint, proxy.ca, server.access_key, server.secret_key, attempts=1)
        self.bucket = server.bucket()
        self.past = server.client()
        self.past.put_object(Bucket=self.bucket, Key="there", Body=BODY)

    def put(self, key: str = "new") -> Any:
        return self.s3.put_object(Bucket=self.bucket, Key=key, Body=BODY)

    def get(self) -> bytes:
        return bytes(self.s3.get_object(Bucket=self.bucket, Key="there")["Body"].read())

    @contextmanager
    def raw(self) -> Iterator[http.client.HTTPSConnection]:
        """A connection to the proxy, to say on it what one likes."""
        context = ssl.create_default_context(cafile=str(self.proxy.ca))
        connection = http.client.HTTPSConnection(urlsplit(self.proxy.endpoint).netloc, timeout=60, context=context)
        with closing(connection):
            yield connection

    def stored(self) -> list[str]:
        """What the server really has."""
        return [each["Key"] for each in self.past.list_objects_v2(Bucket=self.bucket)["Contents"]]


@contextmanager
def through(server: S3Server, faults: Faults = lambda _: None) -> Iterator[Through]:
    with S3Proxy(server.endpoint, server.ca, faults) as proxy:
        made = Through(proxy, server)
        yield made
        made.s3.close()


@pytest.mark.parametrize("kind", ["moto", "rclone", "ceph"])
def test_the_proxy_is_not_noticed_without_a_fault(kind: str, request: pytest.FixtureRequest) -> None:
    """Signatures stay valid on each server; what passed is written down."""
    with through(request.getfixturevalue(kind)) as at:
        at.put("a/b c+%ü")
        assert at.get() == BODY
        assert at.s3.head_object(Bucket=at.bucket, Key="there")["ContentLength"] == len(BODY)
        assert at.s3.list_objects_v2(Bucket=at.bucket, Prefix="a/")["KeyCount"] == 1
        at.s3.delete_object(Bucket=at.bucket, Key="there")
        assert at.stored() == ["a/b c+%ü"]
        put, get, head, listed, deleted = at.proxy.requests
    assert (put.method, put.path, put.size, put.status) == ("PUT", f"/{at.bucket}/a/b c+%ü", len(BODY), 200)
    assert [each.method for each in (get, head, listed, deleted)] == ["GET", "HEAD", "GET", "DELETE"]
    assert listed.query["prefix"] == "a/"
    assert put.headers["authorization"].startswith("AWS4-HMAC-SHA256")
    assert all(each.finished and each.upstream == each.status for each in at.proxy.requests)


def test_a_connection_serves_many_requests(ceph: Ceph) -> None:
    """Keep-alive works, also after an answer that the script made up."""
    with through(ceph, nth(2, slow_down())) as at, at.raw() as connection:
        target = at.s3.generate_presigned_url("put_object", {"Bucket": at.bucket, "Key": "k"})
        said = []
        for _ in range(3):
            connection.request("PUT", target.removeprefix(at.proxy.endpoint), body=BODY)
            held, answer = connection.sock, connection.getresponse()
            answer.read()
            said.append((answer.status, held is connection.sock))
    assert said == [(200, True), (503, True), (200, True)]


@pytest.mark.parametrize(
    ("fault", "status", "expected"),
    [
        (slow_down(), 503, "SlowDown"),
        (internal_error(), 500, "InternalError"),
        (too_many(7), 429, "TooManyRequests"),
        (skewed(timedelta(hours=1)), 403, "RequestTimeTooSkewed"),
        (expired_token(), 403, "ExpiredToken"),
        (moved("elsewhere"), 301, "PermanentRedirect"),
    ],
)
def test_an_answer_of_the_script_never_asks_the_server(moto: Moto, fault: Fault, status: int, expected: str) -> None:
    """The client hears the status and the code of S3's error; the server hears nothing."""
    with through(moto, always(fault)) as at:
        with pytest.raises(ClientError) as caught:
            at.put()
        assert at.stored() == ["there"]
    response = caught.value.response
    assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == (expected, status)
    seen = at.proxy.requests[0]
    assert (seen.status, seen.upstream) == (status, None)
    headers = response["ResponseMetadata"]["HTTPHeaders"]
    if expected == "RequestTimeTooSkewed":
        assert parsedate_to_datetime(headers["date"]) > datetime.now(UTC) + timedelta(minutes=50)
    assert headers.get("retry-after") == ("7" if status == 429 else None)


def test_a_portal_answers_for_the_server(moto: Moto) -> None:
    """A page with 200, or a redirect."""
    with through(moto, either(nth(1, portal_page()), nth(2, portal()))) as at, at.raw() as connection:
        assert b"Welcome" in at.get()
        connection.request("GET", "/")  # what botocore makes of a redirect is not asked here
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Location"]) == (302, "http://portal.invalid/login")


def test_a_reset_is_a_reset_and_a_lost_reply_an_end(moto: Moto) -> None:
    """The two differ below TLS, where Python's does not tell."""
    ends = []
    for fault in (Fault(reset_after=0), Fault(lose_reply=True)):
        with through(moto, always(fault)) as at, at.raw() as connection:
            connection.request("GET", "/")
            with suppress(ConnectionResetError):
                while socket.socket.recv(connection.sock, 1 << 16):
                    pass
                ends.append(fault)
    assert ends == [Fault(lose_reply=True)]


@pytest.mark.parametrize(
    ("fault", "stored"),
    [
        (Fault(reset_after=0), False),
        (Fault(reset_after=100_000), False),
        (Fault(lose_reply=True), True),
    ],
)
def test_a_put_breaks_off(moto: Moto, fault: Fault, stored: bool) -> None:
    """Before its body, within it, or with the object stored and nobody told."""
    with through(moto, first(1, fault, method="PUT", matching="/new$")) as at:
        with pytest.raises(NO_ANSWER):
            at.put()
        assert ("new" in at.stored()) is stored
        assert at.proxy.requests[0].status is None
        at.put()
        assert "new" in at.stored()


def test_an_answer_comes_short_or_other_than_sent(moto: Moto) -> None:
    """A body that ends early, and one with another byte; the third is whole."""
    script = either(nth(1, Fault(truncate=100_000), method="GET"), nth(2, Fault(corrupt=5), method="GET"))
    with through(moto, script) as at:
        with pytest.raises(ResponseStreamingError, match="100000 bytes read"):
            at.get()
        assert [number for number, (a, b) in enumerate(zip(at.get(), BODY, strict=True)) if a != b] == [5]
        assert at.get() == BODY
    assert [bool(each.finished) for each in at.proxy.requests] == [False, True, True]


@pytest.mark.parametrize("fault", [Fault(stall=True), Fault(stall_after=1000), Fault(delay=timedelta(days=1))])
def test_a_stall_lasts_until_it_is_released(moto: Moto, fault: Fault) -> None:
    """A client gives up; a proxy that ends waits for nobody; a released one goes on."""
    with through(moto, first(1, fault)) as at:
        with S3Proxy(moto.endpoint, moto.ca, always(fault)) as stalling:
            hasty = client(stalling.endpoint, stalling.ca, moto.access_key, moto.secret_key, attempts=1, seconds=0.2)
            with pytest.raises(ReadTimeoutError):
                hasty.get_object(Bucket=at.bucket, Key="there")["Body"].read()
            hasty.close()
        if not fault.delay:
            at.proxy.release()
            assert at.get() == BODY
            assert at.proxy.stalled.is_set()


@pytest.mark.parametrize("done", [True, False])
def test_a_client_is_killed_as_it_asks(moto: Moto, done: bool) -> None:
    """The server has done it, or was never asked."""
    killed = []
    with through(moto, always(killing(lambda: killed.append(1), done=done))) as at:
        with pytest.raises(NO_ANSWER):
            at.put()
        assert killed == [1]
        assert ("new" in at.stored()) is done


def test_the_servers_clock_is_set_from_here(moto: Moto) -> None:
    """The Date of each answer is shifted."""
    with through(moto) as at:
        at.proxy.set_date = timedelta(hours=-3)
        date = at.put()["ResponseMetadata"]["HTTPHeaders"]["date"]
    assert parsedate_to_datetime(date) < datetime.now(UTC) - timedelta(hours=2)


def test_a_lab_that_breaks_fails_the_test(moto: Moto) -> None:
    """A script that cannot be carried out is not passed over."""
    with pytest.raises(IndexError), through(moto, always(Fault(corrupt=len(BODY)))) as at:  # noqa: SIM117
        with pytest.raises(NO_ANSWER):
            at.get()
