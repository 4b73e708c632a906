"""The addresses of the host: interfaces, routes and rules, as ``ip -j`` tells them; without those of pods."""

import json
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from edgedr.addressing.plan import Interface
from edgedr.addressing.ranges import Purpose, printable
from edgedr.addressing.survey import Object, Survey, Told, dig, listed, use_of, word
from edgedr.errors import SourceError
from edgedr.model import Finding, Severity
from edgedr.node.commands import Commands

_ROUTING_DAEMONS = frozenset({"bird", "zebra", "bgp", "ospf", "isis", "rip", "eigrp", "babel", "80"})
"""What they learn changes with other machines, and comes back by itself; 80 is Calico's."""
_ROUTE = (
    *("type", "dst", "via", "gateway", "dev", "src", "prefsrc", "protocol", "scope", "metric", "table", "tos"),
    *("nexthops", "metrics"),
)
_VOLATILE = ("flags", "expires")


def ask_host(commands: Commands, ignored: tuple[str, ...], survey: Survey) -> None:
    """Ask for interfaces, routes and rules; IPv6 only where there is an address of it."""
    try:
        links = _answer(commands, "-d", "addr")
    except SourceError as error:
        survey.lack("host addresses", error)
        return
    inet6 = any(dig(info, "family") == "inet6" for link in links for info in listed(link.get("addr_info")))
    survey.tell(told for link in links for told in _interface(link, ignored, survey.interfaces))
    survey.interfaces.sort(key=lambda each: each.name)
    survey.counts["interfaces"] = len(survey.interfaces)
    for family in ("-4", "-6") if inet6 else ("-4",):
        try:
            routes = _answer(commands, family, "route", "show", "table", "all")
            rules = _answer(commands, family, "rule")
        except SourceError as error:
            survey.lack(f"routes and rules of IPv{family[1:]}", error)
            continue
        survey.routes += sorted(
            (_flat(row, _ROUTE) for row in routes if _is_lasting_route(row, ignored)), key=_by_table
        )
        survey.rules += [_rule(row, family) for row in rules]


def _answer(commands: Commands, *words: str) -> list[Object]:
    text = commands.run("ip", "-j", *words)
    try:
        answer = json.loads(text.strip() or "[]")
    except (ValueError, RecursionError) as error:
        raise SourceError(f"`ip -j {' '.join(words)}` did not print JSON", hint="install iproute2") from error
    return [row for row in listed(answer) if isinstance(row, dict)]


def _interface(link: Object, ignored: tuple[str, ...], found: list[Interface]) -> Iterator[Told]:
    """Add an interface that lasts, and yield its uses. A pod's end of a cable is one whose peer is elsewhere."""
    name, kind = word(link.get("ifname")), word(dig(link, "linkinfo", "info_kind"))
    infos = [info for info in listed(link.get("addr_info")) if _is_lasting_address(info)]
    is_pods = kind == "veth" and "link_netnsid" in link
    if _is_ignored(name, ignored) or (not infos and (name == "lo" or is_pods)):
        return
    texts = []
    for info in infos:
        address, length = word(dig(info, "local")), word(dig(info, "prefixlen"))
        texts.append(f"{address}/{length}")
        yield use_of(Purpose.HOST_ADDRESS, address, name, f"/{length}")
        yield use_of(Purpose.HOST_NETWORK, f"{address}/{length}", name)
        if dig(info, "dadfailed"):
            yield Finding(
                Severity.WARN,
                address,
                f"another host answers for this address of {name}",
                "take one of the two off the network",
            )
    mtu = link.get("mtu")
    found.append(
        Interface(
            name=name,
            kind=_kind_of(link, kind or word(link.get("link_type"))),
            mac=word(link.get("address")),
            mtu=mtu if isinstance(mtu, int) and mtu >= 0 else 0,
            master=word(link.get("master")),
            addresses=tuple(texts),
        )
    )


def _kind_of(link: Object, kind: str) -> str:
    data = dig(link, "linkinfo", "info_data")
    about = {"vlan": dig(data, "id"), "bond": dig(data, "mode")}.get(kind)
    below = word(link.get("link")) if kind != "veth" else ""
    return " ".join(filter(None, (kind, word(about), f"on {below}" if below else "")))


def _is_lasting_address(info: object) -> bool:
    """Tell whether an address says something about this host: no loopback or link-local, none that is due to change."""
    if dig(info, "temporary") or (dig(info, "family"), dig(info, "scope")) == ("inet6", "link"):
        return False
    address = word(dig(info, "local"))
    return address not in {"", "::1"} and not address.startswith("127.")


def _is_lasting_route(row: Object, ignored: tuple[str, ...]) -> bool:
    devices = [word(row.get("dev")), *(word(dig(hop, "dev")) for hop in listed(row.get("nexthops")))]
    named = [device for device in devices if device]
    if row.get("table") == "local" or word(row.get("protocol")) in _ROUTING_DAEMONS:
        return False
    if named and all(_is_ignored(device, ignored) for device in named):
        return False
    return not word(row.get("dst")).startswith(("fe80:", "ff00:"))


def _is_ignored(interface: str, ignored: tuple[str, ...]) -> bool:
    return any(fnmatchcase(interface, pattern) for pattern in ignored)


def _rule(row: Object, family: str) -> dict[str, str]:
    """Flatten a rule; which family it is for shows nowhere else, and a length belongs to its address."""
    words = _flat(row, [key for key in row if key not in _VOLATILE])
    for key in ("src", "dst"):
        length = words.pop(f"{key}len", "")
        if length:
            words[key] = f"{words.get(key, '')}/{length}"
    return {"priority": words.pop("priority", ""), "family": f"IPv{family[1:]}", **words}


def _flat(row: Object, keys: Iterable[str]) -> dict[str, str]:
    return {printable(key): _flat_value(row[key]) for key in keys if key in row}


def _flat_value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_flat_value(item) for item in value)
    if isinstance(value, dict):
        return " ".join(f"{printable(key)} {word(item)}" for key, item in value.items() if key != "flags")
    return word(value)


def _by_table(row: dict[str, str]) -> tuple[str, bool, str, list[str]]:
    return row.get("table", ""), row.get("dst") != "default", row.get("dst", ""), list(row.values())
