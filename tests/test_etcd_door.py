"""The door to etcd: what it makes of servers that are well, broken, unwilling or lying."""

import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import repeat
from pathlib import Path

import pytest

from edgedr.errors import ConfigurationError, SourceError, StorageError
from edgedr.node.etcd import Access, SnapshotFacts, snapshot
from edgedr.node.etcd_members import Alarm, NoAnswer
from edgedr.node.etcd_survey import survey
from tests.lab.etcd import EtcdCluster, Version, free_port
from tests.lab.liar import PIECE, Liar, pieces, whole
from tests.lab.pki import CLIENT, Authority
from tests.lab.proxy import Fault, FaultProxy

CONTENT = os.urandom(PIECE * 3 + 512 * 5)
LONG = timedelta(seconds=60)
SECOND = timedelta(seconds=1)
SHORT = timedelta(seconds=0.4)


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path_factory.mktemp("etcd")) as cluster:
        cluster.fill((b"/registry/%d" % number, os.urandom(1000)) for number in range(1500))
        yield cluster


def access(cluster: EtcdCluster, *endpoints: str) -> Access:
    return Access(endpoints or cluster.endpoints, cluster.ca, cluster.cert, cluster.key)


def take(
    who: Access | str,
    write: Callable[[bytes], object] | None = None,
    *,
    deadline: timedelta = LONG,
    patience: timedelta = LONG,
    min_progress: int = 1,
) -> SnapshotFacts:
    who = Access((who,)) if isinstance(who, str) else who
    sink = write or bytearray().extend
    return snapshot(who, who.endpoints[0], sink, deadline=deadline, min_progress=min_progress, patience=patience)


def test_what_is_written_is_what_the_server_sent() -> None:
    """A snapshot reaches the sink byte for byte, trailer included, and its facts are the sink's."""
    written = bytearray()
    with Liar(lambda: whole(CONTENT), revision=7) as liar:
        facts = take(liar.url, written.extend)
    assert bytes(written) == CONTENT + hashlib.sha256(CONTENT).digest()
    assert (facts.size, facts.sha256) == (len(written), hashlib.sha256(written).hexdigest())
    assert (facts.status.revision, facts.status.member_id, facts.status.cluster_id) == (7, f"{1:016x}", f"{0xC1:016x}")


def test_pieces_of_any_size_are_whole() -> None:
    """The trailer is found wherever the server cuts its messages."""
    content = CONTENT[: 512 * 3]
    sent = content + hashlib.sha256(content).digest()
    for size in (1, 31, 33, 511, len(sent)):
        cut = [(sent[at : at + size], max(len(content) - at - size, 0)) for at in range(0, len(sent), size)]
        with Liar(lambda cut=cut: iter(cut)) as liar:  # type: ignore[misc]
            assert take(liar.url).size == len(sent)


def _flipped(at: int) -> list[tuple[bytes, int]]:
    told = list(whole(CONTENT))
    blob, remaining = told[at]
    told[at] = (bytes([blob[0] ^ 1]) + blob[1:], remaining)
    return told


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (list(pieces(CONTENT)), "has no SHA-256 trailer"),
        ([*pieces(CONTENT), (bytes(32), 0)], "trailer does not hold"),
        ([*pieces(CONTENT), (hashlib.sha256(CONTENT).digest()[:31], 0)], "cannot be whole pages"),
        (_flipped(0), "trailer does not hold"),
        (_flipped(-1), "trailer does not hold"),
        (list(whole(CONTENT))[:2], "bytes early"),
        ([*whole(CONTENT), (b"more", 0)], "more came than was announced"),
        ([], "has no SHA-256 trailer"),
        ([(b"", 0)], "has no SHA-256 trailer"),
    ],
)
def test_a_snapshot_that_does_not_hold_is_refused(told: list[tuple[bytes, int]], reason: str) -> None:
    """Fault 29: a wrong, short or missing trailer, a lost piece or a piece too many is an error, never skipped."""
    with Liar(lambda: iter(told)) as liar, pytest.raises(SourceError, match=reason) as caught:
        take(liar.url)
    assert liar.url in caught.value.message


