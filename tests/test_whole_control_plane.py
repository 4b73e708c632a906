"""One backup of everything: genuine files, a real etcd, a TLS API server, a real name server; and what lacks of it.

The acceptance of closure: with every source there it is complete; with any single piece taken away it names that piece.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgedr.archive import NODE_TAR
from tests.lab.apiserver import synthetic
from tests.lab.nameserver import KEY, SECRET, Knot
from tests.lab.operator import Operator, Said, files_with
from tests.lab.whole import Operated, operated

PKI = "/etc/kubernetes/pki"
ABSENT = {"sqlite"}
MIXED = ("serviceaccounts", "dns", "addresses", "machine")
"""Sources of which a part comes from the API server."""
ZONE = "@ 60 SOA ns a 7 60 60 60 60\n@ 60 NS ns\nns 60 A 10.0.0.1\nwww 60 A 10.0.0.2\n"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    with operated(tmp_path_factory.mktemp("plane")) as plane:
        yield plane


def document(operator: Operator, *words: str, code: int = 0) -> Any:
    out, _ = operator.run(*words, "--json", code=code)
    return json.loads(out)


def statuses(found: Any) -> dict[str, str]:
    return {name: source["status"] for name, source in found["sources"].items()}


def closed(operator: Operator) -> list[str]:
    """Return the pieces that closure names as missing in the newest backup."""
    found = document(operator, "show", "latest", "--closure")
    return [finding["subject"] for finding in found["findings"] if finding["severity"] == "bad"]


def test_every_source_is_ok_and_closure_complete(plane: Operated) -> None:
    """One backup has it all; a second one of the unchanged node ships under 10 kB in all."""
    first = document(plane.operator, "backup", "--full")
    assert {name for name, status in statuses(first).items() if status == "absent"} == ABSENT
    assert {name for name, status in statuses(first).items() if status != "ok"} == ABSENT
    assert [finding for finding in first["findings"] if finding["severity"] != "good"] == []
    second = document(plane.operator, "backup")
    assert second["class"] == "delta"
    shipped = sum(path.stat().st_size for path in plane.operator.repository.rglob(f"*/{second['id']}/*"))
    assert shipped < 10_000
    assert closed(plane.operator) == []
    assert plane.api.writes == []


def test_it_reads_well(plane: Operated) -> None:
    """What a person sees fits 80 columns, names every source, and says what is in it."""
    for words in (("backup",), ("show", "latest"), ("list",), ("config", "check"), ("show", "latest", "--closure")):
        out, _ = plane.operator.run(*words)
        wide = [line for line in out.splitlines() if len(line) > 80 and not re.search(r"\S{60}", line)]
        assert wide == [], words
    out, _ = plane.operator.run("show", "latest")
    for line in (
        r"serviceaccounts  ok      60 accounts, .*37 secrets",
        r"certificates     ok      20 certificates, .*16 keys",
        r"objects          ok      44 kinds, 556 objects",
        r"closure          complete",
    ):
        assert re.search(f"^{line}", out, re.MULTILINE), line
    assert "sqlite" not in out


def test_all_of_it_comes_back_and_is_proven(plane: Operated, tmp_path: Path) -> None:
    """Every source finds its own good after an extraction, and the documents lie beside the inventory."""
    plane.operator.run("backup")
    plane.operator.signers()
    out = document(
        plane.operator, "restore", "--identity", str(plane.operator.identity), "--to", str(tmp_path / "restored")
    )
    assert {finding["severity"] for finding in out["findings"]} == {"good"}
    own = tmp_path / "restored/files/.edgedr"
    for name in (
        "addresses/plan.txt",
        "certificates/ledger.txt",
        "dns/coredns.yaml",
        "kubernetes/deployments.apps.yaml",
        "machine/machine.txt",
        "serviceaccounts/secrets.yaml",
    ):
        assert (own / name).stat().st_size > 100, name


@pytest.mark.parametrize(
    "piece",
    [
        "/etc/kubernetes/enc/encryption.yaml",
        f"{PKI}/sa.key",
        f"{PKI}/sa.pub",
        f"{PKI}/ca.crt",
        f"{PKI}/ca.key",
        f"{PKI}/front-proxy-ca.crt",
        f"{PKI}/apiserver.key",
        f"{PKI}/etcd/peer.crt",
        "/etc/kubernetes/audit/policy.yaml",
        "/etc/kubernetes/scheduler.conf",
    ],
)
def test_without_one_piece_closure_names_exactly_that(plane: Operated, piece: str, tmp_path: Path) -> None:
    """Exit 3, incomplete, the one piece named, everything else stored; and whole again once it is back."""
    path = plane.root / piece[1:]
    aside = Path(shutil.move(path, tmp_path / "aside"))
    try:
        found = document(plane.operator, "backup", code=3)
        assert closed(plane.operator) == [piece]
        assert found["missing"] == ["closure"]
        assert document(plane.operator, "list")[-1]["complete"] is False
    finally:
        shutil.move(aside, path)


def test_without_the_encryption_key_closure_names_it(plane: Operated) -> None:
    """The file is there, the key in it is another one: what is sealed cannot be read."""
    path = plane.root / "etc/kubernetes/enc/encryption.yaml"
    text = path.read_text()
    path.write_text(text.replace("name: key1", "name: key2"))
    try:
        plane.operator.run("backup", code=3)
        assert closed(plane.operator) == ["encryption key key1"]
    finally:
        path.write_text(text)


@pytest.mark.parametrize(
    ("trouble", "expected"),
    [
        ("down", {"objects": "missing", **dict.fromkeys(MIXED, "partial")}),
        ("403 on one kind", {"objects": "partial", "dns": "partial"}),  # whose records external-dns owns is not known
        ("broken CRD", {"objects": "partial"}),
        ("410 in the middle", {}),
    ],
)
def test_trouble_with_the_api_server(plane: Operated, trouble: str, expected: dict[str, str]) -> None:
    """Fault 34: the other sources go on, what lacks is named, exit 3; a list that was outdated is simply read again."""
    api = plane.api
    config = plane.operator.config
    text = config.read_text()
    try:
        match trouble:
            case "down":
                config.write_text(text.replace(api.url, "https://127.0.0.1:1"))
            case "403 on one kind":
                api.refuse["/apis/apps/v1/deployments"] = 403
            case "broken CRD":
                api.refuse["/apis/db.example.test/v1/postgreses"] = 500
            case "410 in the middle":
                config.write_text(text.replace("[kubernetes]", "[kubernetes]\npage = 7"))
                api.expire["/api/v1/configmaps"] = 1
        found = document(plane.operator, "backup", code=3 if expected else 0)
        assert {name: s for name, s in statuses(found).items() if s not in {"ok", "absent"}} == expected
        assert statuses(found)["etcd"] == "ok"
        for name in expected:
            assert found["sources"][name]["reason"]
        if trouble == "403 on one kind":
            assert "deployments" in found["sources"]["objects"]["reason"]
    finally:
        config.write_text(text)
        api.refuse.clear()
        api.expire.clear()


def test_no_secret_leaves_the_node_in_the_clear(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fault 25: canaries in every source are in no output, log, manifest or sealed object; only in the 0600 cache."""
    canary = "c4n4ry-of-all-sources"
    zone = f'{ZONE}x 60 TXT "{canary}"\n'
    with operated(tmp_path / "plane") as plane, Knot(tmp_path / "knot", {"plant.example": zone}) as knot:
        root = plane.root
        for secret in plane.api.recording["/api/v1/secrets"]["items"]:
            secret["data"] = {"canary": canary}
        plane.api.recording["/api/v1/configmaps"]["items"][0]["data"] = {"canary": canary}
        (root / "etc/kubernetes/audit/policy.yaml").write_text(f"# {canary}\n")
        (root / "etc/netplan").mkdir()
        (root / "etc/netplan/wifi.yaml").write_text(f"password: {canary}\n")
        (root / "etc/fstab").write_text(f"//nas/x /mnt cifs password={canary} 0 0\n")
        plane.transfer(knot.server, "plant.example", KEY, SECRET, tmp_path / "tsig")
        operator = plane.operator
        for form in ("json", "console"):
            operator.run("backup", "--full", EDGEDR_LOG=form)
        for words in (("show", "latest"), ("show", "latest", "--closure"), ("list",), ("config", "check")):
            operator.run(*words)
        keys = [line for line in (root / "etc/kubernetes/pki/sa.key").read_text().splitlines() if len(line) == 64]
        encryption = re.search(r"secret: (\S+)", (root / "etc/kubernetes/enc/encryption.yaml").read_text())
        assert encryption is not None
        for secret in (canary, SECRET, keys[3], encryption[1], operator.secret):
            assert secret not in "".join(operator.printed)
            assert files_with(operator.repository, secret) == []
        in_the_clear = files_with(operator.state, canary)
        assert {path.name for path in in_the_clear} == {NODE_TAR}
        assert {path.stat().st_mode & 0o777 for path in in_the_clear} == {0o600}


