"""The commands and their options: one typed table. Nothing heavy is imported to read them."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from edgedr import __version__
from edgedr.cli import options
from edgedr.errors import EXIT_CODES, ConfigurationError

Arguments: TypeAlias = argparse.Namespace
_ALWAYS = (0, 1, 2)
_GROUPS = {
    "config": "`config check`: check the configuration, and say what would be captured",
    "keys": "`keys prove`: answer the challenge of `edgedr init`, with the identity",
}


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its words, what it does, its options, and where its function is (module, name)."""

    words: tuple[str, ...]
    summary: str
    options: Callable[[argparse.ArgumentParser], None]
    function: tuple[str, str]
    example: str
    codes: tuple[int, ...]
    """Exit codes that it may end with, beside those that all have."""


COMMANDS: tuple[Command, ...] = (
    Command(
        ("init",),
        "set this node up: find what runs here, write the configuration, make keys",
        options.init,
        ("edgedr.cli.init", "init"),
        "edgedr init --site plant-7 --recipient age1…",
        (5, 11),
    ),
    Command(
        ("backup",),
        "capture this node now",
        options.backup,
        ("edgedr.cli.backup", "backup"),
        "edgedr backup",
        (3, 4, 5, 7, 11),
    ),
    Command(("list",), "list the backups", options.listing, ("edgedr.cli.look", "list_backups"), "edgedr list", (5, 8)),
    Command(
        ("show",),
        "show what is in a backup",
        options.show,
        ("edgedr.cli.look", "show"),
        "edgedr show latest",
        (5, 6, 7, 8),
    ),
    Command(
        ("verify",),
        "prove backups: hashes and signatures (L1), with an identity that they decrypt (L2)",
        options.verify,
        ("edgedr.cli.verify", "verify"),
        "edgedr verify --all",
        (5, 6, 7, 8, 9),
    ),
    Command(
        ("restore",),
        "extract a backup into a directory, verified",
        options.restore,
        ("edgedr.cli.restore", "restore"),
        "edgedr restore latest --to /srv/restored --identity key.txt",
        (3, 5, 6, 7, 8, 9),
    ),
    Command(
        ("replicate",),
        "ship to the replicas what waits, now, and say that this node lives",
        options.replicate,
        ("edgedr.cli.replicate", "replicate"),
        "edgedr replicate",
        (5, 11),
    ),
    Command(
        ("copy",),
        "copy backups from any place to any other, whole chains, the manifest last",
        options.copying,
        ("edgedr.cli.copy", "copy"),
        "edgedr copy s3://dr-backups/edge /media/usb/edgedr --site plant-7",
        (5, 7, 8),
    ),
    Command(
        ("doctor",),
        "try what this machine, its replicas and its credential really do, and say what a thief could do",
        options.doctor,
        ("edgedr.cli.doctor", "doctor"),
        "edgedr doctor",
        (5,),
    ),
    Command(
        ("config", "check"),
        "check the configuration, and say what would be captured",
        options.as_json,
        ("edgedr.cli.config", "check"),
        "edgedr config check",
        (4, 5),
    ),
    Command(
        ("keys", "prove"),
        "answer the challenge of `edgedr init`, with the identity",
        options.prove,
        ("edgedr.cli.keys", "prove"),
        "edgedr keys prove 'YWdlLWVuY3J5cHRpb24…' --identity key.txt",
        (5, 6, 7),
    ),
)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _table(codes: Iterable[int]) -> str:
    return "exit codes:\n" + "\n".join(f"  {code:>2}  {meaning}" for code, meaning in EXIT_CODES if code in codes)


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)  # a script's `--ful` would mean something else one day

    def error(self, message: str) -> NoReturn:
        """Raise what every other mistake raises, so that it is said in the same way."""
        raise ConfigurationError(message, hint=f"`{self.prog} --help` says what it takes")


def _meant(words: Sequence[str]) -> tuple[Command, ...]:
    """Return the commands that a command line may mean: one is enough to parse it, and ten times as fast to build."""
    rest = iter(words)
    for word in rest:
        if word == "--config":
            next(rest, None)
        elif not word.startswith("-"):
            return tuple(command for command in COMMANDS if command.words[0] == word) or COMMANDS
    return COMMANDS


def build_parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser of the whole command line, or of what is needed for one that consists of ``words``."""
    parser = _Parser(
        prog="edgedr",
        description="Disaster recovery for edge Kubernetes control planes.",
        epilog=_table([code for code, _ in EXIT_CODES]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"edgedr {__version__}")
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration (default: /etc/edgedr/edgedr.toml)")
    top = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    groups: dict[str, argparse._SubParsersAction[_Parser]] = {}
    for command in _meant(words):
        within = top
        if len(command.words) > 1:
            word = command.words[0]
            if word not in groups:
                group = top.add_parser(word, help=_GROUPS[word], description=_sentence(_GROUPS[word]))
                groups[word] = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
            within = groups[word]
        sub = within.add_parser(
            command.words[-1],
            help=command.summary,
            description=_sentence(command.summary),
            epilog=f"example:\n  {command.example}\n\n{_table((*_ALWAYS, *command.codes))}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.options(sub)
        sub.set_defaults(command=command)
    return parser
