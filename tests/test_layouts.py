"""Layouts: which distribution runs here, where it keeps what, and what its parts were told."""

import json
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edgedr.errors import SourceError
from edgedr.layouts import K3S, KUBEADM, LAYOUTS, RKE2, UNKNOWN, Datastore, Essential, Layout, LayoutSettings
from edgedr.node.components import (
    Component,
    component,
    components,
    datastore,
    distribution_option,
    distribution_options,
    sqlite_database,
)
from edgedr.node.etcd_members import Member, Survey
from edgedr.node.files import Files
from edgedr.node.kube import Kube, KubeSettings
from edgedr.sources.etcd import EtcdSource
from edgedr.sources.table import SourceTable
from edgedr.wiring import find_layout, on_duty, open_kube, own_member
from tests.lab import k3s, kubeadm
from tests.lab.etcd import free_port
from tests.lab.k3s import K3sNode

UNIT = "/etc/systemd/system/k3s.service"


@pytest.fixture
def server(tmp_path: Path) -> K3sNode:
    return k3s.build(tmp_path / "node")


def found(node: K3sNode, wanted: LayoutSettings | None = None) -> Layout:
    return find_layout(Files(node.root), wanted)


def kept(node: K3sNode) -> Datastore:
    return datastore(Files(node.root), found(node))


def option(node: K3sNode, name: str) -> str | None:
    return distribution_option(Files(node.root), found(node), name)


def paths(value: object) -> list[str]:
    """Return every path in a field of a layout."""
    if isinstance(value, str):
        return [value] if value.startswith("/") else []
    if isinstance(value, Essential):
        return [value.path]
    return [path for item in value for path in paths(item)] if isinstance(value, tuple) else []


def all_paths(layout: Layout) -> list[str]:
    return [path for each in fields(layout) for path in paths(getattr(layout, each.name))]


def test_each_distribution_is_found(tmp_path: Path) -> None:
    """What is on the machine tells which one it is; a machine with none has the unknown layout."""
    assert find_layout(Files(kubeadm.unpack(tmp_path / "kubeadm"))) == KUBEADM
    assert found(k3s.build(tmp_path / "k3s")) == K3S
    assert found(k3s.build(tmp_path / "rke2", name="rke2", datastore="etcd")) == RKE2
    (tmp_path / "blank").mkdir()
    assert find_layout(Files(tmp_path / "blank")) == UNKNOWN


def test_an_agent_is_no_server(server: K3sNode) -> None:
    """A node that only runs pods has an agent directory and no server's: it is no control plane."""
    server.server.rename(server.root / "away")
    assert found(server) == UNKNOWN


def test_what_a_layout_names_is_on_a_real_node(tmp_path: Path) -> None:
    """Each essential path, and whatever a layout names one by one, is what the distribution makes."""
    for name in ("k3s", "rke2"):
        node = k3s.build(tmp_path / name, name=name, datastore="etcd")
        layout, files = found(node), Files(node.root)
        named: tuple[str | None, ...] = (
            layout.token,
            layout.encryption,
            layout.etcd_data,
            layout.etcd_name,
            layout.etcd_ca,
        )
        named += (layout.etcd_cert, layout.etcd_key, *layout.signing_keys, *layout.kubeconfig, layout.pods)
        named += (layout.etcd_manifest, layout.apiserver_manifest, *(each.path for each in layout.essential))
        assert [path for path in named if path and not files.exists(path)] == []
        for patterns in (layout.certificates, layout.files, layout.credentials, layout.config, layout.units):
            assert files.expand(patterns)


