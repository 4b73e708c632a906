"""What is made of a bucket's facts: findings for each role, and what a thief could do. No server is asked here."""

from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

import pytest

from edgedr.cli.options import ROLES
from edgedr.doctor.judging import Role, judge, probe_names
from edgedr.doctor.lifetimes import judge_lifetimes
from edgedr.doctor.thief import thief
from edgedr.model import Class, Finding, Severity
from edgedr.replicas import ReplicaSettings
from edgedr.repository.names import place_of
from edgedr.storage.s3_facts import Answer, BucketFacts, Rule, Told, default_retention, read_rules

YES, NO, UNKNOWN = Told(Answer.YES), Told(Answer.NO, "AccessDenied"), Told(Answer.UNKNOWN, "status 500")
PLACE = "s3://dr-backups/edge"

AS_SHIPPED = BucketFacts(
    PLACE,
    "edge/",
    puts=YES,
    puts_deltas=YES,
    conditional=YES,
    overwrites=YES,
    versions=YES,
    gets=NO,
    heads=NO,
    lists=NO,
    lists_all=NO,
    lists_versions=NO,
    gets_versions=NO,
    deletes=NO,
    deletes_versions=NO,
    puts_elsewhere=NO,
    changes_settings=NO,
    takes_forged=NO,
    anonymous_puts=NO,
    anonymous_lists=NO,
    anonymous_gets=NO,
    locks=Told(Answer.UNKNOWN, "AccessDenied"),
    retention_holds=Told(Answer.UNKNOWN, "this credential may not try to break it"),
    retention_stays=Told(Answer.UNKNOWN, "this credential may not try to break it"),
    rules_told=Told(Answer.UNKNOWN, "AccessDenied"),
    offset=0.4,
    throughput=1_460_000.0,
    left_objects=5,
    left_bytes=1_048_633,
)
"""A node's credential with the shipped policy, in a bucket that keeps versions."""

EVERYTHING: dict[str, Any] = dict.fromkeys(
    (
        *("gets", "heads", "lists", "lists_all", "lists_versions", "gets_versions", "deletes", "deletes_versions"),
        *("puts_elsewhere", "changes_settings", "locks", "retention_holds", "retention_stays", "rules_told"),
    ),
    YES,
)
ADMIN = replace(AS_SHIPPED, **EVERYTHING, retention_mode="COMPLIANCE", lock_default="COMPLIANCE 30 days")
"""Somebody who may do everything, where a lock keeps what it promises."""

RULES = (Rule("edge/v1/full/", True, 90, 40), Rule("edge/v1/delta/", True, 30, 30))


def found(facts: BucketFacts, severity: Severity, role: Role = Role.NODE) -> dict[str, str]:
    return {each.subject: each.text for each in judge(facts, role) if each.severity is severity}


def test_a_node_as_shipped_is_well() -> None:
    """Nothing is bad; that nobody can tell about the lock is said, with who can."""
    assert found(AS_SHIPPED, Severity.BAD) == {}
    assert found(AS_SHIPPED, Severity.WARN) == {
        "object lock": "whether a lock really holds cannot be known with this credential"
    }
    assert found(AS_SHIPPED, Severity.GOOD) == {
        "signatures": "a wrong secret is refused, and so is none",
        "put": "new objects are taken, at 1.5 MB/s",
        "read": "get and list are refused, as they should be",
        "delete": "refused, of versions too, as it should be",
        "overwrite": "what is overwritten stays as an older version",
        "other nodes": "nothing can be put below their names",
        "settings": "it may not set the bucket's versioning",
        "clock": "less than 5 s from the server's",
        "left there": "5 probes, 1.05 MB, could not be deleted: lifecycle rules take care of that",
    }


def test_a_thief_of_a_node_as_shipped() -> None:
    """What somebody could do is said as it is, the unpleasant too."""
    assert thief(AS_SHIPPED) == (
        "could not read any backup: get is refused",
        "could not delete anything",
        "could overwrite: readers take what the manifest signs for, the older version stays",
        "could not write in another node's name",
        "could fill the bucket: no policy limits how much is put; set a quota or an alarm",
        "could put another v1/RECOVER.txt there: by hand, follow the one that came with edgedr",
        "could sign as this node, also in place of old backups: believe only what the bucket has from before the theft",
        (
            "has what is on this node: keys of the cluster, the newest backup in the clear, and while it runs the live "
            "cluster; that is out of scope, no bucket can prevent it"
        ),
    )


