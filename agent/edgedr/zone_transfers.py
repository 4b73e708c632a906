"""Zones as they are asked for: ``[[sources.dns.transfers]]``, what can be wrong with it, and asking."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from edgedr.credentials import Credential
from edgedr.decoding import shown, unknown
from edgedr.errors import ConfigurationError, SourceError
from edgedr.kubernetes_yaml import one_line
from edgedr.node.nameservers import ALGORITHMS, Nameserver, TransferError, TransferKey, transfer
from edgedr.node.zonefile import Zone, zone_name

_MAX_DEADLINE = timedelta(hours=1)
_MAX_STALLS = 2  # zones that a server may begin to send and not end: one may be odd, two are the server's fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """``[[sources.dns.transfers]]``: zones that one nameserver hands out."""

    server: str
    """Whom to ask: ``host``, ``host:port`` or ``[v6]:port``."""

    zones: tuple[str, ...]
    """Which zones. One that several transfers name is taken from the first of them that gives it."""

    key: str | None = None
    """Name of the TSIG key, as the server knows it; without one, the server must know this node by its address."""

    algorithm: str = "hmac-sha256"
    """What the key signs with."""

    secret: str | None = None
    """Where the key's secret is kept, in base64: ``file:/path``, ``env:NAME`` or ``credential:NAME``."""

    deadline: timedelta = timedelta(seconds=30)
    """How long the server may take for one zone."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one zone: it, and who gave it; or ``None``. ``reasons`` are why servers before that did not."""

    name: str
    zone: Zone | None
    server: str
    reasons: tuple[str, ...]


def ask_for_zones(transfers: Iterable[Transfer], most: int) -> Iterator[Answer]:
    """Ask for each zone, of at most ``most`` records, until a server gives it; in the order of the transfers."""
    wanted: dict[str, list[_Server]] = {}
    for settings in transfers:
        server = _Server(settings)
        for zone in settings.zones:
            wanted.setdefault(_named(zone), []).append(server)
    for name, servers in wanted.items():
        yield _first_answer(name, servers, most)


def transfer_problems(transfers: Iterable[Transfer]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with transfers: where, and what. What could be a secret is not shown."""
    for number, each in enumerate(transfers, 1):
        for setting, text in (
            *_server_problems(each),
            *_zones_problems(each.zones),
            *_key_problems(each),
        ):
            yield f"[sources.dns] transfers #{number} {setting}", text


@dataclass(slots=True)
class _Server:
    """A nameserver and what it was found to be.

    ``silent`` is the zone to which it did not answer at all, ``stalled`` are those that it was sending for too long.
    """

    settings: Transfer
    silent: str | None = None
    stalled: list[str] = field(default_factory=list)

    def ask(self, zone: str, most: int) -> Zone:
        """Ask for a zone. Raises ``SourceError``."""
        where = f"zone {zone} was not asked for at {self.settings.server}"
        if self.silent is not None:  # with a deadline for each of its zones, a dead server would hold us for hours
            raise SourceError(f"{where}: no answer for {self.silent} either")
        if len(self.stalled) >= _MAX_STALLS:
            raise SourceError(f"{where}: it did not come to an end with {' and '.join(self.stalled)} either")
        try:
            server, key = Nameserver.parse(self.settings.server), self._key()
        except (ValueError, ConfigurationError) as error:
            raise SourceError(f"{where}: {error}") from error
        try:
            return transfer(server, zone, key, within=self.settings.deadline, most=most)
        except TransferError as error:
            self.silent = zone if error.silent else None
            self.stalled += [zone] if error.stalled else []
            raise

    def _key(self) -> TransferKey | None:
        """Read the key at the last moment, so that it is in memory while it is needed."""
        name, secret = self.settings.key, self.settings.secret
        if name is None and secret is None:
            return None
        if name is None or secret is None:
            raise ValueError("of key and secret, one is missing")
        return TransferKey(name, self.settings.algorithm, Credential.parse(secret).read())


def _first_answer(zone: str, servers: Iterable[_Server], most: int) -> Answer:
    reasons: list[str] = []
    for server in servers:
        try:
            return Answer(zone, server.ask(zone, most), server.settings.server, tuple(reasons))
        except SourceError as error:
            reasons.append(one_line(error.message))
    return Answer(zone, None, "", tuple(reasons))


def _named(zone: str) -> str:
    """Return a zone's name as it is kept; one that cannot be a name as it is: it will be found lacking."""
    try:
        return zone_name(zone)
    except ValueError:
        return zone


def _server_problems(each: Transfer) -> Iterator[tuple[str, str]]:
    try:
        Nameserver.parse(each.server)
    except ValueError:
        said = "it" if "@" in each.server else shown(each.server)  # a password may stand before an @
        yield "server", f"{said} is not host, host:port or [v6]:port"
    if each.deadline > _MAX_DEADLINE:
        yield "deadline", "it is longer than 1 h"


def _zones_problems(zones: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    if not zones:
        yield "zones", "there is none"
    seen = set()
    for zone in zones:
        try:
            name = zone_name(zone)
        except ValueError:
            yield "zones", f"{shown(zone)} is not a name that DNS can have"
            continue
        if name in seen:
            yield "zones", f"{shown(zone)} is there twice"
        seen.add(name)


def _key_problems(each: Transfer) -> Iterator[tuple[str, str]]:
    if each.algorithm not in ALGORITHMS:
        yield "algorithm", f"{shown(each.algorithm)} is {unknown(each.algorithm, dict.fromkeys(ALGORITHMS))}"
    if each.key is not None:
        try:
            zone_name(each.key)
        except ValueError:
            yield "key", "it is not a name that DNS can have"  # not shown: it may be the secret, in the wrong place
        if each.secret is None:
            yield "secret", "it is missing: key is set, and they belong together"
    if each.secret is not None:
        if each.key is None:
            yield "key", "it is missing: secret is set, and they belong together"
        try:
            Credential.parse(each.secret)
        except ConfigurationError as error:
            yield "secret", f"{error.message}: {error.hint}"
