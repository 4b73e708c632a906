"""The door to etcd: connections to its members, questions to them, and a snapshot streamed from one.

The client libraries are slow to import, so nothing here imports them before they are needed. Everything they raise
leaves this module as ``SourceError``. Every question has a deadline.
"""

import os
import re
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edgedr.errors import ConfigurationError, SourceError
from edgedr.node.etcd_members import KvHash, Member, Status
from edgedr.node.etcd_stream import Progress, Trailer
from edgedr.node.etcd_trouble import check_certificates, why_unreachable

ANSWER = timedelta(seconds=5)
"""How long a member may take to say how it is; one that hangs costs a survey this much, whatever their number."""

_MAX_MESSAGE = 16 << 20  # a snapshot comes in messages of 32 KiB; this bounds what a lying server can make us hold

_NOT_PERMITTED = re.compile("permission denied|user name is empty|invalid auth token")

# Fields that servers send and our older messages do not know, by number.
_STATUS_ERRORS, _STATUS_DB_SIZE_IN_USE, _STATUS_IS_LEARNER = 8, 9, 10
_MEMBER_IS_LEARNER = 5


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach etcd: URLs, the authority that signed its members' certificates, our client certificate and key.

    Without ``ca`` the system's authorities count; without ``cert`` and ``key`` no certificate is shown.
    """

    endpoints: tuple[str, ...]
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class SnapshotFacts:
    """A snapshot that was received whole: its size and SHA-256 with the trailer, and the member's status just before.

    The snapshot holds at least the status's revision; whether it holds later ones too, only its pages can tell.
    """

    size: int
    sha256: str
    status: Status


def load_stubs() -> Any:
    """Import etcd's generated messages and stubs, and return the module that has them all."""
    # The generated code is older than the fast parsers, which refuse it; and gRPC would write to stderr what we raise.
    os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from etcd3 import etcdrpc  # noqa: PLC0415 - 100 ms and 24 MB that most commands do not need
    return etcdrpc


@contextmanager
def dial(access: Access, endpoint: str) -> Iterator["Line"]:
    """Open a connection to one endpoint; whether anybody is there shows with the first question.

    Raises ``ConfigurationError`` for an endpoint that is no URL, ``SourceError`` for certificates that cannot be used.
    """
    if not is_url(endpoint):
        raise ConfigurationError(
            f"{endpoint!r} is not an etcd endpoint", hint="write it like https://127.0.0.1:2379, with the port"
        )
    check_certificates(access.ca, access.cert, access.key)
    rpc = load_stubs()
    import grpc  # noqa: PLC0415 - as late as its stubs

    options = [
        ("grpc.max_receive_message_length", _MAX_MESSAGE),
        ("grpc.enable_http_proxy", 0),  # a proxy for the way out has no business between us and our own etcd
        ("grpc.enable_retries", 0),  # trying again is decided by whoever knows the other members
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.service_config_disable_resolution", 1),
    ]
    url = urlsplit(endpoint)
    place = url.netloc.rpartition("@")[2]
    if url.scheme == "https":
        pem = [path.read_bytes() if path else None for path in (access.ca, access.key, access.cert)]
        channel = grpc.secure_channel(place, grpc.ssl_channel_credentials(*pem), options)
    else:
        channel = grpc.insecure_channel(place, options)
    with channel:
        yield Line(rpc, access, endpoint, channel)


def snapshot(
    access: Access,
    endpoint: str,
    write: Callable[[bytes], object],
    *,
    deadline: timedelta,
    min_progress: int,
    patience: timedelta,
    answer: timedelta = ANSWER,
) -> SnapshotFacts:
    """Stream a snapshot from one endpoint into ``write``, byte for byte as the server sends it, its trailer included.

    Returns once all of it came and its SHA-256 trailer holds; a few messages of 32 KiB are in memory at any time.
    Raises ``SourceError`` if it was cut, if it does not hold, if all of it took longer than ``deadline``, if nothing
    came for ``patience``, or less than ``min_progress`` bytes per second during that time. What ``write`` raises goes
    through, and its time does not count for the server's progress.
    """
    with dial(access, endpoint) as line:
        status = line.ask_status(answer)()
        trailer = Trailer()
        progress = Progress(endpoint, min_progress, patience)
        with closing(line.snapshot(trailer, deadline, progress)) as pieces:
            for piece, remaining in pieces:
                trailer.update(piece, remaining=remaining)
                if trailer.surplus:
                    break  # whatever else it sends, this is no snapshot: problem() says so
                write(piece)
        problem = trailer.problem()
        if problem:
            raise SourceError(
                f"the snapshot from {endpoint} is not whole: {problem}",
                hint="if it happens again, look at that member's disk and at the network between",
            )
        return SnapshotFacts(trailer.size, trailer.sha256, status)