def test_a_zone_is_in_the_backup(tmp_path: Path) -> None:
    """Records of a real name server, by transfer with a key; a wrong key is named, exit 3, the rest stored."""
    with operated(tmp_path / "plane") as plane, Knot(tmp_path / "knot", {"plant.example": ZONE}) as knot:
        plane.transfer(knot.server, "plant.example", KEY, SECRET, tmp_path / "tsig")
        found = document(plane.operator, "backup")
        assert found["sources"]["dns"]["counts"]["zones"] == 1
        assert found["sources"]["dns"]["counts"]["records"] == 4
        (tmp_path / "tsig").write_text("b3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIhISE=")
        found = document(plane.operator, "backup", code=3)
        assert statuses(found)["dns"] == "partial"
        assert "plant.example" in found["sources"]["dns"]["reason"]
        assert statuses(found)["objects"] == "ok"


def test_another_node_captures_the_cluster(plane: Operated, capsys: pytest.CaptureFixture[str]) -> None:
    """Told never to, this node keeps its own part only; that is no incomplete backup."""
    config = plane.operator.config
    text = config.read_text()
    config.write_text(text.replace('# cluster_capture = "auto"', 'cluster_capture = "never"'))
    try:
        found = document(plane.operator, "backup")
        by_status = {name: status for name, status in statuses(found).items() if status != "ok"}
        assert by_status == {"etcd": "elsewhere", "objects": "elsewhere", "sqlite": "absent"}
        assert "etcd.db" not in found["artifacts"]
    finally:
        config.write_text(text)
    found = document(plane.operator, "backup")
    assert statuses(found)["etcd"] == "ok"
    said = Said(plane.operator, capsys)
    assert "closure          complete" in said("show", "latest")


