"""Commands of the machine: what they print, and that none of them can hold, fill or outlive the one who asked."""

import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from edgedr.errors import SourceError
from edgedr.node.commands import HostCommands, NoCommands, commands_of
from edgedr.node.files import Files

Script = Callable[[str], str]
SHORT = timedelta(seconds=0.5)
ENDLESS = "exec sleep 1000"
PATIENCE = 20.0  # seconds for what must happen at once


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Write a shell script and return its path."""

    def write(text: str) -> str:
        path = tmp_path / "script"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    return write


def refusal(*words: str, within: timedelta = timedelta(seconds=PATIENCE)) -> str:
    with pytest.raises(SourceError) as caught:
        HostCommands().run(*words, within=within)
    return caught.value.message


def is_running(number: int) -> bool:
    """Tell whether a process is there, and more than a body that its next of kin has not fetched."""
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}


def ends(number: int) -> bool:
    """Wait until a process has ended."""
    until = time.monotonic() + PATIENCE
    while is_running(number) and time.monotonic() < until:
        time.sleep(0.01)
    return not is_running(number)


def test_what_it_prints_is_returned(script: Script) -> None:
    """All of it, and nothing of what it says on the side; words are words, whatever is in them."""
    path = script('printf "%s\\n" "$@"; echo aside >&2')
    assert HostCommands().run(path, "a b", "$(id)", "ü") == "a b\n$(id)\nü\n"


def test_it_is_told_nothing(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """No input, and none of our environment: a secret in it is ours."""
    monkeypatch.setenv("EDGEDR_IDENTITY", "CANARY-9a1c")
    told = HostCommands().run(script("cat; env"))
    assert "LC_ALL=C.UTF-8\n" in told
    assert "CANARY" not in told


def test_what_is_no_text_is_still_shown(script: Script) -> None:
    """Bytes that are no UTF-8 are no bug."""
    assert HostCommands().run(script("printf 'a\\377b'")) == "a\ufffdb"


def test_an_endless_answer_is_broken_off(script: Script) -> None:
    """More than any answer has is not read, let alone kept, and who prints it is ended."""
    path = script('echo $$ > "$1"; exec cat /dev/zero')
    noted = Path(path).with_name("pid")
    assert refusal(path, str(noted)) == f"`{path} {noted}` printed more than 16 MiB"
    assert ends(int(noted.read_text()))


def test_a_long_answer_is_whole(script: Script) -> None:
    """What is just short enough comes to its last byte."""
    assert len(HostCommands().run(script("head -c 16777216 /dev/zero"))) == 16 << 20


def test_endless_complaints_are_no_answer(script: Script) -> None:
    """What a command says on the side is read, so that it need not wait, and not kept; its answer counts."""
    assert HostCommands().run(script("head -c 50000000 /dev/zero >&2; echo fine")) == "fine\n"


def test_a_command_that_hangs_is_left(script: Script) -> None:
    """After its time it is ended, with all that it began; nothing of it is left behind."""
    path = script(f'sleep 1000 & echo $! $$ > "$1"; {ENDLESS}')
    noted = Path(path).with_name("pids")
    assert refusal(path, str(noted), within=SHORT) == f"`{path} {noted}` was not done within 0.5 s"
    child, itself = map(int, noted.read_text().split())
    assert ends(child)
    assert not Path(f"/proc/{itself}").exists()


def test_a_command_that_hangs_in_silence_is_left(script: Script) -> None:
    """One that has closed its outputs, and does not end, is still waited for no longer than it may take."""
    assert "was not done within 0.5 s" in refusal(script(f"exec >&- 2>&-; {ENDLESS}"), within=SHORT)


def test_what_holds_the_output_is_waited_for_no_longer(script: Script) -> None:
    """What was left in the background could still print: it is waited for, and ended."""
    path = script('sleep 1000 & echo $! > "$1"')
    noted = Path(path).with_name("pid")
    assert "was not done within 0.5 s" in refusal(path, str(noted), within=SHORT)
    assert ends(int(noted.read_text()))


def test_nothing_goes_on_in_the_background(script: Script) -> None:
    """A question leaves no process on the node, even where it was answered."""
    path = script("sleep 1000 >/dev/null 2>&1 & echo $!")
    assert ends(int(HostCommands().run(path)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo first >&2; echo 'no such device' >&2; exit 3", "ended with 3: no such device"),
        ("exit 1", "ended with 1"),
        ("kill -9 $$", "ended with -9"),
        ("head -c 100000 /dev/zero >&2; echo >&2; echo last >&2; exit 2", "ended with 2: last"),
    ],
)
def test_a_failure_says_why(script: Script, text: str, said: str) -> None:
    """Its exit code, and the last line that it said."""
    path = script(text)
    assert refusal(path) == f"`{path}` {said}"


def test_what_is_not_there_is_named() -> None:
    """A program that this machine does not have is no failure of it."""
    assert refusal("no-such-program-edgedr", "x") == "there is no no-such-program-edgedr on this machine"


def test_what_cannot_be_run_is_named(script: Script, tmp_path: Path) -> None:
    """A file that is no program, by its mode or by its content."""
    path = script("echo")
    Path(path).chmod(0o644)
    assert refusal(path) == f"`{path}` cannot be run: Permission denied"
    (tmp_path / "data").write_bytes(b"\0\1\2")
    (tmp_path / "data").chmod(0o755)
    assert refusal(str(tmp_path / "data")) == f"`{tmp_path / 'data'}` cannot be run: Exec format error"


def test_no_descriptor_is_left(script: Script) -> None:
    """However a command ends, its pipes are closed."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted, not walked
    HostCommands().run(script("echo"))
    refusal(script("exit 1"))
    refusal(script("exec cat /dev/zero"))
    refusal(script(ENDLESS), within=timedelta(seconds=0.1))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_commands_are_those_of_the_running_machine(tmp_path: Path) -> None:
    """Another root is another machine: nothing is run for it, and why is said."""
    assert commands_of(Files(Path("/"))) == HostCommands()
    elsewhere = commands_of(Files(tmp_path))
    assert isinstance(elsewhere, NoCommands)
    with pytest.raises(SourceError) as caught:
        elsewhere.run("ip", "-j", "addr")
    assert caught.value.message == f"`ip -j addr` was not run: {tmp_path} is not the / of a running machine"
