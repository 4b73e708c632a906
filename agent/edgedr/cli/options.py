"""The options of each command, by the words of argparse. Nothing heavy is imported to read them."""

import argparse
from pathlib import Path

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


def as_json(parser: argparse.ArgumentParser) -> None:
    """Let a command print JSON."""
    parser.add_argument("--json", action="store_true", help="print JSON for scripts")


def place(parser: argparse.ArgumentParser) -> None:
    """Let a command read backups elsewhere."""
    parser.add_argument(
        "--from",
        "--repository",
        dest="source",
        metavar="PLACE",
        help="read backups there: s3://bucket/prefix or a directory; no configuration file is needed then",
    )
    parser.add_argument("--site", help="only backups of this site (with --from)")
    parser.add_argument("--node", help="only backups of this node (with --from)")
    bucket(parser)


def bucket(parser: argparse.ArgumentParser) -> None:
    """Say how a bucket is asked."""
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


def key(parser: argparse.ArgumentParser) -> None:
    """Let a command decrypt."""
    parser.add_argument("--identity", type=Path, metavar="FILE", action="append", default=[], help="age identity file")


def trust(parser: argparse.ArgumentParser) -> None:
    """Say whose signatures to believe."""
    parser.add_argument(
        "--allowed-signers",
        type=Path,
        metavar="FILE",
        help="OpenSSH allowed_signers file; by default the one beside the identity",
    )
    parser.add_argument("--trust-signer", metavar="SHA256:…", help="believe signatures by this key")


def init(parser: argparse.ArgumentParser) -> None:
    """Take what `init` takes."""
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


def backup(parser: argparse.ArgumentParser) -> None:
    """Take what `backup` takes."""
    parser.add_argument("--full", action="store_true", help="make a full, whatever the chain")
    parser.add_argument(
        "--local",
        action="store_true",
        help="do not ship it now: `edgedr replicate` does that",
    )
    as_json(parser)


def listing(parser: argparse.ArgumentParser) -> None:
    """Take what `list` takes."""
    place(parser)
    as_json(parser)


def which(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Let a command choose a backup."""
    parser.add_argument(
        "id",
        nargs="?",
        default=default,
        metavar="ID",
        help="an id, shortened while unique, its sequence, or `latest`; without it, the newest is taken",
    )
    parser.add_argument("--at", metavar="TIME", help="the newest backup made at this time or before")


def show(parser: argparse.ArgumentParser) -> None:
    """Take what `show` takes."""
    which(parser)
    parser.add_argument(
        "--closure", action="store_true", help="what it lacks beside its snapshot (sealed: wants an identity elsewhere)"
    )
    place(parser)
    key(parser)
    as_json(parser)


def verify(parser: argparse.ArgumentParser) -> None:
    """Take what `verify` takes."""
    which(parser)
    parser.add_argument("--all", action="store_true", help="every backup there is")
    place(parser)
    key(parser)
    trust(parser)
    as_json(parser)


def _source(text: str) -> str:
    if text in SOURCES:
        return text
    import difflib  # noqa: PLC0415 - only a mistake pays for it

    close = difflib.get_close_matches(text.lower(), SOURCES, n=1)
    instead = f"did you mean {close[0]}?" if close else f"the sources are {', '.join(SOURCES)}"
    raise argparse.ArgumentTypeError(f"{text!r} is no source; {instead}")


def restore(parser: argparse.ArgumentParser) -> None:
    """Take what `restore` takes."""
    which(parser)
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
    place(parser)
    key(parser)
    trust(parser)
    as_json(parser)


def replicate(parser: argparse.ArgumentParser) -> None:
    """Take what `replicate` takes."""
    parser.add_argument("--replica", metavar="NAME", help="only this replica")
    parser.add_argument(
        "--patient", action="store_true", help="leave a replica alone that failed lately: for timers, not for people"
    )
    as_json(parser)


def copying(parser: argparse.ArgumentParser) -> None:
    """Take what `copy` takes."""
    parser.add_argument("source", metavar="FROM", help="s3://bucket/prefix or a directory")
    parser.add_argument("target", metavar="TO", help="s3://bucket/prefix or a directory")
    parser.add_argument("--id", metavar="ID", help="one backup with its chain; without it all are copied")
    parser.add_argument("--at", metavar="TIME", help="the newest backup made at this time or before, with its chain")
    parser.add_argument("--site", help="only backups of this site")
    parser.add_argument("--node", help="only backups of this node")
    bucket(parser)
    parser.add_argument("--to-endpoint", metavar="URL", help="the server of TO, where it is another one")
    parser.add_argument("--to-region", help="its region")
    parser.add_argument("--to-ca", type=Path, metavar="FILE", help="its authority")
    parser.add_argument("--to-credential", metavar="REF", help="its access key")
    as_json(parser)


def doctor(parser: argparse.ArgumentParser) -> None:
    """Take what `doctor` takes."""
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
        "--credential", metavar="REF", help="try with this access key instead: file:/path, env:NAME or credential:NAME"
    )
    parser.add_argument(
        "--throughput",
        metavar="SIZE",
        default="1 MiB",
        help="how much is sent to measure the throughput (default: 1 MiB; '0 B' for nothing)",
    )
    as_json(parser)


def prove(parser: argparse.ArgumentParser) -> None:
    """Take what `keys prove` takes."""
    parser.add_argument("challenge", help="what `edgedr init` printed")
    key(parser)
