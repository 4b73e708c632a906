"""The objects source against an API server that pages, refuses, forgets, stalls and lies."""

import dataclasses
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgedr.errors import SourceError, StorageError
from edgedr.kubernetes_yaml import cleaned
from edgedr.layouts import UNKNOWN
from edgedr.model import Bytes, Finding, Severity
from edgedr.node.kube import Kube, KubeSettings
from edgedr.node.kubeconfig import read_kubeconfig
from edgedr.node.node import Node
from edgedr.sources.base import Absent, Captured, Count, Document, Elsewhere, Fact, Lacking, Listing
from edgedr.sources.objects import CONTENTS, DERIVED_KINDS, ObjectsSource
from tests.lab import kubeadm
from tests.lab.apiserver import ApiServer, recording, synthetic
from tests.lab.spools import SizeOnly
from tests.source_contract import Restored, SourceContract, restore

CONFIGMAPS = "/api/v1/configmaps"
CERTS = "/apis/cert.example.test/v1/certs"
CANARY = "canary-5f0e"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return kubeadm.unpack(tmp_path / "node")


@pytest.fixture
def server(root: Path) -> Iterator[ApiServer]:
    with ApiServer(root / "etc/kubernetes/pki") as running:
        yield running


@pytest.fixture
def node(root: Path, server: ApiServer) -> Node:
    return asking(root, server)


def asking(root: Path, server: ApiServer, **settings: Any) -> Node:
    node = kubeadm.node(root)
    access = read_kubeconfig(node.files, "/etc/kubernetes/admin.conf", server=server.url)
    patient = KubeSettings(**{"requests_per_second": 1000, **settings})
    return dataclasses.replace(node, kube=Kube(access, patient, sleep=lambda _: None))


class TestObjectsSource(SourceContract):
    @pytest.fixture
    def source(self) -> ObjectsSource:
        return ObjectsSource()

    @pytest.fixture
    def node(self, root: Path, server: ApiServer) -> Node:
        return asking(root, server)


@pytest.fixture
def capture(node: Node, tmp_path: Path) -> Callable[..., Restored]:
    def run(**settings: Any) -> Restored:
        return restore(ObjectsSource(**settings), node, tmp_path / f"restored-{len(list(tmp_path.iterdir()))}")

    return run


def reasons(items: tuple[Captured, ...]) -> list[str]:
    return [item.reason for item in items if isinstance(item, Lacking)]


def counts(items: tuple[Captured, ...]) -> dict[str, int]:
    return {item.noun: item.number for item in items if isinstance(item, Count)}


def text_of(restored: Restored, name: str) -> str:
    return (restored.root / ".edgedr/kubernetes" / name).read_text()


def objects_of(restored: Restored, name: str) -> list[dict[str, Any]]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return list(yaml.load_all(text_of(restored, name), Loader=loader))


def named(restored: Restored, name: str) -> list[str]:
    return [each["metadata"]["name"] for each in objects_of(restored, name)]


def test_every_kind_is_a_document(capture: Callable[..., Restored], server: ApiServer) -> None:
    """What the server lists is what is in the documents, cleaned, in its order; kinds and objects are counted."""
    restored = capture()
    assert reasons(restored.items) == []
    recorded = server.recording[CONFIGMAPS]["items"]
    wanted = sorted(recorded, key=lambda item: (item["metadata"]["namespace"], item["metadata"]["name"]))
    of = {"apiVersion": "v1", "kind": "ConfigMap"}
    kept = [cleaned({**of, **item}) for item in wanted if item["metadata"]["name"] != "kube-root-ca.crt"]
    assert objects_of(restored, "configmaps.yaml") == kept
    members = {item.member for item in restored.items if isinstance(item, Listing)}
    expected = {"nodes", "services", "deployments.apps", "certs.cert.example.test", "namespaces"}
    assert {f"kubernetes/{name}.yaml" for name in expected} <= members
    assert counts(restored.items) == {"objects": 556, "kinds": len(members)}
    assert sum(len(objects_of(restored, member.removeprefix("kubernetes/"))) for member in members) == 556


