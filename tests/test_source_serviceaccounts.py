"""The service accounts source: keys and tokens of the node, accounts and Secrets of the cluster, and their troubles."""

import base64
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

import edgedr.sources.documents as sources_documents
from edgedr.account_summary import Account, Binding, Bootstrap, Cluster, Subject, Token, summary
from edgedr.encryption import Encrypted, EncryptionConfiguration, Provider
from edgedr.errors import SourceError
from edgedr.kubernetes_yaml import cleaned
from edgedr.layouts import K3S, KUBEADM, UNKNOWN
from edgedr.model import Finding, Severity
from edgedr.node.files import Files
from edgedr.node.kube import Kube, KubeSettings
from edgedr.node.kubeconfig import read_kubeconfig
from edgedr.node.node import Node
from edgedr.sources.base import Absent, Captured, Count, Elsewhere, Fact, Lacking, Listing, TakePath
from edgedr.sources.serviceaccounts import ServiceAccountsSource
from tests.lab import kubeadm
from tests.lab.apiserver import ApiServer, synthetic
from tests.lab.pki import Authority
from tests.lab.spools import SizeOnly
from tests.source_contract import Restored, SourceContract, restore

PKI = "etc/kubernetes/pki"
ENCRYPTION = "etc/kubernetes/enc/encryption.yaml"
MANIFEST = "etc/kubernetes/manifests/kube-apiserver.yaml"
SECRETS = "/api/v1/secrets"
CANARY = "canary-7c1d"
DOCUMENTS = (
    "serviceaccounts", "secrets", "roles.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io",
    "clusterroles.rbac.authorization.k8s.io", "clusterrolebindings.rbac.authorization.k8s.io",
)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return kubeadm.unpack(tmp_path / "node")


@pytest.fixture
def server(root: Path) -> Iterator[ApiServer]:
    with ApiServer(root / PKI) as running:
        yield running


@pytest.fixture
def node(root: Path, server: ApiServer) -> Node:
    return asking(root, server)


def asking(root: Path, server: ApiServer, *, page: int = 250) -> Node:
    node = kubeadm.node(root)
    access = read_kubeconfig(node.files, "/etc/kubernetes/admin.conf", server=server.url)
    kube = Kube(access, KubeSettings(requests_per_second=1000, page=page), sleep=lambda _: None)
    return dataclasses.replace(node, kube=kube)


class TestServiceAccountsSource(SourceContract):
    @pytest.fixture
    def source(self) -> ServiceAccountsSource:
        return ServiceAccountsSource()

    @pytest.fixture
    def node(self, root: Path, server: ApiServer) -> Node:
        return asking(root, server)


def taken(items: tuple[Captured, ...] | list[Captured]) -> list[str]:
    return [str(item.path) for item in items if isinstance(item, TakePath)]


def facts(items: tuple[Captured, ...] | list[Captured]) -> dict[str, str]:
    return {item.key: item.value for item in items if isinstance(item, Fact)}


def counts(items: tuple[Captured, ...]) -> dict[str, int]:
    return {item.noun: item.number for item in items if isinstance(item, Count)}


def reasons(items: tuple[Captured, ...] | list[Captured]) -> list[str]:
    return [item.reason for item in items if isinstance(item, Lacking)]


def text_of(restored: Restored, name: str) -> str:
    return (restored.root / ".edgedr/serviceaccounts" / name).read_text()


def objects_of(restored: Restored, name: str) -> list[dict[str, Any]]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return list(yaml.load_all(text_of(restored, f"{name}.yaml"), Loader=loader))


def bad(restored: Restored) -> list[tuple[str, str]]:
    found = restored.findings(ServiceAccountsSource())
    return [(each.subject, each.text) for each in found if each.severity is Severity.BAD]


