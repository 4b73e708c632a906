"""Which member a snapshot is taken from, and what is said about the others: golden."""

from dataclasses import replace

import pytest

from edgedr.node.etcd_members import LAG, Alarm, KvHash, Member, NoAnswer, Status, Survey, choose


def _status(number: int, *, revision: int = 5000, leader: int = 1) -> Status:
    return Status(
        endpoint=f"https://10.0.0.{number}:2379",
        cluster_id="c1",
        member_id=f"{number:016x}",
        version="3.5.21",
        revision=revision,
        db_size=1 << 20,
        db_size_in_use=1 << 19,
        leader=f"{leader:016x}" if leader else "",
    )


def _hash(number: int, value: int, *, revision: int = 5000, compact_revision: int = 4000) -> KvHash:
    return KvHash(f"https://10.0.0.{number}:2379", revision, compact_revision, value)


ONE, TWO, THREE = (_status(number) for number in (1, 2, 3))
MEMBERS = tuple(
    Member(
        f"{number:016x}", f"cp-{number}", (f"https://10.0.0.{number}:2380",), (f"https://10.0.0.{number}:2379",), False
    )
    for number in (1, 2, 3)
)
SAME = (_hash(1, 0xA), _hash(2, 0xA), _hash(3, 0xA))
WELL = Survey((ONE, TWO, THREE), members=MEMBERS, hashes=SAME)
DIFFER = "bad: members disagree at revision 5000"
AGREE = "good: 3 members hold the same keys at revision 5000"


def said(survey: Survey) -> tuple[str, list[str]]:
    """Write a choice down: the names of the members in their order, and each finding."""
    names = {member.id: member.name for member in MEMBERS}
    choice = choose(survey)
    order = " ".join(names.get(status.member_id, status.member_id) for status in choice.order)
    return order, [f"{finding.severity}: {finding.text}" for finding in choice.findings]


