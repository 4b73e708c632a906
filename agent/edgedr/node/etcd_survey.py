"""Ask all members of an etcd cluster how they are, and compare their keys."""

import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from datetime import timedelta
from typing import TypeVar

from edgedr.errors import SourceError
from edgedr.node.etcd import ANSWER, Access, Line, dial, is_url
from edgedr.node.etcd_members import Alarm, KvHash, Member, NoAnswer, Status, Survey

T = TypeVar("T")

HASH = timedelta(seconds=60)
"""How long a member may take to hash all its keys: it reads its whole database for that."""

_MAX_ENDPOINTS = 16  # etcd advises seven members at most; a list that is longer is not one of members
_ALARM = re.compile(r"(?:memberID:(\d+) )?alarm:([A-Z]+)")  # a member that is 0 is not named
_COMPARISONS = 3


def survey(access: Access, *, answer: timedelta = ANSWER, hashing: timedelta | None = HASH) -> Survey:
    """Ask all members, at once, how they are; those too that are not among the endpoints but that the cluster lists.

    Where several answer, their keys are compared at one revision; not with ``hashing=None``. A member that does not
    answer is part of the result. Raises ``ConfigurationError`` for an endpoint that is no URL, ``SourceError`` for
    certificates that cannot be used.
    """
    with ExitStack() as stack:
        lines = [stack.enter_context(dial(access, endpoint)) for endpoint in access.endpoints[:_MAX_ENDPOINTS]]
        statuses, unreachable = _statuses(lines, answer)
        members = _members(_lines_of(lines, statuses), answer)
        others = _not_yet_dialled(members, statuses, access.endpoints)[: _MAX_ENDPOINTS - len(lines)]
        lines += [stack.enter_context(dial(access, endpoint)) for endpoint in others]
        further, silent = _statuses(lines[-len(others) :] if others else [], answer)
        statuses = _one_per_member([*statuses, *further])
        hashes, not_compared = _compare(lines, statuses, answer, hashing) if hashing else ([], [])
    return Survey(
        statuses=tuple(statuses),
        unreachable=(*unreachable, *silent),
        members=members,
        alarms=_alarms(statuses),
        hashes=tuple(hashes),
        not_compared=tuple(not_compared),
    )


def _statuses(lines: Sequence[Line], within: timedelta) -> tuple[list[Status], list[NoAnswer]]:
    asked = [(line, line.ask_status(within)) for line in lines]
    statuses, silent = [], []
    for line, wait in asked:
        try:
            statuses.append(wait())
        except SourceError as error:
            silent.append(NoAnswer(line.endpoint, error.message, error.hint))
    return _one_per_member(statuses), silent


def _one_per_member(statuses: Sequence[Status]) -> list[Status]:
    """Keep the first status of each member: one may be reached by several names."""
    first: dict[str, Status] = {}
    for status in statuses:
        first.setdefault(status.member_id, status)
    return list(first.values())


def _members(lines: Sequence[Line], within: timedelta) -> tuple[Member, ...]:
    return _first_answer([line.ask_members(within) for line in lines]) or ()


def _not_yet_dialled(members: Sequence[Member], statuses: Sequence[Status], dialled: Sequence[str]) -> list[str]:
    reached = {status.member_id for status in statuses}
    urls = (url for member in members if member.id not in reached for url in member.client_urls[:1])
    return [url for url in dict.fromkeys(urls) if url not in dialled and is_url(url)]


def _alarms(statuses: Sequence[Status]) -> tuple[Alarm, ...]:
    """Gather the alarms that members know of: each says all of the cluster's with its status.

    To list them would be a write: it goes through the members' log and changes the database that is to be captured.
    """
    told = (found for status in statuses for error in status.errors for found in _ALARM.findall(error))
    alarms = {Alarm(kind, f"{int(member or 0):016x}") for member, kind in told}
    return tuple(sorted(alarms, key=lambda alarm: (alarm.kind, alarm.member_id)))


def _first_answer(asked: Sequence[Callable[[], T]]) -> T | None:
    """Wait for one answer. All were asked at once, so that those who hang cost one deadline, whatever their number."""
    for wait in asked:
        with suppress(SourceError):  # the next may know; what is wrong with this one will show where it matters
            return wait()
    return None


def _compare(
    lines: Sequence[Line], statuses: Sequence[Status], answer: timedelta, hashing: timedelta
) -> tuple[list[KvHash], list[NoAnswer]]:
    """Compare the keys of several members; where they differ, look again: a compaction in progress looks like it."""
    hashes: list[KvHash] = []
    silent: list[NoAnswer] = []
    for attempt in range(_COMPARISONS):
        if attempt:
            time.sleep(0.2)
            statuses, _ = _statuses(_lines_of(lines, statuses), answer)
        hashes, silent = _hashes(_lines_of(lines, statuses), statuses, hashing)
        if len({(hashed.revision, hashed.compact_revision, hashed.hash) for hashed in hashes}) <= 1:
            break
    return hashes, silent


def _hashes(lines: list[Line], statuses: Sequence[Status], within: timedelta) -> tuple[list[KvHash], list[NoAnswer]]:
    """Hash at the newest revision that all have; leave out those that lag behind what the others have compacted."""
    revisions = {status.endpoint: status.revision for status in statuses}
    left_out: list[NoAnswer] = []
    while len(lines) > 1:
        revision = min(revisions[line.endpoint] for line in lines)
        hashes, silent = _ask_hashes(lines, revision, within)
        if not any("compacted" in no_answer.reason for no_answer in silent):
            return hashes, [*left_out, *silent]
        ahead = [line for line in lines if revisions[line.endpoint] > revision]
        if not ahead:  # all stand at a revision that is compacted itself: what they hold now can be compared
            hashes, silent = _ask_hashes(lines, 0, within)
            return hashes, [*left_out, *silent]
        why = f"the others have compacted its revision {revision}"
        left_out += [NoAnswer(line.endpoint, why) for line in lines if line not in ahead]
        lines = ahead
    return [], left_out


def _ask_hashes(lines: Sequence[Line], revision: int, within: timedelta) -> tuple[list[KvHash], list[NoAnswer]]:
    asked = [(line, line.ask_hash(revision, within)) for line in lines]
    hashes, silent = [], []
    for line, wait in asked:
        try:
            hashes.append(wait())
        except SourceError as error:
            silent.append(NoAnswer(line.endpoint, error.message, error.hint))
    return hashes, silent


def _lines_of(lines: Sequence[Line], statuses: Sequence[Status]) -> list[Line]:
    endpoints = {status.endpoint for status in statuses}
    return [line for line in lines if line.endpoint in endpoints]
