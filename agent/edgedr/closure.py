"""Closure: whether everything that a snapshot needs is beside it. What is missing is named, with what its loss means.

Checked on what was captured, which is all that a restore will have: not on the node. Pure but for reading it.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from edgedr.bootstrap import authority_hash, token_problem
from edgedr.encryption import EncryptionConfiguration, read_encryption
from edgedr.etcdfile import EtcdFile
from edgedr.inventory import EntryKind, SourceRecord
from edgedr.kinefile import KineFile
from edgedr.layouts import Datastore, Layout
from edgedr.model import Finding, Severity, Status
from edgedr.node.components import Component, components, datastore, distribution_option
from edgedr.node.contents import Contents
from edgedr.node.files import Files
from edgedr.node.kubeconfig import is_kubeconfig, references
from edgedr.node.named_files import named_files
from edgedr.node.seen import Seen
from edgedr.pki import Ledger, examine, public_keys

_ENCRYPTION_FLAG = "encryption-provider-config"
_SIGNING_FLAG, _VERIFYING_FLAG = "service-account-signing-key-file", "service-account-key-file"
_KUBECONFIGS = frozenset({".conf", ".kubeconfig", ".yaml"})
_KUBELET_PKI = "/var/lib/kubelet/pki/"
"""Where the kubelet keeps what it has renewed, old ones too: it makes a new one of its own accord."""
_KUBELET_CURRENT = tuple(
    f"{_KUBELET_PKI}{name}" for name in ("kubelet-client-current.pem", "kubelet-server-current.pem", "kubelet.crt")
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was captured, or restored: files, and the datastore in the clear where it is among the artifacts.

    ``live`` is the node itself where it is still at hand, to tell directories that flags name from files. ``before``
    are paths that the backup before this one had: what has vanished since is not kept elsewhere on purpose.
    """

    files: Contents
    layout: Layout
    etcd: Path | None = None
    sqlite: Path | None = None
    live: Files | None = None
    before: Collection[str] = ()


def close(evidence: Evidence) -> SourceRecord:
    """Look at everything, and return the record: ``ok``, or ``partial`` with the pieces that are missing.

    Each missing piece is one BAD finding whose subject is the piece. Raises ``Damaged`` for a datastore that cannot be
    read.
    """
    told, unreadable = components(evidence.files, evidence.layout)
    checks = (
        _snapshot(evidence),
        _Encryption(evidence, told).findings(),
        _essentials(evidence),
        _signing_keys(evidence, told),
        _named_files(evidence, told),
        _named_by_kubeconfigs(evidence),
        _certificates(evidence),
        _token(evidence),
        (Finding(Severity.BAD, each.subject, each.text, each.hint) for each in unreadable),
    )
    by_subject: dict[str, Finding] = {}
    for finding in (each for check in checks for each in check):
        known = by_subject.get(finding.subject)
        if known is None or (known.severity is not Severity.BAD and finding.severity is Severity.BAD):
            by_subject[finding.subject] = finding  # one piece, one finding: the first says most about it
    findings = tuple(_seen_before(finding, evidence) for finding in by_subject.values())
    missing = [finding for finding in findings if finding.severity is Severity.BAD]
    if not missing:
        return SourceRecord(Status.OK, findings=findings)
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return SourceRecord(Status.PARTIAL, f"{missing[0].subject} {missing[0].text}{more}", findings=findings)


def _seen_before(finding: Finding, evidence: Evidence) -> Finding:
    """Say of a missing piece that the backup before this one has it, where it does: nobody need look further."""
    if finding.severity is not Severity.BAD or finding.subject not in evidence.before:
        return finding
    if evidence.files.exists(finding.subject):
        return finding
    text = finding.text.replace("is missing", "was in the last backup, and is gone", 1)
    hint = "the backup before this one has it: edgedr restore ID --to DIR --identity FILE"
    return replace(finding, text=text, hint=hint)


