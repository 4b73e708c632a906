"""`edgedr doctor` looks at this machine: who may read what, room, certificates, clock, tools, stray identities."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edgedr.doctor import checkup
from edgedr.doctor.checkup import RELEASED, Stock
from edgedr.doctor.strays import check_strays
from edgedr.doctor.tools import bumps, check_tools, restores
from edgedr.durable import free_space_of
from edgedr.errors import SourceError, StorageError
from edgedr.layouts import KUBEADM, UNKNOWN
from edgedr.locations import Locations, NodeSettings, RepositorySettings, StateSettings
from edgedr.model import Bytes, Finding, Severity
from edgedr.node.commands import WITHIN
from edgedr.node.files import Files
from edgedr.node.node import Node
from edgedr.repository.repository import Repository
from edgedr.sealing.identities import make_identity
from edgedr.sealing.recipients import parse_recipient
from edgedr.settings import load
from edgedr.sources.certificates import CertificatesSource
from edgedr.storage.directory import DirectoryStorage
from tests.lab import kubeadm
from tests.lab.operator import Operator, Said

NOW = datetime(2026, 12, 1, tzinfo=UTC)


def said(findings: Iterable[Finding]) -> list[str]:
    """Write findings as lines; whatever is not good says what to do."""
    found = list(findings)
    assert all((each.hint is None) == (each.severity is Severity.GOOD) for each in found)
    return [f"{each.severity} {each.subject}: {each.text}" for each in found]


@pytest.fixture(scope="module")
def cp(tmp_path_factory: pytest.TempPathFactory) -> Node:
    """A kubeadm node that does not run."""
    return Node(Files(kubeadm.unpack(tmp_path_factory.mktemp("cp") / "root")), KUBEADM, now=NOW)


@pytest.fixture
def own(scratch: Path) -> tuple[Path, Path, Path]:
    """Configuration, state directory and signing key, as `init` makes them."""
    config, state = scratch / "edgedr.toml", scratch / "state"
    state.mkdir(mode=0o700)
    for path in (config, state / "signing.key"):
        path.touch(mode=0o600)
    return config, state, state / "signing.key"


def test_what_is_ours_alone(own: tuple[Path, Path, Path], scratch: Path) -> None:
    """Nobody else may read a secret, or change what is believed; each that they may is named, with what mends it."""
    config, state, key = own
    credential = scratch / "credential"
    credential.touch(mode=0o600)
    kept = [("credential of offsite", f"file:{credential}"), ("credential of other", "env:ANY")]
    assert said(checkup.check_files(*own, kept)) == [
        "good permissions: configuration, state, signing key and credentials belong to us alone"
    ]
    config.chmod(0o644)
    assert len(said(checkup.check_files(*own, kept))) == 1
    for path, mode in ((config, 0o664), (state, 0o750), (key, 0o640), (credential, 0o604)):
        path.chmod(mode)
    found = list(checkup.check_files(*own, kept))
    assert said(found) == [
        f"bad configuration: others may write {config}: its mode is 0664",
        f"bad state directory: others may use {state}: its mode is 0750",
        f"bad signing key: others may use {key}: its mode is 0640",
        f"bad credential of offsite: others may use {credential}: its mode is 0604",
    ]
    assert found[2].hint == f"chmod 600 {key}"


def test_what_belongs_to_somebody_else(own: tuple[Path, Path, Path]) -> None:
    """Who owns a key may use it, whatever its mode."""
    if os.geteuid() != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("only root gives files away")
    os.chown(own[2], 12345, 12345)
    assert said(checkup.check_files(*own, ())) == [f"bad signing key: {own[2]} belongs to user 12345"]


def test_what_is_not_there(own: tuple[Path, Path, Path]) -> None:
    """A missing key is not taken for one that nobody may read."""
    own[2].unlink()
    assert said(checkup.check_files(*own, ())) == [
        f"bad signing key: cannot look at {own[2]}: no such file or directory"
    ]


def test_recipients_that_nobody_answered_for() -> None:
    """Each that nobody has shown to open anything is named."""
    known, other = (parse_recipient(make_identity().recipient) for _ in range(2))
    assert said(checkup.check_recipients([known], [known.fingerprint])) == [
        "good recipients: each was proven to open backups"
    ]
    assert said(checkup.check_recipients([known, other], [known.fingerprint])) == [
        f"warn recipients: nobody has proven that {other} can open backups"
    ]


def locations(at: Path, *, keep_free: int = 0, quota: int = 0) -> Locations:
    repository = RepositorySettings(at / "state" / "repository", Bytes(quota), Bytes(keep_free))
    return Locations(NodeSettings("plant-7", "cp-1"), repository, StateSettings(at / "state"))


def test_room_for_the_next_full(scratch: Path) -> None:
    """A disk that is too full for what stays free, or for the next full, fails the next backup: that is bad already."""
    free = free_space_of(scratch)
    room = [each.split(" ", 2)[:2] for each in said(checkup.check_space(locations(scratch), Stock(sealed=1, plain=9)))]
    assert room == [["good", "space:"]] * 2
    tight = said(checkup.check_space(locations(scratch, keep_free=2 * free), Stock()))
    assert [each.startswith("bad space: ") and "the next backup fails" in each for each in tight] == [True, True]
    large = said(checkup.check_space(locations(scratch), Stock(plain=2 * free)))
    assert [each.startswith("bad space: ") and "a full takes up to" in each for each in large] == [True, True]


def test_a_quota_that_the_disk_does_not_hold(scratch: Path) -> None:
    """The quota is there so that the disk never fills: one that is larger than what is left does not help."""
    quota = 2 * free_space_of(scratch)
    state, repository = said(checkup.check_space(locations(scratch, quota=quota), Stock()))
    assert state.startswith("good space: ")
    assert repository.startswith(f"warn space: {scratch}/state/repository: ")
    assert "the disk is full before the quota of" in repository
    _, enough = said(checkup.check_space(locations(scratch, quota=quota), Stock(used=quota)))
    assert enough.startswith("good space: ")


def test_what_runs_here(cp: Node, scratch: Path) -> None:
    """A layout that was found is named; where there is none, what was looked for."""
    assert said(checkup.check_layout(cp)) == ["good layout: kubeadm, stacked etcd"]
    (nothing,) = said(checkup.check_layout(Node(Files(scratch), UNKNOWN)))
    assert nothing.startswith(f"bad layout: below {scratch} there is no kubeadm layout: ")


def test_certificates_that_expire(cp: Node) -> None:
    """What expires within 30 days is warned of, what has expired is bad; the source's own, longer time is not used."""
    source = CertificatesSource(warn_before=timedelta(days=36500))
    (sound,) = said(checkup.check_certificates(cp, source))
    assert sound.startswith("good certificates: sound; first to expire: /etc/kubernetes/pki/")
    until = datetime.fromisoformat(sound.rpartition(" ")[2])
    soon = replace(cp, now=until - timedelta(days=29))
    (warned,) = said(checkup.check_certificates(soon, source))
    assert warned.startswith("warn certificates: /etc/kubernetes/pki/")
    assert f"expires on {until:%Y-%m-%d}" in warned
    gone = said(checkup.check_certificates(replace(cp, now=until + timedelta(days=1)), source))
    assert gone[0].startswith("bad certificates: ")
    assert "expired on" in gone[0]
    (none,) = said(checkup.check_certificates(Node(Files(cp.root / "etc/cni"), UNKNOWN, now=NOW), source))
    assert none.startswith("bad certificates: there is no certificate on this node")


