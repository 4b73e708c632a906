"""`edgedr init` and `edgedr keys prove`, as an operator types them."""

import base64
import json
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edgedr.cli.main import main
from edgedr.sealing.identities import make_identity
from edgedr.settings import load
from tests.lab.operator import NOT_HERE, Operator, Said, files_with
from tests.lab.tools import need


def test_init_finds_the_layout_and_writes_what_is_needed(node: Operator) -> None:
    """The configuration, the signing key and the state, each with its own mode; the host name is the node's."""
    said, complained = node.run(*node.init_words(), "--unproven")
    assert "kubeadm" in said
    assert "Kubernetes 1.36" in said
    assert "is not proven" in complained
    settings = load(node.config)
    assert (settings.node.site, settings.node.name) == ("plant-7", "cp-1")
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in node.state.iterdir() if path.is_file()} == {
        "signing.key": 0o600,
        "signing.key.pub": 0o644,
        "state.json": 0o600,
        "lock": 0o600,
    }
    assert stat.S_IMODE(node.state.stat().st_mode) == 0o700
    line = next(line.strip() for line in said.splitlines() if 'namespaces="edgedr"' in line)
    assert line.startswith("cp-1@plant-7 ")
    assert " ".join(line.split()[2:]) in (node.state / "signing.key.pub").read_text()


def test_init_says_where_it_found_no_kubernetes(node: Operator) -> None:
    """A root below which nothing is known is allowed, and not passed over."""
    bare = node.directory / "bare"
    bare.mkdir()
    words = [bare if word == str(node.root) else word for word in node.init_words()]
    said = " ".join(node.run(*words, "--node", "cp-1", "--unproven")[0].split())
    assert f"found unknown: below {bare} there is no kubeadm layout: " in said
    assert (
        "no k3s layout: /var/lib/rancher/k3s/server/tls is not there; only what [sources.…] names will be taken" in said
    )


def test_init_promises_what_this_layout_has(node: Operator) -> None:
    """Where etcd runs there is no SQLite to take."""
    said, _ = node.run(*node.init_words(), "--unproven")
    taken = " ".join(said.partition("will take")[2].partition("wrote")[0].split())
    assert taken == "serviceaccounts, certificates, files, dns, addresses, machine, etcd, objects"


def test_init_names_the_replicas(node: Operator, tmp_path: Path) -> None:
    """Each gets a section with its URL and a name that says what it is; doctor is the next thing to try then."""
    disks = [f"{tmp_path}/usb", f"{tmp_path}/second/usb"]
    words = [word for url in ("s3://dr-backups/edge", *disks) for word in ("--replica", url)]
    said, _ = node.run(*node.init_words(), *words, "--unproven")
    found = {replica.name: replica.url for replica in load(node.config).replicas}
    assert found == {"dr-backups": "s3://dr-backups/edge", "usb": disks[0], "replica-3": disks[1]}
    assert "edgedr doctor" in said
    node.run(*node.init_words(), *words[:2], "--unproven")
    _, complained = node.run(*node.init_words(), "--replica", "s3://another", "--unproven", code=2)
    assert "--replica would change it" in complained


@pytest.mark.parametrize("url", ["s3://B/edge", "http://host/bucket", "usb", "s3://bucket/../x", "s3://AKIA:secret@b"])
def test_init_refuses_what_is_no_replica(node: Operator, url: str) -> None:
    """What cannot be a bucket or a directory is refused before anything is written, and never repeated."""
    _, complained = node.run(*node.init_words(), "--replica", url, "--unproven", code=2)
    assert "replicas #1 url" in complained
    assert "secret" not in complained
    assert not node.config.exists()


