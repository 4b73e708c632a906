"""Which of several nodes captures for the cluster: all agree without a word, and one death moves it."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edgedr.layouts import KUBEADM
from edgedr.node.election import elect
from edgedr.node.etcd_members import LAG, Alarm, Member, Status, Survey
from edgedr.node.files import Files
from edgedr.node.node import Node
from edgedr.sources.base import Elsewhere
from edgedr.sources.etcd import EtcdSource
from edgedr.sources.table import ClusterCapture, SourceTable
from edgedr.wiring import on_duty
from tests.lab.etcd import EtcdCluster

NAMES = ("cp-1", "cp-2", "cp-3")


def survey(leader: str = "cp-1", alive: tuple[str, ...] = NAMES) -> Survey:
    """Three members; ids are not in the order of the names."""
    ids = {"cp-1": "c", "cp-2": "a", "cp-3": "b"}
    statuses = tuple(Status(f"https://{name}:2379", "1", ids[name], "3.5.1", 100, 1, 1, ids[leader]) for name in alive)
    members = tuple(Member(ids[name], name, (), (f"https://{name}:2379",), learner=False) for name in NAMES)
    return Survey(statuses, members=members)


def elected(seen: Survey) -> list[str]:
    """Return the nodes that would capture, each asked by itself."""
    ids = {member.name: member.id for member in seen.members}
    return [name for name in NAMES if elect(seen, ids[name]).here]


def test_the_first_follower_by_name() -> None:
    """Exactly one node captures: not the leader's, and the same whoever asks."""
    assert elected(survey(leader="cp-1")) == ["cp-2"]
    assert elected(survey(leader="cp-2")) == ["cp-1"]
    assert elected(survey(leader="cp-3")) == ["cp-1"]


def test_one_death_moves_it() -> None:
    """Without the elected one the next follower does it, then the leader."""
    assert elected(survey(alive=("cp-1", "cp-3"))) == ["cp-3"]
    assert elected(survey(alive=("cp-1",))) == ["cp-1"]


def test_who_is_not_well_is_passed_over() -> None:
    """Corrupt, learning, lagging, without a leader, of another cluster: not trusted with it."""
    seen = survey()
    first = seen.statuses[1]
    for ill in (
        replace(first, learner=True),
        replace(first, leader=""),
        replace(first, revision=100 - LAG - 1),
        replace(first, cluster_id="2"),
    ):
        assert elected(replace(seen, statuses=(seen.statuses[0], ill, seen.statuses[2]))) == ["cp-3"], ill
    assert elected(replace(seen, alarms=(Alarm("CORRUPT", first.member_id),))) == ["cp-3"]


def test_whoever_cannot_tell_captures() -> None:
    """Twice is harmless, never is not."""
    assert elect(survey(), None).here
    assert elect(survey(alive=()), "a").here


def _node(root: Path) -> Node:
    return Node(Files(root), KUBEADM, now=datetime(2026, 11, 24, tzinfo=UTC))


def _on_duty(etcd: EtcdCluster, root: Path) -> str | None:
    return on_duty(_node(root), SourceTable(etcd=EtcdSource(endpoints=etcd.endpoints))).elsewhere


def test_three_real_members_agree(tmp_path: Path) -> None:
    """Each node's agent asks the members itself: one of three captures, and after its death another one does."""
    with EtcdCluster(tmp_path / "c", size=3) as etcd:
        roots = {}
        for number, member in enumerate(etcd.members):
            etcd.write_manifests(node=number)
            roots[member.name] = Path(shutil.copytree(etcd.root, tmp_path / member.name))
        before = [name for name, root in roots.items() if _on_duty(etcd, root) is None]
        assert len(before) == 1
        assert before[0] != etcd.leader().name
        next(member for member in etcd.members if member.name == before[0]).kill()
        survivors = {name: root for name, root in roots.items() if name != before[0]}
        after = [name for name, root in survivors.items() if _on_duty(etcd, root) is None]
        assert len(after) == 1
        (other,) = set(survivors) - set(after)
        assert (_on_duty(etcd, roots[other]) or "").startswith(f"{after[0]}: ")


def test_it_can_be_told(tmp_path: Path) -> None:
    """``always`` and ``never`` ask nobody."""
    node = _node(tmp_path)
    assert on_duty(node, SourceTable(cluster_capture=ClusterCapture.ALWAYS)).elsewhere is None
    told = on_duty(node, SourceTable(cluster_capture=ClusterCapture.NEVER))
    assert told.elsewhere is not None
    assert [type(item) for item in EtcdSource().capture(told)] == [Elsewhere]


def test_one_member_captures(tmp_path: Path) -> None:
    """A cluster of one captures for itself."""
    with EtcdCluster(tmp_path) as etcd:
        assert on_duty(_node(etcd.root), SourceTable()).elsewhere is None


@pytest.mark.parametrize("what", ["nobody answers", "no manifest"])
def test_trouble_makes_it_capture(tmp_path: Path, what: str) -> None:
    """If the members cannot be asked, the source is left to say why."""
    with EtcdCluster(tmp_path) as etcd:
        root = etcd.root
    if what == "no manifest":
        (root / "etc/kubernetes/manifests/etcd.yaml").unlink()
    assert on_duty(_node(root), SourceTable()).elsewhere is None