def test_a_document_says_what_it_is(capture: Callable[..., Restored]) -> None:
    """The first lines say what to do with it, the last one how many there should be."""
    lines = text_of(capture(), "storageclasses.storage.k8s.io.yaml").splitlines()
    assert lines[:3] == [
        "# StorageClass, storage.k8s.io/v1: without what a cluster sets itself.",
        "# Review, then: kubectl apply --server-side -f storageclasses.storage.k8s.io.yaml",
        "---",
    ]
    assert lines[-1] == "# end of storageclasses.storage.k8s.io: 2 objects"


def test_the_contents_fit_a_terminal(capture: Callable[..., Restored], server: ApiServer) -> None:
    """One page tells what is where, what was left out and what is lacking, in 80 columns."""
    server.refuse[CERTS] = 403
    page = text_of(capture(), "contents.txt")
    assert max(map(len, page.splitlines())) < 80
    assert "     35        5  configmaps\n" in page
    assert "      ?        ?  certs.cert.example.test\n" in page
    assert "Kinds without objects:\n  csidrivers.storage.k8s.io, " in page
    assert "  certificatesigningrequests.certificates.k8s.io, componentstatuses,\n" in page
    assert "What could not be read:\n  certs.cert.example.test: the API server refused" in page


def test_service_accounts_are_not_here(capture: Callable[..., Restored], server: ApiServer) -> None:
    """Secrets, accounts and RBAC belong to another source: they are not even asked for, whatever is configured."""
    restored = capture(exclude=(), include_kinds=("secrets", "roles*"), derived=True)
    written = {item.member for item in restored.items if isinstance(item, Listing)}
    assert not [name for name in written if "secret" in name or "role" in name or "serviceaccount" in name]
    assert not [path for path in server.requests if path.startswith(("/api/v1/secrets", "/api/v1/serviceaccounts"))]
    assert "kubernetes/events.yaml" in written


def test_derived_kinds_are_left_out_by_default(capture: Callable[..., Restored], server: ApiServer) -> None:
    """Events, leases, endpoints and the like are not asked for; a pattern brings some of them back."""
    restored = capture(include_kinds=("leases.*",))
    asked = {path.partition("?")[0] for path in server.requests}
    assert "/apis/coordination.k8s.io/v1/leases" in asked
    assert not asked & {"/api/v1/events", "/apis/events.k8s.io/v1/events", "/api/v1/endpoints"}
    assert len(objects_of(restored, "leases.coordination.k8s.io.yaml")) == 3
    assert "events" in DERIVED_KINDS


def test_a_kind_that_there_is_not_is_said(capture: Callable[..., Restored]) -> None:
    """A setting with a mistake in it is not silent."""
    found = [item for item in capture(include_kinds=("leaes",)).items if isinstance(item, Finding)]
    assert [(each.severity, each.subject) for each in found] == [(Severity.WARN, "leaes")]


def owned(name: str, api_version: str, kind: str, *, controller: bool = True) -> dict[str, Any]:
    owner = {"apiVersion": api_version, "kind": kind, "name": "x", "uid": "u", "controller": controller}
    return {"metadata": {"name": name, "namespace": "team-00", "ownerReferences": [owner]}}


