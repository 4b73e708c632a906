"""TLS to the API server: whom we trust, as whom we come, and an end to every answer. Imported late: `ssl` is slow."""

import math
import os
import ssl
import time
from typing import Any, cast

from edgedr.node.kube_trouble import Silence
from edgedr.node.kubeconfig import KubeAccess


class Tls(ssl.SSLContext):
    """Trusts the cluster's authority alone, and shows our certificate."""

    until = math.inf
    """Monotonic time at which no answer is read on, however busily it trickles."""


class _Socket(ssl.SSLSocket):
    """Reads until its context's ``until``: a timeout for each read alone lets a byte now and then go on for ever."""

    def recv_into(self, *args: Any, **options: Any) -> int:
        left = cast("Tls", self.context).until - time.monotonic()
        if left <= 0:
            raise TimeoutError("it trickled")
        self.settimeout(min(left, self.gettimeout() or left))
        return super().recv_into(*args, **options)


def open_tls(access: KubeAccess) -> Tls:
    """Make ready to speak TLS. Raises ``KubeError`` for certificates and keys that cannot be used.

    OpenSSL reads a key from a path only. That of the cluster's administrator must not lie in /tmp, so it is a file in
    memory, and gone when this returns.
    """
    tls = Tls(ssl.PROTOCOL_TLS_CLIENT)
    tls.sslsocket_class = _Socket
    tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as in Go: the authority may be an intermediate one
    try:
        if access.ca is None:
            tls.load_default_certs()
        else:
            tls.load_verify_locations(cadata=access.ca.decode("ascii"))
        if access.cert is not None:
            with os.fdopen(os.memfd_create("edgedr", os.MFD_CLOEXEC), "wb") as file:
                file.write(b"\n".join(dict.fromkeys((access.cert, access.key or b""))))  # the kubelet's are one file
                file.flush()
                tls.load_cert_chain(f"/proc/self/fd/{file.fileno()}", password=b"")  # or it would ask the terminal
    except (OSError, ValueError) as error:
        hint = "is it whole? [kubernetes] kubeconfig names another"
        raise Silence("a certificate or key of the kubeconfig cannot be used", hint=hint, down=True) from error
    return tls
