"""What a bucket's facts mean for whoever holds the credential. Pure; what was not seen is never taken for good."""

from collections.abc import Iterator
from enum import StrEnum

from edgedr.model import Class, Finding, Severity
from edgedr.repository.names import node_prefixes
from edgedr.storage.s3_facts import NOT_TRIED, BucketFacts, Told

POLICIES = "config/policies/README.md"
_AS_ADMIN = "let an administrator run `edgedr doctor --as admin` once, with a credential that may delete"
_NEAR, _FAR = 5, 60  # seconds that two clocks may be apart: nothing to speak of; worth a look


class Role(StrEnum):
    """Whose credential it is."""

    NODE = "node"
    PRUNER = "pruner"
    MONITOR = "monitor"
    ADMIN = "admin"


_DELETERS = frozenset({Role.PRUNER, Role.ADMIN})
_READERS = frozenset({Role.PRUNER, Role.MONITOR, Role.ADMIN})


def _one(role: Role) -> str:
    return f"an {role}" if role is Role.ADMIN else f"a {role}"


def probe_names(site: str, node: str) -> tuple[dict[Class, str], tuple[str, ...]]:
    """Return what a node's fulls and deltas are below, and what others' fulls are, whose names begin with ours."""
    own = dict(zip(Class, node_prefixes(site, node), strict=True))
    others = ((site, f"{node}-other"), (f"{site}-other", node))
    return own, tuple(node_prefixes(*other)[0] for other in others)


def judge(facts: BucketFacts, role: Role) -> tuple[Finding, ...]:
    """Say what of a bucket and of a credential is as it should be for a role, and what is not."""
    return (
        *_signatures(facts),
        *_putting(facts, role),
        *_reading(facts, role),
        *_deleting(facts, role),
        *_overwriting(facts),
        *_elsewhere(facts, role),
        *_settings(facts, role),
        *_locking(facts),
        *_clock(facts),
        *_left(facts),
    )


def good(subject: str, text: str) -> Finding:
    """Say that something is as it should be."""
    return Finding(Severity.GOOD, subject, text)


def warn(subject: str, text: str, hint: str) -> Finding:
    """Say that something could be better, and how."""
    return Finding(Severity.WARN, subject, text, hint)


def bad(subject: str, text: str, hint: str) -> Finding:
    """Say that something must be mended, and how."""
    return Finding(Severity.BAD, subject, text, hint)


def _why(told: Told) -> str:
    return f" ({told.reason})" if told.reason else ""


def _signatures(facts: BucketFacts) -> Iterator[Finding]:
    subject = "signatures"
    closed = f"take public access off the bucket, in its policy and its ACL: {POLICIES}"
    if facts.takes_forged.yes:
        hint = "this server checks no signatures: switch its authentication on, or take another"
        yield bad(subject, "a request that was signed with a wrong secret is taken", hint)
    anybody = {"put": facts.anonymous_puts, "list": facts.anonymous_lists, "get": facts.anonymous_gets}
    may = [act for act, told in anybody.items() if told.yes]
    if may:
        yield bad(subject, f"anybody may {' and '.join(may)} here, without any key", closed)
    asked = [facts.takes_forged, *(told for told in anybody.values() if told != NOT_TRIED)]
    if all(told.no for told in asked):
        yield good(subject, "a wrong secret is refused, and so is none")
    elif not may and not facts.takes_forged.yes:
        unclear = next(told for told in asked if not told.no)
        yield warn(subject, f"whether strangers are refused could not be told{_why(unclear)}", closed)


