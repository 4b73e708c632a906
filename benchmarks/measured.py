"""Run a command and learn what it cost; say on what machine and with which versions.

The command is started by this file run as a program, because the kernel counts what a process weighed *before* it
became the command: a child of a benchmark that has read a database would begin with that benchmark's peak.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cost:
    """What a command took, children included: ``peak`` is the resident bytes of the largest process."""

    seconds: float
    cpu: float
    peak: int


def run(
    command: Sequence[str | Path], *, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> Cost:
    """Run a command, children included, and return its cost. A failure is a ``RuntimeError`` with its output."""
    with tempfile.NamedTemporaryFile() as report:
        done = subprocess.run(
            [sys.executable, "-I", "-S", __file__, report.name, *map(str, command)],
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return Cost(**json.loads(Path(report.name).read_bytes()))


def weigh(path: Path) -> int:
    """Return the bytes of all files below ``path``."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def version_of(command: Sequence[str | Path]) -> str:
    """Return the first line that a program prints about itself."""
    output = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout
    return output.splitlines()[0].strip()


def machine() -> dict[str, str]:
    """Say on what kind of machine this runs: nothing that names it."""
    text = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "unknown")
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": model,
        "cores": str(os.cpu_count()),
        "memory": f"{pages * size / (1 << 30):.0f} GiB",
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
    }


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, numbers to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def megabytes(size: float) -> str:
    """Show bytes as MB (10^6)."""
    return f"{size / 1e6:.2f}"


def mebibytes(size: float) -> str:
    """Show bytes of memory as MiB."""
    return f"{size / (1 << 20):.0f}"


def _measure(report: str, command: list[str]) -> int:
    began = time.monotonic()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    cost = {
        "seconds": time.monotonic() - began,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak": usage.ru_maxrss * 1024,
    }
    Path(report).write_text(json.dumps(cost))
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(_measure(sys.argv[1], sys.argv[2:]))
