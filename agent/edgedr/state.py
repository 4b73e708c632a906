"""What a node remembers between runs: lineage, last sequence, which machine it is, and the lock.

All of it can be lost: the repository's newest manifest then says what is needed. A torn or changed record is known by
its hash and ignored.
"""

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from edgedr import durable, strictjson
from edgedr.errors import ConfigurationError, Damaged, StorageError
from edgedr.locations import PARENT
from edgedr.model import SCHEMA, Manifest
from edgedr.repository.ledger import ReplicaRecord
from edgedr.sealing.signatures import Signer

T = TypeVar("T")

_MAX_STATE = 4 << 20  # bytes; the ids of 100,000 damaged backups fit


@dataclass(frozen=True, slots=True)
class State:
    """One node's memory.

    ``machine`` is a hash of the machine's id. ``proven`` are the recipients that somebody answered for: of one that was
    configured later, or whose proof was lost with this record, nobody knows whether it opens anything.
    """

    schema: int
    lineage: str
    sequence: int
    machine: str | None
    proven: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()


def new_lineage() -> str:
    """Make the random id of a line of backups: at ``init``, after a restore, on another machine."""
    return secrets.token_hex(8)


class StateDirectory:
    """``/var/lib/edgedr``: 0700, on a local disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def signing_key(self) -> Path:
        """The node's Ed25519 key, 0600; its public half is beside it."""
        return self.path / "signing.key"

    @property
    def cache(self) -> Path:
        """Where the plaintext of the newest backup is."""
        return self.path / PARENT

    @property
    def verifying_key(self) -> Path:
        """The public half of the signing key."""
        return self.path / "signing.key.pub"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock that the kernel frees with the process; ``AlreadyRunning`` if another has it.

        What a killed holder left half written is swept first: it may be half a key.
        """
        durable.make_directory(self.path)
        with durable.locked(self.path / "lock"):
            for path in (self._record, self.signing_key, self.verifying_key):
                durable.sweep(path)
            yield

    @property
    def _record(self) -> Path:
        return self.path / "state.json"

    def load(self) -> State | None:
        """Return what was remembered; ``None`` if nothing was, or the record is torn or changed."""
        return _load(self._record, State)

    def save(self, state: State) -> None:
        """Remember ``state``, in one step."""
        durable.make_directory(self.path)
        _save(self._record, state)

    def replica(self, name: str) -> "ReplicaMemory":
        """Return where it is remembered what one replica got."""
        return ReplicaMemory(self.path / "replicas" / f"{name}.json")

    def signer(self) -> Signer:
        """Load the node's signing key. Raises ``ConfigurationError`` if ``init`` never made one."""
        try:
            with durable.open_for_reading(self.signing_key) as file:
                return Signer.load(file.read(_MAX_STATE), str(self.signing_key))
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"there is no signing key {self.signing_key}", hint="run `edgedr init` first"
            ) from error
        except OSError as error:
            raise durable.storage_error(error, "read", self.signing_key) from error


class ReplicaMemory:
    """What one replica got, and the lock of who serves it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock on serving this replica; ``AlreadyRunning`` if another has it."""
        durable.make_directory(self._path.parent)
        with durable.locked(self._path.with_suffix(".lock")):
            durable.sweep(self._path)
            yield

    def load(self) -> ReplicaRecord | None:
        """Return what was remembered; ``None`` if nothing was, or the record is torn or changed."""
        return _load(self._path, ReplicaRecord)

    def save(self, record: ReplicaRecord) -> None:
        """Remember, in one step."""
        _save(self._path, record)


def _load(path: Path, kind: type[T]) -> T | None:
    try:
        with durable.open_for_reading(path) as file:
            data = file.read(_MAX_STATE + 1)
    except (OSError, StorageError):
        return None
    digest, _, record = data.partition(b"\n")
    if hashlib.sha256(record).hexdigest().encode() != digest:
        return None
    try:
        return strictjson.decode(kind, record, what="the state", max_bytes=_MAX_STATE)
    except Damaged:
        return None


def _save(path: Path, value: object) -> None:
    record = strictjson.encode(value)
    durable.replace(path, hashlib.sha256(record).hexdigest().encode() + b"\n" + record)


def machine_mark(machine_id: str | None) -> str | None:
    """Return a short hash of ``/etc/machine-id``, which should not travel itself."""
    return hashlib.sha256(b"edgedr " + machine_id.strip().encode()).hexdigest()[:16] if machine_id else None


def next_state(
    remembered: State | None, newest: Manifest | None, highest: int, machine: str | None, *, shipped: int = 0
) -> tuple[State, str | None]:
    """Decide lineage and sequence of the next backup, and say if something about them is odd. Pure but for new ids.

    ``newest`` is the newest manifest that can be read, ``highest`` the highest sequence in the repository, readable or
    not, ``shipped`` the highest that any replica was given, 0 for none. What was remembered and what is there are put
    together: the higher sequence counts.
    """
    sequence = max(remembered.sequence if remembered else 0, highest, shipped) + 1
    if remembered is None:
        lineage = newest.lineage if newest else new_lineage()
        return State(SCHEMA, lineage, sequence, machine), None
    state = replace(remembered, sequence=sequence, machine=machine)
    if newest is not None and newest.sequence > remembered.sequence:  # committed, and killed before it was noted
        state = replace(state, lineage=newest.lineage)
    if remembered.machine and machine and remembered.machine != machine:
        moved = "this state directory was made on another machine: a new lineage begins"
        return replace(state, lineage=new_lineage()), moved
    if remembered.sequence and not highest:
        return state, f"the repository is empty, though {remembered.sequence} backups were made: is its disk mounted?"
    return state, None
