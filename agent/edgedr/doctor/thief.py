"""What somebody could do who holds a node's credential, or the node: plain sentences, from facts. Pure."""

from collections.abc import Iterator

from edgedr.doctor.judging import Role
from edgedr.doctor.lifetimes import touching
from edgedr.model import Class
from edgedr.storage.s3_facts import BucketFacts


def thief(facts: BucketFacts, role: Role = Role.NODE) -> tuple[str, ...]:
    """Say in plain sentences what somebody could do who holds this credential, and for a node all that is on it."""
    return (*_could(facts), *(_with_the_node(facts) if role is Role.NODE else ()))


def _could(facts: BucketFacts) -> Iterator[str]:
    if facts.gets.yes or facts.gets_versions.yes:
        yield "could read backups there: sealed, so only their sizes, times and manifests"
    elif facts.gets.no:
        yield "could not read any backup: get is refused"
    else:
        yield "could perhaps read backups, sealed as they are: nobody could tell"
    if facts.lists_all.yes or facts.lists.yes:
        yield f"could see the names {'of all that is in the bucket' if facts.lists_all.yes else 'of its backups'}"
    yield from _could_delete(facts)
    yield from _could_overwrite(facts)
    if facts.puts_elsewhere.yes:
        yield "could write in another node's name: such backups are refused, their signature is not that node's"
    elif facts.puts.yes and facts.puts_elsewhere.no:
        yield "could not write in another node's name"
    if facts.changes_settings.yes:
        yield "could switch versioning off, and most likely have everything expire within a day"
    if facts.puts.yes:
        yield "could fill the bucket: no policy limits how much is put; set a quota or an alarm"


def _could_delete(facts: BucketFacts) -> Iterator[str]:
    but = ", but what Object Lock retains" if facts.retention_holds.yes and facts.lock_default else ""
    if facts.deletes_versions.yes:
        yield f"could delete every backup there for good{but}"
    elif facts.deletes.yes and facts.versions.yes:
        yield "could hide backups, but not destroy them: versions stay"
    elif facts.deletes.yes:
        yield "could delete every backup there for good: no versions stay"
    elif facts.deletes.no:
        yield "could not delete anything"
    else:
        yield "could perhaps delete: nobody could tell"


def _could_overwrite(facts: BucketFacts) -> Iterator[str]:
    if facts.puts.no:
        yield "could not put anything there"
    elif not facts.puts.yes:
        return
    elif facts.overwrites.no:
        yield "could not overwrite anything"
    elif facts.versions.yes:
        rules = {rule for kind in Class for rule in touching(facts, kind)}
        days = [rule.older_days for rule in rules if rule.older_days is not None]
        until = f", until a rule removes it after {min(days)} days" if days else ""
        yield f"could overwrite: readers take what the manifest signs for, the older version stays{until}"
    elif facts.versions.no:
        yield "could destroy every backup whose name it knows, by overwriting it"
    else:
        yield "could perhaps destroy backups by overwriting them: nobody could tell"


def _with_the_node(facts: BucketFacts) -> Iterator[str]:
    if facts.overwrites.yes:
        yield "could put another v1/RECOVER.txt there: by hand, follow the one that came with edgedr"
    old = "" if facts.overwrites.no else ", also in place of old backups"
    yield f"could sign as this node{old}: believe only what the bucket has from before the theft"
    yield (
        "has what is on this node: keys of the cluster, the newest backup in the clear, and while it runs the live "
        "cluster; that is out of scope, no bucket can prevent it"
    )