class Line:
    """An open connection to one endpoint.

    A question is sent at once; the function returned waits for the answer, and raises ``SourceError`` if there is none.
    """

    def __init__(self, rpc: Any, access: Access, endpoint: str, channel: Any) -> None:
        self._rpc = rpc
        self._access = access
        self.endpoint = endpoint
        self._maintenance = rpc.MaintenanceStub(channel)
        self._cluster = rpc.ClusterStub(channel)

    def ask_status(self, within: timedelta) -> Callable[[], Status]:
        """Ask how it is."""
        wait = self._ask(self._maintenance.Status, self._rpc.StatusRequest(), within)

        def status() -> Status:
            response = wait()
            header, later = response.header, _later_fields(response)
            return Status(
                endpoint=self.endpoint,
                cluster_id=_hex(header.cluster_id),
                member_id=_hex(header.member_id),
                version=response.version,
                revision=header.revision,
                db_size=response.dbSize,
                db_size_in_use=next(iter(later.get(_STATUS_DB_SIZE_IN_USE, ())), response.dbSize),
                leader=_hex(response.leader) if response.leader else "",
                learner=any(later.get(_STATUS_IS_LEARNER, ())),
                errors=tuple(text.decode(errors="replace") for text in later.get(_STATUS_ERRORS, ())),
            )

        return status

    def ask_members(self, within: timedelta) -> Callable[[], tuple[Member, ...]]:
        """Ask who belongs to the cluster; answered by the member alone, so it needs no quorum. Sorted by name."""
        wait = self._ask(self._cluster.MemberList, self._rpc.MemberListRequest(), within)

        def members() -> tuple[Member, ...]:
            listed = (
                Member(
                    id=_hex(member.ID),
                    name=member.name,
                    peer_urls=tuple(member.peerURLs),
                    client_urls=tuple(member.clientURLs),
                    learner=any(_later_fields(member).get(_MEMBER_IS_LEARNER, ())),
                )
                for member in wait().members
            )
            return tuple(sorted(listed, key=lambda member: (member.name, member.id)))

        return members

    def ask_hash(self, revision: int, within: timedelta) -> Callable[[], KvHash]:
        """Ask for the hash over all keys up to ``revision``; 0 means whatever it is at."""
        wait = self._ask(self._maintenance.HashKV, self._rpc.HashKVRequest(revision=revision), within)

        def kv_hash() -> KvHash:
            response = wait()
            at = revision or response.header.revision
            return KvHash(self.endpoint, at, response.compact_revision, response.hash)

        return kv_hash

    def snapshot(self, received: Trailer, deadline: timedelta, progress: Progress) -> Generator[tuple[bytes, int]]:
        """Yield the pieces of a snapshot, and how many bytes the server says are still to come after each."""
        import grpc  # noqa: PLC0415 - loaded with the stubs

        call = self._maintenance.Snapshot(self._rpc.SnapshotRequest(), timeout=deadline.total_seconds())
        try:
            with progress.watching(call.cancel):
                for message in progress.timed(call, lambda message: len(message.blob)):
                    yield message.blob, message.remaining_bytes
        except grpc.RpcError as error:
            raise self._broken_off(error, received.size, progress, deadline) from error
        finally:
            call.cancel()

    def _ask(self, method: Any, request: Any, within: timedelta) -> Callable[[], Any]:
        import grpc  # noqa: PLC0415 - loaded with the stubs

        future = method.future(request, timeout=within.total_seconds())

        def wait() -> Any:
            try:
                return future.result()
            except grpc.RpcError as error:
                raise self._no_answer(error, within) from error

        return wait

    def _no_answer(self, error: Any, within: timedelta) -> SourceError:
        """Translate what gRPC says about a question that was not answered."""
        code, details = error.code().name, error.details() or ""
        if code == "UNAVAILABLE":
            certificates = (self._access.ca, self._access.cert, self._access.key)
            return why_unreachable(self.endpoint, *certificates, fallback=details)
        if code == "DEADLINE_EXCEEDED":
            return SourceError(
                f"etcd at {self.endpoint} did not answer within {within.total_seconds():g} s",
                hint="its process hangs, its disk is too slow, or a firewall drops packets",
            )
        return self._refused(code, details)

    def _broken_off(self, error: Any, received: int, progress: Progress, deadline: timedelta) -> SourceError:
        """Translate what gRPC says about a stream that ended before its end."""
        code, details = error.code().name, error.details() or ""
        if progress.silent:
            return progress.failure(received)
        if code == "DEADLINE_EXCEEDED":
            allowed = f"{deadline.total_seconds():g} s"
            return SourceError(
                f"the snapshot from {self.endpoint} was not done within {allowed}, after {received} bytes",
                hint="raise [sources.etcd] deadline if the database is that large",
            )
        if received == 0 and code not in {"UNAVAILABLE", "CANCELLED"}:
            return self._refused(code, details)
        return SourceError(
            f"the snapshot from {self.endpoint} broke off after {received} bytes: {details or code.lower()}",
            hint="look at that member's log: was it restarted?",
        )

    def _refused(self, code: str, details: str) -> SourceError:
        # Servers differ in the code that they give: some answer UNKNOWN or INVALID_ARGUMENT.
        if code in {"PERMISSION_DENIED", "UNAUTHENTICATED"} or _NOT_PERMITTED.search(details):
            return SourceError(
                f"etcd at {self.endpoint} does not permit it: {details}",
                hint="its authentication is on: the common name of edgedr's client certificate must be a user with "
                "the root role",
            )
        return SourceError(f"etcd at {self.endpoint} refused: {details or code.lower()}")


def is_url(endpoint: str) -> bool:
    """Tell whether it is a URL like ``https://127.0.0.1:2379``."""
    try:
        url = urlsplit(endpoint)
        return url.scheme in {"http", "https"} and bool(url.hostname) and url.port is not None
    except ValueError:
        return False


def _hex(number: int) -> str:
    return f"{number:016x}"


def _later_fields(message: Any) -> dict[int, list[Any]]:
    """Fields that our older messages do not know: integers and bytes by number."""
    from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-untyped]  # noqa: PLC0415

    fields: dict[int, list[Any]] = {}
    for field in UnknownFieldSet(message):
        fields.setdefault(field.field_number, []).append(field.data)
    return fields