def test_a_kubeadm_cluster_is_taken_whole(node: Node, server: ApiServer, tmp_path: Path) -> None:
    """Keys and encryption as files, six kinds as documents that equal what the server lists, and their numbers."""
    restored = restore(ServiceAccountsSource(), node, tmp_path / "restored")
    assert taken(restored.items) == [
        "/etc/kubernetes/pki/sa.key",
        "/etc/kubernetes/pki/sa.pub",
        "/etc/kubernetes/enc/encryption.yaml",
    ]
    assert reasons(restored.items) == []
    assert counts(restored.items) == {"accounts": 60, "secrets": 37, "tokens": 9, "bindings": 80}
    assert [item.member for item in restored.items if isinstance(item, Listing)] == [
        f"serviceaccounts/{name}.yaml" for name in DOCUMENTS
    ]
    recorded = sorted(
        server.recording[SECRETS]["items"], key=lambda item: (item["metadata"]["namespace"], item["metadata"]["name"])
    )
    assert objects_of(restored, "secrets") == [
        cleaned({"apiVersion": "v1", "kind": "Secret", **each}) for each in recorded
    ]
    assert {each["type"] for each in objects_of(restored, "secrets")} >= {
        "bootstrap.kubernetes.io/token", "kubernetes.io/service-account-token", "Opaque", "kubernetes.io/tls",
    }  # fmt: skip


def test_what_tokens_and_secrets_hang_on_is_known(node: Node, tmp_path: Path) -> None:
    """Fingerprints of signing keys, names of encryption keys and the issuer are facts, to compare on the bad day."""
    known = facts(restore(ServiceAccountsSource(), node, tmp_path / "restored").items)
    assert known["signing key /etc/kubernetes/pki/sa.key"].startswith("SHA256:")
    assert known["signing key /etc/kubernetes/pki/sa.key"] == known["signing key /etc/kubernetes/pki/sa.pub"]
    assert known["encryption keys /etc/kubernetes/enc/encryption.yaml"] == "secretbox key1"
    assert known["token issuer"] == "https://kubernetes.default.svc.cluster.local"
    assert known["objects in serviceaccounts/secrets.yaml"] == "37"


def test_a_fingerprint_is_that_of_other_tools(root: Path) -> None:
    """It is the SHA-256 of the public key in DER, in base64: ``openssl pkey -pubin -outform DER | sha256sum``."""
    import hashlib  # noqa: PLC0415

    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    public = serialization.load_pem_public_key((root / PKI / "sa.pub").read_bytes())
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    expected = base64.b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")
    known = facts(list(ServiceAccountsSource().capture(kubeadm.node(root))))
    assert known["signing key /etc/kubernetes/pki/sa.pub"] == f"SHA256:{expected}"


def test_whatever_the_flags_name_is_taken(root: Path) -> None:
    """Several verification keys, and an encryption configuration that is mounted from elsewhere."""
    (root / "srv/keys").mkdir(parents=True)
    for name in ("old.pub", "new[1].pub"):
        shutil.copy(root / PKI / "sa.pub", root / "srv/keys" / name)
    shutil.copy(root / ENCRYPTION, root / "srv/keys/enc.yaml")
    manifest = root / MANIFEST
    old = "    - --service-account-key-file=/etc/kubernetes/pki/sa.pub\n"
    new = f"{old}    - --service-account-key-file=/keys/old.pub\n    - --service-account-key-file=/keys/new[1].pub\n"
    text = manifest.read_text().replace(old, new)
    text = text.replace("--encryption-provider-config=/etc/kubernetes/enc/encryption.yaml", "--encryption-provider-config=/keys/enc.yaml")  # fmt: skip # noqa: E501
    text = text.replace("    volumeMounts:\n", "    volumeMounts:\n    - {mountPath: /keys, name: keys}\n")
    manifest.write_text(text.replace("  volumes:\n", "  volumes:\n  - {name: keys, hostPath: {path: /srv/keys}}\n"))
    items = list(ServiceAccountsSource().capture(kubeadm.node(root)))
    assert {"/srv/keys/old.pub", "/srv/keys/new[1].pub", "/srv/keys/enc.yaml"} <= set(taken(items))
    assert facts(items)["encryption keys /srv/keys/enc.yaml"] == "secretbox key1"
    assert "signing key /srv/keys/new[1].pub" in facts(items)