def test_an_endless_stream_ends_at_once() -> None:
    """Fault 28: a server that sends more than it announced is given up, however fast it sends."""
    written = bytearray()
    with Liar(lambda: repeat((bytes(PIECE), PIECE))) as liar, pytest.raises(SourceError, match="more came"):
        take(liar.url, written.extend)
    assert len(written) <= 3 * PIECE


def test_an_endless_stream_that_announces_it_ends_at_the_deadline() -> None:
    """Fault 28: a server that goes on and on, as announced, is given up at the deadline."""
    endless = ((bytes(PIECE), (1 << 50) - number * PIECE) for number in range(1 << 30))
    with Liar(lambda: endless) as liar, pytest.raises(SourceError, match="was not done within"):
        take(liar.url, deadline=SHORT)


@pytest.mark.parametrize("said", [[], list(pieces(CONTENT))[:2], list(whole(CONTENT))])
def test_a_silent_stream_is_given_up(said: list[tuple[bytes, int]]) -> None:
    """Fault 28: a server that stops sending without ending its stream is given up, even after all has come."""
    with Liar(lambda: iter([*said, None])) as liar, pytest.raises(SourceError, match="sent nothing"):
        take(liar.url, patience=SHORT)


def test_a_trickle_is_given_up() -> None:
    """Fault 28: a server that sends less than the minimum is given up, though never silent for long."""

    def trickle() -> Iterator[tuple[bytes, int]]:
        pause = subprocess.Popen(["sleep", "3600"])  # waits in a way that its end interrupts
        try:
            for number in range(1 << 20):
                yield b"x", (1 << 20) - number - 1
                with pytest.raises(subprocess.TimeoutExpired):
                    pause.wait(0.05)
        finally:
            pause.kill()
            pause.wait()

    with Liar(trickle) as liar, pytest.raises(SourceError, match="less than 1000000 bytes per second"):
        take(liar.url, patience=SECOND, min_progress=1_000_000)


def test_a_slow_sink_is_not_a_slow_server() -> None:
    """Time that we take to put the bytes away does not count as the server's silence."""
    import time  # noqa: PLC0415

    written = bytearray()

    def slow(piece: bytes) -> None:
        if not written:
            time.sleep(2 * SECOND.total_seconds())
        written.extend(piece)

    with Liar(lambda: whole(CONTENT)) as liar:
        assert take(liar.url, slow, patience=SECOND, min_progress=1000).size == len(written)


def test_a_full_disk_is_not_the_servers_fault() -> None:
    """What the sink raises goes through as it is, so that nobody asks another member because of it."""

    def full(piece: bytes) -> None:
        raise StorageError("cannot write: no space left")

    with Liar() as liar, pytest.raises(StorageError, match="no space"):
        take(liar.url, full)


@pytest.mark.parametrize("fault", [Fault(cut_after=300_000), Fault(stall_after=300_000)])
def test_a_broken_connection_is_an_error(etcd: EtcdCluster, fault: Fault) -> None:
    """Fault 27: a connection that is cut, or that freezes, in mid-snapshot over TLS ends with an error."""
    with FaultProxy(etcd.endpoints[0], fault) as proxy, pytest.raises(SourceError, match=r"broke off|sent nothing"):
        take(access(etcd, proxy.url), patience=SHORT)


def test_a_black_hole_is_an_error(etcd: EtcdCluster) -> None:
    """An endpoint that takes connections and never answers costs one deadline, and is named."""
    with FaultProxy(etcd.endpoints[0], Fault(black_hole=True)) as proxy:
        seen = survey(access(etcd, proxy.url), answer=SHORT)
    assert seen.statuses == ()
    assert seen.unreachable[0].endpoint == proxy.url


def _reason(who: Access) -> NoAnswer:
    seen = survey(who)
    assert seen.statuses == ()
    with pytest.raises(SourceError) as caught:
        take(who)
    assert caught.value.message == seen.unreachable[0].reason
    return seen.unreachable[0]


def test_a_wrong_authority_is_told(etcd: EtcdCluster, tmp_path: Path) -> None:
    """A server that our authority did not sign is not trusted, and the message says that it is about the authority."""
    Authority.make("etcd-ca").write(tmp_path / "other")
    why = _reason(Access(etcd.endpoints, tmp_path / "other.crt", etcd.cert, etcd.key))
    assert "certificate that cannot be trusted" in why.reason
    assert str(tmp_path / "other.crt") in str(why.hint)


