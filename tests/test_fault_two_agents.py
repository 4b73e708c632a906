"""Fault 36: two agents at once, a state directory that moved, a node that was cloned."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgedr.cli.main import main
from edgedr.model import Class
from edgedr.settings import load
from edgedr.wiring import open_repository
from tests.lab.site import back_up, init, move, site, without_etcd

_HOLD = """
import sys, time
from pathlib import Path
from edgedr import durable
from edgedr.state import StateDirectory
path = Path(sys.argv[2])
with StateDirectory(path).lock() if sys.argv[1] == "state" else durable.locked(path):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def place(scratch: Path, no_fsync: None, capsys: pytest.CaptureFixture[str]) -> Path:
    """Set a node up."""
    path = scratch / "a"
    site(path)
    assert init(path) == 0
    without_etcd(path)
    capsys.readouterr()
    return path


def run(path: Path) -> subprocess.CompletedProcess[str]:
    """Run `edgedr backup` as a process of its own."""
    command = [sys.executable, "-m", "edgedr", "--config", str(path / "etc/edgedr.toml"), "backup", "--json"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("which", ["state", "repository"])
def test_the_second_of_two_agents_leaves(place: Path, which: str) -> None:
    """While another process holds the lock, a run exits 11 and changes nothing; it goes with its process."""
    lock = {"state": place / "state", "repository": place / "repository/.plant-7.cp-1.lock"}[which]
    lock.parent.mkdir(exist_ok=True)
    holder = subprocess.Popen([sys.executable, "-c", _HOLD, which, str(lock)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        second = run(place)
        assert second.returncode == 11, second.stderr
        assert "another edgedr" in second.stderr
        assert "fuser" in second.stderr
        assert open_repository(load(place / "etc/edgedr.toml")).list() == ()
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    third = run(place)
    assert third.returncode == 0, third.stderr


def test_a_state_directory_on_another_machine_begins_anew(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A state directory that finds itself on another machine takes a new lineage, says so, and only once."""
    assert back_up(place) == 0
    (place / "root/etc/machine-id").write_text("f" * 32 + "\n")
    capsys.readouterr()
    assert back_up(place) == 0
    assert "another machine" in json.loads(capsys.readouterr().out)["warnings"][0]
    assert back_up(place) == 0
    assert "another machine" not in "".join(json.loads(capsys.readouterr().out)["warnings"])
    first, second, third = open_repository(load(place / "etc/edgedr.toml")).list()
    assert first.manifest is not None
    assert second.manifest is not None
    assert third.manifest is not None
    assert [one.place.kind for one in (first, second, third)] == [Class.FULL, Class.FULL, Class.DELTA]
    assert first.manifest.lineage != second.manifest.lineage == third.manifest.lineage
    assert [one.id.sequence for one in (first, second, third)] == [1, 2, 3]


def test_a_cloned_node_is_noticed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two machines from one image that write as one node give one number twice: list and backup say it."""
    assert back_up(place) == 0
    clone = place.with_name("b")
    shutil.copytree(place, clone)
    move(place, clone)
    assert back_up(place) == 0
    assert back_up(clone) == 0
    capsys.readouterr()
    shutil.copytree(clone / "repository/v1", place / "repository/v1", dirs_exist_ok=True)
    assert main(["--config", str(place / "etc/edgedr.toml"), "list"]) == 0
    twins = [str(backup.id) for backup in open_repository(load(place / "etc/edgedr.toml")).list()[1:]]
    assert len(twins) == 2
    said = capsys.readouterr().err
    assert "two machines" in said
    assert all(twin in said for twin in twins)
    assert back_up(place) == 0
    assert "two machines" in "".join(json.loads(capsys.readouterr().out)["warnings"])
