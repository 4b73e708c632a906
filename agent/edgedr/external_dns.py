"""What an external-dns calls its own: read from its Deployment. Pure.

It owns the records that carry its owner id in a TXT record beside them. With another id, prefix or key after a restore
it takes none of them for its own; with the right ones and the policy ``sync`` it deletes those that it sees no use for.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

Object: TypeAlias = dict[str, Any]

_NAME = "external-dns"
_FLAGS = (
    *("txt-owner-id", "txt-prefix", "txt-suffix", "txt-wildcard-replacement", "txt-encrypt-enabled"),
    *("txt-encrypt-aes-key", "registry", "policy", "provider", "source", "domain-filter", "exclude-domains"),
    *("regex-domain-filter", "regex-domain-exclusion", "zone-id-filter", "namespace", "annotation-filter"),
    *("label-filter", "managed-record-types", "dynamodb-table"),
)
"""What decides which records it takes for its own, and what it does to them; in the order that reads best."""

_DEFAULT_OWNER, _DEFAULT_POLICY = "default", "sync"  # of external-dns itself
_ENVIRONMENT = "EXTERNAL_DNS_"
_KEEPERS = {"secretKeyRef": "Secret", "configMapKeyRef": "ConfigMap"}
_REFERENCE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)", re.ASCII)


@dataclass(frozen=True, slots=True)
class ExternalDns:
    """One external-dns: ``namespace/name``, its image, and the flags that decide what it owns, with their values.

    ``unseen``: it has settings from a Secret or ConfigMap as a whole, which were not looked into.
    """

    name: str
    image: str
    flags: dict[str, tuple[str, ...]]
    unseen: bool = False

    @property
    def owner(self) -> str:
        """The owner id in its TXT records."""
        return self._last("txt-owner-id", _DEFAULT_OWNER)

    @property
    def policy(self) -> str:
        """What it may do: ``sync``, ``upsert-only``, ``create-only``."""
        return self._last("policy", _DEFAULT_POLICY)

    @property
    def has_own_id(self) -> bool:
        """Whether its owner id, if it uses one, is none that another cluster would have by default."""
        return self.unseen or self.owner != _DEFAULT_OWNER or self.flags.get("registry") == ("noop",)

    def as_object(self) -> Object:
        """Return it as it is written for people: a flag with one value as a text."""
        flags = {name: values[0] if len(values) == 1 else list(values) for name, values in self.flags.items()}
        return {"image": self.image, "owner": self.owner, "policy": self.policy, "flags": flags}

    def _last(self, flag: str, otherwise: str) -> str:
        values = self.flags.get(flag)
        return values[-1] if values else "not known" if self.unseen else otherwise


def external_dns(deployment: Object) -> ExternalDns | None:
    """Read a Deployment; ``None`` if it is of something else."""
    metadata = _mapping(deployment.get("metadata"))
    pod = _mapping(_mapping(_mapping(deployment.get("spec")).get("template")).get("spec"))
    containers = [each for each in _sequence(pod.get("containers")) if isinstance(each, dict)]
    own = [each for each in containers if _NAME in str(each.get("image")).rpartition("/")[2]]
    if not own and _NAME in map(str, _mapping(metadata.get("labels")).values()):
        own = containers[:1]
    if not own:
        return None
    flags, unseen = _settings(own[0])
    name = f"{metadata.get('namespace')}/{metadata.get('name')}"
    return ExternalDns(name, str(own[0].get("image")), flags, unseen=unseen)


def _settings(container: Object) -> tuple[dict[str, tuple[str, ...]], bool]:
    """Return the flags that matter, of its command line or else its environment; and whether some cannot be seen."""
    environment = dict(_environment(container))
    words = [str(word) for name in ("command", "args") for word in _sequence(container.get(name))]
    given: dict[str, list[str]] = {}
    for flag, value in _flags(words):
        given.setdefault(flag, []).append(_REFERENCE.sub(lambda m: environment.get(m[1], m[0]), value))
    for variable, value in environment.items():
        if variable.startswith(_ENVIRONMENT):
            flag = variable.removeprefix(_ENVIRONMENT).lower().replace("_", "-")
            given.setdefault(flag, value.splitlines() or [""])
    return {flag: tuple(given[flag]) for flag in _FLAGS if flag in given}, bool(container.get("envFrom"))


def _flags(words: list[str]) -> Iterator[tuple[str, str]]:
    for word, following in zip(words, [*words, "--"][1:], strict=True):
        if word.startswith("--"):
            flag, equals, value = word[2:].partition("=")
            negated = flag.removeprefix("no-")
            if negated != flag and negated in _FLAGS:
                yield negated, "false"
            else:
                yield flag, value if equals else "true" if following.startswith("--") else following


def _environment(container: Object) -> Iterator[tuple[str, str]]:
    for entry in _sequence(container.get("env")):
        entry = _mapping(entry)  # noqa: PLW2901 - what it may not be
        name = str(entry.get("name"))
        if "value" in entry:
            yield name, str(entry["value"])
        for kind, reference in _mapping(entry.get("valueFrom")).items():
            at = _mapping(reference)
            yield (
                name,
                f"from {_KEEPERS[kind]} {at.get('name')}: {at.get('key')}" if kind in _KEEPERS else f"from {kind}",
            )


def _mapping(value: Any) -> Object:
    return value if isinstance(value, dict) else {}


def _sequence(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