def test_a_moved_data_directory_is_followed(tmp_path: Path) -> None:
    """``data-dir`` of the distribution's own configuration moves everything that lies below it."""
    moved = k3s.build(tmp_path / "node", data_dir="/mnt/disk/k3s")
    layout = found(moved)
    assert layout == K3S.below("/mnt/disk/k3s")
    assert layout.sqlite == "/mnt/disk/k3s/server/db/state.db"
    assert kept(moved) is Datastore.SQLITE


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/etc/rancher/k3s/config.yaml.d/10-disk.yaml", "data-dir: /mnt/disk/k3s\n"),
        ("/etc/rancher/k3s/config.yaml.d/10-disk.yml", "data-dir: /mnt/disk/k3s\n"),
        (
            UNIT,
            "[Service]\nExecStart=/usr/local/bin/k3s \\\n    server \\\n\t'--data-dir' \\\n\t'/mnt/disk/k3s' \\\n\n",
        ),
        (UNIT, "[Service]\nExecStart=/usr/local/bin/k3s server -d /mnt/disk/k3s\n"),
        (UNIT, "[Service]\nEnvironment=A=b K3S_DATA_DIR=/mnt/disk/k3s\nExecStart=/usr/local/bin/k3s server\n"),
        (f"{UNIT}.d/disk.conf", "[Service]\nExecStart=\nExecStart=k3s server --data-dir=/mnt/disk/k3s\n"),
        (f"{UNIT}.env", "K3S_TOKEN='x'\nK3S_DATA_DIR='/mnt/disk/k3s'\n"),
        ("/etc/default/k3s", 'export K3S_DATA_DIR="/mnt/disk/k3s"\n'),
    ],
)
def test_wherever_it_was_moved(tmp_path: Path, path: str, content: str) -> None:
    """k3s takes options from its configuration, drop-ins, the unit's command over several lines, and environment."""
    moved = k3s.build(tmp_path / "node", data_dir="/mnt/disk/k3s")
    moved.write("/etc/rancher/k3s/config.yaml", "secrets-encryption: true\n")
    assert found(moved) == UNKNOWN
    moved.write(path, content)
    assert found(moved) == K3S.below("/mnt/disk/k3s")


def test_the_operator_knows_better(server: K3sNode) -> None:
    """Settings win over what is found: the name of the layout, its data directory, and each path."""
    assert found(server, LayoutSettings(name="kubeadm")) == KUBEADM
    assert found(server, LayoutSettings(name="k3s", data_dir="/mnt/k3s")) == K3S.below("/mnt/k3s")
    wanted = LayoutSettings(data_dir="/mnt/k3s", sqlite="/srv/own.db")
    assert found(server, LayoutSettings(name="k3s", sqlite="/srv/own.db")).sqlite == "/srv/own.db"
    assert wanted.over(K3S).sqlite == "/srv/own.db"
    assert wanted.over(K3S).token == "/mnt/k3s/server/token"
    (server.root / "blank").mkdir()
    blank = find_layout(Files(server.root / "blank"), LayoutSettings(encryption="/etc/k0s/encryption.yaml"))
    assert blank.encryption == "/etc/k0s/encryption.yaml"


@pytest.mark.parametrize(
    "name", [each.name for each in fields(LayoutSettings) if each.name not in {"name", "data_dir"}]
)
def test_every_path_can_be_set(name: str) -> None:
    """Each setting replaces the field of the same name, in every layout, and nothing else."""
    value = ("/own",) if "tuple" in str(LayoutSettings.__annotations__[name]) else "/own"
    for layout in (*LAYOUTS, UNKNOWN):
        changed = LayoutSettings(**{name: value}).over(layout)  # type: ignore[arg-type]
        assert {each.name for each in fields(layout) if getattr(changed, each.name) != getattr(layout, each.name)} == {
            name
        }
        assert getattr(changed, name) == value


@pytest.mark.parametrize("layout", [K3S, RKE2], ids=lambda layout: layout.name)
def test_below_moves_everything(layout: Layout) -> None:
    """No path of the old data directory is left, and none outside it is touched."""
    old = f"/var/lib/rancher/{layout.name}"
    moved = all_paths(layout.below("/mnt/disk/"))
    expected = [
        "/mnt/disk" + path[len(old) :] if path == old or path.startswith(old + "/") else path
        for path in all_paths(layout)
    ]
    assert moved == expected
    assert sum(path.startswith("/mnt/disk") for path in moved) > 20
    assert layout.below(old) == layout
    assert KUBEADM.below("/mnt/disk") == KUBEADM


