"""Heartbeats: what a node says of itself comes back as it was said, from whom, or not at all; and OpenSSH agrees."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from edgedr.errors import Damaged, StorageError
from edgedr.model import SCHEMA, SourceResult, Status
from edgedr.repository.heartbeats import MAX_HEARTBEAT, Heartbeat, compose, decode, encode, heartbeat_name
from edgedr.repository.ledger import ReplicaRecord
from edgedr.repository.names import place_of
from edgedr.sealing.signatures import Signer, allowed_signers_line
from edgedr.storage.base import refuse_name
from tests.lab.tools import need
from tests.test_chains import NOW, manifest

SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(b"a node's own key, only for tests"))
OTHER = Signer(Ed25519PrivateKey.from_private_bytes(b"somebody else's, only for tests!"))
EVERY = timedelta(minutes=15)
RECORD = replace(
    ReplicaRecord.blank("s3://bucket/edge", known=True).shipped(manifest(6).id, full=True, at=NOW - EVERY),
    waiting=2,
    waiting_bytes=1_000_000,
    clock_offset_ms=-1500,
)


def composed(**changes: Any) -> Heartbeat:
    """Return a node's heartbeat; ``changes`` are what it is composed of."""
    told: dict[str, Any] = {
        "site": "plant-7", "node": "cp-1", "version": "0.1.0", "now": NOW, "newest": manifest(7), "record": RECORD,
        "etcd_revision": 42, "backup_every": EVERY, "warnings": ["the newest backup lacks dns"],
    }  # fmt: skip
    return compose(**{**told, **changes})


HEARTBEAT = composed()
DATA = encode(HEARTBEAT, SIGNER)


def test_a_node_says_how_it_is() -> None:
    """What it captured and when, what of it is there, what waits, when the next is due, what is wrong."""
    newest = manifest(7)
    expected = Heartbeat(
        schema=SCHEMA,
        site="plant-7",
        node="cp-1",
        at=NOW,
        edgedr_version="0.1.0",
        lineage=newest.lineage,
        captured=newest.id,
        captured_at=newest.created,
        complete=True,
        shipped=manifest(6).id,
        shipped_at=NOW - EVERY,
        waiting=2,
        waiting_bytes=1_000_000,
        etcd_revision=42,
        clock_offset_ms=-1500,
        next_due=newest.created + EVERY,
        warnings=("the newest backup lacks dns",),
    )
    assert composed() == expected


def test_an_incomplete_backup_is_said_to_be_one() -> None:
    """A backup that lacks something is no reason to be at ease."""
    newest = replace(manifest(7), sources={"dns": SourceResult(Status.MISSING, "no server")})
    assert composed(newest=newest).complete is False


def test_a_node_without_a_backup_lives_too() -> None:
    """Before the first backup, and before anything was shipped, nothing is claimed; the first one is due."""
    beat = composed(newest=None, record=None, etcd_revision=None, warnings=())
    assert (beat.lineage, beat.captured, beat.captured_at, beat.complete) == (None, None, None, None)
    assert (beat.shipped, beat.shipped_at, beat.waiting, beat.waiting_bytes) == (None, None, 0, 0)
    assert beat.next_due == NOW + EVERY
    assert decode(encode(beat, SIGNER), "x")[0] == beat


def test_however_much_is_wrong_a_heartbeat_is_small() -> None:
    """Of many warnings the first are told, so that what is written can be read."""
    beat = composed(warnings=[f"{number}: {'w' * 500}" for number in range(1000)])
    assert len(beat.warnings) == 20
    assert decode(encode(beat, SIGNER), "x")[0] == beat


def test_it_comes_back_as_it_was_said() -> None:
    """Every field, and whose key signed it."""
    assert decode(DATA, "x") == (HEARTBEAT, SIGNER.public)
    assert decode(encode(HEARTBEAT, OTHER), "x")[1] == OTHER.public


@given(
    warning=st.text(max_size=50),
    at=st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - naive by its contract
    offset=st.none() | st.integers(-(10**12), 10**12),
    waiting=st.integers(0, 10**15),
)
def test_any_comes_back(warning: str, at: datetime, offset: int | None, waiting: int) -> None:
    """Any words, any clock, any size."""
    beat = replace(HEARTBEAT, warnings=(warning,), at=at, clock_offset_ms=offset, waiting_bytes=waiting)
    assert decode(encode(beat, SIGNER), "x") == (beat, SIGNER.public)


