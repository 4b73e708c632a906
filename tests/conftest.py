"""What all tests share: no deadlines, which a busy machine would miss, and the fixtures of the fault suite."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

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
