"""Closure: a backup that lacks something says what, and what its loss means; one that lacks nothing says nothing."""

import json
import re
import shutil
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from edgedr.closure import Evidence, close
from edgedr.errors import Damaged
from edgedr.layouts import KUBEADM, UNKNOWN
from edgedr.model import Severity, Status
from edgedr.node.files import Files
from tests.lab import kubeadm
from tests.lab.pki import Authority

PKI = "etc/kubernetes/pki"
ENCRYPTION = "etc/kubernetes/enc/encryption.yaml"
MANIFEST = "etc/kubernetes/manifests/kube-apiserver.yaml"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A node as kubeadm left it, all of it captured."""
    return kubeadm.unpack(tmp_path / "node")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The genuine datastore of that node: 30 Secrets in it are sealed with key1."""
    return kubeadm.datastore(tmp_path_factory.mktemp("etcd") / "etcd.db")


def missing(root: Path, database: Path | None, live: Path | None = None) -> dict[str, str]:
    """Return the pieces that closure names, and what it says of each."""
    evidence = Evidence(Files(root), KUBEADM, etcd=database, live=Files(live) if live else None)
    return {finding.subject: finding.text for finding in close(evidence).missing}


def warnings(root: Path, database: Path | None = None) -> dict[str, str]:
    record = close(Evidence(Files(root), KUBEADM, etcd=database))
    return {finding.subject: finding.text for finding in record.findings if finding.severity is Severity.WARN}


def test_a_whole_control_plane_is_complete(root: Path, database: Path) -> None:
    """A genuine node with its genuine datastore lacks nothing, and nothing is said."""
    record = close(Evidence(Files(root), KUBEADM, etcd=database))
    assert record.status is Status.OK
    assert record.findings == ()


@pytest.mark.parametrize(
    ("piece", "consequence"),
    [
        ("ca.key", "no certificate can be issued or renewed"),
        ("ca.crt", "another cluster comes back"),
        ("etcd/ca.crt", "another cluster comes back"),
        ("front-proxy-ca.crt", "another cluster comes back"),
        ("sa.key", "every service account token becomes invalid"),
        ("sa.pub", "no token is accepted until it is made again: openssl pkey"),
        ("apiserver.crt", "kube-apiserver does not start without it"),
        ("apiserver.key", "kube-apiserver does not start without it"),
        ("apiserver-etcd-client.key", "kube-apiserver does not start without it"),
        ("apiserver-kubelet-client.crt", "kube-apiserver does not start without it"),
        ("front-proxy-client.key", "kube-apiserver does not start without it"),
        ("etcd/server.crt", "etcd does not start without it"),
        ("etcd/peer.key", "etcd does not start without it"),
        ("../controller-manager.conf", "kube-controller-manager does not start without it"),
        ("../scheduler.conf", "kube-scheduler does not start without it"),
        ("../audit/policy.yaml", "kube-apiserver does not start without it"),
        ("../enc/encryption.yaml", "30 sealed values in the datastore cannot be read without key1"),
    ],
)
def test_a_piece_that_is_missing_is_named_alone(root: Path, database: Path, piece: str, consequence: str) -> None:
    """Each single piece taken away is the one thing that is named, with what its loss means."""
    path = root / PKI / piece
    path.unlink()
    found = missing(root, database)
    assert list(found) == ["/" + str(path.resolve().relative_to(root.resolve()))]
    assert consequence in next(iter(found.values()))


def test_a_key_that_is_missing_from_the_encryption_configuration_is_named(root: Path, database: Path) -> None:
    """The file is there, but not the key that values are sealed with: the key is the piece."""
    text = (root / ENCRYPTION).read_text()
    assert "name: key1" in text
    (root / ENCRYPTION).write_text(text.replace("name: key1", "name: key2"))
    found = missing(root, database)
    assert list(found) == ["encryption key key1"]
    assert "30 sealed values in the datastore" in found["encryption key key1"]


def test_an_encryption_configuration_that_is_none_is_named(root: Path, database: Path) -> None:
    """A file of that name that no API server could read is as good as none."""
    (root / ENCRYPTION).write_text("kind: ConfigMap\n")
    assert list(missing(root, database)) == ["/" + ENCRYPTION]


