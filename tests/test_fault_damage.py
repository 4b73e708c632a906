"""Faults 15, 16 and 17: rot, mix-ups, forgery. What is damaged is named, with what it takes down and what is left."""

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgedr.errors import Damaged, RestoreStopped
from edgedr.model import BackupId, Class, Manifest, Proof, Segment
from edgedr.repository.chains import dependents
from edgedr.repository.names import MANIFEST, SIGNATURE
from edgedr.repository.select import select
from edgedr.sealing.identities import Identity
from edgedr.sealing.recipients import parse_recipient
from edgedr.sealing.segments import seal
from edgedr.sealing.signatures import Signer, Trust
from tests.lab.damage import cut, flipped
from tests.lab.fake_source import BLOB, OPERATOR, SEGMENT, SIGNER, Lab, Person, bytes_of, churned, digest, trusting

pytestmark = pytest.mark.usefixtures("no_fsync")

FIRST = bytes_of(1, SEGMENT + 9000)
DATA = (FIRST, churned(FIRST, 2), churned(FIRST, 3), churned(FIRST, 4), churned(FIRST, 5))
SEGMENT_0, SEGMENT_1, TAR = f"{BLOB}.000.zst.age", f"{BLOB}.001.zst.age", "node.tar.000.zst.age"
OBJECTS = (SEGMENT_0, SEGMENT_1, TAR, SIGNATURE, MANIFEST)
FORGER = Signer.generate()

UNUSABLE = replace(OPERATOR.identity, key=object())
"""An identity that matches, and cannot be used unnoticed: decrypting with it is a ``TypeError``."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make two chains once: a full with two deltas, a full with one."""
    lab = Lab(tmp_path_factory.mktemp("made"))
    for number, data in enumerate(DATA):
        lab.back_up(data, full=number == 3)
    return lab.path


@pytest.fixture
def lab(made: Path, scratch: Path) -> Lab:
    shutil.copytree(made, scratch / "lab")
    return Lab(scratch / "lab")


@pytest.fixture
def ids(lab: Lab) -> tuple[BackupId, ...]:
    return tuple(lab.ids())


def age_chunk_end(path: Path) -> int:
    """Return where the first 64 KiB chunk of an age file ends: there a cut leaves whole chunks."""
    data = path.read_bytes()
    header = data.index(b"\n", data.index(b"\n--- ") + 1) + 1
    end = header + 16 + (64 << 10) + 16
    assert end < len(data)
    return end


def swapped(path: Path) -> None:
    """Swap two objects of one backup."""
    other = path.with_name(SEGMENT_1 if path.name != SEGMENT_1 else SEGMENT_0)
    data, others = path.read_bytes(), other.read_bytes()
    path.write_bytes(others)
    other.write_bytes(data)


def doubled(path: Path) -> None:
    """Append an object to itself."""
    path.write_bytes(path.read_bytes() * 2)


