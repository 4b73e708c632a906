"""The addresses source: a real network namespace, a recorded API server, DHCP servers' files, and their faults."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgedr.errors import SourceError
from edgedr.layouts import K3S, KUBEADM, UNKNOWN
from edgedr.model import Finding, Severity
from edgedr.node.commands import WITHIN
from edgedr.node.files import Files
from edgedr.node.kube import Kube, KubeError, Object
from edgedr.node.kubeconfig import KubeAccess
from edgedr.node.node import Node
from edgedr.sealing.zstandard import zstd
from edgedr.sources.addresses import AddressesSource
from edgedr.sources.base import Captured, Count, Document, Fact, Lacking, Source, TakePath
from tests.lab import kubeadm
from tests.source_contract import SourceContract, restore

RECORDING = Path(__file__).parent / "data" / "kubeadm-api.json.zst"
POOLS = "/apis/metallb.io/v1beta1/ipaddresspools"
SERVICES = "/api/v1/services"
WIDTH = 80


class Answers(Kube):
    """An API server whose lists are a recording, or the HTTP status of a refusal; ``down`` answers nothing at all."""

    def __init__(self, answers: Mapping[str, Any], *, down: bool = False) -> None:
        super().__init__(KubeAccess("https://recorded", None))
        self.answers = answers
        self.down = down
        self.asked: list[str] = []

    def scan(self, path: str, take: Callable[[Object], object], again: Callable[[], object]) -> int:
        self.asked.append(path)
        answer = self.answers.get(path, 404)
        if self.down:
            raise KubeError("cannot reach the API server at https://recorded: nothing listens there")
        if isinstance(answer, int):
            raise KubeError(f"the API server refused {path}: HTTP status {answer}", status=answer)
        of = {"apiVersion": answer["apiVersion"], "kind": answer["kind"].removesuffix("List")}
        take({**of, **self.answers["/api/v1/nodes"]["items"][0]})  # a list that begins anew
        again()
        for item in answer["items"]:
            take({**of, **item})
        return len(answer["items"])


@dataclass
class Said:
    """What ``ip`` printed, by its last words; what it is not known to say, it fails on."""

    answers: dict[str, str] = field(default_factory=dict)

    def run(self, *words: str, within: timedelta = WITHIN) -> str:
        answer = self.answers.get(" ".join(words[2:]))
        if answer is None:
            raise SourceError(f"`{' '.join(words)}` ended with 1")
        return answer


@dataclass(frozen=True)
class InNamespace:
    """Runs commands in a network namespace."""

    name: str

    def run(self, *words: str, within: timedelta = WITHIN) -> str:
        command = ["ip", "netns", "exec", self.name, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@cache
def _recorded() -> bytes:
    return zstd.decompress(RECORDING.read_bytes())


def recorded() -> dict[str, Any]:
    answers: dict[str, Any] = json.loads(_recorded())
    return answers


HOST = {
    "-d addr": json.dumps(
        [
            {
                "ifname": "eth0",
                "link_type": "ether",
                "address": "aa:bb:cc:dd:ee:ff",
                "mtu": 1500,
                "addr_info": [{"family": "inet", "local": "10.77.0.20", "prefixlen": 24, "scope": "global"}],
            }
        ]
    ),
    "-4 route show table all": '[{"dst":"default","gateway":"10.77.0.1","dev":"eth0","flags":[]}]',
    "-4 rule": '[{"priority":32766,"src":"all","table":"main"}]',
}

LEASES = "1795300000 aa:bb:cc:dd:ee:01 10.77.0.50 printer *\n"


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = kubeadm.unpack(tmp_path / "node")
    write(root, "etc/netplan/50-edge.yaml", "network: {ethernets: {eth0: {addresses: [10.77.0.20/24]}}}\n")
    write(root, "etc/dnsmasq.d/lan.conf", "dhcp-range=10.77.0.50,10.77.0.99,12h\n")
    write(root, "var/lib/misc/dnsmasq.leases", LEASES)
    return root


@pytest.fixture
def node(root: Path) -> Node:
    return Node(Files(root), KUBEADM, commands=Said(HOST), kube=Answers(recorded()))


def captured(node: Node, source: AddressesSource | None = None) -> list[Captured]:
    return list((source or AddressesSource()).capture(node))


def document(items: list[Captured], member: str) -> str:
    return next(item.data.decode() for item in items if isinstance(item, Document) and item.member == member)


def plan(items: list[Captured]) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(document(items, "addresses/plan.json"))
    return read


def uses(items: list[Captured], purpose: str) -> list[tuple[str, str]]:
    return [(use["at"], use["owner"]) for use in plan(items)["uses"] if use["purpose"] == purpose]


def complaints(items: list[Captured]) -> list[tuple[str, str]]:
    return [(item.subject, item.text) for item in items if isinstance(item, Finding)]


def lacking(items: list[Captured]) -> list[str]:
    return [item.reason for item in items if isinstance(item, Lacking)]


def counts(items: list[Captured]) -> dict[str, int]:
    return {item.noun: item.number for item in items if isinstance(item, Count)}


def facts(items: list[Captured]) -> dict[str, str]:
    return {item.key: item.value for item in items if isinstance(item, Fact)}


def listing(*items: object) -> dict[str, Any]:
    return {"apiVersion": "x/v1", "kind": "XList", "metadata": {}, "items": list(items)}


def service(name: str, **spec: Any) -> dict[str, Any]:
    status = spec.pop("status", {})
    return {
        "metadata": {"namespace": "default", "name": name, **spec.pop("metadata", {})},
        "spec": spec,
        "status": status,
    }


def balanced(name: str, address: str, port: int = 80, **spec: Any) -> dict[str, Any]:
    ports = [{"port": port, "protocol": "TCP", "nodePort": 30000 + port}]
    status = {"loadBalancer": {"ingress": [{"ip": address, "ipMode": "VIP"}]}}
    return service(name, type="LoadBalancer", ports=ports, status=status, **spec)


class TestAddressesContract(SourceContract):
    @pytest.fixture
    def source(self) -> AddressesSource:
        return AddressesSource()

    @pytest.fixture
    def node(self, root: Path) -> Node:
        return Node(Files(root), KUBEADM, commands=Said(HOST), kube=Answers(recorded()))

    def test_a_blank_node_is_told_in_words(self, source: Source, tmp_path: Path) -> None:
        """Where neither commands nor an API server nor a file tell of an address, that is a failure, and says so."""
        (tmp_path / "blank").mkdir()
        with pytest.raises(SourceError, match=r"no addresses could be had: .*; no API server is known") as caught:
            list(AddressesSource().capture(Node(Files(tmp_path / "blank"), UNKNOWN)))
        assert caught.value.hint


class TestDocumentsAreProven(SourceContract):
    """The same promises where there is no file, so that damage and loss hit the documents."""

    @pytest.fixture
    def source(self) -> AddressesSource:
        return AddressesSource()

    @pytest.fixture
    def node(self, tmp_path: Path) -> Node:
        return Node(Files(kubeadm.unpack(tmp_path / "node")), KUBEADM, commands=Said(HOST), kube=Answers(recorded()))

    def test_a_blank_node_is_told_in_words(self, source: Source, tmp_path: Path) -> None:
        """As above."""


def test_a_genuine_cluster_is_known_completely(node: Node) -> None:
    """Every node, pod range, service and node port of a real Kubernetes 1.36 is in the plan, and nothing is wrong."""
    items = captured(node)
    assert counts(items) == {
        "interfaces": 1,
        "nodes": 13,
        "services": 60,
        "pools": 1,
        "leases": 1,
        "node ports": 5,
        "load balancer addresses": 0,
        "overlaps": 0,
    }
    assert facts(items) == {
        "host address": "10.77.0.20/24 eth0",
        "pod range": "10.244.0.0/16",
        "service range": "10.96.0.0/12",
    }
    assert ("10.77.0.32", "node-11") in uses(items, "node address")
    assert ("10.244.2.0/24", "cp-1") in uses(items, "node pod range")
    assert ("10.96.0.10", "kube-system/kube-dns") in uses(items, "service address")
    assert len(uses(items, "service address")) == 51
    assert uses(items, "service range") == [
        ("10.96.0.0/12", "ServiceCIDR kubernetes"),
        ("10.96.0.0/12", "kube-apiserver"),
    ]
    assert uses(items, "DHCP range") == [("10.77.0.50-10.77.0.99", "/etc/dnsmasq.d/lan.conf")]
    assert uses(items, "DHCP lease") == [("10.77.0.50", "printer")]
    page = document(items, "addresses/plan.txt")
    assert "team-02/svc-032           10.100.91.167; NodePort; 80:32222/TCP" in page
    assert all(len(line) <= WIDTH for line in page.splitlines())
    assert complaints(items) == []
    assert lacking(items) == []


def test_files_are_taken_and_proven(node: Node, tmp_path: Path) -> None:
    """Network and DHCP configuration and the leases come back as they were, with the plan beside them."""
    restored = restore(AddressesSource(), node, tmp_path / "restored")
    for path in ("etc/netplan/50-edge.yaml", "etc/dnsmasq.d/lan.conf", "var/lib/misc/dnsmasq.leases"):
        assert (restored.root / path).read_bytes() == (node.root / path).read_bytes()
    assert [(each.severity, each.subject) for each in restored.findings(AddressesSource())] == [
        (Severity.GOOD, "addresses"),
        (Severity.GOOD, "addresses"),
        (Severity.GOOD, "addresses/plan.json"),
    ]


def test_a_plan_that_shows_other_overlaps_is_not_proven(node: Node, tmp_path: Path) -> None:
    """The restored plan is compared with itself anew: an address that it gives away twice must have been known."""
    restored = restore(AddressesSource(), node, tmp_path / "restored")
    path = restored.root / ".edgedr/addresses/plan.json"
    written = json.loads(path.read_text())
    written["uses"][-1]["at"] = "10.77.0.21"
    written["uses"].append({**written["uses"][-1], "owner": "another", "note": "ff:ff:ff:ff:ff:ff"})
    path.write_text(json.dumps(written))
    bad = [each for each in restored.findings(AddressesSource()) if each.severity is Severity.BAD]
    assert {each.subject for each in bad} == {"addresses/plan.json"}
    assert any("overlaps, at capture it had 0" in each.text for each in bad)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema": 1}', b'{"schema": 9}'])
def test_a_plan_that_cannot_be_read_is_found(node: Node, tmp_path: Path, content: bytes) -> None:
    """Whatever came back in the plan's place, proving says so and goes on."""
    restored = restore(AddressesSource(), node, tmp_path / "restored")
    (restored.root / ".edgedr/addresses/plan.json").write_bytes(content)
    assert any("cannot be read" in each.text for each in restored.findings(AddressesSource()))


