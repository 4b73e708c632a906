"""The configuration: all that is wrong is said at once; no secret is ever echoed; the example is true."""

import json
import re
import subprocess
import sys
import tomllib
from dataclasses import fields, is_dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedr.cli.init import render
from edgedr.cli.main import main
from edgedr.errors import ConfigurationError
from edgedr.locations import load_locations
from edgedr.replicas import ReplicaSettings
from edgedr.sealing.identities import make_identity
from edgedr.sealing.recipients import parse_recipient
from edgedr.settings import Settings, load, parse
from edgedr.sources.table import SOURCE_NAMES

EXAMPLE = Path(__file__).parent.parent / "config" / "edgedr.toml"
CANARY = "AGE-SECRET-KEY-1CANARYQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ"
SSH_KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAACANARY\n-----END OPENSSH PRIVATE KEY-----"


@pytest.fixture(scope="module")
def recipient() -> str:
    return make_identity().recipient


def text_of(recipient: str, **changes: str) -> str:
    """Return a small right configuration; ``changes`` add lines to its sections."""
    sections = {"node": 'site = "plant-7"\nname = "cp-1"', "sealing": f'recipients = ["{recipient}"]'}
    for name, lines in changes.items():
        sections[name.replace("__", ".")] = sections.get(name, "") + "\n" + lines
    return "".join(f"[{name}]\n{lines}\n" for name, lines in sections.items())


def problems(text: str) -> list[str]:
    """Return what is said to be wrong, a line each, without the heading."""
    with pytest.raises(ConfigurationError) as caught:
        parse(text.encode(), "edgedr.toml")
    assert caught.value.exit_code == 2
    assert caught.value.hint
    heading, *lines = caught.value.message.split("\n")
    assert heading.startswith("edgedr.toml ")
    if lines:
        assert heading == f"edgedr.toml has {len(lines)} problem{'s' if len(lines) > 1 else ''}:"
    return [line.strip() for line in lines] or [heading]


def test_the_smallest_configuration(recipient: str) -> None:
    """Site, node and one recipient are enough; everything else has a default."""
    settings = parse(text_of(recipient).encode(), "x")
    assert settings.chain.full_every == timedelta(hours=24)
    assert tuple(source.name for source in settings.sources) == SOURCE_NAMES
    assert settings.recipients == (parse_recipient(recipient),)


def test_units(recipient: str) -> None:
    """Durations and sizes are written with their unit, with a space or without."""
    text = text_of(recipient, chain='full_every = "90 min"', sources__etcd='patience = "45s"\nmin_progress = "1MB"')
    text += '[repository]\nkeep_free = "2 GiB"\n'
    settings = parse(text.encode(), "x")
    assert settings.chain.full_every == timedelta(minutes=90)
    assert settings.sources.etcd.patience == timedelta(seconds=45)
    assert settings.sources.etcd.min_progress == 1_000_000
    assert settings.repository.keep_free == 2 << 30


def test_every_problem_at_once(recipient: str) -> None:
    """One run names all: unknown keys and sections, bad units and types, contradictions, recipients."""
    said = problems(
        f"""
        colour = "red"
        [node]
        site = "Plant 7"
        nmae = "cp-1"
        root = "here"
        [sealing]
        recipients = ["age1typo", "{recipient}", "{recipient}"]
        segment = "3 MiB"
        [chains]
        max_chain = 3
        [chain]
        full_every = "24 hours"
        max_chain = "many"
        [repository]
        keep_free = 5
        path = "relative"
        [sources]
        disabled = ["etdc"]
        [sources.etcd]
        endpoints = "https://127.0.0.1:2379"
        required = "yes"
        deadline = "0 s"
        """
    )
    expected = [
        r"colour: unknown; known are chain, heartbeat, kubernetes, layout, .*",
        r"\[node\] site: 'Plant 7' is not a name: .*",
        r"\[node\] nmae: unknown; did you mean name\?",
        r"\[node\] name: it is missing",
        r"\[node\] root: 'here' is not an absolute path",
        r"\[sealing\] recipients: age1typo is not an age recipient: .*",
        r"\[sealing\] recipients: age1.* is there twice",
        r"\[sealing\] segment: 3 MiB is not a power of two .*",
        r"\[chains\]: unknown; did you mean chain\?",
        r"\[chain\] full_every: '24 hours' is not a duration: .*",
        r"\[chain\] max_chain: 'many' is not a whole number",
        r"\[repository\] keep_free: 5 is not a size: .*",
        r"\[repository\] path: 'relative' is not an absolute path",
        r"\[sources\] disabled: 'etdc' is unknown; did you mean etcd\?",
        r"\[sources.etcd\] endpoints: 'https://127.0.0.1:2379' is not a list",
        r"\[sources.etcd\] required: 'yes' is not true or false",
        r"\[sources.etcd\] deadline: '0 s' is not a duration: .*",
    ]
    unmatched = [line for line in expected if not any(re.fullmatch(line, one) for one in said)]
    assert unmatched == []
    assert len(said) == len(expected)


