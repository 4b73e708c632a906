"""Promises that no single fault number stands for: what is sealed is what was captured, what is left out is said."""

import base64
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from edgedr import strictjson
from edgedr.cli.keys import ANSWER
from edgedr.cli.main import main
from edgedr.cli.verify import _damaged
from edgedr.errors import Damaged, RestoreStopped, StorageError
from edgedr.model import SCHEMA, Class, Proof, Status
from edgedr.repository.consistency import MAX_SEGMENT
from edgedr.repository.names import MANIFEST, segment_object
from edgedr.repository.repository import Listed, Repository
from edgedr.sealing.identities import make_identity
from edgedr.sealing.recipients import parse_recipient, seal_text
from edgedr.sealing.signatures import AllowedSigner, Signer, Trust
from edgedr.state import State, next_state
from edgedr.storage.base import ByteSink
from edgedr.storage.directory import DirectoryStorage
from tests.lab.fake_source import BLOB, OPERATOR, SEGMENT, SIGNER, START, Lab, bytes_of, churned

DATA = bytes_of(1, 3 * SEGMENT)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


class _Flipping(DirectoryStorage):
    """A storage during whose first write the captured plaintext changes, as on a machine with bad memory."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab.objects)
        self._lab = lab

    @contextmanager
    def create(self, name: str) -> Iterator[ByteSink]:
        for plain in self._lab.cache.directory.glob(f"*/{BLOB}"):
            with plain.open("r+b") as file:
                file.seek(2 * SEGMENT + 5)
                file.write(b"!")
        with super().create(name) as out:
            yield out


def test_plaintext_that_changes_before_it_is_sealed_is_no_backup(lab: Lab) -> None:
    """What is sealed is hashed once more: a byte that changed since the capture stops the run before the commit."""
    first = lab.back_up(DATA).manifest.id
    with pytest.raises(StorageError, match=f"{BLOB} changed while it was sealed"):
        lab.back_up(churned(DATA, 2), repository=Repository(_Flipping(lab), site=lab.site, node=lab.node))
    assert lab.ids() == [first]
    assert lab.read(first) == DATA


def test_a_cache_that_is_a_link_is_refused_and_nothing_behind_it_removed(lab: Lab) -> None:
    """The cache is emptied at each run: were it a link, or held other things, these would go."""
    precious = lab.path / "precious"
    (precious / "data").mkdir(parents=True)
    lab.cache.directory.parent.mkdir(parents=True)
    lab.cache.directory.symlink_to(precious)
    with pytest.raises(StorageError, match="symbolic link"):
        lab.back_up(DATA)
    assert (precious / "data").is_dir()
    lab.cache.directory.unlink()
    (lab.cache.directory / "not ours").mkdir(parents=True)
    lab.back_up(DATA)
    assert (lab.cache.directory / "not ours").is_dir()


def test_what_cannot_be_taken_makes_its_source_partial(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unreadable key must not hide behind an ok: the source is partial, in the manifest too, without its path."""
    real = os.open

    def refuse(path: str, flags: int, *args: int, **options: int) -> int:
        if path == "site.conf" and not flags & os.O_PATH:
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    outcome = lab.back_up(DATA)
    assert outcome.missing == ("blob",)
    assert outcome.inventory.sources["blob"].status is Status.PARTIAL
    assert "/etc/site.conf" in (outcome.inventory.sources["blob"].reason or "")
    assert not outcome.manifest.complete
    assert b"site.conf" not in strictjson.encode(outcome.manifest)


def test_a_socket_is_nothing_that_a_restore_would_miss(lab: Lab) -> None:
    """Sockets and FIFOs are left out and named, and the source is whole all the same."""
    (lab.root / "etc/empty").unlink()
    os.mkfifo(lab.root / "etc/empty")
    outcome = lab.back_up(DATA)
    assert [left.reason for left in outcome.inventory.left_out] == ["a FIFO"]
    assert outcome.missing == ()


def test_one_unknown_signer_does_not_hide_the_others_verdicts(tmp_path: Path) -> None:
    """In a repository of two nodes the one whose line is at hand is proven, and the other is whole, by nobody known."""
    for node, signer in (("cp-1", SIGNER), ("cp-2", Signer.generate())):
        Lab(tmp_path, node=node).back_up(DATA, signer=signer)
    lab = Lab(tmp_path)
    lab.repository = Repository(lab.storage)
    verdicts = lab.verify(trust=Trust((AllowedSigner(("cp-1@plant-7",), SIGNER.public),)))
    assert [verdict.intact for verdict in verdicts.values()] == [True, True]
    assert [verdict.backup.place.node for verdict in verdicts.values() if verdict.doubt] == ["cp-2"]


@pytest.mark.parametrize("size", [2 * MAX_SEGMENT, 1 << 46, 3 << 20])
def test_a_manifest_cannot_ask_for_more_memory_than_a_segment(lab: Lab, size: int) -> None:
    """Whoever signs cannot make a reader allocate: segments beyond 1 GiB, or of odd sizes, are refused."""
    manifest = lab.back_up(DATA).manifest
    data = strictjson.encode(replace(manifest, segment_size=size))
    lab.object(manifest.id, MANIFEST).write_bytes(data)
    with pytest.raises(Damaged, match="segment size"):
        lab.repository.manifest(lab.listed()[0].place)