def _converse(node: Operator, *options: str, answer: str, tries: int = 3) -> tuple[int, str]:
    """Run init, and answer its challenge with ``edgedr``, with ``age``, or not; return how it ended and said.

    ``answer`` may be ``SIGINT`` instead: somebody gives up.
    """
    command = [sys.executable, "-u", "-m", "edgedr", *node.words(*options)]
    said = ""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in process.stdout:
            said += line
            match = re.search("keys prove --identity key.txt '(.*)'", line)
            if secret := re.search("AGE-SECRET-KEY-[A-Z0-9]+", line):
                node.identity.write_text(secret[0] + "\n")
            if match is None:
                continue
            if answer == "SIGINT":
                process.send_signal(signal.SIGINT)
                continue
            if answer == "edgedr":
                given, _ = node.run("keys", "prove", match[1], "--identity", node.identity)
            elif answer == "age":
                age: list[str | Path] = [need("age"), "-d", "-i", node.identity]
                given = subprocess.run(
                    age, input=base64.b64decode(match[1]), capture_output=True, check=True
                ).stdout.decode()
                given += "\n"
            else:
                given = f"{answer}\n" * tries
            process.stdin.write(given)
            process.stdin.flush()
            if answer not in {"edgedr", "age"}:
                process.stdin.close()
    node.printed.append(said)
    return process.returncode, said


@pytest.mark.parametrize("answer", ["edgedr", "age"])
def test_somebody_proves_that_backups_can_be_opened(node: Operator, answer: str) -> None:
    """The challenge is answered with edgedr, or with stock age; a second init does not ask again."""
    code, said = _converse(node, *node.init_words(), answer=answer)
    assert code == 0, said
    assert "proven           recipient" in said
    assert "can open backups of this node" in said
    again, complained = node.run(*node.init_words())
    assert "left as it is" in again
    assert "prove" not in again + complained


@pytest.mark.parametrize(("answer", "tries"), [("0000-0000-0000", 3), ("no", 1)])
def test_wrong_answers_prove_nothing(node: Operator, answer: str, tries: int) -> None:
    """After three wrong answers, or none, init ends with 2; every backup says so until somebody proves it."""
    code, said = _converse(node, *node.init_words(), answer=answer, tries=tries)
    assert code == 2
    assert said.count("that is not it") == tries
    assert "nobody has proven that" in said
    node.config.write_text(node.config.read_text().replace("# disabled = []", f"disabled = {json.dumps(NOT_HERE)}"))
    _, complained = node.run("backup")
    assert f"warn: nobody has proven that recipient {node.recipient}" in complained
    code, said = _converse(node, *node.init_words(), answer="edgedr")
    assert code == 0, said
    assert "nobody has proven" not in node.run("backup")[1]


def test_whoever_gives_up_is_told_what_stands(node: Operator) -> None:
    """An interrupted init says what it wrote, what nobody proved, and how to go on; and that works."""
    code, said = _converse(node, *node.init_words(), answer="SIGINT")
    assert code == 130
    told = said.splitlines()[-1].removeprefix("> ")
    assert told == (
        f"interrupted; {node.config} and {node.state}/signing.key are written, but nobody has proven that "
        f"{node.recipient} can open backups: run `edgedr init --site plant-7` again with the identity"
    )
    code, said = _converse(node, "init", "--site", "plant-7", answer="edgedr")
    assert code == 0, said


def test_a_recipient_added_later_is_not_taken_for_proven(node: Operator) -> None:
    """Whoever edits the configuration is told that nobody showed the new key to open anything."""
    code, said = _converse(node, *node.init_words(), answer="edgedr")
    assert code == 0, said
    escrow = make_identity().recipient
    text = node.config.read_text().replace("# disabled = []", f"disabled = {json.dumps(NOT_HERE)}")
    node.config.write_text(text.replace("recipients = [\n", f'recipients = [\n  "{escrow}",\n'))
    _, complained = node.run("backup")
    assert f"nobody has proven that recipient {escrow}" in complained
    assert node.recipient not in complained