def test_a_missing_client_certificate_is_told(etcd: EtcdCluster) -> None:
    """A server that wants a client certificate and gets none: the message says so."""
    assert "refused us without a client certificate" in _reason(Access(etcd.endpoints, etcd.ca)).reason


def test_a_foreign_client_certificate_is_told(etcd: EtcdCluster, tmp_path: Path) -> None:
    """A server that does not accept our client certificate: the message names it."""
    Authority.make("etcd-ca").issue(tmp_path / "client", "stranger", CLIENT)
    why = _reason(Access(etcd.endpoints, etcd.ca, tmp_path / "client.crt", tmp_path / "client.key"))
    assert f"refused the client certificate {tmp_path / 'client.crt'}" in why.reason


def test_plain_and_tls_mixed_up_is_told(etcd: EtcdCluster) -> None:
    """``http`` for ``https``, or the other way round: the message says which."""
    assert "https://" in str(_reason(Access((etcd.endpoints[0].replace("https", "http"),))).hint)
    with Liar() as liar:
        assert "speaks no TLS" in _reason(access(etcd, liar.url.replace("http", "https"))).reason


def test_nobody_there_is_told() -> None:
    """An endpoint where nothing listens: the message says so."""
    assert "nothing listens" in _reason(Access((f"http://127.0.0.1:{free_port()}",))).reason


def test_a_frozen_server_is_told() -> None:
    """An endpoint where nobody takes connections any more: an error after the deadline, not a hang."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        seen = survey(Access((f"http://127.0.0.1:{server.getsockname()[1]}",)), answer=SHORT)
    assert "did not answer" in seen.unreachable[0].reason


@pytest.mark.parametrize("endpoint", ["127.0.0.1:2379", "https://127.0.0.1", "unix:///run/etcd", "https://:2379", "x"])
def test_an_endpoint_must_be_a_url(endpoint: str) -> None:
    """What is no URL with a port is a matter of configuration."""
    with pytest.raises(ConfigurationError, match="not an etcd endpoint"):
        survey(Access((endpoint,)))


def test_unusable_certificates_are_named(etcd: EtcdCluster, tmp_path: Path) -> None:
    """A missing file, a file that is no certificate, a key of another certificate, half a pair: each is named."""
    (tmp_path / "text").write_text("no certificate")
    peer = etcd.pki / "etcd/peer.key"
    for ca, cert, key, expected in (
        (tmp_path / "absent", etcd.cert, etcd.key, f"cannot read {tmp_path / 'absent'}"),
        (tmp_path / "text", etcd.cert, etcd.key, "holds no certificate"),
        (etcd.ca, etcd.cert, peer, "cannot be used together"),
        (etcd.ca, tmp_path / "text", etcd.key, "cannot be used together"),
        (etcd.ca, etcd.cert, None, "has no key"),
        (etcd.ca, None, etcd.key, "has no certificate"),
    ):
        with pytest.raises((SourceError, ConfigurationError), match=expected):
            survey(Access(etcd.endpoints, ca, cert, key))


def test_missing_permission_is_told(tmp_path: Path) -> None:
    """With etcd's authentication on, a client that is no root is told what it lacks."""
    with EtcdCluster(tmp_path) as etcd:
        for words in (
            "user add root:secret",
            "user grant-role root root",
            "user add kube-apiserver-etcd-client:secret",
            "auth enable",
        ):
            etcd.etcdctl(*words.split())
        with pytest.raises(SourceError, match="does not permit it") as caught:
            take(access(etcd))
    assert "root role" in str(caught.value.hint)


@pytest.mark.parametrize("version", ["3.4", "3.5"])
def test_looking_changes_nothing(tmp_path: Path, version: Version) -> None:
    """Asking all there is to ask leaves the database as it was: the next snapshot has the same bytes."""
    with EtcdCluster(tmp_path, version=version) as etcd:
        etcd.fill((b"/%d" % number, bytes(500)) for number in range(100))
        before = take(access(etcd)).sha256
        survey(access(etcd))
        assert take(access(etcd)).sha256 == before


