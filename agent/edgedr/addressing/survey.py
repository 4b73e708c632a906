"""What is found of addresses on the way to their plan; and others' words for them, of which no type is believed."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from edgedr.addressing.plan import Interface
from edgedr.addressing.ranges import Purpose, Range, Use, printable
from edgedr.errors import SourceError
from edgedr.model import Finding, Severity

_MAX_FINDINGS = 50  # of one sort: the plan has them all
Object: TypeAlias = Mapping[str, Any]
Told: TypeAlias = Use | Finding


@dataclass(slots=True)
class Survey:
    """What was found so far; ``missing`` is what could not be had, by reason."""

    interfaces: list[Interface] = field(default_factory=list)
    routes: list[dict[str, str]] = field(default_factory=list)
    rules: list[dict[str, str]] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    pools: list[Object] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    missing: dict[str, list[str]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def tell(self, told: Iterable[Told]) -> None:
        """Take uses, and what was wrong with others."""
        findings = []
        for each in told:
            if isinstance(each, Use):
                self.uses.append(each)
            else:
                findings.append(each)
        self.findings += first_of(findings, "such mistakes")

    def lack(self, what: str, error: SourceError) -> None:
        """Note that a part could not be had."""
        self.missing.setdefault(error.message, []).append(what)


def first_of(findings: list[Finding], what: str) -> list[Finding]:
    """Return the first findings, and how many more there are."""
    more = len(findings) - _MAX_FINDINGS
    rest = [Finding(Severity.WARN, "addresses", f"{more} more {what}")] if more > 0 else []
    return [*findings[:_MAX_FINDINGS], *rest]


def dig(value: object, *keys: str) -> Any:
    """Return what is in there under these keys; ``None`` where something on the way is missing or no mapping."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def listed(value: object) -> list[Any]:
    """Return a list as it is, and anything else as none."""
    return value if isinstance(value, list) else []


def word(value: object) -> str:
    """Return text or a number so that it can be shown; empty for anything else."""
    return printable(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def either(spec: object, several: str, one: str) -> list[Any]:
    """Return what is under the newer name for several, or under the older name for one."""
    return listed(dig(spec, several)) or [dig(spec, one)]


def name_of(each: Object) -> str:
    """Return ``namespace/name`` of an object, or ``name``."""
    parts = (word(dig(each, "metadata", key)) for key in ("namespace", "name"))
    return "/".join(filter(None, parts)) or "one without a name"


def uses_of(
    purpose: Purpose, at: Iterable[object], owner: str, note: str = "", ports: tuple[str, ...] = ()
) -> Iterator[Told]:
    """Yield a use of each range or address; what is not there at all is none."""
    for each in at:
        if each not in (None, ""):
            yield use_of(purpose, each, owner, note, ports)


def use_of(purpose: Purpose, at: object, owner: str, note: str = "", ports: tuple[str, ...] = ()) -> Told:
    """Return a use, or the finding that what it is about is no range."""
    try:
        if not isinstance(at, str):
            raise ValueError  # noqa: TRY301, TRY004 - one answer to whatever is no range
        return Use(purpose, str(Range.parse(at)), owner, note, ports)
    except ValueError:
        shown = f"{printable(at)[:60]!r} " if isinstance(at, str) else ""
        return Finding(Severity.WARN, owner, f"its {purpose} {shown}is no address and no range")
