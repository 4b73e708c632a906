"""Where each distribution keeps what: data, not code. All paths are absolute on the node; globs are allowed."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layout:
    """One distribution. ``marker`` is the path whose presence tells that it runs here.

    ``essential`` are the paths without which what comes back is another cluster: authorities and token keys. One that
    is not there, because it is kept elsewhere on purpose, is still worth a finding.
    """

    name: str
    marker: str
    certificates: tuple[str, ...]
    files: tuple[str, ...]
    etcd_manifest: str | None
    apiserver_manifest: str | None
    essential: tuple[str, ...] = ()


_PKI = "/etc/kubernetes/pki"

KUBEADM = Layout(
    name="kubeadm",
    marker="/etc/kubernetes/manifests/kube-apiserver.yaml",
    certificates=(_PKI, "/etc/kubernetes/*.conf", "/var/lib/kubelet/pki"),
    files=(
        "/etc/kubernetes",
        "/var/lib/kubelet/config.yaml",
        "/var/lib/kubelet/config.d",
        "/var/lib/kubelet/instance-config.yaml",
        "/var/lib/kubelet/kubeadm-flags.env",
        "/etc/default/kubelet",
        "/etc/sysconfig/kubelet",
        "/etc/systemd/system/kubelet.service",
        "/etc/systemd/system/kubelet.service.d",
        "/usr/lib/systemd/system/kubelet.service.d",
        "/etc/systemd/system/containerd.service.d",
        "/etc/containerd",
        "/etc/crio",
        "/etc/crictl.yaml",
        "/etc/cni/net.d",
        "/etc/haproxy",
        "/etc/keepalived",
    ),
    etcd_manifest="/etc/kubernetes/manifests/etcd.yaml",
    apiserver_manifest="/etc/kubernetes/manifests/kube-apiserver.yaml",
    essential=(
        f"{_PKI}/ca.crt",
        f"{_PKI}/ca.key",
        f"{_PKI}/etcd/ca.crt",
        f"{_PKI}/etcd/ca.key",
        f"{_PKI}/front-proxy-ca.crt",
        f"{_PKI}/front-proxy-ca.key",
        f"{_PKI}/sa.key",
        f"{_PKI}/sa.pub",
    ),
)

UNKNOWN = Layout(name="unknown", marker="/", certificates=(), files=(), etcd_manifest=None, apiserver_manifest=None)

LAYOUTS: tuple[Layout, ...] = (KUBEADM,)


def why_unknown(root: Path) -> str:
    """Say what was looked for below ``root`` where no layout was found."""
    looked = "; ".join(f"no {layout.name} layout: {layout.marker} is not there" for layout in LAYOUTS)
    return f"below {root} there is {looked}"
