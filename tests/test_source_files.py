"""The files source: what the layout, the API server's flags and the site name."""

from pathlib import Path

import pytest

from edgedr.layouts import KUBEADM
from edgedr.model import Bytes, Finding, Severity
from edgedr.node.files import Files
from edgedr.node.node import Node
from edgedr.sources.base import Captured, TakePath
from edgedr.sources.files import FilesSource
from tests.lab import kubeadm
from tests.source_contract import SourceContract, restore

MANIFEST = "etc/kubernetes/manifests/kube-apiserver.yaml"


class TestFilesSource(SourceContract):
    @pytest.fixture
    def source(self) -> FilesSource:
        return FilesSource()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return kubeadm.unpack(tmp_path / "node")


def captured(root: Path, source: FilesSource | None = None) -> list[Captured]:
    return list((source or FilesSource()).capture(kubeadm.node(root)))


def paths(items: list[Captured]) -> set[str]:
    return {str(item.path) for item in items if isinstance(item, TakePath)}


def complaints(items: list[Captured]) -> dict[str, str]:
    return {item.subject: item.text for item in items if isinstance(item, Finding)}


def flag(root: Path, *lines: str, text: str = "    - --secure-port=6443\n") -> None:
    """Give the API server more flags."""
    manifest = root / MANIFEST
    content = manifest.read_text()
    assert text in content
    manifest.write_text(content.replace(text, text + "".join(f"    - {line}\n" for line in lines)))


def test_a_kubeadm_node_gives_its_configuration(root: Path) -> None:
    """Static pods, audit policy, encryption configuration and the kubelet's settings are taken without a word said."""
    items = captured(root)
    assert {
        "/etc/kubernetes/manifests/etcd.yaml",
        "/etc/kubernetes/audit/policy.yaml",
        "/etc/kubernetes/enc/encryption.yaml",
        "/var/lib/kubelet/config.yaml",
        "/var/lib/kubelet/kubeadm-flags.env",
    } <= paths(items)
    assert complaints(items) == {}


def test_files_that_only_a_flag_names_are_taken(root: Path) -> None:
    """What the API server needs is in the backup wherever it lies, as the node's path, not the container's."""
    (root / "srv/policies").mkdir(parents=True)
    (root / "srv/policies/webhook.yaml").write_bytes(b"w")
    (root / "opt").mkdir()
    (root / "opt/oidc [1].crt").write_bytes(b"o")
    flag(root, "--authorization-webhook-config-file=/policies/webhook.yaml", "--oidc-ca-file=/opt/oidc [1].crt")
    manifest = root / MANIFEST
    manifest.write_text(
        manifest.read_text()
        .replace("    volumeMounts:\n", "    volumeMounts:\n    - mountPath: /policies\n      name: policies\n")
        .replace("  volumes:\n", "  volumes:\n  - hostPath:\n      path: /srv/policies\n    name: policies\n")
    )
    found = paths(captured(root))
    assert {"/srv/policies/webhook.yaml", "/opt/oidc [1].crt"} <= found


def test_what_the_server_writes_is_not_taken(root: Path) -> None:
    """An audit log named by a flag is no configuration, and a directory named by one is not swallowed whole."""
    (root / "var/log/kubernetes").mkdir(parents=True)
    (root / "var/log/kubernetes/audit.log").write_bytes(b"log")
    (root / "var/lib/big").mkdir()
    (root / "var/lib/big/database").write_bytes(b"db")
    flag(root, "--some-dir=/var/lib/big", "--root=/", "--up=/etc/../var")
    found = paths(captured(root))
    assert not [path for path in found if path.startswith(("/var/log", "/var/lib/big"))]


def test_flags_of_every_part_count(root: Path) -> None:
    """What only the scheduler's or the controller manager's flags name is taken too, and what a kubeconfig names."""
    (root / "opt").mkdir()
    (root / "opt/scheduler.conf").write_text("kind: Config\nusers: [{user: {client-key: keys/scheduler.key}}]\n")
    (root / "opt/keys").mkdir()
    (root / "opt/keys/scheduler.key").write_bytes(b"k")
    manifest = root / "etc/kubernetes/manifests/kube-scheduler.yaml"
    text = manifest.read_text()
    assert "--kubeconfig=/etc/kubernetes/scheduler.conf" in text
    manifest.write_text(text.replace("--kubeconfig=/etc/kubernetes/scheduler.conf", "--kubeconfig=/opt/scheduler.conf"))
    assert {"/opt/scheduler.conf", "/opt/keys/scheduler.key"} <= paths(captured(root))