def test_settings_add_and_take_away(node: Node) -> None:
    """``include`` brings further files and leases, ``exclude`` keeps some out, of the plan too; mistakes are said."""
    write(node.root, "opt/dhcp/site.leases", "0 aa:bb:cc:dd:ee:09 10.77.0.90 camera *\n")
    write(node.root, "opt/dhcp/dhcpd.conf", "subnet 10.78.0.0 netmask 255.255.255.0 { range 10.78.0.5 10.78.0.9; }\n")
    source = AddressesSource(include=("/opt/dhcp", "/opt/absent"), exclude=("/var/lib/misc", "/etc/netplan"))
    items = captured(node, source)
    paths = {str(item.path) for item in items if isinstance(item, TakePath)}
    assert "/opt/dhcp/site.leases" in paths
    assert not paths & {"/var/lib/misc/dnsmasq.leases", "/etc/netplan/50-edge.yaml"}
    assert uses(items, "DHCP lease") == [("10.77.0.90", "camera")]
    assert ("10.78.0.5-10.78.0.9", "/opt/dhcp/dhcpd.conf") in uses(items, "DHCP range")
    assert complaints(items) == [("/opt/absent", "is configured, but matches nothing on this node")]


def test_another_node_captures_the_cluster(node: Node) -> None:
    """Where another node captures what is the whole cluster's, its API server is not asked, and nothing is lacking."""
    kube = Answers({})
    items = captured(replace(node, kube=kube, elsewhere="cp-2"))
    assert kube.asked == []
    assert lacking(items) == []
    assert facts(items)["cluster part"] == "captured by cp-2"
    assert "services" not in counts(items)
    assert facts(items)["pod range"] == "10.244.0.0/16"
    assert plan(items)["missing"] == ["the cluster's part: another node captures it"]


