"""What the parts of a control plane were told on their command lines, and which files that names.

kubeadm and rke2 write it into static pod manifests, k3s into its own configuration and unit files.
"""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from edgedr.layouts import Datastore, Layout
from edgedr.model import Finding, Severity
from edgedr.node.contents import Contents
from edgedr.yaml_text import load_yaml

_WRITTEN_BY_SERVER = ("log-path", "log-file", "log-dir", "cert-dir", "data-dir", "wal-dir")
"""Ends of flags that name what a server writes, not what it reads."""

_ARGUMENTS = {
    "kube-apiserver-arg": "kube-apiserver",
    "kube-controller-manager-arg": "kube-controller-manager",
    "kube-scheduler-arg": "kube-scheduler",
    "etcd-arg": "etcd",
    "kubelet-arg": "kubelet",
}
"""Options of k3s and rke2 that pass a flag on, and to whom."""

_OWN_FILES = (
    *("datastore-cafile", "datastore-certfile", "datastore-keyfile", "token-file", "agent-token-file"),
    *("private-registry", "vpn-auth-file", "etcd-s3-endpoint-ca", "audit-policy-file"),
    *("pod-security-admission-config-file", "cloud-provider-config"),
)
"""Options of k3s and rke2 that name a file which the server itself reads."""
SERVER = "the server"
"""What the program of k3s or rke2 is called among the components."""

_PAIRED = frozenset({"tls-sni-cert-key"})
"""Flags whose value has more behind a colon."""
_SQLITE = ("sqlite", "litestream")
_SHORT = {"-c": "--config", "-d": "--data-dir", "-t": "--token"}
"""Options of k3s and rke2 that have a short form."""


@dataclass(frozen=True, slots=True)
class Component:
    """One program of the control plane: its name, the file that says how it runs, its flags without their hyphens.

    ``mounts`` are pairs: a directory in its container, and where that is on the node. ``host_paths`` are what a pod
    takes of the node, each with whether it must be a file.
    """

    name: str
    told_by: str
    flags: tuple[tuple[str, str], ...]
    mounts: tuple[tuple[str, str], ...] = ()
    host_paths: tuple[tuple[str, bool], ...] = ()

    def flag(self, name: str) -> str | None:
        """Return the value of a flag, the last one if it is there more than once."""
        return next((value for flag, value in reversed(self.flags) if flag == name), None)

    def named_paths(self) -> Iterator[tuple[str, str]]:
        """Yield each flag that names a path to read, and that path on the node."""
        for flag, value in self.flags:
            if flag.endswith(_WRITTEN_BY_SERVER) or _is_secret(flag):
                continue
            for part in (value.partition(":")[0] if flag in _PAIRED else value).split(","):
                if part.startswith("/") and part != "/" and ".." not in part.split("/"):
                    yield flag, self.on_node(part)

    def on_node(self, inside: str) -> str:
        """Translate a path in the container to the node's: through the longest host mount that it is below."""
        best: tuple[PurePosixPath, str] | None = None
        for mounted, host in self.mounts:
            at = PurePosixPath(mounted)
            is_longer = best is None or len(at.parts) > len(best[0].parts)
            if is_longer and PurePosixPath(inside).is_relative_to(at):
                best = at, host
        return inside if best is None else str(PurePosixPath(best[1]) / PurePosixPath(inside).relative_to(best[0]))


def components(files: Contents, layout: Layout) -> tuple[tuple[Component, ...], tuple[Finding, ...]]:
    """Return what runs on a node with these files, and which manifest cannot be read."""
    found: list[Component] = []
    findings: list[Finding] = []
    for manifest in _manifests(files, layout):
        text = files.text(manifest)
        if text is None:
            continue
        try:
            found.append(read_pod(text, manifest))
        except ValueError:
            hint = "look whether the kubelet still starts a pod from it"
            findings.append(Finding(Severity.WARN, manifest, "cannot be read as a static pod", hint))
    for path, options in distribution_options(files, layout):
        found += _passed_on(path, options)
    return tuple(found), tuple(findings)


def component(files: Contents, layout: Layout, name: str) -> Component | None:
    """Return the program of that name with the flags from every file that tells of it, if one does."""
    found = [each for each in components(files, layout)[0] if each.name == name]
    return replace(found[0], flags=tuple(flag for each in found for flag in each.flags)) if found else None


def read_pod(text: str, path: str) -> Component:
    """Read a static pod manifest; ``ValueError`` if it is none. The flags of all its containers count."""
    pod = load_yaml(text)
    try:
        containers = pod["spec"]["containers"]
        hosts = {
            volume.get("name"): str(volume["hostPath"].get("path"))
            for volume in pod["spec"].get("volumes") or ()
            if isinstance(volume.get("hostPath"), dict)
        }
        words = [str(word) for each in containers for word in (*(each.get("command") or ()), *(each.get("args") or ()))]
        mounts = [
            (str(mount.get("mountPath")), hosts[mount["name"]])
            for each in containers
            for mount in each.get("volumeMounts") or ()
            if mount.get("name") in hosts
        ]
        host_paths = [
            (str(volume["hostPath"].get("path")), volume["hostPath"].get("type") == "File")
            for volume in pod["spec"].get("volumes") or ()
            if isinstance(volume.get("hostPath"), dict)
        ]
        name = str((pod.get("metadata") or {}).get("name") or containers[0].get("name") or PurePosixPath(path).stem)
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError("not a static pod") from error
    return Component(name, path, tuple(_flags(words)), tuple(mounts), tuple(host_paths))


