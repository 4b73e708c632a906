"""Documentation fails the build when it lies."""

import re
import shlex
from pathlib import Path

import pytest

from edgedr.cli.parser import COMMANDS, Command, build_parser
from edgedr.errors import EXIT_CODES
from edgedr.sources.table import SOURCE_NAMES, SourceTable

TOP = Path(__file__).parent.parent
PACKAGE = TOP / "agent" / "edgedr"
PAGES = sorted([*TOP.glob("*.md"), *TOP.glob("agent/*.md"), *TOP.glob("runbooks/*.md"), *TOP.glob("benchmarks/*.md")])
README = (TOP / "README.md").read_text()


def _command_lines() -> list[tuple[str, str]]:
    found = []
    for page in [*PAGES, PACKAGE / "data" / "RECOVER.txt"]:
        for line in page.read_text().splitlines():
            match = re.fullmatch(r"(?:    |\$ )(edgedr .*)", line)
            if match:
                found.append((page.name, match[1]))
    return found


@pytest.mark.parametrize(("page", "line"), _command_lines())
def test_every_command_line_in_the_docs_parses(page: str, line: str) -> None:
    """What a page tells a reader to type is something that edgedr takes."""
    words = shlex.split(line.partition("   #")[0])
    build_parser().parse_args(words[1:])


def test_the_tour_has_command_lines() -> None:
    """The check above looks at something."""
    assert len({line for page, line in _command_lines() if page == "README.md"}) >= 7


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: "-".join(command.words))
def test_every_command_is_in_the_readme(command: Command) -> None:
    """A command that nobody can read about does not exist."""
    assert f"| `edgedr {' '.join(command.words)}` |" in README


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: "-".join(command.words))
def test_every_example_in_the_help_parses(command: Command) -> None:
    """The example under each command's help is one that it takes."""
    words = shlex.split(command.example)
    assert build_parser().parse_args(words[1:]).command is command


def test_every_exit_code_is_in_the_readme() -> None:
    """Codes and their meanings are those on the error classes."""
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", README, re.MULTILINE)
    assert [(int(code), meaning) for code, meaning in rows] == list(EXIT_CODES)


def test_every_source_is_in_the_readme() -> None:
    """Each source has its row, and says truly whether it is required."""
    table = SourceTable()
    for name in SOURCE_NAMES:
        required = "yes" if getattr(table, name).required else "no"
        assert re.search(rf"^\| `{name}` \| {required} \| .+ \| .+ \|$", README, re.MULTILINE), name


def test_every_module_has_its_place_in_the_design() -> None:
    """The layers that the design page shows are those of the import contracts, and every module is in one."""
    design = (TOP / "agent" / "DESIGN.md").read_text()
    contracts = (TOP / "pyproject.toml").read_text()
    layers = re.findall(r'^  "([a-z_ :|]+)",$', contracts.split("layers = [")[1].split("]")[0], re.MULTILINE)
    named = {name.strip() for layer in layers for name in re.split("[:|]", layer)}
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert named == there - {"__init__", "__main__"}
    for name in sorted(named):
        assert re.search(rf"`(?:edgedr/)?{name}/?`", design), name


def test_pages_that_must_be_there() -> None:
    """A newcomer finds what such a project has."""
    names = {page.name for page in PAGES}
    assert names >= {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "DESIGN.md", "FORMAT.md"}
    assert "Apache License" in (TOP / "LICENSE").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    """A path in backticks that looks like one of ours exists."""
    for name in re.findall(r"`((?:agent|config|runbooks|systemd|tests|benchmarks)/[\w./*-]+)`", page.read_text()):
        assert list(TOP.glob(name.rstrip("/"))), name
