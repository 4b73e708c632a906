"""A whole control plane: genuine files of a kubeadm node, a real etcd with its genuine data, and its API beside it.

The node's ``/`` is a directory; it passes for the running machine's, so that commands are answered by this one.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgedr.node.kube import KubeSettings
from tests.lab import kubeadm
from tests.lab.apiserver import ApiServer
from tests.lab.etcd import EtcdCluster
from tests.lab.hardware import put, write_machine
from tests.lab.operator import Operator

_BOOT_ID = "proc/sys/kernel/random/boot_id"
_PACKAGES = "".join(
    f"Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n\n"
    for name, version in (("kubelet", "1.36.2-1.1"), ("kubeadm", "1.36.2-1.1"), ("containerd", "2.1.4-1"))
)


_FAST = f"requests_per_second = {KubeSettings().requests_per_second * 100}"


@dataclass
class ControlPlane:
    """Its node's ``/``, its etcd and its API server."""

    root: Path
    etcd: EtcdCluster
    api: ApiServer

    def configure(self, config: Path) -> None:
        """Say in a configuration that ``edgedr init`` wrote where these servers are."""
        text = config.read_text()
        text = text.replace("[kubernetes]", f"[kubernetes]\nserver = {json.dumps(self.api.url)}\n{_FAST}")
        text = text.replace("[sources.etcd]", f"[sources.etcd]\nendpoints = {json.dumps(self.etcd.endpoints)}")
        config.write_text(text)


@contextmanager
def control_plane(root: Path, directory: Path) -> Iterator[ControlPlane]:
    """Run one whose node has its files below ``root``, as kubeadm left them; its servers use ``directory``."""
    etcd = EtcdCluster(directory / "etcd")
    shutil.rmtree(etcd.root)
    etcd.root.symlink_to(root)  # its certificates are the node's own
    etcd.members[0].restore(kubeadm.datastore(directory / "genuine.db"))
    etcd.start()
    write_machine(root)
    put(root, "/var/lib/dpkg/status", _PACKAGES)
    put(root, f"/{_BOOT_ID}", (Path("/") / _BOOT_ID).read_bytes())
    try:
        with ApiServer(root / "etc/kubernetes/pki") as api:
            yield ControlPlane(root, etcd, api)
    finally:
        etcd.stop()


@dataclass
class Operated(ControlPlane):
    """A control plane with somebody at its node's terminal, who has set edgedr up."""

    operator: Operator

    def transfer(self, server: str, zone: str, key: str, secret: str, kept: Path) -> None:
        """Let the configuration ask a name server for a zone, with a key whose secret is kept in a file."""
        kept.write_text(secret)
        lines = (f'server = "{server}"', f'zones = ["{zone}"]', f'key = "{key}"', f'secret = "file:{kept}"')
        config = self.operator.config
        config.write_text("\n".join((config.read_text(), "[[sources.dns.transfers]]", *lines, "")))


@contextmanager
def operated(directory: Path) -> Iterator[Operated]:
    """Run one, with somebody at its terminal."""
    operator = Operator(directory)
    with control_plane(operator.root, directory) as plane:
        operator.run(*operator.init_words(), "--unproven")
        plane.configure(operator.config)
        yield Operated(plane.root, plane.etcd, plane.api, operator)
