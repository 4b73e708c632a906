"""Real S3 servers over TLS on loopback: moto, rclone's, and a Ceph cluster of one node.

``with Ceph() as server: server.client().list_objects_v2(Bucket=server.bucket())`` runs one; ``started(Ceph)`` gives the
one that all tests of a process share. What each enforces is in its docstring: a test must not prove more with it.

A server is killed when the thread that started it ends, or its process: so start it from the main thread.
"""

import atexit
import base64
import http.client
import json
import os
import secrets
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

from tests.lab.etcd import free_port
from tests.lab.pki import SERVER, Authority
from tests.lab.tools import need

REGION = "us-east-1"
_START_SECONDS = 60


class S3Server(ABC):
    """A server's processes, its directory, its certificate, and clients that trust it."""

    name: ClassVar[str]
    versions: ClassVar[bool]
    """Whether it knows versions and Object Lock."""
    region = REGION

    def __init__(self) -> None:
        self.port = free_port()
        self.endpoint = f"https://127.0.0.1:{self.port}"
        self.access_key = "LAB" + secrets.token_hex(8).upper()
        self.secret_key = secrets.token_hex(20)
        self._ending = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            # Not below a test's directory: the path of a Unix socket holds 107 bytes.
            self.directory = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir="/tmp"))
            undo.callback(shutil.rmtree, self.directory, ignore_errors=True)
            authority = Authority.make(f"{self.name}-ca")
            authority.write(self.directory / "ca")
            authority.issue(self.directory / "server", self.name, SERVER, sans=("127.0.0.1", "localhost"))
            self._ending = undo
            self.start()
            self._ending = undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._ending.close()

    @property
    def ca(self) -> Path:
        """The authority that clients trust, as PEM."""
        return self.directory / "ca.crt"

    @abstractmethod
    def start(self) -> None:
        """Start the processes, and wait until requests of the administrator are answered."""

    def client(
        self, access_key: str | None = None, secret_key: str | None = None, session_token: str | None = None
    ) -> Any:
        """Return a boto3 client, the administrator's if no keys are given; it lives as long as the server."""
        made = client(
            self.endpoint,
            self.ca,
            access_key or self.access_key,
            secret_key or self.secret_key,
            session_token=session_token,
        )
        self._ending.callback(made.close)
        return made

    def bucket(self, name: str | None = None, *, versioned: bool = False, locked: bool = False) -> str:
        """Make a bucket of the administrator, and return its name; ``locked`` makes it with Object Lock."""
        assert self.versions or not (versioned or locked), f"{self.name} keeps no versions"
        name = name or f"lab-{secrets.token_hex(6)}"
        self._administrator.create_bucket(Bucket=name, **({"ObjectLockEnabledForBucket": True} if locked else {}))
        if versioned and not locked:
            self._administrator.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return name

    @cached_property
    def _administrator(self) -> Any:
        return self.client()

    def _run(self, *command: str, **environment: str) -> "subprocess.Popen[bytes]":
        """Start a process that ends with this one, however this one ends."""
        with (self.directory / f"{Path(command[0]).name}.out").open("wb") as log:
            process = subprocess.Popen(
                [need("setpriv"), "--pdeathsig", "KILL", "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env={**os.environ, **environment},
            )
        self._ending.callback(process.wait)
        self._ending.callback(process.kill)  # nothing here outlives the server, so nothing needs a farewell
        return process

    def _wait(self, process: "subprocess.Popen[bytes]", ready: Callable[[], bool], what: str) -> None:
        """Wait until ``ready``; it may raise what a connection does that nobody takes."""
        for _ in range(_START_SECONDS * 50):
            if process.poll() is not None:
                break
            with suppress(OSError, http.client.HTTPException, EOFError):
                if ready():
                    return
            time.sleep(0.02)
        logs = "\n".join(f"{log.name}:\n{log.read_text()[-4000:]}" for log in self.directory.glob("*.out"))
        raise RuntimeError(f"{self.name}: {what} does not come up\n{logs}")

    def _answers(self, method: str = "GET", path: str = "/", body: bytes = b"") -> bool:
        context = ssl.create_default_context(cafile=str(self.ca))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=context)
        try:
            connection.request(method, path, body)
            return connection.getresponse().status < 500
        finally:
            connection.close()


