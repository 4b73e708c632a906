"""The etcd source, against real clusters: found, chosen, taken, restored; and when members fail in the middle of it."""

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest

from edgedr.errors import SourceError
from edgedr.layouts import KUBEADM
from edgedr.model import EtcdFacts, Finding
from edgedr.node.etcd_members import LAG
from edgedr.node.files import Files
from edgedr.node.node import Node
from edgedr.sources.base import Captured, Count, Fact, Stream
from edgedr.sources.etcd import EtcdSource
from tests.lab.etcd import EtcdCluster, EtcdMember, Version
from tests.lab.liar import Liar, pieces
from tests.lab.proxy import Fault, FaultProxy

CONTENT = os.urandom(512 * 300)
MARKER = b"\xf5to be corrupted\xf5"
PATIENCE = timedelta(seconds=3)  # long for a server that is well on a busy machine, short for a test


@dataclass
class Tape:
    """A spool in memory."""

    data: bytearray = field(default_factory=bytearray)
    restarts: int = 0

    @property
    def size(self) -> int:
        return len(self.data)

    @size.setter
    def size(self, value: int) -> None:
        raise AssertionError

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self.data += data
        return len(data)

    def flush(self) -> None:
        pass

    def restart(self) -> None:
        self.data.clear()
        self.restarts += 1


@dataclass
class Capture:
    """What a source gave."""

    tape: Tape
    items: list[Captured]

    @property
    def facts(self) -> EtcdFacts:
        return next(item for item in self.items if isinstance(item, EtcdFacts))

    @property
    def findings(self) -> list[str]:
        return [f"{item.severity}: {item.text}" for item in self.items if isinstance(item, Finding)]

    @property
    def member(self) -> str:
        """The member that the snapshot is of, by name."""
        fact = next(item for item in self.items if isinstance(item, Fact) and item.key == "snapshot.member")
        return fact.value.split()[1]

    def holds(self) -> bool:
        data = bytes(self.tape.data)
        return len(data) % 512 == 32 and hashlib.sha256(data[:-32]).digest() == data[-32:]


def capture(source: EtcdSource, node: Node) -> Capture:
    found = Capture(Tape(), [])
    for item in source.capture(node):
        if isinstance(item, Stream):
            assert item.artifact == "etcd.db"
            item.pump(found.tape)
        else:
            found.items.append(item)
    return found


def node_of(root: Path) -> Node:
    return Node(files=Files(root), layout=KUBEADM)


def settings(cluster: EtcdCluster, *endpoints: str) -> EtcdSource:
    """Name the endpoints, and leave the certificates to be found."""
    return EtcdSource(endpoints=endpoints or cluster.endpoints, answer=timedelta(seconds=30))


def status_says(cluster: EtcdCluster, found: Capture, directory: Path) -> str:
    (directory / "etcd.db").write_bytes(found.tape.data)
    return cluster.snapshot_status(directory / "etcd.db")


@pytest.mark.parametrize("version", ["3.4", "3.5"])
def test_from_node_and_back(tmp_path: Path, version: Version) -> None:
    """What is captured over TLS, found from kubeadm's manifests alone, starts a new server with every key."""
    with EtcdCluster(tmp_path, version=version) as etcd:
        etcd.fill((b"/registry/pods/%d" % number, os.urandom(700)) for number in range(1200))
        etcd.delete(b"/registry/pods/1", b"/registry/pods/2")
        etcd.compact(etcd.revision() - 3)
        keys, revision = etcd.items(), etcd.revision()

        found = capture(EtcdSource(), node_of(etcd.root))

        assert found.holds()
        assert f'"revision":{revision}' in status_says(etcd, found, tmp_path)
        assert (found.facts.revision, found.facts.version[:3]) == (revision, version)
        assert Count("members", 1) in found.items
        assert found.findings == []
        again = capture(EtcdSource(), node_of(etcd.root))
        assert again.items == found.items, "the same node, unchanged, gives the same"

        etcd.stop()
        shutil.rmtree(etcd.members[0].data)
        etcd.members[0].restore(tmp_path / "etcd.db")
        etcd.start()
        assert etcd.items() == keys


