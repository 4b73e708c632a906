"""The way to a bucket: proxy, style, certificate, and credentials that come from elsewhere, change, or are wrong."""

import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from edgedr.credentials import Credential
from edgedr.errors import ConfigurationError, EdgedrError, Refused, Unreachable
from edgedr.storage.pacing import Patience
from edgedr.storage.s3 import S3Storage
from edgedr.storage.s3_options import S3Options, Style
from tests.lab.s3proxy import S3Proxy
from tests.lab.s3road import EAGER, options
from tests.lab.s3servers import Moto, Rclone
from tests.lab.s3servers import client as boto
from tests.storage_contract import get, names, send
from tests.test_storage_s3 import A, B

ALL = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
CANARY = "c4n4ry/in+a/secret"


@contextmanager
def listening(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """Run a small server on loopback; yield its URL."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_proxy_is_gone_through(moto: Moto) -> None:
    """With `proxy`, each connection asks it for a tunnel; TLS is with the server; one that is not there is named."""
    asked: list[str] = []

    class Tunnel(http.server.BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            asked.append(self.path)
            host, port = self.path.split(":")
            with socket.create_connection((host, int(port))) as server:
                self.send_response_only(200)
                self.end_headers()
                threading.Thread(target=_pump, args=(server, self.connection), daemon=True).start()
                _pump(self.connection, server)

    bucket = moto.bucket()
    with listening(Tunnel) as url:
        storage = S3Storage(options(moto, bucket, proxy=url), patience=EAGER)
        send(storage, A, b"through it")
        assert get(storage, A) == b"through it"
        storage.client._connected().close()
    assert set(asked) == {f"127.0.0.1:{moto.port}"}
    with pytest.raises(Unreachable, match="the proxy does not answer"):
        send(S3Storage(options(moto, bucket, proxy=url), patience=EAGER), B, b"x")


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize(
    ("endpoint", "style", "expected"),
    [
        ("https://s3.lab.invalid", Style.PATH, "https://s3.lab.invalid/dr-backups/edge/v1/a"),
        ("https://s3.lab.invalid", Style.VIRTUAL, "https://dr-backups.s3.lab.invalid/edge/v1/a"),
        ("https://127.0.0.1:9000", Style.AUTO, "https://127.0.0.1:9000/dr-backups/edge/v1/a"),
        (None, Style.AUTO, "https://dr-backups.s3.eu-central-1.amazonaws.com/edge/v1/a"),
    ],
)
def test_the_bucket_is_where_the_style_says(endpoint: str | None, style: Style, expected: str, tmp_path: Path) -> None:
    """Path or host name: the URL, taken where it would leave, since the lab has no certificate for the latter."""
    (tmp_path / "key").write_text("ID:SECRET")
    there = S3Options("dr-backups", "edge", endpoint, "eu-central-1", style)
    there = replace(there, credential=Credential.parse(f"file:{tmp_path}/key"))
    storage, asked = S3Storage(there, patience=Patience(attempts=1)), []

    def stop(request: Any, **_: Any) -> None:
        asked.append(request.url)
        raise OSError("the lab goes no further")

    storage.client._connected().meta.events.register_first("before-send.s3", stop)
    with pytest.raises(Unreachable, match="no further"):
        storage.open("v1/a")
    assert asked == [expected]


@contextmanager
def authority(moto: Moto, service: str) -> Iterator[Any]:
    """Ask moto for keys."""
    with closing(boto(moto.endpoint, moto.ca, moto.access_key, moto.secret_key, service=service)) as made:
        yield made


class Metadata(http.server.BaseHTTPRequestHandler):
    """What a machine of a cloud is told about itself: a session token first, then its role, then the role's key."""

    key: ClassVar[dict[str, str]] = {}

    def do_PUT(self) -> None:
        self._say(b"session")

    def do_GET(self) -> None:
        assert self.headers["x-aws-ec2-metadata-token"] == "session"
        role = self.path.removeprefix("/latest/meta-data/iam/security-credentials/")
        self._say(json.dumps(self.key).encode() if role else b"edge-node")

    def _say(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_the_machines_own_role_is_enough(moto: Moto, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a credential the machine's role is asked for one; where there is none either, that is said."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    own = options(moto, moto.bucket())
    with authority(moto, "iam") as iam, authority(moto, "sts") as sts:
        role = iam.create_role(RoleName="edge-node", AssumeRolePolicyDocument=json.dumps(ALL))["Role"]["Arn"]
        iam.put_role_policy(RoleName="edge-node", PolicyName="all", PolicyDocument=json.dumps(ALL))
        given = sts.assume_role(RoleArn=role, RoleSessionName="edge-node")["Credentials"]
    with listening(Metadata) as url:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
        until = given["Expiration"].strftime("%Y-%m-%dT%H:%M:%SZ")
        key = {"AccessKeyId": given["AccessKeyId"], "SecretAccessKey": given["SecretAccessKey"]}
        Metadata.key.update({**key, "Code": "Success", "Token": given["SessionToken"], "Expiration": until})
        storage = S3Storage(replace(own, credential=None), patience=EAGER)
        send(storage, A, b"by the role")
        assert get(storage, A) == b"by the role"
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(Refused, match="no credential was found"):
        send(S3Storage(replace(own, credential=None), patience=EAGER), B, b"x")


def test_a_credential_may_change_meanwhile(moto: Moto) -> None:
    """When a key stops to count, its file is read again, and what was begun goes on: nobody restarts anything."""
    with authority(moto, "iam") as iam:
        iam.create_user(UserName="cp-1")
        iam.put_user_policy(UserName="cp-1", PolicyName="all", PolicyDocument=json.dumps(ALL))
        made = [iam.create_access_key(UserName="cp-1")["AccessKey"] for _ in range(2)]
        file = moto.directory / "rotated"
        storage = S3Storage(replace(options(moto, moto.bucket()), credential=Credential.parse(f"file:{file}")))
        file.write_text("{AccessKeyId}:{SecretAccessKey}".format(**made[0]))
        send(storage, A, b"before")
        iam.delete_access_key(UserName="cp-1", AccessKeyId=made[0]["AccessKeyId"])
        with pytest.raises(Refused, match="InvalidAccessKeyId"):
            storage.open(A)
        file.write_text("{AccessKeyId}\n{SecretAccessKey}\n".format(**made[1]))
        send(storage, B, b"after")
        assert (get(storage, A), get(storage, B)) == (b"before", b"after")


def test_only_the_authority_that_was_named_is_believed(moto: Moto, rclone: Rclone) -> None:
    """A server with a certificate of another authority is refused, and told nothing; plain HTTP is no choice at all."""
    with S3Proxy(moto.endpoint, moto.ca) as proxy:
        there = options(moto, moto.bucket())
        for ca in (rclone.ca, None):
            storage = S3Storage(replace(there, endpoint=proxy.endpoint, ca=ca), patience=EAGER)
            with pytest.raises(Refused, match="certificate is not to be trusted") as caught:
                send(storage, A, b"x")
            assert "`ca`" in (caught.value.hint or "")
        assert proxy.requests == []


@pytest.mark.parametrize("by", ["endpoint", "environment"])
def test_plain_http_is_refused(by: str, moto: Moto, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is ever sent to a server elsewhere without TLS, whoever names it so."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3" if by == "environment" else "UNUSED", "http://s3.lab.invalid")
    there = replace(options(moto, "dr-backups"), endpoint="http://s3.lab.invalid" if by == "endpoint" else None)
    with pytest.raises(ConfigurationError, match="not https"):
        send(S3Storage(there, patience=EAGER), A, b"x")


@pytest.mark.parametrize(
    "key",
    [
        "{id}:{canary}",
        "{id}\n{canary}",
        "[default]\naws_access_key_id = {id}\naws_secret_access_key = {canary}\n",
        '{{"AccessKeyId": "{id}", "SecretAccessKey": "{canary}", "SessionToken": "{canary}"}}',
        "{canary}",
        '{{"SecretAccessKey": "{canary}"}}',
        "[{canary}",
        "aws_access_key_id = {id}\naws_secret_access_key = {canary}\naws_session_token = {canary}",
    ],
)
def test_no_secret_is_in_any_error(moto: Moto, key: str) -> None:
    """Whatever is wrong with a credential, no message, hint or cause shows any of it."""
    file = moto.directory / "canary"
    file.write_text(key.format(id=moto.access_key, canary=CANARY))
    there = replace(options(moto, moto.bucket()), credential=Credential.parse(f"file:{file}"))
    storage = S3Storage(there, patience=EAGER)
    acts: tuple[Callable[[], object], ...] = (
        lambda: send(storage, A, b"x"),
        lambda: storage.open(A),
        lambda: names(storage),
        lambda: storage.replace(A, b"x"),
    )
    for act in acts:
        with pytest.raises(EdgedrError) as caught:
            act()
        error: BaseException | None = caught.value
        assert CANARY not in (caught.value.hint or "")
        while error is not None:
            assert CANARY not in f"{error} {error!r} {vars(error)}"
            error = error.__cause__ or error.__context__
