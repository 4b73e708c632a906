"""A real etcd: one member or several, version 3.4 (Debian) or 3.5 (PyPI), over TLS with client certificates, or plain.

``with EtcdCluster(directory) as etcd: etcd.put("/a", b"1")`` runs one. Its certificates and static pod manifests lie
below ``etcd.root`` as kubeadm would have put them, so ``root`` can serve as a node's root.
"""

import http.client
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import pytest

from tests.lab.pki import write_kubeadm_pki
from tests.lab.tools import pypi_etcd

Version = Literal["3.4", "3.5"]
_START_SECONDS = 60


def etcd_program(version: Version, program: str) -> str:
    """Return the path of ``etcd``, ``etcdctl`` or ``etcdutl`` (3.5 only) of that version."""
    if version == "3.5":
        return pypi_etcd(program)
    # Not the PATH: a virtual environment puts the wrappers of the other version there, under the same names.
    found = shutil.which(program, path="/usr/bin:/usr/local/bin:/usr/sbin:/bin")
    if found and "ersion: 3.4." in _output([found, "version" if program == "etcdctl" else "--version"]):
        return found
    message = f"{program} 3.4 is missing: apt-get install {'etcd-client' if program == 'etcdctl' else 'etcd-server'}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def free_port() -> int:
    """Find a port that nobody listens on, outside the range that outgoing connections are given."""
    chooser = random.SystemRandom()
    while True:
        port = chooser.randrange(12000, 32000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class EtcdMember:
    """One member: its process, its URLs, its data directory."""

    def __init__(self, cluster: "EtcdCluster", name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.client_url = f"{cluster.scheme}://127.0.0.1:{free_port()}"
        self.peer_url = f"{cluster.scheme}://127.0.0.1:{free_port()}"
        self.advertised_url = self.client_url
        self.data = cluster.directory / f"{name}.etcd"
        self.log = cluster.directory / f"{name}.log"
        self.extra_flags: tuple[str, ...] = ()
        self._process: subprocess.Popen[bytes] | None = None

    def flags(self) -> list[str]:
        """Return the command line without the program, with the real paths of this machine."""
        flags = [
            f"--name={self.name}",
            f"--data-dir={self.data}",
            f"--listen-client-urls={self.client_url}",
            f"--advertise-client-urls={self.advertised_url}",
            f"--listen-peer-urls={self.peer_url}",
            f"--initial-advertise-peer-urls={self.peer_url}",
            f"--initial-cluster={self.cluster.initial_cluster}",
            "--initial-cluster-token=lab",
            "--heartbeat-interval=100",
            # A busy machine alone must not change the leader; but one that is alone waits this long at each start.
            f"--election-timeout={2000 if len(self.cluster.members) > 1 else 1000}",
            "--pre-vote",  # nor a member that comes back; version 3.4 does not have this by default
            "--logger=zap",
            *self.extra_flags,
        ]
        if self.cluster.tls:
            pki = self.cluster.pki / "etcd"
            flags += [
                "--client-cert-auth",
                f"--trusted-ca-file={pki}/ca.crt",
                f"--cert-file={pki}/server.crt",
                f"--key-file={pki}/server.key",
                "--peer-client-cert-auth",
                f"--peer-trusted-ca-file={pki}/ca.crt",
                f"--peer-cert-file={pki}/peer.crt",
                f"--peer-key-file={pki}/peer.key",
            ]
        return flags

    def start(self) -> None:
        """Start the process; ``EtcdCluster.wait`` tells when it serves."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [etcd_program(self.cluster.version, "etcd"), *self.flags()], stdout=log, stderr=log
            )

    def wait(self) -> None:
        """Wait until this member says that it is healthy, which includes that its cluster has a leader."""
        for _ in range(_START_SECONDS * 20):
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"etcd {self.name} ended:\n{self.log.read_text()[-4000:]}")
            with suppress(OSError, http.client.HTTPException):
                if self._health() == http.HTTPStatus.OK:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"etcd {self.name} is not ready:\n{self.log.read_text()[-4000:]}")

    def stop(self) -> None:
        """End it as systemd would, and wait for it."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as the kernel would when memory is short.

        A member of 3.5.1 that dies like that while it writes may lack a revision for ever after (etcd issue 13766):
        what is to be well again afterwards must be 3.4.
        """
        self._end(signal.SIGKILL)

    @property
    def running(self) -> bool:
        """Whether its process is there, frozen or not."""
        return self._process is not None and self._process.poll() is None

    def pause(self) -> None:
        """Freeze it: connections stay open, nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen one go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def restore(self, snapshot: Path) -> None:
        """Make the data directory from a snapshot, with the tool of this version; the directory must not exist."""
        version = self.cluster.version
        tool = etcd_program(version, "etcdctl" if version == "3.4" else "etcdutl")
        _output(
            [
                *(tool, "snapshot", "restore", str(snapshot)),
                f"--name={self.name}",
                f"--data-dir={self.data}",
                f"--initial-cluster={self.cluster.initial_cluster}",
                "--initial-cluster-token=lab",
                f"--initial-advertise-peer-urls={self.peer_url}",
            ]
        )

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _health(self) -> int:
        place = urlsplit(self.client_url)
        assert place.hostname is not None
        connection: http.client.HTTPConnection
        if self.cluster.tls:
            context = ssl.create_default_context(cafile=str(self.cluster.ca))
            context.load_cert_chain(self.cluster.cert, self.cluster.key)
            connection = http.client.HTTPSConnection(place.hostname, place.port, timeout=2, context=context)
        else:
            connection = http.client.HTTPConnection(place.hostname, place.port, timeout=2)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status
        finally:
            connection.close()


class EtcdCluster:
    """A cluster of ``size`` members that lives as long as its ``with`` block, in ``directory``."""

    def __init__(self, directory: Path, *, size: int = 1, version: Version = "3.5", tls: bool = True) -> None:
        self.directory = directory
        self.version: Version = version
        self.tls = tls
        self.root = directory / "root"
        self.pki = write_kubeadm_pki(self.root)
        self.members = [EtcdMember(self, f"cp-{number}") for number in range(1, size + 1)]
        self._channel: Any = None

    def __enter__(self) -> Self:
        self.write_manifests()
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def scheme(self) -> str:
        return "https" if self.tls else "http"

    @property
    def ca(self) -> Path:
        """The authority that signed the servers."""
        return self.pki / "etcd/ca.crt"

    @property
    def cert(self) -> Path:
        """A client certificate that the servers accept."""
        return self.pki / "apiserver-etcd-client.crt"

    @property
    def key(self) -> Path:
        return self.pki / "apiserver-etcd-client.key"

    @property
    def endpoints(self) -> tuple[str, ...]:
        return tuple(member.client_url for member in self.members)

    @property
    def initial_cluster(self) -> str:
        return ",".join(f"{member.name}={member.peer_url}" for member in self.members)

    def start(self) -> None:
        """Start all members and wait until each is healthy."""
        for member in self.members:
            member.start()
        for member in self.members:
            member.wait()

    def wait_until_level(self) -> None:
        """Wait until all members, which must be running, follow one leader and have applied the same revision."""
        rpc = _etcdrpc()
        seen: list[tuple[int, int]] = []
        for _ in range(_START_SECONDS * 10):
            stubs = [rpc.MaintenanceStub(self._connect(number)) for number in range(len(self.members))]
            statuses = [stub.Status(rpc.StatusRequest(), timeout=30) for stub in stubs]
            seen = [(status.leader, status.header.revision) for status in statuses]
            if len(set(seen)) == 1 and seen[0][0]:
                return
            time.sleep(0.1)
        raise RuntimeError(f"the members of {self.directory} do not get level: leader and revision are {seen}")

    def stop(self) -> None:
        """Stop all members; each may be in any state."""
        self.disconnect()
        for member in self.members:
            member.kill() if len(self.members) > 1 else member.stop()

    def put(self, key: str | bytes, value: bytes) -> None:
        """Write one key."""
        self.fill([(key.encode() if isinstance(key, str) else key, value)])

    def fill(self, pairs: Iterable[tuple[bytes, bytes]], *, through: int = 0) -> None:
        """Write keys through one member, many at a time."""
        rpc = _etcdrpc()
        stub = rpc.KVStub(self._connect(through))
        pending: list[Any] = []
        for key, value in pairs:
            pending.append(stub.Put.future(rpc.PutRequest(key=key, value=value)))
            if len(pending) >= 256:
                pending.pop(0).result(timeout=30)
        for future in pending:
            future.result(timeout=30)

    def delete(self, key: bytes, range_end: bytes = b"") -> None:
        """Delete a key, or all keys from ``key`` up to ``range_end``."""
        rpc = _etcdrpc()
        request = rpc.DeleteRangeRequest(key=key, range_end=range_end)
        rpc.KVStub(self._connect(0)).DeleteRange(request, timeout=30)

    def compact(self, revision: int) -> None:
        """Compact up to ``revision``, and wait until it has been done."""
        rpc = _etcdrpc()
        request = rpc.CompactionRequest(revision=revision, physical=True)
        rpc.KVStub(self._connect(0)).Compact(request, timeout=60)

    def revision(self, through: int = 0) -> int:
        """Return the current revision as that member sees it."""
        rpc = _etcdrpc()
        response = rpc.MaintenanceStub(self._connect(through)).Status(rpc.StatusRequest(), timeout=30)
        return int(response.header.revision)

    def wait_for_answer(self, member: EtcdMember) -> None:
        """Wait until a member answers, healthy or not."""
        for _ in range(_START_SECONDS * 20):
            with suppress(Exception):
                self.revision(self.members.index(member))
                return
            time.sleep(0.05)
        raise RuntimeError(f"etcd {member.name} does not answer:\n{member.log.read_text()[-4000:]}")

    def items(self, through: int = 0) -> dict[bytes, bytes]:
        """Read every key and value."""
        rpc = _etcdrpc()
        stub = rpc.KVStub(self._connect(through))
        found: dict[bytes, bytes] = {}
        start = b"\0"
        while True:
            response = stub.Range(rpc.RangeRequest(key=start, range_end=b"\0", limit=2000), timeout=60)
            found.update((pair.key, pair.value) for pair in response.kvs)
            if not response.more:
                return found
            start = response.kvs[-1].key + b"\0"

    def leader(self) -> EtcdMember:
        """Return the member that leads, as the first one that answers sees it."""
        rpc = _etcdrpc()
        for number in range(len(self.members)):
            with suppress(Exception):
                stub = rpc.MaintenanceStub(self._connect(number))
                status = stub.Status(rpc.StatusRequest(), timeout=5)
                members = rpc.ClusterStub(self._connect(number)).MemberList(rpc.MemberListRequest(), timeout=5).members
                name = next(member.name for member in members if status.leader == member.ID)
                return next(member for member in self.members if member.name == name)
        raise RuntimeError("no member answers")

    def etcdctl(self, *arguments: str) -> str:
        """Run ``etcdctl`` of this version against all endpoints; return its output."""
        command = [etcd_program(self.version, "etcdctl"), f"--endpoints={','.join(self.endpoints)}", *arguments]
        if self.tls:
            command += [f"--cacert={self.ca}", f"--cert={self.cert}", f"--key={self.key}"]
        return _output(command)

    def snapshot_status(self, snapshot: Path) -> str:
        """Return what the stock tool of this version says about a snapshot, as JSON; it fails on a damaged one."""
        tool = etcd_program(self.version, "etcdctl" if self.version == "3.4" else "etcdutl")
        return _output([tool, "snapshot", "status", str(snapshot), "--write-out=json"])

    def write_manifests(self, *, node: int = 0, stacked: bool = True) -> None:
        """Write the static pod manifests of one node below ``root``; without etcd's if not ``stacked``."""
        manifests = self.root / "etc/kubernetes/manifests"
        manifests.mkdir(parents=True, exist_ok=True)
        flags = [flag.replace(str(self.root), "") for flag in self.members[node].flags()]
        (manifests / "etcd.yaml").unlink(missing_ok=True)
        if stacked:
            (manifests / "etcd.yaml").write_text(_pod("etcd", ["etcd", *flags], "etcd:3.5.1-0"))
        urls = self.endpoints[node] if stacked else ",".join(self.endpoints)
        flags = ["kube-apiserver", "--advertise-address=127.0.0.1", f"--etcd-servers={urls}"]
        if self.tls:
            flags += [
                "--etcd-cafile=/etc/kubernetes/pki/etcd/ca.crt",
                "--etcd-certfile=/etc/kubernetes/pki/apiserver-etcd-client.crt",
                "--etcd-keyfile=/etc/kubernetes/pki/apiserver-etcd-client.key",
            ]
        (manifests / "kube-apiserver.yaml").write_text(_pod("kube-apiserver", flags, "kube-apiserver:v1.32.0"))

    def disconnect(self) -> None:
        """Close the connection that ``put`` and its like use."""
        for channel in (self._channel or {}).values():
            channel.close()
        self._channel = None

    def _connect(self, number: int) -> Any:
        if self._channel is None:
            self._channel = {}
        if number not in self._channel:
            import grpc  # noqa: PLC0415 - slow to import, and few tests need it

            place = urlsplit(self.members[number].client_url).netloc
            limits = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
            if self.tls:
                secrets = (self.ca.read_bytes(), self.key.read_bytes(), self.cert.read_bytes())
                self._channel[number] = grpc.secure_channel(place, grpc.ssl_channel_credentials(*secrets), limits)
            else:
                self._channel[number] = grpc.insecure_channel(place, limits)
        return self._channel[number]


def _pod(name: str, command: list[str], image: str) -> str:
    lines = "\n".join(f"    - {part}" for part in command)
    return f"""apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: kube-system
spec:
  containers:
  - command:
{lines}
    image: registry.k8s.io/{image}
    name: {name}
  hostNetwork: true
"""


def _output(command: list[str]) -> str:
    environment = {**os.environ, "ETCDCTL_API": "3"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return done.stdout


def _etcdrpc() -> Any:
    from edgedr.node.etcd import load_stubs  # noqa: PLC0415 - slow to import, and few tests need it

    return load_stubs()
