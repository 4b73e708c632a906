"""The etcd source without an etcd: where it finds one, what it puts back, what it proves."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from edgedr.errors import SourceError
from edgedr.inventory import Inventory, SourceRecord
from edgedr.layouts import KUBEADM, UNKNOWN
from edgedr.model import SCHEMA, Finding, Severity, Status
from edgedr.node.files import Files
from edgedr.node.node import Node
from edgedr.sources.etcd import EtcdSource, find_access
from edgedr.steps import PlaceArtifact
from tests.lab import k3s

CONTENT = os.urandom(512 * 300)

ETCD = """
spec:
  containers:
  - command: [etcd, "--listen-client-urls=https://10.7.0.1:2379,https://127.0.0.1:2379", --name, cp-1,
              --advertise-client-urls=https://10.7.0.1:2379, --trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt]
"""
APISERVER = """
spec:
  containers:
  - command: [kube-apiserver]
    args: [--etcd-servers, "https://10.9.0.1:2379,https://10.9.0.2:2379/", --etcd-cafile=/ca, --etcd-certfile=/c,
           --etcd-keyfile=/k]
"""


@pytest.fixture
def node(tmp_path: Path) -> Node:
    (tmp_path / "etc/kubernetes/manifests").mkdir(parents=True)
    (tmp_path / "etc/kubernetes/pki/etcd").mkdir(parents=True)
    return Node(files=Files(tmp_path), layout=KUBEADM)


def put(node: Node, path: str, text: str = "") -> None:
    (node.root / path).write_text(text)


def test_the_member_of_this_node_is_asked_over_loopback(node: Node) -> None:
    """Of the URLs in etcd's manifest, the loopback one is taken; paths lie below the node's root."""
    put(node, "etc/kubernetes/manifests/etcd.yaml", ETCD)
    for stem in ("etc/kubernetes/pki/etcd/server", "etc/kubernetes/pki/apiserver-etcd-client"):
        put(node, stem + ".crt")
        put(node, stem + ".key")
    access, _ = find_access(EtcdSource(), node)
    pki = node.root / "etc/kubernetes/pki"
    assert access.endpoints == ("https://127.0.0.1:2379",)
    assert (access.ca, access.cert) == (pki / "etcd/ca.crt", pki / "apiserver-etcd-client.crt")
    (pki / "apiserver-etcd-client.key").unlink()
    assert find_access(EtcdSource(), node)[0].key == pki / "etcd/server.key"


@pytest.mark.parametrize(
    ("listened", "asked"),
    [
        ("https://0.0.0.0:2379", "https://127.0.0.1:2379"),
        ("https://[::]:2379", "https://[::1]:2379"),
        ("unix:///run/etcd.sock", "https://10.7.0.1:2379"),
        ("https://10.7.0.1:2379", "https://10.7.0.1:2379"),
        ("http://127.0.0.1:2379", "http://127.0.0.1:2379"),
    ],
)
def test_where_a_member_listens(node: Node, listened: str, asked: str) -> None:
    """Whatever the member listens on, one URL comes out that can be dialled from here."""
    manifest = ETCD.replace("https://10.7.0.1:2379,https://127.0.0.1:2379", listened)
    put(node, "etc/kubernetes/manifests/etcd.yaml", manifest)
    assert find_access(EtcdSource(), node)[0].endpoints == (asked,)


def test_the_api_server_knows_an_external_etcd(node: Node) -> None:
    """Without an etcd manifest, the API server's flags are used, in either way of writing flags."""
    put(node, "etc/kubernetes/manifests/kube-apiserver.yaml", APISERVER)
    put(node, "c")
    put(node, "k")
    access, remarks = find_access(EtcdSource(), node)
    assert access.endpoints == ("https://10.9.0.1:2379", "https://10.9.0.2:2379")
    assert (access.ca, access.cert, access.key) == (node.root / "ca", node.root / "c", node.root / "k")
    assert remarks == []


def test_what_is_set_wins(node: Node) -> None:
    """Settings come before what is found, each on its own."""
    put(node, "etc/kubernetes/manifests/etcd.yaml", ETCD)
    source = EtcdSource(endpoints=("https://e:1",), cert="/mine.crt", key="/mine.key")
    access, _ = find_access(source, node)
    assert access.endpoints == ("https://e:1",)
    assert (access.cert, access.key) == (node.root / "mine.crt", node.root / "mine.key")
    assert access.ca == node.root / "etc/kubernetes/pki/etcd/ca.crt"


def test_a_second_etcd_is_said(node: Node) -> None:
    """Resources that the API server keeps in another etcd are not captured, and a finding says so."""
    override = APISERVER.replace(
        "--etcd-cafile=/ca", '--etcd-cafile=/ca, "--etcd-servers-overrides=/events#https://e:1"'
    )
    put(node, "etc/kubernetes/manifests/kube-apiserver.yaml", override)
    _, remarks = find_access(EtcdSource(), node)
    assert [remark.severity for remark in remarks] == [Severity.WARN]


@pytest.mark.parametrize("manifest", ["[", "text", "spec: {containers: []}", "spec: {containers: [3]}", "- a"])
def test_a_broken_manifest_is_named(node: Node, manifest: str) -> None:
    """A manifest that is none is an error that names it, not a crash."""
    put(node, "etc/kubernetes/manifests/etcd.yaml", manifest)
    with pytest.raises(SourceError, match=r"etcd\.yaml is not a static pod manifest"):
        find_access(EtcdSource(), node)


def test_nothing_tells_where_etcd_is(node: Node) -> None:
    """Without settings and manifests: an error whose hint names both."""
    for each in (node, Node(files=node.files, layout=UNKNOWN)):
        with pytest.raises(SourceError, match="no etcd found") as caught:
            find_access(EtcdSource(), each)
        assert "endpoints" in str(caught.value.hint)
        assert "/etc/kubernetes/manifests/kube-apiserver.yaml" in str(caught.value.hint)


def inventory(status: Status = Status.OK) -> Inventory:
    return Inventory(SCHEMA, "site", "cp-1", {"etcd": SourceRecord(status)}, (), ())


def test_put_back_places_the_snapshot() -> None:
    """A backup with etcd places it; one in which it is missing does not."""
    assert list(EtcdSource().put_back(inventory())) == [PlaceArtifact("etcd", "etcd.db", "etcd.db")]
    assert list(EtcdSource().put_back(inventory(Status.MISSING))) == []
    assert list(EtcdSource().put_back(replace(inventory(), sources={}))) == []


def prove(path: Path | None, known: Inventory | None = None) -> list[Finding]:
    artifacts = {"etcd.db": path} if path else {}
    return list(EtcdSource().prove(Path("/nonexistent"), known or inventory(), artifacts))


def test_prove_checks_the_trailer(tmp_path: Path) -> None:
    """Fault 29: a restored snapshot is good if its trailer holds; flipped, cut, bare or absent it is bad."""
    path = tmp_path / "etcd.db"
    sound = CONTENT + hashlib.sha256(CONTENT).digest()
    path.write_bytes(sound)
    assert [finding.severity for finding in prove(path)] == [Severity.GOOD]
    for broken in (bytes([sound[0] ^ 1]) + sound[1:], sound[:-1], CONTENT, b"", sound[:-1] + b"\0"):
        path.write_bytes(broken)
        assert [finding.severity for finding in prove(path)] == [Severity.BAD]
    path.unlink()
    assert [finding.severity for finding in prove(path)] == [Severity.BAD]
    assert [finding.severity for finding in prove(None)] == [Severity.BAD]
    assert prove(None, inventory(Status.MISSING)) == []


def test_a_password_in_a_discovered_endpoint_is_left_out(tmp_path: Path) -> None:
    """Fault 25: what stands before the host in k3s's datastore option is in no message."""
    node = k3s.build(tmp_path / "node")
    config = node.at("/etc/rancher/k3s/config.yaml")
    config.write_text(config.read_text() + "\ndatastore-endpoint: https://u:c4n4ry@127.0.0.1:1\n")
    access, _ = find_access(EtcdSource(), node.node())
    assert access.endpoints == ("https://127.0.0.1:1",)
