"""Faults 1, 8, 10 and 13 of replication, by the commands: whatever becomes of it, no backup is half there, or lost."""

import json
import os
import shutil
import signal
import socket
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edgedr.cli.main import main
from edgedr.repository.names import MANIFEST, RECIPE
from edgedr.repository.repository import Repository
from edgedr.storage.s3_options import S3Options
from tests.lab.fake_source import bytes_of
from tests.lab.policies import NODE, PREFIX, SITE
from tests.lab.s3faults import Fault, always, expired_token, killing, nth, s3_error
from tests.lab.s3road import Junction, Road, as_replica, by_way_of, junction, node_road, waits
from tests.lab.s3servers import Ceph
from tests.lab.site import init, move, site, without_etcd
from tests.storage_contract import get, names

pytestmark = pytest.mark.usefixtures("no_fsync", "slept")
AT_ONCE = 2


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits of the clients."""
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


@pytest.fixture(scope="module")
def crossing(ceph: Ceph) -> Iterator[Junction]:
    with junction(ceph) as made:
        yield made


@pytest.fixture
def road(crossing: Junction) -> Iterator[Road]:
    with crossing.road() as made:
        yield made


def killed(node: Node, road: Road, number: int, *, done: bool) -> bool:
    """Run `edgedr replicate` in a process that is killed as it makes its ``number``-th request; say if it came to that."""
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


def empty(road: Road) -> None:
    for name in names(road.past):
        road.past.delete(name)


@pytest.mark.parametrize("done", [False, True], ids=["before the server is asked", "when it has done it"])
@pytest.mark.parametrize("may_look", [False, True], ids=["blind", "may look"])
def test_killed_at_any_request(
    crossing: Junction, ceph: Ceph, scratch: Path, capsys: pytest.CaptureFixture[str], may_look: bool, done: bool
) -> None:
    """At every one: no manifest without all its segments; the next run completes, and sends hardly anything again."""
    origin = Node(scratch / "origin", capsys)
    with crossing.road() as open_road:
        road = open_road if may_look else node_road(crossing.proxy, ceph, locked=False)
        origin.make(as_replica(road.storage._options, at_once=AT_ONCE))
        for seed in (1, 2):
            origin.change(seed, 2_500_000)
            road.breaks(always(Fault(reset_after=0)))
            origin.run("backup", code=5)
            (origin.path / "state/replicas/far.json").unlink()
        number = 0
        while True:
            number += 1
            node = Node(scratch / str(number), capsys)
            shutil.copytree(origin.path, node.path)
            move(origin.path, node.path)
            was_killed = killed(node, road, number, done=done)
            before = expect_sound(road)
            sent = [each.path for each in road.seen("PUT") if "/heartbeat/" not in each.path]
            road.breaks(lambda _: None)
            assert node.json("replicate")[0]["error"] is None
            expect_all(road, node)
            assert before == node.local()[: len(before)]
            sent += [each.path for each in road.seen("PUT") if "/heartbeat/" not in each.path]
            twice = {path for path in sent if sent.count(path) > 1}
            assert all(sent.count(path) == 2 for path in twice)
            assert len([path for path in twice if not path.endswith(RECIPE)]) <= AT_ONCE
            shutil.rmtree(node.path)
            for path in names(road.past):
                crossing.direct._connected().delete_object(
                    Bucket=road.past._options.bucket, Key=f"{road.past._options.prefix}/{path}"
                )
            if not was_killed:
                break
    assert number > 12
