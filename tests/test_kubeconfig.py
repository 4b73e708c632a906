"""Kubeconfigs: what is taken from them, and what is refused before a connection is tried."""

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgedr.errors import SourceError
from edgedr.node.files import Files
from edgedr.node.kubeconfig import KubeAccess, Reference, is_kubeconfig, read_kubeconfig, referenced_files, references
from tests.lab import kubeadm

PATH = "/etc/kubernetes/admin.conf"
TOKEN = "canary-token-8d02"


def data(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def config(cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None) -> dict[str, Any]:
    server = {"server": "https://127.0.0.1:6443", "certificate-authority-data": data("CA")}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [
            {"name": "there", "context": {"cluster": "other", "user": "other"}},
            {"name": "here", "context": {"cluster": "edge", "user": "admin"}},
        ],
        "clusters": [
            {"name": "other", "cluster": {"server": "https://10.9.9.9:6443"}},
            {"name": "edge", "cluster": {**server, **(cluster or {})}},
        ],
        "users": [
            {"name": "other", "user": {"token": "other"}},
            {"name": "admin", "user": {"token": TOKEN} if user is None else user},
        ],
    }


def read(root: Path, content: Any, **options: Any) -> KubeAccess:
    path = root / PATH[1:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return read_kubeconfig(Files(root), PATH, **options)


def refused(root: Path, content: Any) -> SourceError:
    with pytest.raises(SourceError) as caught:
        read(root, content)
    assert caught.value.hint
    assert TOKEN not in caught.value.message + caught.value.hint
    return caught.value


def test_current_context(tmp_path: Path) -> None:
    """The current context counts, whatever else is in the file."""
    found = read(tmp_path, config())
    assert found == KubeAccess("https://127.0.0.1:6443", b"CA", token=TOKEN)


def test_another_server(tmp_path: Path) -> None:
    """A server that the settings name takes the place of the kubeconfig's."""
    assert read(tmp_path, config(), server="https://lb.example.test/").server == "https://lb.example.test"


def test_certificate_inline(tmp_path: Path) -> None:
    """Certificate and key may be in the file itself."""
    found = read(tmp_path, config(user={"client-certificate-data": data("CERT"), "client-key-data": data("KEY")}))
    assert (found.cert, found.key, found.token) == (b"CERT", b"KEY", None)


def test_files_below_the_root(tmp_path: Path) -> None:
    """Files that it names are the node's: below the root, relative ones beside it, and links lead where they would."""
    pki = tmp_path / "var/lib/kubelet/pki"
    pki.mkdir(parents=True)
    (pki / "client-2026.pem").write_text("PAIR")
    (pki / "client-current.pem").symlink_to("/var/lib/kubelet/pki/client-2026.pem")
    (tmp_path / "etc/kubernetes").mkdir(parents=True)
    (tmp_path / "etc/kubernetes/ca.crt").write_text("BESIDE")
    current = "/var/lib/kubelet/pki/client-current.pem"
    cluster = {"certificate-authority-data": None, "certificate-authority": "ca.crt"}
    found = read(tmp_path, config(cluster, {"client-certificate": current, "client-key": current}))
    assert (found.ca, found.cert, found.key) == (b"BESIDE", b"PAIR", b"PAIR")


def test_token_file(tmp_path: Path) -> None:
    """A token may be in a file, which ends with a new line."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert read(tmp_path, config(user={"tokenFile": "/token"})).token == TOKEN


def test_file_that_is_missing(tmp_path: Path) -> None:
    """A file that it names and that is not there is named."""
    user = {"client-certificate": "/x/client.crt", "client-key": "/x/client.key"}
    assert refused(tmp_path, config(user=user)).message == f"{PATH} names /x/client.crt, which is not there"


@pytest.mark.parametrize(
    "value",
    [
        "CANARY-eyJhbGciOi",
        "/CANARY",
        "/CANARY+a/b",
        "/a/CANARY==",
        "/a/b\nCANARY",
        "/a/\x1b[2JCANARY",
        "-----BEGIN PRIVATE KEY-----\nCANARY",
        f"/a/{'b' * 300}CANARY",
        "../CANARY/key",
    ],
)
@pytest.mark.parametrize("field", ["client-key", "tokenFile"])
def test_a_secret_in_the_place_of_a_path_is_not_shown(tmp_path: Path, field: str, value: str) -> None:
    """Somebody put the key or token itself where its file belongs: the field is named, its value is not."""
    certificate = {"client-certificate-data": data("CERT")} if field == "client-key" else {}
    error = refused(tmp_path, config(user={field: value, **certificate}))
    assert error.message == f"{PATH} names a file for {field}, which is not there"
    (reference,) = references(yaml.safe_dump(config(user={field: value})), PATH)
    assert (reference.field, reference.shown) == (field, f"a file for {field}")


def test_absent(tmp_path: Path) -> None:
    """No kubeconfig, no access."""
    with pytest.raises(SourceError, match=f"there is no readable kubeconfig {PATH}"):
        read_kubeconfig(Files(tmp_path), PATH)


@pytest.mark.parametrize(
    "user",
    [{}, {"client-certificate-data": data("CERT")}, {"client-key-data": data("KEY")}, {"username": "a", "token": ""}],
)
def test_nobody(tmp_path: Path, user: dict[str, Any]) -> None:
    """A user with neither a token nor a certificate and its key is refused: he would be anonymous."""
    assert refused(tmp_path, config(user=user)).message.startswith(f"{PATH} has neither a certificate with its key")


@pytest.mark.parametrize("user", [{"exec": {"command": "aws"}}, {"auth-provider": {"name": "oidc"}, "token": TOKEN}])
def test_helper_program(tmp_path: Path, user: dict[str, Any]) -> None:
    """No program that a kubeconfig names is ever run."""
    assert refused(tmp_path, config(user=user)).message == f"{PATH} needs a helper program to log in"


def test_unverified(tmp_path: Path) -> None:
    """A kubeconfig that would trust anybody is refused."""
    assert "does not verify" in refused(tmp_path, config({"insecure-skip-tls-verify": True})).message


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080",
        "127.0.0.1:6443",
        "https://",
        "https://a:b@127.0.0.1:6443",
        "https://a@127.0.0.1",
        "https://x/?a=b",
        "",
    ],
)
def test_url(tmp_path: Path, url: str) -> None:
    """Only TLS, and nothing in the URL but where: a password in one is not shown."""
    error = refused(tmp_path, config({"server": url}))
    assert error.message == f"the server of {PATH} is not a URL like https://127.0.0.1:6443"


@pytest.mark.parametrize("token", [f"{TOKEN}\nX: y", f"{TOKEN} x", f"{TOKEN}é", f"{TOKEN}\x00"])
def test_token_that_no_header_may_hold(tmp_path: Path, token: str) -> None:
    """A token that would break a header is refused, and not shown."""
    assert refused(tmp_path, config(user={"token": token})).message == f"{PATH} is not a kubeconfig that can be used"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "3",
        "[]",
        "a: b: c",
        "kind: Config",
        "kind: !!python/object/apply:os.system [true]",
        "[" * 10_000,
        {**config(), "current-context": "nowhere"},
        {**config(), "clusters": []},
        {**config(), "users": None},
        {**config(), "contexts": [3]},
        config({"certificate-authority-data": "%%%"}),
        config({"certificate-authority-data": 3}),
        config({"server": 3}),
        config(user={"tokenFile": 3, "token": None}),
    ],
)
def test_damaged(tmp_path: Path, content: Any) -> None:
    """Whatever is wrong with it, it is named, and nothing but a ``SourceError`` comes of it."""
    assert PATH in refused(tmp_path, content).message


def test_secrets_have_no_printable_form() -> None:
    """Neither key nor token is in what is printed of an access."""
    shown = repr(KubeAccess("https://x", b"CA", b"CERT", b"canary-key", TOKEN))
    assert TOKEN not in shown
    assert "canary-key" not in shown


def test_is_kubeconfig(tmp_path: Path) -> None:
    """A kubeconfig is told from other YAML without parsing it."""
    root = kubeadm.unpack(tmp_path)
    confs = sorted((root / "etc/kubernetes").glob("*.conf"))
    assert len(confs) == 5
    assert all(is_kubeconfig(conf.read_text()) for conf in confs)
    assert is_kubeconfig("apiVersion: v1\nkind: 'Config'\n")
    assert not is_kubeconfig("apiVersion: v1\nkind: ConfigMap\n")
    assert not is_kubeconfig((root / "etc/kubernetes/enc/encryption.yaml").read_text())


def test_referenced_files() -> None:
    """Every file that it names is found, of all clusters and users; one that inline data overrides is not needed."""
    named = config(
        {"certificate-authority-data": None, "certificate-authority": "pki/ca.crt"},
        {"client-certificate": "/a/c.pem", "client-key": "/a/k.pem", "client-key-data": data("KEY"), "tokenFile": "t"},
    )
    files = referenced_files(yaml.safe_dump(named), PATH)
    assert files == ["/etc/kubernetes/pki/ca.crt", "/a/c.pem", "/etc/kubernetes/t"]
    assert referenced_files(yaml.safe_dump(config()), PATH) == []


def test_references() -> None:
    """Of each file that is named: in which field, where it is, and whether its path was written in full."""
    user = {"client-certificate": "/a/c.pem", "client-key": "k/../k.pem", "tokenFile": 7}
    found = references(yaml.safe_dump(config({"certificate-authority-data": None}, user)), PATH)
    assert found == [
        Reference("client-certificate", "/a/c.pem", is_absolute=True),
        Reference("client-key", "/etc/kubernetes/k.pem", is_absolute=False),
        Reference("tokenFile", "/etc/kubernetes/7", is_absolute=False),
    ]
    assert [each.shown for each in found] == ["/a/c.pem", "a file for client-key", "a file for tokenFile"]


@pytest.mark.parametrize("text", ["", "3", "[3]", "a: b: c", "clusters: 3", "users: [3]", "[" * 10_000])
def test_referenced_files_of_nonsense(text: str) -> None:
    """What cannot be read names nothing."""
    assert referenced_files(text, PATH) == []
    assert references(text, PATH) == []
