"""The life of a small site's control plane, written into a real etcd as fast as it takes it.

``site = Site(etcd)``, ``site.fill(megabytes=28)``, ``site.churn(minutes=60)``. The same seed and the same calls
write the same keys and values in the same order. Time is simulated: it moves only in ``churn``.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import Protocol

from tests.lab import objects

START = 1_793_491_200  # 2026-11-01 00:00 UTC
TICK = 2  # seconds: how often a leader renews its lease
EVENT_TTL = 3600
COMPACTION = 300  # as kube-apiserver does by default
COMPACT_KEY = b"compact_rev_key"
_EVENTS_PER_MINUTE = 8.0
_LEADERS = ("kube-controller-manager", "kube-scheduler", "operator-a", "operator-b")
_CHUNK = 400  # keys that are on their way at once while filling


class Etcd(Protocol):
    """What a site is written through; ``tests.lab.etcd.EtcdCluster`` is one."""

    def fill(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Write keys, each in a revision of its own."""

    def delete(self, key: bytes) -> None:
        """Delete a key."""

    def compact(self, revision: int) -> None:
        """Compact up to a revision."""

    def revision(self) -> int:
        """Return the current revision."""


class Site:
    """One cluster of three nodes and about four pods for each megabyte. ``now`` is the simulated time in seconds."""

    def __init__(self, etcd: Etcd, *, seed: int = 1, nodes: int = 3) -> None:
        self.now = START
        self.etcd = etcd
        self.seed = seed
        self.nodes = [f"/registry/minions/node-{number}" for number in range(nodes)]
        self.pods: dict[str, int] = {}
        self.events: deque[tuple[int, str]] = deque()
        self._rng = Random(f"{seed}:life")
        self._created: dict[str, list[str]] = {kind: [] for kind in _EDITED}
        self._marks: deque[int] = deque()

    def fill(self, megabytes: float) -> None:
        """Write a site whose database is about ``megabytes`` (10^6 bytes) large, an hour of events included."""
        left = megabytes * 1e6 * 0.77  # etcd's pages, index keys and copies on write take the rest
        chunk: list[tuple[bytes, bytes]] = []
        for key, value in self._everything():
            chunk.append((key.encode(), value))
            left -= len(key) + len(value)
            if len(chunk) == _CHUNK:
                self.etcd.fill(chunk)
                chunk = []
            if left < 0:
                break
        self.etcd.fill(chunk)
        self._marks.append(self.etcd.revision())

    def churn(self, minutes: float, *, rate: float = 1.0) -> None:
        """Live for ``minutes``. ``rate`` is how busy the site is, leases and heartbeats apart, which go on as ever."""
        for _ in range(round(minutes * 60 / TICK)):
            self.now += TICK
            self.etcd.fill((key.encode(), value) for key, value in {**dict(self._beat()), **self._work(rate)}.items())
            while self.events and self.events[0][0] <= self.now - EVENT_TTL:
                self.etcd.delete(self.events.popleft()[1].encode())
            if self.now % COMPACTION == 0:
                self._compact()

    def _everything(self) -> Iterator[tuple[str, bytes]]:
        """Make the objects of a site that has been up for a while: the cluster's, then one namespace after another."""
        yield from self._beat(everyone=True)
        for second in range(START - EVENT_TTL, START, round(60 / _EVENTS_PER_MINUTE)):
            yield from self._event(f"/registry/events/kube-system/job-{second % 97:02d}-{second % 13:05d}", second)
        number = 0
        while True:
            yield from self._namespace(f"team-{number:02d}")
            number += 1

    def _namespace(self, name: str) -> Iterator[tuple[str, bytes]]:
        root = "/registry"
        for number in range(60):
            born = START - 86_400 - 60 * number
            yield self._new(f"{root}/configmaps/{name}/settings-{number:02d}", born)
            yield self._new(f"{root}/example.org/widgets/{name}/widget-{number:02d}", born)
            key = f"{root}/secrets/{name}/credentials-{number:02d}"
            if number % 2:
                yield key, objects.secret(self.seed, key, born)
            if number % 15 == 0:
                yield self._new(f"{root}/deployments/{name}/app-{number:02d}", born)
                yield self._new(f"{root}/services/specs/{name}/app-{number:02d}", born)
                yield self._new(f"{root}/endpointslices/{name}/app-{number:02d}", born)
                yield self._pod(f"{root}/pods/{name}/app-{number:02d}-{self._suffix()}", born)
                key = f"{root}/serviceaccounts/{name}/account-{number:02d}"
                yield key, objects.service_account(self.seed, key, born)
            if number % 3:  # each deployment keeps ten old ones
                key = f"{root}/replicasets/{name}/app-{number // 15 * 15:02d}-{number:010x}"
                yield key, objects.workload(self.seed, key, born, kind="ReplicaSet", created=born)

    def _beat(self, *, everyone: bool = False) -> Iterator[tuple[str, bytes]]:
        """Renew what is renewed: leaders every 2 s, kubelets and API servers every 10 s, node status every 5 min."""
        for name in _LEADERS:
            key = f"/registry/leases/kube-system/{name}"
            yield key, objects.lease(self.seed, key, self.now, seconds=15, created=START - 86_400)
        for number, node in enumerate(self.nodes):
            if everyone or (self.now + 4 * number) % 10 < TICK:
                key = f"/registry/leases/kube-node-lease/{node.rsplit('/', 1)[1]}"
                yield key, objects.lease(self.seed, key, self.now, seconds=40, created=START - 86_400)
            if everyone or (self.now + 94 * number) % 300 < TICK:
                yield node, objects.node(self.seed, node, self.now, created=START - 86_400)
        if everyone or self.now % 10 < TICK:
            key = "/registry/leases/kube-system/apiserver-0"
            yield key, objects.lease(self.seed, key, self.now, seconds=3600, created=START - 86_400)
            key = "/registry/masterleases/10.77.0.11"
            yield key, objects.endpoint_slice(self.seed, key, self.now, created=START - 86_400)

    def _work(self, rate: float) -> dict[str, bytes]:
        """Do what happens to fall due in this tick; no key is written twice in it."""
        done: dict[str, bytes] = {}
        for _ in range(self._due(_EVENTS_PER_MINUTE * rate)):
            done |= dict(self._event(self._rng.choice(sorted(self.pods)).replace("/pods/", "/events/"), self.now))
        for _ in range(self._due(3 * rate)):
            _, key = self._rng.choice(self.events)
            done[key] = objects.event(self.seed, key, self.now, count=self._rng.randrange(2, 200))
        for kind, (per_minute, _) in _EDITED.items():
            for _ in range(self._due(per_minute * rate) if self._created[kind] else 0):
                key = self._rng.choice(self._created[kind])
                done[key] = self._edited(key)
        for _ in range(self._due(2 * rate)):
            key = self._rng.choice(sorted(self.pods))
            done[key] = objects.pod(self.seed, key, self.now, created=self.pods[key])
        for _ in range(self._due(0.3 * rate)):
            done |= self._replace_pod()
        return done

    def _replace_pod(self) -> dict[str, bytes]:
        """Replace a pod by another one, as a rollout, a job or an eviction does, with the events that go with it."""
        old = self._rng.choice(sorted(self.pods))
        del self.pods[old]
        self.etcd.delete(old.encode())
        stem = old.rsplit("-", 1)[0]
        done = dict([self._pod(f"{stem}-{self._suffix()}", self.now)])
        for _ in range(5):
            done |= dict(self._event(stem.replace("/pods/", "/events/") + "-" + self._suffix(), self.now))
        slices = stem.replace("/pods/", "/endpointslices/")
        if slices in self._created["endpointslices"]:
            done[slices] = self._edited(slices)
        return done

    def _event(self, about: str, when: int) -> Iterator[tuple[str, bytes]]:
        key = f"{about}.{when * 10**9 + self._rng.randrange(10**9):x}"
        self.events.append((when, key))
        yield key, objects.event(self.seed, key, when)

    def _pod(self, key: str, when: int) -> tuple[str, bytes]:
        self.pods[key] = when
        return key, objects.pod(self.seed, key, when, created=when)

    def _new(self, key: str, when: int) -> tuple[str, bytes]:
        kind = _kind(key)
        if kind in self._created:
            self._created[kind].append(key)
        return key, _EDITED[kind][1](self.seed, key, when, when)

    def _edited(self, key: str) -> bytes:
        return _EDITED[_kind(key)][1](self.seed, key, self.now, START - 86_400)

    def _due(self, per_minute: float) -> int:
        """Say how many of something that happens so often happen in this tick."""
        expected = per_minute * TICK / 60
        return int(expected) + (self._rng.random() < expected % 1)

    def _suffix(self) -> str:
        return "".join(self._rng.choices("bcdfghjklmnpqrstvwxz2456789", k=5))

    def _compact(self) -> None:
        """Compact to where the site was five minutes ago, and note it where API servers do."""
        self._marks.append(self.etcd.revision())
        if len(self._marks) > 1:
            revision = self._marks.popleft()
            self.etcd.fill([(COMPACT_KEY, str(revision).encode())])
            self.etcd.compact(revision)


def _kind(key: str) -> str:
    parts = key.split("/")
    return parts[3] if "." in parts[2] or parts[2] == "services" else parts[2]


_Make = Callable[[int, str, int, int], bytes]


def _deployment(seed: int, key: str, now: int, created: int) -> bytes:
    return objects.workload(seed, key, now, kind="Deployment", created=created)


_EDITED: dict[str, tuple[float, _Make]] = {
    "configmaps": (0.2, lambda seed, key, now, created: objects.config_map(seed, key, now, created=created)),
    "deployments": (0.3, _deployment),
    "endpointslices": (0.1, lambda seed, key, now, created: objects.endpoint_slice(seed, key, now, created=created)),
    "specs": (0.02, lambda seed, key, now, created: objects.endpoint_slice(seed, key, now, created=created)),
    "widgets": (4.0, lambda seed, key, now, created: objects.custom(seed, key, now, created=created)),
}
"""What is edited while a site lives: how often in a minute, and how it looks afterwards."""
