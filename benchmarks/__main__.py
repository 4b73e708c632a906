"""Run them all: ``python -m benchmarks [--fixtures DIR] [--json DIR] [--work DIR]``; takes ten minutes and 10 GB."""

import argparse
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run one after the other; fail if one of them misses its target."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--fixtures", type=Path, help="directory with genuine snapshots, for the second table")
    parser.add_argument("--json", type=Path, help="directory for NAME.json of each")
    parser.add_argument("--work", type=Path, help="directory for temporary files; not a tmpfs")
    chosen = parser.parse_args()
    missed = []
    for name in ("startup", "increments", "memory", "replication"):
        command = [sys.executable, "-m", f"benchmarks.{name}"]
        command += ["--json", str(chosen.json / f"{name}.json")] if chosen.json else []
        command += ["--work", str(chosen.work)] if chosen.work and name != "startup" else []
        command += ["--fixtures", str(chosen.fixtures)] if chosen.fixtures and name == "increments" else []
        print(f"\n## {name}\n", flush=True)
        if subprocess.run(command, check=False).returncode:
            missed.append(name)
    print(f"\ntargets missed: {', '.join(missed) or 'none'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
