"""How much memory a backup takes: ``python -m benchmarks.memory [--json OUT] [--megabytes 20 256 2048]``.

Whole runs of ``edgedr backup``, a full and a delta, against a real etcd whose database is 20, 256 and 2,048 MiB, and
``edgedr restore`` of the delta.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from benchmarks.edgedr_node import EdgedrNode
from benchmarks.measured import Cost, machine, mebibytes, megabytes, run, table
from tests.lab.etcd import EtcdCluster

TARGET = 256  # MiB
_MIB = 1 << 20
_CHANGED = 20  # one key of so many is written anew between the two backups


@dataclass(frozen=True, slots=True)
class Taken:
    """One run: what it did, with a database of how many bytes, how many it wrote, and what that took."""

    act: str
    database: int
    written: int
    cost: Cost


def backups(work: Path, megabytes_: int) -> Iterator[Taken]:
    """Fill a database, take a full, change a part of it, take a delta, restore that."""
    cluster = EtcdCluster(work / "etcd")
    cluster.members[0].extra_flags = ("--quota-backend-bytes=8589934592", "--unsafe-no-fsync")
    with cluster as etcd:
        for first in range(0, megabytes_, 8):
            etcd.fill(_values(range(first, min(first + 8, megabytes_)), generation=0))
        node = EdgedrNode(work / "node", etcd)
        yield _take(node, etcd, "full")
        etcd.fill(_values(range(0, megabytes_, _CHANGED), generation=1))
        yield _take(node, etcd, "delta")
    restored, cost = node.restore_etcd()
    yield Taken("restore", restored.stat().st_size, restored.stat().st_size, cost)


def _take(node: EdgedrNode, etcd: EtcdCluster, kind: str) -> Taken:
    added, cost = node.backup(kind)
    return Taken(kind, (etcd.members[0].data / "member/snap/db").stat().st_size, added, cost)


def _values(numbers: range, *, generation: int) -> Iterator[tuple[bytes, bytes]]:
    """Make values of nearly 1 MiB: half of each is random, the other half repeats."""
    for number in numbers:
        rng = Random(f"{number}:{generation}")
        halves = b"".join(rng.randbytes(4096) + rng.randbytes(64) * 64 for _ in range(127))
        yield b"/registry/blobs/%06d" % number, halves


def main() -> int:
    """Measure, print a table, and fail above the target."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--json", type=Path, help="write every figure there too")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[20, 256, 2048], help="database sizes in MiB")
    parser.add_argument("--work", type=Path, help="directory for temporary files; 10 GB, not a tmpfs")
    chosen = parser.parse_args()
    taken: list[Taken] = []
    for size in chosen.megabytes:
        with tempfile.TemporaryDirectory(dir=chosen.work, prefix="memory-") as name:
            taken += backups(Path(name), size)
    base = run([sys.executable, "-c", "pass"])
    print(json.dumps(machine(), indent=2))
    rows = [
        [
            f"{backup.act}, {megabytes(backup.database)} MB",
            megabytes(backup.written),
            mebibytes(backup.cost.peak),
            f"{backup.cost.seconds:.1f}",
            f"{backup.cost.cpu:.1f}",
        ]
        for backup in taken
    ]
    print(table(("run, database", "written MB", "peak MiB", "s", "CPU s"), rows))
    print(f"\nan empty interpreter takes {mebibytes(base.peak)} MiB")
    if chosen.json:
        figures = {"machine": machine(), "backups": [asdict(backup) for backup in taken]}
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n")
    worst = max(backup.cost.peak for backup in taken) / _MIB
    print(f"the worst takes {worst:.0f} MiB (target: at most {TARGET})")
    return 0 if worst <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
