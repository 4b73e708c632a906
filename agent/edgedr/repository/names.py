"""Where things are in a repository. The class comes first, so that three lifecycle rules serve every node."""

from dataclasses import dataclass

from edgedr.model import NAME, BackupId, Class
from edgedr.sealing.segments import SUFFIX

VERSION = "v1"
MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.sig"
RECIPE = f"{VERSION}/RECOVER.txt"
_DEPTH = 6  # v1, class, site, node, id, object


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


def node_prefixes(site: str, node: str) -> tuple[str, ...]:
    """Return the prefixes below which everything of one node is."""
    return tuple(f"{VERSION}/{kind}/{site}/{node}" for kind in Class)


def place_of(name: str) -> tuple[Place, str] | None:
    """Return which backup an object belongs to, and its name within; ``None`` for anything that is not ours."""
    parts = name.split("/")
    if len(parts) != _DEPTH or parts[0] != VERSION or parts[1] not in set(Class):
        return None
    if not (NAME.fullmatch(parts[2]) and NAME.fullmatch(parts[3])):
        return None
    try:
        backup = BackupId.parse(parts[4])
    except ValueError:
        return None
    return Place(Class(parts[1]), parts[2], parts[3], backup), parts[5]
