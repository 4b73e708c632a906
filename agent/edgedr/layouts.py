"""Where each distribution keeps what: data, not code. All paths are absolute on the node; globs are allowed.

Every field of a layout may be set in ``[layout]``; what is not set there is found.
"""

from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Essential:
    """A path without which a restore brings back less, and what its loss means.

    ``kept_apart``: one that may be kept elsewhere on purpose, as the keys of an external authority are. ``of_etcd``:
    only where a member of etcd lives on the node. ``of_agent``: only where the server runs an agent too.
    """

    path: str
    loss: str
    kept_apart: bool = False
    of_etcd: bool = False
    of_agent: bool = False


class Datastore(StrEnum):
    """Where the cluster keeps its objects."""

    STACKED_ETCD = "stacked etcd"
    EXTERNAL_ETCD = "external etcd"
    EMBEDDED_ETCD = "embedded etcd"
    SQLITE = "SQLite"
    EXTERNAL_DATABASE = "external database"
    UNKNOWN = "unknown datastore"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One distribution. ``marker`` is the path whose presence tells that it runs here.

    ``data_dir`` is the directory that an option of the distribution moves, with all paths below it. ``pods`` is the
    directory of static pod manifests. ``config`` are files with the distribution's own options, ``units`` those with
    its command line and its environment; of both, a later one counts. ``etcd_data`` tells by its presence that an etcd
    member lives here, ``etcd_name`` is a file with its name. ``leftovers`` are what upgrades leave among ``files``:
    large, and of an old state. ``essential`` are the paths without which what comes back is another cluster, or less
    of it.
    """

    name: str
    marker: str
    data_dir: str | None = None
    certificates: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()
    credentials: tuple[str, ...] = ()
    token: str | None = None
    encryption: str | None = None
    signing_keys: tuple[str, ...] = ()
    config: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    pods: str | None = None
    etcd_manifest: str | None = None
    apiserver_manifest: str | None = None
    etcd_data: str | None = None
    etcd_name: str | None = None
    etcd_endpoint: str | None = None
    etcd_ca: str | None = None
    etcd_cert: str | None = None
    etcd_key: str | None = None
    sqlite: str | None = None
    kubeconfig: tuple[str, ...] = ()
    essential: tuple[Essential, ...] = ()

    @property
    def is_known(self) -> bool:
        """Whether a distribution was found at all."""
        return self.name != UNKNOWN.name

    def below(self, data_dir: str) -> "Layout":
        """Return the same layout with its data directory moved."""
        if self.data_dir is None or data_dir == self.data_dir:
            return self
        old, new = self.data_dir.rstrip("/"), data_dir.rstrip("/")

        def moved(value: object) -> object:
            match value:
                case str() if value == old or value.startswith(f"{old}/"):
                    return new + value[len(old) :]
                case tuple():
                    return tuple(moved(item) for item in value)
                case Essential():
                    return replace(value, path=str(moved(value.path)))
                case _:
                    return value

        changes = {each.name: moved(getattr(self, each.name)) for each in fields(self) if each.name != "name"}
        return replace(self, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutSettings:
    """``[layout]``: what to believe instead of what is found. All paths are absolute on the node."""

    name: str | None = None
    data_dir: str | None = None
    certificates: tuple[str, ...] | None = None
    files: tuple[str, ...] | None = None
    credentials: tuple[str, ...] | None = None
    token: str | None = None
    encryption: str | None = None
    signing_keys: tuple[str, ...] | None = None
    config: tuple[str, ...] | None = None
    units: tuple[str, ...] | None = None
    pods: str | None = None
    etcd_manifest: str | None = None
    apiserver_manifest: str | None = None
    etcd_data: str | None = None
    etcd_name: str | None = None
    sqlite: str | None = None

    def over(self, layout: Layout) -> Layout:
        """Return ``layout`` with what is set here in its place."""
        moved = layout.below(self.data_dir) if self.data_dir else layout
        settable = [each.name for each in fields(self) if each.name not in {"name", "data_dir"}]
        given = {name: getattr(self, name) for name in settable if getattr(self, name) is not None}
        return replace(moved, **given) if given else moved


_CA_KEY = "no certificate can be issued or renewed; without it every node has to join anew"
_ETCD_KEY = "etcd's certificates cannot be renewed, and no member can be added"
_PROXY_KEY = "the certificate that the API server shows to aggregated APIs cannot be renewed"
_CA = "nothing that it signed is trusted any more: another cluster comes back"
_TOKENS = "every service account token becomes invalid: pods get 401 until each is made anew"
_TOKENS_CHECK = "no token is accepted until it is made again: openssl pkey -in sa.key -pubout -out sa.pub"

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
    leftovers=("/etc/kubernetes/tmp",),
    signing_keys=(f"{_PKI}/sa.key", f"{_PKI}/sa.pub"),
    pods="/etc/kubernetes/manifests",
    etcd_manifest="/etc/kubernetes/manifests/etcd.yaml",
    apiserver_manifest="/etc/kubernetes/manifests/kube-apiserver.yaml",
    etcd_data="/etc/kubernetes/manifests/etcd.yaml",
    etcd_ca=f"{_PKI}/etcd/ca.crt",
    kubeconfig=("/etc/kubernetes/super-admin.conf", "/etc/kubernetes/admin.conf"),
    essential=(
        Essential(f"{_PKI}/ca.crt", _CA),
        Essential(f"{_PKI}/ca.key", _CA_KEY, kept_apart=True),
        Essential(f"{_PKI}/etcd/ca.crt", _CA, of_etcd=True),
        Essential(f"{_PKI}/etcd/ca.key", _ETCD_KEY, kept_apart=True, of_etcd=True),
        Essential(f"{_PKI}/front-proxy-ca.crt", _CA),
        Essential(f"{_PKI}/front-proxy-ca.key", _PROXY_KEY, kept_apart=True),
        Essential(f"{_PKI}/sa.key", _TOKENS),
        Essential(f"{_PKI}/sa.pub", _TOKENS_CHECK),
    ),
)


def _rancher(name: str, pods: str | None) -> Layout:
    """Return the layout of k3s or rke2: one family, which keeps the same things below its own name."""
    data, etc = f"/var/lib/rancher/{name}", f"/etc/rancher/{name}"
    server = f"{data}/server"
    tls, unit = f"{server}/tls", "k3s" if name == "k3s" else "rke2-server"
    authorities = ("server-ca", "client-ca", "request-header-ca", "etcd/server-ca", "etcd/peer-ca")
    return Layout(
        name=name,
        marker=f"{server}/tls" if pods is None else f"{server}/cred",
        data_dir=data,
        certificates=(tls, f"{etc}/{name}.yaml", f"{server}/cred/*.kubeconfig"),
        files=(
            etc,
            f"{server}/manifests",
            f"{data}/agent/etc/containerd/*.tmpl",
            f"{data}/agent/etc/cni/net.d",
            f"{data}/agent/pod-manifests",
            "/var/lib/rancher/credentialprovider/config.yaml",
            f"/etc/systemd/system/{unit}.service",
            f"/etc/systemd/system/{unit}.service.d",
            f"/etc/systemd/system/{unit}.service.env",
            f"/usr/local/lib/systemd/system/{unit}*",
            f"/usr/lib/systemd/system/{unit}.service",
            f"/usr/lib/systemd/system/{unit}.env",
            f"/etc/init.d/{unit}",
            f"/etc/default/{unit}",
            f"/etc/sysconfig/{unit}",
        ),
        credentials=(f"{server}/token", f"{server}/node-token", f"{server}/agent-token", f"{server}/cred",
                     "/etc/rancher/node/password"),
        token=f"{server}/token",
        encryption=f"{server}/cred/encryption-config.json",
        signing_keys=(f"{tls}/service.key", f"{tls}/service.current.key"),
        config=(f"{etc}/config.yaml", f"{etc}/config.yaml.d/*.y*ml"),
        units=(
            f"/usr/lib/systemd/system/{unit}.service",
            f"/usr/local/lib/systemd/system/{unit}.service",
            f"/etc/systemd/system/{unit}.service",
            f"/etc/systemd/system/{unit}.service.d/*.conf",
            f"/etc/default/{unit}",
            f"/etc/sysconfig/{unit}",
            f"/etc/systemd/system/{unit}.service.env",
            f"/usr/lib/systemd/system/{unit}.env",
            f"/usr/local/lib/systemd/system/{unit}.env",
            f"{etc}/{name}.env",
        ),
        pods=pods,
        etcd_manifest=f"{pods}/etcd.yaml" if pods else None,
        apiserver_manifest=f"{pods}/kube-apiserver.yaml" if pods else None,
        etcd_data=f"{server}/db/etcd/member/wal",
        etcd_name=f"{server}/db/etcd/name",
        etcd_endpoint="https://127.0.0.1:2379",
        etcd_ca=f"{tls}/etcd/server-ca.crt",
        etcd_cert=f"{tls}/etcd/client.crt",
        etcd_key=f"{tls}/etcd/client.key",
        sqlite=f"{server}/db/state.db" if name == "k3s" else None,
        kubeconfig=(f"{server}/cred/admin.kubeconfig", f"{etc}/{name}.yaml"),
        essential=(
            *(Essential(f"{tls}/{stem}.crt", _CA, of_etcd=stem.startswith("etcd/")) for stem in authorities),
            *(Essential(f"{tls}/{stem}.key", _CA_KEY, of_etcd=stem.startswith("etcd/")) for stem in authorities),
            Essential(f"{tls}/service.key", _TOKENS),
            Essential(f"{server}/token", "the datastore's bootstrap data stays closed: no server starts from it"),
            Essential(f"{server}/cred/passwd", "servers and agents cannot log in to each other"),
            Essential("/etc/rancher/node/password", "the node is turned away until its node-password Secret is gone",
                      of_agent=True),
        ),
    )  # fmt: skip


K3S = _rancher("k3s", pods=None)
RKE2 = _rancher("rke2", pods="/var/lib/rancher/rke2/agent/pod-manifests")

UNKNOWN = Layout(name="unknown", marker="/")
"""No layout was found: only what is configured is captured."""

LAYOUTS: tuple[Layout, ...] = (KUBEADM, RKE2, K3S)


def why_unknown(root: Path) -> str:
    """Say what was looked for below ``root`` where no layout was found."""
    looked = "; ".join(f"no {layout.name} layout: {layout.marker} is not there" for layout in LAYOUTS)
    return f"below {root} there is {looked}"
