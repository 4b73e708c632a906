"""One boto3 client for everything: how it is made, its key read by reference and read again, what its replies tell.

Requests are signed with the hash of what they carry, each is made once by boto3 and repeated here, and nothing that is
not an answer of S3 counts as one.
"""

import configparser
import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from edgedr.credentials import Secret
from edgedr.errors import ConfigurationError, Unreachable
from edgedr.storage.pacing import Patience, wait_before
from edgedr.storage.s3_options import S3Options, Style, why_no_endpoint
from edgedr.storage.s3_trouble import BadCredential, Throttled, clock_offset, not_s3, translated

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")
ACTS = {
    "put_object": "put",
    "get_object": "get",
    "head_object": "look at",
    "delete_object": "delete",
    "list_objects_v2": "list",
    "list_object_versions": "list the versions of",
}
"""What people call what is asked for."""
_CONNECT_SECONDS = 20
_DEFAULT_REGION = "us-east-1"
_POOL = 16
_GOOD = range(200, 207)
_KEYS = {
    "aws_access_key_id": ("aws_access_key_id", "accesskeyid", "access_key"),
    "aws_secret_access_key": ("aws_secret_access_key", "secretaccesskey", "secret_key"),
    "aws_session_token": ("aws_session_token", "sessiontoken", "session_token"),
}


class S3Client:
    """A bucket that can be asked. Threads may share it."""

    def __init__(self, options: S3Options, patience: Patience | None = None, *, unsigned: bool = False) -> None:
        self.options = options
        self.offset: float | None = None
        """Seconds by which this clock is ahead of the server's, as its last reply told; ``None`` before one."""
        self._patience = patience or Patience()
        self._unsigned = unsigned
        self._lock = threading.Lock()
        self._client: Any = None
        self._key: dict[str, str] | None = None

    def call(self, operation: str, what: str, **parameters: Any) -> Any:
        """Ask once for ``operation`` (boto3's name) about ``what``. Raises what ``translated`` does."""
        act = ACTS.get(operation, operation.replace("_", " "))
        with translated(act, what):
            reply = getattr(self._connected(), operation)(Bucket=self.options.bucket, **parameters)
        status = reply.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if status not in _GOOD:
            raise not_s3(act, what, f"status {status} instead of an answer")
        return reply

    def persist(self, attempt: Callable[[int], T]) -> T:
        """Make an attempt until it succeeds, as often as patience allows; it is told its number, from 1.

        What cannot be reached for now is tried again after a while. After a bad credential the reference is read again,
        and tried once more if another one stands there.
        """
        number = 1
        while True:
            used = self._key
            try:
                return attempt(number)
            except Unreachable as error:
                if number >= self._patience.attempts:
                    raise
                asked = error.after if isinstance(error, Throttled) else None
                time.sleep(wait_before(number + 1, asked, random.random(), self._patience.longest))  # noqa: S311
            except BadCredential:
                if not self._renewed(used):
                    raise
            number += 1

    def _renewed(self, used: dict[str, str] | None) -> bool:
        """Read the credential again; say whether it is another one than was ``used``."""
        if self.options.credential is None or self._unsigned:
            return False
        with self._lock:
            if used is not None and used != self._key:  # another thread read it while this one waited for its answer
                return True
            key = _key(self.options)
            if key == self._key:
                return False
            self._key, self._client = key, None
            return True

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._make()
            return self._client

    def _make(self) -> Any:
        import boto3  # noqa: PLC0415 - 380 ms and 41 MB
        from botocore import UNSIGNED  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415

        options = self.options
        if options.ca is not None and not options.ca.is_file():
            raise ConfigurationError(f"there is no {options.ca}", hint="name the PEM file of the server's authority")
        self._key = None if self._unsigned else _key(options)
        s3: dict[str, Any] = {"payload_signing_enabled": True}
        if options.style is not Style.AUTO:
            s3["addressing_style"] = str(options.style)
        config = Config(
            signature_version=UNSIGNED if self._unsigned else "s3v4",
            s3=s3,
            retries={"total_max_attempts": 1},
            connect_timeout=min(_CONNECT_SECONDS, options.timeout.total_seconds()),
            read_timeout=options.timeout.total_seconds(),
            proxies=None if options.proxy is None else {"http": options.proxy, "https": options.proxy},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            max_pool_connections=_POOL,
            tcp_keepalive=True,
        )
        session = boto3.session.Session(**(self._key or {}))
        client = session.client(
            "s3",
            endpoint_url=options.endpoint,
            region_name=options.region or session.region_name or _DEFAULT_REGION,
            verify=str(options.ca) if options.ca else None,
            config=config,
        )
        reason = why_no_endpoint(client.meta.endpoint_url)  # AWS_ENDPOINT_URL and ~/.aws may name one, too
        if reason is not None:
            raise ConfigurationError(
                f"the endpoint of {options.url}: {reason}", hint="look at `endpoint`, AWS_ENDPOINT_URL and ~/.aws"
            )
        client.meta.events.register_last("before-call.s3", _stay)
        client.meta.events.register("before-send.s3", _about_to_send)
        client.meta.events.register("response-received.s3", self._note_clock)
        return client

    def _note_clock(self, response_dict: Any, **_: Any) -> None:
        headers: Mapping[str, str] = (response_dict or {}).get("headers", {})
        offset = clock_offset(headers.get("date"))
        self.offset = self.offset if offset is None else offset