def test_openssh_accepts_it(tmp_path: Path) -> None:
    """``json`` and ``ssh-keygen -Y verify`` are all it takes to check one by hand; nothing else is accepted."""
    envelope = json.loads(DATA)
    (tmp_path / "allowed").write_text(allowed_signers_line("plant-7", "cp-1", SIGNER.public) + "\n")
    (tmp_path / "signature").write_text(envelope["signature"])
    words = (
        need("ssh-keygen"), "-Y", "verify", "-f", str(tmp_path / "allowed"), "-I", "cp-1@plant-7", "-n", "edgedr",
        "-s", str(tmp_path / "signature"),
    )  # fmt: skip

    def verifies(text: str) -> bool:
        return subprocess.run(words, input=text.encode(), capture_output=True, check=False).returncode == 0

    assert verifies(envelope["signed"])
    assert not verifies(envelope["signed"].replace("plant-7", "plant-8"))
    assert json.loads(envelope["signed"])["captured"] == str(manifest(7).id)


def _changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    envelope = json.loads(DATA)
    change(envelope)
    return json.dumps(envelope).encode()


def _said(change: Callable[[dict[str, Any]], object], signer: Signer = SIGNER) -> bytes:
    """Return a heartbeat whose text was changed, and signed as it is."""
    said = json.loads(json.loads(DATA)["signed"])
    change(said)
    text = json.dumps(said)
    return json.dumps({"signed": text, "signature": signer.sign(text.encode()).decode()}).encode()


SOMEBODY_ELSES = json.loads(encode(replace(HEARTBEAT, waiting=0), OTHER))["signature"]
TAMPERED = {
    "another text": _changed(lambda it: it.update(signed=it["signed"].replace('"waiting": 2', '"waiting": 0'))),
    "a space": _changed(lambda it: it.update(signed=it["signed"] + " ")),
    "another signature": _changed(lambda it: it.update(signature=SOMEBODY_ELSES)),
    "no signature": _changed(lambda it: it.update(signature="")),
    "half a signature": _changed(lambda it: it.update(signature=it["signature"][:100])),
    "without a signature": _changed(lambda it: it.pop("signature")),
    "something more": _changed(lambda it: it.update(comment="trust me")),
    "a text that is no text": _changed(lambda it: it.update(signed=json.loads(it["signed"]))),
    "half a character": _changed(lambda it: it.update(signed=it["signed"] + "\udc80")),
    "half a character in the signature": _changed(lambda it: it.update(signature=it["signature"] + "\udc80")),
    "a character that is none": _changed(lambda it: it.update(signed=it["signed"] + "\ud800")),
    "not JSON": b"<html>Welcome, guest</html>",
    "nothing": b"",
    "half of it": DATA[:-20],
    "not UTF-8": b"\xff" + DATA,
    "signed, and of another version": _said(lambda it: it.update(schema=2)),
    "signed, and with a field more": _said(lambda it: it.update(colour="red")),
    "signed, and with a field less": _said(lambda it: it.pop("waiting")),
    "signed, and negative": _said(lambda it: it.update(waiting=-1)),
    "signed, and of no time": _said(lambda it: it.update(at="today")),
    "signed, and no id": _said(lambda it: it.update(captured="../../etc")),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_what_was_tampered_with_is_damaged(name: str) -> None:
    """Nothing of it is believed, and it is named; whatever it is, it is never a bug."""
    with pytest.raises(Damaged, match="the heartbeat of plant-7/cp-1"):
        decode(TAMPERED[name], "the heartbeat of plant-7/cp-1")


@given(at=st.integers(0, len(DATA) - 1), bit=st.integers(0, 7))
def test_no_bit_can_be_flipped(at: int, bit: int) -> None:
    """Any single flip is found; one that JSON does not mind changes nothing of what is said."""
    data = DATA[:at] + bytes([DATA[at] ^ 1 << bit]) + DATA[at + 1 :]
    try:
        found = decode(data, "x")
    except Damaged:
        return
    assert found == (HEARTBEAT, SIGNER.public)


def test_a_large_one_is_not_even_parsed() -> None:
    """A bucket may hold anything: what is longer than any heartbeat is refused by its size."""
    padded = DATA + b" " * (MAX_HEARTBEAT - len(DATA))
    assert decode(padded, "x")[0] == HEARTBEAT
    with pytest.raises(Damaged, match=f"{MAX_HEARTBEAT + 1} bytes long"):
        decode(padded + b" ", "x")


def test_its_name_is_no_backups() -> None:
    """It lies where a list of backups passes it over, apart for each node."""
    assert heartbeat_name("plant-7", "cp-1") == "v1/heartbeat/plant-7/cp-1.json"
    assert place_of(heartbeat_name("plant-7", "cp-1")) is None
    with pytest.raises(StorageError):
        refuse_name(heartbeat_name("..", "cp-1"))
