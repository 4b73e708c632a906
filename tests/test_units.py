"""The systemd units are ones that systemd takes, and only ever call commands that exist."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from edgedr.cli.parser import build_parser
from tests.lab.tools import need

UNITS = sorted((Path(__file__).parent.parent / "systemd").iterdir())


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say about them."""
    for unit in UNITS:
        text = unit.read_text().replace("/usr/local/bin/edgedr", sys.executable)
        (tmp_path / unit.name).write_text(text)
    command = [need("systemd-analyze"), "verify", *(str(tmp_path / unit.name) for unit in UNITS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if str(tmp_path) in line]) == (0, [])


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.suffix == ".service"], ids=lambda unit: unit.name)
def test_units_call_commands_that_exist(unit: Path) -> None:
    """What a unit starts is a command line that edgedr takes."""
    lines = [line.partition("=")[2] for line in unit.read_text().splitlines() if line.startswith("ExecStart=")]
    assert lines
    for line in lines:
        build_parser().parse_args(shlex.split(line)[1:])
