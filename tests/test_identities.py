"""Identities: each way in which one does not open a backup is told apart, before any segment is read."""

import base64
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from edgedr.errors import ConfigurationError, Damaged, WrongKey
from edgedr.repository.checking import check
from edgedr.repository.repository import Repository
from edgedr.sealing.identities import load_identities, make_identity, open_text
from edgedr.sealing.recipients import parse_recipient, seal_text
from edgedr.storage.base import Storage
from edgedr.storage.memory import MemoryStorage
from tests.lab.fake_source import Lab
from tests.lab.sealed import (
    Key,
    bech32,
    locked,
    nobody,
    opened,
    sealed,
)
from tests.lab.tools import need


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key(tmp_path_factory.mktemp("key") / "key.txt")


def _message(path: Path, ask: Callable[[str], str] = nobody) -> tuple[str, str]:
    with pytest.raises(WrongKey) as caught:
        load_identities(path, ask)
    assert caught.value.exit_code == 6
    assert caught.value.hint
    return caught.value.message, caught.value.hint


def test_identity_files_that_are_none_are_told_apart(key: Key, tmp_path: Path) -> None:
    """Each mistake has its own message with the file's name, and no message has a secret."""
    plugin = "AGE-PLUGIN-NOSUCH-1" + "Q" * 10
    contents = {
        "missing": None,
        "empty": b"",
        "only comments": b"# nothing\n\n",
        "binary": bytes(range(256)),
        "recipient": key.recipient.text.encode(),
        "ssh recipient": b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== me\n",
        "cut short": key.secret[:-4].encode(),
        "sealed for another": seal_text(b"x", [key.recipient]),
        "damaged age file": b"age-encryption.org/v1\n-> scrypt",
        "damaged armor": b"-----BEGIN AGE ENCRYPTED FILE-----\n!!!a\n-----END AGE ENCRYPTED FILE-----\n",
        "scrypt bomb": b"age-encryption.org/v1\n-> scrypt c2FsdHNhbHRzYWx0c2FsdA 30\nYm9k\n--- bWFj\nxx",
        "damaged SSH key": b"-----BEGIN OPENSSH PRIVATE KEY-----\nzzz\n-----END OPENSSH PRIVATE KEY-----\n",
        "plugin": f"{plugin}\n".encode(),
    }
    said = {}
    for name, content in contents.items():
        path = tmp_path / "identity"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        message, hint = _message(path)
        assert str(path) in message
        assert key.secret[:-4] not in message + hint
        said[name] = message
    assert said["missing"].endswith("No such file or directory")
    assert said["empty"] == said["only comments"]
    assert said["recipient"] == said["ssh recipient"]
    assert said["damaged age file"] == said["damaged armor"]
    assert "a recipient, which only seals" in said["recipient"]
    assert "2^30" in said["scrypt bomb"]
    distinct = set(contents) - {"only comments", "ssh recipient", "damaged armor", "plugin"}
    assert len({said[name] for name in distinct}) == len(distinct)


def test_a_missing_plugin_is_named(tmp_path: Path) -> None:
    """An identity on a device needs its plugin: the message says which."""
    words = bech32("age-plugin-nosuch-", b"\1" * 16).upper()
    (tmp_path / "identity").write_text(f"{words}\n")
    message, hint = _message(tmp_path / "identity")
    assert "age-plugin-nosuch" in message
    assert "plugin" in hint
    with pytest.raises(ConfigurationError, match="age-plugin-nosuch") as caught:
        parse_recipient(bech32("age1nosuch", b"\1" * 16))
    assert "\n" not in caught.value.message


