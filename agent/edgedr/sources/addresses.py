"""Addresses: the host's, the cluster's, those of load balancers and DHCP servers, and where two of them collide."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgedr import strictjson
from edgedr.addressing.cluster import KINDS, ask_cluster
from edgedr.addressing.host import ask_host
from edgedr.addressing.leases import MAX_LEASES, dhcp_ranges, read_leases
from edgedr.addressing.overlaps import find_overlaps, in_order
from edgedr.addressing.plan import Plan, write_plan
from edgedr.addressing.ranges import Purpose, Use, printable
from edgedr.addressing.survey import Object, Survey, Told, first_of, name_of, uses_of
from edgedr.errors import Damaged, SourceError
from edgedr.inventory import EntryKind, Inventory
from edgedr.kubernetes_yaml import cleaned, written
from edgedr.model import Finding, Severity
from edgedr.node.components import components, distribution_options
from edgedr.node.files import Files, matches
from edgedr.node.node import Node
from edgedr.node.seen import Seen
from edgedr.sources.base import Captured, Count, Document, Fact, Lacking, TakePath
from edgedr.sources.documents import document_path, documents_of, place_documents, prove_documents, prove_files
from edgedr.steps import PlaceFiles, Step

PLAN = "addresses/plan.json"


_NETWORK = (
    *("/etc/netplan", "/etc/NetworkManager/NetworkManager.conf", "/etc/NetworkManager/conf.d"),
    *("/etc/NetworkManager/system-connections", "/etc/systemd/network", "/etc/systemd/networkd.conf"),
    *("/etc/network/interfaces", "/etc/network/interfaces.d", "/etc/sysconfig/network"),
    *("/etc/sysconfig/network-scripts", "/etc/dhcpcd.conf", "/etc/iproute2"),
)
_DHCP = ("/etc/dhcp", "/etc/kea", "/etc/dnsmasq.conf", "/etc/dnsmasq.d", "/etc/default/isc-dhcp-server")
_LEASES = (
    *("/var/lib/misc/dnsmasq.leases", "/var/lib/dnsmasq", "/var/lib/kea"),
    *("/var/lib/dhcp/dhcpd.leases", "/var/lib/dhcp/dhcpd6.leases"),
    *("/var/lib/dhcpd/dhcpd.leases", "/var/lib/dhcpd/dhcpd6.leases"),
)
_MAX_LEASE_FILE = 16 << 20
_MAX_PLAN = 64 << 20
_FLAGS = (
    ("kube-controller-manager", "cluster-cidr", Purpose.POD_RANGE),
    ("kube-apiserver", "service-cluster-ip-range", Purpose.SERVICE_RANGE),
)
_WITH_OPTIONS = ("k3s", "rke2")
_OPTIONS = (
    ("cluster-cidr", Purpose.POD_RANGE, "10.42.0.0/16"),
    ("service-cidr", Purpose.SERVICE_RANGE, "10.43.0.0/16"),
)
_OLD = (".1", ".2", ".completed")
_NO_LEASES = (".pid", ".lock", ".output")


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressesSource:
    """Take what decides about addresses, and write one plan of them all."""

    include: tuple[str, ...] = ()
    """Further network or DHCP configuration: absolute paths or globs on the node; a directory stands for all below it.
    What has ``lease`` in its name is read as a DHCP server's leases."""

    exclude: tuple[str, ...] = ()
    """What not to take of all this: absolute paths or globs; a directory stands for all below it."""

    ignore_interfaces: tuple[str, ...] = (
        *("veth*", "cali*", "lxc[0-9a-f][0-9a-f][0-9a-f]*", "lxc_health", "cni*", "eni*", "azv*", "gke*"),
        *("flannel*", "cilium_*", "tunl0", "vxlan.calico", "vxlan-v6.calico", "wireguard.cali", "wg-v6.cali"),
        *("kube-ipvs0", "kube-bridge", "kube-dummy-if", "nodelocaldns", "cbr0", "weave", "vethwe*"),
        *("antrea-*", "ovn-k8s-*", "genev_sys_*"),
    )
    """Names or globs of interfaces that are left out with their routes: those of pods, and of the network that pods
    share, come and go with the pods, and the cluster makes them anew."""

    required: bool = False
    """Whether a backup without addresses is no backup."""

    @property
    def name(self) -> str:
        """Its name everywhere."""
        return "addresses"

    def capture(self, node: Node) -> Iterator[Captured]:
        """Yield files, the plan, its pools, and where addresses collide. See ``Source``."""
        paths = [
            path
            for path in node.files.expand((*_NETWORK, *_DHCP, *_LEASES, *self.include))
            if not any(matches(path, pattern) for pattern in self.exclude)
        ]
        survey = Survey()
        ask_host(node.commands, self.ignore_interfaces, survey)
        if node.elsewhere is None:
            ask_cluster(node.kube, survey)
        if not (paths or survey.interfaces or survey.counts):
            reasons = "; ".join(survey.missing) or "there is no configuration of a network on this node"
            raise SourceError(f"no addresses could be had: {reasons}", hint="is this the node's /? see [node] root")
        survey.tell(_told_ranges(node))
        _read_ranges(node.files, [path for path in paths if self._is_one(path, _DHCP)], survey)
        _read_leases(node.files, [path for path in paths if self._is_one(path, _LEASES)], survey)
        yield from map(TakePath, paths)
        if node.elsewhere is not None:
            yield Fact("cluster part", f"captured by {node.elsewhere}")
        yield from _items(survey, elsewhere=node.elsewhere is not None)
        for pattern in self.include:
            if not node.files.expand((pattern,)):
                yield Finding(Severity.WARN, pattern, "is configured, but matches nothing on this node")

    def put_back(self, inventory: Inventory) -> Iterable[Step]:
        """Place its files, and its documents for a person to read. See ``Source``."""
        if any(entry.source == self.name for entry in inventory.entries):
            yield PlaceFiles(self.name)
        yield from place_documents(self.name, inventory)

    def prove(self, restored: Path, inventory: Inventory, artifacts: Mapping[str, Path]) -> Iterable[Finding]:
        """Check the files, and that the plan is whole and shows the same collisions as at capture. See ``Source``."""
        del artifacts  # all of it is in files and documents
        yield from prove_documents(self.name, restored, inventory)
        yield from prove_files(self.name, restored, inventory)
        if PLAN in documents_of(self.name, inventory):
            yield _prove_plan(Files(restored))

    def _is_one(self, path: PurePosixPath, patterns: tuple[str, ...]) -> bool:
        return any(matches(path, pattern) for pattern in (*patterns, *self.include))