def test_a_clock_that_cannot_be_right(kept: Operator) -> None:
    """Neither before this version, nor before what was backed up."""
    newest = Repository(DirectoryStorage(kept.repository)).list()[-1].manifest
    assert newest is not None
    assert said(checkup.check_clock(newest.created, newest)) == [
        f"good clock: plausible: {newest.created:%Y-%m-%d %H:%M:%SZ}"
    ]
    assert said(checkup.check_clock(datetime(1970, 1, 1, tzinfo=UTC), newest)) == [
        "bad clock: it shows 1970-01-01, before this version of edgedr was made"
    ]
    (behind,) = said(checkup.check_clock(newest.created - timedelta(hours=1), newest))
    assert behind.startswith("bad clock: it shows ")
    assert "one of the two was wrong" in behind
    assert said(checkup.check_clock(RELEASED, None))[0].startswith("good clock: ")


def test_an_identity_that_was_left_on_the_node(scratch: Path) -> None:
    """One that opens this node's backups is bad, another is worth a look; where it lies is said, never what it is."""
    ours, other = make_identity(), make_identity()
    recipients = {parse_recipient(ours.recipient).fingerprint}
    home, etc, full = scratch / "root", scratch / "etc", scratch / "repository"
    for place in (home / ".config" / "age", etc, full):
        place.mkdir(parents=True)
    places = (home, etc, scratch / "absent", full.parent / "absent", full)
    assert said(check_strays(places, recipients))[0].startswith(f"good identities: none below {home}, {etc}, ")
    (home / ".config" / "age" / "key.txt").write_text(f"# created: today\n{ours.secret}\n")
    (etc / "sops.txt").write_text(f"{other.secret}\n")
    (home / ".bash_history").write_text(f"ls\necho {ours.secret} > x\n")
    (full / "key.txt").write_text(ours.secret)
    (home / "link").symlink_to(full / "key.txt")
    (home / "large").write_bytes(b"\0" * (64 << 10) + ours.secret.encode())
    os.mkfifo(home / "fifo")
    found = said(check_strays((home, etc, scratch / "repository"), recipients, leave_out={full}))
    assert sorted(found) == [
        f"bad identities: {full / 'key.txt'} holds an age identity that may open this node's backups",
        f"bad identities: {home / '.bash_history'} holds an age identity that may open this node's backups",
        f"bad identities: {home / '.config/age/key.txt'} holds an age identity that may open this node's backups",
        f"warn identities: {etc / 'sops.txt'} holds an age identity, of none of this node's recipients",
    ]
    assert not any(secret[:30] in line for line in found for secret in (ours.secret, other.secret))
    below = said(check_strays((scratch,), recipients, leave_out={full}))
    assert not any(str(full) in line for line in below)


