"""What all tests share: no deadlines, which a busy machine would miss, a fast disk, nodes to look at."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.lab.operator import Operator, Said, with_two_backups
from tests.lab.s3fixtures import (  # noqa: F401 - found here by pytest
    crossing,
    keeping,
    plain_bucket,
    proxy,
    road,
    shipped,
    there,
    versioned_bucket,
)
from tests.lab.s3servers import Ceph, Moto, Rclone, started

settings.register_profile("edgedr", deadline=None)
settings.load_profile("edgedr")


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: thousands of small changes are made here, none meant to last."""
    memory = Path("/dev/shm")
    at = Path(tempfile.mkdtemp(dir=memory)) if os.access(memory, os.W_OK) else tmp_path
    yield at
    if at != tmp_path:
        shutil.rmtree(at)


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here cuts the power, so waiting for the disk would prove nothing."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def node(scratch: Path) -> Operator:
    """Somebody at a terminal of a node that is not set up yet."""
    return Operator(scratch)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """A node with a full and a delta, only to look at."""
    return with_two_backups(tmp_path_factory.mktemp("node"))


@pytest.fixture
def look(kept: Operator, capsys: pytest.CaptureFixture[str]) -> Said:
    """Commands on that node, in this process."""
    return Said(kept, capsys)


@pytest.fixture(scope="session")
def ceph() -> Ceph:
    """The real S3 server."""
    return started(Ceph)


@pytest.fixture(scope="session")
def moto() -> Moto:
    """The quick S3 server."""
    return started(Moto)


@pytest.fixture(scope="session")
def rclone() -> Rclone:
    """The weak S3 server."""
    return started(Rclone)
