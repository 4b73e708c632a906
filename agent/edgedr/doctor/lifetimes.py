"""Whether the lifecycle rules of a bucket could ever orphan a delta, and whether the configuration knows them. Pure."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

from edgedr.doctor.judging import POLICIES, bad, good, warn
from edgedr.model import Class, Finding
from edgedr.replicas import ReplicaSettings, replica_problems
from edgedr.repository.names import VERSION
from edgedr.storage.s3_facts import BucketFacts, Rule

_SUBJECT = "lifetimes"
_RULES = f"config/policies/lifecycle.json has rules that fit: {POLICIES}"
_SETTINGS = "set full_lifetime and delta_lifetime to what the bucket does: a full is shipped anew in time then"


def judge_lifetimes(facts: BucketFacts, replica: ReplicaSettings, *, full_every: timedelta) -> Iterator[Finding]:
    """Compare the bucket's rules with each other and with the configuration of a replica."""
    full_told, delta_told = replica.full_lifetime, replica.delta_lifetime
    if not facts.rules_told.yes:
        if full_told and delta_told:
            yield good(
                _SUBJECT, f"full {_days(full_told)}, delta {_days(delta_told)}, as set; the rules cannot be read"
            )
        else:
            yield warn(_SUBJECT, "the bucket's rules cannot be read with this credential, and none are set", _SETTINGS)
        return
    full, delta = (_lifetime(facts, kind) for kind in Class)
    said = f"full {_days(full)}, delta {_days(delta)}"
    orphaned = _orphaned(replica, full, delta, full_every)
    if orphaned is not None:
        yield bad(_SUBJECT, f"{said}: {orphaned}", f"change the bucket's rules: {_RULES}")
    elif full is None:
        yield warn(_SUBJECT, f"{said}: the bucket only grows", _RULES)
    elif (full, delta) != (full_told, delta_told):
        known = f"full {_days(full_told)}, delta {_days(delta_told)}"
        yield warn(_SUBJECT, f"the bucket's rules say {said}, the configuration {known}", _SETTINGS)
    else:
        yield good(_SUBJECT, f"{said}, as set")
    if facts.versions.yes and full is not None and not any(rule.older_days for rule in covering(facts, Class.FULL)):
        yield warn(_SUBJECT, "older versions never go: what expires is only hidden, and the bucket grows", _RULES)


def _orphaned(
    replica: ReplicaSettings, full: timedelta | None, delta: timedelta | None, full_every: timedelta
) -> str | None:
    """Say why deltas would outlive the full that they need; ``None`` if they cannot."""
    if full is None:
        return None
    if delta is None:
        return "deltas stay when the full that they need is gone"
    found = replace(replica, full_lifetime=full, delta_lifetime=delta)
    problems = replica_problems([found], full_every=full_every)
    return next((text for where, text in problems if where.endswith("_lifetime")), None)


def _lifetime(facts: BucketFacts, kind: Class) -> timedelta | None:
    """Return after what time objects of a class go: of fulls the first one that may, of deltas the last one."""
    rules = touching(facts, kind) if kind is Class.FULL else covering(facts, kind)
    days = [rule.days for rule in rules if rule.days is not None]
    return timedelta(days=min(days)) if days else None


def covering(facts: BucketFacts, kind: Class) -> tuple[Rule, ...]:
    """Return the rules that are for every object of a class."""
    below = f"{facts.root}{VERSION}/{kind}/"
    return tuple(rule for rule in facts.rules if rule.whole and below.startswith(rule.prefix))


def touching(facts: BucketFacts, kind: Class) -> tuple[Rule, ...]:
    """Return the rules that are for some object of a class."""
    below = f"{facts.root}{VERSION}/{kind}/"
    return tuple(rule for rule in facts.rules if rule.prefix.startswith(below) or below.startswith(rule.prefix))


def _days(span: timedelta | None) -> str:
    return "never" if span is None else f"{span // timedelta(days=1)} d"
