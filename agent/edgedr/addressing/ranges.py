"""Ranges of addresses, written as people write them, and what each is used for. Pure.

``10.0.0.0/8``, ``10.0.0.1-10.0.0.9`` and ``fd00::5`` are ranges.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network, summarize_address_range
from itertools import islice
from typing import Self

_MAX_TEXT = 253  # characters of a name: what DNS allows


class Purpose(StrEnum):
    """What a range or an address is for."""

    HOST_ADDRESS = "host address"
    HOST_NETWORK = "host network"
    NODE = "node address"
    NODE_PODS = "node pod range"
    POD_RANGE = "pod range"
    POD_POOL = "pod pool"
    POD_BLOCK = "pod block"
    SERVICE_RANGE = "service range"
    SERVICE = "service address"
    RESERVED = "reserved service address"
    POOL = "load balancer pool"
    BALANCER = "load balancer address"
    DHCP_RANGE = "DHCP range"
    LEASE = "DHCP lease"


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """All addresses from ``first`` to ``last``, as numbers; one address is a range too."""

    version: int
    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an address, a CIDR (host bits may be set) or ``a-b``; ``ValueError`` for anything else."""
        if "%" in text:
            raise ValueError(f"{text!r} has a zone, which means nothing elsewhere")
        low, dash, high = text.partition("-")
        if dash:
            first, last = ip_address(low.strip()), ip_address(high.strip())
            if first.version != last.version or int(first) > int(last):
                raise ValueError(f"{text!r} does not go from a lower to a higher address")
            return cls(first.version, int(first), int(last))
        network = ip_network(text.strip(), strict=False)
        return cls(network.version, int(network[0]), int(network[-1]))

    @property
    def single(self) -> bool:
        """Whether it is one address."""
        return self.first == self.last

    def holds(self, other: Self) -> bool:
        """Tell whether every address of ``other`` is in this one."""
        return self.version == other.version and self.first <= other.first and other.last <= self.last

    def __str__(self) -> str:
        """Write it so that ``parse`` reads the same: an address, a CIDR where it is one, else ``a-b``."""
        kind = IPv4Address if self.version == 4 else IPv6Address  # noqa: PLR2004
        first, last = kind(self.first), kind(self.last)
        if self.single:
            return str(first)
        cidrs = list(islice(summarize_address_range(first, last), 2))
        return str(cidrs[0]) if len(cidrs) == 1 else f"{first}-{last}"


@dataclass(frozen=True, slots=True)
class Use:
    """One range or address (``at``, as ``Range`` writes it), what for, and whose.

    ``ports`` are a service's, as kubectl writes them: ``80/TCP``, ``80:30080/TCP`` with the node port.
    """

    purpose: Purpose
    at: str
    owner: str
    note: str = ""
    ports: tuple[str, ...] = ()


def printable(text: str) -> str:
    """Return a foreign name so that it can be shown on any terminal."""
    return re.sub(r"[^ -~]", "?", text)[:_MAX_TEXT]


PODS = (Purpose.POD_RANGE, Purpose.POD_POOL, Purpose.NODE_PODS, Purpose.POD_BLOCK)
"""Ranges that pods get their addresses from."""