def test_no_api_server_leaves_the_rest(node: Node) -> None:
    """Unknown, or down: one thing is lacking, once, and what the host and its files tell is kept."""
    for kube, reason in ((None, "no API server is known"), (Answers({}, down=True), "nothing listens")):
        items = captured(replace(node, kube=kube))
        assert len(lacking(items)) == 1
        assert lacking(items)[0].startswith("cluster addresses: ")
        assert reason in lacking(items)[0]
        assert facts(items)["host address"] == "10.77.0.20/24 eth0"
        assert "nodes" not in counts(items)
        assert "services" in plan(items)["missing"]


def test_one_refused_kind_leaves_the_others(node: Node) -> None:
    """A kind that may not be listed, or whose server is broken, is named; the others are in the plan."""
    answers = {**recorded(), SERVICES: 403, POOLS: 500}
    items = captured(replace(node, kube=Answers(answers)))
    assert lacking(items) == [
        "services: the API server refused /api/v1/services: HTTP status 403",
        f"MetalLB pools: the API server refused {POOLS}: HTTP status 500",
    ]
    assert counts(items)["nodes"] == 13
    assert "services" not in counts(items)
    assert "NOT CAPTURED\n  services\n  MetalLB pools\n" in document(items, "addresses/plan.txt")


def test_a_server_without_nodes_is_no_answer(node: Node) -> None:
    """A kind of an extension may be unknown to the server; nodes and services are not."""
    items = captured(replace(node, kube=Answers({})))
    assert [reason.split(":")[0] for reason in lacking(items)] == ["nodes", "services"]


def test_no_ip_leaves_the_rest(node: Node) -> None:
    """A machine whose commands cannot be run lacks the host's part only; half an answer is named too."""
    items = captured(replace(node, commands=Said()))
    assert lacking(items) == ["host addresses: `ip -j -d addr` ended with 1"]
    assert counts(items)["services"] == 60
    items = captured(replace(node, commands=Said({"-d addr": HOST["-d addr"]})))
    assert lacking(items) == ["routes and rules of IPv4: `ip -j -4 route show table all` ended with 1"]
    assert facts(items)["host address"] == "10.77.0.20/24 eth0"


