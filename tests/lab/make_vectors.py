"""Make golden vectors of a new format: ``python -m tests.lab.make_vectors tests/vectors/format-N``."""

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgedr.model import EtcdFacts
from edgedr.node.node import Node
from edgedr.sealing.identities import make_identity
from edgedr.sealing.recipients import parse_recipient
from edgedr.sealing.signatures import Signer, allowed_signers_line
from edgedr.sources.base import Captured, Count, Stream
from edgedr.sources.etcd import ARTIFACT, EtcdSource
from edgedr.sources.files import FilesSource
from edgedr.storage.base import Spool
from tests.lab.fake_source import Lab, bytes_of, churned

SEGMENT = 64 << 10
PEOPLE = ("operator", "escrow", "spare")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot(EtcdSource):
    """etcd's source, given the snapshot instead of a server: pages, and the SHA-256 of them behind."""

    pages: bytes = b""

    def capture(self, node: Node) -> Iterator[Captured]:
        def pump(spool: Spool) -> None:
            spool.write(self.pages + hashlib.sha256(self.pages).digest())

        yield Stream(ARTIFACT, pump)
        yield EtcdFacts("cdf818194e3a8c32", "8e9e05c52164694d", 4242, "3.5.1")
        yield Count("keys", len(self.pages) // 100)


def make(at: Path) -> None:
    """Write a repository with a full and a delta of two segments each, for three people, and all that opens it."""
    at.mkdir(parents=True)
    signer = Signer.generate()
    keys = at / "keys"
    keys.mkdir()
    recipients = []
    for person in PEOPLE:
        made = make_identity()
        recipients.append(parse_recipient(made.recipient))
        (keys / f"{person}.txt").write_text(f"# public key: {made.recipient}\n{made.secret}\n")
    (keys / "allowed_signers").write_text(allowed_signers_line("plant-7", "cp-1", signer.public) + "\n")
    work = at / "work"
    lab = Lab(work)
    (lab.root / "etc/motd").write_text("a file with a mode\n")
    (lab.root / "etc/motd").chmod(0o640)
    (lab.root / "etc/link").symlink_to("site.conf")
    pages = bytes_of(2026, SEGMENT + 20 * 1024)
    expected = {}
    for content in (pages, churned(churned(pages, 1), 5) + bytes_of(1, 1024)):
        outcome = lab.back_up(
            b"",
            sources=(FilesSource(include=("/etc/*",)), Snapshot(pages=content)),
            recipients=tuple(recipients),
            signer=signer,
            kubernetes_version="1.36.2",
            segment_size=SEGMENT,
        )
        manifest = outcome.manifest
        expected[str(manifest.id)] = {
            "class": str(manifest.kind),
            "artifacts": {artifact.name: artifact.sha256 for artifact in manifest.artifacts},
        }
    lab.objects.rename(at / "repository")
    (at / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    _remove(work)


def _remove(directory: Path) -> None:
    for path in sorted(directory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    directory.rmdir()


if __name__ == "__main__":
    make(Path(sys.argv[1]))
