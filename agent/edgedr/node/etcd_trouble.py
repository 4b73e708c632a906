"""Why an etcd member cannot be reached, in words that an operator can act on.

gRPC says ``UNAVAILABLE`` for all of it; a second look with plain sockets and TLS tells the cases apart.
"""

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgedr.errors import ConfigurationError, SourceError

if TYPE_CHECKING:
    import ssl

_SECONDS = 3.0


def check_certificates(ca: Path | None, cert: Path | None, key: Path | None) -> None:
    """Make sure that the files can be read and used together; ``SourceError`` names the one that cannot."""
    if (cert is None) != (key is None):
        alone = f"client certificate {cert} has no key" if cert else f"client key {key} has no certificate"
        raise ConfigurationError(alone, hint="set [sources.etcd] cert and key, both or neither")
    for path in (ca, cert, key):
        if path is None:
            continue
        try:
            path.read_bytes()
        except OSError as error:
            raise SourceError(
                f"cannot read {path}: {error.strerror}", hint="run as root, or set [sources.etcd] ca, cert and key"
            ) from error
    _context(ca, cert, key)


def why_unreachable(
    endpoint: str, ca: Path | None, cert: Path | None, key: Path | None, *, fallback: str
) -> SourceError:
    """Look once more with plain means; ``fallback`` is the word of the client when that finds nothing wrong."""
    import socket  # noqa: PLC0415 - slow to import, and only trouble needs it
    import ssl  # noqa: PLC0415

    url = urlsplit(endpoint)
    host, port = url.hostname or "", url.port or 0
    try:
        with socket.create_connection((host, port), timeout=_SECONDS) as connection:
            if url.scheme == "https":
                with _context(ca, cert, key).wrap_socket(connection, server_hostname=host) as tls:
                    tls.recv(1)  # with TLS 1.3 a refused client certificate shows only here
    except ssl.SSLError as error:
        return _tls_trouble(endpoint, ca, cert, error)
    except ConnectionRefusedError:
        what, hint = "nothing listens there", "is etcd running? look with crictl ps, or systemctl status etcd"
    except TimeoutError:
        what, hint = "it does not answer", "its process hangs, or a firewall drops packets"
    except OSError as error:
        what, hint = str(error.strerror or error).lower(), "look at the network and at name resolution"
    else:
        what = fallback
        hint = "look at its log" if url.scheme == "https" else "if it wants TLS, write the endpoint with https://"
    return SourceError(f"cannot reach etcd at {endpoint}: {what}", hint=hint)


def _tls_trouble(endpoint: str, ca: Path | None, cert: Path | None, error: "ssl.SSLError") -> SourceError:
    import ssl  # noqa: PLC0415

    reason = (error.reason or str(error)).lower().replace("_", " ")
    if isinstance(error, ssl.SSLCertVerificationError):
        return SourceError(
            f"etcd at {endpoint} shows a certificate that cannot be trusted: {error.verify_message}",
            hint=f"is {ca or 'an authority of this system'} the authority of this cluster's etcd, and up to date?",
        )
    if "wrong version" in reason or "record layer" in reason:
        return SourceError(f"{endpoint} speaks no TLS", hint="write the endpoint with http://, or turn on etcd's TLS")
    if "alert" in reason:  # the other side refused: it says so with an alert
        shown = f"the client certificate {cert}" if cert else "us without a client certificate"
        return SourceError(
            f"etcd at {endpoint} refused {shown}: {reason}",
            hint="set [sources.etcd] cert and key to a pair that the authority in etcd's --trusted-ca-file signed",
        )
    return SourceError(f"no TLS with {endpoint}: {reason}", hint="look at etcd's log")


def _context(ca: Path | None, cert: Path | None, key: Path | None) -> "ssl.SSLContext":
    import ssl  # noqa: PLC0415

    try:
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
    except ssl.SSLError as error:
        raise SourceError(
            f"{ca} holds no certificate", hint="it must be PEM, the authority of etcd's servers"
        ) from error
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # on by default from Python 3.13; gRPC, whom this explains, is not
    context.set_alpn_protocols(["h2"])
    if cert and key:
        try:
            context.load_cert_chain(cert, key, password="")  # a locked key must not ask at a terminal
        except ssl.SSLError as error:
            raise SourceError(
                f"{cert} and {key} cannot be used together: {(error.reason or str(error)).lower().replace('_', ' ')}",
                hint="they must be PEM, without a passphrase, and belong to each other",
            ) from error
    return context
