"""What a backup holds only in part, not at all, or on purpose not: said by `backup`, `list`, `show` and `restore`."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.lab.operator import NOT_HERE, Operator, Said
from tests.lab.whole import operated

DEPLOYMENTS = "/apis/apps/v1/deployments"


@dataclass
class Told:
    """Three backups of one node: whole, with a part that could not be had, and with another node on duty.

    Then one of another node into the same repository. ``said`` is what was printed when each was the newest.
    """

    operator: Operator
    ids: dict[str, str] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)

    def back_up(self, name: str, code: int = 0) -> None:
        self.said[name] = "".join(self.operator.run("backup", code=code))
        self.said[f"show {name}"] = "".join(self.operator.run("show"))
        self.ids[name] = json.loads(self.operator.run("show", "--json")[0])["id"]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    with operated(tmp_path_factory.mktemp("plane")) as plane:
        told = Told(plane.operator)
        config = plane.operator.config
        text = config.read_text()
        told.back_up("whole")
        plane.api.refuse[DEPLOYMENTS] = 403
        told.back_up("partial", code=3)
        plane.api.refuse.clear()
        config.write_text(text.replace('# cluster_capture = "auto"', 'cluster_capture = "never"'))
        told.back_up("elsewhere")
        plane.operator.signers()
        config.write_text(text.replace('name = "cp-1"', 'name = "cp-2"'))
        told.back_up("other")
        config.write_text(text)
        yield told


@pytest.fixture
def say(told: Told, capsys: pytest.CaptureFixture[str]) -> Said:
    return Said(told.operator, capsys)


def words_of(text: str) -> str:
    return " ".join(text.split())


def test_a_backup_says_what_it_holds_and_where_it_is(told: Told) -> None:
    """Both kinds of datastore in one form; a part that lacks below what is there; one size for all commands."""
    text = told.said["partial"]
    assert re.search(r"^etcd             1\.01 MB  revision \d+, version [\d.]+, 1 member$", text, re.MULTILINE)
    assert re.search(
        r"^objects          43 kinds, 516 objects\n  partial        deployments\.apps: ", text, re.MULTILINE
    )
    assert re.search(r"^addresses        3 interfaces, .*0 overlaps", text, re.MULTILINE)
    assert f"at {told.operator.repository} on this node only: copy it away" in words_of(text)
    counts = re.findall(r"(?<![\w.-])(\d+) (\w+)", text)
    assert [pair for pair in counts if pair[0] == "0" and pair[1] != "overlaps"] == []


def test_counts_are_the_same_everywhere(told: Told) -> None:
    """`backup` and `show` name what a source holds in the same order."""
    made = re.search(r"^serviceaccounts  (.*)$", told.said["whole"], re.MULTILINE)
    shown = re.search(r"^serviceaccounts  ok      (.*)$", told.said["show whole"], re.MULTILINE)
    assert made is not None
    assert shown is not None
    assert made[1] == shown[1]


def test_sizes_are_the_same_everywhere(told: Told, say: Said) -> None:
    """What `backup` says was committed is what `list` says is there, and what a chain is the sum of."""
    repository: list[str | Path] = ["--repository", told.operator.repository, "--node", "cp-1"]
    stored = {row["id"]: row["stored_bytes"] for row in say.json("list", *repository)}
    text = say("list", *repository)
    for name in ("whole", "partial", "elsewhere"):
        committed = re.search(r"^committed  .*?  (?:full|delta)  (\S+ \S+)  L1", told.said[name], re.MULTILINE)
        listed = re.search(rf"^{told.ids[name]}  .*?(?:full|delta) +(\S+ \S+)  L1", text, re.MULTILINE)
        assert committed is not None
        assert listed is not None
        assert committed[1] == listed[1]
    both = stored[told.ids["whole"]] + stored[told.ids["partial"]]
    assert f"1 full + 1 delta  {both / 1e3:.1f} kB to download" in told.said["show partial"]


def test_a_backup_without_a_datastore_is_marked(told: Told, say: Said) -> None:
    """Another node captured it: no fault, and nothing that one could start a cluster from."""
    assert "no snapshot in this backup" in told.said["elsewhere"]
    assert "complete" not in told.said["elsewhere"]
    assert "no snapshot in this backup" in told.said["show elsewhere"]
    text = words_of(say("list", "--repository", told.operator.repository, "--node", "cp-1"))
    assert text.count("no datastore: another node captured it") == 1
    assert text.endswith("L1 no datastore: another node captured it L1: signature and ciphertext hashes hold")
    rows = say.json("list", "--repository", told.operator.repository, "--node", "cp-1")
    assert [(row["condition"], row["snapshot"]) for row in rows] == [("ok", True), ("incomplete", True), ("ok", False)]


def test_show_says_why_where_it_can(told: Told, say: Said) -> None:
    """On the node the real reasons; elsewhere with an identity; else how to see them. So with what expires first."""
    real = f"deployments.apps: the API server refused {DEPLOYMENTS}"
    assert f"partial objects: {real}" in words_of(told.said["show partial"])
    assert "first to expire  /etc/kubernetes/pki/" in told.said["show partial"]
    assert "elsewhere etcd, objects: captured by another node, as [sources]" in words_of(told.said["show elsewhere"])
    partial = told.ids["partial"]
    words: list[str | Path] = ["show", partial, "--repository", told.operator.repository]
    text = say(*words, config=False)
    assert f"partial dns, objects: part is missing: edgedr show {partial} --identity FILE says what" in words_of(text)
    assert f" edgedr show {partial} --identity FILE\n" in text
    assert "first to expire" not in text
    text = say(*words, "--identity", told.operator.identity, config=False)
    assert f"partial objects: {real}" in words_of(text)
    assert "first to expire  /etc/kubernetes/pki/" in text
    assert max(map(len, text.splitlines())) <= 80
    words = ["show", told.ids["elsewhere"], "--repository", told.operator.repository]
    assert "elsewhere        etcd, objects: another node of the cluster captured it\n" in say(*words, config=False)


def test_only_what_is_there_can_be_asked_for(told: Told, say: Said, tmp_path: Path) -> None:
    """What another node captured, or this one has not, is refused by name: it must not look restored."""
    words: list[str | Path] = ["restore", told.ids["elsewhere"], "--identity", told.operator.identity, "--to"]
    text = say(*words, tmp_path / "a", "--only", "etcd", code=9)
    assert f"{told.ids['elsewhere']} holds no etcd: another node of the cluster captured it\n" in text
    assert "take that node's newest backup; what this node had before: " in text
    assert f"edgedr restore {told.ids['partial']} --only etcd …" in text
    there: list[str | Path] = ["--repository", told.operator.repository, "--node", "cp-1"]
    text = say(*words, tmp_path / "a", "--only", "etcd", *there, code=9, config=False)
    assert f"hint: cp-2 does, if it is of the same cluster: edgedr restore {told.ids['other']} --only etcd …\n" in text
    text = say(*words, tmp_path / "a", "--only", "certificates", "--only", "sqlite", code=9)
    assert f"{told.ids['elsewhere']} holds no sqlite: this node has no sqlite\n" in text
    assert not (tmp_path / "a").exists()
    say(*words, tmp_path / "b", "--only", "certificates")


def test_a_restore_names_what_to_take_too(told: Told, say: Said, tmp_path: Path) -> None:
    """What another node captured is said, exit 0; a script gets it apart from what is missing."""
    words: list[str | Path] = ["restore", told.ids["elsewhere"], "--identity", told.operator.identity, "--to"]
    text = words_of(say(*words, tmp_path / "a"))
    said = "elsewhere etcd, objects: captured by another node, as [sources] cluster_capture says; take that node's"
    assert f"{said} newest backup too" in text
    found = say.json(*words, tmp_path / "b")
    assert (found["missing"], found["partial"], found["elsewhere"]) == ([], [], ["etcd", "objects"])


def test_a_restore_says_what_to_read_next(told: Told, say: Said, tmp_path: Path) -> None:
    """The documents that came out, then the recipe; of one source alone, its own document only."""
    words: list[str | Path] = ["restore", told.ids["whole"], "--identity", told.operator.identity, "--to"]
    text = words_of(say(*words, tmp_path / "a"))
    documents = (
        "addresses/plan.txt, machine/machine.txt, certificates/ledger.txt, serviceaccounts/summary.txt,"
        " kubernetes/contents.txt"
    )
    assert f"read in {tmp_path}/a/files/.edgedr: {documents} next v1/RECOVER.txt in the repository," in text
    assert text.endswith('from "PUTTING IT BACK", says how to put it back')
    recipe = (told.operator.repository / "v1/RECOVER.txt").read_text()
    assert "PUTTING IT BACK" in recipe
    for document in documents.split(", "):
        assert (tmp_path / "a/files/.edgedr" / document).is_file()
    text = say(*words, tmp_path / "b", "--only", "machine")
    assert "  machine/machine.txt\n" in text
    assert "plan.txt" not in text
    assert "read  " not in say(*words, tmp_path / "c", "--only", "etcd")


def test_what_is_partial_is_told_from_what_is_missing(
    node: Operator, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A restore says which is which, and once, for all of them, that no other backup here is better."""
    said = Said(node, capsys)
    node.init([name for name in NOT_HERE if name not in {"dns", "objects"}])
    text = node.config.read_text()
    node.config.write_text(text.replace("[kubernetes]", '[kubernetes]\nserver = "https://127.0.0.1:1"\nanswer = "1 s"'))
    text = said("backup", code=3)
    assert re.search(r"^dns              1 file\n  partial        CoreDNS: ", text, re.MULTILINE)
    assert re.search(r"^objects          missing: ", text, re.MULTILINE)
    words: list[str | Path] = ["restore", "--identity", node.identity, "--to"]
    text = said(*words, tmp_path / "a", code=3)
    assert "is restored; it held only part of: dns; nothing of: objects\n" in text
    assert "hint: no backup here is better for dns, objects: look at another copy of the repository\n" in text
    text = said(*words, tmp_path / "b", "--json", code=3)
    found = json.loads(text.partition("\nerror: ")[0])
    assert (found["missing"], found["partial"]) == (["dns", "objects"], ["dns"])
    text = said(*words, tmp_path / "c", "--only", "dns", code=3)
    assert "is restored; it held only part of: dns\n" in text
