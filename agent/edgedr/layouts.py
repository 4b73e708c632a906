"""Where each distribution keeps what: data, not code. All paths are absolute on the node; globs are allowed."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Layout:
    """One distribution. ``marker`` is the path whose presence tells that it runs here."""

    name: str
    marker: str
    certificates: tuple[str, ...]
    files: tuple[str, ...]
    etcd_manifest: str | None
    apiserver_manifest: str | None


KUBEADM = Layout(
    name="kubeadm",
    marker="/etc/kubernetes/manifests/kube-apiserver.yaml",
    certificates=("/etc/kubernetes/pki", "/etc/kubernetes/*.conf", "/var/lib/kubelet/pki"),
    files=(
        "/etc/kubernetes",
        "/var/lib/kubelet/config.yaml",
        "/var/lib/kubelet/instance-config.yaml",
        "/var/lib/kubelet/kubeadm-flags.env",
        "/etc/default/kubelet",
        "/etc/sysconfig/kubelet",
        "/etc/systemd/system/kubelet.service.d",
        "/usr/lib/systemd/system/kubelet.service.d",
        "/etc/containerd",
        "/etc/crictl.yaml",
        "/etc/cni/net.d",
        "/etc/haproxy",
        "/etc/keepalived",
    ),
    etcd_manifest="/etc/kubernetes/manifests/etcd.yaml",
    apiserver_manifest="/etc/kubernetes/manifests/kube-apiserver.yaml",
)

UNKNOWN = Layout(name="unknown", marker="/", certificates=(), files=(), etcd_manifest=None, apiserver_manifest=None)

LAYOUTS: tuple[Layout, ...] = (KUBEADM,)