@dataclass(frozen=True, slots=True)
class _Encryption:
    """Whether every key that values in the datastore are sealed with is in a captured EncryptionConfiguration."""

    evidence: Evidence
    told: tuple[Component, ...]

    def findings(self) -> Iterator[Finding]:
        paths = self._paths()
        found = {path: self._configuration(path) for path in paths}
        readable = {prefix for one in found.values() if one is not None for prefix in one.prefixes()}
        lost = self._lost(readable)
        unread = [path for path, one in found.items() if one is None]
        for path in unread:
            what = "is no EncryptionConfiguration" if self.evidence.files.exists(path) else "is missing"
            yield Finding(Severity.BAD, path, f"{what}: {_unreadable(lost)}", "find a copy before it is needed")
        if not unread:  # else the piece that would have the keys is named already
            yield from _lost_keys(lost, paths)
        for path, one in found.items():
            yield from _doubts(path, one) if one is not None else ()

    def _paths(self) -> list[str]:
        named = [
            each.on_node(value)
            for each in self.told
            for flag, value in each.flags
            if flag == _ENCRYPTION_FLAG and value
        ]
        fixed = self.evidence.layout.encryption
        if not named and fixed and (self.evidence.files.exists(fixed) or self._lost(set())):
            named = [fixed]
        if not named and not self.evidence.layout.is_known and self._lost(set()):
            named = [str(path) for path in self.evidence.files.expand(("/**",)) if self._configuration(str(path))]
        return list(dict.fromkeys(named))

    def _configuration(self, path: str) -> EncryptionConfiguration | None:
        text = self.evidence.files.text(path)
        if text is None or "EncryptionConfig" not in text:
            return None
        try:
            return read_encryption(text)
        except ValueError:
            return None

    def _lost(self, readable: set[str]) -> dict[str, int]:
        with ExitStack() as stack:
            store = _datastore(self.evidence, stack)
            if store is None or store.mentions() <= readable:
                return {}  # what is not mentioned anywhere in the file is not live either
            return {seal: count for seal, count in store.sealed_with(self._prefix()).items() if seal not in readable}

    def _prefix(self) -> bytes:
        """Return below which keys this cluster keeps its objects: others may share its etcd."""
        told = next((prefix for each in self.told if (prefix := each.flag("etcd-prefix"))), None)
        return f"{told.rstrip('/')}/".encode() if told else b"/registry/" if self.evidence.layout.is_known else b""


def _lost_keys(lost: dict[str, int], paths: list[str]) -> Iterator[Finding]:
    for seal, count in lost.items():
        kind, name = seal.split(":")[2], seal.rstrip(":").rpartition(":")[2]
        text = f"of {kind} is in no EncryptionConfiguration: {_unreadable({seal: count})}"
        hint = f"put the key back into {paths[0]}" if paths else "name the file with [layout] encryption"
        yield Finding(Severity.BAD, f"encryption key {name}", text, hint)


def _doubts(path: str, configuration: EncryptionConfiguration) -> Iterator[Finding]:
    for key in configuration.unusable():
        hint = "find the key that the values were sealed with"
        yield Finding(Severity.BAD, f"encryption key {key}", f"of {path} is none that an API server could use", hint)
    for each in configuration.providers():
        if each.kind == "kms":
            text = "is needed to read what it sealed, and cannot be in a backup"
            hint = "know how it comes back, and prove it by a drill"
            yield Finding(Severity.WARN, f"{each} at {each.endpoint}", text, hint)


def _datastore(evidence: Evidence, stack: ExitStack) -> EtcdFile | KineFile | None:
    if evidence.etcd is not None:
        return stack.enter_context(EtcdFile(evidence.etcd))
    return stack.enter_context(KineFile(evidence.sqlite)) if evidence.sqlite is not None else None


def _unreadable(lost: dict[str, int]) -> str:
    count = sum(lost.values())
    if not count:
        return "the API server does not start without it"
    names = ", ".join(sorted({seal.rstrip(":").rpartition(":")[2] for seal in lost}))
    return f"{count} sealed values in the datastore cannot be read without {names}; nobody can make it anew"


def _snapshot(evidence: Evidence) -> Iterator[Finding]:
    """Say where there is nothing to be complete for: another node has it, or it was left out."""
    if evidence.layout.is_known and evidence.etcd is None and evidence.sqlite is None:
        text = "is not in this backup: whether its keys and its token are, was not looked at"
        yield Finding(Severity.WARN, "datastore", text, "look at a backup that holds it, of whichever node captures it")


def _essentials(evidence: Evidence) -> Iterator[Finding]:
    with_etcd = datastore(evidence.files, evidence.layout) in {Datastore.STACKED_ETCD, Datastore.EMBEDDED_ETCD}
    with_etcd = with_etcd or (evidence.etcd is not None and evidence.layout.etcd_name is not None)
    with_agent = distribution_option(evidence.files, evidence.layout, "disable-agent") != "true"
    for essential in evidence.layout.essential:
        if (essential.of_etcd and not with_etcd) or (essential.of_agent and not with_agent):
            continue
        if evidence.files.exists(essential.path):
            continue
        on_node = evidence.live is not None and evidence.live.exists(essential.path)
        gone = essential.path in evidence.before
        if essential.kept_apart and not on_node and not gone:
            text = "is not on this node, as with an external authority"
            yield Finding(Severity.WARN, essential.path, text, f"know where it is kept: {essential.loss}")
        else:
            hint = "find it, or a copy of it; name its place in [sources.certificates] paths if it is elsewhere"
            yield Finding(Severity.BAD, essential.path, f"is missing: {essential.loss}", hint)


