"""Which node of a cluster captures what belongs to all of it: decided by every agent alone, from the member list. Pure.

There is no lock and no talk between agents. Each ranks the members that it reaches, in an order that does not depend on
who looks; so they agree where they see the same, one death moves the work to the next, and where they see different
things, two do it: that is harmless.
"""

from dataclasses import dataclass

from edgedr.node.etcd_members import LAG, Status, Survey


@dataclass(frozen=True, slots=True)
class Election:
    """The member whose node captures for the cluster, by name or id; whether that is this node; and why."""

    elected: str
    here: bool
    reason: str


def elect(survey: Survey, own: str | None) -> Election:
    """Choose the first healthy follower by name, to spare the leader; the leader if there is no other.

    ``own`` is the id of this node's member; ``None`` if it has none. A node that cannot tell, or that
    reaches nobody who is healthy, captures for itself: twice is harmless, never is not.
    """
    names = {member.id: member.name for member in survey.members}

    def name(status: Status) -> str:
        return names.get(status.member_id) or status.member_id

    healthy = sorted(_healthy(survey), key=lambda status: (status.leads, name(status), status.member_id))
    if own is None:
        return Election("this node", here=True, reason="it has no member of etcd to be ranked by")
    if not healthy:
        return Election("this node", here=True, reason="no healthy member of etcd can be reached")
    first = healthy[0]
    role = "the leader, and no follower is healthy" if first.leads else "the first healthy follower by name"
    if len(survey.members) <= 1:
        role = "the only member"
    return Election(name(first), here=own == first.member_id, reason=f"{name(first)} is {role}")


def _healthy(survey: Survey) -> list[Status]:
    corrupt = {alarm.member_id for alarm in survey.alarms if alarm.kind == "CORRUPT"}
    newest = max((status.revision for status in survey.statuses), default=0)
    return [
        status
        for status in survey.statuses
        if status.leader
        and not status.learner
        and status.member_id not in corrupt
        and status.cluster_id == survey.statuses[0].cluster_id
        and newest - status.revision <= LAG
    ]