def test_what_an_owner_makes_anew_is_left_out(capture: Callable[..., Restored], server: ApiServer) -> None:
    """An object goes with the owner that controls it, if that is captured; a claim stays, unless a pod made it."""
    server.recording["/api/v1/pods"]["items"] = [
        owned("of-set", "apps/v1", "ReplicaSet"),
        owned("of-nobody-here", "example.test/v1", "Cluster"),
        owned("of-a-friend", "apps/v1", "ReplicaSet", controller=False),
        owned("of-a-lease", "coordination.k8s.io/v1", "Lease"),
        {"metadata": {"name": "bare", "namespace": "team-00"}, "spec": {"nodeName": "cp-1"}},
    ]
    server.recording["/api/v1/persistentvolumeclaims"]["items"] = [
        owned("of-database", "db.example.test/v1", "Postgres"),
        owned("of-pod", "v1", "Pod"),
    ]
    restored = capture()
    assert named(restored, "pods.yaml") == ["bare", "of-a-friend", "of-a-lease", "of-nobody-here"]
    assert named(restored, "persistentvolumeclaims.yaml") == ["of-database"]
    assert "ownerReferences" not in text_of(restored, "pods.yaml")
    assert len(named(capture(derived=True), "pods.yaml")) == 5


def test_what_kubernetes_makes_itself_is_left_out(capture: Callable[..., Restored], server: ApiServer) -> None:
    """API services that are made at start, flow control that is kept up to date, the root CA in each namespace."""
    flow = server.recording["/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas"]["items"]
    flow[0]["metadata"]["annotations"]["apf.kubernetes.io/autoupdate-spec"] = "false"
    restored = capture()
    assert named(restored, "flowschemas.flowcontrol.apiserver.k8s.io.yaml") == [flow[0]["metadata"]["name"]]
    assert named(restored, "apiservices.apiregistration.k8s.io.yaml") == []
    assert "kube-root-ca.crt" not in named(restored, "configmaps.yaml")
    everything = capture(derived=True)
    assert len(named(everything, "apiservices.apiregistration.k8s.io.yaml")) == 24
    assert len(named(everything, "configmaps.yaml")) == 40


@pytest.mark.parametrize("status", [403, 404, 405, 500, 503])
def test_a_refused_kind_stops_nothing(capture: Callable[..., Restored], server: ApiServer, status: int) -> None:
    """One kind that cannot be read is named with the reason, and leaves no half of a document; the rest is there."""
    server.refuse[CERTS] = status
    restored = capture()
    assert reasons(restored.items) == [f"certs.cert.example.test: the API server refused {CERTS}: {CERTS} is refused"]
    assert objects_of(restored, "certs.cert.example.test.yaml") == []
    assert "could not be read" in text_of(restored, "certs.cert.example.test.yaml")
    assert counts(restored.items)["objects"] == 556 - 40
    assert {finding.severity for finding in restored.findings(ObjectsSource())} == {Severity.GOOD}


def test_a_page_that_is_refused_leaves_no_half(root: Path, server: ApiServer, tmp_path: Path) -> None:
    """A kind whose second page is lost each time has no objects in its document, and the reason beside it."""
    server.expire[CONFIGMAPS] = 1000
    restored = restore(ObjectsSource(), asking(root, server, page=10), tmp_path / "restored")
    assert objects_of(restored, "configmaps.yaml") == []
    assert [reason.partition(":")[0] for reason in reasons(restored.items)] == ["configmaps"]


def test_a_list_that_is_outdated_begins_anew(root: Path, server: ApiServer, tmp_path: Path) -> None:
    """After 410 in the middle of the pages, no object is there twice and none is lost."""
    whole = restore(ObjectsSource(), asking(root, server), tmp_path / "whole")
    server.expire[CONFIGMAPS] = 2
    restored = restore(ObjectsSource(), asking(root, server, page=10), tmp_path / "restored")
    assert reasons(restored.items) == []
    assert text_of(restored, "configmaps.yaml") == text_of(whole, "configmaps.yaml")
    assert counts(restored.items) == counts(whole.items)


def test_a_broken_group_is_named(capture: Callable[..., Restored], server: ApiServer) -> None:
    """The kinds of a group whose discovery fails are unknown, which is said; the rest goes on."""
    server.refuse["/apis/cert.example.test/v1"] = 503
    restored = capture()
    (reason,) = reasons(restored.items)
    assert reason.startswith("the kinds of cert.example.test/v1: the API server refused")
    assert counts(restored.items)["objects"] == 556 - 40


