"""k3s from node to repository and back, by the commands that an operator types: on SQLite while it writes, on etcd."""

import base64
import json
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edgedr.etcdfile import EtcdFile
from edgedr.sources.table import SOURCE_NAMES
from tests.lab import k3s, kine, kubeadm
from tests.lab.apiserver import ApiServer
from tests.lab.etcd import EtcdCluster
from tests.lab.operator import Operator

WITHOUT_MACHINE = [name for name in SOURCE_NAMES if name in {"addresses", "machine"}]
_KUBECONFIG = "/etc/rancher/k3s/stand-in.yaml"


def document(operator: Operator, *words: str, code: int = 0) -> Any:
    out, _ = operator.run(*words, "--json", code=code)
    return json.loads(out)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server: the recording of another distribution's."""
    root = kubeadm.unpack(tmp_path_factory.mktemp("api"))
    with ApiServer(root / "etc/kubernetes/pki") as server:
        server.tokens.add("t0ken")
        yield server


def set_up(directory: Path, node: k3s.K3sNode, api: ApiServer) -> Operator:
    """Let somebody set edgedr up on a node, with an API server to ask."""
    operator = Operator(directory, node.root)
    operator.init(WITHOUT_MACHINE)
    authority = base64.b64encode((api.pki / "ca.crt").read_bytes()).decode()
    config = {
        "kind": "Config",
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "clusters": [{"name": "x", "cluster": {"server": api.url, "certificate-authority-data": authority}}],
        "users": [{"name": "x", "user": {"token": "t0ken"}}],
    }
    node.write(_KUBECONFIG, json.dumps(config))
    asked = f'[kubernetes]\nkubeconfig = "{_KUBECONFIG}"\nrequests_per_second = 1000'
    operator.config.write_text(operator.config.read_text().replace("[kubernetes]", asked))
    return operator


@pytest.fixture
def on_sqlite(tmp_path: Path, api: ApiServer) -> tuple[Operator, k3s.K3sNode]:
    node = k3s.build(tmp_path / "root")
    return set_up(tmp_path, node, api), node


def restored(operator: Operator, backup: str) -> Path:
    """Extract a backup, and return the database that came out."""
    to = operator.directory / f"restored-{backup}"
    operator.run("restore", backup, "--identity", operator.identity, "--to", to)
    return to / "state.db"


def test_sqlite_while_it_is_written(on_sqlite: tuple[Operator, k3s.K3sNode]) -> None:
    """Backups under concurrent writes: each restored database is sound, and was true at one moment; deltas follow."""
    operator, node = on_sqlite
    operator.signers()
    backups = []
    with k3s.hammered(node.database):
        for _ in range(5):
            found = document(operator, "backup")
            assert found["sources"]["sqlite"]["status"] == "ok"
            assert found["sources"]["etcd"]["status"] == "absent"
            assert found["sources"]["closure"]["status"] == "ok"
            backups.append(found)
    classes = [found["class"] for found in backups]
    assert classes[0] == "full"
    assert "delta" in classes  # a large delta is followed by a full, and this is a small database
    keys = []
    for found in backups:
        database = restored(operator, found["id"])
        with closing(sqlite3.connect(database)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert kine.torn(database) is None
        keys.append(kine.live(database))
    assert len({json.dumps(sorted((k, v.hex()) for k, v in each.items())) for each in keys}) > 1, "nothing was written"


def test_an_unchanged_node_ships_next_to_nothing(on_sqlite: tuple[Operator, k3s.K3sNode]) -> None:
    """The second backup of a k3s node that stands still is under 10 kB in all."""
    operator, _ = on_sqlite
    said, _ = operator.run("backup")
    assert re.search(r"^sqlite           \d+\.\d+ kB  revision \d+, \d+ keys$", said, re.MULTILINE)
    assert re.search(r"^closure          complete", said, re.MULTILINE)
    found = document(operator, "backup")
    assert sum(path.stat().st_size for path in operator.repository.rglob(f"*/{found['id']}/*")) < 10_000


def test_the_same_by_hand(on_sqlite: tuple[Operator, k3s.K3sNode]) -> None:
    """The recipe that lies in the repository brings the database out with stock tools alone."""
    operator, node = on_sqlite
    document(operator, "backup")
    segment = next(operator.repository.rglob("state.db.000.zst.age"))
    command = f"age -d -i {operator.identity} {segment} | zstd -d -q -o {operator.directory}/by-hand.db"
    subprocess.run(["bash", "-ec", command], check=True)
    assert kine.live(operator.directory / "by-hand.db") == kine.live(node.database)


@pytest.mark.parametrize(
    ("lose", "piece"),
    [
        (lambda node: (node.server / "token").unlink(), "/var/lib/rancher/k3s/server/token"),
        (lambda node: (node.server / "tls/service.key").unlink(), "/var/lib/rancher/k3s/server/tls/service.key"),
        (
            lambda node: (node.server / "cred/encryption-config.json").unlink(),
            "/var/lib/rancher/k3s/server/cred/encryption-config.json",
        ),
    ],
    ids=["token", "signing key", "encryption"],
)
def test_without_one_piece_closure_names_it(
    on_sqlite: tuple[Operator, k3s.K3sNode], lose: Callable[[k3s.K3sNode], None], piece: str
) -> None:
    """Exit 3, and the one piece is named."""
    operator, node = on_sqlite
    lose(node)
    assert document(operator, "backup", code=3)["missing"] == ["closure"]
    found = document(operator, "show", "latest", "--closure")
    assert [f["subject"] for f in found["findings"] if f["severity"] == "bad"] == [piece]


def test_a_damaged_database_is_no_backup(on_sqlite: tuple[Operator, k3s.K3sNode]) -> None:
    """Fault 29: what is broken on the node never becomes the newest good backup."""
    operator, node = on_sqlite
    good = document(operator, "backup")["id"]
    with node.database.open("r+b") as file:
        for page in range(2, 8):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)
    _, said = operator.run("backup", code=4)
    assert "state.db" in said
    assert document(operator, "list")[-1]["id"] == good