CASES = [
    ('[node]\nSite = "x"', "[node] Site: unknown; did you mean site?"),
    ('[node]\n"sité" = "x"', r"[node] 'sit\xe9': unknown; did you mean site?"),
    ('[node]\n"a\\nb" = 1', r"[node] 'a\nb': unknown; known are name, root, site"),
    ("node = 5", "[node]: 5 is not a section"),
    ("[sealing]\nrecipients = 5", "[sealing] recipients: 5 is not a list"),
    ("[sealing]\nrecipients = [5]", "[sealing] recipients: 5 is not a text in quotes"),
    ("[sealing]\nrecipients = []", "[sealing] recipients: there is none; encryption has no off switch"),
    ("[sealing]", "[sealing] recipients: it is missing"),
    ('[layout]\nname = "k4s"', "[layout] name: 'k4s' is none of kubeadm, rke2, k3s"),
    ('[layout]\npods = "manifests"', "[layout] pods: 'manifests' is not an absolute path"),
    (
        '[kubernetes]\nserver = "http://127.0.0.1:6443"',
        "[kubernetes] server: 'http://127.0.0.1:6443' is not a URL like",
    ),
    ('[kubernetes]\nserver = "https://u:p@x:6443"', "[kubernetes] server: a user or a password is in it"),
    ("[kubernetes]\nrequests_per_second = 0", "[kubernetes] requests_per_second: 0 is not between 1 and 1000"),
    ("[kubernetes]\npage = 9999", "[kubernetes] page: 9999 is not between 1 and 5000"),
    (
        '[sources]\ncluster_capture = "sometimes"',
        "[sources] cluster_capture: 'sometimes' is none of auto, always, never",
    ),
    ("[sources]\ncluster_capture = 5", "[sources] cluster_capture: 5 is none of auto, always, never"),
    (
        '[[sources.dns.transfers]]\nserver = "x"\nzones = ["a.example"]\nkey = "k"\nsecret = ["c2VjcmV0"]',
        "[sources.dns] transfers #1 secret: it is not a reference in quotes",
    ),
    ("[sources.dns]\nmax_records = 0", "[sources.dns] max_records: 0 is less than 1"),
    ('[sources.machine]\ninclude = ["etc"]', "[sources.machine] include: 'etc' is not an absolute path"),
    ('[[sources.dns.transfers]]\nserver = "x"', "[sources.dns] transfers #1 zones: it is missing"),
    (
        '[[sources.dns.transfers]]\nserver = "x:y:z"\nzones = ["a.example"]',
        "[sources.dns] transfers #1 server: ",
    ),
    (
        '[[sources.dns.transfers]]\nserver = "x"\nzones = ["a.example"]\nkey = "k"\nsecret = "c2VjcmV0"',
        "[sources.dns] transfers #1 secret: ",
    ),
    ("[sealing]\nencrypt = false", "[sealing] encrypt: unknown; encryption has no off switch"),
    ("encrypt = false", "encrypt: unknown; encryption has no off switch"),
    ("[sealing]\nencryption = false", "[sealing] encryption: unknown; encryption has no off switch"),
    ('[sealing]\nsegment = "64 mib"', "[sealing] segment: '64 mib' is not a size"),
    ('[sealing]\nsegment = "512 KiB"', "[sealing] segment: 512 KiB is not a power of two from 1 MiB to 1 GiB"),
    ('[sealing]\nsegment = "2 GiB"', "[sealing] segment: 2 GiB is not a power of two from 1 MiB to 1 GiB"),
    ("[chain]\nmax_chain = true", "[chain] max_chain: True is not a whole number"),
    ("[chain]\nmax_chain = -1", "[chain] max_chain: -1 is not between 0 and 10000"),
    ("[chain]\nmax_chain = 1.5", "[chain] max_chain: 1.5 is not a whole number"),
    ('[chain]\nfull_every = "99999999999999 w"', "[chain] full_every: '99999999999999 w' is too long a duration"),
    ('[repository]\npath = "/var/lib/edgedr/"', "[repository] path: it must not be the state directory itself"),
    ('[repository]\npath = "/var/lib/edgedr/x/.."', "[repository] path: it must not be the state directory itself"),
    ('[repository]\npath = "/var/lib/edgedr/parent"', "[repository] path: parent below the state directory is emptied"),
    ('[repository]\npath = "/var/lib"', "[state] path: it must not be inside the repository"),
    ('[sources]\ndisabled = ["etcd", "everything"]', "[sources] disabled: 'everything' is unknown; known are"),
    (
        f"[sources]\ndisabled = {json.dumps(SOURCE_NAMES)}",
        "[sources] disabled: nothing would be left to back up",
    ),
    (
        '[sources]\ndisabled = ["etcd", "certificates"]',
        "[sources]: nothing that is left is required (serviceaccounts, files, dns, addresses, machine, ",
    ),
    (
        "[sources.etcd]\nrequired = false\n[sources.certificates]\nrequired = false",
        "[sources]: nothing that is left is required (serviceaccounts, certificates, files, dns, ",
    ),
    ('[sources.etcd]\ncert = "/c"', "[sources.etcd] key: it is missing: cert is set, and they belong together"),
    ('[sources.etcd]\nkey = "/k"', "[sources.etcd] cert: it is missing: key is set, and they belong together"),
    ('[sources.files]\ninclude = ["/a\\u0000b"]', "[sources.files] include: '/a\\x00b' has a NUL in it"),
    ('[node]\nroot = "/a\\u0000b"', "[node] root: '/a\\x00b' has a NUL in it"),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_each_mistake_is_named(text: str, expected: str) -> None:
    """Its place, its value, and what was probably meant."""
    assert any(line.startswith(expected) for line in problems(text))


def test_paths_and_urls_are_checked_before_anything_is_captured(recipient: str) -> None:
    """Every path, glob and URL of the sources: all that are wrong at once, each with its place."""
    said = problems(
        text_of(
            recipient,
            node='root = "here"',
            sources__etcd='endpoints = ["10.7.0.1:2379", "https://h:1"]\nca = "ca.crt"\ncert = "~/c"\nkey = "/a/../k"',
            sources__certificates='paths = ["/ok", "./no"]\nexclude = ["*.key"]',
            sources__files='include = ["relative/x", "/etc/*.d", "/../x"]\nexclude = [""]',
        )
    )
    assert sorted(line.replace("https://127.0.0.1:2379", "URL") for line in said) == [
        "[node] root: 'here' is not an absolute path",
        "[sources.certificates] exclude: '*.key' is not an absolute path",
        "[sources.certificates] paths: './no' is not an absolute path",
        "[sources.etcd] ca: 'ca.crt' is not an absolute path",
        "[sources.etcd] cert: '~/c' is not an absolute path",
        "[sources.etcd] endpoints: '10.7.0.1:2379' is not a URL of a member: write it like URL, with the port",
        "[sources.etcd] key: '/a/../k' leads upwards: write it without ..",
        "[sources.files] exclude: '' is not an absolute path",
        "[sources.files] include: '/../x' leads upwards: write it without ..",
        "[sources.files] include: 'relative/x' is not an absolute path",
    ]


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://h",
        "h:1",
        "ftp://h:1",
        "https://:1",
        "https://h:0",
        "https://h:65536",
        "https://h:x",
        "https://[::1:2379",
        "https://h:1/path",
        "https://h:1?q",
        "https://h:1#f",
        "https://h:1 ",
        "",
    ],
)
def test_an_endpoint_that_is_none(recipient: str, endpoint: str) -> None:
    """An endpoint is scheme, host and port, and nothing else."""
    (said,) = problems(text_of(recipient, sources__etcd=f'endpoints = ["{endpoint}"]'))
    assert said.startswith(f"[sources.etcd] endpoints: '{endpoint}' is not a URL")


