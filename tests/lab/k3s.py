"""A server node as k3s or rke2 leaves it: its certificates, token, credentials, configuration, and its datastore.

``build(root)`` makes one with SQLite; ``K3sNode.keys()`` are the keys that its datastore holds, for a real etcd too.
"""

import base64
import functools
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edgedr.node.files import Files
from edgedr.node.node import Node
from edgedr.wiring import find_layout
from tests.lab import kine
from tests.lab.pki import CLIENT, SERVER, Authority

Name = Literal["k3s", "rke2"]
Kept = Literal["sqlite", "etcd", "external"]

_BORN = 1_577_836_800  # 2020-01-01: k3s puts the second into the names of its authorities
_SEALED = b"k8s:enc:aescbc:v1:aescbckey:"
_BOOTSTRAP = {
    "ServerCA": "tls/server-ca.crt",
    "ServerCAKey": "tls/server-ca.key",
    "ClientCA": "tls/client-ca.crt",
    "ClientCAKey": "tls/client-ca.key",
    "RequestHeaderCA": "tls/request-header-ca.crt",
    "RequestHeaderCAKey": "tls/request-header-ca.key",
    "ETCDServerCA": "tls/etcd/server-ca.crt",
    "ETCDServerCAKey": "tls/etcd/server-ca.key",
    "ETCDPeerCA": "tls/etcd/peer-ca.crt",
    "ETCDPeerCAKey": "tls/etcd/peer-ca.key",
    "ServiceKey": "tls/service.key",
    "PasswdFile": "cred/passwd",
    "IPSECKey": "cred/ipsec.psk",
    "EncryptionConfig": "cred/encryption-config.json",
    "EncryptionHash": "cred/encryption-state.json",
}
"""What a server saves into the datastore, sealed by its token, so that a further server can start from it."""


@dataclass(frozen=True)
class K3sNode:
    """A server node below ``root``. ``data_dir`` is its path on the node."""

    root: Path
    name: Name
    data_dir: str
    host: str = "server-1"
    password: str = "e3b0c44298fc1c149afbf4c8996fb924"
    encryption_key: bytes = field(default_factory=lambda: os.urandom(32))

    @property
    def server(self) -> Path:
        """Its server directory, as this machine sees it."""
        return self.at(f"{self.data_dir}/server")

    @property
    def database(self) -> Path:
        """Its SQLite datastore, as this machine sees it."""
        return self.server / "db/state.db"

    @property
    def token(self) -> str:
        """What lets a server join, and opens the bootstrap data."""
        digest = hashlib.sha256((self.server / "tls/server-ca.crt").read_bytes()).hexdigest()
        return f"K10{digest}::server:{self.password}"

    def at(self, path: str) -> Path:
        """Return where a path of the node is on this machine."""
        return self.root / path.lstrip("/")

    def node(self) -> Node:
        """Return the machine, with the layout that is found on it."""
        files = Files(self.root)
        return Node(files, find_layout(files))

    def write(self, path: str, content: str | bytes, mode: int = 0o600) -> None:
        """Write a file of the node."""
        at = self.at(path)
        at.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        at.write_bytes(content.encode() if isinstance(content, str) else content)
        at.chmod(mode)

    def keys(self) -> dict[bytes, bytes]:
        """Return what its datastore holds: objects, Secrets encrypted at rest, the bootstrap data."""
        found = {f"/registry/configmaps/default/settings-{n}": _object("ConfigMap", f"settings-{n}") for n in range(40)}
        found |= {f"/registry/pods/default/web-{n}": _object("Pod", f"web-{n}", size=1500) for n in range(60)}
        found["/registry/namespaces/default"] = _object("Namespace", "default")
        found[f"/registry/minions/{self.host}"] = _object("Node", self.host)
        found["/registry/masterleases/10.77.0.21"] = _object("Endpoints", "10.77.0.21")
        found["/registry/health"] = b'{"health":"true"}'
        for name in ("default/db-password", f"kube-system/{self.host}.node-password.{self.name}", "kube-system/tls"):
            key = f"/registry/secrets/{name}"
            found[key] = self.sealed(key, _object("Secret", name.rpartition("/")[2]))
        digest = hashlib.sha256(self.password.encode()).hexdigest()[:12]
        found[f"/bootstrap/{digest}"] = self.bootstrap()
        return {key.encode(): value for key, value in found.items()}

    def sealed(self, key: str, value: bytes) -> bytes:
        """Encrypt a value as the API server does, with the key of ``encryption-config.json``; the same each time."""
        vector = hashlib.sha256(key.encode()).digest()[:16]
        padder = padding.PKCS7(128).padder()
        encryptor = Cipher(algorithms.AES(self.encryption_key), modes.CBC(vector)).encryptor()
        return _SEALED + vector + encryptor.update(padder.update(value) + padder.finalize()) + encryptor.finalize()

    def bootstrap(self) -> bytes:
        """Seal what a further server needs with the token's password; the same each time."""
        content = {
            name: {"Timestamp": "2020-01-01T00:00:00Z", "Content": base64.b64encode(path.read_bytes()).decode()}
            for name, path in ((name, self.server / part) for name, part in _BOOTSTRAP.items())
        }
        salt, nonce = "8f2b5e0c9d417a36", bytes(range(12))
        key = PBKDF2HMAC(hashes.SHA1(), 32, salt.encode(), 4096).derive(self.password.encode())
        sealed = nonce + AESGCM(key).encrypt(nonce, json.dumps(content).encode(), None)
        return f"{salt}:{base64.b64encode(sealed).decode()}".encode()


