"""Where two uses of ranges and addresses collide, and where that is as it should be. Pure."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeAlias

from edgedr.addressing.ranges import PODS, Purpose, Range, Use
from edgedr.model import Finding, Severity

MAX_OVERLAPS = 1000
"""Overlaps that are told of; whoever has more knows after the first ones."""

_APART = {
    frozenset({one, other})
    for ones, others in (
        (PODS, (Purpose.SERVICE_RANGE,)),
        (
            (*PODS, Purpose.SERVICE_RANGE),
            (Purpose.HOST_NETWORK, Purpose.NODE, Purpose.POOL, Purpose.BALANCER, Purpose.DHCP_RANGE, Purpose.LEASE),
        ),
        ((Purpose.POOL,), (Purpose.DHCP_RANGE, Purpose.LEASE, Purpose.NODE, Purpose.HOST_ADDRESS)),
        ((Purpose.BALANCER,), (Purpose.DHCP_RANGE, Purpose.LEASE)),
        ((Purpose.LEASE,), (Purpose.NODE, Purpose.HOST_ADDRESS)),
    )
    for one in ones
    for other in others
}
"""What must not meet. A pool in the host's own network is how it should be; so is a node in a DHCP range."""

_UNIQUE = frozenset(Purpose) - {
    *(Purpose.HOST_ADDRESS, Purpose.POD_RANGE, Purpose.SERVICE_RANGE, Purpose.RESERVED, Purpose.BALANCER)
}
"""What must not meet its own kind under another owner. Cluster-wide ranges are told of in several places, and services
may share an address port by port."""

_COVERED_BY = {
    Purpose.NODE_PODS: (Purpose.POD_RANGE, Purpose.POD_POOL),
    Purpose.POD_BLOCK: (Purpose.POD_RANGE, Purpose.POD_POOL),
    Purpose.POD_POOL: (Purpose.POD_RANGE,),
    Purpose.NODE: (Purpose.HOST_NETWORK,),
    Purpose.LEASE: (Purpose.HOST_NETWORK,),
    Purpose.DHCP_RANGE: (Purpose.HOST_NETWORK,),
    Purpose.POOL: (Purpose.HOST_NETWORK,),
    Purpose.BALANCER: (Purpose.POOL, Purpose.HOST_NETWORK),
}
"""Ranges that speak for what is in them, so that one mistake is told of once."""

_Placed: TypeAlias = tuple[Range, Use]


def in_order(uses: Iterable[Use]) -> tuple[Use, ...]:
    """Sort by address, wide ranges first. Raises ``ValueError`` for one whose ``at`` is no range."""
    return tuple(use for _, use in _place(uses))


def find_overlaps(uses: Iterable[Use]) -> tuple[Finding, ...]:
    """Tell where two uses collide, and what is outside of the range that it should be in.

    In the order of addresses; the same uses give the same findings. Raises ``ValueError`` as ``in_order`` does.
    """
    placed = _place(uses)
    found = (*islice(_collisions(placed), MAX_OVERLAPS), *islice(_strays(placed), MAX_OVERLAPS))
    return tuple(dict.fromkeys((*found, *islice(_shared_ports(placed), MAX_OVERLAPS))))[:MAX_OVERLAPS]


def _place(uses: Iterable[Use]) -> list[_Placed]:
    return sorted(((Range.parse(use.at), use) for use in uses), key=_order)


def _order(each: _Placed) -> tuple[int, int, int, str, str, str, tuple[str, ...]]:
    at, use = each
    return at.version, at.first, -at.last, use.purpose, use.owner, use.note, use.ports


def _collisions(placed: list[_Placed]) -> Iterator[Finding]:
    """Sweep over the addresses from low to high, wide ranges first: each pair that meets comes by once."""
    covers = _Covers(placed)
    open_ones: list[_Placed] = []
    for at, use in _comparable(placed):
        open_ones = [other for other in open_ones if other[0].version == at.version and other[0].last >= at.first]
        for above, wide in open_ones:
            if _collide((above, wide), (at, use)) and not covers.speak_for((above, wide), (at, use)):
                yield _finding((above, wide), (at, use))
        open_ones.append((at, use))


def _comparable(placed: list[_Placed]) -> Iterator[_Placed]:
    """Leave out what is told of twice: by several flags, as a node and as this host, or as one of its services."""
    where: dict[Purpose, set[Range]] = defaultdict(set)
    for at, use in placed:
        where[use.purpose].add(at)
    nodes, balancers = where[Purpose.NODE], where[Purpose.BALANCER]
    ours = nodes | where[Purpose.HOST_ADDRESS]
    seen: set[tuple[Purpose, Range]] = set()
    for at, use in placed:
        match use.purpose:
            case Purpose.HOST_ADDRESS:
                doubled = at in nodes or at in balancers  # kube-vip gives an interface the service's address
            case Purpose.BALANCER:
                doubled = at in ours or (use.purpose, at) in seen  # k3s answers for services on its nodes' addresses
            case Purpose.POD_RANGE | Purpose.SERVICE_RANGE:
                doubled = (use.purpose, at) in seen
            case _:
                doubled = False
        seen.add((use.purpose, at))
        if not doubled:
            yield at, use