GOLDEN: dict[str, tuple[Survey, str, list[str]]] = {
    "a single member": (Survey((ONE,), members=MEMBERS[:1]), "cp-1", []),
    "all well: followers before the leader, in the order of the endpoints": (WELL, "cp-2 cp-3 cp-1", [AGREE]),
    "one down": (
        replace(WELL, statuses=(ONE, THREE), unreachable=(NoAnswer("x", "nothing listens"),), hashes=SAME[::2]),
        "cp-3 cp-1",
        ["warn: nothing listens", "good: 2 members hold the same keys at revision 5000"],
    ),
    "two of three down": (
        replace(WELL, statuses=(replace(THREE, leader=""),), hashes=()),
        "cp-3",
        [
            "bad: 2 of 3 members are out of reach: no quorum as seen from here",
            "warn: member cp-3 (https://10.0.0.3:2379) knows of no leader: what it holds may be old",
        ],
    ),
    "one lags: last, even behind the leader": (
        replace(WELL, statuses=(ONE, _status(2, revision=5000 - LAG - 1), THREE)),
        "cp-3 cp-1 cp-2",
        [AGREE, f"warn: member cp-2 (https://10.0.0.2:2379) lags {LAG + 1} revisions behind"],
    ),
    "a few revisions behind is not lagging": (
        replace(WELL, statuses=(ONE, _status(2, revision=5000 - LAG), THREE)),
        "cp-2 cp-3 cp-1",
        [AGREE],
    ),
    "one left behind by compaction": (
        replace(
            WELL,
            statuses=(ONE, _status(2, revision=10), THREE),
            hashes=SAME[::2],
            not_compared=(NoAnswer(TWO.endpoint, "the others have compacted its revision 10"),),
        ),
        "cp-3 cp-1 cp-2",
        [
            "good: 2 members hold the same keys at revision 5000",
            "warn: keys of https://10.0.0.2:2379 not compared: the others have compacted its revision 10",
            "warn: member cp-2 (https://10.0.0.2:2379) lags 4990 revisions behind",
        ],
    ),
    "one disagrees": (
        replace(WELL, hashes=(_hash(1, 0xA), _hash(2, 0xB), _hash(3, 0xA))),
        "cp-3 cp-1",
        [f"{DIFFER}: member cp-2 (https://10.0.0.2:2379) differs from the majority; not used"],
    ),
    "the leader disagrees": (
        replace(WELL, hashes=(_hash(1, 0xB), _hash(2, 0xA), _hash(3, 0xA))),
        "cp-2 cp-3",
        [f"{DIFFER}: member cp-1 (https://10.0.0.1:2379) differs from the majority; not used"],
    ),
    "two members, two hashes: the leader's, loudly": (
        Survey((TWO, ONE), members=MEMBERS[:2], hashes=(_hash(2, 0xB), _hash(1, 0xA))),
        "cp-1",
        [f"{DIFFER} without a majority: member cp-2 (https://10.0.0.2:2379) not used, the leader's side is"],
    ),
    "three members, three hashes": (
        replace(WELL, hashes=(_hash(1, 0xA), _hash(2, 0xB), _hash(3, 0xC))),
        "cp-1",
        [
            (
                f"{DIFFER} without a majority: member cp-2 (https://10.0.0.2:2379), "
                f"member cp-3 (https://10.0.0.3:2379) not used, the leader's side is"
            )
        ],
    ),
    "different compactions are no disagreement, but no agreement either": (
        replace(WELL, hashes=(_hash(1, 0xA), _hash(2, 0xB, compact_revision=4500), _hash(3, 0xA))),
        "cp-3 cp-1 cp-2",
        [
            "good: 2 members hold the same keys at revision 5000",
            "warn: not all members could be compared with each other: their compactions differ",
        ],
    ),
    "a CORRUPT alarm: not used, and no vote": (
        replace(
            WELL, alarms=(Alarm("CORRUPT", THREE.member_id),), hashes=(_hash(1, 0xA), _hash(2, 0xB), _hash(3, 0xB))
        ),
        "cp-1",
        [
            "bad: CORRUPT alarm: member cp-3 (https://10.0.0.3:2379); not used",
            f"{DIFFER} without a majority: member cp-2 (https://10.0.0.2:2379) not used, the leader's side is",
        ],
    ),
    "a CORRUPT alarm about nobody": (
        replace(WELL, alarms=(Alarm("CORRUPT", "0" * 16),)),
        "cp-2 cp-3 cp-1",
        ["bad: CORRUPT alarm, and etcd does not say about which member", AGREE],
    ),
    "the only member is corrupt": (
        Survey((ONE,), members=MEMBERS[:1], alarms=(Alarm("CORRUPT", ONE.member_id),)),
        "",
        ["bad: CORRUPT alarm: member cp-1 (https://10.0.0.1:2379); not used"],
    ),
    "NOSPACE": (
        Survey((ONE,), members=MEMBERS[:1], alarms=(Alarm("NOSPACE", ONE.member_id),)),
        "cp-1",
        ["warn: NOSPACE alarm: member cp-1 (https://10.0.0.1:2379)"],
    ),
    "a learner": (
        replace(WELL, statuses=(ONE, replace(TWO, learner=True), THREE), hashes=SAME[::2]),
        "cp-3 cp-1",
        [
            "warn: member cp-2 (https://10.0.0.2:2379) is still a learner; not used",
            "good: 2 members hold the same keys at revision 5000",
        ],
    ),
    "another cluster": (
        replace(WELL, statuses=(ONE, replace(TWO, cluster_id="c2")), members=MEMBERS[:1], hashes=SAME[:1]),
        "cp-1",
        ["bad: member 0000000000000002 (https://10.0.0.2:2379) belongs to another cluster, c2; not used"],
    ),
    "a member that was added and never started": (
        replace(WELL, members=(*MEMBERS, Member("000000000000000f", "", ("https://10.0.0.4:2380",), (), False))),
        "cp-2 cp-3 cp-1",
        ["warn: member 000000000000000f was added and never started", AGREE],
    ),
    "nobody": (Survey((), unreachable=(NoAnswer("x", "nothing listens"),)), "", ["warn: nothing listens"]),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_choice(case: str) -> None:
    """Each situation has one order and one set of findings, word for word."""
    survey, order, findings = GOLDEN[case]
    assert said(survey) == (order, findings)


def test_everything_bad_has_a_next_act() -> None:
    """A bad finding comes with a hint."""
    for survey, _, _ in GOLDEN.values():
        assert all(finding.hint for finding in choose(survey).findings if finding.severity == "bad")
