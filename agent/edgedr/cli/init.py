"""``edgedr init``: set a node up, and have somebody prove that the backups can be opened."""

import base64
import secrets
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib import resources
from pathlib import Path, PurePosixPath

from edgedr import durable
from edgedr.cli import terminal
from edgedr.cli.config import left_out, places, what_runs
from edgedr.cli.parser import Arguments
from edgedr.errors import ConfigurationError
from edgedr.layouts import why_unknown
from edgedr.locations import root_problems
from edgedr.model import NAME, SCHEMA
from edgedr.sealing.identities import NewIdentity, make_identity
from edgedr.sealing.recipients import Recipient, parse_recipient, seal_text
from edgedr.sealing.signatures import Signer, allowed_signers_line
from edgedr.settings import Settings, load, parse
from edgedr.state import State, StateDirectory, machine_mark, new_lineage
from edgedr.storage.s3_options import SCHEME
from edgedr.wiring import open_node

_TRIES = 3


def init(arguments: Arguments) -> int:
    """Find the layout, write configuration and signing key, prove the recipients. Running it again proves again."""
    try:
        return _init(arguments)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(_what_stands(arguments)) from interrupt


def _init(arguments: Arguments) -> int:
    durable.sweep(arguments.config)  # of an `init` that was killed
    identity = None
    if arguments.config.exists():
        settings = load(arguments.config)
        _refuse_changes(arguments, settings)
        terminal.line("exists", f"{arguments.config}, left as it is")
    else:
        identity = make_identity() if arguments.new_identity else None
        settings = _configure(arguments, identity)
    directory = StateDirectory(settings.state.path)
    with ExitStack() as last:
        if identity is not None:  # shown whatever happens from here on: its recipient stands in the configuration
            last.callback(_show_once, identity)
        with directory.lock():
            signer = _signing_key(settings, directory)
            state = directory.load() or _new_state(settings)
            directory.save(state)  # before anyone is asked: what nobody proves must not pass for proven
            last.close()
            for fingerprint in _proofs(settings.recipients, state, unproven=arguments.unproven):
                state = replace(state, proven=(*state.proven, fingerprint))
                directory.save(state)
    terminal.sentence("keep this line beside the identity; a restore elsewhere asks for it (allowed_signers):")
    terminal.say(f"  {allowed_signers_line(settings.node.site, settings.node.name, signer.public)}")
    terminal.line("next", "edgedr config check;", *(("edgedr doctor;",) if settings.replicas else ()), "edgedr backup")
    return 0


def _show_once(identity: NewIdentity) -> None:
    terminal.sentence("a new identity. It is shown once and kept nowhere on this node: store it away from here now.")
    terminal.say(f"# public key: {identity.recipient}")
    terminal.say(identity.secret)


def _what_stands(arguments: Arguments) -> str:
    """Say of an interrupted `init` what it has done, and how to go on."""
    if not arguments.config.exists():
        return "interrupted; nothing was written"
    settings = load(arguments.config)
    directory = StateDirectory(settings.state.path)
    state = directory.load()
    again = f"run `edgedr init --site {settings.node.site}` again"
    if state is None or not directory.signing_key.exists():
        return f"interrupted; {arguments.config} is written, the signing key is not: {again}"
    there = f"interrupted; {arguments.config} and {directory.signing_key} are written"
    unproven = [str(each) for each in settings.recipients if each.fingerprint not in state.proven]
    if not unproven:
        return f"{there}, and all recipients proven: {again} for the line that a restore elsewhere asks for"
    return f"{there}, but nobody has proven that {', '.join(unproven)} can open backups: {again} with the identity"


def _refuse_changes(arguments: Arguments, settings: Settings) -> None:
    """Stop where what was asked for is not what stands in the configuration, which is never changed."""
    asked = {
        "--site": (arguments.site, settings.node.site),
        "--node": (arguments.node, settings.node.name),
        "--root": (arguments.root and arguments.root.absolute(), settings.node.root),
        "--state": (arguments.state and arguments.state.absolute(), settings.state.path),
        "--repository": (arguments.repository and arguments.repository.absolute(), settings.repository.path),
    }
    different = [option for option, (wanted, stands) in asked.items() if wanted is not None and wanted != stands]
    if set(arguments.replica) - {replica.url for replica in settings.replicas}:
        different.append("--replica")
    known = {recipient.fingerprint for recipient in settings.recipients}
    if any(parse_recipient(text).fingerprint not in known for text in arguments.recipient):
        different.append("--recipient")
    if arguments.new_identity:
        different.append("--new-identity")
    if different:
        raise ConfigurationError(
            f"{arguments.config} is there already, and {', '.join(different)} would change it",
            hint="edit it, then run `edgedr init --site …` again for the proof; or move it away to begin anew",
        )


