"""A node with edgedr on it, below a directory: configured for a laboratory etcd, driven by the command line alone."""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measured import Cost, run, weigh
from edgedr.sealing.identities import make_identity
from edgedr.sealing.signatures import Signer, allowed_signers_line
from edgedr.sources.table import SOURCE_NAMES
from tests.lab.etcd import EtcdCluster

SITE, NODE = "plant-7", "cp-1"
OTHERS = [name for name in SOURCE_NAMES if name not in {"etcd", "certificates", "files"}]
"""Sources that are not measured beside etcdctl, restic and borg, which have no such thing."""


class EdgedrNode:
    """edgedr as an operator has it: configuration, state, repository; and, elsewhere in life, the identity."""

    def __init__(self, directory: Path, etcd: EtcdCluster) -> None:
        found = shutil.which("edgedr", path=str(Path(sys.executable).parent)) or shutil.which("edgedr")
        if found is None:
            raise RuntimeError("edgedr is not installed: pip install -e .")
        self.program = Path(found)
        self.repository = directory / "repository"
        self._directory = directory
        self._configuration = directory / "edgedr.toml"
        self._identity = directory / "identity.txt"
        self._signers = directory / "allowed_signers"
        state = directory / "state"
        state.mkdir(parents=True, mode=0o700)
        identity, signer = make_identity(), Signer.generate()
        self._identity.write_text(identity.secret + "\n")
        self._identity.chmod(0o600)
        self._signers.write_text(allowed_signers_line(SITE, NODE, signer.public) + "\n")
        (state / "signing.key").write_bytes(signer.private_bytes())
        (state / "signing.key").chmod(0o600)
        self._configuration.write_text(
            f'[node]\nsite = "{SITE}"\nname = "{NODE}"\nroot = "{etcd.root}"\n'
            f'[sealing]\nrecipients = ["{identity.recipient}"]\n'
            f'[repository]\npath = "{self.repository}"\n[state]\npath = "{state}"\n'
            f"[sources]\ndisabled = {json.dumps(OTHERS)}\n"
        )

    def command(self, *words: str | Path) -> Sequence[str | Path]:
        """Return a command line of edgedr with this node's configuration."""
        return [self.program, "--config", self._configuration, *words]

    def backup(self, kind: str) -> tuple[int, Cost]:
        """Take a backup, which must turn out a ``full`` or a ``delta``; return the bytes it added, and the cost."""
        before, there = weigh(self.repository), self._count(kind)
        cost = run(self.command("backup"))
        if self._count(kind) != there + 1:
            raise RuntimeError(f"that should have been a {kind}")
        return weigh(self.repository) - before, cost

    def restore_etcd(self) -> tuple[Path, Cost]:
        """Restore etcd's snapshot from the newest backup; return where it is, and the cost."""
        target = self._directory / "restored"
        shutil.rmtree(target, ignore_errors=True)
        trust = ("--identity", self._identity, "--allowed-signers", self._signers)
        cost = run(self.command("restore", "latest", "--to", target, "--only", "etcd", *trust))
        (found,) = target.rglob("etcd.db")
        return found, cost

    def _count(self, kind: str) -> int:
        return len(list((self.repository / "v1" / kind).rglob("manifest.json")))
