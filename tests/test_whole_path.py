"""From a real etcd to the repository and back, by the commands that an operator types."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgedr.cli.main import main
from edgedr.sealing.identities import make_identity
from edgedr.sources.table import SOURCE_NAMES
from tests.lab.etcd import EtcdCluster, EtcdMember, Version

_HOLD = """
import fcntl, sys, time
with open(sys.argv[1], "r+") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    print("held", flush=True)
    time.sleep(60)
"""


class Operator:
    """Somebody at a terminal: the node's configuration on one side, the identity on the other."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.capsys = capsys
        identity = make_identity()
        self.identity = directory / "key.txt"
        self.identity.write_text(f"{identity.secret}\n")
        self.recipient = identity.recipient

    def init(self, root: Path) -> None:
        self.run(
            *("init", "--site", "plant-7", "--node", "cp-1", "--root", str(root), "--recipient", self.recipient),
            *("--state", str(self.directory / "state"), "--unproven"),
        )
        others = [name for name in SOURCE_NAMES if name not in {"etcd", "certificates", "files"}]
        config = self.directory / "edgedr.toml"
        config.write_text(config.read_text().replace("# disabled = []", f"disabled = {json.dumps(others)}"))

    def run(self, *words: str, code: int = 0) -> str:
        self.capsys.readouterr()
        ended = main(["--config", str(self.directory / "edgedr.toml"), *words])
        said = self.capsys.readouterr()
        assert ended == code, said.out + said.err
        return said.out

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))


def _fill(etcd: EtcdCluster, first: int, count: int) -> None:
    etcd.fill((f"/registry/pods/default/pod-{n}".encode(), bytes([n % 251]) * 900) for n in range(first, first + count))


@pytest.mark.parametrize("version", ["3.4", "3.5"])
def test_full_and_delta_of_a_real_etcd_come_back(
    version: Version, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What comes back is what the server sent, byte for byte: etcd's tool accepts it, a new server has every key."""
    operator = Operator(tmp_path, capsys)
    with EtcdCluster(tmp_path / "node", version=version) as etcd:
        _fill(etcd, 0, 800)
        operator.init(etcd.root)
        first = operator.json("backup")
        _fill(etcd, 700, 200)
        etcd.delete(b"/registry/pods/default/pod-5")
        second = operator.json("backup")
        assert (first["class"], second["class"]) == ("full", "delta")
        assert second["parent"] == first["id"]
        assert second["sealed_bytes"] < first["sealed_bytes"]
        keys = etcd.items()
        etcd.etcdctl("snapshot", "save", str(tmp_path / "theirs.db"))  # an idle etcd sends the same bytes twice

    operator.run("verify", "--all", "--identity", str(operator.identity))
    restored = tmp_path / "restored"
    operator.run("restore", "latest", "--to", str(restored), "--identity", str(operator.identity))
    assert (restored / "etcd.db").read_bytes() == (tmp_path / "theirs.db").read_bytes()
    assert etcd.snapshot_status(restored / "etcd.db")

    with_new_data = EtcdCluster(tmp_path / "replacement", version=version)
    with_new_data.write_manifests()
    member: EtcdMember = with_new_data.members[0]
    member.restore(restored / "etcd.db")
    try:
        with_new_data.start()
        assert with_new_data.items() == keys
    finally:
        with_new_data.stop()


def test_the_first_backup_stays_restorable_after_the_second(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each backup of a chain is a point in time of its own: --at and the sequence find it, --only takes a part."""
    operator = Operator(tmp_path, capsys)
    with EtcdCluster(tmp_path / "node") as etcd:
        _fill(etcd, 0, 50)
        operator.init(etcd.root)
        operator.run("backup")
        before = (tmp_path / "state" / "parent").glob("*/etcd.db")
        snapshot = next(before).read_bytes()
        _fill(etcd, 50, 50)
        operator.run("backup")
    target = tmp_path / "first"
    out = operator.json("restore", "1", "--to", str(target), "--only", "etcd", "--identity", str(operator.identity))
    assert (target / "etcd.db").read_bytes() == snapshot
    assert not (target / "files" / "etc").exists()
    assert [finding["severity"] for finding in out["findings"]] == ["good"]


def test_etcd_away_is_no_backup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without etcd there is nothing to list: exit 4, and what was there before stays the newest."""
    operator = Operator(tmp_path, capsys)
    with EtcdCluster(tmp_path / "node") as etcd:
        _fill(etcd, 0, 20)
        operator.init(etcd.root)
        first = operator.json("backup")
    operator.run("backup", code=4)
    assert [row["id"] for row in operator.json("list")] == [first["id"]]
    assert [path.name for path in (tmp_path / "state" / "parent").iterdir()] == [first["id"]]


def test_the_kernel_frees_the_lock(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A backup beside another exits 11; after the other was killed there is nothing to clean up by hand."""
    operator = Operator(tmp_path, capsys)
    with EtcdCluster(tmp_path / "node") as etcd:
        _fill(etcd, 0, 20)
        operator.init(etcd.root)
        holder = subprocess.Popen(
            [sys.executable, "-c", _HOLD, str(tmp_path / "state" / "lock")], stdout=subprocess.PIPE, text=True
        )
        with holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            operator.run("backup", code=11)
            holder.kill()
        operator.run("backup")
