"""Faults 1, 8, 10 and 13 of replication, by the commands: whatever becomes of it, no backup is half there, or lost."""

import itertools
import json
import os
import secrets
import shutil
import signal
import socket
import warnings
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edgedr.cli.main import main
from edgedr.repository.names import MANIFEST, RECIPE
from edgedr.repository.repository import Repository
from edgedr.storage.s3 import S3Storage
from tests.lab.fake_source import bytes_of
from tests.lab.policies import NODE, SITE
from tests.lab.s3faults import Fault, always, expired_token, killing, nth, s3_error, skewed
from tests.lab.s3road import Junction, Road, as_replica, light_clients, node_road, options, waits
from tests.lab.s3servers import Ceph
from tests.lab.site import init, move, site, without_etcd
from tests.storage_contract import get, names

pytestmark = pytest.mark.usefixtures("no_fsync", "slept")
AT_ONCE = 2


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits of the clients."""
    light_clients(monkeypatch)
    return waits(monkeypatch)


class Node:
    """A node that captures files, and ships them to one replica; somebody who types commands on it."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path, self._capsys = path, capsys

    @property
    def config(self) -> Path:
        return self.path / "etc/edgedr.toml"

    def make(self, replica: str) -> None:
        """Set it up, with segments of 1 MiB."""
        site(self.path)
        assert init(self.path) == 0
        without_etcd(self.path)
        text = self.config.read_text().replace('# segment = "64 MiB"', 'segment = "1 MiB"')
        self.config.write_text(text + replica)

    def run(self, *words: str | Path, code: int = 0) -> str:
        """Run a command; return all that it said."""
        self._capsys.readouterr()
        ended = main(["--config", str(self.config), *map(str, words)])
        said = self._capsys.readouterr()
        assert ended == code, said.out + said.err
        assert "Traceback" not in said.err
        return said.out + said.err

    def json(self, *words: str, code: int = 0) -> Any:
        """Run a command; return the document that it printed."""
        document, _ = json.JSONDecoder().raw_decode(self.run(*words, "--json", code=code))
        return document

    def change(self, seed: int, size: int = 5000) -> None:
        """Let the node have something new to capture."""
        (self.path / "root/srv/new").write_bytes(bytes_of(seed, size))

    def copied(self, to: Path) -> "Node":
        """Return the same node in another place, which is made anew."""
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(self.path, to)
        move(self.path, to)
        return Node(to, self._capsys)

    def objects(self) -> dict[str, bytes]:
        """Return what the local repository holds."""
        below = self.path / "repository"
        return {str(path.relative_to(below)): path.read_bytes() for path in (below / "v1").rglob("*") if path.is_file()}

    def local(self) -> list[str]:
        return [each["id"] for each in self.json("list")]


def expect_sound(road: Road) -> list[str]:
    """Assert that every backup whose manifest is at the bucket is there whole; return their ids."""
    there = Repository(road.past, site=SITE, node=NODE)
    listed = there.list()
    for backup in listed:
        assert backup.damage == ()
        assert backup.manifest is not None
        assert there.check(backup.place, backup.manifest) == ()
    committed = [place.id for place, objects in there.places() if MANIFEST in objects]
    assert committed == [backup.id for backup in listed]
    return [str(one) for one in committed]


def expect_all(road: Road, node: Node) -> None:
    """Assert that the bucket holds what the local repository holds, byte for byte, and a heartbeat."""
    heartbeat = f"v1/heartbeat/{SITE}/{NODE}.json"
    assert {name: get(road.past, name) for name in names(road.past) if name != heartbeat} == node.objects()
    assert heartbeat in names(road.past)
    assert expect_sound(road) == node.local()