def test_sealed_values_without_any_configuration(root: Path, database: Path) -> None:
    """A flag that was dropped by hand, while values are still sealed: the key is named."""
    manifest = root / MANIFEST
    kept = [line for line in manifest.read_text().splitlines() if "encryption-provider-config" not in line]
    manifest.write_text("\n".join(kept))
    assert list(missing(root, database)) == ["encryption key key1"]


def test_keys_are_looked_for_in_any_captured_file_of_an_unknown_layout(root: Path, database: Path) -> None:
    """Without a layout to say where, a captured EncryptionConfiguration anywhere will do."""
    record = close(Evidence(Files(root), UNKNOWN, etcd=database))
    assert record.status is Status.OK
    (root / ENCRYPTION).unlink()
    record = close(Evidence(Files(root), UNKNOWN, etcd=database))
    assert [finding.subject for finding in record.missing] == ["encryption key key1"]


def test_keys_of_an_external_authority_are_no_error(root: Path, database: Path) -> None:
    """An authority whose key is kept elsewhere on purpose leaves a complete backup, and a reminder.

    With an external authority kubeadm gives the controller manager no signing key; where a flag names one, it is lost.
    """
    manager = root / "etc/kubernetes/manifests/kube-controller-manager.yaml"
    manager.write_text("".join(line for line in manager.read_text().splitlines(keepends=True) if "signing" not in line))
    for name in ("ca.key", "etcd/ca.key", "front-proxy-ca.key"):
        (root / PKI / name).unlink()
    assert missing(root, database) == {}
    expected = {f"/{PKI}/{name}" for name in ("ca.key", "etcd/ca.key", "front-proxy-ca.key")}
    assert set(warnings(root, database)) == expected


def test_signing_keys_that_do_not_pair(root: Path, database: Path) -> None:
    """Two halves from different days: each is there, and together they are of no use."""
    shutil.copy(root / PKI / "front-proxy-client.key", root / PKI / "sa.key")
    found = missing(root, database)
    assert list(found) == [f"/{PKI}/sa.key"]
    assert "tokens that it signs are refused" in found[f"/{PKI}/sa.key"]


def test_leaves_of_another_authority(root: Path, database: Path) -> None:
    """An authority that was made anew did not sign the leaves beside it."""
    other = (root / PKI / "etcd/ca.crt").read_bytes()
    client = root / PKI / "front-proxy-ca.crt"
    client.write_bytes(other)
    assert f"/{PKI}/front-proxy-ca.key" in missing(root, database)


def test_a_certificate_that_its_authority_did_not_sign(root: Path, database: Path) -> None:
    """A leaf that names the authority as its issuer, and was never signed by it, is named."""
    impostor = Authority.make("etcd-ca")
    for name in ("server", "peer"):
        impostor.issue(root / PKI / "etcd" / name, "cp-1", ExtendedKeyUsageOID.SERVER_AUTH)
    assert set(missing(root, database)) == {f"/{PKI}/etcd/server.crt", f"/{PKI}/etcd/peer.crt"}


def test_a_manifest_that_is_none(root: Path, database: Path) -> None:
    """A static pod that the kubelet cannot read is named, and stops nothing else."""
    (root / "etc/kubernetes/manifests/kube-scheduler.yaml").write_text("\t")
    assert list(missing(root, database)) == ["/etc/kubernetes/manifests/kube-scheduler.yaml"]


def test_directories_that_flags_name_are_no_files(root: Path, database: Path, tmp_path: Path) -> None:
    """A directory, a socket or a prefix named by a flag is nothing to keep; a file that was left out is."""
    manifest = root / MANIFEST
    flags = ("--flex-volume-plugin-dir=/usr/libexec", "--etcd-prefix=/registry", "--some=/srv/data", "--more=/srv/file")
    text = "".join(f"    - {flag}\n" for flag in flags)
    manifest.write_text(manifest.read_text().replace("    - --secure-port=6443\n", f"    - --secure-port=6443\n{text}"))
    live = tmp_path / "live"
    (live / "srv/data").mkdir(parents=True)
    (live / "srv/file").write_text("x")
    assert list(missing(root, database, live)) == ["/srv/file"]


