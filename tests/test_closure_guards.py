"""What keeps closure honest: doubts that weigh no more than they should, and keys that are no keys; who may look."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from edgedr.closure import Evidence, close
from edgedr.inventory import SourceRecord
from edgedr.layouts import KUBEADM
from edgedr.model import Finding, Severity, Status
from edgedr.node.files import Files
from edgedr.sealing.identities import make_identity
from tests.lab import bolt, kubeadm
from tests.lab.operator import Operator, Said
from tests.lab.pki import Authority

PKI = "etc/kubernetes/pki"
ENCRYPTION = "etc/kubernetes/enc/encryption.yaml"
KEY = base64.b64encode(bytes(range(32))).decode()
SHORT = base64.b64encode(b"canary").decode()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A node as kubeadm left it, all of it captured."""
    return kubeadm.unpack(tmp_path / "node")


def database(path: Path, values: Mapping[bytes, bytes]) -> Path:
    """Write a snapshot that holds these values."""
    page = bolt.leaf(bolt.history(*values.items()))
    return bolt.write(path, bolt.database(bolt.leaf([(b"key", bolt.inline(page), bolt.BUCKET)])))


def look(root: Path, etcd: Path | None = None) -> SourceRecord:
    return close(Evidence(Files(root), KUBEADM, etcd=etcd))


def found(record: SourceRecord, severity: Severity) -> dict[str, Finding]:
    """Return its findings of one weight, by subject; what a backup without a datastore is warned of left aside."""
    return {each.subject: each for each in record.findings if each.severity is severity and each.subject != "datastore"}


def encrypt(root: Path, *providers: object) -> None:
    rule = {"resources": ["secrets"], "providers": [*providers, {"identity": {}}]}
    (root / ENCRYPTION).write_text(json.dumps({"kind": "EncryptionConfiguration", "resources": [rule]}))


def aescbc(name: str, secret: object = KEY) -> dict[str, object]:
    return {"aescbc": {"keys": [{"name": name, "secret": secret}]}}


@pytest.mark.parametrize("secret", [SHORT, KEY[:-4], "not base64!", "", None, 7])
def test_a_key_that_no_server_could_use_is_missing(root: Path, tmp_path: Path, secret: object) -> None:
    """Its name is there, and values are sealed with it: the backup is not whole, and nothing of the key is said."""
    etcd = database(tmp_path / "etcd.db", {b"/registry/secrets/a/b": b"k8s:enc:aescbc:v1:old:sealed"})
    encrypt(root, aescbc("new"), aescbc("old"))
    assert look(root, etcd).status is Status.OK
    encrypt(root, aescbc("new"), aescbc("old", secret))
    record = look(root, etcd)
    assert record.status is Status.PARTIAL
    (piece,) = record.missing
    assert piece.subject == "encryption key aescbc old"
    assert f"of /{ENCRYPTION} is none that an API server could use" in piece.text
    assert piece.hint
    assert SHORT not in str(record)
    assert KEY[:-4] not in str(record)


def test_every_unusable_key_is_named(root: Path) -> None:
    """Each by its provider and name, also where nothing is sealed with it yet: no API server starts with one."""
    encrypt(root, aescbc("one", SHORT), {"secretbox": {"keys": [{"name": "two", "secret": SHORT}]}}, aescbc("three"))
    assert set(found(look(root), Severity.BAD)) == {"encryption key aescbc one", "encryption key secretbox two"}


@pytest.mark.parametrize(("version", "said"), [(None, "kms v1 vault"), ("v1", "kms v1 vault"), ("v2", "kms v2 vault")])
def test_what_a_kms_sealed_needs_the_kms(root: Path, tmp_path: Path, version: str | None, said: str) -> None:
    """No backup can hold it: its plugin is named with its socket as a warning, and nothing is called missing."""
    settings = {"name": "vault", "endpoint": "unix:///run/kms.sock", **({"apiVersion": version} if version else {})}
    encrypt(root, {"kms": settings})
    value = f"k8s:enc:kms:{version or 'v1'}:vault:sealed".encode()
    record = look(root, database(tmp_path / "etcd.db", {b"/registry/secrets/a/b": value}))
    assert (record.status, record.missing) == (Status.OK, ())
    (warning,) = found(record, Severity.WARN).values()
    assert warning.subject == f"{said} at unix:///run/kms.sock"
    assert "cannot be in a backup" in warning.text
    assert "drill" in (warning.hint or "")


