"""EncryptionConfigurations: what values they can read, and that no key ever leaves them."""

import base64
import json
import traceback

import pytest

from edgedr.encryption import read_encryption
from tests.lab import kubeadm

KEY = base64.b64encode(b"canary-canary-canary-canary-0032").decode()
SHORT = base64.b64encode(b"canary").decode()

ALL = f"""
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets, configmaps]
  providers:
  - secretbox: {{keys: [{{name: key2, secret: {KEY}}}, {{name: key1, secret: {KEY}}}]}}
  - aescbc: {{keys: [{{name: old, secret: {KEY}}}]}}
  - kms: {{apiVersion: v2, name: vault, endpoint: "unix:///run/kms.sock", timeout: 3s}}
  - identity: {{}}
- resources: ["*.apps"]
  providers:
  - kms: {{name: vault, endpoint: "unix:///run/kms1.sock", cachesize: 100}}
  - aesgcm: {{keys: [{{name: key1, secret: {KEY}}}]}}
  - secretbox: {{keys: [{{name: key2, secret: {KEY}}}, {{name: key1, secret: {KEY}}}]}}
"""


def test_every_provider_is_known_by_the_values_that_it_can_read() -> None:
    """Each key, of each provider, has the prefix that the API server writes before a value; each once, in order."""
    assert read_encryption(ALL).prefixes() == (
        "k8s:enc:secretbox:v1:key2:",
        "k8s:enc:secretbox:v1:key1:",
        "k8s:enc:aescbc:v1:old:",
        "k8s:enc:kms:v2:vault:",
        "k8s:enc:kms:v1:vault:",
        "k8s:enc:aesgcm:v1:key1:",
    )


def test_a_configuration_reads_well() -> None:
    """Resources, providers, names of keys and endpoints are as in the file."""
    configuration = read_encryption(ALL)
    assert [str(rule) for rule in configuration.rules] == [
        "secrets, configmaps: secretbox key2, key1; aescbc old; kms v2 vault; identity",
        "*.apps: kms v1 vault; aesgcm key1; secretbox key2, key1",
    ]
    assert configuration.keys() == (
        "secretbox key2", "secretbox key1", "aescbc old", "kms v2 vault", "kms v1 vault", "aesgcm key1",
    )  # fmt: skip
    endpoints = [provider.endpoint for provider in configuration.providers() if provider.endpoint]
    assert endpoints == ["unix:///run/kms.sock", "unix:///run/kms1.sock"]
    assert configuration.unusable() == ()


def test_the_one_of_a_kubeadm_node_is_read(tmp_path: object) -> None:
    """A genuine file."""
    files = kubeadm.node(kubeadm.unpack(tmp_path)).files  # type: ignore[arg-type]
    text = files.text("/etc/kubernetes/enc/encryption.yaml")
    assert text is not None
    assert read_encryption(text).prefixes() == ("k8s:enc:secretbox:v1:key1:",)


def test_json_is_read() -> None:
    """k3s and rke2 write theirs as JSON."""
    provider = {"aescbc": {"keys": [{"name": "aescbckey", "secret": KEY}]}}
    rule = {"resources": ["secrets"], "providers": [provider, {"identity": {}}]}
    of = {"kind": "EncryptionConfiguration", "apiVersion": "apiserver.config.k8s.io/v1"}
    assert read_encryption(json.dumps({**of, "resources": [rule]})).prefixes() == ("k8s:enc:aescbc:v1:aescbckey:",)


@pytest.mark.parametrize("secret", [SHORT, KEY[:-3] + "%%%", "", "12", "[a]", "null"])
def test_a_key_that_cannot_be_used_is_named(secret: str) -> None:
    """A key of a wrong length, or that is not base64, is named: no API server starts with it."""
    text = ALL.replace(f"name: old, secret: {KEY}", f"name: old, secret: {secret}")
    assert read_encryption(text).unusable() == ("aescbc old",)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "\t- :",
        "[]",
        "kind: Config",
        "kind: EncryptionConfiguration",
        "kind: EncryptionConfiguration\nresources: []",
        "kind: EncryptionConfiguration\nresources: secrets",
        "kind: EncryptionConfiguration\nresources: [{resources: [], providers: [{identity: {}}]}]",
        "kind: EncryptionConfiguration\nresources: [{resources: [secrets], providers: []}]",
        "kind: EncryptionConfiguration\nresources: [{resources: [[secrets]], providers: [{identity: {}}]}]",
        ALL.replace("secretbox:", "rot13:"),
        ALL.replace("apiVersion: v2", "apiVersion: v3"),
        ALL.replace("name: vault, ", ""),
        ALL.replace("name: old", "name: 7"),
        ALL.replace("keys: [", "keys: {x: [").replace("}]}}", "}]}}}"),
        "[" * 5000,
    ],
)
def test_what_is_none_is_refused(text: str) -> None:
    """Anything else is a ``ValueError``: unknown is not empty."""
    with pytest.raises(ValueError, match="EncryptionConfiguration"):
        read_encryption(text)


@pytest.mark.parametrize("damage", [f"secret: {KEY}", f"secret: {KEY}: : {{", f"secret: *{KEY}", f"\tsecret: {KEY}"])
def test_no_key_leaves_it(damage: str) -> None:
    """Neither what is read nor what is refused shows a key, in no form."""
    text = ALL.replace(f"secret: {KEY}", damage)
    try:
        said = repr(read_encryption(text)) + str(read_encryption(text))
    except ValueError as error:
        said = "".join(traceback.format_exception(error))
    assert "canary" not in said
    assert KEY[:12] not in said


def test_an_alias_bomb_is_refused_at_once() -> None:
    """A file that would grow without end when it is written out is no configuration."""
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
    text = bomb + "kind: EncryptionConfiguration\nresources: [{resources: [*a59], providers: [{identity: {}}]}]\n"
    with pytest.raises(ValueError, match="EncryptionConfiguration"):
        read_encryption(text)
