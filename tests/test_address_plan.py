"""Ranges, where their uses collide and where that is as it should be, and the plan that a person reads."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedr import strictjson
from edgedr.addressing.overlaps import MAX_OVERLAPS, find_overlaps, in_order
from edgedr.addressing.plan import Interface, Plan, write_plan
from edgedr.addressing.ranges import Purpose, Range, Use, printable

ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
FEW = st.integers(0, 40).map(lambda number: f"10.0.0.{number}")  # so close that they meet


@st.composite
def ranges(draw: st.DrawFn) -> str:
    low, high = sorted((draw(st.integers(0, 40)), draw(st.integers(0, 40))))
    return f"10.0.0.{low}-10.0.0.{high}"


USES = st.lists(
    st.builds(
        Use,
        st.sampled_from(Purpose),
        st.one_of(ranges(), FEW).map(lambda text: str(Range.parse(text))),
        st.sampled_from("abc"),
        st.sampled_from(["", "InternalIP"]),
        st.sampled_from([(), ("80/TCP",), ("80:30080/TCP", "53/UDP")]),
    ),
    max_size=12,
)


@given(ADDRESSES, ADDRESSES)
def test_a_range_is_read_as_it_is_written(one: object, other: object) -> None:
    """Whatever form is the shortest, it stands for the same addresses; families are never mixed."""
    low, high = sorted((ip_address(str(one)), ip_address(str(other))), key=lambda each: (each.version, int(each)))
    text = f"{low} - {high}"
    if low.version != high.version:
        with pytest.raises(ValueError, match="does not go from"):
            Range.parse(text)
        return
    found = Range.parse(text)
    assert (found.first, found.last) == (int(low), int(high))
    assert Range.parse(str(found)) == found
    assert found.single == (low == high)


@given(ADDRESSES, st.integers(0, 128))
def test_a_network_is_read_with_its_host_bits(address: object, length: int) -> None:
    """``10.77.0.11/24`` stands for its whole network, as on an interface."""
    text = f"{address}/{min(length, ip_address(str(address)).max_prefixlen)}"
    network = ip_network(text, strict=False)
    found = Range.parse(text)
    assert (found.first, found.last) == (int(network[0]), int(network[-1]))
    assert found.holds(Range.parse(str(address)))
    assert str(found) == (str(network[0]) if network.num_addresses == 1 else str(network))


@pytest.mark.parametrize(
    "text", ["", "-", "10.0.0.9-10.0.0.1", "10.0.0.1-", "10.0.0.0/33", "10.0.0", "fe80::1%eth0", "::1-10.0.0.1", "a/b"]
)
def test_what_is_no_range_is_refused(text: str) -> None:
    """A typing mistake is no address that nobody has."""
    with pytest.raises(ValueError):
        Range.parse(text)


@given(USES, st.randoms(use_true_random=False))
def test_overlaps_do_not_depend_on_the_order(uses: list[Use], chance: object) -> None:
    """The same uses, found in another order, give the same findings, once each; after writing and reading too."""
    found = find_overlaps(uses)
    shuffled = [*uses]
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert find_overlaps(shuffled) == found
    assert len(set(found)) == len(found)
    assert find_overlaps(in_order(uses)) == found


@given(st.lists(st.tuples(ranges(), st.sampled_from("abc")), max_size=10))
def test_every_pair_of_pools_is_judged(pools: list[tuple[str, str]]) -> None:
    """Two pools of different owners collide exactly when they have an address in common."""
    uses = [Use(Purpose.POOL, str(Range.parse(at)), owner) for at, owner in dict.fromkeys(pools)]
    expected = set()
    for one in uses:
        for other in uses:
            here, there = Range.parse(one.at), Range.parse(other.at)
            if one.owner < other.owner and here.first <= there.last and there.first <= here.last:
                expected.add(frozenset({(one.owner, one.at), (other.owner, other.at)}))
    assert bool(find_overlaps(uses)) == bool(expected)
    assert len(find_overlaps(uses)) == len(expected)


def use(purpose: Purpose, at: str, owner: str = "a", note: str = "", *ports: str) -> Use:
    return Use(purpose, at, owner, note, ports)


PODS = use(Purpose.POD_RANGE, "10.244.0.0/16", "kube-controller-manager")
SERVICES = use(Purpose.SERVICE_RANGE, "10.96.0.0/12", "kube-apiserver")
LAN = use(Purpose.HOST_NETWORK, "10.77.0.0/24", "eth0")
HOST = use(Purpose.HOST_ADDRESS, "10.77.0.11", "eth0", "/24")
NODE = use(Purpose.NODE, "10.77.0.11", "cp-1", "InternalIP")
POOL = use(Purpose.POOL, "10.77.0.200-10.77.0.220", "metallb-system/edge")
DHCP = use(Purpose.DHCP_RANGE, "10.77.0.50-10.77.0.99", "/etc/dnsmasq.conf")
LEASE = use(Purpose.LEASE, "10.77.0.50", "printer", "aa:bb:cc:dd:ee:01")
SOUND = (
    *(PODS, SERVICES, LAN, HOST, NODE, POOL, DHCP, LEASE),
    use(Purpose.SERVICE_RANGE, "10.96.0.0/12", "ServiceCIDR kubernetes"),
    use(Purpose.POD_POOL, "10.244.0.0/16", "Calico default"),
    use(Purpose.NODE_PODS, "10.244.0.0/24", "cp-1"),
    use(Purpose.POD_BLOCK, "10.244.0.0/26", "cp-1"),
    use(Purpose.SERVICE, "10.96.0.1", "default/kubernetes"),
    use(Purpose.BALANCER, "10.77.0.200", "default/web", "", "80:30080/TCP"),
)
"""A site as it should be."""


@pytest.mark.parametrize(
    "more",
    [
        (),
        # MetalLB and k3s let services share an address port by port; k3s answers on the nodes' own
        (use(Purpose.BALANCER, "10.77.0.200", "default/dns", "", "53/UDP"),),
        (use(Purpose.BALANCER, "10.77.0.11", "default/web"), use(Purpose.BALANCER, "10.77.0.11", "default/dns")),
        # kube-vip gives an interface the address of a service
        (use(Purpose.HOST_ADDRESS, "10.77.0.200", "eth0"), use(Purpose.HOST_NETWORK, "10.77.0.200", "eth0")),
        # a node that got its address here, under its name, or without saying one
        (use(Purpose.LEASE, "10.77.0.11", "CP-1.lan", "aa:bb"),),
        (use(Purpose.NODE, "10.77.0.60", "worker", "InternalIP"), use(Purpose.LEASE, "10.77.0.60", "aa:b", "aa:b")),
        # two sites behind one router
        (use(Purpose.NODE, "192.0.2.1", "cp-1", "ExternalIP"), use(Purpose.NODE, "192.0.2.1", "w-1", "ExternalIP")),
        # the same lease in two files
        (LEASE,),
        # a virtual address inside of the network
        (use(Purpose.HOST_NETWORK, "10.77.0.100", "eth1"),),
        (use(Purpose.RESERVED, "10.96.0.7", "default/gone"),),
    ],
)
def test_what_is_normal_is_not_reported(more: tuple[Use, ...]) -> None:
    """A warning that is always there is read by nobody."""
    assert find_overlaps([*SOUND, *more]) == ()


@pytest.mark.parametrize(
    ("more", "subject", "text"),
    [
        (
            use(Purpose.HOST_NETWORK, "10.244.7.0/24", "eth1"),
            "10.244.7.0/24",
            "the host network of eth1 is inside the pod range 10.244.0.0/16 of kube-controller-manager",
        ),
        (
            use(Purpose.HOST_NETWORK, "10.100.0.0/16", "eth1"),
            "10.100.0.0/16",
            "the host network of eth1 is inside the service range 10.96.0.0/12 of ServiceCIDR kubernetes",
        ),
        (
            use(Purpose.HOST_NETWORK, "10.77.0.0/16", "eth1"),
            "10.77.0.0/24",
            "the host network of eth0 is inside the host network 10.77.0.0/16 of eth1",
        ),
        (
            use(Purpose.POD_RANGE, "10.96.0.0/16", "k3s"),
            "10.96.0.0/16",
            "the pod range of k3s is inside the service range 10.96.0.0/12 of ServiceCIDR kubernetes",
        ),
        (
            use(Purpose.POOL, "10.77.0.90-10.77.0.110", "other"),
            "10.77.0.90-10.77.0.110",
            "the load balancer pool of other overlaps the DHCP range 10.77.0.50-10.77.0.99 of /etc/dnsmasq.conf",
        ),
        (
            use(Purpose.POOL, "10.77.0.220", "two"),
            "10.77.0.220",
            f"the load balancer pool of two is inside the load balancer pool {POOL.at} of metallb-system/edge",
        ),
        (
            use(Purpose.LEASE, "10.77.0.201", "camera", "aa:02"),
            "10.77.0.201",
            "the DHCP lease of camera is inside the load balancer pool 10.77.0.200-10.77.0.220 of metallb-system/edge",
        ),
        (
            use(Purpose.LEASE, "10.77.0.50", "scanner", "aa:bb:cc:dd:ee:02"),
            "10.77.0.50",
            "the DHCP lease of scanner is also the DHCP lease of printer",
        ),
        (
            use(Purpose.LEASE, "10.77.0.11", "camera", "aa:02"),
            "10.77.0.11",
            "the node address of cp-1 is also the DHCP lease of camera",
        ),
        (
            use(Purpose.NODE, "10.77.0.11", "cp-2", "InternalIP"),
            "10.77.0.11",
            "the node address of cp-2 is also the node address of cp-1",
        ),
        (
            use(Purpose.NODE, "10.77.0.210", "cp-2", "InternalIP"),
            "10.77.0.210",
            "the node address of cp-2 is inside the load balancer pool 10.77.0.200-10.77.0.220 of metallb-system/edge",
        ),
        (
            use(Purpose.NODE, "10.244.9.9", "cp-2", "InternalIP"),
            "10.244.9.9",
            "the node address of cp-2 is inside the pod range 10.244.0.0/16 of kube-controller-manager",
        ),
        (
            use(Purpose.NODE_PODS, "10.244.0.128/25", "cp-2"),
            "10.244.0.128/25",
            "the node pod range of cp-2 is inside the node pod range 10.244.0.0/24 of cp-1",
        ),
        (
            use(Purpose.NODE_PODS, "10.200.0.0/24", "cp-2"),
            "10.200.0.0/24",
            "the node pod range of cp-2 is in no pod range: 10.244.0.0/16",
        ),
        (
            use(Purpose.SERVICE, "10.43.0.1", "default/old"),
            "10.43.0.1",
            "the service address of default/old is in no service range: 10.96.0.0/12",
        ),
        (
            use(Purpose.SERVICE, "10.96.0.1", "default/other"),
            "10.96.0.1",
            "the service address of default/other is also the service address of default/kubernetes",
        ),
        (
            use(Purpose.BALANCER, "10.77.0.200", "default/api", "", "80/TCP"),
            "10.77.0.200",
            "port 80/TCP of this load balancer address is claimed by default/api and by default/web",
        ),
        (
            use(Purpose.BALANCER, "10.77.0.77", "ns/api", "", "80/TCP"),
            "10.77.0.77",
            "the load balancer address of ns/api is inside the DHCP range 10.77.0.50-10.77.0.99 of /etc/dnsmasq.conf",
        ),
        (
            use(Purpose.POD_POOL, "fd00::/48", "Calico v6"),
            "",
            "",
        ),
    ],
)
def test_one_collision_is_one_finding(more: Use, subject: str, text: str) -> None:
    """On a sound site, each single mistake is told of once, with both sides named and a way out."""
    found = find_overlaps([*SOUND, more])
    assert [(each.subject, each.text) for each in found] == ([(subject, text)] if subject else [])
    assert all(each.hint for each in found)


def test_a_mistake_is_not_repeated_for_all_that_is_in_it() -> None:
    """Pods and host in one network are one finding, not one for each node, block and lease in there."""
    uses = [
        use(Purpose.POD_RANGE, "10.0.0.0/8", "kube-controller-manager"),
        *(LAN, HOST, NODE, LEASE, POOL, DHCP),
        *(use(Purpose.NODE_PODS, f"10.77.{n}.0/24", f"w-{n}") for n in range(9)),
    ]
    texts = [each.text for each in find_overlaps(uses)]
    assert texts == ["the host network of eth0 is inside the pod range 10.0.0.0/8 of kube-controller-manager"]


def test_overlaps_are_bounded() -> None:
    """A site whose addresses are all wrong gets a list that can still be held."""
    uses = [use(Purpose.SERVICE, "10.0.0.1", f"default/{n}") for n in range(100)]
    assert len(find_overlaps(uses)) == MAX_OVERLAPS


def test_a_big_site_is_compared() -> None:
    """Thousands of services and leases in two ranges: everything is judged, only the one wrong lease is found."""
    services = [use(Purpose.SERVICE, f"10.96.{n >> 8}.{n & 255}", f"ns/{n}") for n in range(20_000)]
    leases = [use(Purpose.LEASE, f"10.78.{n >> 8}.{n & 255}", f"client-{n}", f"mac-{n}") for n in range(10_000)]
    stray = use(Purpose.LEASE, "10.244.1.1", "stray", "mac")
    assert [each.subject for each in find_overlaps([*SOUND, *services[2:], *leases, stray])] == ["10.244.1.1"]


def plan(*uses: Use, missing: tuple[str, ...] = ()) -> Plan:
    return Plan(
        interfaces=(Interface("eth0", "vlan 20 on eno1", "aa:bb:cc:dd:ee:ff", 1500, "br0", ("10.77.0.11/24",)),),
        routes=({"dst": "default", "gateway": "10.77.0.1", "dev": "eth0"},),
        rules=({"priority": "100", "src": "10.77.0.0/24", "table": "100"},),
        uses=in_order(uses),
        missing=missing,
        overlaps=find_overlaps(uses),
    )


def test_the_plan_reads_well() -> None:
    """Sections in a fixed order, each owner once, what could not be had at the top, collisions at the end."""
    text = write_plan(plan(NODE, PODS, SOUND[10], LEASE, POOL, SOUND[-1], missing=("services",)))
    assert (
        text
        == """\