@pytest.mark.parametrize("version", ["3.4", "3.5"])
def test_a_full_database_is_known(tmp_path: Path, version: Version) -> None:
    """A NOSPACE alarm is seen with the member that raised it, and a snapshot can be taken all the same."""
    cluster = EtcdCluster(tmp_path, version=version)
    cluster.members[0].extra_flags = (f"--quota-backend-bytes={1 << 20}",)
    with cluster as etcd:

        def overfill() -> None:  # one after the other: the quota is checked against what has been committed
            for number in range(1000):
                etcd.put(f"/{number}", bytes(100_000))

        with pytest.raises(Exception, match="space exceeded"):
            overfill()
        seen = survey(access(etcd))
        assert seen.alarms == (Alarm("NOSPACE", seen.statuses[0].member_id),)
        # The write that would exceed the quota is refused, so the database may be somewhat smaller than that.
        assert take(access(etcd)).size > 1 << 19


def test_alarms_that_members_report_themselves_count() -> None:
    """Without a quorum too, the alarms that a member knows of are known."""
    with Liar(leader=0, errors=(f"memberID:{7} alarm:CORRUPT ",)) as liar:
        seen = survey(Access((liar.url,)))
    assert seen.alarms == (Alarm("CORRUPT", f"{7:016x}"),)


def test_a_learner_is_known() -> None:
    """That a member is a learner is read though our messages are older than learners."""
    with Liar(learner=True) as one, Liar(member_id=2) as two:
        seen = survey(Access((one.url, two.url)))
    assert [status.learner for status in seen.statuses] == [True, False]


def test_members_are_found_from_one_endpoint(tmp_path: Path) -> None:
    """Members that are not configured but listed are asked too, once each, and all are compared at one revision."""
    with EtcdCluster(tmp_path, size=3) as etcd:
        etcd.put("/a", b"1")
        seen = survey(access(etcd, etcd.endpoints[1], etcd.endpoints[1].replace("127.0.0.1", "localhost")))
        assert {status.endpoint for status in seen.statuses} == set(etcd.endpoints)
        assert [member.name for member in seen.members] == ["cp-1", "cp-2", "cp-3"]
        assert len({(hashed.revision, hashed.compact_revision, hashed.hash) for hashed in seen.hashes}) == 1
        assert len(seen.hashes) == 3
        etcd.compact(etcd.revision())
        assert len(survey(access(etcd)).hashes) == 3, "a quiet cluster, compacted up to its head, is compared too"


def test_a_laggard_that_others_have_left_behind_is_left_out() -> None:
    """Where a member's revision is compacted on the others, the others are compared without it, and that is said."""
    with (
        Liar(member_id=1, revision=50) as one,
        Liar(member_id=2, revision=900, compact_revision=500) as two,
        Liar(member_id=3, revision=905, compact_revision=500) as three,
    ):
        seen = survey(Access((one.url, two.url, three.url)))
    assert [(hashed.endpoint, hashed.revision) for hashed in seen.hashes] == [(two.url, 900), (three.url, 900)]
    assert [silent.endpoint for silent in seen.not_compared] == [one.url]
    assert "compacted its revision 50" in seen.not_compared[0].reason


def test_memory_is_bounded() -> None:
    """Taking a snapshot of 128 MiB needs no more than a few of them at any time."""
    total, piece = 128 << 20, bytes(PIECE)
    digest = hashlib.sha256()
    for _ in range(total // PIECE):
        digest.update(piece)
    stream = [(piece, total - number * PIECE) for number in range(1, total // PIECE + 1)]
    script = """
import re, sys
from datetime import timedelta
from edgedr.node.etcd import Access, snapshot
def take(url):
    window = {"deadline": timedelta(minutes=5), "patience": timedelta(minutes=1), "min_progress": 1}
    return snapshot(Access((url,)), url, len, **window).size
def peak():  # not ru_maxrss, which a child process inherits
    return int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) << 10
take(sys.argv[1])
before = peak()
print(take(sys.argv[2]), peak() - before)
"""
    with Liar() as small, Liar(lambda: iter([*stream, (digest.digest(), 0)])) as large:
        command = [sys.executable, "-c", script, small.url, large.url]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    size, grown = map(int, done.stdout.split())
    assert size == total + 32
    assert grown < 24 << 20, f"{grown} bytes"