@pytest.mark.parametrize("text", ["", "[]", "{}", "[1, null, {}]", '[{"ifname": 1, "addr_info": 2, "mtu": "x"}]'])
def test_odd_answers_of_ip_break_nothing(node: Node, text: str) -> None:
    """What is no list of interfaces has no addresses."""
    items = captured(replace(node, commands=Said({**HOST, "-d addr": text})))
    assert "host address" not in facts(items)


def test_what_lasts_of_an_interface_is_kept(node: Node) -> None:
    """Privacy addresses change by the day, link-local ones say nothing; a duplicate is a finding; kinds are shown."""
    v6 = {"family": "inet6", "prefixlen": 64, "scope": "global"}
    links = [
        {
            "ifname": "eth0.20",
            "link": "eth0",
            "link_type": "ether",
            "mtu": 1500,
            "linkinfo": {"info_kind": "vlan", "info_data": {"protocol": "802.1Q", "id": 20}},
            "addr_info": [
                {**v6, "local": "fd00:77::20", "valid_life_time": 4294967295},
                {**v6, "local": "fd00:77::1234", "temporary": True},
                {**v6, "local": "fd00:77::2", "dadfailed": True},
                {**v6, "local": "fe80::1", "scope": "link"},
            ],
        },
        {"ifname": "bond0", "master": "br0", "linkinfo": {"info_kind": "bond", "info_data": {"mode": "802.3ad"}}},
        {"ifname": "lo", "addr_info": [{"family": "inet6", "local": "::1", "prefixlen": 128, "scope": "host"}]},
    ]
    host = {**HOST, "-d addr": json.dumps(links), "-6 route show table all": "", "-6 rule": "[]"}
    items = captured(replace(node, commands=Said(host)))
    assert [(each["name"], each["kind"], each["master"], each["addresses"]) for each in plan(items)["interfaces"]] == [
        ("bond0", "bond 802.3ad", "br0", []),
        ("eth0.20", "vlan 20 on eth0", "", ["fd00:77::20/64", "fd00:77::2/64"]),
    ]
    assert complaints(items) == [("fd00:77::2", "another host answers for this address of eth0.20")]
    assert lacking(items) == []


def test_an_ip_that_does_not_speak_json_is_said(node: Node) -> None:
    """The ``ip`` of a small system prints for people only."""
    items = captured(replace(node, commands=Said({**HOST, "-d addr": "1: lo: <LOOPBACK>"})))
    assert lacking(items) == ["host addresses: `ip -j -d addr` did not print JSON"]


def test_pools_and_who_has_what(node: Node) -> None:
    """Pools of MetalLB, Calico and Cilium are in the plan, and who has which address, pinned or not."""
    calico, cilium = "/apis/crd.projectcalico.org/v1/", "/apis/cilium.io/"
    pinned = {"annotations": {"metallb.io/loadBalancerIPs": "10.77.0.201,fd00:77::201"}}
    answers = {
        **recorded(),
        POOLS: listing(
            {
                "metadata": {"namespace": "metallb-system", "name": "edge"},
                "spec": {"addresses": ["10.77.0.200-10.77.0.220", "fd00:77::200/120"], "autoAssign": False},
            }
        ),
        f"{calico}ippools": listing(
            {"metadata": {"name": "default"}, "spec": {"cidr": "10.244.0.0/16", "blockSize": 26}},
            {"metadata": {"name": "lb"}, "spec": {"cidr": "10.77.1.0/28", "allowedUses": ["LoadBalancer"]}},
        ),
        f"{calico}ipamblocks": listing(
            {"metadata": {"name": "10-244-2-0-26"}, "spec": {"cidr": "10.244.2.0/26", "affinity": "host:cp-1"}}
        ),
        f"{cilium}v2alpha1/ciliumloadbalancerippools": listing(
            {
                "metadata": {"name": "lb"},
                "spec": {"blocks": [{"cidr": "10.77.2.0/28"}, {"start": "10.77.3.1", "stop": "10.77.3.9"}]},
            }
        ),
        f"{cilium}v2alpha1/ciliumpodippools": listing(
            {"metadata": {"name": "more"}, "spec": {"ipv4": {"cidrs": ["10.245.0.0/16"], "maskSize": 27}}}
        ),
        f"{cilium}v2/ciliumnodes": listing(
            {"metadata": {"name": "cp-1"}, "spec": {"ipam": {"podCIDRs": ["10.244.3.0/24"]}}},
            {
                "metadata": {"name": "w-1"},
                "spec": {"ipam": {"pools": {"allocated": [{"pool": "more", "cidrs": ["10.245.0.0/27"]}]}}},
            },
        ),
        SERVICES: listing(
            balanced("web", "10.77.0.201", metadata=pinned, clusterIP="10.96.0.9"),
            balanced("api", "10.77.0.202", 443),
            service("ask", type="LoadBalancer", loadBalancerIP="10.77.0.203"),
            service("ext", type="ClusterIP", externalIPs=["10.77.0.204"], ports=[{"port": 53, "protocol": "UDP"}]),
        ),
    }
    items = captured(replace(node, kube=Answers(answers)))
    assert uses(items, "load balancer pool") == [
        ("10.77.0.200-10.77.0.220", "metallb-system/edge"),
        ("10.77.1.0/28", "Calico lb"),
        ("10.77.2.0/28", "Cilium lb"),
        ("10.77.3.1-10.77.3.9", "Cilium lb"),
        ("fd00:77::200/120", "metallb-system/edge"),
    ]
    assert uses(items, "pod pool") == [("10.244.0.0/16", "Calico default"), ("10.245.0.0/16", "Cilium more")]
    assert uses(items, "pod block") == [
        ("10.244.2.0/26", "cp-1"),
        ("10.244.3.0/24", "cp-1"),
        ("10.245.0.0/27", "w-1"),
    ]
    assert [(use["at"], use["note"]) for use in plan(items)["uses"] if use["purpose"] == "load balancer address"] == [
        ("10.77.0.201", "pinned"),
        ("10.77.0.202", "not pinned: may change when it is made anew"),
        ("10.77.0.203", "asked for, not assigned"),
        ("10.77.0.204", "external address"),
        ("fd00:77::201", "asked for, not assigned"),
    ]
    assert counts(items)["load balancer addresses"] == 5
    assert counts(items)["node ports"] == 2
    assert complaints(items) == []
    assert "80:30080/TCP" in document(items, "addresses/plan.txt")