def test_measurements_that_fail_are_no_loss(capture: Callable[..., Restored], server: ApiServer) -> None:
    """A metrics server that is down belongs to what is left out anyway."""
    version = {"groupVersion": "metrics.k8s.io/v1beta1", "version": "v1beta1"}
    group = {"name": "metrics.k8s.io", "versions": [version], "preferredVersion": version}
    server.recording["/apis"]["groups"].append(group)
    server.refuse["/apis/metrics.k8s.io/v1beta1"] = 503
    assert reasons(capture().items) == []
    (reason,) = reasons(capture(exclude=()).items)
    assert reason.startswith("the kinds of metrics.k8s.io/v1beta1: the API server refused")


def test_a_web_page_instead_of_a_list_is_one_lost_kind(capture: Callable[..., Restored], server: ApiServer) -> None:
    """An answer that is no answer concerns its kind alone while the server answers others."""
    server.html.add(CERTS)
    restored = capture()
    assert reasons(restored.items) == [f"certs.cert.example.test: the API server's answer to {CERTS} is not JSON"]
    assert counts(restored.items)["objects"] == 556 - 40


def test_a_kind_that_never_answers_does_not_block(root: Path, server: ApiServer, tmp_path: Path) -> None:
    """A custom kind that hangs costs its deadline, is named, and takes nothing else along."""
    server.stall.add(CERTS)
    node = asking(root, server, answer=timedelta(seconds=0.2))
    restored = restore(ObjectsSource(), node, tmp_path / "restored")
    (reason,) = reasons(restored.items)
    assert reason.startswith("certs.cert.example.test: ")
    assert counts(restored.items)["objects"] == 556 - 40


def test_a_server_that_goes_away_is_said_once(root: Path, tmp_path: Path) -> None:
    """Half-way through, the server dies: what was read is kept, and the reason is given once, not per kind."""
    with ApiServer(root / "etc/kubernetes/pki") as server:
        node = asking(root, server)
        items: list[Captured] = []
        for item in ObjectsSource().capture(node):
            items.append(item)
            if isinstance(item, Listing):
                if item.member == "kubernetes/daemonsets.apps.yaml":
                    server.__exit__()
                item.pump(SizeOnly())
    lacking = reasons(tuple(items))
    assert len(lacking) == 1
    assert lacking[0].startswith("daemonsets.apps, 36 more kinds: cannot reach the API server")
    assert counts(tuple(items))["kinds"] == 7
    page = next(item.data for item in items if isinstance(item, Document) and item.member == CONTENTS)
    assert b"What could not be read:\n  daemonsets.apps, 36 more kinds" in page


class Floored:
    """A spool on a file system that is nearly full: beyond ``floor`` bytes it takes nothing more, until it restarts."""

    def __init__(self, floor: int) -> None:
        self.floor = floor
        self.data = b""

    @property
    def size(self) -> int:
        return len(self.data)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        if self.size + len(data) > self.floor:
            raise StorageError("cannot write members: 1 MiB left there, 2 MiB are kept free")
        self.data += data
        return len(data)

    def flush(self) -> None:
        pass

    def restart(self) -> None:
        self.data = b""


def pumped(source: ObjectsSource, node: Node, floor: int) -> tuple[tuple[Captured, ...], dict[str, bytes]]:
    """Capture into such a spool for each document."""
    items: list[Captured] = []
    written: dict[str, bytes] = {}
    for item in source.capture(node):
        items.append(item)
        if isinstance(item, Listing):
            spool = Floored(floor)
            item.pump(spool)
            written[item.member] = spool.data
    return tuple(items), written