def killed(node: Node, road: Road, number: int, *, done: bool) -> bool:
    """Run `edgedr replicate` in a process that is killed as it makes that request; say if it came to that."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the proxy's threads hold no lock of ours
        child = os.fork()
    if child == 0:
        try:
            os.read(reading, 1)
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            signal.alarm(120)
            code = main(["--config", str(node.config), "replicate"])
        except BaseException:  # noqa: BLE001 - nothing of the child may run in the parent's place
            code = 1
        os._exit(code)
    road.breaks(nth(number, killing(lambda: os.kill(child, signal.SIGKILL), done=done)))
    os.write(writing, b"x")
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for descriptor in (reading, writing):
        os.close(descriptor)
    assert ended in {0, -signal.SIGKILL}
    return ended != 0


DEATHS = {
    "blind, before the server is asked": (False, (False,)),
    "blind, when it has done it": (False, (True,)),
    "may look, memory lost, either": (True, (False, True)),
}


@pytest.mark.parametrize("death", DEATHS)
def test_killed_at_any_request(
    crossing: Junction, ceph: Ceph, scratch: Path, capsys: pytest.CaptureFixture[str], death: str
) -> None:
    """At every one: no manifest without all its segments; the next run completes, and sends hardly anything again."""
    may_look, done = DEATHS[death]
    with crossing.road() as own:
        road = own if may_look else node_road(crossing.proxy, ceph, locked=False)
        origin = lagging(scratch / "origin", road, capsys)
        if may_look:
            (origin.path / "state/replicas/far.json").unlink()
        at_first = set(names(road.past))
        for number in itertools.count(1):
            node = origin.copied(scratch / "killed")
            was_killed = killed(node, road, number, done=done[number % len(done)])
            before = expect_sound(road)
            sent = sent_names(road)
            road.breaks(lambda _: None)
            assert node.json("replicate")[0]["error"] is None
            expect_all(road, node)
            assert before == node.local()[: len(before)]
            times = Counter(sent + sent_names(road))
            assert max(times.values()) <= 2
            assert sum(times[name] == 2 for name in times if name != RECIPE) <= AT_ONCE
            for name in set(names(road.past)) - at_first:
                take_away(name, road, crossing)
            if not was_killed:
                break
        assert number > 10


def lagging(path: Path, road: Road, capsys: pytest.CaptureFixture[str]) -> Node:
    """Make a node whose first backup was shipped, and then the link died: a full of three segments and a delta wait."""
    node = Node(path, capsys)
    node.make(as_replica(road.storage._options, at_once=AT_ONCE))
    node.run("backup")
    road.breaks(always(Fault(reset_after=0)))
    node.change(1, 2_200_000)
    node.run("backup", "--full", code=5)
    node.change(2)
    node.run("backup", code=5)
    return node


def sent_names(road: Road) -> list[str]:
    """Return what was put since the faults were last set, but for the heartbeat, which is put again each time."""
    names = (each.path.partition(f"/{road.past._options.prefix}/")[2] for each in road.seen("PUT"))
    return [name for name in names if "/heartbeat/" not in name]


def take_away(name: str, road: Road, crossing: Junction) -> None:
    """Delete an object as the bucket's owner."""
    place = road.past._options
    crossing.direct._connected().delete_object(Bucket=place.bucket, Key=f"{place.prefix}/{name}")


@pytest.fixture
def node(tmp_path: Path, road: Road, capsys: pytest.CaptureFixture[str]) -> Node:
    """A node that ships to that bucket."""
    made = Node(tmp_path, capsys)
    made.make(as_replica(road.storage._options, at_once=AT_ONCE))
    return made