def test_a_kind_in_two_versions_is_read_once(node: Node) -> None:
    """Where a server has a kind in an old and a new version, its objects are in both, and in the plan once."""
    pool = listing({"metadata": {"name": "lb"}, "spec": {"blocks": [{"cidr": "10.77.2.0/28"}]}})
    paths = (f"/apis/cilium.io/{version}/ciliumloadbalancerippools" for version in ("v2", "v2alpha1"))
    items = captured(replace(node, kube=Answers({**recorded(), **dict.fromkeys(paths, pool)})))
    assert uses(items, "load balancer pool") == [("10.77.2.0/28", "Cilium lb")]
    assert counts(items)["pools"] == 2


def test_an_address_reserved_for_nobody_is_shown(node: Node) -> None:
    """What the API server holds back for a service that is not there is in the plan: nobody else gets it."""
    parent = {"parentRef": {"namespace": "default", "name": "gone", "resource": "services"}}
    answers = {
        **recorded(),
        "/apis/networking.k8s.io/v1/ipaddresses": listing(
            {"metadata": {"name": "10.96.0.77"}, "spec": parent}, {"metadata": {"name": "10.96.0.10"}, "spec": parent}
        ),
    }
    items = captured(replace(node, kube=Answers(answers)))
    assert uses(items, "reserved service address") == [("10.96.0.77", "default/gone")]
    assert "default/gone              10.96.0.77; reserved service address" in document(items, "addresses/plan.txt")


def test_pools_can_be_applied_again(node: Node) -> None:
    """The pools' YAML has what one wrote, and nothing that only the old server knew."""
    pool = {
        "apiVersion": "metallb.io/v1beta1",
        "kind": "IPAddressPool",
        "metadata": {
            "name": "edge",
            "namespace": "metallb-system",
            "labels": {"site": "a"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "owner": "me"},
            "uid": "1",
            "resourceVersion": "2",
            "generation": 3,
            "creationTimestamp": "2026-11-22T22:35:36Z",
            "managedFields": [{}],
            "ownerReferences": [{"uid": "9"}],
        },
        "spec": {"addresses": ["10.77.0.200-10.77.0.220"]},
        "status": {"assignedIPv4": 3},
    }
    items = captured(replace(node, kube=Answers({**recorded(), POOLS: listing(pool)})))
    service_cidr, found = yaml.safe_load_all(document(items, "addresses/pools.yaml"))
    assert (service_cidr["kind"], service_cidr["spec"]) == ("ServiceCIDR", {"cidrs": ["10.96.0.0/12"]})
    assert found == {
        "apiVersion": "metallb.io/v1beta1",
        "kind": "IPAddressPool",
        "metadata": {
            "name": "edge",
            "namespace": "metallb-system",
            "labels": {"site": "a"},
            "annotations": {"owner": "me"},
        },
        "spec": {"addresses": ["10.77.0.200-10.77.0.220"]},
    }