def _items(survey: Survey, *, elsewhere: bool) -> Iterator[Captured]:
    """Yield documents, facts, counts and findings."""
    uses = in_order(dict.fromkeys(_without_doubles(survey.uses)))
    overlaps = find_overlaps(uses)
    missing = [what for whats in survey.missing.values() for what in whats]
    plan = Plan(
        interfaces=tuple(survey.interfaces),
        routes=tuple(survey.routes),
        rules=tuple(survey.rules),
        uses=uses,
        missing=(*missing, *(["the cluster's part: another node captures it"] if elsewhere else [])),
        overlaps=overlaps,
    )
    yield Document("addresses/plan.txt", write_plan(plan).encode())
    yield Document(PLAN, strictjson.encode(plan))
    if survey.pools:
        yield from _pools_document(survey.pools)
    yield from _facts(plan)
    yield from (Count(noun, number) for noun, number in _counts(survey, uses, overlaps).items())
    for reason, whats in survey.missing.items():
        yield Lacking(f"{'cluster addresses' if len(whats) == len(KINDS) else ', '.join(whats)}: {reason}")
    yield from first_of(list(overlaps), "overlaps: addresses/plan.txt has them")
    yield from survey.findings


def _counts(survey: Survey, uses: tuple[Use, ...], overlaps: tuple[Finding, ...]) -> dict[str, int]:
    counts = dict(survey.counts)
    if "services" in counts:
        counts["node ports"] = len({(use.owner, port) for use in uses for port in use.ports if ":" in port})
        counts["load balancer addresses"] = len({use.at for use in uses if use.purpose is Purpose.BALANCER})
    return {**counts, "overlaps": len(overlaps)}


def _without_doubles(uses: list[Use]) -> Iterator[Use]:
    """Leave out that the API server reserved an address whose service is known."""
    known = {use.at for use in uses if use.purpose is Purpose.SERVICE}
    return (use for use in uses if use.purpose is not Purpose.RESERVED or use.at not in known)


def _facts(plan: Plan) -> Iterator[Fact]:
    hosts = [f"{address} {each.name}" for each in plan.interfaces for address in each.addresses]
    yield from _numbered("host address", hosts)
    for purpose in (Purpose.POD_RANGE, Purpose.SERVICE_RANGE):
        yield from _numbered(str(purpose), dict.fromkeys(use.at for use in plan.uses if use.purpose is purpose))