class Moto(S3Server):
    """Moto in a process of its own, quick to start.

    It checks signatures (and answers 500 to a request without), no checksums, and lets COMPLIANCE be shortened.
    """

    name = "moto"
    versions = True

    def start(self) -> None:
        certificate, key = self.directory / "server.crt", self.directory / "server.key"
        flags = [f"-p{self.port}", "-s", f"-c{certificate}", f"-k{key}"]
        process = self._run(sys.executable, "-m", "moto.server", *flags)
        self._wait(process, self._answers, "moto")
        with closing(client(self.endpoint, self.ca, "any", "any", service="iam")) as iam:
            iam.create_user(UserName="admin")
            all_of_it = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
            iam.put_user_policy(UserName="admin", PolicyName="all", PolicyDocument=json.dumps(all_of_it))
            made = iam.create_access_key(UserName="admin")["AccessKey"]
        self.access_key, self.secret_key = made["AccessKeyId"], made["SecretAccessKey"]
        assert self._answers("POST", "/moto-api/reset-auth", b"0")  # from now on it checks signatures


class Rclone(S3Server):
    """``rclone serve s3`` over a directory: the weak server, which takes If-None-Match and overwrites all the same."""

    name = "rclone"
    versions = False

    def start(self) -> None:
        (self.directory / "data").mkdir()
        process = self._run(
            str(Path(sysconfig.get_path("scripts")) / "rclone"),
            *("serve", "s3", str(self.directory / "data")),
            f"--addr=127.0.0.1:{self.port}",
            f"--auth-key={self.access_key},{self.secret_key}",
            f"--cert={self.directory / 'server.crt'}",
            f"--key={self.directory / 'server.key'}",
            RCLONE_CONFIG=str(self.directory / "rclone.conf"),
        )
        self._wait(process, self._answers, "rclone")


class Ceph(S3Server):
    """One monitor, one OSD in memory, one RGW 16.2: enforces signatures, policies, versions and Object Lock.

    If-None-Match works on a plain bucket, and is ignored on one with versions. An object belongs to who wrote it.
    """

    name = "ceph"
    versions = True

    def start(self) -> None:
        programs = ("monmaptool", "ceph-mon", "ceph-osd", "radosgw", "radosgw-admin")
        monmaptool, mon, osd, rgw, self._admin = (need(program) for program in programs)
        cluster, port = str(uuid.uuid4()), free_port()
        at = self.directory
        (at / "mon").mkdir()
        (at / "osd").mkdir()
        (at / "server.pem").write_bytes((at / "server.crt").read_bytes() + (at / "server.key").read_bytes())
        (at / "keyring").write_text("".join(map(_ceph_key, ("mon.", "osd.0", "client.rgw"))))
        (at / "ceph.conf").write_text(self._configuration(cluster, port))
        self._do(monmaptool, "--create", f"--fsid={cluster}", "--addv", "a", f"[v2:127.0.0.1:{port}]", f"{at}/monmap")
        self._do(mon, *self._flags("mon.a"), "--mkfs", f"--monmap={at}/monmap", f"--keyring={at}/keyring")
        self._do(osd, *self._flags("osd.0"), "--mkfs", f"--osd-uuid={uuid.uuid4()}", "--no-mon-config")
        process = self._run(mon, *self._flags("mon.a"), "-f")
        self._wait(process, lambda: self._state("mon.a", "mon_status") == "leader", "the monitor")
        process = self._run(osd, *self._flags("osd.0"), "-f")  # it enters itself into the monitor's map
        self._wait(process, lambda: self._state("osd.0", "status") == "active", "the OSD")
        process = self._run(rgw, *self._flags("client.rgw"), "-f")
        self._wait(process, self._answers, "RGW")
        self._user("admin", self.access_key, self.secret_key)

    def user(self, name: str) -> tuple[str, str]:
        """Make a further user, who may do nothing with the buckets of others; return access key and secret key."""
        keys = "LAB" + secrets.token_hex(8).upper(), secrets.token_hex(20)
        self._user(name, *keys)
        return keys

    def _user(self, name: str, access_key: str, secret_key: str) -> None:
        keys = f"--access-key={access_key}", f"--secret={secret_key}"
        flags = *self._flags("client.rgw"), f"--uid={name}", f"--display-name={name}"
        self._do(self._admin, *flags, "user", "create", *keys)

    def _flags(self, entity: str) -> tuple[str, str, str]:
        return "--conf", str(self.directory / "ceph.conf"), f"--name={entity}"

    def _do(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_START_SECONDS)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")

    def _state(self, entity: str, command: str) -> str:
        """Ask a daemon's admin socket; ``ceph`` itself would take longer than the start."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(10)
            asking.connect(str(self.directory / f"{entity}.asok"))
            asking.sendall(json.dumps({"prefix": command}).encode() + b"\0")
            with asking.makefile("rb") as answer:
                _, text = answer.read(4), answer.read()
        if not text.startswith(b"{"):
            raise EOFError  # it listens before it knows its commands, and says so in words
        return str(json.loads(text)["state"])

    def _configuration(self, cluster: str, port: int) -> str:
        at = self.directory
        return f"""\
