"""Whether a manifest can be what stands where it stands, as far as it says itself, and which ones are gone. Pure."""

from collections.abc import Iterator, Mapping, Sequence

from edgedr.model import Artifact, Manifest
from edgedr.repository.names import SIGNATURE, Place, segment_object, segment_sizes

MAX_SEGMENT = 1 << 30  # bytes; a reader needs about four times a segment's memory


def inconsistencies(place: Place, manifest: Manifest) -> Iterator[str]:
    """Yield what of a manifest contradicts its place, or itself."""
    stands = (place.id, place.site, place.node, place.kind)
    says = (manifest.id, manifest.site, manifest.node, manifest.kind)
    if stands != says:
        yield f"it is that of {manifest.id} of {manifest.site}/{manifest.node}, {manifest.kind}"
    if manifest.id.sequence != manifest.sequence:
        yield f"sequence {manifest.sequence} does not fit its id"
    if not 1 <= manifest.segment_size <= MAX_SEGMENT or manifest.segment_size & (manifest.segment_size - 1):
        yield f"segment size {manifest.segment_size} is no power of two up to 1 GiB"
    names = [artifact.name for artifact in manifest.artifacts]
    if len(set(names)) != len(names) or not names:
        yield "its artifacts are not distinct"
    if len({artifact.parent for artifact in manifest.artifacts if artifact.parent is not None}) > 1:
        yield "its artifacts have different parents"
    for artifact in manifest.artifacts:
        yield from _artifact_inconsistencies(manifest, artifact)


def _artifact_inconsistencies(manifest: Manifest, artifact: Artifact) -> Iterator[str]:
    if (artifact.parent is None) != (artifact.kind == "full"):
        yield f"{artifact.name} is {artifact.kind} and its parent is {artifact.parent}"
    if artifact.parent is not None and not artifact.parent < manifest.id:
        yield f"{artifact.name} has a parent that is not older"
    if artifact.unchanged:
        if artifact.parent is None:
            yield f"{artifact.name} stands alone, and has no segments"
        return
    if artifact.size // manifest.segment_size != len(artifact.segments) - bool(
        artifact.size % manifest.segment_size or not artifact.size
    ):
        yield f"{artifact.name} of {artifact.size} bytes has {len(artifact.segments)} segments"
        return
    sizes = segment_sizes(artifact.size, manifest.segment_size)
    for number, (segment, size) in enumerate(zip(artifact.segments, sizes, strict=True)):
        if segment.object != segment_object(artifact.name, number) or "/" in segment.object:
            yield f"segment {number} of {artifact.name} is called {segment.object[:80]!r}"
        if segment.plain_size != size:
            yield f"{segment.object[:80]} has {segment.plain_size} bytes, {size} fit"


def lost_places(
    places: Sequence[tuple[Place, dict[str, int]]], found: Mapping[Place, Manifest | None]
) -> frozenset[Place]:
    """Return the places that were committed once, though their manifest is gone.

    A later backup names it as its parent, or its signature is there and later backups are too: a killed run leaves
    only the newest, since the next one sweeps before it commits.
    """
    parents = {(p.site, p.node, manifest.parent) for p, manifest in found.items() if manifest and manifest.parent}
    newest: dict[tuple[str, str], int] = {}
    for place in found:
        newest[place.site, place.node] = max(newest.get((place.site, place.node), 0), place.id.sequence)
    return frozenset(
        place
        for place, sizes in places
        if place not in found
        and (
            (place.site, place.node, place.id) in parents
            or (SIGNATURE in sizes and place.id.sequence < newest.get((place.site, place.node), 0))
        )
    )