def test_a_protected_identity_opens_with_its_passphrase(key: Key, tmp_path: Path) -> None:
    """The right passphrase opens it; a wrong one is said to be wrong; armor makes no difference."""
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return "correct horse"

    protected = tmp_path / "protected.age"
    ciphertext = locked(key.secret.encode(), "correct horse")
    protected.write_bytes(ciphertext)
    (identity,) = load_identities(protected, ask)
    assert identity.fingerprint == key.recipient.fingerprint
    assert str(protected) in asked[0]
    armored = (
        b"-----BEGIN AGE ENCRYPTED FILE-----\n" + base64.encodebytes(ciphertext) + b"-----END AGE ENCRYPTED FILE-----\n"
    )
    protected.write_bytes(armored)
    assert load_identities(protected, ask)[0].fingerprint == key.recipient.fingerprint
    message, hint = _message(protected, lambda _: "wrong")
    assert "cannot unlock" in message
    assert "passphrase is wrong" in hint


def test_unusable_ssh_keys_are_named(tmp_path: Path) -> None:
    """A protected SSH key, and one of a kind that age does not know, are refused with their file's name."""
    keygen = need("ssh-keygen")
    for name, options in {"locked": ["-t", "ed25519", "-N", "secret"], "ecdsa": ["-t", "ecdsa", "-N", ""]}.items():
        subprocess.run([keygen, "-q", *options, "-f", tmp_path / name], check=True)
        message, _ = _message(tmp_path / name)
        assert f"cannot use the SSH key {tmp_path / name}" in message


def test_a_wrong_identity_is_not_damage(key: Key, tmp_path: Path) -> None:
    """Whoever opens with another key is told so, for segments and for small texts."""
    other = Key(tmp_path / "other.txt")
    with pytest.raises(WrongKey, match="no identity given opens segment x"):
        opened(sealed(b"x", key.recipient), 1, other.identities)
    with pytest.raises(WrongKey):
        open_text(seal_text(b"x", [key.recipient]), other.identities)
    with pytest.raises(Damaged):
        open_text(seal_text(b"x" * 99, [key.recipient])[:-1], key.identities)


def test_an_identity_has_no_printable_form(key: Key) -> None:
    """Neither a loaded nor a new identity shows its secret when it is printed."""
    made = make_identity()
    assert made.secret not in f"{made} {made!r}"
    assert key.secret not in f"{key.identities} {key.identities[0]!r}"


class NoSegments(MemoryStorage):
    """A storage from which segments cannot be read at all."""

    def __init__(self, filled: Storage) -> None:
        super().__init__()
        self.objects = {stored.name: filled.open(stored.name).read() for stored in filled.list()}

    def open(self, name: str, *, limit: int | None = None) -> BinaryIO:
        assert not name.endswith(".age"), f"{name} was opened"
        return super().open(name, limit=limit)


def test_a_wrong_identity_is_told_before_any_segment_is_opened(key: Key, tmp_path: Path) -> None:
    """Nobody downloads gigabytes to learn that the key in hand is the wrong one."""
    lab = Lab(tmp_path, storage=MemoryStorage())
    for content in (b"etcd", b"etcd, later"):
        lab.back_up(content, recipients=(key.recipient,))
    repository = Repository(NoSegments(lab.storage))
    listed = repository.list()
    other = Key(tmp_path / "other.txt")
    with pytest.raises(WrongKey, match=r"is not one that .* was sealed for"):
        check(repository, listed, [backup.id for backup in listed], trust=None, identities=other.identities)


def test_what_is_sealed_for_others_stays_at_l1(key: Key, tmp_path: Path) -> None:
    """After recipients changed, a key opens some backups only: the rest is proven without it, not called damaged."""
    other = Key(tmp_path / "other.txt")
    lab = Lab(tmp_path, storage=MemoryStorage())
    lab.back_up(b"etcd", recipients=(other.recipient,))
    lab.back_up(b"etcd, later", recipients=(key.recipient,))
    listed = lab.listed()
    ids = [backup.id for backup in listed]
    verdicts = check(lab.repository, listed, ids, trust=None, identities=key.identities)
    assert [str(verdict.level) for verdict in verdicts] == ["L1", "L2"]
    assert all(verdict.intact for verdict in verdicts)
