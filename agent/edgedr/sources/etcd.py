"""etcd: a snapshot from one healthy member, proven whole by the SHA-256 behind it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgedr.errors import SourceError
from edgedr.inventory import Inventory
from edgedr.layouts import Datastore, why_unknown
from edgedr.model import Bytes, EtcdFacts, Finding, Severity, Status
from edgedr.node.components import datastore, distribution_option, read_pod
from edgedr.node.node import Node
from edgedr.sources.base import Absent, Captured, Count, Elsewhere, Fact, Stream
from edgedr.steps import PlaceArtifact, Step
from edgedr.storage.base import Spool

if TYPE_CHECKING:  # every command makes the table of sources; few ask etcd
    from edgedr.node.etcd import Access, SnapshotFacts
    from edgedr.node.etcd_members import Choice, Survey

ARTIFACT = "etcd.db"

_PKI = "/etc/kubernetes/pki"
_CLIENT_PAIRS = (f"{_PKI}/apiserver-etcd-client", f"{_PKI}/etcd/healthcheck-client", f"{_PKI}/etcd/server")
"""Client certificates of kubeadm, in the order in which they are tried; to etcd they are all equal."""
_DATASTORE_OPTIONS = ("endpoint", "cafile", "certfile", "keyfile")
_CHUNK = 1 << 20
_MIN_PROGRESS = Bytes(16 << 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdSource:
    """Take a snapshot over etcd's own API. What is not set here is found in the static pod manifests."""

    endpoints: tuple[str, ...] = ()
    """URLs of members, like ``https://127.0.0.1:2379``. Members that these list are asked too."""

    ca: str | None = None
    """Authority that signed the members' certificates: an absolute path on the node."""

    cert: str | None = None
    """Client certificate: an absolute path on the node."""

    key: str | None = None
    """Its key: an absolute path on the node."""

    answer: timedelta = timedelta(seconds=5)
    """How long a member may take to say how it is."""

    deadline: timedelta = timedelta(minutes=10)
    """How long one member may take to send all of its snapshot; then the next is tried."""

    min_progress: Bytes = _MIN_PROGRESS
    """Bytes per second that a member must send, on average over ``patience``."""

    patience: timedelta = timedelta(seconds=30)
    """How long a member may send nothing, or too little."""

    required: bool = True
    """Whether a backup without etcd is no backup."""

    @property
    def name(self) -> str:
        """Its name everywhere."""
        return "etcd"

    def capture(self, node: Node) -> Iterator[Captured]:
        """Yield the snapshot, whose it is, and what was seen of the cluster. See ``Source``."""
        from edgedr.node.etcd_members import choose  # noqa: PLC0415 - see above
        from edgedr.node.etcd_survey import survey  # noqa: PLC0415

        if node.elsewhere:
            yield Elsewhere(node.elsewhere)
            return
        kept = datastore(node.files, node.layout)
        if not self.endpoints and kept is Datastore.SQLITE:
            yield Absent(f"the datastore of this node is {kept}")
            return
        if not self.endpoints and kept is Datastore.EXTERNAL_DATABASE:
            raise SourceError(
                "the datastore of this cluster is an external database, which edgedr cannot capture",
                hint='back it up with its own tools, and set [sources] disabled = ["etcd"]',
            )
        access, remarks = find_access(self, node)
        seen = survey(access, answer=self.answer)
        choice = choose(seen)
        if not choice.order:
            raise _no_member(seen, choice)
        taken: list[SnapshotFacts] = []
        failures: list[Finding] = []

        def pump(spool: Spool) -> None:
            taken.append(self._take(access, seen, choice, spool, failures))

        yield Stream(ARTIFACT, pump)
        yield from _facts(seen, taken[0])
        yield from (*remarks, *choice.findings, *failures)

    def put_back(self, inventory: Inventory) -> Iterable[Step]:
        """Place the snapshot. See ``Source``."""
        record = inventory.sources.get(self.name)
        if record is not None and record.status is Status.OK:
            yield PlaceArtifact(self.name, ARTIFACT, ARTIFACT)

    def prove(
        self,
        restored: Path,  # noqa: ARG002 - nothing of etcd lies below the new root yet
        inventory: Inventory,
        artifacts: Mapping[str, Path],
    ) -> Iterable[Finding]:
        """Check that the snapshot is what etcd sent. See ``Source``."""
        from edgedr.node.etcd_stream import Trailer  # noqa: PLC0415 - see above

        record = inventory.sources.get(self.name)
        if record is None or record.status is not Status.OK:
            return
        path = artifacts.get(ARTIFACT)
        if path is None:
            yield Finding(Severity.BAD, ARTIFACT, "it is not among what was restored")
            return
        trailer = Trailer()
        try:
            with path.open("rb") as file:
                while piece := file.read(_CHUNK):
                    trailer.update(piece)
        except OSError as error:
            yield Finding(Severity.BAD, ARTIFACT, f"cannot read {path}: {error.strerror}")
            return
        problem = trailer.problem()
        if problem:
            yield Finding(Severity.BAD, ARTIFACT, f"not what etcd sent: {problem}", "restore another backup")
        else:
            yield Finding(Severity.GOOD, ARTIFACT, f"{trailer.size} bytes, and the SHA-256 behind them holds")

    def _take(
        self, access: "Access", seen: "Survey", choice: "Choice", spool: Spool, failures: list[Finding]
    ) -> "SnapshotFacts":
        """Stream from the best member; from the next if that fails."""
        from edgedr.node.etcd import snapshot  # noqa: PLC0415 - see above

        failed: list[tuple[str, SourceError]] = []
        for status in choice.order:
            if failed:
                spool.restart()
            try:
                facts = snapshot(
                    access,
                    status.endpoint,
                    spool.write,
                    deadline=self.deadline,
                    min_progress=self.min_progress,
                    patience=self.patience,
                    answer=self.answer,
                )
                _check_same(seen, choice, facts)
            except SourceError as error:
                failed.append((seen.name(status), error))
                continue
            for who, failure in failed:
                text = f"{who} failed: {failure.message}; used {seen.name(status)}"
                failures.append(Finding(Severity.WARN, "etcd", text, failure.hint))
            return facts
        last = failed[-1][1]
        reasons = "; ".join(error.message for _, error in failed)
        raise SourceError(f"no etcd member gave a whole snapshot: {reasons}", hint=last.hint) from last