@dataclass(frozen=True)
class Shell:
    """Answers what it was told to, and knows no other command."""

    answers: dict[str, str]

    def run(self, *words: str, within: timedelta = WITHIN) -> str:
        try:
            return self.answers[" ".join(words)]
        except KeyError as error:
            raise SourceError(f"there is no {words[0]} on this machine") from error


def bench(cp: Node, at: Path, names: Sequence[str], **versions: str) -> Node:
    """Return a node that has these programs, some of which tell a version."""
    root = kubeadm.unpack(at / "root")
    (root / "usr/bin").mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / "usr/bin" / name).touch()
    answers = {
        f"{name} version": f"{name} version: {version}\nAPI version: 3.5\n" for name, version in versions.items()
    }
    return replace(cp, files=Files(root), commands=Shell(answers))


BY_HAND = ("age", "zstd", "tar", "ssh-keygen")


@pytest.mark.parametrize(
    ("versions", "etcd", "text"),
    [
        ({"etcdutl": "3.6.8"}, "3.6.8", "good tools: etcdutl 3.6.8, which knows --bump-revision"),
        ({"etcdutl": "3.6.8"}, None, "good tools: etcdutl 3.6.8, which knows --bump-revision"),
        ({"etcdctl": "3.4.27"}, "3.4.30", "good tools: etcdctl 3.4.27, which knows --bump-revision"),
        (
            {"etcdctl": "3.4.23"},
            "3.4.23",
            "warn tools: etcdctl 3.4.23, which does not know --bump-revision: controllers",
        ),
        ({"etcdutl": "3.5.1"}, "3.5.1", "warn tools: etcdutl 3.5.1, which does not know --bump-revision: controllers"),
        ({"etcdutl": "3.5.16"}, "3.6.8", "warn tools: etcdutl 3.5.16, and the cluster's etcd is 3.6.8"),
        ({"etcdctl": "3.6.8"}, "3.6.8", "warn tools: etcdctl 3.6.8, which restores no snapshots any more"),
        ({"etcdutl": "unknown"}, "3.6.8", "warn tools: etcdutl did not tell a version"),
        ({}, "3.6.8", "warn tools: neither etcdutl nor etcdctl is on this node's PATH"),
    ],
)
def test_etcds_tool(cp: Node, scratch: Path, versions: dict[str, str], etcd: str | None, text: str) -> None:
    """It must be there, restore snapshots, be of the cluster's minor version, and know how to raise revisions."""
    first, second = said(check_tools(bench(cp, scratch, (*versions, *BY_HAND), **versions), etcd))
    assert first.startswith(text)
    assert second == "good tools: age, zstd, tar, ssh-keygen are here"


def test_tools_of_a_recovery_by_hand(cp: Node, scratch: Path) -> None:
    """What is lacking is named; it may be elsewhere, so that nothing is bad."""
    node = bench(cp, scratch, ("tar", "crictl", "etcdutl"), etcdutl="3.6.8")
    assert said(check_tools(node, None))[1:] == [
        "warn tools: no age, no zstd, no ssh-keygen here: a recovery by hand needs them, here or elsewhere",
        "good tools: tar, crictl are here",
    ]


def test_which_etcd_knows_what() -> None:
    """The versions that have --bump-revision, and the tools that restore."""
    known = [(3, 4, 27), (3, 4, 99), (3, 5, 10), (3, 6, 0), (3, 7, 1), (4, 0, 0)]
    unknown = [(3, 4, 26), (3, 5, 0), (3, 5, 9), (3, 3, 27), (2, 3, 8)]
    assert all(map(bumps, known))
    assert not any(map(bumps, unknown))
    assert restores("etcdutl", (3, 6, 0))
    assert restores("etcdctl", (3, 5, 30))
    assert not restores("etcdctl", (3, 6, 0))