def test_collisions_are_findings(node: Node) -> None:
    """What collides is warned of with a hint, counted, and at the end of the plan."""
    pool = {"metadata": {"name": "edge"}, "spec": {"addresses": ["10.77.0.45-10.77.0.55"]}}
    answers = {
        **recorded(),
        POOLS: listing(pool),
        SERVICES: listing(balanced("a", "10.77.0.46"), balanced("b", "10.77.0.46")),
    }
    items = captured(replace(node, kube=Answers(answers)))
    assert complaints(items) == [
        (
            "10.77.0.50-10.77.0.99",
            "the DHCP range of /etc/dnsmasq.d/lan.conf overlaps the load balancer pool 10.77.0.45-10.77.0.55 of edge",
        ),
        ("10.77.0.50", "the DHCP lease of printer is inside the load balancer pool 10.77.0.45-10.77.0.55 of edge"),
        ("10.77.0.46", "port 80/TCP of this load balancer address is claimed by default/a and by default/b"),
    ]
    assert all(item.severity is Severity.WARN and item.hint for item in items if isinstance(item, Finding))
    assert counts(items)["overlaps"] == 3
    assert "10.77.0.50: the DHCP lease of printer" in document(items, "addresses/plan.txt")


@pytest.mark.parametrize("wrong", [None, 1, "", "x", [], [None], [1, "x"], {}, {"x": 1}, [{"x": []}], True])
def test_objects_of_the_wrong_shape_break_nothing(node: Node, wrong: object) -> None:
    """Whatever a server or a webhook made of an object, the others are in the plan."""
    keys = ("metadata", "spec", "status")
    shapes = [
        {},
        *({key: wrong} for key in keys),
        {"metadata": {"name": wrong, "namespace": wrong, "annotations": wrong, "labels": wrong}},
        {"spec": dict.fromkeys(("podCIDRs", "podCIDR", "clusterIPs", "clusterIP", "ports", "externalIPs"), wrong)},
        {"spec": dict.fromkeys(("cidrs", "cidr", "addresses", "blocks", "affinity", "ipam", "allowedUses"), wrong)},
        {"spec": {"ports": [wrong, {"port": wrong, "nodePort": wrong}], "blocks": [wrong], "loadBalancerIP": wrong}},
        {"spec": {"ipv4": wrong, "ipam": {"pools": {"allocated": [wrong, {"cidrs": wrong}]}}, "parentRef": wrong}},
        {
            "status": {
                "addresses": [wrong, {"type": "InternalIP", "address": wrong}],
                "loadBalancer": {"ingress": wrong},
            }
        },
        {"status": {"loadBalancer": {"ingress": [wrong, {"ip": wrong}]}}},
    ]
    answers = recorded()
    sound = listing(*shapes)["items"]
    kinds = [path for path in answers if path.endswith(("/nodes", "/services", "/servicecidrs", "/ipaddresses"))]
    groups = ("/apis/crd.projectcalico.org/v1/ippools", "/apis/crd.projectcalico.org/v1/ipamblocks", POOLS)
    cilium = ("loadbalancerippools", "podippools", "nodes")
    for path in (*kinds, *groups, *(f"/apis/cilium.io/v2/cilium{kind}" for kind in cilium)):
        answers[path] = listing(*sound, *answers.get(path, listing())["items"])
    items = captured(replace(node, kube=Answers(answers)))
    assert len(uses(items, "node address")) == 13
    assert len(uses(items, "service address")) == 51
    assert all(reason.startswith("address pool ") for reason in lacking(items))
    assert "10.96.0.0/12" in document(items, "addresses/pools.yaml")


def test_an_address_that_is_none_is_said(node: Node) -> None:
    """A pool with a mistake in it is named; what else it has counts."""
    pool = {"metadata": {"name": "edge"}, "spec": {"addresses": ["10.77.0.2O0", "10.77.0.201", "\x1b[31m"]}}
    items = captured(replace(node, kube=Answers({**recorded(), POOLS: listing(pool)})))
    assert complaints(items) == [
        ("edge", "its load balancer pool '10.77.0.2O0' is no address and no range"),
        ("edge", "its load balancer pool '?[31m' is no address and no range"),
    ]
    assert uses(items, "load balancer pool") == [("10.77.0.201", "edge")]


def test_many_mistakes_are_not_many_findings(node: Node) -> None:
    """Thousands of broken objects are told of by the first ones and their number."""
    pools = [{"metadata": {"name": f"p{n}"}, "spec": {"addresses": ["x"]}} for n in range(2000)]
    items = captured(replace(node, kube=Answers({**recorded(), POOLS: listing(*pools)})))
    assert len(complaints(items)) == 51
    assert complaints(items)[-1] == ("addresses", "1950 more such mistakes")


def test_a_pool_nested_beyond_measure_is_lacking(node: Node) -> None:
    """A pool that cannot be written as YAML is said to be lacking, and the plan is still there."""
    deep: Any = []
    for _ in range(600):
        deep = [deep]
    pool = {"metadata": {"name": "edge"}, "spec": {"addresses": ["10.77.0.201"], "x": deep}}
    items = captured(replace(node, kube=Answers({**recorded(), POOLS: listing(pool)})))
    assert lacking(items) == ["address pool edge: it is malformed, or nested too deeply to be written"]
    assert uses(items, "load balancer pool") == [("10.77.0.201", "edge")]