def _numbered(key: str, values: Iterable[str]) -> Iterator[Fact]:
    for number, value in enumerate(values, 1):
        yield Fact(key if number == 1 else f"{key} #{number}", value)


def _pools_document(pools: list[Object]) -> Iterator[Captured]:
    """Yield the pools so that kubectl can apply them again."""
    texts = []
    for each in pools:
        try:
            texts.append(f"---\n{written(cleaned(dict(each)))}")
        except (ValueError, LookupError, TypeError, AttributeError):
            yield Lacking(f"address pool {name_of(each)}: it is malformed, or nested too deeply to be written")
    yield Document("addresses/pools.yaml", "".join(texts).encode())


def _told_ranges(node: Node) -> Iterator[Told]:
    """Yield the ranges of pods and services that flags and options name, or that the distribution has by default."""
    told, _ = components(node.files, node.layout)
    for name, flag, purpose in _FLAGS:
        for each in told:
            if each.name == name:
                yield from uses_of(purpose, (each.flag(flag) or "").split(","), name)
    options = list(distribution_options(node.files, node.layout))
    for option, purpose, default in _OPTIONS if node.layout.name in _WITH_OPTIONS else ():
        said = [values for _, each in options if (values := each.get(option))]
        cidrs = ",".join(said[-1]) if said else default
        yield from uses_of(purpose, cidrs.split(","), node.layout.name, "" if said else "by default")


def _read_ranges(files: Files, paths: list[PurePosixPath], survey: Survey) -> None:
    for path in paths:
        text = files.contents(path)
        ranges = dhcp_ranges(text.decode(errors="replace")) if text else ()
        survey.tell(each for at in ranges for each in uses_of(Purpose.DHCP_RANGE, [at], str(path)))


def _read_leases(files: Files, paths: list[PurePosixPath], survey: Survey) -> None:
    for base, generation in _generations(files, paths).items():
        contents = [files.contents(path, limit=_MAX_LEASE_FILE) for path in generation]
        told = read_leases(*(content.decode(errors="replace") for content in contents if content is not None))
        survey.counts["leases"] = survey.counts.get("leases", 0) + len(told.leases)
        for lease in told.leases:
            client = printable(lease.client)
            survey.tell(uses_of(Purpose.LEASE, [lease.address], printable(lease.name) or client, client))
        problems = (
            (
                None in contents,
                f"is unreadable, or larger than {_MAX_LEASE_FILE >> 20} MiB: not all leases are in the plan",
            ),
            (told.unreadable > 0, f"{told.unreadable} of its lines or leases make no sense"),
            (told.more, f"has more than {MAX_LEASES} leases: the plan has only those"),
        )
        survey.findings += [Finding(Severity.WARN, str(base), text) for is_so, text in problems if is_so]


def _generations(files: Files, paths: list[PurePosixPath]) -> dict[PurePosixPath, list[PurePosixPath]]:
    """Group lease files, the oldest first: while Kea cleans up, what it had before lies beside the file of the day."""
    found: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
    for path in paths:
        seen = files.look(path)
        is_old = path.suffix in _OLD
        base = path.with_suffix("") if is_old else path
        if (
            isinstance(seen, Seen)
            and seen.kind is EntryKind.FILE
            and "lease" in path.name
            and base.suffix not in _NO_LEASES
        ):
            found[base].append(path)
    for base, generation in found.items():
        cleaned = base.with_name(f"{base.name}.completed")
        if cleaned in generation:  # all that is in the older two, and no more than lives
            found[base] = [cleaned, *(path for path in generation if path == base)]
        else:
            generation.sort(key=lambda path: (path == base, path.suffix == ".1"))
    return found


def _prove_plan(files: Files) -> Finding:
    data = files.contents(document_path(PLAN), limit=_MAX_PLAN) or b""
    try:
        plan = strictjson.decode(Plan, data, what=PLAN, max_bytes=_MAX_PLAN)
        overlaps = find_overlaps(plan.uses)
    except (Damaged, ValueError) as error:
        return Finding(Severity.BAD, PLAN, f"cannot be read: {error}", "restore once more, into a new directory")
    if overlaps != plan.overlaps:
        text = f"shows {len(overlaps)} overlaps, at capture it had {len(plan.overlaps)}"
        return Finding(Severity.BAD, PLAN, text, "read it against addresses/plan.txt")
    return Finding(
        Severity.GOOD, PLAN, f"{len(plan.uses)} ranges and addresses, with the overlaps of the capture: {len(overlaps)}"
    )