def test_a_thief_with_the_key_of_an_administrator() -> None:
    """The worst key on a node, word for word."""
    assert thief(replace(ADMIN, lock_default=None))[:-3] == (
        "could read backups there: sealed, so only their sizes, times and manifests",
        "could see the names of all that is in the bucket",
        "could delete every backup there for good",
        "could overwrite: readers take what the manifest signs for, the older version stays",
        "could write in another node's name: such backups are refused, their signature is not that node's",
        "could switch versioning off, and most likely have everything expire within a day",
        "could fill the bucket: no policy limits how much is put; set a quota or an alarm",
    )
    assert "could delete every backup there for good, but what Object Lock retains" in thief(ADMIN)


@pytest.mark.parametrize(
    ("changes", "subject", "text"),
    [
        ({"gets": YES}, "read", "it may get objects"),
        ({"gets_versions": YES}, "read", "it may get older versions"),
        ({"heads": YES}, "read", "it may get what is said of them"),
        ({"deletes": YES}, "delete", "it may delete, behind a mark, older versions stay"),
        ({"deletes": YES, "versions": NO, "overwrites": NO}, "delete", "it may delete, for good"),
        ({"deletes_versions": YES}, "delete", "it may delete for good, older versions too"),
        ({"changes_settings": YES}, "settings", "it may set the bucket's versioning, and so most likely"),
        ({"versions": Told(Answer.NO, "no id")}, "overwrite", "what is put in place of an object destroys it: no id"),
        ({"versions": NO, "conditional": NO}, "overwrite", "If-None-Match is ignored: what is put in place of an"),
        ({"takes_forged": YES}, "signatures", "a request that was signed with a wrong secret is taken"),
        ({"anonymous_gets": YES, "anonymous_lists": YES}, "signatures", "anybody may list and get here, without any"),
        ({"anonymous_puts": YES}, "signatures", "anybody may put here, without any key"),
        ({"puts": NO}, "put", "nothing can be stored (AccessDenied)"),
        ({"puts_deltas": NO}, "put", "fulls can be stored, deltas cannot (AccessDenied)"),
        ({"retention_holds": NO, "retention_mode": "COMPLIANCE"}, "object lock", "it does not hold: a version under C"),
        ({"retention_stays": NO, "retention_mode": "GOVERNANCE"}, "object lock", "it does not hold: the time of a ver"),
    ],
)
def test_what_is_bad_for_a_node(changes: dict[str, Any], subject: str, text: str) -> None:
    """Each of these makes `doctor` fail, and says what to do."""
    facts = replace(AS_SHIPPED, **changes)
    (bad,) = (each for each in judge(facts, Role.NODE) if each.severity is Severity.BAD)
    assert bad.subject == subject
    assert bad.text.startswith(text)
    assert bad.hint


@pytest.mark.parametrize(
    ("changes", "subject", "text"),
    [
        ({"lists": YES, "lists_all": YES}, "read", "it may list its own names, the whole bucket: sizes and times show"),
        ({"puts_elsewhere": YES}, "other nodes", "it may put below the names of other nodes"),
        ({"conditional": NO}, "overwrite", "If-None-Match is ignored: a second object of a name hides the first"),
        ({"locks": NO}, "object lock", "there is none: that deleting is denied is all that protects what is here"),
        ({"locks": YES}, "object lock", "it is on, but nothing is locked: the bucket has no default retention"),
        ({"locks": NO, "retention_holds": NO}, "object lock", "there is none: that deleting is denied is all"),
        ({"offset": -61.0}, "clock", "this clock is 61 s behind the server's"),
        ({"anonymous_lists": UNKNOWN}, "signatures", "whether strangers are refused could not be told (status 500)"),
        ({"gets": UNKNOWN}, "read", "whether it may get could not be told (status 500)"),
        ({"deletes": UNKNOWN}, "delete", "whether it may delete could not be told (status 500)"),
        ({"versions": UNKNOWN}, "overwrite", "whether the bucket keeps versions could not be told (status 500)"),
    ],
)
def test_what_a_node_is_warned_of(changes: dict[str, Any], subject: str, text: str) -> None:
    """Each is said with what to do; what nobody could tell is never taken for good."""
    facts = replace(AS_SHIPPED, **changes)
    assert found(facts, Severity.BAD) == {}
    warned = [each for each in judge(facts, Role.NODE) if each.severity is Severity.WARN and each.subject == subject]
    assert len(warned) == 1
    assert warned[0].text.startswith(text)
    assert warned[0].hint
    assert all(each.subject != subject for each in judge(facts, Role.NODE) if each.severity is Severity.GOOD)


def test_refused_overwriting_needs_no_versions() -> None:
    """Where a policy asks for If-None-Match, a bucket without versions loses nothing either."""
    facts = replace(AS_SHIPPED, overwrites=NO, versions=NO)
    assert found(facts, Severity.BAD) == {}
    assert found(facts, Severity.GOOD)["overwrite"] == "a name that is taken is never given to something else"
    assert "could not overwrite anything" in thief(facts)
    assert "could sign as this node: believe only what the bucket has from before the theft" in thief(facts)
    assert not any("RECOVER" in sentence for sentence in thief(facts))


