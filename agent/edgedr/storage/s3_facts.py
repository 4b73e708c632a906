"""What a bucket was seen to do, and what a credential may there: facts, without a word of what they mean."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Answer(StrEnum):
    """Yes, no, or nobody knows: what was not seen is never taken for either."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Told:
    """One answer, and what the server said, or why nobody knows."""

    answer: Answer
    reason: str = ""

    @property
    def yes(self) -> bool:
        """Whether it was seen to be so."""
        return self.answer is Answer.YES

    @property
    def no(self) -> bool:
        """Whether it was seen not to be so."""
        return self.answer is Answer.NO


NOT_TRIED = Told(Answer.UNKNOWN, "not tried")


@dataclass(frozen=True, slots=True)
class Rule:
    """One lifecycle rule that is switched on. ``whole``: it is for all below its prefix, whatever size or tags."""

    prefix: str
    whole: bool
    days: int | None
    older_days: int | None
    """After how many days an object goes, and after how many a version that is not the newest any more."""


@dataclass(frozen=True, slots=True)
class BucketFacts:
    """What one credential may in one bucket, and what the bucket makes of it."""

    place: str
    root: str = ""
    """What all our names there begin with: ``edge/``, or nothing."""
    puts: Told = NOT_TRIED
    puts_deltas: Told = NOT_TRIED
    conditional: Told = NOT_TRIED
    """Whether a put with If-None-Match is refused where the name is taken."""
    overwrites: Told = NOT_TRIED
    """Whether a put without it is taken there."""
    versions: Told = NOT_TRIED
    """Whether what was overwritten or deleted stays as an older version."""
    gets: Told = NOT_TRIED
    heads: Told = NOT_TRIED
    lists: Told = NOT_TRIED
    lists_all: Told = NOT_TRIED
    """Whether it may list what is below its own names; whether it may list the whole bucket."""
    lists_versions: Told = NOT_TRIED
    gets_versions: Told = NOT_TRIED
    deletes: Told = NOT_TRIED
    deletes_versions: Told = NOT_TRIED
    puts_elsewhere: Told = NOT_TRIED
    """Whether it may put below the names of another node."""
    changes_settings: Told = NOT_TRIED
    """Whether it may set the bucket's versioning."""
    takes_forged: Told = NOT_TRIED
    """Whether a request counts that was signed with a wrong secret; below, one that was not signed at all."""
    anonymous_puts: Told = NOT_TRIED
    anonymous_lists: Told = NOT_TRIED
    anonymous_gets: Told = NOT_TRIED
    locks: Told = NOT_TRIED
    """Whether Object Lock is switched on, as the bucket's configuration says."""
    lock_default: str | None = None
    """For how long it locks what is put, unless told: ``COMPLIANCE 30 days``."""
    retention_mode: str | None = None
    retention_holds: Told = NOT_TRIED
    """Whether a version that is retained cannot be deleted; below, whether its time cannot be shortened."""
    retention_stays: Told = NOT_TRIED
    rules_told: Told = NOT_TRIED
    rules: tuple[Rule, ...] = ()
    offset: float | None = None
    """Seconds by which this clock is ahead of the server's."""
    throughput: float | None = None
    """Bytes a second, of one put."""
    left_objects: int = 0
    left_bytes: int = 0
    """What of the probes could not be taken away again."""


def read_rules(rules: Iterable[Mapping[str, Any]]) -> tuple[Rule, ...]:
    """Read the rules of a lifecycle configuration, as boto3 gives them; what is switched off is left out."""
    found = []
    for rule in rules:
        limits = rule.get("Filter", {})
        limits = limits.get("And", limits)
        made = Rule(
            prefix=limits.get("Prefix", rule.get("Prefix", "")),
            whole=set(limits) <= {"Prefix"},
            days=rule.get("Expiration", {}).get("Days"),
            older_days=rule.get("NoncurrentVersionExpiration", {}).get("NoncurrentDays"),
        )
        found += [made] if rule.get("Status") == "Enabled" else []
    return tuple(found)


def default_retention(configuration: Mapping[str, Any]) -> str | None:
    """Read for how long an Object Lock configuration locks what is put, unless told."""
    default = configuration.get("Rule", {}).get("DefaultRetention", {})
    unit = "Days" if "Days" in default else "Years"
    count = default.get(unit)
    many = unit.lower() if count != 1 else unit.lower().removesuffix("s")
    return f"{default['Mode']} {count} {many}" if default.get("Mode") else None
