"""The addresses that a cluster's API knows: of nodes, services, pools, and of the network plugins' own objects."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus

from edgedr.addressing.ranges import Purpose
from edgedr.addressing.survey import Object, Survey, Told, dig, either, listed, name_of, uses_of, word
from edgedr.errors import SourceError
from edgedr.node.kube import Kube, KubeError

_ASKED_FOR = (
    *("metallb.io/loadBalancerIPs", "metallb.universe.tf/loadBalancerIPs", "lbipam.cilium.io/ips"),
    *("io.cilium/lb-ipam-ips", "kube-vip.io/loadbalancerIPs", "projectcalico.org/loadBalancerIPs"),
)


def _node(each: Object) -> Iterator[Told]:
    owner = name_of(each)
    for address in listed(dig(each, "status", "addresses")):
        if dig(address, "type") in ("InternalIP", "ExternalIP"):
            yield from uses_of(Purpose.NODE, [dig(address, "address")], owner, word(dig(address, "type")))
    yield from uses_of(Purpose.NODE_PODS, either(dig(each, "spec"), "podCIDRs", "podCIDR"), owner)


def _service(each: Object) -> Iterator[Told]:
    owner, spec = name_of(each), dig(each, "spec")
    kind, ports = word(dig(spec, "type")), tuple(_ports(spec))
    own = [address for address in either(spec, "clusterIPs", "clusterIP") if address != "None"]
    yield from uses_of(Purpose.SERVICE, own, owner, kind, ports)
    notes = dig(each, "metadata", "annotations")
    pinned = [
        dig(spec, "loadBalancerIP"),
        *(part for key in _ASKED_FOR for part in word(dig(notes, key)).split(",")),
    ]
    asked = [address.strip() for address in map(word, pinned) if address.strip() not in {"", "0.0.0.0"}]  # noqa: S104
    given = [word(dig(ingress, "ip")) for ingress in listed(dig(each, "status", "loadBalancer", "ingress"))]
    for address in dict.fromkeys((*given, *asked)):
        is_pinned = "pinned" if address in asked else "not pinned: may change when it is made anew"
        note = is_pinned if address in given else "asked for, not assigned"
        yield from uses_of(Purpose.BALANCER, [address], owner, note, ports)
    external = [
        address for address in listed(dig(spec, "externalIPs")) if address not in given and address not in asked
    ]
    yield from uses_of(Purpose.BALANCER, external, owner, "external address", ports)


def _ports(spec: object) -> Iterator[str]:
    for port in listed(dig(spec, "ports")):
        number, node_port = dig(port, "port"), dig(port, "nodePort")
        if isinstance(number, int):
            on_node = f":{node_port}" if isinstance(node_port, int) and node_port else ""
            yield f"{number}{on_node}/{word(dig(port, 'protocol')) or 'TCP'}"


def _reserved(each: Object) -> Iterator[Told]:
    parent = dig(each, "spec", "parentRef")
    owner = "/".join(filter(None, (word(dig(parent, "namespace")), word(dig(parent, "name")))))
    yield from uses_of(Purpose.RESERVED, [dig(each, "metadata", "name")], owner or "nobody")


def _service_cidr(each: Object) -> Iterator[Told]:
    yield from uses_of(Purpose.SERVICE_RANGE, listed(dig(each, "spec", "cidrs")), f"ServiceCIDR {name_of(each)}")


def _metallb_pool(each: Object) -> Iterator[Told]:
    note = "only on demand" if dig(each, "spec", "autoAssign") is False else ""
    yield from uses_of(Purpose.POOL, listed(dig(each, "spec", "addresses")), name_of(each), note)


def _calico_pool(each: Object) -> Iterator[Told]:
    allowed = listed(dig(each, "spec", "allowedUses"))
    purpose = Purpose.POOL if allowed and "Workload" not in allowed and "LoadBalancer" in allowed else Purpose.POD_POOL
    yield from uses_of(purpose, [dig(each, "spec", "cidr")], f"Calico {name_of(each)}")


def _calico_block(each: Object) -> Iterator[Told]:
    owner = word(dig(each, "spec", "affinity")).removeprefix("host:")
    yield from uses_of(Purpose.POD_BLOCK, [dig(each, "spec", "cidr")], owner or "no node")


def _cilium_pool(each: Object) -> Iterator[Told]:
    for block in (*listed(dig(each, "spec", "blocks")), *listed(dig(each, "spec", "cidrs"))):
        start, stop = word(dig(block, "start")), word(dig(block, "stop"))
        at = f"{start}-{stop or start}" if start else dig(block, "cidr")
        yield from uses_of(Purpose.POOL, [at], f"Cilium {name_of(each)}")


def _cilium_pods(each: Object) -> Iterator[Told]:
    cidrs = (cidr for family in ("ipv4", "ipv6") for cidr in listed(dig(each, "spec", family, "cidrs")))
    yield from uses_of(Purpose.POD_POOL, cidrs, f"Cilium {name_of(each)}")


def _cilium_node(each: Object) -> Iterator[Told]:
    pools = listed(dig(each, "spec", "ipam", "pools", "allocated"))
    cidrs = [
        *listed(dig(each, "spec", "ipam", "podCIDRs")),
        *(cidr for pool in pools for cidr in listed(dig(pool, "cidrs"))),
    ]
    yield from uses_of(Purpose.POD_BLOCK, cidrs, name_of(each))


@dataclass(frozen=True, slots=True)
class _Kind:
    """Objects with addresses: where they are listed, the first version that has some counts; ``kept`` are pools."""

    what: str
    paths: tuple[str, ...]
    read: Callable[[Object], Iterator[Told]]
    kept: bool = False


_NETWORKING = ("/apis/networking.k8s.io/v1/", "/apis/networking.k8s.io/v1beta1/")
_CALICO = ("/apis/crd.projectcalico.org/v1/",)
_CILIUM = ("/apis/cilium.io/v2/", "/apis/cilium.io/v2alpha1/")
_METALLB = ("/apis/metallb.io/v1beta1/",)
KINDS = (
    _Kind("nodes", ("/api/v1/nodes",), _node),
    _Kind("services", ("/api/v1/services",), _service),
    _Kind("reserved addresses", tuple(f"{group}ipaddresses" for group in _NETWORKING), _reserved),
    _Kind("service ranges", tuple(f"{group}servicecidrs" for group in _NETWORKING), _service_cidr, kept=True),
    _Kind("MetalLB pools", tuple(f"{group}ipaddresspools" for group in _METALLB), _metallb_pool, kept=True),
    _Kind("Calico pools", tuple(f"{group}ippools" for group in _CALICO), _calico_pool, kept=True),
    _Kind("Calico blocks", tuple(f"{group}ipamblocks" for group in _CALICO), _calico_block),
    _Kind("Cilium pools", tuple(f"{group}ciliumloadbalancerippools" for group in _CILIUM), _cilium_pool, kept=True),
    _Kind("Cilium pod pools", tuple(f"{group}ciliumpodippools" for group in _CILIUM), _cilium_pods, kept=True),
    _Kind("Cilium nodes", tuple(f"{group}ciliumnodes" for group in _CILIUM[:1]), _cilium_node),
)
"""What is asked for, in this order."""


def ask_cluster(kube: Kube | None, survey: Survey) -> None:
    """Ask for every kind; one that cannot be had does not stop the others."""
    if kube is None:
        survey.missing["no API server is known"] = [kind.what for kind in KINDS]
        return
    for kind in KINDS:
        try:
            _ask_kind(kube, kind, survey)
        except SourceError as error:
            survey.lack(kind.what, error)


def _ask_kind(kube: Kube, kind: _Kind, survey: Survey) -> None:
    told: list[Told] = []
    pools: list[Object] = []

    def take(each: Object) -> None:
        told.extend(kind.read(each))
        if kind.kept:
            pools.append(each)

    def again() -> None:
        told.clear()
        pools.clear()

    count = 0
    for path in kind.paths:
        try:
            count = count or kube.scan(path, take, again)
        except KubeError as error:
            if error.status != HTTPStatus.NOT_FOUND or not path.startswith("/apis/"):  # no server lacks nodes
                raise
    survey.tell(told)
    survey.pools += pools
    noun = "pools" if kind.kept else kind.what
    if noun in {"pools", "nodes", "services"}:
        survey.counts[noun] = survey.counts.get(noun, 0) + count