def test_lease_files_with_rubbish_are_named(node: Node) -> None:
    """What of a lease file cannot be read is said; the file itself is taken all the same."""
    write(node.root, "var/lib/misc/dnsmasq.leases", f"{LEASES}rubbish\x1b[31m\n")
    (node.root / "var/lib/kea").mkdir(parents=True)
    (node.root / "var/lib/kea/kea-leases4.csv").write_bytes(b"\xff\xfe\0" * 100)
    items = captured(node)
    assert complaints(items) == [
        ("/var/lib/kea/kea-leases4.csv", "1 of its lines or leases make no sense"),
        ("/var/lib/misc/dnsmasq.leases", "1 of its lines or leases make no sense"),
    ]
    assert counts(items)["leases"] == 1
    assert "/var/lib/kea/kea-leases4.csv" in {str(item.path) for item in items if isinstance(item, TakePath)}


def test_giant_lease_files_are_named(node: Node) -> None:
    """A lease file beyond all measure is not read into memory: it is taken, and the plan says that it lacks it."""
    path = node.root / "var/lib/misc/dnsmasq.leases"
    with path.open("wb") as file:
        file.truncate((16 << 20) + 1)
    items = captured(node)
    assert complaints(items) == [
        (
            "/var/lib/misc/dnsmasq.leases",
            "is unreadable, or larger than 16 MiB: not all leases are in the plan",
        )
    ]


def test_generations_of_kea_are_one(node: Node) -> None:
    """While Kea cleans up, a lease may be in an older file only; once it has cleaned, the older files are past."""
    header = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context\n"
    line = "10.77.0.{},aa:bb:cc:dd:ee:{},,3600,1795300000,1,0,0,{},0,\n"
    kea = "var/lib/kea/kea-leases4.csv"
    write(node.root, f"{kea}.2", header + line.format(60, "01", "old") + line.format(61, "02", "ended"))
    write(node.root, f"{kea}.1", header + line.format(61, "02", "ended").replace("3600", "0"))
    write(node.root, kea, header + line.format(62, "03", "new"))
    write(node.root, f"{kea}.pid", "1\n")
    (node.root / "var/lib/misc/dnsmasq.leases").unlink()
    assert uses(captured(node), "DHCP lease") == [("10.77.0.60", "old"), ("10.77.0.62", "new")]
    write(node.root, f"{kea}.completed", header)
    assert uses(captured(node), "DHCP lease") == [("10.77.0.62", "new")]


def test_a_renewed_lease_does_not_change_the_plan(node: Node) -> None:
    """When a lease ends is not in the plan: else every renewal would ship it anew."""
    before = document(captured(node), "addresses/plan.json")
    write(node.root, "var/lib/misc/dnsmasq.leases", LEASES.replace("1795300000", "1795303600"))
    assert document(captured(node), "addresses/plan.json") == before


@pytest.mark.parametrize(
    ("configuration", "pods", "services"),
    [
        ("", ["10.42.0.0/16"], ["10.43.0.0/16"]),
        ("cluster-cidr: 10.50.0.0/16,fd00:50::/56\n", ["10.50.0.0/16", "fd00:50::/56"], ["10.43.0.0/16"]),
        ("cluster-cidr: [10.50.0.0/16, fd00:50::/56]\n", ["10.50.0.0/16", "fd00:50::/56"], ["10.43.0.0/16"]),
        ("service-cidr: 10.51.0.0/16\n", ["10.42.0.0/16"], ["10.51.0.0/16"]),
    ],
)
def test_ranges_of_k3s(tmp_path: Path, configuration: str, pods: list[str], services: list[str]) -> None:
    """What its configuration says counts; where it says nothing, its defaults do."""
    write(tmp_path, "etc/rancher/k3s/config.yaml", configuration)
    items = captured(Node(Files(tmp_path), K3S, commands=Said(HOST), elsewhere="cp-2"))
    assert [at for at, _ in uses(items, "pod range")] == pods
    assert [at for at, _ in uses(items, "service range")] == services


def test_a_second_host_range_in_the_pod_range(node: Node) -> None:
    """A site whose network is inside of the pods' is warned, at capture, of what will not be reachable."""
    host = {**HOST, "-d addr": HOST["-d addr"].replace("10.77.0.20", "10.244.9.20")}
    items = captured(replace(node, commands=Said(host)))
    assert (
        "10.244.9.0/24",
        "the host network of eth0 is inside the pod range 10.244.0.0/16 of kube-controller-manager",
    ) in complaints(items)


@pytest.fixture
def namespace() -> Iterator[str]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        message = "a network namespace needs root, and ip: apt-get install iproute2"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    name = f"edgedr-{os.getpid()}-{os.urandom(4).hex()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