def _stay(params: Any, **_: Any) -> None:
    """Keep boto3 from following redirects, without end where everything redirects: we were told where the bucket is."""
    params["context"].setdefault("s3_redirect", {})["redirected"] = True


def _about_to_send(request: Any, **_: Any) -> None:
    """Tell a body that was hashed until now that it goes out from here on, and what its hash came to."""
    begin = getattr(request.body, "begin", None)
    if begin is not None:
        begin(_text(request.headers.get("X-Amz-Content-SHA256")))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _key(options: S3Options) -> dict[str, str] | None:
    if options.credential is None:
        return None
    return read_key(options.credential.read(), str(options.credential))


def read_key(secret: Secret, where: str) -> dict[str, str]:
    """Read an access key as boto3 wants it: an INI file as AWS writes it, JSON, ``ID:SECRET``, or the two in two lines.

    Raises ``ConfigurationError`` that names where it stands, never what.
    """
    text = secret.reveal().decode(errors="replace").strip()
    found = {name: value for name, value in _named(text) if value}
    if "aws_access_key_id" not in found or "aws_secret_access_key" not in found:
        raise ConfigurationError(
            f"{where} holds no access key of S3",
            hint="write aws_access_key_id = … and aws_secret_access_key = … in two lines",
        )
    return found


def _named(text: str) -> "Iterator[tuple[str, str]]":
    values = _json(text) or _ini(text)
    if values:
        for name, spellings in _KEYS.items():
            yield name, next((values[each] for each in spellings if each in values), "")
        return
    parts = text.split() if len(text.split()) > 1 else text.split(":", 1)
    if len(parts) == 2:  # noqa: PLR2004 - an id and its secret
        yield "aws_access_key_id", parts[0]
        yield "aws_secret_access_key", parts[1]


def _json(text: str) -> dict[str, str]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return {str(k).lower(): v for k, v in values.items() if isinstance(v, str)} if isinstance(values, dict) else {}


def _ini(text: str) -> dict[str, str]:
    parser = configparser.RawConfigParser(delimiters=("=",))
    headed = any(line.startswith("[") for line in text.splitlines())
    try:
        parser.read_string(text if headed else f"[default]\n{text}")
    except configparser.Error:
        return {}
    section = "default" if parser.has_section("default") else next(iter(parser.sections()), "")
    values = {name.lower(): value.strip().strip('"') for name, value in parser.items(section)} if section else {}
    return {} if any(":" in name for name in values) else values  # ID:SECRET, whose secret has a "=" in it
