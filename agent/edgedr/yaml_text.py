"""YAML of a node, read by the fast parser: its recursion is bounded by the stack alone, and so by us beforehand.

Only the first document of a text counts, as for the kubelet. What a parser says of a text is not passed on, for it may
quote a secret.
"""

from typing import Any

_MAX_DEPTH = 200
_SHALLOW = 5000
"""A text that cannot be nested more deeply than this, whatever it means, is parsed without a look beforehand."""


def load_yaml(text: str) -> Any:
    """Parse the first document of a text; ``ValueError`` if it is none, or nested too deeply."""
    import yaml  # noqa: PLC0415 - only a capture pays for it

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        if _at_most(text) > _SHALLOW:
            _refuse_depth(yaml.parse(text, Loader=loader))
        return next(yaml.load_all(text, Loader=loader), None)
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, TypeError, AttributeError):
        raise ValueError("not YAML") from None  # constructors raise more than YAMLError: `!!bool x` a KeyError


def _at_most(text: str) -> int:
    """Return a bound of how deeply a text can be nested: brackets, and what begins a block in one line."""
    brackets = text.count("[") + text.count("{")
    blocks = max(len(line) - len(line.lstrip(" ")) + line.count("- ") + line.count("? ") for line in text.split("\n"))
    return brackets + blocks


def _refuse_depth(events: Any) -> None:
    depth = 0
    for event in events:
        name = type(event).__name__
        if name in {"MappingStartEvent", "SequenceStartEvent"}:
            depth += 1
            if depth > _MAX_DEPTH:
                raise ValueError("nested too deeply")
        elif name in {"MappingEndEvent", "SequenceEndEvent"}:
            depth -= 1
