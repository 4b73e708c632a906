"""The certificates source on a node that kubeadm made, and on what goes wrong there."""

import os
import shutil
from pathlib import Path, PurePosixPath

import pytest

from edgedr.errors import SourceError
from edgedr.layouts import KUBEADM, UNKNOWN
from edgedr.model import Finding, Severity
from edgedr.node.files import Files
from edgedr.node.node import Node
from edgedr.pki import examine
from edgedr.sources.base import Captured, Count, Fact, TakePath
from edgedr.sources.certificates import CertificatesSource
from tests.lab import kubeadm
from tests.lab.pki import Authority
from tests.source_contract import SourceContract, restore

PKI = "etc/kubernetes/pki"


class TestCertificatesSource(SourceContract):
    @pytest.fixture
    def source(self) -> CertificatesSource:
        return CertificatesSource()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return kubeadm.unpack(tmp_path / "node")


def captured(root: Path, source: CertificatesSource | None = None) -> list[Captured]:
    return list((source or CertificatesSource()).capture(kubeadm.node(root)))


def complaints(items: list[Captured]) -> list[tuple[Severity, str, str]]:
    return [(item.severity, item.subject, item.text) for item in items if isinstance(item, Finding)]


def test_a_kubeadm_node_is_known_completely(root: Path) -> None:
    """Every certificate has its line, every key is counted, and a sound node gives no finding."""
    items = captured(root)
    facts = {item.key: item.value for item in items if isinstance(item, Fact)}
    counts = {item.noun: item.number for item in items if isinstance(item, Count)}
    apiserver = facts["certificate /etc/kubernetes/pki/apiserver.crt"]
    assert apiserver.startswith("leaf CN=kube-apiserver; by CN=kubernetes; until 20")
    assert "kubernetes.default.svc" in apiserver
    assert "10.77.0.11" in apiserver
    assert facts["certificate /etc/kubernetes/pki/etcd/ca.crt"].startswith("authority CN=etcd-ca; by CN=etcd-ca; ")
    assert "certificate /etc/kubernetes/admin.conf #2" in facts
    assert facts["first to expire"].startswith("/etc/kubernetes/")
    assert counts["keys"] >= 11
    assert counts["certificates"] >= 10
    assert complaints(items) == []


def test_all_trees_of_the_layout_are_taken(root: Path) -> None:
    """The PKI, the kubeconfigs and the service account keys are paths of this source."""
    paths = {str(item.path) for item in captured(root) if isinstance(item, TakePath)}
    assert {"/etc/kubernetes/pki/sa.key", "/etc/kubernetes/admin.conf", "/etc/kubernetes/pki/etcd"} <= paths
    assert "/etc/kubernetes/manifests/etcd.yaml" not in paths


def test_settings_add_and_take_away(root: Path) -> None:
    """``paths`` brings certificates from elsewhere, ``exclude`` keeps some out."""
    shutil.copytree(root / PKI / "etcd", root / "opt/etcd-pki")
    source = CertificatesSource(paths=("/opt/etcd-pki",), exclude=("/etc/kubernetes/*.conf", "/opt/**/*.key"))
    paths = {str(item.path) for item in captured(root, source) if isinstance(item, TakePath)}
    assert "/opt/etcd-pki/ca.crt" in paths
    assert not paths & {"/opt/etcd-pki/ca.key", "/etc/kubernetes/admin.conf"}


def test_a_key_of_another_day_is_found(root: Path) -> None:
    """A key that does not fit its certificate is said at capture, before it is needed."""
    shutil.copy(root / PKI / "etcd/server.key", root / PKI / "apiserver.key")
    assert (
        Severity.BAD,
        "/etc/kubernetes/pki/apiserver.key",
        "is not the key of /etc/kubernetes/pki/apiserver.crt",
    ) in complaints(captured(root))


def test_token_keys_that_do_not_fit_are_found(root: Path) -> None:
    """``sa.key`` and ``sa.pub`` are a pair like any other."""
    shutil.copy(root / PKI / "ca.key", root / PKI / "sa.key")
    assert (Severity.BAD, "/etc/kubernetes/pki/sa.key", "is not the key of /etc/kubernetes/pki/sa.pub") in complaints(
        captured(root)
    )


def test_a_leaf_of_another_authority_is_found(root: Path) -> None:
    """An authority that was made anew leaves leaves behind that it never signed."""
    shutil.copy(root / PKI / "front-proxy-ca.crt", root / PKI / "other.crt")
    for name in ("ca.crt", "ca.key"):
        (root / PKI / "etcd" / name).unlink()
    texts = {subject: text for _, subject, text in complaints(captured(root))}
    assert texts["/etc/kubernetes/pki/etcd/peer.crt"] == "its authority CN=etcd-ca is not here"