@pytest.mark.parametrize("endpoint", ["https://127.0.0.1:2379", "http://[::1]:2379", "HTTPS://etcd.plant-7:1"])
def test_an_endpoint_that_is_one(recipient: str, endpoint: str) -> None:
    """Names and both kinds of addresses are taken as they are."""
    settings = parse(text_of(recipient, sources__etcd=f'endpoints = ["{endpoint}"]').encode(), "x")
    assert settings.sources.etcd.endpoints == (endpoint,)


def test_a_password_in_an_endpoint_is_not_echoed(recipient: str) -> None:
    """It is refused without being shown."""
    (said,) = problems(text_of(recipient, sources__etcd='endpoints = ["https://root:hunter2@h:1"]'))
    assert "hunter2" not in said
    assert "a password is in it" in said


@pytest.mark.parametrize(
    "lines",
    ['[sources]\ndisabled = ["etcd"]', '[sources]\ndisabled = ["etcd", "certificates"]\nfiles.required = true'],
)
def test_some_sources_may_be_left_out(recipient: str, lines: str) -> None:
    """As long as one that is left is required, so that an empty backup is none."""
    assert "etcd" not in [source.name for source in parse((text_of(recipient) + lines).encode(), "x").sources]


@pytest.mark.parametrize("data", [b"[node", b"\xff", b"a = " + b"9" * 5000, b"a = " + b"[" * 5000, b"#" * (2 << 20)])
def test_what_is_no_configuration_at_all(data: bytes) -> None:
    """A file that is not TOML, not text, or far too long, is named."""
    with pytest.raises(ConfigurationError, match=r"^x is "):
        parse(data, "x")


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    """Before ``init`` there is no configuration: the hint says so."""
    with pytest.raises(ConfigurationError, match="cannot read the configuration") as caught:
        load(tmp_path / "edgedr.toml")
    assert "edgedr init" in str(caught.value.hint)


