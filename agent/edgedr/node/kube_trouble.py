"""What goes wrong between us and the API server, in words, and whether asking again may help."""

import json
from collections.abc import Iterator
from typing import Any

from edgedr.errors import SourceError

_BROKEN = "look at the API service, webhook or CRD behind it: `kubectl get apiservices`"
_HINTS = {
    401: "its certificate or token is not valid any more: renew the kubeconfig",
    403: "the kubeconfig's user must be allowed to read it: [kubernetes] kubeconfig names another",
    **dict.fromkeys((301, 302, 303, 307, 308), "redirects are not followed: name the API server's own URL"),
    **dict.fromkeys((500, 502, 503, 504), _BROKEN),
}
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})
_RUNNING = "is it running? look with `crictl ps`"
_MAX_CAUSES = 8
_MAX_SAID = 300


class KubeError(SourceError):
    """The API server did not answer as it should. ``status`` is the HTTP status, ``None`` if there was no answer."""

    def __init__(self, message: str, *, hint: str | None = None, status: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Silence(KubeError):
    """No answer came. ``again``: another try may help. ``down``: no other question will fare better."""

    def __init__(self, message: str, *, hint: str | None, again: bool = False, down: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.again = again
        self.down = down


def shown(path: str) -> str:
    """Return a path as messages show it: without its query."""
    return path.partition("?")[0]


def refusal(path: str, status: int, body: bytes | None, secret: str | None) -> KubeError:
    """Say what the server said. It may repeat what we sent, so ``secret`` is taken out of it."""
    try:
        said = str(json.loads(body or b"").get("message") or "")
    except (ValueError, AttributeError, RecursionError):
        said = ""  # a proxy's page, say: its status tells enough
    if secret:
        said = said.replace(secret, "…")
    said = "".join(sign if sign.isprintable() else " " for sign in said[:_MAX_SAID]) or f"HTTP status {status}"
    return KubeError(f"the API server refused {shown(path)}: {said}", hint=_HINTS.get(status), status=status)


def silence(server: str, path: str, error: Exception, within: float) -> Silence:
    """Say why no answer came within ``within`` seconds. ``error`` is urllib3's, or the system's."""
    import ssl  # noqa: PLC0415 - only who asks pays for it

    from urllib3 import exceptions  # noqa: PLC0415

    beyond = f"cannot reach the API server at {server}"
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            why, hint = _tls_trouble(cause)
            return Silence(f"{beyond}: {why}", hint=hint, down=True)
    if isinstance(error, exceptions.NewConnectionError):
        why = next((cause.strerror for cause in _causes(error) if isinstance(cause, OSError) and cause.strerror), "")
        return Silence(f"{beyond}: {why.lower() or 'no connection'}", hint=_RUNNING, down=True)
    if isinstance(error, exceptions.ConnectTimeoutError):
        return Silence(f"{beyond}: no answer within {within:g} s", hint=_RUNNING, down=True)
    if isinstance(error, exceptions.ReadTimeoutError):
        return _late(path, within)
    text = f"the API server broke off its answer to {shown(path)}"
    return Silence(text, hint="did it restart? look with `crictl ps`", again=True)


def _late(path: str, within: float) -> Silence:
    """Say that an answer took longer than ``within`` seconds. The next would not be quicker."""
    text = f"the API server gave no answer to {shown(path)} within {within:g} s"
    return Silence(text, hint="look at its load, or raise [kubernetes] answer")


def _tls_trouble(error: Any) -> tuple[str, str]:
    if hasattr(error, "verify_message"):
        why = f"its certificate cannot be trusted: {error.verify_message.rstrip('.')}"
        return why, "is the kubeconfig's authority that of this cluster?"
    if error.reason in _NO_TLS:
        return "it does not speak TLS", "is that an API server?"
    why = f"it refused our certificate: {str(error.reason).lower().replace('_', ' ')}"
    return why, "renew the kubeconfig: `kubeadm certs renew admin.conf`"


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__ or cause.__context__