@pytest.mark.parametrize("version", ["3.4", "3.5"])
def test_an_empty_database(tmp_path: Path, version: Version) -> None:
    """Fault 32: an etcd that holds nothing yet is captured like any other."""
    with EtcdCluster(tmp_path, version=version) as etcd:
        found = capture(EtcdSource(), node_of(etcd.root))
        assert found.holds()
        assert '"totalKey":' in status_says(etcd, found, tmp_path)
        assert found.facts.revision == 1


def test_an_external_etcd(tmp_path: Path) -> None:
    """Without an etcd of its own on the node, the API server's flags lead to it."""
    with EtcdCluster(tmp_path) as etcd:
        etcd.write_manifests(stacked=False)
        assert capture(EtcdSource(), node_of(etcd.root)).holds()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    # Version 3.4, because 3.5.1 may lose a revision for good when it is killed.
    with EtcdCluster(tmp_path_factory.mktemp("etcd"), size=3, version="3.4") as cluster:
        # Large enough that no buffer on the way holds all of it when a connection is held up in the middle.
        cluster.fill((b"/blob/%d" % number, os.urandom(100_000)) for number in range(120))
        yield cluster


@pytest.fixture
def etcd(running: EtcdCluster) -> Iterator[EtcdCluster]:
    """Give three members that are well and level with each other, and make them well again."""
    running.wait_until_level()
    yield running
    running.disconnect()
    for member in running.members:
        if not member.running:
            member.start()
        member.resume()
    for member in running.members:
        member.wait()


def followers(cluster: EtcdCluster) -> list[EtcdMember]:
    leader = cluster.leader()
    return [member for member in cluster.members if member is not leader]


def held_up(source: EtcdSource, node: Node, proxy: FaultProxy, meanwhile: Callable[[], None]) -> Capture:
    """Capture through a proxy that stalls in the middle; do something meanwhile, and let go on."""
    result: list[Capture | Exception] = []

    def run() -> None:
        try:
            result.append(capture(source, node))
        except Exception as error:  # noqa: BLE001 - given to the test
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive() and not proxy.stalled.wait(0.1):
        pass
    assert proxy.stalled.is_set(), [said.findings if isinstance(said, Capture) else said for said in result]
    meanwhile()
    proxy.release()
    thread.join(60)
    assert isinstance(result[0], Capture), result
    return result[0]


def test_one_member_down(etcd: EtcdCluster) -> None:
    """A member that is down is named, and another is used."""
    down = followers(etcd)[0]
    down.kill()
    found = capture(settings(etcd), node_of(etcd.root))
    assert found.holds()
    assert found.member != down.name
    assert any(down.client_url in text and "nothing listens" in text for text in found.findings)
    assert Count("members", 3) in found.items


def test_a_frozen_member_and_a_lagging_one(etcd: EtcdCluster) -> None:
    """A member that hangs costs one short deadline; one that lags behind is not the one that is used."""
    leader, (slow, other) = etcd.leader(), followers(etcd)
    slow.pause()
    etcd.fill(((b"/x", b"%d" % number) for number in range(LAG * 6)), through=etcd.members.index(other))
    revision = etcd.revision(etcd.members.index(other))
    source = settings(etcd, *(m.client_url for m in (slow, other, leader)))
    found = capture(replace(source, answer=PATIENCE), node_of(etcd.root))
    assert found.holds()
    assert (found.member, found.facts.revision) == (other.name, revision)
    assert any(slow.client_url in text and "did not answer" in text for text in found.findings)
    slow.resume()
    found = capture(settings(etcd, *(m.client_url for m in (slow, other))), node_of(etcd.root))
    assert found.holds()
    assert found.facts.revision >= revision - LAG