def test_a_file_of_somebody_else_says_who_may_read_it(tmp_path: Path) -> None:
    """One that is there and may not be read is not to be written once more."""
    config = tmp_path / "edgedr.toml"
    config.write_text("")
    config.chmod(0)
    program = (
        "import os, sys; from pathlib import Path; from edgedr.settings import load; from edgedr.errors import *\n"
        "if os.geteuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "try: load(Path(sys.stdin.read()))\n"
        "except ConfigurationError as error: print(error.hint)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=str(config), capture_output=True, text=True, check=True
    )
    assert done.stdout == "run as root, or as the owner of the file\n"


def test_looking_needs_only_the_places(tmp_path: Path) -> None:
    """On the bad day a mistake in another section does not keep anyone from the backups."""
    config = tmp_path / "edgedr.toml"
    config.write_text('[node]\nsite = "plant-7"\nname = "cp-1"\n[sealing]\nrecipients = ["typo"]\n')
    assert load_locations(config).node.name == "cp-1"
    config.write_text('[node]\nsite = "plant 7"\n[repository]\npath = "here"\n')
    with pytest.raises(ConfigurationError, match="has 3 problems"):
        load_locations(config)


# -- secrets


@pytest.mark.parametrize("secret", [CANARY, CANARY.lower(), SSH_KEY], ids=["age", "lower case", "ssh"])
@pytest.mark.parametrize(
    "place",
    [
        "[sealing]\nrecipients = [{}]",
        "[sealing]\nrecipients = {}",
        "[sealing]\nsegment = {}",
        "[sealing]\n{} = 1",
        "[node]\nsite = {}\nname = {}",
        "[repository]\npath = {}",
        "[repository]\nkeep_free = {}",
        "[sources]\ndisabled = [{}]",
        "[sources.etcd]\nrequired = {}",
        "[chain]\nfull_every = {}\nmax_chain = {}",
        "[{}]\nx = 1",
        "node = {}",
    ],
)
def test_a_private_key_is_never_echoed(place: str, secret: str) -> None:
    """Wherever it was pasted, a secret does not come out again."""
    quoted = '"' + secret.replace("\n", "\\n") + '"'
    said = "\n".join(problems(place.replace("{}", quoted)))
    assert "CANARY" not in said.upper()