def test_a_wrong_authority_of_the_right_name_is_found(root: Path) -> None:
    """Same name, other key: the signature decides, not the name."""
    Authority.make("etcd-ca").write(root / PKI / "etcd/ca")
    assert (
        Severity.BAD,
        "/etc/kubernetes/pki/etcd/peer.crt",
        "was not signed by the CN=etcd-ca that is here",
    ) in complaints(captured(root))


def test_a_node_without_any_authority_is_found(root: Path) -> None:
    """Leaves alone do not make a cluster."""
    for path in (root / PKI).rglob("*ca.*"):
        path.unlink()
    for path in (root / "etc/kubernetes").glob("*.conf"):
        path.unlink()
    assert (Severity.BAD, "certificates", "there are certificates, but no authority among them") in complaints(
        captured(root)
    )


def test_a_damaged_certificate_is_found_and_still_taken(root: Path) -> None:
    """What cannot be read is kept as it is, and named."""
    path = root / PKI / "apiserver.crt"
    path.write_bytes(path.read_bytes().replace(b"MII", b"MJJ", 1))
    items = captured(root)
    assert any(subject == "/etc/kubernetes/pki/apiserver.crt" for severity, subject, _ in complaints(items))
    assert TakePath(PurePosixPath("/etc/kubernetes/pki/apiserver.crt")) in items


@pytest.mark.parametrize(
    "content",
    [b"kind: Config\nusers: 5\n", b"kind: Config\n\t- :", b"kind: Config\nusers: [{user: {client-key-data: '%'}}]"],
)
def test_a_damaged_kubeconfig_is_found(root: Path, content: bytes) -> None:
    """A kubeconfig that no client could read is named, and stops nothing."""
    (root / "etc/kubernetes/admin.conf").write_bytes(content)
    assert any(subject == "/etc/kubernetes/admin.conf" for _, subject, _ in complaints(captured(root)))


def test_a_node_without_certificates_is_refused(tmp_path: Path) -> None:
    """An empty PKI is a failure of the run, not an empty success."""
    (tmp_path / PKI).mkdir(parents=True)
    with pytest.raises(SourceError, match="no certificate"):
        list(CertificatesSource().capture(Node(Files(tmp_path), KUBEADM)))


def test_a_node_of_unknown_layout_says_what_was_looked_for(tmp_path: Path) -> None:
    """Whoever pointed at a wrong root is told so, not sent to look for certificates."""
    with pytest.raises(SourceError) as caught:
        list(CertificatesSource(paths=("/opt/pki",)).capture(Node(Files(tmp_path), UNKNOWN)))
    assert "where one is expected: /opt/pki" in caught.value.message
    assert f"below {tmp_path} there is no kubeadm layout: /etc/kubernetes/manifests/kube-" in caught.value.message
    assert "[node] root" in str(caught.value.hint)


def test_a_configured_path_that_matches_nothing_is_said(root: Path) -> None:
    """A path with a mistake in it is not silently left out of every backup."""
    source = CertificatesSource(paths=("/opt/absent", "/opt/*.crt", "/etc/kubernetes/pki"))
    text = "is configured, but matches nothing on this node"
    assert complaints(captured(root, source)) == [
        (Severity.WARN, "/opt/absent", text),
        (Severity.WARN, "/opt/*.crt", text),
    ]


def test_a_pki_on_another_disk_comes_along(root: Path, tmp_path: Path) -> None:
    """A PKI directory that is a link is taken with what it leads to, and comes back as both."""
    (root / "data").mkdir()
    shutil.move(root / PKI, root / "data/pki")
    (root / PKI).symlink_to("/data/pki")
    restored = restore(CertificatesSource(), kubeadm.node(root), tmp_path / "restored")
    assert os.readlink(restored.root / PKI) == "/data/pki"  # noqa: PTH115
    assert (restored.root / "data/pki/sa.key").read_bytes() == (root / "data/pki/sa.key").read_bytes()
    assert [finding.severity for finding in restored.findings(CertificatesSource())] == [Severity.GOOD] * 2
    assert restored.inventory.sources["certificates"].findings == ()


def test_a_protected_key_is_said_to_be_unknown() -> None:
    """A key with a passphrase is kept, and its pair is not claimed to fit."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    ledger = examine({PurePosixPath("/x.key"): key}, thorough=False)
    assert (ledger.keys, ledger.paired) == (1, 0)
    assert ledger.findings[0].severity is Severity.WARN
