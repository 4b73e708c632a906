"""What an S3 server, or the way to it, answers with, in our words. The only place that knows botocore's exceptions."""

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from edgedr.errors import ConfigurationError, EdgedrError, ObjectMissing, Refused, StorageError, Unreachable

_LATER = frozenset(
    {"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "ServiceUnavailable",
     "InternalError", "RequestTimeout", "OperationAborted", "ConditionalRequestConflict", "BadDigest",
     "IncompleteBody", "XAmzContentSHA256Mismatch"}
)  # fmt: skip
"""Codes of what may do better next time; a digest that did not hold was spoilt on the way."""
_CREDENTIAL = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException", "InvalidToken",
     "TokenRefreshRequired", "InvalidClientTokenId", "UnrecognizedClientException", "AuthorizationHeaderMalformed"}
)  # fmt: skip
SKEWED = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
_MISSING = frozenset({"NoSuchKey", "404", "NotFound", "NoSuchVersion"})
TAKEN = frozenset({"PreconditionFailed", "412"})
_UNABLE = frozenset({"NotImplemented", "501", "MethodNotAllowed", "405", "XNotImplemented"})
_WORDLESS = frozenset({"400", "401", "403"})
"""What an answer without a body, as every one to HEAD, says instead of a code."""
_REDIRECTS = range(300, 400)
_TOO_MANY, _SERVER = 429, 500
_PORTAL = "a portal or proxy may answer in the server's place: look at the link"
_DENIED = "this credential may not do that there: look at its policy (config/policies/README.md) and at the prefix"


class Unable(StorageError):
    """The server does not know what it was asked for."""


class BadCredential(Refused):
    """The key itself is wrong, unknown or has run out: another one may be at hand."""


class Denied(Refused):
    """This credential may not do that; or no, and nothing more was said."""


class Taken(StorageError):
    """A conditional write was refused, because something has that name."""


class OutOfRange(StorageError):
    """An object is shorter than where reading was to begin."""