def test_another_kms_reads_nothing(root: Path, tmp_path: Path) -> None:
    """A plugin of another name, or of the other version of the protocol, does not read what was sealed."""
    encrypt(root, {"kms": {"name": "vault", "endpoint": "unix:///run/kms.sock", "apiVersion": "v2"}})
    values = {b"/registry/secrets/a/b": b"k8s:enc:kms:v1:vault:x", b"/registry/secrets/a/c": b"k8s:enc:kms:v2:other:x"}
    record = look(root, database(tmp_path / "etcd.db", values))
    assert set(found(record, Severity.BAD)) == {"encryption key vault", "encryption key other"}


def test_without_any_encryption_nothing_is_said_of_keys(root: Path, tmp_path: Path) -> None:
    """Local keys alone need no reminder of a KMS; values in the clear need no key."""
    encrypt(root, aescbc("one"))
    record = look(root, database(tmp_path / "etcd.db", {b"/registry/secrets/a/b": b"k8s\0in the clear"}))
    assert (record.status, record.findings) == (Status.OK, ())


def stranger(root: Path, name: str = "stranger") -> str:
    """Let an authority that is not here sign a leaf among the node's certificates; return its path on the node."""
    Authority.make("another-ca").issue(root / PKI / name, "cp-1", ExtendedKeyUsageOID.CLIENT_AUTH)
    return f"/{PKI}/{name}.crt"


def test_a_leaf_whose_authority_is_elsewhere_is_a_reminder(root: Path) -> None:
    """Nothing of this cluster hangs on it as far as can be told: a warning that names the authority, no more."""
    path = stranger(root)
    record = look(root)
    assert (record.status, record.missing) == (Status.OK, ())
    warning = found(record, Severity.WARN)[path]
    assert "its authority CN=another-ca is not in the backup" in warning.text
    assert warning.hint


@pytest.mark.parametrize("authority", ["ca.crt", "front-proxy-ca.crt", "etcd/ca.crt"])
def test_leaves_of_a_missing_authority_are_not_named_one_by_one(root: Path, authority: str) -> None:
    """The authority is the piece; its leaves are no further findings, nor is any other orphan until it is there."""
    stranger(root)
    (root / PKI / authority).unlink()
    record = look(root)
    assert f"/{PKI}/{authority}" in found(record, Severity.BAD)
    assert found(record, Severity.WARN) == {}


@pytest.fixture
def said(node: Operator, capsys: pytest.CaptureFixture[str]) -> Said:
    node.init()
    (node.root / PKI / "sa.key").unlink()
    node.run("backup", code=3)
    node.run("backup", code=3)
    return Said(node, capsys)


@pytest.mark.parametrize("damage", [False, True])
def test_a_wrong_identity_is_told_before_anything_is_opened(
    said: Said, node: Operator, tmp_path: Path, damage: bool
) -> None:
    """Exit 6, and whose identity it would take: nobody is told that a backup is damaged for holding the wrong key."""
    other = tmp_path / "other.txt"
    other.write_text(f"{make_identity().secret}\n")
    if damage:
        for segment in node.repository.rglob("*.age"):
            segment.write_bytes(bytes(segment.stat().st_size))
    for words in (("show", "1", "--closure"), ("show", "latest", "--closure", "--repository", str(node.repository))):
        text = " ".join(said(*words, "--identity", other, code=6, config="--repository" not in words).split())
        assert "is not one that" in text
        assert "was sealed for" in text
        assert "damaged" not in text
    out, _ = node.run("show", "1", "--closure", "--identity", node.identity, code=7 if damage else 0)
    assert ("/etc/kubernetes/pki/sa.key" in out) is not damage


def test_the_node_itself_needs_no_identity_for_its_newest(said: Said, node: Operator, tmp_path: Path) -> None:
    """What it kept in the clear is what was signed; once that is changed an identity is wanted as for any other."""
    other = tmp_path / "other.txt"
    other.write_text(f"{make_identity().secret}\n")
    assert "sa.key" in said("show", "latest", "--closure")
    assert "sa.key" in said("show", "latest", "--closure", "--identity", other)
    (cached,) = node.state.rglob("node.tar")
    data = cached.read_bytes()
    assert b"every service account token becomes invalid" in data
    cached.write_bytes(data.replace(b"every service account token", b"never service account token", 1))
    assert "no identity was given" in " ".join(said("show", "latest", "--closure", code=6).split())
    said("show", "latest", "--closure", "--identity", other, code=6)
    assert "every service" in " ".join(said("show", "latest", "--closure", "--identity", node.identity).split())
