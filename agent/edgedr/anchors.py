"""What the identity of a cluster hangs on: authorities, signing keys, encryption keys, the join token.

After a change of one, older backups cannot bring back what is there now: so it is said, and captured at once.
"""

import hashlib
from collections.abc import Iterator, Mapping

from edgedr.inventory import Inventory
from edgedr.layouts import Layout
from edgedr.model import Finding, Severity
from edgedr.node.components import components
from edgedr.node.contents import Contents

_FACT = "anchor "
_FLAGS = frozenset({"encryption-provider-config", "service-account-signing-key-file", "service-account-key-file"})


def anchors(files: Contents, layout: Layout) -> dict[str, str]:
    """Return the path of each anchor that is there, and the first half of the SHA-256 of its content, in hex."""
    told, _ = components(files, layout)
    named = [path for each in told for flag, path in each.named_paths() if flag in _FLAGS]
    fixed = [*layout.signing_keys, *(essential.path for essential in layout.essential)]
    paths = [*fixed, *named, *filter(None, (layout.encryption, layout.token))]
    contents = {path: files.contents(path) for path in sorted(set(paths))}
    return {path: hashlib.sha256(content).hexdigest()[:32] for path, content in contents.items() if content is not None}


def anchor_facts(found: Mapping[str, str]) -> dict[str, str]:
    """Return them as facts of a backup."""
    return {_FACT + path: digest for path, digest in found.items()}


def anchors_of(backup: Inventory | None, source: str) -> dict[str, str]:
    """Return the anchors that a backup had; none for one that was made before they were kept."""
    record = backup.sources.get(source) if backup else None
    facts = record.facts if record else {}
    return {fact.removeprefix(_FACT): digest for fact, digest in facts.items() if fact.startswith(_FACT)}


def changed(before: Inventory | None, source: str, now: Mapping[str, str]) -> Iterator[Finding]:
    """Say which anchors are not what they were in an earlier backup, where there is one that knew them."""
    then = anchors_of(before, source)
    for path in sorted({*then, *now} if then else ()):
        if then.get(path) == now.get(path):
            continue
        what = "is new" if path not in then else "is gone" if path not in now else "changed"
        hint = "not meant? the backup before this one has the old one: edgedr restore ID --to DIR --identity FILE"
        yield Finding(Severity.WARN, path, f"{what} since the last backup", hint if path in then else None)