def test_a_new_identity_is_shown_once_and_kept_nowhere(node: Operator) -> None:
    """Its secret is on the screen, and in no file of the node."""
    words = [word for word in node.init_words() if word not in {"--recipient", node.recipient}]
    code, said = _converse(node, *words, "--new-identity", answer="edgedr")
    assert code == 0, said
    (secret,) = re.findall("AGE-SECRET-KEY-1[A-Z0-9]+", said)
    before, _, after = said.partition(f"{secret}\n")
    assert re.search(r"^wrote .*signing\.key \(0600\)$", before, re.MULTILINE)
    assert after.startswith("prove that someone can open the backups for")
    wide = [line for line in said.splitlines() if len(line) > 80 and not re.search(r"\S{60}", line)]
    assert wide == []
    assert node.identity.read_text().strip() == secret  # the person's own copy
    assert files_with(node.directory, secret) == [node.identity]
    again, _ = node.run("init", "--site", "plant-7")
    assert "AGE-SECRET" not in again


def test_a_new_identity_is_shown_even_if_init_fails(node: Operator) -> None:
    """Its recipient stands in the configuration then: without the secret nobody could ever prove it."""
    node.state.mkdir()
    (node.state / "signing.key").mkdir()
    words = [word for word in node.init_words() if word not in {"--recipient", node.recipient}]
    said, _ = node.run(*words, "--new-identity", code=5)
    (recipient,) = load(node.config).recipients
    assert f"# public key: {recipient}\nAGE-SECRET-KEY-1" in said


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--site", "plant-8"], "--site"),
        (["--site", "plant-7", "--node", "cp-2"], "--node"),
        (["--site", "plant-7", "--recipient", make_identity().recipient], "--recipient"),
        (["--site", "plant-7", "--new-identity"], "--new-identity"),
        (["--site", "plant-7", "--repository", "/elsewhere"], "--repository"),
        (["--site", "plant-7", "--root", "/elsewhere"], "--root"),
    ],
    ids=["site", "node", "recipient", "new identity", "repository", "root"],
)
def test_a_second_init_changes_nothing(look: Said, options: list[str], named: str) -> None:
    """What was asked for and does not stand in the configuration is an error, not silently left undone."""
    before = look.operator.config.read_text()
    assert f"and {named} would change it" in look("init", *options, "--unproven", code=2)
    assert look.operator.config.read_text() == before


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--site", "Plant 7", "--recipient", "{}"], "'Plant 7' cannot be the site's name"),
        (["--site", "p", "--node", "a/b", "--recipient", "{}"], "'a/b' cannot be the node's name"),
        (["--site", "p"], "no recipient was given"),
        (["--site", "p", "--recipient", "age1typo"], "age1typo is not an age recipient"),
        (["--site", "p", "--recipient", "{}", "--recipient", "{}"], "error: --recipient {} was given twice"),
        (["--site", "p", "--recipient", "{}", "--root", "/nonexistent"], "'/nonexistent' is not a directory"),
        (["--site", "p", "--recipient", "{}", "--root", "/etc/passwd"], "'/etc/passwd' is not a directory"),
        (["--site", "p", "--recipient", "{}", "--state", "/s", "--repository", "/s"], "not written yet, has 1 problem"),
        (["--recipient", "{}"], "the following arguments are required: --site"),
    ],
)
def test_init_refuses(node: Operator, capsys: pytest.CaptureFixture[str], options: list[str], expected: str) -> None:
    """Mistakes are said before anything is written."""
    said = Said(node, capsys)("init", *(option.format(node.recipient) for option in options), code=2)
    assert " ".join(expected.format(node.recipient).split()) in " ".join(said.split())
    assert not node.config.exists()
    assert not node.state.exists()


def test_a_private_key_on_the_command_line_is_never_echoed(node: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    """Pasted where a recipient, a file or an id belongs, or where nothing does."""
    said = Said(node, capsys)
    lines = [
        ["init", "--site", "plant-7", "--recipient", node.secret],
        ["init", "--site", node.secret, "--recipient", node.recipient],
        ["list", node.secret],
        [node.secret],
        ["keys", "prove", "YWdl", "--identity", node.secret],
        ["show", "--repository", node.secret],
        ["show", "--at", node.secret, "--repository", str(node.root)],
    ]
    for line in lines:
        code = main(node.words(*line))
        text = "".join(said.capsys.readouterr())
        assert code in {2, 6, 8}, (line, text)
        assert node.secret not in text