SITE = """\
link set lo up
link add eth0 type veth peer name eth1
link add vethabc type veth peer name cali12345678901
link add kube-ipvs0 type veth peer name lxc_health
addr add 10.77.0.20/24 dev eth0
addr add 10.77.0.100/32 dev eth0
addr add fd00:77::20/64 dev eth0 nodad
addr add 192.168.7.1/24 dev eth1
addr add 10.96.0.1/32 dev kube-ipvs0
addr add 10.77.0.200/32 dev lo
link set eth0 address 02:00:00:00:00:20
link set eth0 up
link set eth1 up
link set vethabc up
link set cali12345678901 up
link set kube-ipvs0 up
route add default via 10.77.0.1
route add 10.9.0.0/16 via 10.77.0.1 metric 50
route add blackhole 10.250.0.0/16
route add 10.8.0.0/16 nexthop via 10.77.0.1 weight 1 nexthop via 10.77.0.2 weight 2
route add 10.244.5.5/32 dev cali12345678901
route add 10.244.6.0/24 via 10.77.0.21 proto bird
route add default via 10.77.0.254 table 100
rule add from 10.77.0.0/24 lookup 100 priority 1000
-6 route add default via fd00:77::1 expires 600
"""


@pytest.fixture
def site(namespace: str) -> InNamespace:
    for line in SITE.splitlines():
        subprocess.run(["ip", "-n", namespace, *line.split()], check=True)
    return InNamespace(namespace)


def test_a_real_host_is_known(node: Node, site: InNamespace) -> None:
    """Interfaces, addresses, routes of all tables and rules of a real network; what belongs to pods is left out."""
    items = captured(replace(node, commands=site))
    read = plan(items)
    assert {each["name"]: each["addresses"] for each in read["interfaces"]} == {
        "eth0": ["10.77.0.20/24", "10.77.0.100/32", "fd00:77::20/64"],
        "eth1": ["192.168.7.1/24"],
        "lo": ["10.77.0.200/32"],
    }
    assert next(each for each in read["interfaces"] if each["name"] == "eth0")["mac"] == "02:00:00:00:00:20"
    lines = document(items, "addresses/plan.txt").partition("ROUTES\n")[2].partition("\n\nNODES")[0].splitlines()
    assert [line.strip() for line in lines if line] == [
        "default gateway 10.77.0.1 dev eth0",
        "10.250.0.0/16 type blackhole",
        "10.77.0.0/24 dev eth0 prefsrc 10.77.0.20 protocol kernel scope link",
        "10.8.0.0/16 nexthops gateway 10.77.0.1 dev eth0 weight 1, gateway 10.77.0.2",
        "dev eth0 weight 2",
        "10.9.0.0/16 gateway 10.77.0.1 dev eth0 metric 50",
        "192.168.7.0/24 dev eth1 prefsrc 192.168.7.1 protocol kernel scope link",
        "default gateway 10.77.0.254 dev eth0 table 100",
        "default gateway fd00:77::1 dev eth0 metric 1024",
        "fd00:77::/64 dev eth0 protocol kernel metric 256",
        "RULES",
        "0 family IPv4 src all table local",
        "1000 family IPv4 src 10.77.0.0/24 table 100",
        "32766 family IPv4 src all table main",
        "32767 family IPv4 src all table default",
        "0 family IPv6 src all table local",
        "32766 family IPv6 src all table main",
    ]
    assert facts(items)["host address #2"] == "10.77.0.100/32 eth0"
    assert complaints(items) == []
    assert lacking(items) == []


def test_pods_come_and_go_unseen(node: Node, site: InNamespace) -> None:
    """A new pod's interface and route change nothing of the plan, and neither does time."""
    node = replace(node, commands=site)
    before = document(captured(node), "addresses/plan.json")
    for line in (
        "link add cali99 type veth peer name vethpod",
        "link set cali99 up",
        "route add 10.244.5.6/32 dev cali99",
    ):
        subprocess.run(["ip", "-n", site.name, *line.split()], check=True)
    assert document(captured(node), "addresses/plan.json") == before


def test_ignored_interfaces_are_a_setting(node: Node, site: InNamespace) -> None:
    """Whose network of pods has other names says so; whoever ignores nothing sees it all."""
    source = AddressesSource(ignore_interfaces=("eth1", "cali*"))
    read = plan(captured(replace(node, commands=site), source))
    names = {each["name"] for each in read["interfaces"]}
    assert names == {"eth0", "kube-ipvs0", "lo", "lxc_health", "vethabc"}
    assert not [route for route in read["routes"] if route.get("dev") in {"eth1", "cali12345678901"}]


def test_a_cable_into_a_pod_is_no_host_interface(node: Node, site: InNamespace) -> None:
    """Whatever a CNI calls the host's end of a pod's cable, without an address it is left out."""
    other = f"{site.name}-pod"
    subprocess.run(["ip", "netns", "add", other], check=True)
    try:
        line = f"link add odd0 type veth peer name eth0 netns {other}"
        subprocess.run(["ip", "-n", site.name, *line.split()], check=True)
        names = {each["name"] for each in plan(captured(replace(node, commands=site)))["interfaces"]}
        assert names == {"eth0", "eth1", "lo"}
    finally:
        subprocess.run(["ip", "netns", "del", other], check=True)