def _putting(facts: BucketFacts, role: Role) -> Iterator[Finding]:
    speed = "" if facts.throughput is None else f", at {_rate(facts.throughput)}"
    match role:
        case Role.NODE | Role.ADMIN if facts.puts.yes and facts.puts_deltas.no:
            hint = f"allow s3:PutObject below the node's own names, those of deltas too: {POLICIES}"
            yield bad("put", f"fulls can be stored, deltas cannot{_why(facts.puts_deltas)}", hint)
        case Role.NODE | Role.ADMIN if facts.puts.yes:
            yield good("put", f"new objects are taken{speed}")
        case Role.NODE | Role.ADMIN:
            hint = f"allow s3:PutObject below the node's own names: {POLICIES}"
            yield bad("put", f"nothing can be stored{_why(facts.puts)}", hint)
        case _ if facts.puts.yes:
            yield bad("put", f"{_one(role)} may put", f"deny s3:PutObject: {POLICIES}")
        case _:
            yield good("put", "refused, as it should be")


def _reading(facts: BucketFacts, role: Role) -> Iterator[Finding]:
    gets = {"objects": facts.gets, "what is said of them": facts.heads, "older versions": facts.gets_versions}
    if role in _READERS:
        needed = {"get": facts.gets, "list": facts.lists_all if facts.lists.no else facts.lists}
        refused = [act for act, told in needed.items() if told.no]
        if refused:
            hint = f"allow s3:ListBucket and s3:GetObject: {POLICIES}"
            yield bad("read", f"{_one(role)} must {' and '.join(refused)}, and may not", hint)
        elif all(told.yes for told in needed.values()):
            yield good("read", "list and get are allowed")
        else:
            unclear = next(told for told in needed.values() if not told.yes)
            yield warn("read", f"whether it may get could not be told{_why(unclear)}", "try again after a backup")
        return
    may = [act for act, told in gets.items() if told.yes]
    if may:
        yield bad("read", f"it may get {', '.join(may)}", f"deny s3:Get*: a node never reads there: {POLICIES}")
    lists = {"its own names": facts.lists, "the whole bucket": facts.lists_all, "older versions": facts.lists_versions}
    names = [act for act, told in lists.items() if told.yes]
    if names:
        text = f"it may list {', '.join(names)}: sizes and times show"
        yield warn("read", text, f"deny s3:List*: a node never lists there: {POLICIES}")
    if not may and not names and facts.gets.no and facts.lists.no:
        yield good("read", "get and list are refused, as they should be")
    elif not may and not facts.gets.no:
        yield warn("read", f"whether it may get could not be told{_why(facts.gets)}", f"deny s3:Get*: {POLICIES}")


def _deleting(facts: BucketFacts, role: Role) -> Iterator[Finding]:
    deny = f"deny s3:Delete*: {POLICIES}"
    lasting = "for good" if not facts.versions.yes else "behind a mark, older versions stay"
    if role is Role.ADMIN:
        return
    if facts.deletes_versions.yes:
        text = "it may delete for good, older versions too"
        if role is Role.PRUNER:
            yield warn("delete", text, "deny s3:DeleteObjectVersion: lifecycle rules take older versions away")
        else:
            yield bad("delete", text, deny)
    elif role in _DELETERS:
        if facts.deletes.yes:
            yield good("delete", f"allowed, {lasting}")
        else:
            text = f"{_one(role)} must delete, and may not{_why(facts.deletes)}"
            yield bad("delete", text, f"allow s3:DeleteObject: {POLICIES}")
    elif facts.deletes.yes:
        yield bad("delete", f"it may delete, {lasting}", deny)
    elif facts.deletes.no:
        versions = ", of versions too" if facts.deletes_versions.no else ""
        yield good("delete", f"refused{versions}, as it should be")
    else:
        yield warn("delete", f"whether it may delete could not be told{_why(facts.deletes)}", deny)