def test_the_datastore_of_each_kind_of_server(tmp_path: Path) -> None:
    """Stacked, embedded, SQLite, another database: told apart by what is on the machine."""
    root = kubeadm.unpack(tmp_path / "kubeadm")
    assert datastore(Files(root), KUBEADM) is Datastore.STACKED_ETCD
    (root / "etc/kubernetes/manifests/etcd.yaml").unlink()
    assert datastore(Files(root), KUBEADM) is Datastore.EXTERNAL_ETCD
    (root / "etc/kubernetes/manifests/kube-apiserver.yaml").unlink()
    assert datastore(Files(root), KUBEADM) is Datastore.UNKNOWN
    assert kept(k3s.build(tmp_path / "sqlite")) is Datastore.SQLITE
    assert kept(k3s.build(tmp_path / "etcd", datastore="etcd")) is Datastore.EMBEDDED_ETCD
    assert kept(k3s.build(tmp_path / "rke2", name="rke2", datastore="etcd")) is Datastore.EMBEDDED_ETCD
    assert kept(k3s.build(tmp_path / "mysql", datastore="external")) is Datastore.EXTERNAL_DATABASE


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("mysql://u:p@tcp(10.0.0.9:3306)/k3s", Datastore.EXTERNAL_DATABASE),
        ("postgres://u:p@10.0.0.9:5432/k3s", Datastore.EXTERNAL_DATABASE),
        ("nats://10.0.0.9", Datastore.EXTERNAL_DATABASE),
        ("https://10.0.0.9:2379,https://10.0.0.8:2379", Datastore.EXTERNAL_ETCD),
        ("sqlite://", Datastore.SQLITE),
        ("litestream:///srv/state.db?_kine_disable_startup_vacuum", Datastore.SQLITE),
    ],
)
def test_a_datastore_option_says_where(server: K3sNode, endpoint: str, expected: Datastore) -> None:
    """Where no etcd lives here, the option decides, even beside an old database; it may stand in the environment."""
    server.write(f"{UNIT}.env", f"K3S_DATASTORE_ENDPOINT='{endpoint}'\n")
    assert kept(server) is expected


def test_etcd_on_disk_wins(server: K3sNode) -> None:
    """k3s uses the etcd that it finds on its disk whatever it is told; the directory without a log is none."""
    server.write("/etc/rancher/k3s/config.yaml", "datastore-endpoint: mysql://u:p@tcp(10.0.0.9:3306)/k3s\n")
    server.write("/var/lib/rancher/k3s/server/db/etcd/name", "server-1-1a2b3c4d")
    assert kept(server) is Datastore.EXTERNAL_DATABASE
    server.write("/etc/rancher/k3s/config.yaml", "")
    assert kept(server) is Datastore.SQLITE  # a snapshot command leaves such a directory on a server with SQLite
    (server.server / "db/etcd/member/wal").mkdir(parents=True)
    server.write("/etc/rancher/k3s/config.yaml", "datastore-endpoint: mysql://u:p@tcp(10.0.0.9:3306)/k3s\n")
    assert kept(server) is Datastore.EMBEDDED_ETCD


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        (None, "/var/lib/rancher/k3s/server/db/state.db"),
        ("sqlite", "/var/lib/rancher/k3s/server/db/state.db"),
        ("sqlite:///srv/own.db?_journal=WAL&cache=shared", "/srv/own.db"),
        ("sqlite://./db/own.db", "/var/lib/rancher/k3s/server/db/own.db"),
        ("sqlite://file:/srv/own.db?mode=rwc", "/srv/own.db"),
    ],
)
def test_where_the_database_is(server: K3sNode, endpoint: str | None, expected: str) -> None:
    """The datastore option may name another file; a relative one begins where the server runs."""
    if endpoint:
        server.write("/etc/rancher/k3s/config.yaml.d/db.yaml", f"datastore-endpoint: {endpoint}\n")
    assert sqlite_database(Files(server.root), found(server)) == expected


def test_the_later_option_counts(server: K3sNode) -> None:
    """Environment, configuration, its drop-ins in order, command line: as k3s itself has it."""
    places = (
        (f"{UNIT}.env", "K3S_NODE_NAME=environment\n"),
        ("/etc/rancher/k3s/config.yaml", "node-name: configuration\n"),
        ("/etc/rancher/k3s/config.yaml.d/10.yaml", "node-name: first\n"),
        ("/etc/rancher/k3s/config.yaml.d/20.yaml", "node-name: second\n"),
        (UNIT, "[Service]\nExecStart=/usr/local/bin/k3s server \\\n  --node-name=unit\n"),
        (f"{UNIT}.d/10.conf", "[Service]\nExecStart=\nExecStart=/usr/local/bin/k3s server --node-name drop-in\n"),
    )
    for path, content in places:
        server.write(path, content)
        assert (option(server, "node-name") or "none") in content
    assert UNIT not in [path for path, _ in distribution_options(Files(server.root), K3S)]  # its command was emptied