def distribution_options(files: Contents, layout: Layout) -> Iterator[tuple[str, dict[str, tuple[str, ...]]]]:
    """Yield the options of k3s or rke2 by file, in the order in which a later one counts.

    First those of its environment, then of its configuration files, then of its command line.
    """
    paths = [path for pattern in layout.units for path in _matching(files, pattern)]
    units = [(path, text) for path in paths if (text := files.text(path)) is not None]
    for path, text in units:
        environment = dict(_environment(text, f"{layout.name.upper()}_"))
        if environment:
            yield path, environment
    for path in (path for pattern in layout.config for path in _matching(files, pattern)):
        text = files.text(path)
        try:
            options = load_yaml(text) if text else None
        except ValueError:
            continue
        if isinstance(options, Mapping):
            yield (
                path,
                {
                    str(key).rstrip("+"): tuple(map(str, value)) if isinstance(value, list) else (_plain(value),)
                    for key, value in options.items()
                },
            )
    for path, words in _commands(units):
        given: dict[str, list[str]] = {}
        for flag, value in _flags(words):
            given.setdefault(flag, []).append(value)
        yield path, {flag: tuple(values) for flag, values in given.items()}


def distribution_option(files: Contents, layout: Layout, name: str) -> str | None:
    """Return the last value of one option of k3s or rke2."""
    found = [values[-1] for _, options in distribution_options(files, layout) if (values := options.get(name))]
    return found[-1] if found else None


def datastore(files: Contents, layout: Layout) -> Datastore:
    """Return where the cluster of a node with these files keeps its objects."""
    if layout.etcd_data and files.exists(layout.etcd_data):  # where k3s finds it, it heeds no other datastore option
        return Datastore.EMBEDDED_ETCD if layout.etcd_name else Datastore.STACKED_ETCD
    endpoint = distribution_option(files, layout, "datastore-endpoint")
    if endpoint and not endpoint.startswith("etcd"):  # that one means the embedded etcd
        if endpoint.startswith(_SQLITE):
            return Datastore.SQLITE
        is_etcd = endpoint.startswith(("http://", "https://"))
        return Datastore.EXTERNAL_ETCD if is_etcd else Datastore.EXTERNAL_DATABASE
    if layout.sqlite and files.exists(layout.sqlite):
        return Datastore.SQLITE
    apiserver = component(files, layout, "kube-apiserver")
    if apiserver is not None and apiserver.flag("etcd-servers"):
        return Datastore.EXTERNAL_ETCD
    return Datastore.UNKNOWN


def sqlite_database(files: Contents, layout: Layout) -> str | None:
    """Return where a server keeps its objects if it keeps them in SQLite: as its datastore option names it, or else."""
    scheme, _, rest = (distribution_option(files, layout, "datastore-endpoint") or "").partition("://")
    named = rest.partition("?")[0].removeprefix("file:")
    if scheme not in _SQLITE or not named:
        return layout.sqlite
    return str(PurePosixPath(layout.data_dir or "/", "server", named))  # relative to where the server runs


def _manifests(files: Contents, layout: Layout) -> list[str]:
    pods = files.real(layout.pods) if layout.pods else None  # the directory itself may be a link
    below = files.expand((f"{pods}/*",)) if pods else []
    found = [str(path) for path in below if path.parent == pods and not path.name.startswith(".")]
    return list(dict.fromkeys([*found, *filter(None, (layout.etcd_manifest, layout.apiserver_manifest))]))


def _flags(words: list[str]) -> Iterator[tuple[str, str]]:
    for word, following in zip(words, [*words, "--"][1:], strict=True):
        if word.startswith("--"):
            flag, equals, value = word[2:].partition("=")
            yield flag, value if equals else "" if following.startswith("-") else following


def _passed_on(path: str, options: Mapping[str, tuple[str, ...]]) -> Iterator[Component]:
    for option, name in _ARGUMENTS.items():
        flags = tuple(
            (flag.lstrip("-"), value) for flag, _, value in (each.partition("=") for each in options.get(option, ()))
        )
        if flags:
            yield Component(name, path, flags)
    own = tuple((option, value) for option in _OWN_FILES for value in options.get(option, ()))
    if own:
        yield Component(SERVER, path, own)


def _is_secret(flag: str) -> bool:
    """Tell whether a flag's value may be a secret itself, which in base64 can begin like a path."""
    return any(word in flag for word in ("password", "secret", "token")) and not flag.endswith(("file", "config"))


def _matching(files: Contents, pattern: str) -> list[str]:
    return [str(path) for path in files.expand((pattern,))] if "*" in pattern else [pattern]


def _environment(text: str, prefix: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Read the options among the variables that a unit, or a file of variables beside it, sets."""
    for line in text.splitlines():
        assigned = line.strip().removeprefix("Environment=").removeprefix("export ")
        for word in _words(assigned) if prefix in assigned and not assigned.startswith("#") else ():
            variable, equals, value = word.partition("=")
            if equals and variable.startswith(prefix):
                yield variable.removeprefix(prefix).lower().replace("_", "-"), (value,)


def _commands(units: list[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Return the command line, by the file that says it: a unit replaces one of lower rank, a drop-in may empty it."""
    told: list[tuple[str, list[str]]] = []
    for path, text in units:
        lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
        commands = [line.partition("=")[2].strip() for line in lines if line.partition("=")[0].strip() == "ExecStart"]
        if commands and (path.endswith(".service") or "" in commands):
            told.clear()
        words = [_SHORT.get(word, word) for command in commands for word in _words(command)]
        if words:
            told.append((path, words))
    return told


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