def _signing_keys(evidence: Evidence, told: Iterable[Component]) -> Iterator[Finding]:
    """Check that the key that signs service account tokens is among those that verify them."""
    apiserver = next((each for each in told if each.name == "kube-apiserver"), None)
    if apiserver is None or apiserver.flag(_SIGNING_FLAG) is None:
        return  # k3s and rke2: one file is both
    signing = apiserver.on_node(apiserver.flag(_SIGNING_FLAG) or "")
    verifying = [apiserver.on_node(value) for flag, value in apiserver.flags if flag == _VERIFYING_FLAG]
    content = evidence.files.contents(signing)
    others = {path: evidence.files.contents(path) for path in verifying}
    if content is None or not others or any(other is None for other in others.values()):
        return  # the piece that is missing is named elsewhere
    known = {key for path, other in others.items() if other for key in public_keys(PurePosixPath(path), other)}
    if not set(public_keys(PurePosixPath(signing), content)) & known:
        text = f"does not pair with {', '.join(verifying)}: tokens that it signs are refused"
        yield Finding(Severity.BAD, signing, text, "one of them is from another day: find the other half")


def _named_files(evidence: Evidence, told: Iterable[Component]) -> Iterator[Finding]:
    """Look for every file that a flag, a pod or another file names; what may as well be no file counts if it is one."""
    losses = {essential.path: essential.loss for essential in evidence.layout.essential}
    for named in named_files(evidence.files, told):
        there = evidence.live is not None and evidence.live.exists(named.path)
        if not _is_lost(evidence, named.path) or not (there or named.sure):
            continue
        loss = losses.get(named.path) or f"{named.reader} does not start without it"
        hint = "see why it was not taken: [sources.files] exclude, or its size" if there else "find a copy of it"
        yield Finding(Severity.BAD, named.subject, f"named by {named.by}, is missing: {loss}", hint)


def _named_by_kubeconfigs(evidence: Evidence) -> Iterator[Finding]:
    """Look for what the layout's kubeconfigs name; what is no absolute path there may be a key in a wrong field."""
    for path in evidence.files.expand(evidence.layout.certificates):
        text = evidence.files.text(path) if path.suffix in _KUBECONFIGS else None
        if text is None or not is_kubeconfig(text):
            continue
        for each in references(text, str(path)):
            if not _is_lost(evidence, each.path):
                continue
            rotated = each.path.startswith(_KUBELET_PKI)
            subject = each.path if each.is_absolute else f"{each.field} of {path}"
            text = f"named by {path}, is missing: it logs nobody in without"
            hint = "make it anew from the authority: kubeadm init phase kubeconfig"
            yield Finding(Severity.WARN if rotated else Severity.BAD, subject, text, hint)


def _is_lost(evidence: Evidence, path: str) -> bool:
    """Tell whether a file that must be there is not among what was captured; a directory or socket is no file."""
    if evidence.files.exists(path):
        return False
    real = None if evidence.live is None else evidence.live.real(path)
    if real is None or evidence.live is None:
        return True
    seen = evidence.live.look(real)
    return isinstance(seen, Seen) and seen.kind is EntryKind.FILE


def _certificates(evidence: Evidence) -> Iterator[Finding]:
    """Check that authorities signed the leaves that are here, and that keys fit their certificates."""
    ledger = _ledger(evidence)
    current = {evidence.files.real(path) for path in _KUBELET_CURRENT}
    for finding in ledger.findings:
        if finding.severity is Severity.BAD:
            old = finding.subject.startswith(_KUBELET_PKI) and PurePosixPath(finding.subject) not in current
            yield replace(finding, severity=Severity.WARN) if old else finding
    authorities = [each.path for each in evidence.layout.essential if each.path.endswith(".crt")]
    if any(not evidence.files.exists(path) for path in authorities):
        return  # leaves without their authority are explained: it is named as missing
    for issued in ledger.orphans:
        text = f"its authority {issued.issuer} is not in the backup"
        yield Finding(Severity.WARN, str(issued.path), text, "know where that authority is kept")


def _ledger(evidence: Evidence) -> Ledger:
    contents = {
        path: content
        for path in evidence.files.expand(evidence.layout.certificates)
        if (content := evidence.files.contents(path)) is not None
    }
    return examine(contents, thorough=False)


def _token(evidence: Evidence) -> Iterator[Finding]:
    """k3s and rke2: the token opens the bootstrap data in the datastore, and belongs to the authority that is here."""
    path = evidence.layout.token
    token = evidence.files.text(path) if path else None
    if path is None or token is None:
        return  # an essential, named there
    authority = next((each.path for each in evidence.layout.essential if each.path.endswith("/server-ca.crt")), "")
    certificate = evidence.files.contents(authority)
    digest = authority_hash(certificate) if certificate is not None else None
    with ExitStack() as stack:
        store = _datastore(evidence, stack)
        sealed = store.values(b"/bootstrap/") if store else None
    problem = token_problem(token.strip(), authority=digest, bootstrap=sealed)
    if problem:
        yield Finding(Severity.BAD, path, problem, "find the token of this cluster: no server starts from it without")