def later(monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    """Let `edgedr replicate` run so much later."""

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + by

    monkeypatch.setattr("edgedr.cli.replicate.datetime", Later)


SHUT = {
    "no right to put": s3_error(403, "AccessDenied"),
    "credential has run out": expired_token(),
    "bucket gone": s3_error(404, "NoSuchBucket"),
    "clock is wrong": skewed(timedelta(hours=2)),
}


@pytest.mark.parametrize("fault", SHUT)
def test_what_refuses_is_left_alone_and_capture_goes_on(
    node: Node, road: Road, slept: list[float], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Every backup is committed and said to be here only; one try an hour, no more; mended, it goes on by itself."""
    road.breaks(always(SHUT[fault]))
    node.run("backup", code=5)
    assert 0 < len(road.proxy.requests) <= 4
    assert slept == []
    road.proxy.requests.clear()
    for seed in (1, 2):
        node.change(seed)
        assert "not tried again yet" in node.run("backup", code=5)
    assert "not tried again yet" in node.run("replicate", "--patient", code=5)
    assert road.proxy.requests == []
    assert [each["shipped"] for each in node.json("list")] == [{"far": False}] * 3
    later(monkeypatch, timedelta(minutes=29))
    node.run("replicate", "--patient", code=5)
    assert road.proxy.requests == []
    later(monkeypatch, timedelta(minutes=61))
    node.run("replicate", "--patient", code=5)
    assert 0 < len(road.proxy.requests) <= 4
    road.breaks(lambda _: None)
    later(monkeypatch, timedelta(minutes=123))
    node.run("replicate", "--patient")
    expect_all(road, node)
    assert [each["shipped"] for each in node.json("list")] == [{"far": True}] * 3


def test_a_bucket_that_comes_back_gets_everything(
    ceph: Ceph, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bucket is really not there, then it is: a run by hand tries at once, whatever failed before."""
    there = options(ceph, f"lab-late-{secrets.token_hex(4)}")
    node = Node(tmp_path, capsys)
    node.make(as_replica(there))
    assert "the bucket is gone, or its name is wrong" in node.run("backup", code=5)
    node.run("replicate", code=5)
    ceph.bucket(there.bucket)
    assert node.json("replicate")[0]["shipped"] == node.local()
    there_now = S3Storage(there)
    assert {name: get(there_now, name) for name in names(there_now, "v1/full")}.items() <= node.objects().items()


def test_a_credential_that_is_not_there_yet(node: Node, road: Road) -> None:
    """A reference that leads nowhere is a reason not to ship, none not to capture; put there, it is used."""
    text = node.config.read_text()
    key = node.path / "key"
    node.config.write_text(text.replace(str(road.storage._options.credential), f"file:{key}"))
    said = node.run("backup", code=5)
    assert f"file:{key}" in said
    assert len(node.local()) == 1
    assert road.proxy.requests == []
    shutil.copy(road.storage._options.credential.place, key)  # type: ignore[union-attr]
    node.run("replicate")
    expect_all(road, node)


def test_a_dead_link_keeps_no_backup_from_being_committed(node: Node, road: Road) -> None:
    """No connection lives: committed, exit 5, said to be here only; the same configuration ships it later."""
    road.breaks(always(Fault(reset_after=0)))
    said = node.run("backup", code=5)
    assert "committed" in said
    assert "not shipped" in said
    (backup,) = node.json("list")
    assert (backup["condition"], backup["shipped"]) == ("ok", {"far": False})
    assert "  no" in node.run("list")
    assert names(road.past) == []
    node.run("verify", "--all")
    assert node.json("replicate", code=5)[0]["error"]
    road.breaks(lambda _: None)
    assert node.json("replicate")[0]["shipped"] == node.local()
    expect_all(road, node)
    assert "  yes" in node.run("list")


def test_nobody_listens_at_the_endpoint(node: Node, road: Road) -> None:
    """The real thing: a port that nothing has; the message names it, and the next act."""
    with socket.create_server(("127.0.0.1", 0)) as unheard:
        port = unheard.getsockname()[1]
    text = node.config.read_text()
    node.config.write_text(text.replace(road.proxy.endpoint, f"https://127.0.0.1:{port}"))
    said = node.run("backup", code=5)
    assert "committed" in said
    assert "error: not shipped to far: cannot" in said
    assert "  hint: look at the link" in said
    assert [each["shipped"] for each in node.json("list")] == [{"far": False}]