READER = replace(
    ADMIN,
    puts=NO,
    overwrites=NO,
    deletes=NO,
    deletes_versions=NO,
    changes_settings=NO,
    puts_elsewhere=NO,
    throughput=None,
)


def test_a_monitor_reads_and_nothing_else() -> None:
    """It must list and get; that it may change something is bad."""
    assert found(READER, Severity.BAD, Role.MONITOR) == {}
    for may in ("puts", "deletes", "deletes_versions", "changes_settings"):
        change: dict[str, Any] = {may: YES}
        assert found(replace(READER, **change), Severity.BAD, Role.MONITOR), may
    assert found(replace(READER, gets=NO), Severity.BAD, Role.MONITOR) == {
        "read": "a monitor must get, and may not",
    }
    empty = replace(READER, gets=Told(Answer.UNKNOWN, "there is nothing to get"))
    assert "there is nothing to get" in found(empty, Severity.WARN, Role.MONITOR)["read"]


def test_a_pruner_deletes_and_breaks_no_lock() -> None:
    """It must list, get and delete; to delete versions is more than it needs, to break a lock is bad."""
    pruner = replace(READER, deletes=YES)
    assert found(pruner, Severity.BAD, Role.PRUNER) == {}
    assert found(pruner, Severity.GOOD, Role.PRUNER)["delete"] == "allowed, behind a mark, older versions stay"
    assert found(READER, Severity.BAD, Role.PRUNER) == {"delete": "a pruner must delete, and may not (AccessDenied)"}
    more = replace(pruner, deletes_versions=YES)
    assert found(more, Severity.WARN, Role.PRUNER)["delete"] == "it may delete for good, older versions too"
    breaks = replace(more, retention_holds=NO)
    assert "was deleted all the same" in found(breaks, Severity.BAD, Role.PRUNER)["object lock"]
    assert thief(pruner, Role.PRUNER) == (
        "could read backups there: sealed, so only their sizes, times and manifests",
        "could see the names of all that is in the bucket",
        "could hide backups, but not destroy them: versions stay",
        "could not put anything there",
    )


def test_an_administrator_looks_at_the_bucket() -> None:
    """What such a key may do is no finding; what the bucket does is."""
    assert found(ADMIN, Severity.BAD, Role.ADMIN) == {}
    assert found(ADMIN, Severity.WARN, Role.ADMIN) == {}
    assert found(ADMIN, Severity.GOOD, Role.ADMIN)["object lock"] == (
        "a version under COMPLIANCE could be neither deleted nor shortened; what is put is locked: COMPLIANCE 30 days"
    )
    bare = replace(ADMIN, lock_default=None)
    assert found(bare, Severity.WARN, Role.ADMIN) == {
        "object lock": "it holds, but nothing is locked: the bucket has no default retention"
    }


def test_every_answer_may_be_unknown() -> None:
    """Facts of which nothing is known make no finding that is good, but for what was not asked at all."""
    told = [each.name for each in fields(BucketFacts) if isinstance(getattr(AS_SHIPPED, each.name), Told)]
    unknown: dict[str, Any] = dict.fromkeys(told, UNKNOWN)
    nothing = replace(AS_SHIPPED, **unknown, offset=None, left_objects=0)
    for role in Role:
        assert [each for each in judge(nothing, role) if each.severity is Severity.GOOD and each.subject != "put"] == []
        assert any("could perhaps" in sentence for sentence in thief(nothing, role))
        assert not any("could not" in sentence for sentence in thief(nothing, role))


def lifetimes(facts: BucketFacts, full: int | None, delta: int | None) -> list[Finding]:
    spans = [None if days is None else timedelta(days=days) for days in (full, delta)]
    replica = ReplicaSettings("bucket", PLACE, full_lifetime=spans[0], delta_lifetime=spans[1])
    return list(judge_lifetimes(facts, replica, full_every=timedelta(hours=24)))