def test_a_disk_that_is_nearly_full_costs_the_large_kinds(node: Node, server: ApiServer) -> None:
    """What does not leave enough free for others is lacking, with the reason; nothing is raised that ends a run."""
    server.recording[CONFIGMAPS] = synthetic(2000)
    items, written = pumped(ObjectsSource(), node, 1 << 20)
    (reason,) = reasons(items)
    assert reason == "configmaps: cannot write members: 1 MiB left there, 2 MiB are kept free"
    assert written["kubernetes/configmaps.yaml"].startswith(b"# configmaps: could not be read: cannot write members")
    assert b"# end of services: 60 objects\n" in written["kubernetes/services.yaml"]
    assert counts(items)["objects"] == 556 - 35
    assert "objects in kubernetes/configmaps.yaml" not in {item.key for item in items if isinstance(item, Fact)}


def test_a_disk_that_is_full_is_a_missing_source(node: Node, server: ApiServer) -> None:
    """Not even what is lacking can be written down: the source is missing, and no list was asked for."""
    with pytest.raises(SourceError, match="no kind could be read: cannot write members"):
        pumped(ObjectsSource(), node, 0)
    assert not [path for path in server.requests if "limit=" in path]


def test_what_does_not_fit_is_one_lost_kind(capture: Callable[..., Restored], server: ApiServer) -> None:
    """``max_bytes`` is for all documents together; the kind beyond it gives its room back to those after it."""
    server.recording[CONFIGMAPS] = synthetic(2000)
    restored = capture(max_bytes=Bytes(2 << 20))
    assert reasons(restored.items) == [
        "configmaps: does not fit into the 2 MiB that all documents may have; raise [sources.objects] max_bytes"
    ]
    assert text_of(restored, "configmaps.yaml").startswith("# configmaps: could not be read: does not fit")
    assert counts(restored.items)["objects"] == 556 - 35
    assert len(named(restored, "services.yaml")) == 60
    assert {finding.severity for finding in restored.findings(ObjectsSource())} == {Severity.GOOD}
    assert reasons(capture(max_bytes=Bytes(16 << 20)).items) == []


def test_a_list_that_begins_anew_takes_its_room_once(root: Path, server: ApiServer, tmp_path: Path) -> None:
    """What was forgotten after 410 does not count."""
    server.recording[CONFIGMAPS] = synthetic(1500)
    server.expire[CONFIGMAPS] = 2
    source = ObjectsSource(max_bytes=Bytes(3 << 20))
    assert reasons(restore(source, asking(root, server, page=1000), tmp_path / "restored").items) == []


def test_an_unusable_kubeconfig_is_a_missing_source(root: Path) -> None:
    """The reason is the kubeconfig's, with its hint."""
    kube = Kube.unusable(SourceError("/x.conf is no kubeconfig", hint="set another"))
    with pytest.raises(SourceError, match=r"/x\.conf is no kubeconfig") as caught:
        list(ObjectsSource().capture(dataclasses.replace(kubeadm.node(root), kube=kube)))
    assert caught.value.hint == "set another"


@pytest.mark.parametrize("length", [200, 201, 253])
def test_a_kind_with_a_long_name_has_a_document(
    capture: Callable[..., Restored], server: ApiServer, length: int
) -> None:
    """Its name is one that every file system takes, and that no other kind has, though they begin alike."""
    group = "g" * (length - 62) + ".test"
    for number in range(3):
        api = f"{group[:-1]}{number}/v1"
        version = {"groupVersion": api, "version": "v1"}
        server.recording["/apis"]["groups"].append({"name": api[:-3], "versions": [version]})
        resource = {"name": "p" * 56, "kind": "P", "namespaced": False, "verbs": ["list"]}
        server.recording[f"/apis/{api}"] = {"kind": "APIResourceList", "resources": [resource]}
        listed = {"apiVersion": api, "kind": "PList", "items": [{"metadata": {"name": f"of-{number}"}}]}
        server.recording[f"/apis/{api}/{'p' * 56}"] = listed
    restored = capture()
    found = [path.name for path in (restored.root / ".edgedr/kubernetes").glob("ppp*")]
    assert len(found) == 3
    assert max(map(len, found)) <= 225
    assert {name for each in found for name in named(restored, each)} == {"of-0", "of-1", "of-2"}