def find_access(settings: EtcdSource, node: Node) -> "tuple[Access, list[Finding]]":
    """Return how to reach etcd: as it is set, and the rest as the static pod manifests say.

    Paths in the result are real ones, below the node's root. Raises ``SourceError`` if nothing tells where etcd is.
    """
    from edgedr.node.etcd import Access  # noqa: PLC0415 - see above

    etcd = _flags(node, node.layout.etcd_manifest)
    apiserver = _flags(node, node.layout.apiserver_manifest)
    remarks = []
    if "etcd-servers-overrides" in apiserver:
        text = "the API server keeps some resources in another etcd (--etcd-servers-overrides), which is not captured"
        remarks.append(Finding(Severity.WARN, "etcd", text))
    layout = node.layout
    lives_here = bool(layout.etcd_endpoint and layout.etcd_data and node.files.exists(layout.etcd_data))
    outside = {  # where a member lives here, it counts, whatever an old option says
        name: None if lives_here else distribution_option(node.files, layout, f"datastore-{name}")
        for name in _DATASTORE_OPTIONS
    }
    here = (layout.etcd_endpoint,) if lives_here and layout.etcd_endpoint else ()
    elsewhere = _list(outside["endpoint"] or apiserver.get("etcd-servers"))
    endpoints = settings.endpoints or _local_endpoint(etcd) or here or tuple(map(_without_user, elsewhere))
    if not endpoints:
        raise SourceError("no etcd found: nothing is set, and no manifest names one", hint=_where(node))
    pairs = [(stem + ".crt", stem + ".key") for stem in _CLIENT_PAIRS]
    if "etcd-certfile" in apiserver and "etcd-keyfile" in apiserver:
        pairs.insert(0, (apiserver["etcd-certfile"], apiserver["etcd-keyfile"]))
    if layout.etcd_cert and layout.etcd_key:
        pairs.insert(0, (layout.etcd_cert, layout.etcd_key))
    if outside["certfile"] and outside["keyfile"]:
        pairs.insert(0, (outside["certfile"], outside["keyfile"]))
    secure = any(endpoint.startswith("https:") for endpoint in endpoints)
    cert, key = settings.cert, settings.key
    if cert is None and key is None and secure:
        cert, key = next(((c, k) for c, k in pairs if node.files.exists(c) and node.files.exists(k)), (None, None))
    ca = settings.ca
    if ca is None and secure:
        ca = outside["cafile"] or apiserver.get("etcd-cafile") or etcd.get("trusted-ca-file") or layout.etcd_ca
    real = [node.root / path.lstrip("/") if path else None for path in (ca, cert, key)]
    return Access(tuple(endpoints), *real), remarks