def test_sqlite_that_went_back_begins_a_new_lineage(on_sqlite: tuple[Operator, k3s.K3sNode], tmp_path: Path) -> None:
    """Fault 33: restored to an older state: a full, another lineage, and it is said; then deltas again."""
    operator, node = on_sqlite
    older = Path(shutil.copy(node.database, tmp_path / "older.db"))
    with closing(kine.open_database(node.database)) as connection:
        for number in range(20):
            kine.put(connection, f"/registry/pods/default/new-{number}", b"x")
    document(operator, "backup")
    for beside in ("-wal", "-shm"):
        node.database.with_name(node.database.name + beside).unlink(missing_ok=True)
    shutil.copy(older, node.database)
    _lineage_turns(operator, "went back from revision")


def test_etcd_that_went_back_begins_a_new_lineage(tmp_path: Path, api: ApiServer) -> None:
    """Fault 33, on embedded etcd: the data directory of an earlier day, put back, is another past."""
    node = k3s.build(tmp_path / "root", datastore="etcd")
    with EtcdCluster(tmp_path / "etcd") as etcd:
        _with_its_certificates(node, etcd)
        operator = set_up(tmp_path, node, api)
        _ask(operator, etcd)
        etcd.fill(node.keys().items())
        etcd.stop()
        shutil.copytree(etcd.members[0].data, tmp_path / "older")
        etcd.start()
        etcd.fill((f"/registry/pods/default/{number}".encode(), b"x") for number in range(200))
        found = document(operator, "backup")
        assert found["sources"]["closure"]["status"] == "ok"
        database = operator.directory / "restored"
        operator.signers()
        operator.run("restore", "latest", "--identity", operator.identity, "--to", database)
        with EtcdFile(database / "etcd.db") as file:
            assert file.values(b"") == etcd.items()
        etcd.stop()
        shutil.rmtree(etcd.members[0].data)
        shutil.copytree(tmp_path / "older", etcd.members[0].data)
        etcd.start()
        _lineage_turns(operator, "etcd went back from revision")


def _lineage_turns(operator: Operator, reason: str) -> None:
    before = document(operator, "show", "latest")
    turned = document(operator, "backup")
    assert turned["class"] == "full"
    assert any(reason in one for one in turned["reasons"])
    assert any(reason in warning and "new lineage" in warning for warning in turned["warnings"])
    after = document(operator, "show", "latest")
    assert after["lineage"] != before["lineage"]
    again = document(operator, "backup")
    assert again["class"] == "delta"
    assert document(operator, "show", "latest")["lineage"] == after["lineage"]
    assert not any("new lineage" in warning for warning in again["warnings"])


def _with_its_certificates(node: k3s.K3sNode, etcd: EtcdCluster) -> None:
    """Let the node's etcd client files be those that this laboratory's etcd accepts."""
    own = node.server / "tls/etcd"
    shutil.copy(etcd.ca, own / "server-ca.crt")
    shutil.copy(etcd.pki / "etcd/ca.key", own / "server-ca.key")
    shutil.copy(etcd.cert, own / "client.crt")
    shutil.copy(etcd.key, own / "client.key")
    for stem in ("server-client",):
        shutil.copy(etcd.pki / "etcd/server.crt", own / f"{stem}.crt")
        shutil.copy(etcd.pki / "etcd/server.key", own / f"{stem}.key")


def _ask(operator: Operator, etcd: EtcdCluster) -> None:
    text = operator.config.read_text()
    operator.config.write_text(
        text.replace("[sources.etcd]", f"[sources.etcd]\nendpoints = {json.dumps(etcd.endpoints)}")
    )