def _overwriting(facts: BucketFacts) -> Iterator[Finding]:
    switch = "switch versioning on for the bucket; on AWS, let the policy ask for If-None-Match"
    ignored = "If-None-Match is ignored: " if facts.conditional.no else ""
    if facts.puts.yes and facts.overwrites.no:
        yield good("overwrite", "a name that is taken is never given to something else")
    elif facts.versions.yes and facts.conditional.no:
        text = f"{ignored}a second object of a name hides the first, which stays as an older version"
        yield warn("overwrite", text, "nothing to mend: readers take the version that the manifest signs for")
    elif facts.versions.yes:
        yield good("overwrite", "what is overwritten stays as an older version")
    elif facts.puts.yes and facts.versions.no:
        text = f"{ignored}what is put in place of an object destroys it: {facts.versions.reason}"
        yield bad("overwrite", text, f"{switch}: {POLICIES}")
    elif facts.versions.no:
        yield warn("overwrite", f"the bucket keeps no versions{_why(facts.versions)}", f"{switch}: {POLICIES}")
    else:
        yield warn("overwrite", f"whether the bucket keeps versions could not be told{_why(facts.versions)}", _AS_ADMIN)


def _elsewhere(facts: BucketFacts, role: Role) -> Iterator[Finding]:
    if role is not Role.NODE:
        return
    if facts.puts_elsewhere.yes:
        hint = f"allow s3:PutObject below this node's own names only, with the slash after them: {POLICIES}"
        yield warn("other nodes", "it may put below the names of other nodes", hint)
    elif facts.puts_elsewhere.no:
        yield good("other nodes", "nothing can be put below their names")


def _settings(facts: BucketFacts, role: Role) -> Iterator[Finding]:
    if role is Role.ADMIN:
        return
    if facts.changes_settings.yes:
        text = "it may set the bucket's versioning, and so most likely its rules and its policy"
        yield bad("settings", text, f"deny s3:PutBucket* and s3:PutLifecycleConfiguration: {POLICIES}")
    elif facts.changes_settings.no:
        yield good("settings", "it may not set the bucket's versioning")


def _locking(facts: BucketFacts) -> Iterator[Finding]:
    subject, mode = "object lock", facts.retention_mode
    hint = f"make the bucket with Object Lock and a default retention: {POLICIES}"
    if facts.locks.no:
        yield warn(subject, "there is none: that deleting is denied is all that protects what is here", hint)
    elif facts.retention_holds.no:
        text = f"it does not hold: a version under {mode} was deleted all the same"
        yield bad(subject, text, "this server's word is worth nothing here: take another for what must not be deleted")
    elif facts.retention_stays.no:
        text = f"it does not hold: the time of a version under {mode} was shortened"
        yield bad(subject, text, "this server's word is worth nothing here: take another for what must not be deleted")
    elif facts.locks.yes and facts.lock_default is None:
        held = "it holds, but" if facts.retention_holds.yes else "it is on, but"
        yield warn(subject, f"{held} nothing is locked: the bucket has no default retention", hint)
    elif facts.retention_holds.yes:
        default = f"; what is put is locked: {facts.lock_default}" if facts.lock_default else ""
        yield good(subject, f"a version under {mode} could be neither deleted nor shortened{default}")
    else:
        yield warn(subject, "whether a lock really holds cannot be known with this credential", _AS_ADMIN)


def _clock(facts: BucketFacts) -> Iterator[Finding]:
    if facts.offset is None:
        return
    apart = abs(round(facts.offset))
    text = f"{apart} s {'ahead of' if facts.offset > 0 else 'behind'} the server's"
    if apart >= _FAR:
        yield warn("clock", f"this clock is {text}", "set it (chronyc, timedatectl): beyond 15 minutes all is refused")
    else:
        yield good("clock", f"less than {_NEAR} s from the server's" if apart < _NEAR else text)


def _left(facts: BucketFacts) -> Iterator[Finding]:
    if facts.left_objects:
        things = "1 probe" if facts.left_objects == 1 else f"{facts.left_objects} probes"
        size = f"{facts.left_bytes / 1e6:.2f} MB" if facts.left_bytes >= 10_000 else f"{facts.left_bytes} B"  # noqa: PLR2004
        yield good("left there", f"{things}, {size}, could not be deleted: lifecycle rules take care of that")


def _rate(rate: float) -> str:
    return f"{rate / 1e6:.1f} MB/s" if rate >= 1e6 else f"{rate / 1e3:.0f} kB/s"  # noqa: PLR2004