@pytest.mark.parametrize(
    "text", ["", "- 1", "spec: {}", "spec: {containers: 5}", "\t:", "spec: {containers: [{command: 7}]}"]
)
def test_a_manifest_that_is_none_is_said(root: Path, text: str) -> None:
    """A static pod that cannot be read stops nothing, and is named."""
    (root / MANIFEST).write_text(text)
    assert complaints(captured(root)) == {"/" + MANIFEST: "cannot be read as a static pod"}


def test_settings_add_and_take_away(root: Path) -> None:
    """``include`` adds, ``exclude`` wins over everything, and an include that matches nothing is said."""
    (root / "opt/site").mkdir(parents=True)
    for name in ("a.yaml", "b.yaml", "c.tmp"):
        (root / "opt/site" / name).write_bytes(b"x")
    source = FilesSource(include=("/opt/site", "/opt/absent/*"), exclude=("/opt/**/*.tmp", "/etc/kubernetes/enc"))
    items = captured(root, source)
    assert {"/opt/site/a.yaml", "/opt/site/b.yaml"} <= paths(items)
    assert not [path for path in paths(items) if path.endswith(".tmp") or path.startswith("/etc/kubernetes/enc")]
    assert complaints(items) == {"/opt/absent/*": "is configured, but matches nothing on this node"}


def test_large_files_are_left_out_and_said(root: Path) -> None:
    """One forgotten dump does not make every backup a large one."""
    (root / "etc/kubernetes/dump").write_bytes(bytes(2000))
    items = captured(
        root, FilesSource(max_file_bytes=Bytes(1999), exclude=("/etc/kubernetes/pki", "/etc/kubernetes/*.*"))
    )
    assert "/etc/kubernetes/dump" not in paths(items)
    assert complaints(items)["/etc/kubernetes/dump"] == "left out: 2000 bytes are too many"


def test_a_changed_hard_link_is_found(tmp_path: Path) -> None:
    """The proof holds a hard link to the hash of the file whose content it shares."""
    (tmp_path / "node/etc/kubernetes").mkdir(parents=True)
    (tmp_path / "node/etc/kubernetes/a").write_bytes(b"shared")
    (tmp_path / "node/etc/kubernetes/b").hardlink_to(tmp_path / "node/etc/kubernetes/a")
    restored = restore(FilesSource(), Node(Files(tmp_path / "node"), KUBEADM), tmp_path / "restored")
    link = restored.root / "etc/kubernetes/b"
    assert link.samefile(restored.root / "etc/kubernetes/a")
    link.unlink()
    link.write_bytes(b"other!")
    findings = {finding.subject: finding.severity for finding in restored.findings(FilesSource())}
    assert findings == {"/etc/kubernetes/b": Severity.BAD, "files": Severity.GOOD}


def test_a_reference_that_leads_upwards_stops_nothing(root: Path) -> None:
    """A kubeconfig beside others names a file above itself: it is taken by its real path."""
    (root / "etc/kubernetes/webhook").mkdir()
    (root / "etc/kubernetes/webhook/kc.yaml").write_text(
        "kind: Config\nclusters: [{name: a, cluster: {certificate-authority: ../../webhook-ca.crt}}]\n"
    )
    (root / "etc/webhook-ca.crt").write_bytes(b"c")
    flag(root, "--authentication-token-webhook-config-file=/etc/kubernetes/webhook/kc.yaml")
    assert "/etc/webhook-ca.crt" in paths(captured(root))


def test_what_an_upgrade_left_is_not_taken(root: Path) -> None:
    """Old etcd data that kubeadm keeps there, 64 MB a file, is no configuration."""
    (root / "etc/kubernetes/tmp/kubeadm-backup-etcd").mkdir(parents=True)
    (root / "etc/kubernetes/tmp/kubeadm-backup-etcd/0.wal").write_bytes(b"w")
    assert not [path for path in paths(captured(root)) if path.startswith("/etc/kubernetes/tmp")]


def test_files_that_a_pod_takes_of_the_node(root: Path) -> None:
    """A host path that is a file is configuration, whatever its flags look like; a log is not."""
    for name in ("srv/lb/haproxy.cfg", "var/log/lb.log"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    (root / "etc/kubernetes/manifests/lb.json").write_text(
        '{"metadata": {"name": "lb"}, "spec": {"containers": [{"command": ["haproxy", "-f", "/lb.cfg"]}], "volumes": ['
        '{"name": "c", "hostPath": {"path": "/srv/lb/haproxy.cfg"}}, {"hostPath": {"path": "/var/log/lb.log"}}]}}'
    )
    found = paths(captured(root))
    assert "/srv/lb/haproxy.cfg" in found
    assert "/var/log/lb.log" not in found