def test_a_restore_of_a_long_broken_chain_hashes_each_object_once(lab: Lab) -> None:
    """Looking for an intact backup instead of a damaged one reads each segment once, however long the chain."""
    data = DATA
    for number in range(12):
        data = churned(data, number + 3)
        lab.back_up(data)
    ids = lab.ids()
    segment = lab.object(ids[0], segment_object(BLOB, 0))
    segment.write_bytes(segment.read_bytes()[:-1] + b"?")
    opened: list[str] = []

    class Counting(DirectoryStorage):
        def open(self, name: str, *, limit: int | None = None) -> io.BufferedReader:
            opened.append(name)
            return super().open(name, limit=limit)  # type: ignore[return-value]

    lab.repository = Repository(Counting(lab.objects), site=lab.site, node=lab.node)
    with pytest.raises(Damaged):
        lab.restore(ids[-1], lab.path / "target")
    segments = [name for name in opened if name.endswith(".age")]
    assert max(segments.count(name) for name in segments) <= 2


def test_keys_prove_answers_challenges_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever gets an operator to answer a "challenge" that is a stolen backup learns nothing of it."""
    made = make_identity()
    (tmp_path / "key.txt").write_text(made.secret)

    def prove(plain: bytes) -> tuple[int, str]:
        challenge = base64.b64encode(seal_text(plain, [parse_recipient(made.recipient)])).decode()
        code = main(["keys", "prove", challenge, "--identity", str(tmp_path / "key.txt")])
        said = capsys.readouterr()
        return code, said.out + said.err

    assert prove(b"7431-9920-1157") == (0, "7431-9920-1157\n")
    code, said = prove(b"apiVersion: v1, the secret of somebody")
    assert code == 2
    assert "secret of" not in said
    assert ANSWER.fullmatch("7431-9920-115") is None


def test_a_sequence_is_not_used_twice_when_manifests_cannot_be_read(lab: Lab) -> None:
    """With the state lost and the newest manifest torn, its name still says which sequence was used."""
    newest = lab.back_up(DATA).manifest
    state, _ = next_state(None, None, 7, None)
    assert state.sequence == 8
    state, _ = next_state(State(SCHEMA, newest.lineage, 9, None), newest, 7, None)
    assert state.sequence == 10


def test_an_empty_repository_after_backups_is_odd() -> None:
    """A disk that is not mounted looks like a first day: that is said."""
    state, odd = next_state(State(SCHEMA, "feedfacefeedface", 9, None), None, 0, None)
    assert state.sequence == 10
    assert odd is not None
    assert "mounted" in odd
    assert next_state(State(SCHEMA, "feedfacefeedface", 0, None), None, 0, None)[1] is None


def test_a_clock_set_back_begins_a_full(lab: Lab) -> None:
    """A full dated ten years ahead would never be due again: the first backup after the clock is right is a full."""
    lab.back_up(DATA, now=START + timedelta(days=3650))
    after = lab.back_up(DATA, now=START).manifest
    assert after.kind is Class.FULL
    assert "the clock was set back" in after.reasons[0]
    assert lab.back_up(DATA, now=START + timedelta(minutes=5)).manifest.kind is Class.DELTA


def test_a_weaker_look_does_not_clear_what_a_stronger_found(lab: Lab) -> None:
    """What was found when decrypting stays remembered until decrypting finds it well."""
    manifest = lab.back_up(DATA).manifest
    state = State(SCHEMA, "feedfacefeedface", 1, None, (), (str(manifest.id),))
    verdict = lab.verify(key=False)[manifest.id]
    assert verdict.level is Proof.L1
    assert _damaged(state, [verdict]) == state.damaged
    assert _damaged(state, list(lab.verify().values())) == ()


def test_verify_of_unknown_signers_ends_with_9(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All verdicts are printed, and the end is neither well nor damaged."""
    lab = Lab(tmp_path)
    lab.back_up(DATA)
    (tmp_path / "signers").write_text(f"other@plant-7 {Signer.generate().public}\n")
    words = ["verify", "--repository", str(lab.objects), "--allowed-signers", str(tmp_path / "signers")]
    assert main(words) == RestoreStopped.exit_code
    said = capsys.readouterr()
    assert "whose?" in said.out
    assert "1 of 1 intact" in said.out
    assert "unknown here" in said.err


def test_only_what_is_readable_is_offered(lab: Lab) -> None:
    """One manifest that the disk cannot give is one damaged backup, not the end of all commands."""
    first, second = (lab.back_up(data).manifest.id for data in (DATA, churned(DATA, 9)))
    path = lab.object(first, MANIFEST)
    path.unlink()
    path.mkdir()
    listed: dict[object, Listed] = {backup.id: backup for backup in lab.listed()}
    assert listed[first].damage
    assert listed[second].damage == ()
    assert OPERATOR.identity.fingerprint is not None
