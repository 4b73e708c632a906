"""What is wrong with one part of a node never costs the backup of the others."""

import json
import resource
from pathlib import Path
from typing import Any

import pytest

from edgedr.cli.main import main
from tests.lab.whole import Operated, operated


def document(plane: Operated, *words: str, code: int = 0) -> Any:
    out, _ = plane.operator.run(*words, "--json", code=code)
    return json.loads(out)


@pytest.mark.parametrize("content", [None, "", "kind: Config\n", "\t", "[" * 30_000])
def test_a_kubeconfig_that_cannot_be_used(tmp_path: Path, content: str | None) -> None:
    """Named in the configuration, and absent, empty, half written: exit 3, etcd and keys are stored, it is named."""
    with operated(tmp_path) as plane:
        config = plane.operator.config
        config.write_text(
            config.read_text().replace("[kubernetes]", '[kubernetes]\nkubeconfig = "/etc/kubernetes/own.conf"')
        )
        if content is not None:
            (plane.root / "etc/kubernetes/own.conf").write_text(content)
        found = document(plane, "backup", code=3)
        assert found["sources"]["etcd"]["status"] == "ok"
        assert found["sources"]["certificates"]["status"] == "ok"
        assert found["sources"]["objects"]["status"] == "missing"
        assert "/etc/kubernetes/own.conf" in found["sources"]["objects"]["reason"]


def test_no_core_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    """A core of this process would hold keys in the clear."""
    assert main(["--version"]) == 0
    capsys.readouterr()
    assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
