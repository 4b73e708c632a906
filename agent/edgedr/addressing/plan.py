"""An address plan: all that is known of a node's and its cluster's addresses, and how a person reads it. Pure."""

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from edgedr.addressing.ranges import PODS, Purpose, Use
from edgedr.model import SCHEMA, Finding

_WIDTH, _NAME_WIDTH = 80, 24


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface: ``kind`` is ``ether``, ``vlan 20 on eth0``, ...; ``addresses`` end in ``/length``."""

    name: str
    kind: str
    mac: str
    mtu: int
    master: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that is known of a node's and its cluster's addresses. Routes and rules have the words of ``ip -j``.

    ``missing`` names what could not be had, and so is not compared either.
    """

    schema: int = SCHEMA
    interfaces: tuple[Interface, ...]
    routes: tuple[dict[str, str], ...]
    rules: tuple[dict[str, str], ...]
    uses: tuple[Use, ...]
    missing: tuple[str, ...]
    overlaps: tuple[Finding, ...]


_PURPOSES = tuple(Purpose)
_SECTIONS = (
    ("NODES", (Purpose.NODE, Purpose.NODE_PODS, Purpose.POD_BLOCK)),
    ("POD AND SERVICE RANGES", (Purpose.POD_RANGE, Purpose.POD_POOL, Purpose.SERVICE_RANGE)),
    ("SERVICES", (Purpose.SERVICE, Purpose.RESERVED)),
    ("LOAD BALANCER POOLS", (Purpose.POOL,)),
    ("LOAD BALANCER ADDRESSES", (Purpose.BALANCER,)),
    ("DHCP RANGES", (Purpose.DHCP_RANGE,)),
    ("DHCP LEASES", (Purpose.LEASE,)),
)


def write_plan(plan: Plan) -> str:
    """Write the plan for a person, at most 80 columns wide."""
    sections = {
        "HOST INTERFACES": _rows(row for each in plan.interfaces for row in _interface(each)),
        "ROUTES": (line for route in plan.routes for line in _wrap(_words("dst", route))),
        "RULES": (line for rule in plan.rules for line in _wrap(_words("priority", rule))),
    }
    for title, purposes in _SECTIONS:
        uses = [use for use in plan.uses if use.purpose in purposes]
        if len(purposes) > 1:  # what one owner has stands together
            uses.sort(key=lambda use: (use.owner, _PURPOSES.index(use.purpose)))
        sections[title] = _rows(_section(uses))
    sections["OVERLAPS"] = (line for each in plan.overlaps for line in _wrap(f"{each.subject}: {each.text}"))
    lines = ["ADDRESS PLAN", *_wrap("As captured from this node and its cluster. plan.json has the same as data.")]
    if plan.missing:
        lines += ["", "NOT CAPTURED", *(line for what in plan.missing for line in _wrap(what))]
    for title, rows in sections.items():
        lines += ["", title, *(list(rows) or _wrap("none"))]
    return "\n".join(lines) + "\n"


def _interface(each: Interface) -> Iterator[tuple[str, str]]:
    master = f", in {each.master}" if each.master else ""
    yield each.name, ", ".join(filter(None, (each.kind, each.mac, f"mtu {each.mtu}"))) + master
    for address in each.addresses:
        yield each.name, address


def _words(first: str, row: dict[str, str]) -> str:
    return " ".join([row.get(first, ""), *(f"{key} {value}" for key, value in row.items() if key != first)])


def _section(uses: list[Use]) -> Iterator[tuple[str, str]]:
    for use in uses:
        said = use.purpose if use.purpose in {*PODS, Purpose.SERVICE_RANGE, Purpose.RESERVED} else ""
        yield use.owner, "; ".join(filter(None, (use.at, said, use.note, ", ".join(use.ports))))


def _rows(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    before = None
    for name, text in rows:
        yield from _wrap(f"{'' if name == before else name:<{_NAME_WIDTH}}  {text}", _NAME_WIDTH + 4)
        before = name


def _wrap(text: str, indent: int = 4) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent="  ", subsequent_indent=" " * indent, break_on_hyphens=False, tabsize=1
    )
