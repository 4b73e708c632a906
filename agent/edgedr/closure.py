"""Closure: whether everything that a snapshot needs is beside it. What is missing is named, with what its loss means.

Checked on what was captured, which is all that a restore will have: not on the node. Pure but for reading it.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgedr.bootstrap import token_problem
from edgedr.encryption import EncryptionConfiguration, read_encryption
from edgedr.etcdfile import EtcdFile
from edgedr.inventory import EntryKind, SourceRecord
from edgedr.kinefile import KineFile
from edgedr.layouts import Datastore, Layout
from edgedr.model import Finding, Severity, Status
from edgedr.node.components import Component, components, datastore
from edgedr.node.files import Contents, Files
from edgedr.node.kubeconfig import is_kubeconfig, referenced_files
from edgedr.node.seen import Seen
from edgedr.pki import Ledger, examine, public_keys

_ENCRYPTION_FLAG = "encryption-provider-config"
_SIGNING_FLAG, _VERIFYING_FLAG = "service-account-signing-key-file", "service-account-key-file"
_NO_FILES = ("dir", "dirs", "root", "prefix", "socket", "endpoint", "path")
"""Ends of flags whose value looks like a path and is no file to keep."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was captured, or restored: files, and the datastore in the clear where it is among the artifacts.

    ``live`` is the node itself where it is still at hand, to tell directories that flags name from files.
    """

    files: Contents
    layout: Layout
    etcd: Path | None = None
    sqlite: Path | None = None
    live: Files | None = None


def close(evidence: Evidence) -> SourceRecord:
    """Look at everything, and return the record: ``ok``, or ``partial`` with the pieces that are missing.

    Each missing piece is one BAD finding whose subject is the piece. Raises ``Damaged`` for a datastore that cannot be
    read.
    """
    told, unreadable = components(evidence.files, evidence.layout)
    checks = (
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
    findings = tuple(by_subject.values())
    missing = [finding for finding in findings if finding.severity is Severity.BAD]
    if not missing:
        return SourceRecord(Status.OK, findings=findings)
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return SourceRecord(Status.PARTIAL, f"{missing[0].subject} {missing[0].text}{more}", findings=findings)


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
        if not named and fixed and (self.evidence.files.exists(fixed) or self._mentions()):
            named = [fixed]
        if not named and not self.evidence.layout.is_known and self._mentions():
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

    def _mentions(self) -> frozenset[str]:
        with ExitStack() as stack:
            store = _datastore(self.evidence, stack)
            return store.mentions() if store else frozenset()

    def _lost(self, readable: set[str]) -> dict[str, int]:
        with ExitStack() as stack:
            store = _datastore(self.evidence, stack)
            if store is None or store.mentions() <= readable:
                return {}  # what is not mentioned anywhere in the file is not live either
            return {seal: count for seal, count in store.sealed_with().items() if seal not in readable}


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


def _essentials(evidence: Evidence) -> Iterator[Finding]:
    with_etcd = datastore(evidence.files, evidence.layout) in {Datastore.STACKED_ETCD, Datastore.EMBEDDED_ETCD}
    with_etcd = with_etcd or (evidence.etcd is not None and evidence.layout.etcd_name is not None)
    for essential in evidence.layout.essential:
        if evidence.files.exists(essential.path) or (essential.of_etcd and not with_etcd):
            continue
        if essential.kept_apart:
            text = "is not on this node, as with an external authority"
            yield Finding(Severity.WARN, essential.path, text, f"know where it is kept: {essential.loss}")
        else:
            hint = "find it, or a copy of it; name its place in [sources] if it is elsewhere on this node"
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
    losses = {essential.path: essential.loss for essential in evidence.layout.essential}
    for each in told:
        for flag, path in each.named_paths():
            if flag.endswith(_NO_FILES) or not _is_lost(evidence, path):
                continue
            loss = losses.get(path) or f"{each.name} does not start without it"
            there = evidence.live is not None and evidence.live.exists(path)
            hint = "see why it was not taken: [sources.files] exclude, or its size" if there else "find a copy of it"
            yield Finding(Severity.BAD, path, f"named by --{flag}, is missing: {loss}", hint)


def _named_by_kubeconfigs(evidence: Evidence) -> Iterator[Finding]:
    for path in evidence.files.expand(("/etc/kubernetes/*.conf",)):
        text = evidence.files.text(path)
        if text is None or not is_kubeconfig(text):
            continue
        for named in referenced_files(text, str(path)):
            if _is_lost(evidence, named):
                bound = Severity.WARN if named.startswith("/var/lib/kubelet/pki/") else Severity.BAD
                text = f"named by {path}, is missing: it logs nobody in without"
                yield Finding(bound, named, text, "make it anew from the authority: kubeadm init phase kubeconfig")


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
    for finding in ledger.findings:
        if finding.severity is Severity.BAD:
            yield finding
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
    digest = hashlib.sha256(certificate).hexdigest() if certificate is not None else None
    with ExitStack() as stack:
        store = _datastore(evidence, stack)
        sealed = store.values(b"/bootstrap/") if store else None
    problem = token_problem(token.strip(), authority=digest, bootstrap=sealed)
    if problem:
        yield Finding(Severity.BAD, path, problem, "find the token of this cluster: no server starts from it without")
