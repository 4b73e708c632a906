"""What is known about the members of an etcd cluster, and which of them to take a snapshot from. Pure.

Ids are 16 hex digits, sizes bytes; an endpoint is a URL like ``https://127.0.0.1:2379``.
"""

from collections import Counter
from dataclasses import dataclass

from edgedr.model import Finding, Severity

LAG = 100
"""Revisions behind the newest member from which on a member counts as lagging: the statuses of healthy members, asked
at the same moment while Kubernetes writes, lie a few revisions apart."""

_SUBJECT = "etcd"


@dataclass(frozen=True, slots=True)
class Member:
    """A member as the cluster lists it; one that was added and never started has no name and no client URLs."""

    id: str
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    learner: bool


@dataclass(frozen=True, slots=True)
class Status:
    """What a member says of itself. ``leader`` is the id of the one that it follows, empty if it knows of none."""

    endpoint: str
    cluster_id: str
    member_id: str
    version: str
    revision: int
    db_size: int
    db_size_in_use: int
    leader: str
    learner: bool = False
    errors: tuple[str, ...] = ()

    @property
    def leads(self) -> bool:
        """Whether it is the leader."""
        return self.leader == self.member_id


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """An endpoint that did not answer a question, and why."""

    endpoint: str
    reason: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm that is raised: ``NOSPACE``, ``CORRUPT``; about nobody in particular if the id is all zeros."""

    kind: str
    member_id: str


@dataclass(frozen=True, slots=True)
class KvHash:
    """A member's hash over all keys up to ``revision``; comparable where both revisions are equal."""

    endpoint: str
    revision: int
    compact_revision: int
    hash: int


@dataclass(frozen=True, slots=True)
class Survey:
    """All that the members said.

    ``statuses`` has one per member, in the order of the endpoints; ``hashes`` is empty unless there were several to
    compare.
    """

    statuses: tuple[Status, ...]
    unreachable: tuple[NoAnswer, ...] = ()
    members: tuple[Member, ...] = ()
    alarms: tuple[Alarm, ...] = ()
    hashes: tuple[KvHash, ...] = ()
    not_compared: tuple[NoAnswer, ...] = ()

    def name(self, status: Status) -> str:
        """Name a member for people."""
        listed = next((member.name for member in self.members if member.id == status.member_id), "")
        return f"member {listed or status.member_id} ({status.endpoint})"


@dataclass(frozen=True, slots=True)
class Choice:
    """The members to take a snapshot from, best first, none that is known to be wrong; and what was seen."""

    order: tuple[Status, ...]
    findings: tuple[Finding, ...]


def choose(survey: Survey) -> Choice:
    """Order the members that may be asked for a snapshot.

    Up to date before lagging, in touch with a leader before alone, compared before not compared, follower before leader
    (to spare it), then in the order of the endpoints. Never one with a CORRUPT alarm, one whose keys differ from the
    majority's, one of another cluster, or a learner.
    """
    findings: list[Finding] = [*_about_reach(survey), *_about_alarms(survey)]
    ruled_out, reasons = _ruled_out(survey)
    candidates = [status for status in survey.statuses if status.member_id not in ruled_out]
    dissenting, dissent = _dissenting(survey, candidates)
    candidates = [status for status in candidates if status.member_id not in dissenting]
    newest = max((status.revision for status in candidates), default=0)
    compared = {hashed.endpoint for group in _comparable(survey, candidates) if len(group) > 1 for hashed in group}

    def rank(status: Status) -> tuple[bool, bool, bool, bool]:
        lags = newest - status.revision > LAG
        return lags, not status.leader, bool(compared) and status.endpoint not in compared, status.leads

    order = tuple(sorted(candidates, key=rank))  # sorted() keeps the order of the endpoints among equals
    findings += [*reasons, *dissent, *_about_condition(survey, order, newest)]
    return Choice(order, tuple(findings))


def _about_reach(survey: Survey) -> list[Finding]:
    found = [Finding(Severity.WARN, _SUBJECT, silent.reason, silent.hint) for silent in survey.unreachable]
    reached = {status.member_id for status in survey.statuses}
    for member in survey.members:
        if not member.client_urls:
            hint = "start it, or remove it from the cluster: it counts for the quorum"
            text = f"member {member.name or member.id} was added and never started"
            found.append(Finding(Severity.WARN, _SUBJECT, text, hint))
    voters = [member for member in survey.members if not member.learner]
    missing = [member for member in voters if member.id not in reached]
    if missing and 2 * len(missing) >= len(voters):
        text = f"{len(missing)} of {len(voters)} members are out of reach: no quorum as seen from here"
        found.append(Finding(Severity.BAD, _SUBJECT, text, "the cluster cannot take writes until they are back"))
    return found