def _backed_up(operator: Operator, code: int) -> tuple[Any, int]:
    """Back up in a process of its own; return its document, and the most memory it had, in bytes."""
    command = [sys.executable, "-m", "edgedr", *operator.words("backup", "--json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == code, said
    return json.loads(said), usage.ru_maxrss * 1024


def test_twenty_thousand_objects(tmp_path: Path) -> None:
    """Page by page: memory stays bounded, all of them come, never two requests at once; the next backup is small."""
    with operated(tmp_path) as plane:
        found, few = _backed_up(plane.operator, 0)
        before = found["sources"]["objects"]["counts"]["objects"]
        plane.api.recording["/api/v1/configmaps"] = synthetic(20_000, size=1000)
        plane.api.requests.clear()
        found, many = _backed_up(plane.operator, 0)
        assert found["sources"]["objects"]["counts"]["objects"] > before + 19_900
        assert many - few < 40 << 20  # what sealing 20 MB takes; the objects themselves are read by the page
        pages = [path for path in plane.api.requests if path.startswith("/api/v1/configmaps?")]
        assert len(pages) >= 20_000 // 250
        assert plane.api.most_at_once == 1
        again = document(plane.operator, "backup")
        assert again["artifacts"]["node.tar"]["sealed_bytes"] < 10_000


@pytest.mark.parametrize("trouble", ["slow", "hangs"])
def test_a_slow_api_server_costs_its_deadline(tmp_path: Path, trouble: str) -> None:
    """What could not be had in time is named, exit 3; etcd and the node's own part are stored all the same."""
    with operated(tmp_path) as plane:
        config = plane.operator.config
        config.write_text(config.read_text().replace("[kubernetes]", '[kubernetes]\ndeadline = "2 s"\nanswer = "1 s"'))
        if trouble == "slow":
            plane.api.delay = dict.fromkeys(plane.api.recording, 0.3)
        else:
            plane.api.stall.add("/api/v1/configmaps")
            plane.api.stall.add("/api/v1/serviceaccounts")
        found = document(plane.operator, "backup", code=3)
        assert statuses(found)["objects"] in {"partial", "missing"}
        assert {name: statuses(found)[name] for name in ("etcd", "certificates", "files")} == dict.fromkeys(
            ("etcd", "certificates", "files"), "ok"
        )
        assert "objects" in found["missing"]
