"""``edgedr verify``: prove backups where they lie."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from edgedr.cli import terminal
from edgedr.cli.bucket import tell_strays
from edgedr.cli.keyring import identities, trust
from edgedr.cli.parser import Arguments
from edgedr.cli.places import chosen, is_bucket, listed, open_place, refuse_nothing
from edgedr.errors import AlreadyRunning, ConfigurationError, Damaged, NoSuchBackup, RestoreStopped, StorageError
from edgedr.locations import Locations
from edgedr.model import Proof
from edgedr.repository.chains import dependents
from edgedr.repository.checking import Verdict, check
from edgedr.repository.repository import Listed
from edgedr.state import State, StateDirectory

_DOWNLOADED = 2 << 30  # bytes that lie in the temporary directory at most


def verify(arguments: Arguments) -> int:
    """Prove one backup with its chain, or all; exit 7 if any is damaged."""
    if arguments.all and (arguments.id or arguments.at):
        raise ConfigurationError("--all and a single backup were both given", hint="give one of them")
    if not (is_bucket(arguments.source) and arguments.identity):
        return _verify(arguments, None)
    with TemporaryDirectory(prefix="edgedr-") as download:  # each object is looked at twice: hashed, then opened
        return _verify(arguments, Path(download))


def _verify(arguments: Arguments, download: Path | None) -> int:
    repository, here = open_place(arguments, download=download, keep=_DOWNLOADED)
    backups = listed(repository, arguments)
    if not backups:
        refuse_nothing(repository, arguments)
        raise NoSuchBackup(
            "there is no backup here", hint="`edgedr backup` makes one; --repository names another place"
        )
    wanted = [backup.id for backup in backups] if arguments.all else [chosen(backups, arguments).id]
    known = trust(arguments, here)
    believe = known if known.signers or known.fingerprints else None
    with terminal.watching(quiet=arguments.json) as watcher:
        watcher.begin("verify", None)
        verdicts = check(
            repository, backups, wanted, trust=believe, identities=identities(arguments), progress=watcher.advance
        )
    if any(not verdict.intact for verdict in verdicts):  # the quota may have let go of some meanwhile
        there = {backup.id for backup in listed(repository, arguments)}
        verdicts = tuple(verdict for verdict in verdicts if verdict.intact or verdict.backup.id in there)
    tell_strays(repository)
    if arguments.json:
        terminal.say_json([_document(verdict, backups) for verdict in verdicts])
    else:
        _print(verdicts, backups, believed=believe is not None, chain=not arguments.all)
    if here is not None:
        _remember(here, verdicts)
    bad = [verdict for verdict in verdicts if not verdict.intact]
    if bad:
        first = bad[0]
        about = str(first.backup.id)
        problem = first.problems[0] if first.problems else f"it depends on {first.broken_by}"
        if problem.startswith(f"{about} is "):
            problem = problem.replace(about, "it", 1)
        told = f"{about} cannot be restored: {problem}"
        if len(verdicts) > 1:
            told = f"{len(bad)} of {len(verdicts)} backups cannot be restored; the first is {about}: {problem}"
        raise Damaged(told, hint=_instead(verdicts, backups))
    doubtful = [verdict for verdict in verdicts if verdict.doubt]
    if doubtful:
        raise RestoreStopped(
            f"{len(doubtful)} of {len(verdicts)} backups are signed by somebody unknown here; the first: "
            f"{doubtful[0].doubt}",
            hint="give --allowed-signers with the lines that `edgedr init` printed on these nodes",
        )
    return 0


def _instead(verdicts: Sequence[Verdict], backups: Sequence[Listed]) -> str:
    instead = next((verdict.instead for verdict in verdicts if verdict.instead), None)
    if instead is not None:
        return f"{instead} is intact: edgedr restore {instead} …"
    seen_all = len(verdicts) == len(backups)
    return "none is intact: look at a replica" if seen_all else "`edgedr verify --all` looks for one that is intact"


def _remember(here: Locations, verdicts: Sequence[Verdict]) -> None:
    """Let the next backup know what was found damaged: it begins a new chain."""
    directory = StateDirectory(here.state.path)
    state = directory.load()
    if state is None or _damaged(state, verdicts) == state.damaged:
        return
    try:
        with directory.lock():
            state = directory.load() or state
            directory.save(replace(state, damaged=_damaged(state, verdicts)))
    except (AlreadyRunning, StorageError) as error:  # what was found counts more than that it cannot be noted
        terminal.warn(f"the next backup will not know of this: {error.message}", "then: edgedr backup --full")


def _damaged(state: State, verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """Return what to remember: damage stays until a level that could have found it found none."""
    cleared = {str(verdict.backup.id) for verdict in verdicts if verdict.intact and verdict.level >= Proof.L2}
    found = {str(verdict.backup.id) for verdict in verdicts if not verdict.intact}
    return tuple(sorted(set(state.damaged) - cleared | found))


def _print(verdicts: Sequence[Verdict], backups: Sequence[Listed], *, believed: bool, chain: bool) -> None:
    for verdict in verdicts:
        if verdict.intact:
            word, style = ("whose?", "warn") if verdict.doubt else ("ok", "good")
            terminal.line(word, str(verdict.backup.id), f"{verdict.level}", style=style)
            continue
        terminal.line("damaged", str(verdict.backup.id), style="bad")
        for problem in verdict.problems:
            terminal.line("", problem)
        if verdict.broken_by:
            terminal.line("", f"its chain is broken by {verdict.broken_by}")
        else:
            for lost in dependents(verdict.backup.id, backups):
                terminal.line("", f"takes {lost} down with it")
    intact = [verdict for verdict in verdicts if verdict.intact]
    if intact:
        lowest = min(verdict.level for verdict in intact)
        what = f"{len(intact)} of {len(verdicts)}"
        if chain and len(intact) == len(verdicts) > 1:
            what = f"chain of {len(verdicts)}"
        terminal.say(f"{what} intact; {lowest}: {lowest.meaning}")
    if intact and not believed:
        terminal.warn(
            "the signatures of the intact ones hold, but this machine knows none of the signers",
            "give --allowed-signers with the line that `edgedr init` printed",
        )


def _document(verdict: Verdict, backups: Sequence[Listed]) -> dict[str, object]:
    return {
        "id": str(verdict.backup.id),
        "state": "damaged" if not verdict.intact else "unknown signer" if verdict.doubt else "ok",
        "level": str(verdict.level),
        "problems": list(verdict.problems),
        "broken_by": str(verdict.broken_by) if verdict.broken_by else None,
        "instead": str(verdict.instead) if verdict.instead else None,
        "takes_down": [str(one) for one in dependents(verdict.backup.id, backups)] if verdict.problems else [],
    }
