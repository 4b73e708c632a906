"""What is sealed in a backup: read where somebody may."""

from collections.abc import Sequence

from edgedr.inventory import Inventory
from edgedr.locations import PARENT, Locations
from edgedr.model import Manifest
from edgedr.repository.repository import Repository
from edgedr.sealing.identities import Identity, require_match


def read_inventory(
    repository: Repository, here: Locations | None, chain: Sequence[Manifest], identities: Sequence[Identity]
) -> Inventory | None:
    """Return the inventory of the last backup of a chain; ``None`` where neither its plaintext nor an identity is here.

    The node itself keeps the plaintext of its newest; any other is opened with an identity. Raises ``Damaged``,
    ``StorageError``, ``WrongKey``.
    """
    from edgedr.repository.contents import cached_inventory, sealed_inventory  # noqa: PLC0415 - `list` does without
    from edgedr.repository.parents import ParentCache  # noqa: PLC0415

    if here is not None:
        inventory = cached_inventory(ParentCache(here.state.path / PARENT), chain[-1])
        if inventory is not None:
            return inventory
    if not identities:
        return None
    require_match(identities, chain[-1].recipients, str(chain[-1].id))
    return sealed_inventory(repository, chain, identities)
