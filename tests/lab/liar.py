"""A gRPC server that says it is etcd, and lies: for what a real etcd cannot be brought to do."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from edgedr.node.etcd import load_stubs

PIECE = 32 << 10
"""How much real servers send at once."""


def whole(content: bytes) -> Iterator[tuple[bytes, int]]:
    """Stream a snapshot as etcd does: pieces and what remains, then the SHA-256."""
    yield from pieces(content)
    yield hashlib.sha256(content).digest(), 0


def pieces(content: bytes) -> Iterator[tuple[bytes, int]]:
    """Stream a snapshot as etcd does, without the trailer."""
    for at in range(0, len(content), PIECE):
        piece = content[at : at + PIECE]
        yield piece, len(content) - at - len(piece)


@dataclass
class Liar:
    """What it says. ``snapshot`` gives the stream's pieces, each with how many bytes are said to remain after it.

    A stream that gives ``None`` is silent from there on, until its client goes away.
    """

    snapshot: Callable[[], Iterator[tuple[bytes, int] | None]] = lambda: whole(b"page" * 1024)
    member_id: int = 1
    cluster_id: int = 0xC1
    leader: int = 1
    revision: int = 100
    hash: int = 0xAAAA
    compact_revision: int = 10
    alarms: tuple[tuple[str, int], ...] = ()
    learner: bool = False
    errors: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        import grpc  # noqa: PLC0415 - loaded with the stubs

        rpc = load_stubs()
        self._server = grpc.server(ThreadPoolExecutor(8))
        rpc.add_MaintenanceServicer_to_server(_maintenance(rpc, self), self._server)
        rpc.add_ClusterServicer_to_server(rpc.ClusterServicer(), self._server)  # UNIMPLEMENTED, all of it
        self.url = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._server.stop(0).wait()


def _maintenance(rpc: Any, liar: Liar) -> Any:
    import grpc  # noqa: PLC0415 - loaded with the stubs

    def header() -> Any:
        return rpc.ResponseHeader(
            cluster_id=liar.cluster_id, member_id=liar.member_id, revision=liar.revision, raft_term=2
        )

    class Maintenance(rpc.MaintenanceServicer):  # type: ignore[misc]
        def Status(self, request: Any, context: Any) -> Any:  # noqa: N802
            known = rpc.StatusResponse(header=header(), version="3.5.99", dbSize=4096, leader=liar.leader, raftTerm=2)
            raised = [f"memberID:{who} alarm:{kind} " for kind, who in liar.alarms]
            later = b"".join(b"\x42" + bytes([len(error)]) + error.encode() for error in (*liar.errors, *raised))
            later += b"\x50\x01" if liar.learner else b""
            return rpc.StatusResponse.FromString(known.SerializeToString() + later)

        def HashKV(self, request: Any, context: Any) -> Any:  # noqa: N802
            if request.revision and request.revision <= liar.compact_revision:
                context.abort(grpc.StatusCode.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")
            return rpc.HashKVResponse(header=header(), hash=liar.hash, compact_revision=liar.compact_revision)

        def Snapshot(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
            gone = threading.Event()
            context.add_callback(gone.set)
            for said in liar.snapshot():
                if said is None:
                    gone.wait()
                    return
                yield rpc.SnapshotResponse(blob=said[0], remaining_bytes=said[1])

    return Maintenance()