def test_leader_change_in_mid_snapshot(etcd: EtcdCluster) -> None:
    """Fault 27: when the leader dies while a follower sends its snapshot, the snapshot is whole all the same."""
    leader, (first, second) = etcd.leader(), followers(etcd)

    def change() -> None:
        leader.kill()
        etcd.disconnect()
        first.wait()  # healthy again: there is a new leader

    with FaultProxy(first.client_url, Fault(stall_after=400_000)) as proxy:
        source = settings(etcd, proxy.url, second.client_url, leader.client_url)
        found = held_up(source, node_of(etcd.root), proxy, change)
    assert found.holds()
    assert (found.member, found.tape.restarts) == (first.name, 0), found.findings
    assert etcd.leader() is not leader


def test_member_dies_in_mid_snapshot(etcd: EtcdCluster, tmp_path: Path) -> None:
    """Fault 27: when the member that sends the snapshot dies, the next one is used from the start, and that is said."""
    leader, (first, second) = etcd.leader(), followers(etcd)
    with FaultProxy(first.client_url, Fault(stall_after=400_000)) as proxy:
        source = settings(etcd, proxy.url, second.client_url, leader.client_url)
        found = held_up(source, node_of(etcd.root), proxy, first.kill)
    assert found.holds()
    assert status_says(etcd, found, tmp_path)
    assert (found.member, found.tape.restarts) == (second.name, 1), found.findings
    assert any(f"member {first.name} ({proxy.url}) failed" in text and second.name in text for text in found.findings)


@pytest.mark.parametrize("fault", [Fault(cut_after=400_000), Fault(stall_after=400_000)])
def test_a_broken_connection_leads_to_the_next(etcd: EtcdCluster, fault: Fault) -> None:
    """Faults 27 and 28: a connection that is cut or freezes in mid-snapshot leads to the next member."""
    leader, (first, second) = etcd.leader(), followers(etcd)
    with FaultProxy(first.client_url, fault) as proxy:
        source = settings(etcd, proxy.url, second.client_url, leader.client_url)
        found = capture(replace(source, patience=PATIENCE), node_of(etcd.root))
    assert found.holds()
    assert (found.member, found.tape.restarts) == (second.name, 1), found.findings


def test_a_flipped_bit_leads_to_the_next(tmp_path: Path) -> None:
    """Faults 27 and 29: a bit that flips where TLS does not see it fails the trailer, and the next member is used."""
    with EtcdCluster(tmp_path, size=3, tls=False) as etcd:
        etcd.fill((b"/%d" % number, MARKER * 3) for number in range(50))
        leader, (first, second) = etcd.leader(), followers(etcd)
        with FaultProxy(first.client_url, Fault(corrupt=MARKER), certificate=etcd.pki / "etcd/server") as proxy:
            source = settings(etcd, proxy.url, second.client_url, leader.client_url)
            found = capture(replace(source, ca="/etc/kubernetes/pki/etcd/ca.crt"), node_of(etcd.root))
        assert found.holds()
        assert (found.member, found.tape.restarts) == (second.name, 1), found.findings
        assert any("trailer does not hold" in text and first.name in text for text in found.findings)


def damage(member: EtcdMember) -> None:
    """Change values in a member's database behind its back, which it does not notice by itself."""
    member.stop()
    database = member.data / "member/snap/db"
    database.write_bytes(database.read_bytes().replace(MARKER, MARKER[::-1]))
    member.start()


def test_a_member_with_other_keys_is_not_used(tmp_path: Path) -> None:
    """Fault 30: a member whose database was damaged on its disk is named and not used."""
    with EtcdCluster(tmp_path, size=3) as etcd:
        etcd.fill((b"/%d" % number, MARKER) for number in range(50))
        wrong, other = followers(etcd)
        damage(wrong)
        wrong.wait()
        source = settings(etcd, wrong.client_url, other.client_url, etcd.leader().client_url)
        found = capture(source, node_of(etcd.root))
        assert found.member == other.name
        assert any(f"member {wrong.name}" in text and "differs from the majority" in text for text in found.findings)


