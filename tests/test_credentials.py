"""References to secrets: what is one, what is refused without being shown, and what reading one can meet."""

import copy
import os
import pickle
from pathlib import Path

import pytest

from edgedr.credentials import Credential, Keeper, Secret
from edgedr.errors import ConfigurationError

CANARY = "CANARY-7d1f4b"


@pytest.mark.parametrize(
    ("text", "keeper", "place"),
    [
        ("file:/etc/edgedr/tsig", Keeper.FILE, "/etc/edgedr/tsig"),
        ("file:/odd path/with:colon", Keeper.FILE, "/odd path/with:colon"),
        ("env:EDGEDR_TSIG", Keeper.ENVIRONMENT, "EDGEDR_TSIG"),
        ("credential:tsig.key-1", Keeper.SYSTEMD, "tsig.key-1"),
    ],
)
def test_references_are_understood(text: str, keeper: Keeper, place: str) -> None:
    """Who keeps it, and where; written back as it was."""
    credential = Credential.parse(text)
    assert (credential.keeper, credential.place) == (keeper, place)
    assert str(credential) == text


@pytest.mark.parametrize(
    "text",
    [
        CANARY,
        f"{CANARY}==",
        "",
        f"file:{CANARY}",
        f"file:relative/{CANARY}",
        f"file:/{CANARY}/",
        f"file:/{CANARY}\0",
        "file:",
        f"env:{CANARY}/+=",
        "env:",
        f"credential:../{CANARY}",
        f"credential:/{CANARY}",
        "credential:..",
        "credential:",
        f"vault:{CANARY}",
        f"FILE:/{CANARY}",
    ],
)
def test_what_is_no_reference_is_refused_and_not_shown(text: str) -> None:
    """Whoever writes the secret itself into the configuration must not find it in a log."""
    with pytest.raises(ConfigurationError) as caught:
        Credential.parse(text)
    assert CANARY not in f"{caught.value!r} {caught.value} {caught.value.hint}"
    assert "file:/path" in str(caught.value.hint)


def test_a_secret_is_read_late_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference can be made before there is a secret; of a file only the line end is dropped."""
    credential = Credential.parse(f"file:{tmp_path}/secret")
    (tmp_path / "secret").write_text(f" {CANARY} two \r\n\n")
    assert credential.read().reveal() == f" {CANARY} two ".encode()
    monkeypatch.setenv("EDGEDR_TEST_SECRET", CANARY)
    assert Credential.parse("env:EDGEDR_TEST_SECRET").read().reveal() == CANARY.encode()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert Credential.parse("credential:secret").read().reveal() == f" {CANARY} two ".encode()


def test_a_link_is_followed(tmp_path: Path) -> None:
    """Kubernetes mounts secrets as links, and so do people."""
    (tmp_path / "real").write_text(CANARY)
    (tmp_path / "secret").symlink_to("real")
    assert Credential.parse(f"file:{tmp_path}/secret").read().reveal() == CANARY.encode()


def test_what_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way in which there is no secret names its place and the next act; nothing waits for a FIFO."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "huge").write_bytes(b"x" * (65 << 10))
    monkeypatch.delenv("EDGEDR_TEST_SECRET", raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    for reference, reason in {
        f"file:{tmp_path}/none": "no such file",
        f"file:{tmp_path}": "is not a file",
        f"file:{tmp_path}/fifo": "is not a file",
        f"file:{tmp_path}/empty": "is empty",
        f"file:{tmp_path}/huge": "is longer than",
        f"file:{tmp_path}/empty/below": "not a directory",
        "env:EDGEDR_TEST_SECRET": "is not set",
        "credential:tsig": "CREDENTIALS_DIRECTORY is not set",
    }.items():
        with pytest.raises(ConfigurationError, match=reason) as caught:
            Credential.parse(reference).read()
        assert reference in caught.value.message
        assert caught.value.hint


def test_a_secret_has_no_printable_form() -> None:
    """However it is printed, copied, stored or looked into: nothing comes out but by ``reveal``."""
    secret = Secret(CANARY.encode())
    for text in (repr(secret), str(secret), f"{secret}", f"{[secret]}", f"{secret!a}", "%s" % secret):  # noqa: UP031
        assert CANARY not in text
    assert not hasattr(secret, "__dict__")
    for act in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError) as caught:
            act(secret)
        assert CANARY not in str(caught.value)
    with pytest.raises(AttributeError):
        secret._value = b""
