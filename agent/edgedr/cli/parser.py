"""The commands and their options: one typed table. Nothing heavy is imported to read them."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from edgedr import __version__
from edgedr.errors import EXIT_CODES, ConfigurationError

Arguments: TypeAlias = argparse.Namespace
SOURCES = (
    "serviceaccounts",
    "certificates",
    "files",
    "dns",
    "addresses",
    "machine",
    "etcd",
    "sqlite",
    "objects",
)

ROLES = ("node", "pruner", "monitor", "admin")

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


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for scripts")


def _place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from",
        "--repository",
        dest="source",
        metavar="PLACE",
        help="read backups there: s3://bucket/prefix or a directory; no configuration file is needed then",
    )
    parser.add_argument("--site", help="only backups of this site (with --from)")
    parser.add_argument("--node", help="only backups of this node (with --from)")
    _bucket(parser)


def _bucket(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("buckets", "Without these, AWS's own environment and ~/.aws say how.")
    group.add_argument("--endpoint", metavar="URL", help="an S3-compatible server, https://…")
    group.add_argument("--region", help="its region")
    group.add_argument("--path-style", action="store_true", help="the bucket is part of the path, not of the host name")
    group.add_argument("--ca", type=Path, metavar="FILE", help="authority that signed the server's certificate (PEM)")
    group.add_argument(
        "--credential", metavar="REF", help="where the access key is: file:/path, env:NAME or credential:NAME"
    )
    group.add_argument(
        "--deleted", action="store_true", help="also what was deleted, where the bucket keeps versions of it"
    )


def _key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--identity", type=Path, metavar="FILE", action="append", default=[], help="age identity file")


def _trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allowed-signers",
        type=Path,
        metavar="FILE",
        help="OpenSSH allowed_signers file; by default the one beside the identity",
    )
    parser.add_argument("--trust-signer", metavar="SHA256:…", help="believe signatures by this key")


def _init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--site", required=True, help="name of the site")
    parser.add_argument("--node", help="name of this node (default: its host name)")
    parser.add_argument("--root", type=Path, help="where the node's / is (default: /)")
    parser.add_argument("--recipient", action="append", default=[], metavar="age1…", help="who can open the backups")
    parser.add_argument("--new-identity", action="store_true", help="make an identity and show it once")
    parser.add_argument(
        "--repository",
        type=Path,
        metavar="DIR",
        help="where backups are committed (default: repository/ below --state)",
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="where the node remembers, never a shared disk (default: /var/lib/edgedr)",
    )
    parser.add_argument(
        "--replica",
        action="append",
        default=[],
        metavar="URL",
        help="ship backups there: s3://bucket/prefix, or a directory",
    )
    parser.add_argument("--unproven", action="store_true", help="do not ask for proof that a recipient can decrypt")


def _backup(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--full", action="store_true", help="make a full, whatever the chain")
    _json(parser)


def _list(parser: argparse.ArgumentParser) -> None:
    _place(parser)
    _json(parser)


def _which(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    parser.add_argument(
        "id",
        nargs="?",
        default=default,
        metavar="ID",
        help="an id, shortened while unique, its sequence, or `latest`; without it, the newest is taken",
    )
    parser.add_argument("--at", metavar="TIME", help="the newest backup made at this time or before")


def _show(parser: argparse.ArgumentParser) -> None:
    _which(parser)
    parser.add_argument(
        "--closure", action="store_true", help="what it lacks beside its snapshot (sealed: wants an identity elsewhere)"
    )
    _place(parser)
    _key(parser)
    _json(parser)


def _verify(parser: argparse.ArgumentParser) -> None:
    _which(parser)
    parser.add_argument("--all", action="store_true", help="every backup there is")
    _place(parser)
    _key(parser)
    _trust(parser)
    _json(parser)


def _source(text: str) -> str:
    if text in SOURCES:
        return text
    import difflib  # noqa: PLC0415 - only a mistake pays for it

    close = difflib.get_close_matches(text.lower(), SOURCES, n=1)
    instead = f"did you mean {close[0]}?" if close else f"the sources are {', '.join(SOURCES)}"
    raise argparse.ArgumentTypeError(f"{text!r} is no source; {instead}")


def _restore(parser: argparse.ArgumentParser) -> None:
    _which(parser)
    parser.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="extract into this new or empty directory"
    )
    parser.add_argument(
        "--only",
        action="append",
        type=_source,
        metavar="SOURCE",
        help=f"only this source; may be repeated: {', '.join(SOURCES)}",
    )
    parser.add_argument("--allow-unsigned", action="store_true", help="restore even without a signature to believe")
    _place(parser)
    _key(parser)
    _trust(parser)
    _json(parser)


def _replicate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--replica", metavar="NAME", help="only this replica")
    parser.add_argument(
        "--patient", action="store_true", help="leave a replica alone that failed lately: for timers, not for people"
    )
    _json(parser)


def _copy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="FROM", help="s3://bucket/prefix or a directory")
    parser.add_argument("target", metavar="TO", help="s3://bucket/prefix or a directory")
    parser.add_argument("--id", metavar="ID", help="one backup with its chain; without it all are copied")
    parser.add_argument("--at", metavar="TIME", help="the newest backup made at this time or before, with its chain")
    parser.add_argument("--site", help="only backups of this site")
    parser.add_argument("--node", help="only backups of this node")
    _bucket(parser)
    parser.add_argument("--to-endpoint", metavar="URL", help="the server of TO, where it is another one")
    parser.add_argument("--to-region", help="its region")
    parser.add_argument("--to-ca", type=Path, metavar="FILE", help="its authority")
    parser.add_argument("--to-credential", metavar="REF", help="its access key")
    _json(parser)


def _doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--replica", metavar="NAME", help="only this replica, and nothing of this machine")
    parser.add_argument("--local", action="store_true", help="only this machine, and no replica")
    parser.add_argument(
        "--as",
        dest="role",
        choices=ROLES,
        default=ROLES[0],
        metavar="ROLE",
        help=f"what the credential is for: {', '.join(ROLES)} (default: {ROLES[0]})",
    )
    parser.add_argument(
        "--throughput",
        metavar="SIZE",
        default="1 MiB",
        help="how much is sent to measure the throughput (default: 1 MiB; '0 B' for nothing)",
    )
    _json(parser)


def _prove(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("challenge", help="what `edgedr init` printed")
    _key(parser)


COMMANDS: tuple[Command, ...] = (
    Command(
        ("init",),
        "set this node up: find what runs here, write the configuration, make keys",
        _init,
        ("edgedr.cli.init", "init"),
        "edgedr init --site plant-7 --recipient age1…",
        (5, 11),
    ),
    Command(
        ("backup",),
        "capture this node now",
        _backup,
        ("edgedr.cli.backup", "backup"),
        "edgedr backup",
        (3, 4, 5, 7, 11),
    ),
    Command(("list",), "list the backups", _list, ("edgedr.cli.look", "list_backups"), "edgedr list", (5, 8)),
    Command(
        ("show",),
        "show what is in a backup",
        _show,
        ("edgedr.cli.look", "show"),
        "edgedr show latest",
        (5, 6, 7, 8),
    ),
    Command(
        ("verify",),
        "prove backups: hashes and signatures (L1), with an identity that they decrypt (L2)",
        _verify,
        ("edgedr.cli.verify", "verify"),
        "edgedr verify --all",
        (5, 6, 7, 8, 9),
    ),
    Command(
        ("restore",),
        "extract a backup into a directory, verified",
        _restore,
        ("edgedr.cli.restore", "restore"),
        "edgedr restore latest --to /srv/restored --identity key.txt",
        (3, 5, 6, 7, 8, 9),
    ),
    Command(
        ("replicate",),
        "ship to the replicas what waits, now, and say that this node lives",
        _replicate,
        ("edgedr.cli.replicate", "replicate"),
        "edgedr replicate",
        (5,),
    ),
    Command(
        ("copy",),
        "copy backups from any place to any other, whole chains, the manifest last",
        _copy,
        ("edgedr.cli.copy", "copy"),
        "edgedr copy s3://dr-backups/edge /media/usb/edgedr --site plant-7",
        (5, 7, 8),
    ),
    Command(
        ("doctor",),
        "try what this machine, its replicas and its credential really do, and say what a thief could do",
        _doctor,
        ("edgedr.cli.doctor", "doctor"),
        "edgedr doctor",
        (5,),
    ),
    Command(
        ("config", "check"),
        "check the configuration, and say what would be captured",
        _json,
        ("edgedr.cli.config", "check"),
        "edgedr config check",
        (4, 5),
    ),
    Command(
        ("keys", "prove"),
        "answer the challenge of `edgedr init`, with the identity",
        _prove,
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