@pytest.mark.parametrize("secret", [CANARY, SSH_KEY], ids=["age", "ssh"])
def test_a_private_key_pasted_bare_is_never_echoed(secret: str) -> None:
    """Not even where it breaks the file."""
    for text in (secret, f"[sealing]\n{secret}\n", f"[sealing]\nrecipients = [{secret}]", f'x = "{secret}'):
        assert "CANARY" not in "\n".join(problems(text)).upper()


def test_a_private_key_as_recipient_says_what_happened() -> None:
    """The message tells that it is exposed now, and what belongs there."""
    (said,) = [line for line in problems(f'[sealing]\nrecipients = ["{CANARY}"]') if "recipients" in line]
    assert "a private key stands where a recipient belongs" in said
    assert "consider it exposed" in said


@given(text=st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_no_recipient_makes_a_bug(text: str) -> None:
    """Any text is a recipient or a configuration error on one line."""
    try:
        parse_recipient(text)
    except ConfigurationError as error:
        assert "\n" not in error.message  # noqa: PT017 - both endings are right


# -- the example


def _documented() -> dict[str, dict[str, Any]]:
    """Return every setting that the example shows, commented ones included."""
    return tomllib.loads(_uncommented())


def _uncommented() -> str:
    return re.sub(r"^# ([a-z_]+ = |  \"|\]|\[\[)", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)


def test_the_example_is_what_init_writes() -> None:
    """``config/edgedr.toml`` is the annotated configuration with example values, to the letter."""
    settings = load(EXAMPLE)
    assert len(settings.recipients) == 2
    written = render(
        site=settings.node.site,
        node=settings.node.name,
        root=settings.node.root,
        recipients=settings.recipients,
        repository=settings.repository.path,
        state=settings.state.path,
    )
    assert written == EXAMPLE.read_text()


def test_odd_values_survive_being_written(recipient: str) -> None:
    """Quotes, backslashes and other scripts in a path come back from the configuration as they were."""
    root = Path('/mnt/"quoted" \\ späße')
    text = render(
        site="s", node="n", root=root, recipients=[parse_recipient(recipient)], repository=Path("/r"), state=Path("/s")
    )
    assert parse(text.encode(), "x").node.root == root


def test_what_cannot_be_written_is_refused(recipient: str) -> None:
    """A path with bytes that are no text, or with control characters, has no place in a configuration file."""
    for root in ("/mnt/\udcff", "/mnt/\x7f"):
        with pytest.raises(ConfigurationError, match="cannot stand in a configuration file"):
            render(
                site="s",
                node="n",
                root=Path(root),
                recipients=[parse_recipient(recipient)],
                repository=Path("/r"),
                state=Path("/s"),
            )


def _settings_of(kind: Any, place: str = "") -> dict[str, tuple[Any, Any]]:
    """Return every setting by its dotted name, with type and field."""
    found: dict[str, tuple[Any, Any]] = {}
    hints = get_type_hints(kind)
    for item in fields(kind):
        name = f"{place}{item.name}"
        if is_dataclass(hints[item.name]):
            found |= _settings_of(hints[item.name], f"{name}.")
        else:
            found[name] = (hints[item.name], item)
    return found


def _flat(table: dict[str, Any], place: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in table.items():
        found |= _flat(value, f"{place}{name}.") if isinstance(value, dict) else {f"{place}{name}": value}
    return found


def test_every_setting_is_in_the_example() -> None:
    """A setting that nobody can read about does not exist; and nothing is documented that does not exist."""
    assert set(_flat(_documented())) == set(_settings_of(Settings))


def test_every_commented_default_is_the_default(recipient: str) -> None:
    """With its comments taken off, the example means the same, but for what is found on the node by default."""
    whole = _uncommented()
    text = re.sub(r"^\[layout\]$.*?(?=^\[)", "", whole, flags=re.MULTILINE | re.DOTALL)
    text = text.partition("[[replicas]]")[0]
    found_on_the_node = r"^(?:endpoints|ca|cert|key|kubeconfig|server|transfers|database|ping) = .*$"
    assert parse(re.sub(found_on_the_node, "", text, flags=re.MULTILINE).encode(), "x") == load(EXAMPLE)
    (replica,) = parse(whole.encode(), "x").replicas
    assert {item.name for item in fields(replica)} == set(tomllib.loads(whole)["replicas"][0])
    for text in ("timeout", "at_once", "catch_up", "same_disk"):
        assert getattr(replica, text) == getattr(ReplicaSettings("x", "/x"), text)


def test_a_wrong_configuration_ends_with_2(tmp_path: Path) -> None:
    """The command says all problems on stderr, one a line, and ends with the code for configuration."""
    config = tmp_path / "edgedr.toml"
    config.write_text(f'[node]\nsite = "plant-7"\n[sealing]\nrecipients = ["{CANARY}"]\n')
    command = [sys.executable, "-m", "edgedr", "--config", str(config), "config", "check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0] == f"error: {config} has 2 problems:"
    assert lines[-2] == "  hint: the comments that `edgedr init` writes there explain every setting"
    assert lines[-1] == "(exit 2)"
    assert "CANARY" not in done.stderr


def checked(tmp_path: Path, capsys: pytest.CaptureFixture[str], **changes: str) -> str:
    """Return what ``config check`` complains of, on one line."""
    config = tmp_path / "edgedr.toml"
    config.write_text(text_of(make_identity().recipient, state=f'path = "{tmp_path}/state"', **changes))
    assert main(["--config", str(config), "config", "check"]) == 2
    return " ".join(capsys.readouterr().err.split())


def test_check_looks_for_what_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Certificates of etcd that are not on the node are named, all at once, before the first backup needs them."""
    (tmp_path / "root/pki").mkdir(parents=True)
    (tmp_path / "root/there.crt").write_text("")
    (tmp_path / "root/link.crt").symlink_to("/there.crt")
    access = 'ca = "/absent.crt"\ncert = "/link.crt"\nkey = "/pki"'
    said = checked(tmp_path, capsys, node=f'root = "{tmp_path}/root"', sources__etcd=access)
    assert "has 2 problems:" in said
    assert "[sources.etcd] ca: /absent.crt is not on this node" in said
    assert "[sources.etcd] key: /pki is not a file" in said
    left_out = 'disabled = ["etcd"]'
    said = checked(tmp_path, capsys, node=f'root = "{tmp_path}/root"', sources__etcd=access, sources=left_out)
    assert "problem" not in said


@pytest.mark.parametrize("name", ["absent", "edgedr.toml"])
def test_check_looks_whether_the_root_is_a_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """A root that is not there, or is a file, is said as such, and not as a node without certificates."""
    said = checked(tmp_path, capsys, node=f'root = "{tmp_path / name}"')
    assert re.search(r"has 1 problem: \[node\] root: '/.* is not a directory", said)