def test_an_external_etcd_has_its_authority_elsewhere(root: Path) -> None:
    """Without a member on this node, etcd's own authority is not expected here; the client's files still are."""
    shutil.rmtree(root / PKI / "etcd")
    (root / "etc/kubernetes/manifests/etcd.yaml").unlink()
    assert list(missing(root, None)) == [f"/{PKI}/etcd/ca.crt"]
    manifest = root / MANIFEST
    manifest.write_text(manifest.read_text().replace("/etc/kubernetes/pki/etcd/ca.crt", "/etc/kubernetes/pki/ca.crt"))
    assert missing(root, None) == {}


def test_a_datastore_that_is_none_is_damaged(root: Path, tmp_path: Path) -> None:
    """Sealed values in something that is no database: nothing is claimed of it."""
    (root / ENCRYPTION).unlink()
    torn = tmp_path / "torn.db"
    torn.write_bytes(b"k8s:enc:secretbox:v1:key1:" + bytes(10_000))
    with pytest.raises(Damaged, match="not a whole etcd database"):
        missing(root, torn)


def test_no_key_material_in_what_is_said(root: Path, database: Path) -> None:
    """Fault 25: names of keys are said, never a key."""
    secret = (root / ENCRYPTION).read_text().split("secret:")[1].split()[0]
    (root / ENCRYPTION).write_text((root / ENCRYPTION).read_text().replace("key1", "key2"))
    (root / PKI / "sa.pub").unlink()
    said = json.dumps([str(finding) for finding in close(Evidence(Files(root), KUBEADM, etcd=database)).findings])
    assert secret not in said
    assert "PRIVATE" not in said


def more_flags(root: Path, *flags: str) -> None:
    """Give the API server more flags."""
    manifest = root / MANIFEST
    text = "".join(f"    - {flag}\n" for flag in flags)
    manifest.write_text(manifest.read_text().replace("    - --secure-port=6443\n", f"    - --secure-port=6443\n{text}"))


def test_values_that_only_look_like_paths(root: Path, database: Path) -> None:
    """URL paths, overrides, cgroups, sockets and lists of origins are no files to miss."""
    more_flags(
        root,
        "--authorization-always-allow-paths=/healthz,/readyz,/livez,/metrics",
        "--etcd-servers-overrides=/events#https://127.0.0.1:2381",
        "--kubelet-cgroups=/systemd/system.slice",
        "--uds-name=/etc/kubernetes/konnectivity-server/konnectivity-server.socket",
        "--cors-allowed-origins=//example.test",
        "--tls-sni-cert-key=/etc/kubernetes/pki/apiserver.crt,/etc/kubernetes/pki/apiserver.key:*.example.test",
        "--bearer-token=/c4n4ry/of+a+secret",
    )
    assert missing(root, database, root) == {}
    assert "c4n4ry" not in str(close(Evidence(Files(root), KUBEADM, etcd=database, live=Files(root))))


def test_flags_of_other_software_may_name_files_of_its_image(root: Path, database: Path) -> None:
    """A static pod of somebody else: what it takes of the node counts, what it has in its image does not."""
    pod = (
        "metadata: {name: lb}\nspec:\n  containers: [{command: [haproxy, --config=/etc/vector/v.yaml, -f, /lb.cfg],"
        " volumeMounts: [{name: c, mountPath: /lb.cfg}]}]\n"
        "  volumes: [{name: c, hostPath: {path: /srv/lb/haproxy.cfg, type: File}}]\n"
    )
    (root / "etc/kubernetes/manifests/lb.yml").write_text(pod)
    (root / "etc/kubernetes/manifests/.hidden.yaml").write_text("\t")
    assert list(missing(root, database, root)) == ["/srv/lb/haproxy.cfg"]