def test_what_cannot_be_read_stops_nothing(server: K3sNode) -> None:
    """A broken configuration file, an odd value or quote, and an empty list are no reason to know nothing."""
    server.write("/etc/rancher/k3s/config.yaml", "node-name: [\n")
    server.write("/etc/rancher/k3s/config.yaml.d/10.yaml", "- a list\n")
    server.write("/etc/rancher/k3s/config.yaml.d/20.yaml", "node-label: []\nnode-ip:\ndisable+: traefik\n")
    server.write(UNIT, "[Service]\nExecStart=/usr/local/bin/k3s server --node-name it's\n")
    assert option(server, "node-label") is None
    assert option(server, "node-ip") == ""
    assert option(server, "disable") == "traefik"
    assert option(server, "node-name") == "it's"


def test_flags_of_static_pods_are_read(tmp_path: Path) -> None:
    """Static pod manifests of kubeadm and rke2 have them; a path in the container is translated to the node's."""
    told, findings = components(Files(kubeadm.unpack(tmp_path / "kubeadm")), KUBEADM)
    assert {each.name for each in told} >= {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}
    assert findings == ()
    node = k3s.build(tmp_path / "rke2", name="rke2", datastore="etcd")
    apiserver = component(Files(node.root), found(node), "kube-apiserver")
    assert apiserver is not None
    assert apiserver.told_by == "/var/lib/rancher/rke2/agent/pod-manifests/kube-apiserver.yaml"
    expected = "/var/lib/rancher/rke2/server/cred/encryption-config.json"
    assert ("encryption-provider-config", expected) in list(apiserver.named_paths())
    mounted = Component("x", "/x", (("config", "/etc/app/deep/c.yaml"),), (("/etc/app", "/srv/app"), ("/etc", "/e")))
    assert list(mounted.named_paths()) == [("config", "/srv/app/deep/c.yaml")]


def test_a_broken_manifest_is_named(tmp_path: Path) -> None:
    """A file among the static pods that is none is a finding; the others are read."""
    node = k3s.build(tmp_path / "rke2", name="rke2", datastore="etcd")
    node.write("/var/lib/rancher/rke2/agent/pod-manifests/odd.yaml", "spec: {containers: 5}\n")
    told, findings = components(Files(node.root), found(node))
    assert {each.name for each in told} == {"etcd", "kube-apiserver"}
    assert [each.subject for each in findings] == ["/var/lib/rancher/rke2/agent/pod-manifests/odd.yaml"]


def test_flags_that_k3s_passes_on_are_read(server: K3sNode) -> None:
    """``kube-apiserver-arg`` from configuration, drop-ins and the unit's lines all count as the API server's flags."""
    server.write(
        "/etc/rancher/k3s/config.yaml", "kube-apiserver-arg:\n- audit-policy-file=/etc/k3s/audit.yaml\n- v=2\n"
    )
    server.write("/etc/rancher/k3s/config.yaml.d/oidc.yaml", "kube-apiserver-arg+: oidc-ca-file=/etc/k3s/oidc.crt\n")
    command = "ExecStart=/usr/local/bin/k3s \\\n    server \\\n\t'--kube-apiserver-arg' \\\n\t'v=4' \\\n"
    more = "\t'--kube-apiserver-arg=admission-control-config-file=/etc/k3s/admission.yaml' \\\n\t'--etcd-arg=x=y'\n"
    server.write(UNIT, f"[Service]\n{command}{more}")
    files = Files(server.root)
    apiserver = component(files, found(server), "kube-apiserver")
    assert apiserver is not None
    assert list(apiserver.named_paths()) == [
        ("audit-policy-file", "/etc/k3s/audit.yaml"),
        ("oidc-ca-file", "/etc/k3s/oidc.crt"),
        ("admission-control-config-file", "/etc/k3s/admission.yaml"),
    ]
    assert apiserver.flag("v") == "4"
    assert component(files, found(server), "etcd") == Component("etcd", UNIT, (("x", "y"),))
    assert component(files, found(server), "kubelet") is None


def _kubeconfig(server: str = "https://10.77.0.21:6443") -> str:
    config = {
        "kind": "Config",
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "clusters": [{"name": "x", "cluster": {"server": server}}],
        "users": [{"name": "x", "user": {"token": "t0ken"}}],
    }
    return json.dumps(config)


