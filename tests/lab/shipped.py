"""What a node shipped to a bucket, and somebody on another machine who has only that bucket, an identity, and a key."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgedr.cli.main import main
from edgedr.sealing.identities import make_identity
from edgedr.sealing.signatures import Signer, allowed_signers_line
from edgedr.state import StateDirectory
from edgedr.storage.s3 import S3Storage
from edgedr.storage.s3_options import S3Options
from tests.lab.fake_source import OPERATOR, bytes_of
from tests.lab.s3road import as_replica, fresh_prefix, options, shared
from tests.lab.s3servers import S3Server
from tests.lab.site import init, site, without_etcd
from tests.storage_contract import get, names

SITE, NODE = "plant-7", "cp-1"
HEARTBEAT = f"v1/heartbeat/{SITE}/{NODE}.json"
FIRST = 2_200_000
"""Bytes of new files in the full: it has three segments."""


@dataclass(frozen=True)
class Shipped:
    """A full of three segments and two deltas upon it, their heartbeat, and what a person keeps elsewhere."""

    objects: Mapping[str, bytes]
    ids: tuple[str, ...]
    keys: Path
    signer: Signer
    newest: Mapping[str, bytes]
    """The files that the newest backup captured, by their path."""

    def of(self, backup: int) -> dict[str, bytes]:
        """Return the objects of one of the backups, counted from 0; -1 is the newest."""
        return {name: data for name, data in self.objects.items() if f"/{self.ids[backup]}/" in name}

    def segments(self, *backups: int) -> dict[str, bytes]:
        """Return the sealed segments of backups."""
        found = {name: data for backup in backups for name, data in self.of(backup).items()}
        return {name: data for name, data in found.items() if name.endswith(".age")}


def ship_some(server: S3Server, path: Path) -> Shipped:
    """Let a node back up three times, with a bucket as its replica, by the commands."""
    there = options(server, server.bucket())
    site(path)
    assert init(path) == 0
    without_etcd(path)
    made = make_identity()
    config = path / "etc/edgedr.toml"
    text = config.read_text().replace('# segment = "64 MiB"', 'segment = "1 MiB"')
    config.write_text(text.replace(OPERATOR.recipient, made.recipient) + as_replica(there))
    for seed, size in ((1, FIRST), (2, 3000), (3, 3000)):
        (path / "root/srv" / f"new-{seed}").write_bytes(bytes_of(seed, size))
        assert main(["--config", str(config), "backup"]) == 0
    signer = StateDirectory(path / "state").signer()
    keys = path / "keys"
    keys.mkdir()
    (keys / "key.txt").write_text(f"{made.secret}\n")
    (keys / "allowed_signers").write_text(allowed_signers_line(SITE, NODE, signer.public) + "\n")
    storage = S3Storage(there)
    objects = {name: get(storage, name) for name in names(storage)}
    ids = sorted({name.split("/")[4] for name in objects if name.endswith("/manifest.json")})
    files = {str(file.relative_to(path / "root")): file.read_bytes() for file in (path / "root/srv").iterdir()}
    return Shipped(objects, tuple(ids), keys, signer, files)


class Away:
    """Somebody with a bucket and no configuration, who types commands, each run in this process."""

    def __init__(self, shipped: Shipped, storage: S3Storage, capsys: pytest.CaptureFixture[str]) -> None:
        self.shipped, self.storage, self._capsys = shipped, storage, capsys
        self.place = storage._options

    def fill(self, objects: Mapping[str, bytes] | None = None) -> None:
        """Put what the node shipped, or something else, into the bucket, over what is there."""
        for name, data in (self.shipped.objects if objects is None else objects).items():
            self.write(name, data)

    def write(self, name: str, data: bytes) -> None:
        """Write over an object, as somebody may who has the right."""
        self.storage.client.call("put_object", name, Key=f"{self.place.prefix}/{name}", Body=data)

    def hide(self, *backups: int) -> None:
        """Delete backups, as somebody may who has the right; with versions, that makes a mark."""
        for backup in backups:
            for name in self.shipped.of(backup):
                self.storage.delete(name)

    def access(self, place: S3Options | None = None) -> list[str]:
        """Return the options that say how the bucket is reached."""
        there = place or self.place
        return [
            *("--endpoint", there.endpoint or "", "--ca", str(there.ca), "--path-style"),
            *("--credential", str(there.credential)),
        ]

    def run(self, *words: str | Path, code: int = 0) -> str:
        """Run a command as it is given; return all that it said."""
        self._capsys.readouterr()
        ended = main([str(word) for word in words])
        said = self._capsys.readouterr()
        assert ended == code, said.out + said.err
        assert "Traceback" not in said.err
        if code not in {0, 3}:
            assert "\n  hint: " in said.err
        return said.out + said.err

    def here(self, *words: str | Path, code: int = 0, place: S3Options | None = None) -> str:
        """Run a command that reads backups from the bucket."""
        there = place or self.place
        return self.run(*words, "--from", there.url, *self.access(there), code=code)

    def json(self, *words: str | Path, code: int = 0, place: S3Options | None = None) -> Any:
        """Run it; return the document that it printed."""
        said = self.here(*words, "--json", code=code, place=place)
        return json.JSONDecoder().raw_decode(said)[0]

    @property
    def identity(self) -> tuple[str, Path]:
        return "--identity", self.shipped.keys / "key.txt"

    def restored(self, to: Path) -> dict[str, bytes]:
        """Return the files that a restore brought, below the node's ``/srv``."""
        top = to / "files"
        return {str(file.relative_to(top)): file.read_bytes() for file in (top / "srv").iterdir()}


def away(shipped: Shipped, storage: S3Storage, capsys: pytest.CaptureFixture[str]) -> Away:
    """Fill a new place in that bucket with what was shipped; return who finds it there."""
    made = Away(shipped, shared(storage.client, fresh_prefix()), capsys)
    made.fill()
    return made