[global]
fsid = {cluster}
mon_host = v2:127.0.0.1:{port}
mon_initial_members = a
public_network = 127.0.0.0/8
cluster_network = 127.0.0.0/8
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
keyring = {at}/keyring
run_dir = {at}
admin_socket = {at}/$name.asok
pid_file = {at}/$name.pid
log_to_file = false
log_to_stderr = true
mon_data = {at}/mon
mon_data_avail_warn = 1
mon_data_avail_crit = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
# The monitor waits a second for more before it proposes: nine tenths of the start, without this.
paxos_propose_interval = 0.02
paxos_min_wait = 0.01
osd_data = {at}/osd
osd_objectstore = memstore
memstore_device_bytes = 4294967296
osd_crush_chooseleaf_type = 0
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
[client.rgw]
rgw_frontends = beast ssl_endpoint=127.0.0.1:{self.port} ssl_certificate={at}/server.pem tcp_nodelay=1
rgw_enable_ops_log = false
rgw_enable_usage_log = false
rgw_thread_pool_size = 64
"""


def _ceph_key(entity: str) -> str:
    """Make a keyring's entry: the secret is type, seconds, nanoseconds, length, 16 bytes."""
    secret = base64.b64encode(struct.pack("<HIIH", 1, int(time.time()), 0, 16) + os.urandom(16)).decode()
    return f'[{entity}]\nkey = {secret}\ncaps mon = "allow *"\ncaps osd = "allow *"\n'


def client(
    endpoint: str,
    ca: Path,
    access_key: str,
    secret_key: str,
    *,
    session_token: str | None = None,
    attempts: int = 3,
    seconds: float = 60,
    service: str = "s3",
) -> Any:
    """Return a boto3 client that works with all of these servers, to be closed: path style, no trailing checksums."""
    import boto3  # type: ignore[import-untyped,unused-ignore] # noqa: PLC0415 - slow to import
    from botocore.config import Config  # type: ignore[import-untyped,unused-ignore] # noqa: PLC0415 - slow to import

    return boto3.client(
        service,
        endpoint_url=endpoint,
        verify=str(ca),
        region_name=REGION,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        aws_session_token=session_token,
        config=Config(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"mode": "standard", "total_max_attempts": attempts},
            connect_timeout=seconds,
            read_timeout=seconds,
            proxies={},
        ),
    )


Kind = TypeVar("Kind", bound=S3Server)
_STARTED: dict[type[S3Server], S3Server] = {}


def started(kind: type[Kind]) -> Kind:
    """Return the server of that kind that all tests of this process share; it ends with the process."""
    if kind not in _STARTED:
        _STARTED[kind] = kind().__enter__()
        atexit.register(_STARTED[kind].__exit__, None, None, None)
    found = _STARTED[kind]
    assert isinstance(found, kind)
    return found
