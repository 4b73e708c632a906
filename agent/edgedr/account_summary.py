"""Who may do what in a cluster, and what that hangs on, as a page that a person can read. Without I/O or any secret.

Names come from the API; whatever in them could pass for another line is taken out.
"""

import base64
import binascii
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from edgedr.encryption import EncryptionConfiguration
from edgedr.kubernetes_yaml import one_line
from edgedr.node.kube import Object

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_ALL_OF = "system:serviceaccounts:"
_WIDTH = 79


@dataclass(frozen=True, slots=True, order=True)
class Account:
    """One ServiceAccount."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True, order=True)
class Token:
    """A Secret that holds a token of an account: one that never expires."""

    namespace: str
    name: str
    account: str


@dataclass(frozen=True, slots=True, order=True)
class Bootstrap:
    """A token that lets nodes join: its public half, and until when as it was recorded; ``None``: for ever."""

    id: str
    until: str | None


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """Whom a role is given to: ``User``, ``Group``, or ``ServiceAccount`` of a namespace."""

    kind: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Binding:
    """A role that is given to somebody, in one namespace, or everywhere if that is empty."""

    namespace: str
    role: str
    subjects: tuple[Subject, ...]


@dataclass(slots=True)
class Cluster:
    """What the API server told; ``missing`` says why there is nothing, or not all of it."""

    accounts: list[Account] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    bootstraps: list[Bootstrap] = field(default_factory=list)
    bindings: list[Binding] = field(default_factory=list)
    missing: str | None = None


def account_of(item: Object) -> Account:
    """Read a ServiceAccount."""
    return Account(str(item["metadata"]["namespace"]), str(item["metadata"]["name"]))


def token_of(item: Object) -> Token | Bootstrap | None:
    """Read a Secret that is a token: never the token itself. ``None`` for any other."""
    metadata, data = item["metadata"], item.get("data") or {}
    match item.get("type"):
        case "kubernetes.io/service-account-token":
            account = (metadata.get("annotations") or {}).get("kubernetes.io/service-account.name")
            return Token(str(metadata["namespace"]), str(metadata["name"]), str(account))
        case "bootstrap.kubernetes.io/token":
            return Bootstrap(str(metadata["name"]).removeprefix("bootstrap-token-"), _until(data.get("expiration")))
    return None


def binding_of(item: Object) -> Binding:
    """Read a RoleBinding or a ClusterRoleBinding."""
    metadata, role = item["metadata"], item["roleRef"]
    namespace = str(metadata.get("namespace") or "")
    subjects = tuple(
        Subject(str(each["kind"]), str(each.get("namespace") or ""), str(each["name"]))
        for each in item.get("subjects") or ()
    )
    return Binding(namespace, f"{role['kind']} {role['name']}", subjects)


def summary(
    signing_keys: Mapping[str, str],
    encryption: Mapping[str, EncryptionConfiguration],
    issuers: Iterable[str],
    cluster: Cluster,
) -> str:
    """Return the page. ``signing_keys`` are fingerprints, ``encryption`` configurations, both by path."""
    lines = [*_title("Service accounts and credentials", "=")]
    lines += _node(signing_keys, encryption, issuers)
    if cluster.missing is not None:
        lines += ["", *_wrapped(f"Of the cluster: {one_line(cluster.missing)}", "")]
    held = _held(cluster.bindings)
    lines += _tokens(cluster)
    lines += _namespaces(cluster, held)
    others = sorted(subject for subject in held if subject.kind != "ServiceAccount" and not _is_namespace(subject))
    if others:
        lines += ["", *_title("Users and groups", "-")]
        for subject in others:
            lines += [
                f"  {one_line(subject.kind)} {one_line(subject.name)}",
                *_wrapped(", ".join(held[subject]), "      "),
            ]
    return "".join(f"{line}\n" for line in lines)


def _node(
    signing_keys: Mapping[str, str], encryption: Mapping[str, EncryptionConfiguration], issuers: Iterable[str]
) -> Iterator[str]:
    yield from ("", *_title("Keys that sign tokens", "-"))
    for path, fingerprint in signing_keys.items():
        yield f"  {one_line(path)}"
        yield from (f"      {each}" for each in fingerprint.split(", "))
    if not signing_keys:
        yield "  none on this node"
    yield from (f"  issuer {one_line(issuer)}" for issuer in issuers)
    yield from ("", *_title("Encryption at rest", "-"))
    for path, configuration in encryption.items():
        yield f"  {one_line(path)}"
        for rule in configuration.rules:
            yield from _wrapped(one_line(", ".join(rule.resources)), "      ")
            yield from (f"          {one_line(str(provider))}" for provider in rule.providers)
    if not encryption:
        yield "  no configuration of it on this node"


def _tokens(cluster: Cluster) -> Iterator[str]:
    if cluster.tokens:
        yield from ("", *_title("Tokens that never expire", "-"))
        for token in sorted(cluster.tokens):
            yield f"  {one_line(token.namespace)}/{one_line(token.name)}: of {one_line(token.account)}"
    if cluster.bootstraps:
        yield from ("", *_title("Tokens to join nodes with", "-"))
        for each in sorted(cluster.bootstraps, key=lambda bootstrap: bootstrap.id):
            yield f"  {one_line(each.id)}: " + (f"until {each.until}" if each.until else "for ever")


def _namespaces(cluster: Cluster, held: Mapping[Subject, list[str]]) -> Iterator[str]:
    accounts = set(cluster.accounts)
    bound = {Account(each.namespace, each.name) for each in held if each.kind == "ServiceAccount"}
    by_namespace: dict[str, list[Account]] = {}
    for account in sorted(accounts | bound):
        by_namespace.setdefault(account.namespace, []).append(account)
    for namespace, members in by_namespace.items():
        yield from ("", *_title(f"Accounts of {one_line(namespace)}", "-"))
        everyone = held.get(Subject("Group", "", _ALL_OF + namespace))
        if everyone:
            yield from ("  every one of them", *_wrapped(", ".join(everyone), "      "))
        for account in members:
            yield f"  {one_line(account.name)}" + ("" if account in accounts else " (no such account)")
            roles = held.get(Subject("ServiceAccount", account.namespace, account.name), [])
            yield from _wrapped(", ".join(_brief(role, namespace) for role in roles), "      ")


def _held(bindings: Iterable[Binding]) -> dict[Subject, list[str]]:
    """Return the roles that each subject holds, sorted, with where they hold."""
    held: dict[Subject, set[str]] = {}
    for binding in bindings:
        where = f"in {binding.namespace}" if binding.namespace else "everywhere"
        for subject in binding.subjects:
            kept = subject if subject.kind == "ServiceAccount" else Subject(subject.kind, "", one_line(subject.name))
            held.setdefault(kept, set()).add(one_line(f"{binding.role} {where}"))
    return {subject: sorted(roles) for subject, roles in held.items()}


def _brief(role: str, namespace: str) -> str:
    return role.removesuffix(f" in {namespace}")


def _is_namespace(subject: Subject) -> bool:
    return subject.kind == "Group" and subject.name.startswith(_ALL_OF)


def _until(expiration: object) -> str | None:
    if not expiration:
        return None
    try:
        text = base64.b64decode(str(expiration), validate=True).decode()
    except (ValueError, binascii.Error):
        text = ""
    return text if _TIME.fullmatch(text) else "a time that cannot be read"


def _title(text: str, rule: str) -> tuple[str, str]:
    return text, rule * len(text)


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