def _flags(node: Node, manifest: str | None) -> dict[str, str]:
    """Return the flags of a static pod; none if there is no such pod."""
    text = node.files.text(manifest) if manifest else None
    if text is None or manifest is None:
        return {}
    try:
        return dict(read_pod(text, manifest).flags)
    except ValueError as error:
        raise SourceError(
            f"{manifest} is not a static pod manifest", hint="repair it, or set [sources.etcd] endpoints, ca, cert, key"
        ) from error


def _local_endpoint(etcd: Mapping[str, str]) -> tuple[str, ...]:
    """Choose one URL of the member on this node: over the loopback device if it listens there."""
    urls = [url for url in _list(etcd.get("listen-client-urls")) if urlsplit(url).scheme in {"http", "https"}]
    anywhere = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - replaced, not bound to
    for every, loopback in anywhere.items():
        urls = [url.replace(f"//{every}:", f"//{loopback}:") for url in urls]
    local = [url for url in urls if urlsplit(url).hostname in {"127.0.0.1", "::1", "localhost"}]
    return tuple([*local, *urls, *_list(etcd.get("advertise-client-urls"))][:1])


def _without_user(url: str) -> str:
    """Leave out what may stand before the host: etcd is asked with a certificate, and a password is not for logs."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _list(value: str | None) -> tuple[str, ...]:
    return tuple(part.strip().rstrip("/") for part in (value or "").split(",") if part.strip())


def _where(node: Node) -> str:
    layout = node.layout
    looked = "looked at " + " and ".join(filter(None, (layout.etcd_manifest, layout.apiserver_manifest)))
    if not layout.is_known:
        looked = why_unknown(node.root)
    return f"set [sources.etcd] endpoints, ca, cert and key; {looked}"


def _no_member(seen: "Survey", choice: "Choice") -> SourceError:
    if not seen.statuses:
        reasons = "; ".join(silent.reason for silent in seen.unreachable)
        hint = next((silent.hint for silent in seen.unreachable if silent.hint), None)
        return SourceError(f"no etcd member can be reached: {reasons}", hint=hint)
    bad = [finding for finding in choice.findings if finding.severity is not Severity.GOOD]
    reasons = "; ".join(finding.text for finding in bad)
    return SourceError(
        f"no etcd member is fit for a snapshot: {reasons}", hint=next((f.hint for f in bad if f.hint), None)
    )


def _check_same(seen: "Survey", choice: "Choice", facts: "SnapshotFacts") -> None:
    """Make sure that none of those ruled out answered: an address may lead to another member each time."""
    fit = {status.member_id for status in choice.order}
    ruled_out = {status.member_id for status in seen.statuses} - fit
    if facts.status.cluster_id != choice.order[0].cluster_id or facts.status.member_id in ruled_out:
        who = f"member {facts.status.member_id} of cluster {facts.status.cluster_id}"
        raise SourceError(
            f"another answers at {facts.status.endpoint} than a moment ago: {who}", hint="name one member per endpoint"
        )


def _facts(seen: "Survey", taken: "SnapshotFacts") -> Iterator[Captured]:
    status = taken.status
    yield EtcdFacts(status.cluster_id, status.member_id, status.revision, status.version)
    yield Count("members", len(seen.members) or len(seen.statuses))
    yield Fact("snapshot.member", seen.name(status))
    yield Fact("snapshot.db_size", str(status.db_size))
    yield Fact("snapshot.db_size_in_use", str(status.db_size_in_use))
    for member in seen.members:
        yield Fact(f"member.{member.id}.name", member.name)
        yield Fact(f"member.{member.id}.peer_urls", ",".join(member.peer_urls))
        yield Fact(f"member.{member.id}.client_urls", ",".join(member.client_urls))
        if member.learner:
            yield Fact(f"member.{member.id}.learner", "true")
    for other in seen.statuses:
        yield Fact(f"member.{other.member_id}.version", other.version)
    if seen.alarms:
        yield Fact("alarms", ",".join(f"{alarm.kind} {alarm.member_id}" for alarm in seen.alarms))
