"""Backups in a storage: which there are, writing one so that it exists wholly or not at all, and checking them (L1)."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from edgedr import strictjson
from edgedr.errors import Damaged, ObjectExists, ObjectMissing, StorageError
from edgedr.model import Artifact, BackupId, Manifest, Segment
from edgedr.repository.names import (
    MANIFEST,
    RECIPE,
    SIGNATURE,
    Place,
    node_prefixes,
    place_of,
    segment_object,
    segment_sizes,
)
from edgedr.storage.base import Storage

if TYPE_CHECKING:  # a command that only lists has no use for signatures
    from edgedr.sealing.signatures import PublicKey, Signer

UNSIGNED = f"{SIGNATURE} is missing"
"""The damage that ``--allow-unsigned`` looks past."""

MAX_MANIFEST = 8 << 20  # bytes; 40,000 segments fit
MAX_SEGMENT = 1 << 30  # bytes; a reader needs about four times a segment's memory
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Listed:
    """A committed backup as the storage lists it: where it is, its objects with their sizes, and its manifest.

    ``manifest`` is ``None`` where it cannot be read; then, or where an object is missing or has another size than the
    manifest says, ``damage`` tells what and which.
    """

    place: Place
    objects: dict[str, int]
    manifest: Manifest | None
    damage: tuple[str, ...] = ()

    @property
    def id(self) -> BackupId:
        """Its id."""
        return self.place.id


class Repository:
    """The backups below one storage; of one node, where ``site`` and ``node`` are given."""

    def __init__(self, storage: Storage, *, site: str | None = None, node: str | None = None) -> None:
        self.storage = storage
        self._prefixes = node_prefixes(site, node) if site and node else ("",)

    def places(self) -> Iterator[tuple[Place, dict[str, int]]]:
        """Yield every place that holds objects of a backup, committed or not, with the sizes of its objects."""
        found: defaultdict[Place, dict[str, int]] = defaultdict(dict)
        for prefix in self._prefixes:
            for stored in self.storage.list(prefix):
                belongs = place_of(stored.name)
                if belongs is not None:
                    found[belongs[0]][belongs[1]] = stored.size
        yield from sorted(found.items(), key=lambda item: (item[0].site, item[0].node, item[0].id))

    def list(self) -> tuple[Listed, ...]:
        """Return the committed backups by site, node and sequence. No signature or hash is checked here.

        One whose manifest was lost since is among them, as damaged: what is left of it may be all that others need.
        """
        places = list(self.places())
        found = {place: self._look(place, sizes) for place, sizes in places if MANIFEST in sizes}
        lost = _lost(places, found)
        listed = [
            found[place] if place in found else Listed(place, sizes, None, (f"{MANIFEST} is missing",))
            for place, sizes in places
            if place in found or place in lost
        ]
        return tuple(listed)

    def _look(self, place: Place, sizes: dict[str, int]) -> Listed:
        try:
            manifest = self.manifest(place)
        except (Damaged, StorageError) as error:
            return Listed(place, sizes, None, (error.message,))
        damage = []
        if SIGNATURE not in sizes:
            damage.append(UNSIGNED)
        for artifact in manifest.artifacts:
            for segment in artifact.segments:
                size = sizes.get(segment.object)
                if size is None:
                    damage.append(f"{segment.object} is missing")
                elif size != segment.size:
                    damage.append(f"{segment.object} has {size} bytes instead of {segment.size}")
        return Listed(place, sizes, manifest, tuple(damage))

    def manifest(self, place: Place) -> Manifest:
        """Read one manifest. Raises ``Damaged`` if it is not one, or not this backup's, and ``ObjectMissing``."""
        return self._decode(place, self._read(place, MANIFEST, MAX_MANIFEST))

    def signed_manifest(self, place: Place) -> "tuple[Manifest, PublicKey]":
        """Read one manifest and check its signature; return whose that is. Raises ``Damaged``, ``ObjectMissing``."""
        from edgedr.sealing.signatures import MAX_SIGNATURE, verify  # noqa: PLC0415

        data = self._read(place, MANIFEST, MAX_MANIFEST)
        try:
            signature = self._read(place, SIGNATURE, MAX_SIGNATURE)
        except ObjectMissing as error:
            raise Damaged(
                f"{place.id} is not signed: {SIGNATURE} is missing",
                hint="take another backup; --allow-unsigned restores it all the same, on your own judgement",
            ) from error
        key = verify(data, signature, f"the manifest of {place.id}")
        return self._decode(place, data), key

    def open(self, place: Place, segment: Segment) -> BinaryIO:
        """Open a segment whose ciphertext has just been found to be what the manifest says (L1), at its beginning.

        Raises ``Damaged``, naming object and backup. Nothing is decrypted that was not signed for.
        """
        import hashlib  # noqa: PLC0415 - OpenSSL is not loaded for a list

        what = f"{segment.object} of {place.id}"
        try:
            file = self.storage.open(place.object(segment.object))
        except ObjectMissing as error:
            raise Damaged(f"segment {what} is missing") from error
        digest = hashlib.sha256()
        size = 0
        try:
            while block := file.read(_BLOCK):
                digest.update(block)
                size += len(block)
        except OSError as error:
            file.close()
            raise _unreadable(what, error) from error
        if (size, digest.hexdigest()) != (segment.size, segment.sha256):
            file.close()
            difference = f"it has {size} bytes instead of {segment.size}" if size != segment.size else "sha256 differs"
            raise Damaged(f"segment {what} is damaged: {difference} from the manifest")
        file.seek(0)
        return file

    def check(self, place: Place, manifest: Manifest) -> Iterator[str]:
        """Hash every segment of a backup (the L1 of its own objects), yielding what is wrong."""
        for artifact in manifest.artifacts:
            for segment in artifact.segments:
                try:
                    self.open(place, segment).close()
                except (Damaged, StorageError) as error:
                    yield error.message

    def commit(self, place: Place, manifest: Manifest, signer: "Signer") -> None:
        """Make a backup exist, once all its segments do."""
        data = strictjson.encode(manifest)
        self.write_recipe()
        with self.storage.create(place.object(SIGNATURE)) as out:
            out.write(signer.sign(data))
        with self.storage.create(place.object(MANIFEST)) as out:  # last: from this name on, and not before, it exists
            out.write(data)

    def write_recipe(self) -> None:
        """Put the recipe for recovery by hand beside the backups, once."""
        from importlib import resources  # noqa: PLC0415

        text = resources.files("edgedr").joinpath("data/RECOVER.txt").read_bytes()
        if any(stored.name == RECIPE for stored in self.storage.list(RECIPE)):
            return
        try:
            with self.storage.create(RECIPE) as out:
                out.write(text)
        except ObjectExists:
            return  # another node of the same repository was faster

    def sweep(self) -> tuple[BackupId, ...]:
        """Remove what killed runs left: unfinished writes, objects that no manifest commits. Only under the lock."""
        if self._prefixes == ("",):
            raise AssertionError("only a node sweeps, and only its own")
        for prefix in (*self._prefixes, RECIPE):
            self.storage.sweep(prefix)
        kept = {backup.place for backup in self.list()}
        swept = [place for place, _ in self.places() if place not in kept]
        for place in swept:
            self.discard(place)
        return tuple(place.id for place in swept)

    def discard(self, place: Place) -> None:
        """Take a backup away, its manifest first: what is interrupted here was never, or is no longer, a backup."""
        self.storage.delete(place.object(MANIFEST))
        for stored in list(self.storage.list(place.prefix)):
            self.storage.delete(stored.name)

    def _read(self, place: Place, name: str, limit: int) -> bytes:
        with self.storage.open(place.object(name)) as file:
            try:
                data = file.read(limit + 1)
            except OSError as error:
                raise _unreadable(f"{name} of {place.id}", error) from error
        if len(data) > limit:
            raise Damaged(f"{name} of {place.id} is damaged: longer than {limit} bytes")
        return data

    @staticmethod
    def _decode(place: Place, data: bytes) -> Manifest:
        what = f"the manifest of {place.id}"
        manifest = strictjson.decode(Manifest, data, what=what, max_bytes=MAX_MANIFEST)
        for problem in _inconsistencies(place, manifest):
            raise Damaged(f"{what} is damaged: {problem}", hint="it may be another backup's, put in this one's place")
        return manifest


def _unreadable(what: str, error: OSError) -> StorageError:
    return StorageError(
        f"{what} cannot be read: {error.strerror or error}", hint="look at the kernel log, and replace the disk"
    )


def _lost(places: Sequence[tuple[Place, dict[str, int]]], found: Mapping[Place, Listed]) -> frozenset[Place]:
    """Return the places that were committed once, though their manifest is gone.

    A later backup names it as its parent, or its signature is there and later backups are too: a killed run leaves
    only the newest, since the next one sweeps before it commits.
    """
    parents = {(p.site, p.node, b.manifest.parent) for p, b in found.items() if b.manifest and b.manifest.parent}
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


def _inconsistencies(place: Place, manifest: Manifest) -> Iterator[str]:
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