def test_a_server_that_is_down_is_a_missing_source(root: Path) -> None:
    """Nothing at all could be had: the source is missing, with the reason."""
    with ApiServer(root / "etc/kubernetes/pki") as server:
        node = asking(root, server)
    with pytest.raises(SourceError, match="cannot reach the API server") as caught:
        list(ObjectsSource().capture(node))
    assert caught.value.hint


def test_a_server_that_refuses_everything_is_a_missing_source(node: Node, server: ApiServer, tmp_path: Path) -> None:
    """Kinds are known, none can be read: that is no success with 45 remarks."""
    for path, answer in server.recording.items():
        if isinstance(answer, dict) and "items" in answer:
            server.refuse[path] = 403
    with pytest.raises(SourceError, match="no kind could be read: the API server refused"):
        restore(ObjectsSource(), node, tmp_path / "restored")


def test_a_node_without_an_api_is_told_apart(root: Path) -> None:
    """Without a kubeconfig it is a failure where there is a control plane, and none where nothing is known."""
    node = kubeadm.node(root)
    with pytest.raises(SourceError, match="no Kubernetes API") as caught:
        list(ObjectsSource().capture(node))
    assert caught.value.hint == "set [kubernetes] kubeconfig"
    unknown = dataclasses.replace(node, layout=UNKNOWN)
    assert list(ObjectsSource().capture(unknown)) == [Absent("no Kubernetes API is known on this node")]


def test_another_node_captures_it(node: Node, server: ApiServer) -> None:
    """Where another node does it, the API server is left in peace."""
    assert list(ObjectsSource().capture(dataclasses.replace(node, elsewhere="cp-2"))) == [Elsewhere("cp-2")]
    assert server.requests == []


def test_an_odd_object_costs_only_itself(capture: Callable[..., Restored], server: ApiServer) -> None:
    """Whoever may extend the API can send anything: what is no object is named, the rest of its kind is there."""
    deep: Any = "x"
    for _ in range(400):
        deep = [deep]
    certs = server.recording[CERTS]["items"]
    certs[:3] = [
        {"metadata": {"name": "odd\nowner", "namespace": "a", "ownerReferences": 5}},
        {"metadata": {"name": "odd-annotations", "namespace": "a", "ownerReferences": ["x"]}},
        {"metadata": {"name": "odd-depth", "namespace": "a"}, "spec": deep},
    ]
    restored = capture()
    assert len(objects_of(restored, "certs.cert.example.test.yaml")) == 37
    (reason,) = reasons(restored.items)
    names, _, why = reason.partition(": ")
    assert names.split(", ") == [
        f"a/odd{what} of certs.cert.example.test" for what in (" owner", "-annotations", "-depth")
    ]
    assert why == "malformed, too large, or nested too deeply to be written as YAML"


def test_a_kind_with_a_hostile_name_stays_outside(capture: Callable[..., Restored], server: ApiServer) -> None:
    """An aggregated API server chooses the names of its kinds, but neither where we write, nor what else we read."""
    resources = server.recording["/apis/cert.example.test/v1"]["resources"]
    resources[0] = {**resources[0], "name": "../../../etc/passwd?x"}
    resources[1] = {**resources[1], "kind": "Cert\n---\nkind: Role"}
    restored = capture()
    assert not [path for path in restored.root.rglob("*") if "passwd" in path.name]
    assert not [path for path in restored.root.rglob("*.yaml") if "kind: Role\n" in path.read_text()]


