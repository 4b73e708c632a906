"""``edgedr replicate``: ship what waits, now, and say that this node lives."""

from datetime import UTC, datetime

from edgedr.cli import shipping, terminal
from edgedr.cli.parser import Arguments
from edgedr.errors import AlreadyRunning, ConfigurationError
from edgedr.log import Log
from edgedr.serving import serve
from edgedr.settings import load


def replicate(arguments: Arguments) -> int:
    """Serve the replicas; exit 5 if one of them cannot be brought up to date."""
    settings = load(arguments.config)
    names = [replica.name for replica in settings.replicas]
    if not names:
        raise ConfigurationError("there is no replica", hint=f"add [[replicas]] to {arguments.config}")
    if arguments.replica is not None and arguments.replica not in names:
        raise ConfigurationError(f"there is no replica {arguments.replica!r}", hint=f"there are {', '.join(names)}")
    log = Log(site=settings.node.site, node=settings.node.name)
    try:
        with terminal.watching(quiet=arguments.json) as watcher:
            served = serve(
                settings, lambda: datetime.now(UTC), watcher, log, only=arguments.replica, patient=arguments.patient
            )
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt("interrupted; what arrived is remembered: the next run goes on") from interrupt
    if arguments.json:
        terminal.say_json(shipping.document(served))
    else:
        shipping.show(served)
    shipping.refuse_unshipped(served)
    for each in served:
        if isinstance(each.trouble, AlreadyRunning):
            raise AlreadyRunning(f"{each.replica.name}: {each.trouble.message}", hint=each.trouble.hint)
    return 0