def test_what_named_files_name_in_turn(root: Path, database: Path) -> None:
    """An admission configuration, its plugins' files and their kubeconfigs' certificates: all of it is needed."""
    (root / "srv/adm").mkdir(parents=True)
    more_flags(root, "--admission-control-config-file=/srv/adm/config.yaml")
    (root / "srv/adm/config.yaml").write_text(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\n"
        "plugins: [{name: ImagePolicyWebhook, path: policy.yaml}]\n"
    )
    assert list(missing(root, database)) == ["/srv/adm/policy.yaml"]
    (root / "srv/adm/policy.yaml").write_text(
        "apiVersion: imagepolicy.k8s.io/v1alpha1\nimagePolicy: {kubeConfigFile: /srv/adm/kc.yaml}\n"
    )
    assert list(missing(root, database)) == ["/srv/adm/kc.yaml"]
    (root / "srv/adm/kc.yaml").write_text(
        "kind: Config\nclusters: [{name: a, cluster: {certificate-authority: ../pki/ca.crt}}]\n"
        "users: [{name: a, user: {client-key: c4n4ry/in+the+wrong+field}}]\n"
    )
    found = missing(root, database)
    assert len(found) == 2
    assert "c4n4ry" not in str(found)
    assert "client-key of /srv/adm/kc.yaml" in found


def test_a_key_that_is_there_and_was_not_taken_is_no_external_authority(
    root: Path, database: Path, tmp_path: Path
) -> None:
    """Left out by a setting, or behind a link that was not followed: what the node has, the backup lacks."""
    live = Path(shutil.copytree(root, tmp_path / "live"))
    (root / PKI / "etcd/ca.key").unlink()
    assert list(missing(root, database, live)) == [f"/{PKI}/etcd/ca.key"]


def test_no_snapshot_is_not_complete(root: Path) -> None:
    """Where etcd is captured elsewhere, or left out, nothing is claimed of its keys."""
    record = close(Evidence(Files(root), KUBEADM))
    assert [(f.severity, f.subject) for f in record.findings] == [(Severity.WARN, "datastore")]


def test_old_certificates_of_the_kubelet_do_not_count(root: Path, database: Path) -> None:
    """What was renewed after a change of the authority lies about for ever: a warning. The current one counts."""
    pki = root / "var/lib/kubelet/pki"
    pki.mkdir()
    Authority.make("kubernetes").issue(pki / "kubelet-client-old", "system:node:cp-1", ExtendedKeyUsageOID.CLIENT_AUTH)
    (pki / "kubelet-client-old.pem").write_bytes((pki / "kubelet-client-old.crt").read_bytes())
    (pki / "kubelet-client-old.crt").unlink()
    (pki / "kubelet-client-old.key").unlink()
    assert missing(root, database) == {}
    assert "/var/lib/kubelet/pki/kubelet-client-old.pem" in warnings(root, database)
    (pki / "kubelet-client-current.pem").symlink_to("kubelet-client-old.pem")
    assert list(missing(root, database)) == ["/var/lib/kubelet/pki/kubelet-client-old.pem"]


def test_another_cluster_in_the_same_etcd(root: Path, database: Path) -> None:
    """Values below another prefix are another cluster's, and so are their keys."""
    more_flags(root, "--etcd-prefix=/other")
    (root / ENCRYPTION).write_text((root / ENCRYPTION).read_text().replace("key1", "key2"))
    assert missing(root, database) == {}


def test_a_key_in_a_block_scalar(root: Path, database: Path) -> None:
    """A line break at the end of a base64 text is nothing to the API server."""
    text = (root / ENCRYPTION).read_text()
    (root / ENCRYPTION).write_text(
        re.sub(r"- \{name: key1, secret: (\S+)\}", r"- name: key1\n        secret: |\n          \1", text)
    )
    assert "secret: |" in (root / ENCRYPTION).read_text()
    assert missing(root, database) == {}


@pytest.mark.parametrize("text", ["[" * 30_000 + "]" * 30_000, "- " * 30_000 + "x", "a: !!bool x", "a: !!timestamp x"])
def test_yaml_that_would_end_the_process(root: Path, database: Path, text: str) -> None:
    """Nested beyond the parser's stack, or with tags that its constructors stumble over: no YAML, and no more."""
    (root / "etc/kubernetes/manifests/kube-scheduler.yaml").write_text(text)
    (root / "etc/kubernetes/odd.conf").write_text(f"kind: Config\nx: {text}")
    assert "/etc/kubernetes/manifests/kube-scheduler.yaml" in missing(root, database)


def test_a_nul_in_a_flag_is_no_path(root: Path, database: Path) -> None:
    """What no path can be is passed over."""
    more_flags(root, '"--config=/a\\0b"')
    assert set(missing(root, database, root)) <= {"/a\0b"}
