"""A node set up by the commands that an operator types; files only, no etcd."""

import json
from pathlib import Path

from edgedr.cli.main import main
from edgedr.sources.table import SOURCE_NAMES
from tests.lab.fake_source import OPERATOR, bytes_of

DATA = bytes_of(1, 10_000)
ROOT_FILES = {"etc/hostname": b"cp-1\n", "etc/machine-id": b"0123456789abcdef0123456789abcdef\n", "srv/a": DATA[:5000]}


def site(path: Path) -> Path:
    """Lay a node's root below ``path``, and return where its configuration belongs."""
    for name, data in ROOT_FILES.items():
        (path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (path / "root" / name).write_bytes(data)
    return path / "etc/edgedr.toml"


def init(path: Path) -> int:
    """Run `edgedr init`."""
    return main(
        ["--config", str(path / "etc/edgedr.toml"), "init", "--site", "plant-7", "--root", str(path / "root"),
         "--recipient", OPERATOR.recipient, "--repository", str(path / "repository"), "--state", str(path / "state"),
         "--unproven"]
    )  # fmt: skip


def without_etcd(path: Path) -> None:
    """Let the configuration capture files only."""
    config = path / "etc/edgedr.toml"
    others = [name for name in SOURCE_NAMES if name != "files"]
    text = config.read_text().replace("# disabled = []", f"disabled = {json.dumps(others)}")
    text = text.replace("[sources.files]", '[sources.files]\nrequired = true\ninclude = ["/srv"]')
    config.write_text(text.replace('# keep_free = "256 MiB"', 'keep_free = "1 MiB"'))


def back_up(path: Path) -> int:
    """Run `edgedr backup`."""
    return main(["--config", str(path / "etc/edgedr.toml"), "backup", "--json"])


def move(origin: Path, copy: Path) -> None:
    """Let a configuration that was copied name its new place."""
    config = copy / "etc/edgedr.toml"
    config.write_text(config.read_text().replace(f'"{origin}/', f'"{copy}/'))
