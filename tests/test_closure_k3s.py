"""Closure of k3s and rke2: the token, the credentials and the authorities that its bootstrap data hangs on."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Literal

import pytest

from edgedr.closure import Evidence, close
from edgedr.errors import Damaged
from edgedr.kinefile import KineFile
from edgedr.model import Severity
from edgedr.sources.base import TakePath
from edgedr.sources.files import FilesSource
from tests.lab import k3s
from tests.lab.etcd import EtcdCluster


def _evidence(node: k3s.K3sNode, etcd: Path | None = None) -> Evidence:
    files = node.node().files
    return Evidence(files, node.node().layout, etcd=etcd, sqlite=node.database if etcd is None else None, live=files)


def missing(node: k3s.K3sNode, etcd: Path | None = None) -> dict[str, str]:
    return {finding.subject: finding.text for finding in close(_evidence(node, etcd)).missing}


@pytest.fixture
def node(tmp_path: Path) -> k3s.K3sNode:
    return k3s.build(tmp_path / "node")


def test_a_whole_server_on_sqlite_is_complete(node: k3s.K3sNode) -> None:
    """Token, credentials, authorities and encryption keys are all there."""
    assert missing(node) == {}
    assert [f for f in close(_evidence(node)).findings if f.severity is not Severity.GOOD] == []


@pytest.mark.parametrize("name", ["k3s", "rke2"])
def test_a_whole_server_on_etcd_is_complete(tmp_path: Path, name: Literal["k3s", "rke2"]) -> None:
    """The same from a real etcd's snapshot; with another token, closure names the token."""
    node = k3s.build(tmp_path / "node", name=name, datastore="etcd")
    with EtcdCluster(tmp_path / "etcd") as etcd:
        etcd.fill(node.keys().items())
        etcd.etcdctl("snapshot", "save", str(tmp_path / "etcd.db"))
    assert missing(node, tmp_path / "etcd.db") == {}
    token = node.server / "token"
    token.write_text(token.read_text().replace("::server:", "::server:x"))
    path = f"{node.data_dir}/server/token"
    assert list(missing(node, tmp_path / "etcd.db")) == [path]
    assert "is not the token" in missing(node, tmp_path / "etcd.db")[path]


@pytest.mark.parametrize(
    ("piece", "consequence"),
    [
        ("server/token", "bootstrap data stays closed"),
        ("server/tls/service.key", "every service account token becomes invalid"),
        ("server/tls/server-ca.crt", "another cluster comes back"),
        ("server/tls/client-ca.key", "no certificate can be issued"),
        ("server/tls/request-header-ca.crt", "another cluster comes back"),
        ("server/cred/passwd", "cannot log in to each other"),
        ("server/cred/encryption-config.json", "sealed values in the datastore cannot be read without aescbckey"),
        ("/etc/rancher/node/password", "turned away"),
    ],
)
def test_a_piece_that_is_missing_is_named_alone(node: k3s.K3sNode, piece: str, consequence: str) -> None:
    """Each single piece taken away is the one thing that is named."""
    path = piece if piece.startswith("/") else f"{node.data_dir}/{piece}"
    node.at(path).unlink()
    found = missing(node)
    assert list(found) == [path]
    assert consequence in found[path]


def test_a_token_of_another_cluster(node: k3s.K3sNode) -> None:
    """Its hash is not that of the authority beside it."""
    token = node.server / "token"
    digest = token.read_text()[3:67]
    token.write_text(token.read_text().replace(digest, "0" * 64))
    assert "another cluster" in missing(node)[f"{node.data_dir}/server/token"]


def test_a_moved_data_directory(tmp_path: Path) -> None:
    """What is missing is named where it is expected on this node."""
    node = k3s.build(tmp_path / "node", data_dir="/srv/k3s")
    assert missing(node) == {}
    (node.server / "token").unlink()
    assert list(missing(node)) == ["/srv/k3s/server/token"]


def test_sqlite_counts_live_values_only(node: k3s.K3sNode, tmp_path: Path) -> None:
    """A value that was overwritten or deleted needs no key any more."""
    with KineFile(node.database) as file:
        seals = file.sealed_with()
        (seal,) = seals
    copy = Path(shutil.copy(node.database, tmp_path / "state.db"))
    with sqlite3.connect(copy) as connection:
        connection.execute(
            "INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value, old_value) "
            "SELECT name, 0, 1, create_revision, id, 0, value, value FROM kine WHERE name LIKE '/registry/secrets/%'"
        )
    connection.close()
    with KineFile(copy) as file:
        assert file.sealed_with() == {}
        assert file.mentions() == frozenset()
    assert seals[seal] > 0


def test_a_database_that_is_none(node: k3s.K3sNode, tmp_path: Path) -> None:
    """Bytes that are no database of kine are said to be none."""
    for name, content in (("torn.db", b"SQLite format 3\0" + bytes(5000)), ("empty.db", b"")):
        (tmp_path / name).write_bytes(content)
        with KineFile(tmp_path / name) as file, pytest.raises(Damaged, match="not a whole database of kine"):
            file.sealed_with()


def test_files_of_the_distribution_s_own_options(node: k3s.K3sNode) -> None:
    """Credentials to a datastore, a token, a registry configuration: taken like flags' files, and missed likewise."""
    config = node.at("/etc/rancher/k3s/config.yaml")
    config.write_text(config.read_text() + "\nprivate-registry: /srv/registries.yaml\n")
    assert list(missing(node)) == ["/srv/registries.yaml"]
    node.write("/srv/registries.yaml", "mirrors: {}\n")
    assert missing(node) == {}
    items = FilesSource().capture(node.node())
    assert "/srv/registries.yaml" in {str(item.path) for item in items if isinstance(item, TakePath)}


def test_a_server_without_an_agent_has_no_node_password(node: k3s.K3sNode) -> None:
    """Nothing is missed that this server never has."""
    node.at("/etc/rancher/node/password").unlink()
    config = node.at("/etc/rancher/k3s/config.yaml")
    config.write_text(config.read_text() + "\ndisable-agent: true\n")
    assert missing(node) == {}


def test_a_seal_that_is_only_talked_about(node: k3s.K3sNode, tmp_path: Path) -> None:
    """Without encryption at rest, a text that mentions a seal is no sealed value."""
    node.at(f"{node.data_dir}/server/cred/encryption-config.json").unlink()
    said = b"see k8s:enc:aescbc:v1:x: there"
    with closing(sqlite3.connect(node.database)) as connection, connection:
        connection.execute("UPDATE kine SET value = ? WHERE CAST(value AS TEXT) LIKE 'k8s:enc:%'", (said,))
    assert missing(node) == {}