def test_two_kinds_of_one_name_are_told(capture: Callable[..., Restored], server: ApiServer) -> None:
    """A group whose name goes on with what another's plural ends with does not write over it."""
    resource = {
        **server.recording["/apis/cert.example.test/v1"]["resources"][0],
        "name": "certs.cert",
        "storageVersionHash": "",
    }
    version = {"groupVersion": "example.test/v1", "version": "v1"}
    server.recording["/apis"]["groups"].append({"name": "example.test", "versions": [version]})
    server.recording["/apis/example.test/v1"] = {"kind": "APIResourceList", "resources": [resource]}
    assert reasons(capture().items) in (
        ["certs.cert of example.test: another kind has the same name"],
        ["certs of cert.example.test: another kind has the same name"],
    )


def test_many_objects_take_little_memory(root: Path, server: ApiServer) -> None:
    """Of 20,000 ConfigMaps, about 25 MB, one page is in memory, and each is asked for once."""
    server.recording[CONFIGMAPS] = synthetic(20_000)
    spool = SizeOnly()
    node = asking(root, server)
    tracemalloc.start()
    try:
        for item in ObjectsSource(exclude=("[!c]*", "c[!o]*")).capture(node):
            if isinstance(item, Listing):
                item.pump(spool)
                if item.member == "kubernetes/configmaps.yaml":
                    assert spool.size > 20_000_000
                    peak = tracemalloc.get_traced_memory()[1]
                spool.restart()
            elif isinstance(item, Count) and item.noun == "objects":
                assert item.number >= 20_000
    finally:
        tracemalloc.stop()
    assert peak < 12 << 20
    assert len([path for path in server.requests if path.startswith(CONFIGMAPS)]) == 80


def test_damage_after_the_fact_is_named(capture: Callable[..., Restored]) -> None:
    """A document that lost an object is found by its hash, and by counting."""
    restored = capture()
    path = restored.root / ".edgedr/kubernetes/services.yaml"
    parts = path.read_text().split("---\n")
    path.write_text("---\n".join([*parts[:5], *parts[6:]]))
    found = [(each.severity, each.subject, each.text) for each in restored.findings(ObjectsSource())]
    assert found == [
        (Severity.BAD, "kubernetes/services.yaml", "was not restored as it was written"),
        (Severity.BAD, "kubernetes/services.yaml", "59 objects, of 60 that were written"),
    ]


def test_nothing_that_it_says_holds_a_secret(capture: Callable[..., Restored], server: ApiServer) -> None:
    """What is in objects is in sealed documents only: not in facts, counts, reasons, findings, or how items print."""
    for path in (CONFIGMAPS, "/api/v1/pods", CERTS):
        for item in server.recording[path]["items"]:
            item["metadata"].setdefault("annotations", {})["x"] = CANARY
            item["data"] = {"password": CANARY}
    server.recording[CERTS]["items"].append({"metadata": {"name": "odd", "ownerReferences": [CANARY]}})
    restored = capture()
    assert CANARY in text_of(restored, "configmaps.yaml")
    assert CANARY not in text_of(restored, "contents.txt")
    assert reasons(restored.items)
    assert CANARY not in repr(restored.items)
    damaged = restored.root / ".edgedr/kubernetes/configmaps.yaml"
    damaged.write_text(damaged.read_text().replace(f"password: {CANARY}", f"password: : {CANARY}"))
    assert CANARY not in repr(restored.findings(ObjectsSource()))


def test_facts_say_how_many(capture: Callable[..., Restored]) -> None:
    """Each document's number of objects is a fact, so that it can be counted again."""
    facts = {item.key: item.value for item in capture().items if isinstance(item, Fact)}
    assert facts["objects in kubernetes/services.yaml"] == "60"
    assert facts["objects in kubernetes/pods.yaml"] == "0"
    assert len(facts) == 44


def test_the_recording_is_what_these_tests_believe() -> None:
    """The figures above are those of the recording."""
    assert len(recording()[CONFIGMAPS]["items"]) == 40
    assert len(recording()[CERTS]["items"]) == 40