def test_what_stops_a_check_is_a_finding() -> None:
    """One thing that cannot be looked at hides no other."""

    def broken() -> Iterable[Finding]:
        yield Finding(Severity.GOOD, "space", "much")
        raise StorageError("the disk is gone")

    assert said(checkup.checked("space", broken())) == ["good space: much", "bad space: the disk is gone"]


@pytest.fixture
def lasting(node: Operator) -> Operator:
    """A node that is set up, whose only certificates are its authorities: they are good for years from now."""
    node.init()
    for path in sorted(node.root.rglob("*")):
        if path.suffix in {".crt", ".conf", ".pem"} and not path.stem.endswith("ca"):
            path.unlink()
    return node


def test_doctor_on_a_node_that_was_set_up(lasting: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    """`edgedr doctor --local` asks no server; what is only unfinished is a warning, and ends with 0."""
    look = Said(lasting, capsys)
    text = look("doctor", "--local")
    assert max(len(line) for line in text.splitlines() if str(lasting.directory) not in line) <= 80
    words = " ".join(text.split())
    for line in (
        "this machine plant-7/cp-1 ok permissions: configuration, state, signing key and credentials belong to us alo",
        "ok layout: kubeadm, ",
        "ok certificates: sound; first to expire: ",
        "ok clock: plausible: ",
        "warn recipients: nobody has proven that age1",
        "warn replicas: there is none: backups are on this machine only hint: add [[replicas]]: a bucket, or another",
    ):
        assert line in words
    assert "a thief" not in text
    document = look.json("doctor", "--local")
    assert document["bad"] == 0
    assert [part["name"] for part in document["parts"]] == ["this machine"]


def test_local_asks_no_replica(lasting: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    """With `--local` nothing is sent anywhere, whatever is configured; without it the same replica is out of reach."""
    gone = lasting.directory / "unplugged"
    lasting.config.write_text(f'{lasting.config.read_text()}\n[[replicas]]\nname = "disk"\nurl = "{gone}"\n')
    look = Said(lasting, capsys)
    assert str(gone) not in look("doctor", "--local")
    text = look("doctor", code=5)
    assert text.startswith("this machine     plant-7/cp-1\n")
    assert f"error: {gone} is not there\n" in text


def test_doctor_finds_what_was_left_open(lasting: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    """A signing key that others may read and an identity in the state directory end with 2, the first one named."""
    key, stray = lasting.state / "signing.key", lasting.state / "key.txt"
    key.chmod(0o644)
    stray.write_text(lasting.secret)
    text = Said(lasting, capsys)("doctor", "--local", code=2)
    words = " ".join(text.split())
    assert f"BAD signing key: others may use {key}: its mode is 0644 hint: chmod 600 {key}" in words
    assert f"{stray} holds an age identity that may open this node's backups" in words
    assert f"error: this machine: signing key: others may use {key}: its mode is 0644 (and 1 more)\n" in text
    assert f"  hint: chmod 600 {key}\n" in text
    assert lasting.secret not in text


def test_doctor_before_init(node: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    """A configuration without what `init` makes is told so."""
    node.init()
    (node.state / "signing.key").unlink()
    text = " ".join(Said(node, capsys)("doctor", "--local", code=2).split())
    assert "BAD signing key: cannot look at" in text
    assert "hint: run `edgedr init`" in text


def test_secrets_of_zone_transfers_are_looked_at(node: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever secret the configuration refers to must be ours alone."""
    node.init([])
    secret = node.directory / "tsig"
    secret.write_text("c2VjcmV0")
    secret.chmod(0o644)
    text = node.config.read_text()
    transfer = f'[[sources.dns.transfers]]\nserver = "10.0.0.53"\nzones = ["a.example"]\nsecret = "file:{secret}"\n'
    node.config.write_text(f'{text}\n{transfer}key = "edgedr"\n')
    load(node.config)
    found = " ".join(Said(node, capsys)("doctor", "--local", code=2).split())
    assert f"BAD secret of a zone transfer: others may use {secret}: its mode is 0644" in found


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--local", "--replica", "offsite"), "--local looks at this machine only"),
        (("--local", "--as", "admin"), "--local looks at this machine only"),
        (("--replica", "offsite"), "there is no replica"),
        (("--as", "monitor"), "there is no replica"),
        (("--as", "thief"), "argument --as: invalid choice: 'thief'"),
    ],
)
def test_what_makes_no_sense_together(look: Said, words: tuple[str, ...], message: str) -> None:
    """A command line that cannot be meant ends with 2, before anything is asked."""
    assert message in look("doctor", *words, code=2)