def build(root: Path, *, name: Name = "k3s", datastore: Kept = "sqlite", data_dir: str | None = None) -> K3sNode:
    """Lay a server node below ``root``. With ``etcd``, whoever calls fills a real one with ``K3sNode.keys()``."""
    made = K3sNode(root, name, data_dir or f"/var/lib/rancher/{name}")
    _write_certificates(made)
    _write_credentials(made)
    _write_configuration(made, datastore, moved=data_dir is not None)
    if name == "rke2":
        _write_pods(made)
    if datastore == "sqlite":
        made.database.parent.mkdir(mode=0o700)
        kine.create(made.database, made.keys())
    if datastore == "etcd":
        for part in ("member/wal", "member/snap"):
            (made.server / "db/etcd" / part).mkdir(parents=True, mode=0o700)
        etcd = f"{made.data_dir}/server/db/etcd"
        made.write(f"{etcd}/name", f"{made.host}-1a2b3c4d")
        urls = "https://127.0.0.1:2379,https://10.77.0.21:2379"
        made.write(f"{etcd}/config", f"name: {made.host}-1a2b3c4d\ndata-dir: {etcd}\nlisten-client-urls: {urls}\n")
    return made


@contextmanager
def hammered(database: Path) -> Iterator["subprocess.Popen[str]"]:
    """Let another process write to a datastore as fast as it can, and never wait for a lock, until the block ends.

    It fails the test where it was kept from writing.
    """
    command = [sys.executable, "-m", "tests.lab.kine", str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        try:
            yield process
        finally:
            process.communicate(timeout=60)
    assert process.returncode in {0, -9}, "the writer was kept from writing"


def _write_certificates(node: K3sNode) -> None:
    tls, name = node.server / "tls", node.name
    authorities = {
        stem: Authority.make(f"{prefix}-ca@{_BORN}")
        for stem, prefix in (
            ("server-ca", f"{name}-server"),
            ("client-ca", f"{name}-client"),
            ("request-header-ca", f"{name}-request-header"),
            ("etcd/server-ca", "etcd-server"),
            ("etcd/peer-ca", "etcd-peer"),
        )
    }
    for stem, authority in authorities.items():
        authority.write(tls / stem)
    for stem in ("server-ca", "client-ca"):
        (tls / f"{stem}.nochain.crt").write_bytes((tls / f"{stem}.crt").read_bytes())
    masters = "system:masters"
    for stem, common, organization in (
        ("client-admin", "system:admin", masters),
        ("client-supervisor", f"system:{name}-supervisor", masters),
        ("client-controller", "system:kube-controller-manager", None),
        ("client-scheduler", "system:kube-scheduler", None),
        ("client-kube-apiserver", "system:apiserver", masters),
        ("client-kube-proxy", "system:kube-proxy", None),
        (f"client-{name}-controller", f"system:{name}-controller", None),
        (f"client-{name}-cloud-controller", f"{name}-cloud-controller-manager", None),
    ):
        authorities["client-ca"].issue(tls / stem, common, CLIENT, organization=organization)
    names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
    here = (node.host, "localhost", "127.0.0.1", "10.77.0.21")
    authorities["server-ca"].issue(tls / "serving-kube-apiserver", "kube-apiserver", SERVER, sans=(*names, *here))
    authorities["request-header-ca"].issue(tls / "client-auth-proxy", "system:auth-proxy", CLIENT)
    members = authorities["etcd/server-ca"], authorities["etcd/peer-ca"]
    members[0].issue(tls / "etcd/client", "etcd-client", CLIENT)
    members[0].issue(tls / "etcd/server-client", "etcd-server", SERVER, CLIENT, sans=("kine.sock", *here))
    members[1].issue(tls / "etcd/peer-server-client", "etcd-peer", SERVER, CLIENT, sans=("kine.sock", *here))
    for leaf in (*tls.glob("client-*.crt"), *tls.glob("serving-*.crt"), *tls.glob("etcd/*client.crt")):
        if "-ca." not in leaf.name:  # a leaf's file holds its authority too
            signer = next(each for each in authorities.values() if _signed(each, leaf))
            leaf.write_bytes(leaf.read_bytes() + signer.certificate.public_bytes(Encoding.PEM))
    for kind in ("service.key", "service.current.key"):
        node.write(f"{node.data_dir}/server/tls/{kind}", _service_key())


def _signed(authority: Authority, leaf: Path) -> bool:
    return x509.load_pem_x509_certificate(leaf.read_bytes()).issuer == authority.certificate.subject


def _write_credentials(node: K3sNode) -> None:
    server, name, cred = f"{node.data_dir}/server", node.name, f"{node.data_dir}/server/cred"
    node.write(f"{server}/token", f"{node.token}\n")
    for link in ("node-token", "agent-token"):
        node.at(f"{server}/{link}").symlink_to(f"{server}/token")
    passwd = f"{node.password},node,node,{name}:agent\n{node.password},server,server,{name}:server\n"
    node.write(f"{cred}/passwd", passwd)
    node.write(f"{cred}/ipsec.psk", "5a" * 48 + "\n")
    key = {"name": "aescbckey", "secret": base64.b64encode(node.encryption_key).decode()}
    encryption = {
        "kind": "EncryptionConfiguration",
        "apiVersion": "apiserver.config.k8s.io/v1",
        "resources": [{"resources": ["secrets"], "providers": [{"aescbc": {"keys": [key]}}, {"identity": {}}]}],
    }
    text = json.dumps(encryption)
    node.write(f"{cred}/encryption-config.json", text)
    node.write(f"{cred}/encryption-state.json", "start-" + hashlib.sha256(text.encode()).hexdigest())
    for who, pair in (
        ("admin", "client-admin"),
        ("supervisor", "client-supervisor"),
        ("controller", "client-controller"),
        ("scheduler", "client-scheduler"),
        ("api-server", "client-kube-apiserver"),
        ("cloud-controller", f"client-{name}-cloud-controller"),
    ):
        client = {"client-certificate": f"{server}/tls/{pair}.crt", "client-key": f"{server}/tls/{pair}.key"}
        node.write(f"{cred}/{who}.kubeconfig", _kubeconfig(f"{server}/tls/server-ca.crt", client))
    node.write("/etc/rancher/node/password", "0f1e2d3c4b5a69788796a5b4c3d2e1f0\n")


def _write_configuration(node: K3sNode, datastore: Kept, *, moved: bool) -> None:
    etc, tls, name = f"/etc/rancher/{node.name}", node.server / "tls", node.name
    lines = ["write-kubeconfig-mode: '0600'", "secrets-encryption: true", "tls-san:", "- 10.77.0.21"]
    if moved:
        lines.append(f"data-dir: {node.data_dir}")
    if datastore == "external":
        lines.append("datastore-endpoint: mysql://k3s:canary-of-the-database@tcp(10.77.0.9:3306)/k3s")
    if name == "k3s" and datastore == "etcd":
        lines.append("cluster-init: true")
    node.write(f"{etc}/config.yaml", "\n".join(lines) + "\n")
    node.write(f"{etc}/registries.yaml", "mirrors:\n  docker.io:\n    endpoint: ['https://registry.site:5000']\n")
    data = {
        f"{kind}-data": base64.b64encode((tls / file).read_bytes()).decode()
        for kind, file in (("client-certificate", "client-admin.crt"), ("client-key", "client-admin.key"))
    }
    authority = base64.b64encode((tls / "server-ca.crt").read_bytes()).decode()
    node.write(f"{etc}/{name}.yaml", _kubeconfig(authority, data))
    node.write(f"{node.data_dir}/agent/etc/containerd/config.toml.tmpl", '{{ template "base" . }}\n', 0o644)
    node.write(f"{node.data_dir}/server/manifests/coredns.yaml", "kind: ConfigMap\nmetadata: {name: coredns}\n")
    if name == "k3s":
        environment = ("/etc/default/%N", "/etc/sysconfig/%N", "/etc/systemd/system/k3s.service.env")
        command = "/usr/local/bin/k3s \\\n    server \\\n"
        node.write("/etc/systemd/system/k3s.service", _unit(environment, command), 0o644)
        node.write("/etc/systemd/system/k3s.service.env", "")
    else:
        lib = "/usr/local/lib/systemd/system"
        environment = ("/etc/default/%N", "/etc/sysconfig/%N", f"{lib}/%N.env")
        node.write(f"{lib}/rke2-server.service", _unit(environment, "/usr/local/bin/rke2 server"), 0o644)
        node.write(f"{lib}/rke2-server.env", "HOME=/root\n")


def _write_pods(node: K3sNode) -> None:
    server, pods = f"{node.data_dir}/server", f"{node.data_dir}/agent/pod-manifests"
    apiserver = (
        "--etcd-servers=https://127.0.0.1:2379",
        f"--etcd-cafile={server}/tls/etcd/server-ca.crt",
        f"--encryption-provider-config={server}/cred/encryption-config.json",
        f"--service-account-signing-key-file={server}/tls/service.current.key",
        f"--service-account-key-file={server}/tls/service.key",
        f"--tls-cert-file={server}/tls/serving-kube-apiserver.crt",
    )
    for name, arguments in (("etcd", (f"--config-file={server}/db/etcd/config",)), ("kube-apiserver", apiserver)):
        container = {"name": name, "image": f"index.docker.io/rancher/{name}:v1.32.0", "command": [name]}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "kube-system"},
            "spec": {"hostNetwork": True, "containers": [{**container, "args": list(arguments)}]},
        }
        node.write(f"{pods}/{name}.yaml", json.dumps(pod, indent=1))


def _unit(environment: tuple[str, ...], command: str) -> str:
    files = "\n".join(f"EnvironmentFile=-{path}" for path in environment)
    before = "ExecStartPre=-/sbin/modprobe br_netfilter"
    return f"[Unit]\nDescription=Kubernetes\n\n[Service]\nType=notify\n{files}\n{before}\nExecStart={command}\n"


def _kubeconfig(authority: str, user: dict[str, str]) -> str:
    kind = "certificate-authority" if authority.startswith("/") else "certificate-authority-data"
    cluster = {"server": "https://127.0.0.1:6443", kind: authority}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": cluster}],
        "contexts": [{"name": "Default", "context": {"cluster": "local", "user": "user"}}],
        "current-context": "Default",
        "users": [{"name": "user", "user": user}],
    }
    return json.dumps(config, indent=1)


def _object(kind: str, name: str, size: int = 300) -> bytes:
    """Return something of the look and size of a stored object."""
    filler = hashlib.shake_128(f"{kind}/{name}".encode()).hexdigest(size // 2)
    return b"k8s\0" + json.dumps({"kind": kind, "metadata": {"name": name}, "data": filler}).encode()


@functools.cache
def _service_key() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