@pytest.mark.parametrize("broken", ["", "\t", "kind: Config\n", _kubeconfig("http://plain:6443")])
def test_a_kubeconfig_of_the_layout_that_cannot_be_used(server: K3sNode, broken: str) -> None:
    """The next one is taken; with none that is of use there is no API server, and no error: closure names the file."""
    first, second = K3S.kubeconfig
    server.write(second, _kubeconfig())
    server.write(first, _kubeconfig("https://10.77.0.20:6443"))
    files = Files(server.root)
    assert _server(open_kube(files, K3S, KubeSettings())) == "https://10.77.0.20:6443"
    server.write(first, broken)
    assert _server(open_kube(files, K3S, KubeSettings())) == "https://10.77.0.21:6443"
    server.write(second, broken)
    assert open_kube(files, K3S, KubeSettings()) is None
    for path in (first, second):
        server.at(path).unlink()
    assert open_kube(files, K3S, KubeSettings()) is None


def test_a_kubeconfig_of_the_settings_is_the_only_one(server: K3sNode) -> None:
    """It is taken before the layout's; where it cannot be used none of the layout's is, for it may be another's."""
    for path in K3S.kubeconfig:
        server.write(path, _kubeconfig())
    server.write("/srv/own.yaml", _kubeconfig("https://10.77.0.22:6443"))
    files = Files(server.root)
    assert _server(open_kube(files, K3S, KubeSettings(kubeconfig="/srv/own.yaml"))) == "https://10.77.0.22:6443"
    lost = open_kube(files, K3S, KubeSettings(kubeconfig="/srv/none.yaml"))
    assert lost is not None
    with pytest.raises(SourceError, match=r"/srv/none\.yaml"):
        lost.get("/version")


def _server(kube: Kube | None) -> str | None:
    return kube.server if kube else None


def _member(id_: str, name: str) -> Member:
    return Member(id_, name, (), (), learner=False)


def test_the_own_member_of_a_k3s_node(tmp_path: Path) -> None:
    """k3s keeps its member's name in a file; a node whose file is gone or empty is no member, unnamed ones neither."""
    node = k3s.build(tmp_path / "node", datastore="etcd")
    assert K3S.etcd_name is not None
    seen = Survey((), members=(_member("a", ""), _member("b", "server-2-5f6a7b8c"), _member("c", "server-1-1a2b3c4d")))
    node.write(K3S.etcd_name, "server-1-1a2b3c4d\n")
    assert own_member(node.node(), seen) == "c"
    for other in ("server-3-00000000", "", "\n"):
        node.write(K3S.etcd_name, other)
        assert own_member(node.node(), seen) is None
    node.at(K3S.etcd_name).unlink()
    assert own_member(node.node(), seen) is None


def test_the_own_member_of_a_node_with_a_static_pod(tmp_path: Path) -> None:
    """The flag of etcd's static pod names it, also where a member without a name was listed first."""
    root = kubeadm.unpack(tmp_path / "node")
    seen = Survey((), members=(_member("a", ""), _member("b", "cp-1"), _member("c", "cp-2")))
    assert own_member(kubeadm.node(root), seen) == "b"
    (root / "etc/kubernetes/manifests/etcd.yaml").unlink()
    assert own_member(kubeadm.node(root), seen) is None


@pytest.mark.parametrize("what", ["certificate", "authority", "manifest", "server"])
def test_a_node_that_cannot_ask_etcd_captures(tmp_path: Path, what: str) -> None:
    """Certificates that cannot be used, a manifest that is none, nobody who answers: the source will say why."""
    root = kubeadm.unpack(tmp_path / "node")
    if what == "certificate":
        for stem in ("apiserver-etcd-client", "etcd/healthcheck-client", "etcd/server"):
            (root / f"etc/kubernetes/pki/{stem}.key").write_text("no key")
    elif what == "authority":
        (root / "etc/kubernetes/pki/etcd/ca.crt").unlink()
    elif what == "manifest":
        (root / "etc/kubernetes/manifests/etcd.yaml").write_text("kind: ConfigMap\n")
    etcd = EtcdSource(endpoints=() if what == "manifest" else (f"https://127.0.0.1:{free_port()}",))
    node = replace(kubeadm.node(root), now=datetime(2026, 11, 24, tzinfo=UTC))
    assert on_duty(node, SourceTable(etcd=etcd)).elsewhere is None
