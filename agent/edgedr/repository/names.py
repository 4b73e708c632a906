"""Where things are in a repository. The class comes first, so that three lifecycle rules serve every node."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from edgedr.model import NAME, BackupId, Class

VERSION = "v1"
MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.sig"
RECIPE = f"{VERSION}/RECOVER.txt"
SUFFIX = ".zst.age"
_DEPTH = 5  # v1, class, site, node, id


@dataclass(frozen=True, slots=True)
class Place:
    """Where one backup is, or would be."""

    kind: Class
    site: str
    node: str
    id: BackupId

    @property
    def prefix(self) -> str:
        """The name that all its objects are below."""
        return f"{VERSION}/{self.kind}/{self.site}/{self.node}/{self.id}"

    def object(self, name: str) -> str:
        """Return the full name of one of its objects."""
        return f"{self.prefix}/{name}"


def segment_object(artifact: str, number: int) -> str:
    """Return the name of a segment within its backup: ``etcd.db.000.zst.age``."""
    return f"{artifact}.{number:03d}{SUFFIX}"


def segment_sizes(size: int, segment_size: int) -> list[int]:
    """Return the plaintext sizes of the segments of an artifact; an empty artifact has one empty segment."""
    whole, rest = divmod(size, segment_size)
    return [segment_size] * whole + ([rest] if rest or not whole else [])


def node_prefixes(site: str, node: str | None) -> tuple[str, ...]:
    """Return the prefixes below which all backups of one node are, or of a site."""
    return tuple("/".join(filter(None, (VERSION, kind, site, node))) for kind in Class)


def repository_lock(top: Path, site: str, node: str) -> Path:
    """Return the file that whoever changes a node's backups in a directory holds a lock on. No object is called so."""
    return top / f".{site}.{node}.lock"


def place_of(name: str) -> tuple[Place, str] | None:
    """Return which backup an object belongs to, and its name within; ``None`` for anything that is not ours."""
    prefix, _, within = name.rpartition("/")
    place = _place(prefix)
    return None if place is None else (place, within)


@lru_cache(maxsize=64)
def _place(prefix: str) -> Place | None:
    """Objects come sorted, so that those of one backup ask one after another."""
    parts = prefix.split("/")
    if len(parts) != _DEPTH or parts[0] != VERSION or parts[1] not in set(Class):
        return None
    if not (NAME.fullmatch(parts[2]) and NAME.fullmatch(parts[3])):
        return None
    try:
        backup = BackupId.parse(parts[4])
    except ValueError:
        return None
    return Place(Class(parts[1]), parts[2], parts[3], backup)


def recipe() -> bytes:
    """Return the recipe for recovery by hand."""
    from importlib import resources  # noqa: PLC0415

    return resources.files("edgedr").joinpath("data/RECOVER.txt").read_bytes()