@pytest.mark.parametrize(
    ("rules", "told", "severity", "text"),
    [
        (RULES, (90, 30), Severity.GOOD, "full 90 d, delta 30 d, as set"),
        (RULES, (None, None), Severity.WARN, "the bucket's rules say full 90 d, delta 30 d, the configuration full n"),
        (RULES, (60, 30), Severity.WARN, "the bucket's rules say full 90 d, delta 30 d, the configuration full 60 d"),
        ((), (None, None), Severity.WARN, "full never, delta never: the bucket only grows"),
        (RULES[1:], (None, None), Severity.WARN, "full never, delta 30 d: the bucket only grows"),
        (RULES[:1], (90, 30), Severity.BAD, "full 90 d, delta never: deltas stay when the full that they need is gone"),
        ((Rule("", True, 30, 30),), (90, 30), Severity.BAD, "full 30 d, delta 30 d: deltas would outlive the full"),
        ((*RULES, Rule("edge/", True, 31, 9)), (90, 30), Severity.BAD, "full 31 d, delta 30 d: deltas would outlive"),
        ((*RULES, Rule("edge/v1/full/plant-7/", True, 20, 9)), (90, 30), Severity.BAD, "full 20 d, delta 30 d: deltas"),
        ((RULES[0], Rule("edge/v1/delta/", False, 30, 30)), (90, 30), Severity.BAD, "full 90 d, delta never: deltas"),
        ((Rule("edge/v1/full/", False, 20, 9), *RULES), (90, 30), Severity.BAD, "full 20 d, delta 30 d: deltas would"),
        ((Rule("other/v1/full/", True, 1, 1), *RULES), (90, 30), Severity.GOOD, "full 90 d, delta 30 d, as set"),
    ],
)
def test_rules_that_could_orphan_a_delta(
    rules: tuple[Rule, ...], told: tuple[int | None, int | None], severity: Severity, text: str
) -> None:
    """Rules are compared as they work: of fulls the earliest end of any counts, of deltas only a rule for them all."""
    facts = replace(AS_SHIPPED, rules_told=YES, rules=rules)
    finding, *more = lifetimes(facts, *told)
    assert more == []
    assert finding.severity is severity
    assert finding.text.startswith(text)
    assert (finding.hint is None) == (severity is Severity.GOOD)


def test_rules_that_cannot_be_read_or_keep_what_is_hidden() -> None:
    """With a node's credential what is set is said; rules that only hide make the bucket grow."""
    (known,) = lifetimes(AS_SHIPPED, 90, 30)
    assert known.severity is Severity.GOOD
    assert known.text == "full 90 d, delta 30 d, as set; the rules cannot be read"
    (unknown,) = lifetimes(AS_SHIPPED, None, None)
    assert unknown.severity is Severity.WARN
    hiding = replace(AS_SHIPPED, rules_told=YES, rules=tuple(replace(rule, older_days=None) for rule in RULES))
    assert [each.text for each in lifetimes(hiding, 90, 30)][1:] == [
        "older versions never go: what expires is only hidden, and the bucket grows"
    ]


def test_how_long_an_older_version_stays() -> None:
    """A thief is told the rules that are about backups, not those about heartbeats."""
    rules = (*RULES, Rule("edge/v1/heartbeat/", True, None, 2))
    assert any("until a rule removes it after 30 days" in each for each in thief(replace(ADMIN, rules=rules)))


def test_rules_are_read_as_servers_write_them() -> None:
    """Old and new forms; what is switched off does not count; what is limited by size or tag is not for all."""
    rules = [
        {"Status": "Enabled", "Prefix": "a/", "Expiration": {"Days": 1}},
        {"Status": "Disabled", "Filter": {"Prefix": "b/"}, "Expiration": {"Days": 1}},
        {"Status": "Enabled", "Filter": {"And": {"Prefix": "c/", "Tags": []}}, "Expiration": {"Days": 2}},
        {
            "Status": "Enabled",
            "Filter": {"ObjectSizeGreaterThan": 5},
            "Expiration": {"ExpiredObjectDeleteMarker": True},
        },
        {"Status": "Enabled", "Filter": {}, "NoncurrentVersionExpiration": {"NoncurrentDays": 3}},
    ]
    assert read_rules(rules) == (
        Rule("a/", True, 1, None),
        Rule("c/", False, 2, None),
        Rule("", False, None, None),
        Rule("", True, None, 3),
    )
    assert default_retention({}) is None
    assert default_retention({"Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}}) == "COMPLIANCE 1 day"
    assert default_retention({"Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Years": 2}}}) == "GOVERNANCE 2 years"


def test_probes_are_no_backups() -> None:
    """They lie where the node's policies apply; others' names begin with ours; no reader takes one for a backup."""
    own, others = probe_names("plant-7", "cp-1")
    assert own == {Class.FULL: "v1/full/plant-7/cp-1", Class.DELTA: "v1/delta/plant-7/cp-1"}
    assert others == ("v1/full/plant-7/cp-1-other", "v1/full/plant-7-other/cp-1")
    assert all(place_of(f"{prefix}/doctor-12ab34cd/probe") is None for prefix in (*own.values(), *others))


def test_roles_are_those_of_the_command_line() -> None:
    """The command line offers what can be judged."""
    assert tuple(map(str, Role)) == ROLES