def _configure(arguments: Arguments, identity: NewIdentity | None) -> Settings:
    recipients = [parse_recipient(text) for text in arguments.recipient]
    if not recipients and not arguments.new_identity:
        raise ConfigurationError(
            "no recipient was given: somebody must be able to open the backups",
            hint="--recipient age1… (the public key of `age-keygen`), or --new-identity to make one now",
        )
    fingerprints = [recipient.fingerprint for recipient in recipients]
    for recipient in recipients:
        if fingerprints.count(recipient.fingerprint) > 1:
            raise ConfigurationError(f"--recipient {recipient} was given twice", hint="name each recipient once")
    root = arguments.root or Path("/")
    for problem in root_problems(root):
        raise ConfigurationError(f"--root: {problem.text}", hint="name the directory where the node's / is")
    node_name = arguments.node or _host_name(root)
    for what, name in (("site", arguments.site), ("node", node_name)):
        if not NAME.fullmatch(name):
            raise ConfigurationError(
                f"{name!r} cannot be the {what}'s name", hint="use lower case letters, digits, dots and hyphens"
            )
    if identity is not None:
        recipients.append(parse_recipient(identity.recipient))
    state = arguments.state or Path("/var/lib/edgedr")
    text = render(
        site=arguments.site,
        node=node_name,
        root=root.absolute(),
        recipients=recipients,
        repository=(arguments.repository or state / "repository").absolute(),
        state=state.absolute(),
        replicas=arguments.replica,
    )
    settings = parse(text.encode(), f"{arguments.config}, not written yet,")
    node = open_node(settings)
    if not node.layout.is_known:
        terminal.line("found", f"unknown: {why_unknown(node.root)}; only what [sources.…] names will be taken")
    else:
        terminal.line("found", *what_runs(node))
        for label, found in places(node):
            terminal.line(f"  {label}", ", ".join(found))
    without = left_out(settings, node)
    terminal.line("will take", ", ".join(source.name for source in settings.sources if source.name not in without))
    durable.make_directory(arguments.config.absolute().parent, mode=0o755)
    with durable.create(arguments.config) as out:
        out.write(text.encode())
    terminal.line("wrote", str(arguments.config))
    return settings


def render(
    *,
    site: str,
    node: str,
    root: Path,
    recipients: Sequence[Recipient],
    repository: Path,
    state: Path,
    replicas: Sequence[str] = (),
) -> str:
    """Return the annotated configuration with these values; ``replicas`` are URLs."""
    text = resources.files("edgedr").joinpath("data/edgedr.toml.in").read_text()
    values = {
        "site": _quoted(site),
        "node": _quoted(node),
        "root": _quoted(str(root)),
        "recipients": "\n".join(f"  {_quoted(recipient.text)}," for recipient in recipients),
        "repository": _quoted(str(repository)),
        "state": _quoted(str(state)),
        "replicas": "".join(
            f"\n[[replicas]]\nname = {_quoted(name)}\nurl = {_quoted(url)}\n" for name, url in _named(replicas)
        ),
    }
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def _named(urls: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Give each replica a name: its bucket's, or its directory's."""
    taken: set[str] = set()
    for number, url in enumerate(urls, 1):
        last = url.removeprefix(SCHEME).partition("/")[0] if url.startswith(SCHEME) else Path(url).name
        name = last.lower() if NAME.fullmatch(last.lower()) and last.lower() not in taken else f"replica-{number}"
        taken.add(name)
        yield name, url


def _quoted(text: str) -> str:
    import json  # noqa: PLC0415

    if not text.isprintable():  # TOML would take some of it, but no person could read it
        raise ConfigurationError(
            f"{text!a} cannot stand in a configuration file", hint="take a name of printable characters"
        )
    return json.dumps(text, ensure_ascii=False)  # a JSON string is a TOML basic string


def _signing_key(settings: Settings, directory: StateDirectory) -> Signer:
    if directory.signing_key.exists():
        signer = directory.signer()
    else:
        signer = Signer.generate()
        with durable.create(directory.signing_key) as out:
            out.write(signer.private_bytes())
        terminal.line("wrote", f"{directory.signing_key} (0600)")
    line = f"{signer.public} {settings.node.name}@{settings.node.site}\n"  # also where a killed `init` left it out
    durable.replace(directory.verifying_key, line.encode(), mode=0o644)
    return signer


def _new_state(settings: Settings) -> State:
    machine = open_node(settings).files.text(PurePosixPath("/etc/machine-id"))
    return State(SCHEMA, new_lineage(), 0, machine_mark(machine))


def _proofs(recipients: Sequence[Recipient], state: State, *, unproven: bool) -> Iterator[str]:
    """Ask for each recipient not proven yet; yield the fingerprints of those that somebody answers for."""
    for recipient in recipients:
        if recipient.fingerprint in state.proven:
            continue
        if unproven:
            terminal.warn(f"recipient {recipient} is not proven", "run `edgedr init` again without --unproven")
            continue
        _challenge(recipient)
        yield recipient.fingerprint
        terminal.line("proven", f"recipient {recipient} can open backups of this node")


def _challenge(recipient: Recipient) -> None:
    answer = "-".join(f"{secrets.randbelow(10_000):04d}" for _ in range(3))
    challenge = base64.b64encode(seal_text(answer.encode(), [recipient])).decode()
    terminal.sentence(f"prove that someone can open the backups for {recipient}.")
    terminal.sentence(
        "where the identity is, run this and paste the answer here "
        "(or, with age alone: put what is in the quotes through `base64 -d | age -d -i key.txt`):"
    )
    terminal.say(f"  edgedr keys prove --identity key.txt '{challenge}'")
    for _ in range(_TRIES):
        print("> ", end="", flush=True)
        given = sys.stdin.readline()
        if not given:
            break
        if secrets.compare_digest(given.strip().encode(), answer.encode()):
            return
        terminal.say("that is not it")
    raise ConfigurationError(
        f"nobody has proven that {recipient} can open backups",
        hint="run `edgedr init` again with the identity at hand; with --unproven every backup will say that nobody did",
    )


def _host_name(root: Path) -> str:
    try:
        name = (root / "etc/hostname").read_text().strip()
    except (OSError, UnicodeDecodeError):
        name = socket.gethostname()
    return name.lower()