def test_a_real_corrupt_alarm(tmp_path: Path) -> None:
    """Fault 30: once etcd itself has raised CORRUPT, and takes no writes any more, a sound member is still used."""
    cluster = EtcdCluster(tmp_path, size=3, version="3.4")
    for member in cluster.members:
        member.extra_flags = ("--experimental-corrupt-check-time=500ms",)
    with cluster as etcd:
        etcd.fill((b"/%d" % number, MARKER) for number in range(50))
        wrong, other = followers(etcd)
        damage(wrong)
        assert any("CORRUPT" in etcd.etcdctl("alarm", "list") for _ in range(300))
        etcd.wait_for_answer(wrong)
        found = capture(settings(etcd, wrong.client_url, other.client_url), node_of(etcd.root))
        assert found.holds()
        assert found.member != wrong.name
        # Real servers raise it about member 0: only the comparison of the keys says who it is.
        assert any("CORRUPT alarm" in text for text in found.findings)
        assert any(f"member {wrong.name}" in text and "differs" in text for text in found.findings)


def test_two_members_that_disagree() -> None:
    """Fault 30: with nobody to decide, the leader's side is taken, and that is a bad finding."""
    with Liar(member_id=1, hash=1, leader=2) as one, Liar(member_id=2, hash=2, leader=2) as two:
        found = capture(EtcdSource(endpoints=(one.url, two.url)), node_of(Path("/nonexistent")))
    assert found.facts.member_id == f"{2:016x}"
    assert any(text.startswith("bad: members disagree") and "without a majority" in text for text in found.findings)


def test_a_corrupt_member_is_not_used() -> None:
    """Fault 30: a member under a CORRUPT alarm is named and not used; if there is no other, there is no snapshot."""
    corrupt = (("CORRUPT", 1),)
    with Liar(member_id=1, leader=2, alarms=corrupt) as one, Liar(member_id=2, leader=2, alarms=corrupt) as two:
        found = capture(EtcdSource(endpoints=(one.url, two.url)), node_of(Path("/nonexistent")))
        assert found.facts.member_id == f"{2:016x}"
        assert any(text.startswith("bad: CORRUPT alarm") and one.url in text for text in found.findings)
        with pytest.raises(SourceError, match="no etcd member is fit for a snapshot: CORRUPT alarm") as caught:
            capture(EtcdSource(endpoints=(one.url,)), node_of(Path("/nonexistent")))
    assert caught.value.hint


def test_when_no_member_gives_a_whole_snapshot() -> None:
    """Every member's failure is in the error, and nothing is yielded as if there were a snapshot."""
    with (
        Liar(lambda: pieces(CONTENT), member_id=1, leader=2) as one,
        Liar(lambda: iter([*pieces(CONTENT), (bytes(32), 0)]), member_id=2, leader=2) as two,
        pytest.raises(SourceError, match="no etcd member gave a whole snapshot") as caught,
    ):
        capture(EtcdSource(endpoints=(one.url, two.url)), node_of(Path("/nonexistent")))
    assert f"{one.url} is not whole: it has no SHA-256 trailer" in caught.value.message
    assert f"{two.url} is not whole: its SHA-256 trailer does not hold" in caught.value.message


def test_another_member_behind_the_same_address() -> None:
    """An address that now leads to another cluster, or to a member that was ruled out, gives no snapshot."""
    corrupt = (("CORRUPT", 1),)
    for changed in ({"cluster_id": 0xC2}, {"member_id": 1}):
        with Liar(member_id=1, leader=2, alarms=corrupt) as one, Liar(member_id=2, leader=2, alarms=corrupt) as two:
            items = EtcdSource(endpoints=(one.url, two.url)).capture(node_of(Path("/nonexistent")))
            stream = next(iter(items))
            assert isinstance(stream, Stream)
            for attribute, value in changed.items():
                setattr(two, attribute, value)
            with pytest.raises(SourceError, match="another answers at"):
                stream.pump(Tape())
