"""`edgedr config check`: what it knows without asking anybody, and what it does not let pass."""

from pathlib import Path

import pytest

from edgedr.sources.table import SOURCE_NAMES
from tests.lab import k3s
from tests.lab.operator import Operator, Said

TRANSFER = """
[[sources.dns.transfers]]
server = "10.0.0.53"
zones = ["plant.example", "0.0.10.in-addr.arpa"]
key = "edgedr"
secret = "{}"
"""


@pytest.fixture
def said(node: Operator, capsys: pytest.CaptureFixture[str]) -> Said:
    node.init([])
    return Said(node, capsys)


def change(node: Operator, old: str, new: str) -> None:
    text = node.config.read_text()
    assert old in text
    node.config.write_text(text.replace(old, new))


def test_what_is_known_of_each_source(said: Said) -> None:
    """The endpoint of etcd, that there is no SQLite, who captures for the cluster; the rest is asked for later."""
    text = said("config", "check")
    for line in (
        "etcd             https://127.0.0.1:2379: stacked etcd\n",
        "sqlite           none here\n",
        "certificates     20 certificates, 16 keys\n",
        "dns              no zone transfers are set",
        "cluster part     auto: the first healthy follower",
        "asked at capture  serviceaccounts, addresses, machine, objects\n",
    ):
        assert line in text
    assert max(map(len, text.splitlines())) <= 80
    found = said.json("config", "check")
    assert set(found["sources"]) == set(SOURCE_NAMES)
    assert found["sources"]["certificates"] == "20 certificates, 16 keys"
    assert found["layout"]["certificates"] == ["/etc/kubernetes/pki", "/etc/kubernetes/*.conf"]


def test_k3s_with_sqlite_has_no_etcd(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The database is named, etcd is not here; `init` promises neither more nor less."""
    operator = Operator(tmp_path, k3s.build(tmp_path / "root").root)
    operator.init([])
    (wrote,) = [line for line in operator.printed[0].splitlines() if line.startswith("will take")]
    assert "sqlite" in operator.printed[0]
    assert "etcd" not in wrote
    text = Said(operator, capsys)("config", "check")
    assert "etcd             none here\n" in text
    assert "sqlite           /var/lib/rancher/k3s/server/db/state.db\n" in text


def test_another_node_captures_for_the_cluster(said: Said) -> None:
    """Told never to, this node takes neither etcd nor objects."""
    change(said.operator, '# cluster_capture = "auto"', 'cluster_capture = "never"')
    text = said("config", "check")
    assert "etcd             captured by another node\n" in text
    assert "objects          captured by another node\n" in text
    assert "cluster part     never: another node" in text


def test_zone_transfers_are_named_and_their_secrets_looked_at(said: Said, scratch: Path) -> None:
    """Server and zones; a secret that cannot be read is found now. What systemd gives to the unit cannot be."""
    secret = scratch / "tsig"
    text = said.operator.config.read_text()
    said.operator.config.write_text(text + TRANSFER.format(f"file:{secret}"))
    wrong = said("config", "check", code=2)
    assert f"[sources.dns] transfers #1 secret: file:{secret} cannot be read: no such file" in wrong
    secret.write_text("c2VjcmV0")
    told = said("config", "check")
    assert "dns              1 transfer: plant.example, 0.0.10.in-addr.arpa from 10.0.0.53\n" in told
    said.operator.config.write_text(text + TRANSFER.format("credential:tsig"))
    said("config", "check")
    change(said.operator, "disabled = []", 'disabled = ["dns"]')
    change(said.operator, "credential:tsig", "env:NOT_SET_ANYWHERE")
    said("config", "check")
    change(said.operator, 'disabled = ["dns"]', "disabled = []")
    assert "env:NOT_SET_ANYWHERE is not set" in said("config", "check", code=2)


def test_replicas_are_shown_and_what_they_need_is_looked_at(said: Said, scratch: Path) -> None:
    """Where each is and how long it keeps things; a credential or an authority that is not there is said, not shown."""
    config = said.operator.config
    text, key = config.read_text(), scratch / "s3-credential"
    replica = f'name = "b"\nurl = "s3://bucket/edge"\ncredential = "file:{key}"\nca = "{key}.pem"\n'
    lifetimes = 'full_lifetime = "90 d"\ndelta_lifetime = "30 d"\n'
    config.write_text(f"{text}\n[[replicas]]\n{replica}{lifetimes}")
    try:
        missing = said("config", "check", code=2)
        assert f"replicas #1 credential: file:{key} cannot be read" in missing
        assert f"replicas #1 ca: {key}.pem is not there" in missing
        key.write_text("CANARY-not-a-key")
        Path(f"{key}.pem").write_text("")
        wrong = said("config", "check", code=2)
        assert "holds no access key of S3" in wrong
        assert "CANARY" not in wrong
        key.write_text("aws_access_key_id = CANARYID\naws_secret_access_key = CANARYSECRET\n")
        shown = said("config", "check")
        assert "b  s3://bucket/edge" in shown
        assert "fulls for 90 days, deltas for 30" in shown
        assert "CANARY" not in shown
        assert said.json("config", "check")["replicas"] == {"b": "s3://bucket/edge"}
    finally:
        config.write_text(text)


def test_a_kubeconfig_that_was_named_must_be_one(said: Said) -> None:
    """A capture would go on without it and lack much; the check says so at once."""
    change(said.operator, "[kubernetes]", '[kubernetes]\nkubeconfig = "/etc/absent.conf"')
    text = said("config", "check", code=2)
    assert "  [kubernetes] kubeconfig: there is no readable kubeconfig /etc/absent.conf\n" in text
    (said.operator.root / "etc/absent.conf").write_text("{}")
    assert "[kubernetes] kubeconfig: /etc/absent.conf is not a kubeconfig" in said("config", "check", code=2)


def test_a_layout_that_was_named_must_be_there(said: Said) -> None:
    """The name of another distribution would capture nothing."""
    change(said.operator, '# name = "k3s"', 'name = "k3s"')
    text = said("config", "check", code=2)
    assert "[layout] name: k3s is not on this node: /var/lib/rancher/k3s/server/tls is not there\n" in text
    change(said.operator, 'name = "k3s"', 'name = "kubeadm"')
    said("config", "check")


def test_what_a_backup_would_fail_of_is_said(said: Said) -> None:
    """A required source of which nothing can be found ends with its code, after all else is said."""
    (said.operator.root / "etc/kubernetes/manifests/etcd.yaml").write_text("no pod\n")
    text = said("config", "check", code=4)
    assert "etcd             cannot be had: /etc/kubernetes/manifests/etcd.yaml is not a" in text
    assert "error: a backup would fail: /etc/kubernetes/manifests/etcd.yaml is not a static pod manifest\n" in text
    assert "repository       " in text