class Throttled(Unreachable):
    """The server asked for time; ``after`` seconds, where it said how many."""

    def __init__(self, message: str, *, after: float | None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.after = after


_KINDS: tuple[tuple[frozenset[str], type[StorageError], str | None], ...] = (
    (TAKEN, Taken, None),
    (_MISSING, ObjectMissing, None),
    (frozenset({"InvalidRange", "416"}), OutOfRange, None),
    (frozenset({"NoSuchBucket"}), Refused, "the bucket is gone, or its name is wrong: look at `url` and `endpoint`"),
    (_CREDENTIAL, BadCredential, "its id or its secret is wrong, or it has expired: give a valid credential"),
    (_UNABLE, Unable, "this server lacks it: `edgedr doctor` says what else"),
    (_WORDLESS | {"AccessDenied"}, Denied, _DENIED),
)


@contextmanager
def translated(act: str, what: str) -> Iterator[None]:
    """Turn whatever boto3 raises while it does ``act`` to ``what`` into one of our errors."""
    try:
        yield
    except EdgedrError:
        raise
    except (boto.BotoCoreError, boto.ClientError, ResponseParserError, OSError) as error:
        raise _meaning(error, act, what) from error


def _meaning(error: Exception, act: str, what: str) -> EdgedrError:  # noqa: PLR0911 - a table, one row a kind
    told = f"cannot {act} {what}"
    match error:
        case boto.ClientError():
            return _answered(error, told)
        case boto.SSLError():
            return _untrusted(error, told)
        case boto.ProxyConnectionError() | boto.InvalidProxiesConfigError():
            return Unreachable(f"{told}: the proxy does not answer", hint="look at `proxy`")
        case boto.NoCredentialsError() | boto.PartialCredentialsError() | boto.CredentialRetrievalError():
            hint = "give one (`credential`, or --credential), or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            return BadCredential(f"{told}: no credential was found", hint=hint)
        case boto.ProfileNotFound() | boto.InvalidConfigError() | boto.ConfigParseError() | boto.InvalidRegionError():
            return ConfigurationError(f"boto3's own configuration: {error}", hint="look at AWS_PROFILE and ~/.aws")
        case ResponseParserError():
            return not_s3(act, what, "its answer is no S3")
        case boto.ParamValidationError():
            return StorageError(f"{told}: {error}", hint="this is no name that S3 takes")
    ours = getattr(error, "kwargs", {}).get("error")
    if isinstance(ours, EdgedrError):  # a disk of ours that boto3 read from, and took for the link
        return ours
    # connections that fail, stall or end, however boto3 calls it
    return Unreachable(f"{told}: {_reason(error)}", hint="look at the link; edgedr goes on from there later")


def _untrusted(error: BaseException, told: str) -> StorageError:
    """Tell a certificate that is not to be trusted from a connection that broke: both are errors of TLS."""
    if _holds(error, ssl.SSLCertVerificationError):
        return Refused(
            f"{told}: the server's certificate is not to be trusted: {_reason(error)}",
            hint="name its authority with `ca`; behind a portal or a proxy somebody else answers in its place",
        )
    return Unreachable(f"{told}: {_reason(error)}", hint="look at the link; edgedr goes on from there later")


def _holds(error: object, kind: type[BaseException], depth: int = 8) -> bool:
    """Say whether an error is, or was made from, one of a kind."""
    if isinstance(error, kind):
        return True
    if not isinstance(error, BaseException) or not depth:
        return False
    inner = (error.__cause__, error.__context__, getattr(error, "reason", None), *error.args)
    return any(_holds(each, kind, depth - 1) for each in (*inner, getattr(error, "kwargs", {}).get("error")))


def not_s3(act: str, what: str, why: str) -> Unreachable:
    """Make the error for an answer that no S3 server gives: a captive portal has many faces."""
    return Unreachable(f"cannot {act} {what}: {why}", hint=_PORTAL)


def clock_offset(date: str | None) -> float | None:
    """Return by how many seconds this clock is ahead of the server's, as the Date of a reply just received tells."""
    try:
        return time.time() - parsedate_to_datetime(date or "").timestamp()
    except (ValueError, TypeError):
        return None


def _answered(error: Any, told: str) -> StorageError:
    reply = error.response
    code = str(reply.get("Error", {}).get("Code", ""))
    status = int(reply.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    headers = reply.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    said = f"{told}: {_said(reply, code)}"
    if status in _REDIRECTS and not any(name.startswith("x-amz-") for name in headers):
        return Unreachable(f"{told}: it leads elsewhere (status {status})", hint=_PORTAL)
    if code in SKEWED:
        return _skewed(told, reply)
    if code in _LATER or status == _TOO_MANY or (status >= _SERVER and code not in _UNABLE):
        after = _seconds(headers.get("retry-after"))
        return Throttled(said, after=after, hint="the server is busy or broken; edgedr goes on later")
    for codes, kind, hint in _KINDS:
        if code in codes:
            return kind(said, hint=hint)
    if status in {401, 403}:
        return Refused(said, hint=_DENIED)
    return Refused(said, hint="look at `endpoint`, `region` and the bucket: `edgedr doctor`")


def _skewed(told: str, reply: Any) -> Refused:
    offset = clock_offset(reply.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date"))
    apart = ""
    if offset is not None:
        apart = f": this clock is {abs(round(offset))} s {'ahead of' if offset > 0 else 'behind'} the server's"
    return Refused(
        f"{told}: the clocks differ too much (RequestTimeTooSkewed){apart}",
        hint="set this machine's clock (chronyc, timedatectl); backups go on locally until then",
    )


def _said(reply: Any, code: str) -> str:
    message = " ".join(str(reply.get("Error", {}).get("Message") or "").split())[:200]
    message = "" if message == "None" else message
    status = reply.get("ResponseMetadata", {}).get("HTTPStatusCode", "")
    named = code if code and code != str(status) else f"status {status}"
    return f"{named}: {message}" if message and message != code else named


def _seconds(text: str | None) -> float | None:
    """Read Retry-After: seconds, or a date."""
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        offset = clock_offset(text)
        return None if offset is None else -offset


def _reason(error: BaseException) -> str:
    """Say in a line what went wrong, without addresses of objects that a person cannot use."""
    inner = getattr(error, "kwargs", {}).get("error") if isinstance(error, boto.BotoCoreError) else None
    text = str(inner or error)
    for mark in (": ", "> "):
        if "object at 0x" in text:
            text = text.rpartition(mark)[2]
    return " ".join(text.split())[:200].rstrip(".) ") or type(error).__name__