class _Covers:
    """Knows which ranges speak for others."""

    def __init__(self, placed: list[_Placed]) -> None:
        self._by_purpose: dict[Purpose, set[Range]] = defaultdict(set)
        covering = {cover for covers in _COVERED_BY.values() for cover in covers}
        for at, use in placed:
            if use.purpose in covering and not (use.purpose is Purpose.HOST_NETWORK and at.single):
                self._by_purpose[use.purpose].add(at)

    def speak_for(self, one: _Placed, other: _Placed) -> bool:
        """Tell whether a collision is told of by one of ranges around it."""
        if one[1].purpose is other[1].purpose or (one[0].single and other[0].single):
            return False
        return self._covered(one, other[1]) or self._covered(other, one[1])

    def _covered(self, inner: _Placed, partner: Use) -> bool:
        return any(
            cover.holds(inner[0])
            for purpose in _COVERED_BY.get(inner[1].purpose, ())
            if frozenset({purpose, partner.purpose}) in _APART
            for cover in self._by_purpose[purpose]
        )


def _collide(one: _Placed, other: _Placed) -> bool:
    """Tell whether two uses that meet should not."""
    use, another = one[1], other[1]
    if use.purpose is another.purpose:
        return _clash(one, other)
    if {use.purpose, another.purpose} == {Purpose.LEASE, Purpose.NODE}:
        return _names_differ(use, another)
    return frozenset({use.purpose, another.purpose}) in _APART


def _clash(one: _Placed, other: _Placed) -> bool:
    """Tell whether two uses of one kind that meet should not."""
    (at, use), (below, another) = one, other
    if use.purpose is Purpose.LEASE:
        return use.note != another.note
    if use.purpose not in _UNIQUE or use.owner == another.owner:
        return False
    if use.purpose is Purpose.HOST_NETWORK:
        return not (at.single or below.single)
    return use.purpose is not Purpose.NODE or use.note == another.note == "InternalIP"  # a NAT shows many as one


def _names_differ(one: Use, other: Use) -> bool:
    """Tell whether a lease is surely not the node's own; clients need not say their name."""
    lease, node = (one, other) if one.purpose is Purpose.LEASE else (other, one)
    return lease.owner not in {"", lease.note} and _label(lease.owner) != _label(node.owner)


def _label(name: str) -> str:
    return name.lower().partition(".")[0]


def _strays(placed: list[_Placed]) -> Iterator[Finding]:
    """Yield what is outside of every range that it should be in, where such ranges are known."""
    for purpose, home in ((Purpose.NODE_PODS, Purpose.POD_RANGE), (Purpose.SERVICE, Purpose.SERVICE_RANGE)):
        homes = list(dict.fromkeys(at for at, use in placed if use.purpose is home))
        for at, use in placed if homes else ():
            if use.purpose is purpose and not any(each.holds(at) for each in homes):
                text = f"the {purpose} of {use.owner} is in no {home}: {', '.join(map(str, homes[:4]))}"
                hint = f"was the {home} changed? what is outside of it is not routed, or not given out again"
                yield Finding(Severity.WARN, use.at, text, hint)


def _shared_ports(placed: list[_Placed]) -> Iterator[Finding]:
    """Yield the ports that two services claim on one address; with a port each, an address may be shared."""
    claimed: dict[tuple[Range, str], str] = {}
    for at, use in placed:
        for port in use.ports if use.purpose is Purpose.BALANCER else ():
            port = re.sub(r":\d+", "", port)  # noqa: PLW2901 - without its node port
            first = claimed.setdefault((at, port), use.owner)
            if first != use.owner:
                text = f"port {port} of this {use.purpose} is claimed by {first} and by {use.owner}"
                yield Finding(Severity.WARN, use.at, text, "give one of them another address or port")


def _finding(wide: _Placed, narrow: _Placed) -> Finding:
    (above, outer), (at, inner) = wide, narrow
    relation = "is also" if above == at else "is inside" if above.holds(at) else "overlaps"
    where = f"{outer.purpose} of {outer.owner}" if above == at else f"{outer.purpose} {outer.at} of {outer.owner}"
    purposes = {outer.purpose, inner.purpose}
    if purposes & {Purpose.POOL, Purpose.BALANCER} and purposes & {Purpose.DHCP_RANGE, Purpose.LEASE}:
        hint = "keep apart what the DHCP server and the load balancer give out"
    elif Purpose.HOST_NETWORK in purposes:
        hint = "where both are used, one cannot be reached; an interface of the CNI belongs into ignore_interfaces"
    else:
        hint = "give each its own"
    return Finding(Severity.WARN, inner.at, f"the {inner.purpose} of {inner.owner} {relation} the {where}", hint)