def _about_alarms(survey: Survey) -> list[Finding]:
    found = []
    for alarm in survey.alarms:
        who = next((survey.name(status) for status in survey.statuses if status.member_id == alarm.member_id), None)
        who = who or (f"member {alarm.member_id}" if alarm.member_id.strip("0") else "")
        if alarm.kind == "CORRUPT" and who:
            text, hint = f"CORRUPT alarm: {who}; not used", "replace that member: remove it, wipe it, add it again"
            found.append(Finding(Severity.BAD, _SUBJECT, text, hint))
        elif alarm.kind == "CORRUPT":
            text, hint = "CORRUPT alarm, and etcd does not say about which member", "look into the members' logs"
            found.append(Finding(Severity.BAD, _SUBJECT, text, hint))
        elif alarm.kind == "NOSPACE":
            hint = "compact, defragment, then disarm the alarm: until then the cluster refuses writes"
            found.append(Finding(Severity.WARN, _SUBJECT, f"NOSPACE alarm: {who}", hint))
        else:
            found.append(Finding(Severity.WARN, _SUBJECT, f"{alarm.kind} alarm: {who}"))
    return found


def _ruled_out(survey: Survey) -> tuple[set[str], list[Finding]]:
    """Return the ids of members that are no candidates whatever their keys; and why, where no alarm has said it."""
    ruled_out = {alarm.member_id for alarm in survey.alarms if alarm.kind == "CORRUPT"}
    found = []
    for status in survey.statuses:
        if status.cluster_id != survey.statuses[0].cluster_id:
            ruled_out.add(status.member_id)
            text = f"{survey.name(status)} belongs to another cluster, {status.cluster_id}; not used"
            found.append(Finding(Severity.BAD, _SUBJECT, text, "name the endpoints of one cluster only"))
        elif status.learner:
            ruled_out.add(status.member_id)
            found.append(Finding(Severity.WARN, _SUBJECT, f"{survey.name(status)} is still a learner; not used"))
    return ruled_out, found


def _dissenting(survey: Survey, candidates: list[Status]) -> tuple[set[str], list[Finding]]:
    """Return the ids of candidates whose keys differ from the majority's, or from the leader's if there is none."""
    by_endpoint = {status.endpoint: status for status in candidates}
    groups = _comparable(survey, candidates)
    dissenting: set[str] = set()
    found = []
    for group in groups:
        revision = group[0].revision
        winner, tie = _winner(group, by_endpoint)
        wrong = [by_endpoint[hashed.endpoint] for hashed in group if hashed.hash != winner]
        dissenting |= {status.member_id for status in wrong}
        names = ", ".join(survey.name(status) for status in wrong)
        if tie:
            text = f"members disagree at revision {revision} without a majority: {names} not used, the leader's side is"
            hint = "compare with an older backup before trusting either; then replace the wrong member"
            found.append(Finding(Severity.BAD, _SUBJECT, text, hint))
        elif wrong:
            text = f"members disagree at revision {revision}: {names} differs from the majority; not used"
            hint = "replace that member: remove it, wipe it, add it again"
            found.append(Finding(Severity.BAD, _SUBJECT, text, hint))
        elif len(group) > 1:
            text = f"{len(group)} members hold the same keys at revision {revision}"
            found.append(Finding(Severity.GOOD, _SUBJECT, text))
    if len(groups) > 1:
        text = "not all members could be compared with each other: their compactions differ"
        found.append(Finding(Severity.WARN, _SUBJECT, text))
    return dissenting, found


def _comparable(survey: Survey, candidates: list[Status]) -> list[list[KvHash]]:
    """Group the candidates' hashes by what they cover."""
    endpoints = {status.endpoint for status in candidates}
    groups: dict[tuple[int, int], list[KvHash]] = {}
    for hashed in survey.hashes:
        if hashed.endpoint in endpoints:
            groups.setdefault((hashed.revision, hashed.compact_revision), []).append(hashed)
    return list(groups.values())


def _winner(group: list[KvHash], by_endpoint: dict[str, Status]) -> tuple[int, bool]:
    """Return the hash to believe, and whether that is only because the leader, or else the first member, has it."""
    winner, count = Counter(hashed.hash for hashed in group).most_common(1)[0]
    if 2 * count > len(group):
        return winner, False
    leading = [hashed.hash for hashed in group if by_endpoint[hashed.endpoint].leads]
    return (leading or [group[0].hash])[0], True


def _about_condition(survey: Survey, order: tuple[Status, ...], newest: int) -> list[Finding]:
    found = []
    for silent in survey.not_compared:
        text = f"keys of {silent.endpoint} not compared: {silent.reason}"
        found.append(Finding(Severity.WARN, _SUBJECT, text, silent.hint))
    for status in order:
        if newest - status.revision > LAG:
            text = f"{survey.name(status)} lags {newest - status.revision} revisions behind"
            found.append(Finding(Severity.WARN, _SUBJECT, text, "look at its disk and its network"))
        if not status.leader:
            text = f"{survey.name(status)} knows of no leader: what it holds may be old"
            found.append(Finding(Severity.WARN, _SUBJECT, text, "look at its network, and at the other members"))
    return found
