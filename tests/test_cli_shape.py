"""What holds for every command: width, help, pipes, start-up."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgedr.cli import terminal
from edgedr.cli.parser import COMMANDS
from edgedr.errors import EXIT_CODES
from tests.lab.operator import Operator, Said


def test_output_fits_80_columns(look: Said) -> None:
    """What has no long path in it stays within a terminal."""
    operator = look.operator
    for words in (["list"], ["show"], ["show", "1"], ["verify", "--all"], ["--help"]):
        assert max(map(len, look(*words).splitlines())) <= 80, words
    said, _ = operator.run("backup")
    said = said.replace(str(operator.repository), "/var/lib/edgedr/repository")
    assert max(map(len, said.splitlines())) <= 80, said


def test_several_nodes_in_one_repository(look: Said, scratch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each node has its own table; to choose one backup of them, the node is asked for."""
    copy = scratch / "usb"
    shutil.copytree(look.operator.repository, copy)
    other = Operator(scratch / "other")
    other.init()
    text = other.config.read_text()
    other.config.write_text(text.replace('name = "cp-1"', 'name = "cp-2"').replace(str(other.repository), str(copy)))
    Said(other, capsys)("backup")
    text = look("list", "--repository", copy)
    assert text.index("plant-7/cp-1\n") < text.index("plant-7/cp-2\n")
    assert max(map(len, text.splitlines())) <= 80
    assert "backups of 2 nodes are here" in look("show", "latest", "--repository", copy, code=8)
    assert look.json("show", "latest", "--repository", copy, "--node", "cp-2")["node"] == "cp-2"


def test_help_lists_commands_and_exit_codes(look: Said) -> None:
    """Every command, and every code with its meaning, on the first page; each command has its own."""
    text = look("--help")
    for code, meaning in EXIT_CODES:
        assert f"{code:>2}  {meaning}" in text
    for command in COMMANDS:
        assert command.words[0] in text
        own = look(*command.words, "--help").partition("exit codes:\n")[2]
        codes = {0, 1, 2, *command.codes}
        assert own == "".join(f"  {code:>2}  {meaning}\n" for code, meaning in EXIT_CODES if code in codes)
        assert "see `edgedr" not in look(command.words[0], "--help")
    assert look("--version").startswith("edgedr ")


def test_help_says_what_happens_unless_told_otherwise(look: Said) -> None:
    """Defaults that matter are in the help: which backup is taken, where backups go; groups say what they do."""
    assert "without it, the newest is taken" in " ".join(look("restore", "--help").split())
    text = " ".join(look("init", "--help").split())
    assert "(default: repository/ below --state)" in text
    assert "(default: /var/lib/edgedr)" in text
    text = " ".join(look("--help").split())
    assert "config `config check`: check the configuration" in text
    assert "keys `keys prove`: answer the challenge" in text


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"kinds": 1, "objects": 0}, "1 kind"),
        ({"overlaps": 0, "load balancer addresses": 1, "nodes": 2}, "1 load balancer address, 2 nodes, 0 overlaps"),
        ({"zones": 2, "addresses": 3, "network interfaces": 1}, "3 addresses, 1 network interface, 2 zones"),
        ({}, ""),
    ],
)
def test_counts(found: dict[str, int], said: str) -> None:
    """In the order of the alphabet, in the right number, none left out but overlaps, never broken apart."""
    text = terminal.counts(found)
    assert text.replace("\u00a0", " ") == said
    assert all(" " not in part for part in text.split(", "))


def test_colours_are_colours(kept: Operator) -> None:
    """On a terminal a verdict is coloured, not printed as an escape sequence; its columns stay where they are."""
    ours, theirs = os.openpty()
    for words in (["show", "latest", "--closure"], ["verify", "latest"]):
        subprocess.run([sys.executable, "-m", "edgedr", *kept.words(*words)], stdout=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode().replace("\r", "")
    os.close(ours)
    assert "\033[33mclosure\033[0m          no snapshot in this backup\n" in shown
    assert "\033[32mok\033[0m               2" in shown
    assert "\\x1b" not in shown


def test_a_reader_that_leaves(kept: Operator) -> None:
    """``edgedr list | head -0`` prints no complaint, and a failure is still a failure."""
    read, write = os.pipe()
    os.close(read)
    for words, expected in (
        (["list"], {141}),
        (["--help"], {0, 141}),
        (["show", "nothing"], {8}),
        (["list", "--json"], {141}),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "edgedr", *kept.words(*words)],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert done.returncode in expected, (words, done)
        assert "BrokenPipe" not in done.stderr
        assert "Exception" not in done.stderr
    os.close(write)


def test_a_full_disk_behind_the_output(kept: Operator) -> None:
    """What cannot be printed is an error of the place that refused it, and hides no other error."""
    for words, expected in ((["list"], 5), (["list", "--json"], 5), (["show", "nothing"], 8)):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "edgedr", *kept.words(*words)],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert done.returncode == expected, done
        assert done.stderr.endswith(f"(exit {expected})\n")
        assert ("error: cannot write the output: No space left on device\n  hint: " in done.stderr) == (expected == 5)


def test_messages_on_a_terminal_fit_it(kept: Operator) -> None:
    """On a terminal a long message is broken below its label; for scripts it stays one line."""
    words = ["show", " ".join(["some", "words", "that", "are", "no", "id"] * 5)]
    _, piped = kept.run(*words, code=8)
    assert [line[:7] for line in piped.splitlines()] == ["error: ", "  hint:", "(exit 8"]
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "edgedr", *kept.words(*words)]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=theirs, check=False)
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode().replace("\r", "").replace("\033[31m", "").replace("\033[0m", "")
    os.close(ours)
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    assert " ".join(shown.split()) == " ".join(piped.split())
    assert {line[:7] for line in lines[:-1]} == {"error: ", "  hint:", "       "}


HEAVY = ["cryptography", "structlog", "rich", "etcd3", "grpc", "yaml", "backports.zstd", "compression.zstd", "asyncio"]


@pytest.mark.parametrize("words", [["--help"], ["list"], ["list", "--json"], ["show"]])
def test_looking_imports_little(kept: Operator, words: list[str]) -> None:
    """Commands that only look start fast: what seals, signs, draws and talks to servers is not imported."""
    script = (
        "import sys; from edgedr.cli.main import main; code = main(sys.argv[1:]);"
        "print('\\n'.join(['imported:', *sys.modules])); sys.exit(code)"
    )
    command = [sys.executable, "-c", script, *kept.words(*words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = set(done.stdout.partition("imported:\n")[2].split("\n"))
    assert imported & {*HEAVY, "pyrage"} == set()
