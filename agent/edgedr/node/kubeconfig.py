"""Kubeconfig files: how to reach an API server, and as whom: by certificate or token, as control-plane nodes do."""

import base64
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from edgedr.errors import SourceError
from edgedr.node.contents import Contents
from edgedr.yaml_text import load_yaml

_KIND = re.compile(r"^kind: *[\"']?Config\b", re.MULTILINE)
_TOKEN = re.compile(r"[\x21-\x7e]+")  # what may stand in a header; a token that may not is never shown
_FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
_SHOWN = re.compile(r"(?=.{1,200}\Z)(?:/[A-Za-z0-9_.@:-]+){2,}", re.ASCII)  # surely a path, no base64
_OTHER = "set [kubernetes] kubeconfig to one with a certificate or a token"


@dataclass(frozen=True, slots=True)
class KubeAccess:
    """An API server's URL, the authority that signed its certificate (PEM), and our certificate and key, or token."""

    server: str
    ca: bytes | None
    cert: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.token is not None and not _TOKEN.fullmatch(self.token):
            raise ValueError("a token with signs in it that no header may hold")


def read_kubeconfig(files: Contents, path: str, *, server: str | None = None) -> KubeAccess:
    """Return what the current context of a kubeconfig says; ``server`` takes the place of its URL.

    Raises ``SourceError`` for one that is absent or cannot be read, that does not verify the server, or whose user has
    neither a certificate nor a token of its own.
    """
    text = files.text(path)
    if text is None:
        raise SourceError(f"there is no readable kubeconfig {path}", hint="set [kubernetes] kubeconfig")
    try:
        cluster, user = _current(load_yaml(text))
        _refuse_unfit(path, cluster, user)
        return KubeAccess(
            server=_url(path, server or cluster["server"]),
            ca=_inline_or_file(files, path, cluster, "certificate-authority"),
            cert=_inline_or_file(files, path, user, "client-certificate"),
            key=_inline_or_file(files, path, user, "client-key"),
            token=_token(files, path, user),
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise SourceError(f"{path} is not a kubeconfig that can be used", hint="set [kubernetes] kubeconfig") from error


def is_kubeconfig(text: str) -> bool:
    """Tell whether a text looks like a kubeconfig, without parsing it."""
    return _KIND.search(text) is not None


@dataclass(frozen=True, slots=True)
class Reference:
    """A file that a kubeconfig names: in which field, where that is on the node, and whether it stood there like this.

    What is no absolute path may be a key or a token in the wrong field: it is not for messages.
    """

    field: str
    path: str
    is_absolute: bool

    @property
    def shown(self) -> str:
        """What messages call it."""
        return self.path if self.is_absolute and _SHOWN.fullmatch(self.path) else f"a file for {self.field}"


def references(text: str, path: str) -> list[Reference]:
    """Return the files that a kubeconfig names; none if it cannot be read."""
    try:
        return list(_referenced(load_yaml(text), path))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []


def referenced_files(text: str, path: str) -> list[str]:
    """Return the files that a kubeconfig names, as absolute paths; none if it cannot be read."""
    return [reference.path for reference in references(text, path)]


def _referenced(config: Any, path: str) -> Iterator[Reference]:
    parts = [item.get("cluster") or {} for item in config.get("clusters") or ()]
    parts += [item.get("user") or {} for item in config.get("users") or ()]
    for part in parts:
        for key in _FILES:
            if part.get(key) and not part.get(f"{key}-data"):
                yield _reference(path, key, part[key])


def _reference(path: str, key: str, value: Any) -> Reference:
    named = str(value)
    return Reference(key, os.path.normpath(_beside(path, named)), named.startswith("/"))


def _current(config: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    def named(list_name: str, name: str, part: str) -> dict[str, Any]:
        found: dict[str, Any] = next(item[part] for item in config[list_name] if item["name"] == name) or {}
        return found

    try:
        context = named("contexts", config["current-context"], "context")
        return named("clusters", context["cluster"], "cluster"), named("users", context["user"], "user")
    except StopIteration as error:
        raise ValueError("its current context names what it does not have") from error


def _refuse_unfit(path: str, cluster: dict[str, Any], user: dict[str, Any]) -> None:
    if cluster.get("insecure-skip-tls-verify"):
        raise SourceError(f"{path} does not verify the API server", hint="give it certificate-authority-data")
    if "exec" in user or "auth-provider" in user:
        raise SourceError(f"{path} needs a helper program to log in", hint=_OTHER)
    has = {key.removesuffix("-data") for key, value in user.items() if value}
    if not {"client-certificate", "client-key"} <= has and not {"token", "tokenFile"} & has:
        raise SourceError(f"{path} has neither a certificate with its key nor a token", hint=_OTHER)


def _url(path: str, text: str) -> str:
    url = urlsplit(text)
    if url.scheme != "https" or not url.hostname or url.username or url.password or url.query or url.fragment:
        where = f"the server of {path} is not a URL like https://127.0.0.1:6443"
        raise SourceError(where, hint="edgedr speaks to an API server over TLS only")
    return text.rstrip("/")


def _token(files: Contents, path: str, user: dict[str, Any]) -> str | None:
    if user.get("token"):
        return str(user["token"])
    content = _file(files, path, user.get("tokenFile"), "tokenFile")
    return None if content is None else content.decode().strip()


def _inline_or_file(files: Contents, path: str, part: dict[str, Any], key: str) -> bytes | None:
    inline = part.get(f"{key}-data")
    return base64.b64decode(inline, validate=True) if inline else _file(files, path, part.get(key), key)


def _file(files: Contents, path: str, name: str | None, key: str) -> bytes | None:
    if not name:
        return None
    content = files.contents(_beside(path, name))
    if content is None:
        text = f"{path} names {_reference(path, key, name).shown}, which is not there"
        raise SourceError(text, hint="set [kubernetes] kubeconfig to another")
    return content


def _beside(path: str, name: str) -> PurePosixPath:
    return PurePosixPath(path).parent / str(name)