ADDRESS PLAN
  As captured from this node and its cluster. plan.json has the same as data.

NOT CAPTURED
  services

HOST INTERFACES
  eth0                      vlan 20 on eno1, aa:bb:cc:dd:ee:ff, mtu 1500, in br0
                            10.77.0.11/24

ROUTES
  default gateway 10.77.0.1 dev eth0

RULES
  100 src 10.77.0.0/24 table 100

NODES
  cp-1                      10.77.0.11; InternalIP
                            10.244.0.0/24; node pod range

POD AND SERVICE RANGES
  kube-controller-manager   10.244.0.0/16; pod range

SERVICES
  none

LOAD BALANCER POOLS
  metallb-system/edge       10.77.0.200-10.77.0.220

LOAD BALANCER ADDRESSES
  default/web               10.77.0.200; 80:30080/TCP

DHCP RANGES
  none

DHCP LEASES
  printer                   10.77.0.50; aa:bb:cc:dd:ee:01

OVERLAPS
  none
"""
    )


@given(st.text(max_size=300), st.text(max_size=300), st.lists(st.text(max_size=40), max_size=4))
def test_no_name_breaks_the_page(owner: str, note: str, words: list[str]) -> None:
    """However long or odd the names, no line is wider than 80 columns, and nothing reaches the terminal but ASCII."""
    page = write_plan(
        plan(
            use(Purpose.SERVICE, "fd00:1111:2222:3333:4444:5555:6666:7777", printable(owner), printable(note)),
            use(Purpose.POOL, "fd00::1-fd00:1111:2222:3333:4444:5555:6666:7777", printable(owner)),
            missing=tuple(map(printable, words)),
        )
    )
    assert all(len(line) <= 80 for line in page.split("\n"))
    assert not [sign for sign in page if sign != "\n" and not " " <= sign <= "~"]


@given(USES)
def test_the_plan_as_data_comes_back(uses: list[Use]) -> None:
    """What is written as JSON is read back the same, and shows the same collisions."""
    written = plan(*uses)
    read = strictjson.decode(Plan, strictjson.encode(written), what="plan", max_bytes=1 << 20)
    assert read == written
    assert find_overlaps(read.uses) == read.overlaps
