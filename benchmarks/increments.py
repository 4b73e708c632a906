"""How large an increment is, beside restic and Borg: ``python -m benchmarks.increments [--fixtures DIR] [--json OUT]``.

Two series in one run: the generated life of a small site on a real etcd, backed up by ``edgedr backup`` itself, the
others being given the very bytes that ``edgedr restore`` brings back; and, with ``--fixtures``, genuine snapshots.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from benchmarks.edgedr_node import EdgedrNode
from benchmarks.measured import Cost, machine, mebibytes, megabytes, run, table, version_of, weigh
from benchmarks.rivals import Borg, Restic, Rival
from tests.lab.churn import Site
from tests.lab.etcd import EtcdCluster, etcd_program
from tests.lab.tools import need

TARGET = 10  # times smaller than each rival, for the generated hour
_MEGABYTES = 28
_SETTLING_MINUTES = 15


@dataclass(frozen=True, slots=True)
class Stored:
    """What one tool stored of one snapshot: bytes by which its repository grew, and what that took."""

    size: int
    cost: Cost


@dataclass(frozen=True, slots=True)
class Row:
    """One snapshot: its size in the clear, and what each tool made of it, by name."""

    snapshot: str
    size: int
    stored: dict[str, Stored]

    def ratio(self, rival: str) -> float | None:
        """Return how many times as much a rival stored as a delta; ``None`` for the first of a series."""
        delta = self.stored.get("delta")
        return self.stored[rival].size / delta.size if delta else None


def generated(work: Path) -> Iterator[Row]:
    """Let a site live, back it up before and after, and yield what the tools made of that."""
    cluster = EtcdCluster(work / "etcd")
    cluster.members[0].extra_flags = ("--unsafe-no-fsync",)
    rivals = _rivals(work)
    with cluster as etcd:
        site = Site(etcd)
        site.fill(megabytes=_MEGABYTES)
        node = EdgedrNode(work / "node", etcd)
        for what, minutes, rate in (
            ("before", _SETTLING_MINUTES, 1.0),
            ("after an hour", 60, 1.0),
            ("after 5 minutes more", 5, 1.0),
            ("after a busy hour (rate 5)", 60, 5.0),
        ):
            site.churn(minutes=minutes, rate=rate)
            kind = "full" if what == "before" else "delta"
            size, cost = node.backup(kind)
            snapshot, _ = node.restore_etcd()
            stored = {kind: Stored(size, cost)}
            if kind == "delta":
                stored["full"] = _sealed(snapshot, work)
            yield Row(what, snapshot.stat().st_size, stored | _stored_by(rivals, snapshot, work))


def genuine(work: Path, names: Iterable[Path]) -> Iterator[Row]:
    """Yield what the tools make of a series of snapshots, each one against the one before."""
    rivals = _rivals(work)
    parent: Path | None = None
    for packed in names:
        snapshot = work / packed.name.removesuffix(".zst")
        subprocess.run([need("zstd"), "-q", "-d", str(packed), "-o", str(snapshot)], check=True)
        stored = {"full": _sealed(snapshot, work)}
        if parent is not None:
            stored["delta"] = _sealed(snapshot, work, parent)
            parent.unlink()
        yield Row(
            f"{packed.parent.name}/{snapshot.stem}",
            snapshot.stat().st_size,
            stored | _stored_by(rivals, snapshot, work),
        )
        parent = snapshot


def _rivals(work: Path) -> tuple[Rival, ...]:
    work.mkdir(parents=True, exist_ok=True)
    return Restic(work), Borg(work)


def _stored_by(rivals: Iterable[Rival], snapshot: Path, work: Path) -> dict[str, Stored]:
    """Give a snapshot to the rivals under one name, as a nightly script would."""
    same = work / "source" / "etcd.db"
    same.parent.mkdir(exist_ok=True)
    same.unlink(missing_ok=True)
    same.hardlink_to(snapshot)
    return {rival.name: Stored(*rival.add(same)) for rival in rivals}


def _sealed(snapshot: Path, work: Path, parent: Path | None = None) -> Stored:
    """Seal a file without a backup around it."""
    with tempfile.TemporaryDirectory(dir=work) as out:
        command: list[str | Path] = [sys.executable, "-m", "benchmarks.seal", snapshot, out]
        command += [parent] if parent else []
        cost = run(command, environment={"PYTHONPATH": str(Path(__file__).parent.parent)})
        return Stored(weigh(Path(out)), cost)


def _sizes(rows: list[Row]) -> str:
    head = ("snapshot", "database MB", "full MB", "delta MB", "restic MB", "Borg MB", "restic / delta", "Borg / delta")
    lines = []
    for row in rows:
        sizes = [megabytes(row.stored[name].size) if name in row.stored else "" for name in ("full", "delta")]
        rivals = [megabytes(row.stored[name].size) for name in ("restic", "borg")]
        ratios = [f"{ratio:.1f}" if (ratio := row.ratio(name)) else "" for name in ("restic", "borg")]
        lines.append([row.snapshot, megabytes(row.size), *sizes, *rivals, *ratios])
    return table(head, lines)


def _costs(rows: list[Row]) -> str:
    tools = ("full", "delta", "restic", "borg")
    head = ("snapshot", *(f"{tool} {what}" for tool in tools for what in ("s", "CPU s", "peak MiB")))
    lines = []
    for row in rows:
        cells = [row.snapshot]
        for tool in tools:
            cost = row.stored[tool].cost if tool in row.stored else None
            cells += [f"{cost.seconds:.1f}", f"{cost.cpu:.1f}", mebibytes(cost.peak)] if cost else ["", "", ""]
        lines.append(cells)
    return table(head, lines)


def _versions(work: Path) -> dict[str, str]:
    scratch = work / "versions"
    scratch.mkdir()
    tools = {rival.name: rival.version() for rival in (Restic(scratch), Borg(scratch))}
    return tools | {
        "edgedr": metadata.version("edgedr"),
        "etcd": version_of([etcd_program("3.5", "etcd"), "--version"]),
    }


def main() -> int:
    """Run both, print the tables, and fail if the generated hour misses its target."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.increments", description=__doc__)
    parser.add_argument("--fixtures", type=Path, help="directory with kubeadm/etcd-*.db.zst and kubeadm-quiet/")
    parser.add_argument("--json", type=Path, help="write every figure there too")
    parser.add_argument("--work", type=Path, help="directory for temporary files; 2 GB, best not a tmpfs")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.work, prefix="increments-") as name:
        work = Path(name)
        conditions = {"machine": machine(), "versions": _versions(work)}
        made = list(generated(work / "generated"))
        series = []
        for folder, pattern in (("kubeadm", "etcd-[0-9].db.zst"), ("kubeadm-quiet", "etcd-[0-9].db.zst")):
            if chosen.fixtures:
                series += list(genuine(work / folder, sorted((chosen.fixtures / folder).glob(pattern))))
    print(json.dumps(conditions, indent=2))
    for title, rows in (("Generated", made), ("Genuine", series)):
        if rows:
            print(f"\n### {title}: bytes added to the repository\n\n{_sizes(rows)}")
            print(f"\n### {title}: cost\n\n{_costs(rows)}")
    if chosen.json:
        figures = {**conditions, "generated": [asdict(row) for row in made], "genuine": [asdict(row) for row in series]}
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n")
    worst = min(ratio for rival in ("restic", "borg") if (ratio := made[1].ratio(rival)))
    print(f"\nthe generated hour is {worst:.1f} times smaller than the better of restic and Borg (target: {TARGET})")
    return 0 if worst >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