def test_credentials_of_k3s_are_taken(tmp_path: Path) -> None:
    """The token that seals the datastore, logins, the node's password, the service key, encryption as JSON."""
    server = tmp_path / "var/lib/rancher/k3s/server"
    files = {
        server / "token": "K10::server:canary",
        server / "cred/passwd": "canary,server,server",
        server / "cred/node-passwd": "canary",
        server / "cred/encryption-config.json": (
            '{"kind":"EncryptionConfiguration","apiVersion":"apiserver.config.k8s.io/v1","resources":[{"resources":'
            '["secrets"],"providers":[{"aescbc":{"keys":[{"name":"aescbckey","secret":"'
            + base64.b64encode(bytes(32)).decode()
            + '"}]}},{"identity":{}}]}]}'
        ),
        tmp_path / "etc/rancher/node/password": "canary",
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    Authority.make("service").write(server / "tls/service")
    node = Node(Files(tmp_path), K3S)
    items = list(ServiceAccountsSource().capture(node))
    assert {f"/{path.relative_to(tmp_path)}" for path in files} <= set(taken(items))
    assert "/var/lib/rancher/k3s/server/tls/service.key" in taken(items)
    known = facts(items)
    assert known["encryption keys /var/lib/rancher/k3s/server/cred/encryption-config.json"] == "aescbc aescbckey"
    assert known["signing key /var/lib/rancher/k3s/server/tls/service.key"].startswith("SHA256:")
    assert "canary" not in repr([item for item in items if not isinstance(item, TakePath)])


def test_settings_add_and_take_away(root: Path) -> None:
    """``paths`` brings credentials from elsewhere, ``exclude`` keeps some out; a mistake in them is said."""
    (root / "opt/kms").mkdir(parents=True)
    (root / "opt/kms/token").write_text("x")
    source = ServiceAccountsSource(paths=("/opt/kms", "/opt/absent"), exclude=("/etc/**/sa.key",))
    items = list(source.capture(kubeadm.node(root)))
    assert {"/opt/kms", "/opt/kms/token", "/etc/kubernetes/pki/sa.pub"} <= set(taken(items))
    assert "/etc/kubernetes/pki/sa.key" not in taken(items)
    assert "signing key /etc/kubernetes/pki/sa.key" not in facts(items)
    found = [item for item in items if isinstance(item, Finding)]
    assert [(each.severity, each.subject) for each in found] == [(Severity.WARN, "/opt/absent")]


def test_the_summary_reads_well(node: Node, server: ApiServer, tmp_path: Path) -> None:
    """One page says which keys, which tokens, who is there and what they may do, in 80 columns, without any secret."""
    page = text_of(restore(ServiceAccountsSource(), node, tmp_path / "restored"), "summary.txt")
    assert max(map(len, page.splitlines())) < 80
    known = facts(list(ServiceAccountsSource().capture(kubeadm.node(node.root))))
    for expected in (
        f"  /etc/kubernetes/pki/sa.key\n      {known['signing key /etc/kubernetes/pki/sa.key']}\n",
        "  issuer https://kubernetes.default.svc.cluster.local\n",
        "  /etc/kubernetes/enc/encryption.yaml\n      secrets\n          secretbox key1\n          identity\n",
        "  team-00/sa-011-token: of sa-011\n",
        "  k8stst: until 2026-11-23T22:35:40Z\n",
        "Accounts of team-00\n-------------------\n  default\n  sa-011\n",
        "  kube-proxy\n      ClusterRole system:node-proxier everywhere\n",
        "  Group system:masters\n      ClusterRole cluster-admin everywhere\n",
    ):
        assert expected in page
    public = {"auth-extra-groups", "expiration", "namespace"}
    secrets = [
        value
        for item in server.recording[SECRETS]["items"]
        for key, value in (item.get("data") or {}).items()
        if key not in public and len(value) > 12
    ]
    assert len(secrets) > 30
    assert [value for value in secrets if value in page or base64.b64decode(value) in page.encode()] == []


def test_roles_are_said_where_they_hold() -> None:
    """A role is shown with the account that holds it, with its namespace if that is another, and once."""
    reader, admin = Subject("ServiceAccount", "team", "reader"), Subject("User", "", "anna\n  Group root")
    cluster = Cluster(
        accounts=[Account("team", "reader"), Account("team", "idle")],
        tokens=[Token("team", "old", "reader")],
        bootstraps=[Bootstrap("abcdef", None), Bootstrap("012345", "2026-11-23T22:35:40Z")],
        bindings=[
            Binding("team", "Role view", (reader, admin)),
            Binding("team", "Role view", (reader,)),
            Binding("other", "Role edit", (reader, Subject("ServiceAccount", "team", "gone"))),
            Binding("", "ClusterRole list", (reader, Subject("Group", "", "system:serviceaccounts:team"))),
        ],
    )
    page = summary({}, {}, (), cluster)
    assert page.partition("Tokens that never expire")[2] == (
        "\n------------------------\n  team/old: of reader\n"
        "\nTokens to join nodes with\n-------------------------\n"
        "  012345: until 2026-11-23T22:35:40Z\n  abcdef: for ever\n"
        "\nAccounts of team\n----------------\n"
        "  every one of them\n      ClusterRole list everywhere\n"
        "  gone (no such account)\n      Role edit in other\n"
        "  idle\n"
        "  reader\n      ClusterRole list everywhere, Role edit in other, Role view\n"
        "\nUsers and groups\n----------------\n"
        "  User anna Group root\n      Role view in team\n"
    )


def test_no_name_passes_for_another_line() -> None:
    """Whatever an account, a token, a role, a group or a key is called: it stays on its line, and moves no cursor."""
    odd = "x\n\nUsers and groups\x1b[2J\r"
    subject = Subject("ServiceAccount", odd, odd)
    cluster = Cluster(
        accounts=[Account(odd, odd)],
        tokens=[Token(odd, odd, odd)],
        bootstraps=[Bootstrap(odd, None)],
        bindings=[
            Binding(odd, odd, (subject, Subject(odd, odd, odd), Subject("Group", "", f"system:serviceaccounts:{odd}")))
        ],
        missing=odd,
    )
    encryption = EncryptionConfiguration((Encrypted((odd,), (Provider("aescbc", keys=(odd,)),)),))
    page = summary({odd: "SHA256:x"}, {odd: encryption}, (odd,), cluster)
    assert all(sign.isprintable() or sign == "\n" for sign in page)
    assert page.splitlines().count("Users and groups") == 1
    assert "  x Users and groups [2J/x Users and groups [2J: of x Users and groups [2J\n" in page


def test_a_page_has_an_end(node: Node, server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more accounts than memory should hold, the first are on the page, which says so; all are in the document."""
    monkeypatch.setattr(sources_documents, "_MAX_NOTED", 2000)
    restored = restore(ServiceAccountsSource(), node, tmp_path / "restored")
    assert reasons(restored.items) == []
    assert counts(restored.items)["accounts"] == len(objects_of(restored, "serviceaccounts")) == 60
    page = " ".join(text_of(restored, "summary.txt").split())
    assert "serviceaccounts: only the first of them are on this page, all are in serviceaccounts.yaml" in page


@pytest.mark.parametrize(
    ("expiration", "shown"),
    [
        (None, "for ever"),
        ("2027-01-01T00:00:00Z", "until 2027-01-01T00:00:00Z"),
        ("2027-01-01T00:00:00+02:00", "until 2027-01-01T00:00:00+02:00"),
        (CANARY, "until a time that cannot be read"),
        ("2027-01-01T00:00:00Z\n" + CANARY, "until a time that cannot be read"),
    ],
)
def test_a_bootstrap_token_shows_its_end_and_no_more(
    node: Node, server: ApiServer, tmp_path: Path, expiration: str | None, shown: str
) -> None:
    """Only a time is shown as one, as it was recorded; the token's secret half never."""
    token = next(each for each in server.recording[SECRETS]["items"] if each["type"] == "bootstrap.kubernetes.io/token")
    token["data"].pop("expiration")
    if expiration:
        token["data"]["expiration"] = base64.b64encode(expiration.encode()).decode()
    page = text_of(restore(ServiceAccountsSource(), node, tmp_path / "restored"), "summary.txt")
    assert f"  k8stst: {shown}\n" in page
    assert CANARY not in page
    assert "0123456789abcdef" not in page


def test_an_api_that_is_down_leaves_the_files(root: Path, tmp_path: Path) -> None:
    """Keys are taken though the server does not answer; what is lacking has one reason, and the summary says it."""
    with ApiServer(root / PKI) as server:
        node = asking(root, server)
    restored = restore(ServiceAccountsSource(), node, tmp_path / "restored")
    assert "/etc/kubernetes/pki/sa.key" in taken(restored.items)
    (reason,) = reasons(restored.items)
    assert reason.startswith("serviceaccounts, 5 more kinds: cannot reach the API server")
    assert counts(restored.items) == {}
    assert "Of the cluster: serviceaccounts, 5 more kinds: cannot reach" in text_of(restored, "summary.txt")
    assert bad(restored) == []


@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_refused_kind_stops_nothing(node: Node, server: ApiServer, tmp_path: Path, status: int) -> None:
    """Without the right to list Secrets the rest is there, no number is made up, and the reason names the kind."""
    server.refuse[SECRETS] = status
    restored = restore(ServiceAccountsSource(), node, tmp_path / "restored")
    assert reasons(restored.items) == [f"secrets: the API server refused {SECRETS}: {SECRETS} is refused"]
    assert counts(restored.items) == {"accounts": 60, "bindings": 80}
    assert objects_of(restored, "secrets") == []
    assert "could not be read" in text_of(restored, "secrets.yaml")
    assert bad(restored) == []


def test_a_list_that_is_outdated_begins_anew(root: Path, server: ApiServer, tmp_path: Path) -> None:
    """After 410 in the middle of the pages nothing is there twice, in the document or in the summary."""
    whole = restore(ServiceAccountsSource(), asking(root, server), tmp_path / "whole")
    server.expire = {SECRETS: 1, "/api/v1/serviceaccounts": 2}
    restored = restore(ServiceAccountsSource(), asking(root, server, page=10), tmp_path / "restored")
    assert counts(restored.items) == counts(whole.items)
    for name in ("secrets.yaml", "serviceaccounts.yaml", "summary.txt"):
        assert text_of(restored, name) == text_of(whole, name)


def test_no_api_is_said(root: Path) -> None:
    """A control plane whose API nobody knows is partial; its keys are taken."""
    items = list(ServiceAccountsSource().capture(kubeadm.node(root)))
    assert reasons(items) == ["no Kubernetes API is known on this node"]
    assert len(taken(items)) == 3


def test_another_node_captures_the_cluster(node: Node, server: ApiServer, tmp_path: Path) -> None:
    """Each node keeps its own files, and says who keeps the rest; the API server is left in peace."""
    restored = restore(ServiceAccountsSource(), dataclasses.replace(node, elsewhere="cp-2"), tmp_path / "restored")
    assert facts(restored.items)["cluster part"] == "captured by cp-2"
    assert (len(taken(restored.items)), reasons(restored.items), server.requests) == (3, [], [])
    assert "Of the cluster: captured by cp-2\n" in text_of(restored, "summary.txt")
    blank = dataclasses.replace(node, files=Files(tmp_path / "blank"), elsewhere="cp-2")
    assert list(ServiceAccountsSource().capture(blank)) == [Elsewhere("cp-2")]


def test_nothing_at_all_is_told_apart(tmp_path: Path, root: Path) -> None:
    """A machine without any of it has no such thing; a control plane without any of it is a failure."""
    blank = Node(Files(tmp_path / "blank"), UNKNOWN)
    (absent,) = ServiceAccountsSource().capture(blank)
    assert isinstance(absent, Absent)
    with pytest.raises(SourceError, match="no signing key") as caught:
        list(ServiceAccountsSource().capture(dataclasses.replace(blank, layout=KUBEADM)))
    assert caught.value.hint
    with ApiServer(root / PKI) as server:
        away = dataclasses.replace(asking(root, server), files=Files(tmp_path / "blank"))
    with pytest.raises(SourceError, match="cannot reach the API server"):
        restore(ServiceAccountsSource(), away, tmp_path / "restored")


@pytest.mark.parametrize("path", [f"{PKI}/sa.key", f"{PKI}/sa.pub", ENCRYPTION])
def test_a_damaged_byte_is_found(node: Node, tmp_path: Path, path: str) -> None:
    """One changed byte in any file that was taken is found by its hash."""
    restored = restore(ServiceAccountsSource(), node, tmp_path / "restored")
    content = bytearray((restored.root / path).read_bytes())
    content[-10] ^= 1
    (restored.root / path).write_bytes(content)
    assert (f"/{path}", "has another content") in bad(restored)


def test_keys_of_another_day_are_found(node: Node, tmp_path: Path) -> None:
    """Another key pair is named by its fingerprint, half of one by the pair, another encryption key by its name."""
    restored = restore(ServiceAccountsSource(), node, tmp_path / "restored")
    Authority.make("x").write(restored.root / PKI / "x")
    shutil.copy(restored.root / PKI / "x.key", restored.root / PKI / "sa.key")
    text = (restored.root / ENCRYPTION).read_text()
    (restored.root / ENCRYPTION).write_text(text.replace("key1", "key2"))
    assert ("/etc/kubernetes/pki/sa.key", "has other keys than it had") in bad(restored)
    assert ("/etc/kubernetes/enc/encryption.yaml", "has other keys than it had") in bad(restored)


def test_half_a_pair_at_capture_is_found(root: Path, tmp_path: Path) -> None:
    """A node whose keys do not fit gives a backup that is not called good."""
    Authority.make("x").write(root / PKI / "x")
    shutil.copy(root / PKI / "x.key", root / PKI / "sa.key")
    restored = restore(ServiceAccountsSource(), kubeadm.node(root), tmp_path / "restored")
    assert bad(restored) == [("/etc/kubernetes/pki/sa.key", "is not the key of /etc/kubernetes/pki/sa.pub")]


def test_a_key_that_is_in_no_backup_is_found(node: Node, tmp_path: Path) -> None:
    """A fact about a key without the key is a bad finding; one that came with another source is said."""
    restored = restore(ServiceAccountsSource(), node, tmp_path / "restored")
    key = f"/{PKI}/sa.key"
    (restored.root / key[1:]).unlink()
    entries = restored.inventory.entries
    without = dataclasses.replace(restored.inventory, entries=tuple(e for e in entries if e.path != key))
    assert (key, "is not in the backup") in bad(dataclasses.replace(restored, inventory=without))
    others = tuple(dataclasses.replace(e, source="certificates") if e.path == key else e for e in entries)
    elsewhere = dataclasses.replace(restored, inventory=dataclasses.replace(restored.inventory, entries=others))
    found = [each for each in elsewhere.findings(ServiceAccountsSource()) if each.subject == key]
    assert [each.severity for each in found] == [Severity.WARN]


def test_an_unreadable_encryption_configuration_is_still_taken(root: Path) -> None:
    """What cannot be read is kept as it is; nothing about its keys is claimed, and none of it is shown."""
    (root / ENCRYPTION).write_text(f"kind: EncryptionConfiguration\nresources: : {CANARY}\n")
    items = list(ServiceAccountsSource().capture(kubeadm.node(root)))
    assert TakePath(PurePosixPath("/", ENCRYPTION)) in items
    assert not [key for key in facts(items) if key.startswith("encryption")]
    assert CANARY not in repr(items)


def test_many_secrets_are_remembered_as_numbers(node: Node, server: ApiServer) -> None:
    """Of 20,000 Secrets nothing stays in memory but how many there were."""
    server.recording[SECRETS] = synthetic(20_000, size=200, kind="Secret")
    import tracemalloc  # noqa: PLC0415

    tracemalloc.start()
    try:
        found: dict[str, int] = {}
        for item in ServiceAccountsSource().capture(node):
            if isinstance(item, Listing):
                item.pump(SizeOnly())
            elif isinstance(item, Count):
                found[item.noun] = item.number
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found["secrets"] == 20_000
    assert found["tokens"] == 0
    assert peak < 12 << 20


def test_nothing_that_it_says_holds_a_secret(node: Node, server: ApiServer, tmp_path: Path) -> None:
    """Canaries in every Secret are in the one document, and in no fact, count, reason, summary, finding, or print."""
    encoded = base64.b64encode(CANARY.encode()).decode()
    for item in server.recording[SECRETS]["items"]:
        item["data"] = dict.fromkeys(item.get("data") or {"x": ""}, encoded)
        item["metadata"].setdefault("annotations", {})["note"] = CANARY
    server.recording[SECRETS]["items"].append({"metadata": {"name": "odd", "namespace": "a"}, "data": [CANARY],
                                               "type": "bootstrap.kubernetes.io/token"})  # fmt: skip
    key = (node.root / ENCRYPTION).read_text().partition("secret: ")[2].strip(" }\n")[:20]
    restored = restore(ServiceAccountsSource(), node, tmp_path / "restored")
    assert encoded in text_of(restored, "secrets.yaml")
    assert reasons(restored.items) == [
        "a/odd of secrets: malformed, too large, or nested too deeply to be written as YAML"
    ]
    damaged = restored.root / ".edgedr/serviceaccounts/secrets.yaml"
    damaged.write_text(damaged.read_text().replace(f": {encoded}", f": : {encoded}"))
    (restored.root / ENCRYPTION).write_text((restored.root / ENCRYPTION).read_text().replace("secret: ", "secret: : "))
    said = repr(restored.items) + repr(restored.findings(ServiceAccountsSource())) + text_of(restored, "summary.txt")
    assert len(key) == 20
    for secret in (CANARY, encoded, key):
        assert secret not in said