HARM: dict[str, Callable[[Path], None]] = {
    "flipped bit": flipped,
    "cut": lambda path: cut(path, path.stat().st_size // 2),
    "cut at a chunk of age": lambda path: cut(path, age_chunk_end(path)),
    "cut to nothing": lambda path: cut(path, 0),
    "doubled": doubled,
    "swapped": swapped,
    "gone": Path.unlink,
}


def harms() -> list[tuple[str, str]]:
    return [
        (name, harm)
        for name in OBJECTS
        for harm in HARM
        if harm != "cut at a chunk of age" and (name, harm) != (MANIFEST, "gone")
    ]


@pytest.mark.parametrize("key", [False, True], ids=["L1", "L2"])
@pytest.mark.parametrize(("name", "harm"), harms())
def test_damage_is_named_with_what_depends_on_it(
    lab: Lab, ids: tuple[BackupId, ...], name: str, harm: str, key: bool, tmp_path: Path
) -> None:
    """Of two chains, the damaged link and those after it are lost, each saying why; all others stay proven."""
    full, first, second, full_2, third = ids
    HARM[harm](lab.object(first, name))
    verdicts = lab.verify(key=key)
    level = Proof.L2 if key else Proof.L1
    assert {backup: verdict.level for backup, verdict in verdicts.items()} == {
        full: level, first: Proof.L0, second: Proof.L0, full_2: level, third: level,
    }  # fmt: skip
    damaged, lost = verdicts[first], verdicts[second]
    named = SEGMENT_0 if harm == "swapped" and name not in {SEGMENT_0, SEGMENT_1} else name
    assert any(named in problem or "manifest" in problem for problem in damaged.problems)
    assert all(str(first) in problem for problem in damaged.problems)
    assert (damaged.broken_by, damaged.instead) == (None, full)
    assert (lost.problems, lost.broken_by, lost.instead) == ((), first, full)
    assert dependents(first, lab.listed()) == (second,)
    for wanted in (first, second):
        with pytest.raises(Damaged) as caught:
            lab.restore(wanted, tmp_path / "target")
        assert caught.value.exit_code == 7
        assert str(first) in caught.value.message
        assert f"{full} is intact (5 minutes older)" in (caught.value.hint or "") or wanted == second
        assert str(full) in (caught.value.hint or "")
        assert not (tmp_path / "target").exists()
    assert lab.read(full) == DATA[0]
    assert lab.read(third) == DATA[4]


def test_a_lost_manifest_breaks_its_chain(lab: Lab, ids: tuple[BackupId, ...], tmp_path: Path) -> None:
    """A backup whose manifest was lost since is listed as damaged, kept, and those built upon it say by which."""
    full, first, second, *_ = ids
    lab.object(first, MANIFEST).unlink()
    assert lab.get(first).damage == (f"{MANIFEST} is missing",)
    assert lab.repository.sweep() == ()
    verdict = lab.verify()[second]
    assert (verdict.broken_by, verdict.instead) == (first, full)
    with pytest.raises(Damaged, match=f"the chain of {second} is broken at {first}: {MANIFEST} is missing") as caught:
        lab.restore(second, tmp_path / "target")
    assert f"{full} is intact (10 minutes older)" in (caught.value.hint or "")


def test_with_nothing_older_the_next_intact_one_is_named(lab: Lab, ids: tuple[BackupId, ...], tmp_path: Path) -> None:
    """Where the first chain is lost from its full on, the hint names the full of the second."""
    flipped(lab.object(ids[0], SEGMENT_0))
    verdicts = lab.verify()
    assert [verdicts[backup].intact for backup in ids] == [False, False, False, True, True]
    assert verdicts[ids[2]].instead == ids[3]
    with pytest.raises(Damaged, match=SEGMENT_0) as caught:
        lab.restore(ids[2], tmp_path / "target")
    assert f"{ids[3]} is intact (5 minutes newer)" in (caught.value.hint or "")


def with_hash_of(path: Path) -> Callable[[Manifest], Manifest]:
    """Return a change that makes the manifest vouch for the first segment as it lies there now."""

    def change(manifest: Manifest) -> Manifest:
        artifact = manifest.artifacts[0]
        first = artifact.segments[0]
        fresh = Segment(first.object, path.stat().st_size, digest(path.read_bytes()), first.plain_size)
        return replace(
            manifest,
            artifacts=(replace(artifact, segments=(fresh, *artifact.segments[1:])), *manifest.artifacts[1:]),
        )

    return change


@pytest.mark.parametrize("harm", ["cut", "cut at a chunk of age", "flipped bit", "doubled", "swapped"])
def test_what_was_sealed_wrongly_is_found_with_a_key(
    lab: Lab, ids: tuple[BackupId, ...], harm: str, tmp_path: Path
) -> None:
    """Ciphertext that was bad before it was signed passes L1 and fails L2, by the name of its segment."""
    full = ids[0]
    path = lab.object(full, SEGMENT_0)
    HARM[harm](path)
    if harm == "swapped":
        swapped(path)
        path.write_bytes(path.with_name(SEGMENT_1).read_bytes())
    lab.resign(full, with_hash_of(path))
    assert lab.verify(full, key=False)[full].intact
    verdicts = lab.verify()
    assert SEGMENT_0 in verdicts[full].problems[0]
    assert [verdicts[backup].intact for backup in ids] == [False, False, False, True, True]
    with pytest.raises(Damaged, match=SEGMENT_0):
        lab.restore(full, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_wrong_plaintext_is_found_with_a_key(lab: Lab, ids: tuple[BackupId, ...], tmp_path: Path) -> None:
    """Segments that open are not enough: their plaintext must be the signed one."""

    def lie(manifest: Manifest) -> Manifest:
        return replace(
            manifest, artifacts=(replace(manifest.artifacts[0], sha256=digest(b"other")), *manifest.artifacts[1:])
        )

    lab.resign(ids[4], lie)
    assert lab.verify(key=False)[ids[4]].intact
    assert "plaintext" in lab.verify()[ids[4]].problems[0]
    with pytest.raises(Damaged, match="plaintext"):
        lab.restore(ids[4], tmp_path / "target")
    assert not (tmp_path / "target").exists()


# Fault 16


def test_the_probe_notices_decryption(lab: Lab, ids: tuple[BackupId, ...], tmp_path: Path) -> None:
    """The identity of the next tests cannot decrypt unnoticed."""
    with pytest.raises(TypeError):
        lab.restore(ids[0], tmp_path / "target", identities=(UNUSABLE,))
    assert not (tmp_path / "target").exists()


def test_a_cut_at_a_chunk_of_age_is_seen_without_a_key(lab: Lab, ids: tuple[BackupId, ...]) -> None:
    """Where age's own chunks end, a cut is still a cut."""
    HARM["cut at a chunk of age"](lab.object(ids[0], SEGMENT_0))
    verdicts = lab.verify(key=False)
    assert f"segment {SEGMENT_0} of {ids[0]} is damaged: it has" in verdicts[ids[0]].problems[0]
    assert [verdict.broken_by for verdict in verdicts.values()] == [None, ids[0], ids[0], None, None]


@pytest.mark.parametrize("origin", ["older backup", "newer backup", "other node", "other segment"])
def test_a_segment_of_another_is_refused_before_decryption(
    lab: Lab, ids: tuple[BackupId, ...], origin: str, tmp_path: Path
) -> None:
    """A segment that would open, and belongs elsewhere, is refused by the signed hash: no key touches it."""
    other = Lab(tmp_path / "other", node="cp-2")
    foreign = other.back_up(DATA[3]).manifest.id
    sources = {
        "older backup": lab.object(ids[0], SEGMENT_0),
        "newer backup": lab.object(ids[4], SEGMENT_0),
        "other node": other.object(foreign, SEGMENT_0),
        "other segment": lab.object(ids[3], SEGMENT_1),
    }
    shutil.copy(sources[origin], lab.object(ids[3], SEGMENT_0))
    with pytest.raises(Damaged, match=f"{ids[3]} is damaged: {SEGMENT_0} has"):
        lab.restore(ids[3], tmp_path / "target", identities=(UNUSABLE,))
    assert not (tmp_path / "target").exists()


def test_a_segment_made_to_fit_is_refused_before_decryption(
    lab: Lab, ids: tuple[BackupId, ...], tmp_path: Path
) -> None:
    """Anyone can seal for the recipients; of the right size, even of the right plaintext, it is not what was signed."""
    path = lab.object(ids[3], SEGMENT_1)
    wanted = path.stat().st_size
    sealed = _Bytes()
    while sealed.size != wanted:  # age adds a little of random length to its header
        sealed = _Bytes()
        seal(io.BytesIO(DATA[3][SEGMENT:]), 9000, sealed, recipients=[parse_recipient(OPERATOR.recipient)])
    path.write_bytes(sealed.data)
    assert lab.get(ids[3]).damage == ()
    refused = f"segment {SEGMENT_1} of {ids[3]} is damaged: sha256 differs"
    with pytest.raises(Damaged, match=refused):
        lab.restore(ids[3], tmp_path / "target", identities=(UNUSABLE,))
    with pytest.raises(Damaged, match=refused):
        lab.read(ids[3])
    assert lab.verify()[ids[3]].problems == (f"{refused} from the manifest",)
    assert not (tmp_path / "target").exists()


class _Bytes:
    def __init__(self) -> None:
        self.data = b""

    @property
    def size(self) -> int:
        return len(self.data)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self.data += data
        return len(data)

    def flush(self) -> None:
        pass


@pytest.mark.parametrize("origin", ["older backup", "other node", "other class"])
def test_a_whole_backup_in_anothers_place_is_refused(
    lab: Lab, ids: tuple[BackupId, ...], origin: str, tmp_path: Path
) -> None:
    """A backup replayed under another id, node or class is damaged, however well signed, and spoils nothing else."""
    other = Lab(tmp_path / "other", node="cp-2")
    foreign = other.back_up(DATA[3]).manifest.id
    source, place = {
        "older backup": (lab.object(ids[0], MANIFEST).parent, lab.get(ids[3]).place),
        "other node": (other.object(foreign, MANIFEST).parent, replace(lab.get(ids[3]).place, id=foreign)),
        "other class": (lab.object(ids[0], MANIFEST).parent, replace(lab.get(ids[1]).place, id=ids[0])),
    }[origin]
    target = lab.objects / place.prefix
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target)
    if origin == "other class":
        assert select(lab.listed(), str(ids[0])).place.kind is Class.FULL
    (intruder,) = (backup for backup in lab.listed() if backup.place == place)
    assert intruder.manifest is None
    assert "it is that of" in intruder.damage[0]
    with pytest.raises(Damaged, match="it is that of"):
        lab.restore_listed(intruder, tmp_path / "target", identities=(UNUSABLE,))
    for backup, data in zip(ids[:3], DATA, strict=False):
        assert lab.verify(backup)[backup].intact
        assert lab.read(backup) == data


# Fault 17


def forge(lab: Lab, backup: BackupId) -> None:
    """Sign a manifest with another key, as another writer in the bucket could."""
    lab.resign(backup, lambda manifest: manifest, FORGER)


@pytest.mark.parametrize("link", [0, 1, 2])
def test_a_forged_link_is_refused(lab: Lab, ids: tuple[BackupId, ...], link: int, tmp_path: Path) -> None:
    """Whichever manifest of a chain somebody else signed: where the node's key is known, it is damaged."""
    forge(lab, ids[link])
    verdicts = lab.verify()
    assert [verdicts[backup].intact for backup in ids[:3]] == [number < link for number in range(3)]
    assert FORGER.public.fingerprint in verdicts[ids[link]].problems[0]
    with pytest.raises(Damaged, match="not the key known for cp-1@plant-7"):
        lab.restore(ids[2], tmp_path / "target", identities=(UNUSABLE,), confirm=lambda *_: True)
    assert not (tmp_path / "target").exists()


def test_an_unknown_signer_is_asked_about(lab: Lab, ids: tuple[BackupId, ...], tmp_path: Path) -> None:
    """Without `allowed_signers` a restore stops with the fingerprint, unless somebody says yes, once for a chain."""
    asked: list[str] = []

    def answer(_manifest: Manifest, key: object) -> bool:
        asked.append(str(key))
        return True

    with pytest.raises(RestoreStopped) as caught:
        lab.restore(ids[2], tmp_path / "target", trust=Trust(), identities=(UNUSABLE,))
    assert caught.value.exit_code == 9
    assert f"--trust-signer {SIGNER.public.fingerprint}" in (caught.value.hint or "")
    assert not (tmp_path / "target").exists()
    lab.restore(ids[2], tmp_path / "asked", trust=Trust(), confirm=answer)
    assert asked == [str(SIGNER.public)]
    lab.restore(ids[2], tmp_path / "told", trust=Trust(fingerprints=(SIGNER.public.fingerprint,)))
    for name in ("asked", "told"):
        assert (tmp_path / name / BLOB).read_bytes() == DATA[2]


def test_a_yes_to_one_signer_is_no_yes_to_another(lab: Lab, ids: tuple[BackupId, ...], tmp_path: Path) -> None:
    """A chain signed by two keys asks twice, and stops where the answer is no."""
    forge(lab, ids[1])
    with pytest.raises(RestoreStopped, match=str(ids[1])):
        lab.restore(ids[2], tmp_path / "target", trust=Trust(), confirm=lambda _, key: key == SIGNER.public)
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("harm", ["gone", "flipped bit", "cut to nothing"])
@pytest.mark.parametrize("link", [0, 1])
def test_an_unsigned_backup_needs_to_be_asked_for(
    lab: Lab, ids: tuple[BackupId, ...], harm: str, link: int, tmp_path: Path
) -> None:
    """Without a signature that holds nothing is restored, but with `--allow-unsigned`; hashes are checked even then."""
    HARM[harm](lab.object(ids[link], SIGNATURE))
    with pytest.raises(Damaged):
        lab.restore(ids[1], tmp_path / "target", identities=(UNUSABLE,))
    lab.restore(ids[1], tmp_path / "asked", allow_unsigned=True)
    assert (tmp_path / "asked" / BLOB).read_bytes() == DATA[1]
    flipped(lab.object(ids[0], SEGMENT_0))
    with pytest.raises(Damaged, match=SEGMENT_0):
        lab.restore(ids[1], tmp_path / "damaged", allow_unsigned=True)


def test_a_changed_manifest_is_refused(lab: Lab, ids: tuple[BackupId, ...], tmp_path: Path) -> None:
    """One digit of a signed manifest, and it is nobody's word."""
    path = lab.object(ids[3], MANIFEST)
    path.write_bytes(path.read_bytes().replace(b'"revision": 42', b'"revision": 43'))
    assert "does not hold" in lab.verify()[ids[3]].problems[0]
    with pytest.raises(Damaged, match="does not hold"):
        lab.restore(ids[3], tmp_path / "target", identities=(UNUSABLE,))


def test_another_person_cannot_open_it(lab: Lab, ids: tuple[BackupId, ...], tmp_path: Path) -> None:
    """A stranger's identity is refused before anything is fetched, and told from damage."""
    stranger: Identity = Person.new().identity
    with pytest.raises(Exception, match=str(OPERATOR.identity.fingerprint)) as caught:
        lab.restore(ids[0], tmp_path / "target", identities=(stranger,))
    assert getattr(caught.value, "exit_code", None) == 6
    assert not (tmp_path / "target").exists()
    assert trusting().signers
