"""How much CPU time a short command takes: ``python -m benchmarks.startup [--json OUT]``.

User and system time of the process and its children, the median of ten runs after one that warms the caches up.
Bytecode is written, whatever the environment says, as an installed package has it.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.edgedr_node import EdgedrNode
from benchmarks.measured import machine, mebibytes, run, table
from tests.lab.etcd import EtcdCluster

TARGET = 150  # milliseconds
_RUNS = 10
_BACKUPS = 3


def measure(command: Sequence[str | Path], bytecode: Path) -> tuple[float, int]:
    """Return the median CPU time in milliseconds and the largest peak memory in bytes."""
    environment = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(bytecode)}
    run(command, environment=environment)
    costs = [run(command, environment=environment) for _ in range(_RUNS)]
    return statistics.median(cost.cpu for cost in costs) * 1000, max(cost.peak for cost in costs)


def main() -> int:
    """Measure, print a table, and fail above the target."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--json", type=Path, help="write every figure there too")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="startup-") as name:
        work = Path(name)
        with EtcdCluster(work / "etcd") as etcd:
            etcd.fill((b"/registry/a/%d" % number, b"a" * 1000) for number in range(100))
            node = EdgedrNode(work / "node", etcd)
            for number in range(_BACKUPS):
                node.backup("delta" if number else "full")
        commands: dict[str, Sequence[str | Path]] = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "edgedr --help": [node.program, "--help"],
            f"edgedr list ({_BACKUPS} backups)": node.command("list"),
        }
        figures = {title: measure(command, work / "bytecode") for title, command in commands.items()}
    print(json.dumps(machine(), indent=2))
    rows = [[f"`{title}`", f"{cpu:.0f}", mebibytes(peak)] for title, (cpu, peak) in figures.items()]
    print(table(("command", "CPU ms", "peak MiB"), rows))
    if chosen.json:
        chosen.json.write_text(json.dumps({"machine": machine(), "figures": figures}, indent=2) + "\n")
    slowest = max(cpu for cpu, _ in figures.values())
    print(f"\nthe slowest takes {slowest:.0f} ms of CPU time (target: below {TARGET})")
    return 0 if slowest < TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
