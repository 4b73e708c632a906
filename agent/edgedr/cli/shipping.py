"""How `edgedr backup` and `edgedr replicate` tell what came of serving the replicas."""

from collections.abc import Sequence

from edgedr.cli import terminal
from edgedr.errors import AlreadyRunning, StorageError
from edgedr.serving import Served


def show(served: Sequence[Served]) -> None:
    """Print what came of it, a line for each replica."""
    for each in served:
        record, shipment = each.record, each.shipment
        waiting = ""
        if record is not None and record.waiting:
            waiting = f"{terminal.plural(record.waiting, 'backup')} waiting, {terminal.size(record.waiting_bytes)}"
        if each.trouble is not None:
            terminal.line("not shipped", each.replica.url, waiting, style="bad")
            terminal.line("", each.trouble.message)
            if each.trouble.hint:
                terminal.line("", f"hint: {each.trouble.hint}")
            if record is not None and record.last_at is not None:
                terminal.line("", f"last shipped {terminal.when(record.last_at)}: {record.last}")
            continue
        assert shipment is not None
        how = f"{terminal.plural(len(shipment.shipped), 'backup')}" if len(shipment.shipped) != 1 else ""
        took = (
            (how, terminal.size(shipment.sent_bytes), f"{shipment.seconds:.1f} s")
            if shipment.shipped
            else ("nothing new",)
        )
        terminal.line("shipped", shipment.place, *filter(None, took), waiting or "")
        for reason in filter(None, (*shipment.reasons, shipment.note)):
            terminal.line("", reason)
        if each.heartbeat is not None:
            terminal.warn(f"no heartbeat: {each.heartbeat.message}", each.heartbeat.hint)


def document(served: Sequence[Served]) -> list[dict[str, object]]:
    """Return the same for scripts."""
    return [
        {
            "replica": each.replica.name,
            "url": each.replica.url,
            "shipped": [str(one) for one in each.shipment.shipped] if each.shipment else [],
            "sent_bytes": each.shipment.sent_bytes if each.shipment else 0,
            "seconds": round(each.shipment.seconds, 3) if each.shipment else 0,
            "last_shipped": str(each.record.last) if each.record and each.record.last else None,
            "waiting": each.record.waiting if each.record else None,
            "waiting_bytes": each.record.waiting_bytes if each.record else None,
            "clock_offset_ms": each.record.clock_offset_ms if each.record else None,
            "full_wanted": each.record.full_wanted if each.record else None,
            "reasons": list(each.shipment.reasons) if each.shipment else [],
            "note": each.shipment.note if each.shipment else None,
            "error": each.trouble.message if each.trouble else None,
            "next_try": each.record.next_try.isoformat() if each.record and each.record.next_try else None,
        }
        for each in served
    ]


def refuse_unshipped(served: Sequence[Served]) -> None:
    """Raise what kept a replica from being up to date: the first trouble that there was."""
    bad = [each for each in served if each.trouble is not None and not isinstance(each.trouble, AlreadyRunning)]
    if not bad:
        return
    first = bad[0]
    assert first.trouble is not None
    others = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    raise StorageError(f"not shipped to {first.replica.name}{others}: {first.trouble.message}", hint=first.trouble.hint)
