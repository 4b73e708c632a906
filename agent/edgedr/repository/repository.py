"""Backups in a storage: which there are, writing one so that it exists wholly or not at all, and checking them (L1)."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, TypeVar

from edgedr import strictjson
from edgedr.errors import Damaged, ObjectExists, ObjectMissing, Refused, StorageError, Unreachable
from edgedr.model import BackupId, Manifest, Segment
from edgedr.repository.alternatives import contents, first_good, proven, small
from edgedr.repository.consistency import inconsistencies, lost_places
from edgedr.repository.names import (
    MANIFEST,
    RECIPE,
    SIGNATURE,
    Place,
    node_prefixes,
    place_of,
    recipe,
)
from edgedr.storage.base import Storage

if TYPE_CHECKING:  # a command that only lists has no use for signatures
    from edgedr.sealing.signatures import PublicKey, Signer

    Believed: TypeAlias = Callable[[Manifest, PublicKey], bool]

S = TypeVar("S")
T = TypeVar("T")

UNSIGNED = f"{SIGNATURE} is missing"
"""The damage that ``--allow-unsigned`` looks past."""

MAX_MANIFEST = 8 << 20  # bytes; 40,000 segments fit
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

    @property
    def size(self) -> int:
        """Bytes of all its objects."""
        return sum(self.objects.values())


@dataclass(frozen=True, slots=True)
class Signed:
    """A manifest, whose signature over it holds, and the bytes of both."""

    manifest: Manifest
    key: "PublicKey"
    data: bytes
    signature: bytes


class _Remembering:
    """An iterator that can be begun again, without asking twice for what it gave."""

    def __init__(self, source: Iterator[bytes]) -> None:
        self._source = source
        self._given: list[bytes] = []

    def __iter__(self) -> Iterator[bytes]:
        yield from list(self._given)
        for each in self._source:
            self._given.append(each)
            yield each


class Repository:
    """The backups below one storage; of one node, where ``site`` and ``node`` are given."""

    def __init__(self, storage: Storage, *, site: str | None = None, node: str | None = None) -> None:
        self.storage = storage
        self.site, self.node = site, node
        self._prefixes = node_prefixes(site, node) if site else ("",)
        self.strays: set[str] = set()
        """Objects of which what came first was not what is signed for, but something else of their name was."""

    def places(self) -> Iterator[tuple[Place, dict[str, int]]]:
        """Yield every place that holds objects of a backup, committed or not, with the sizes of its objects."""
        found: defaultdict[Place, dict[str, int]] = defaultdict(dict)
        for prefix in self._prefixes:
            for stored in self.storage.list(prefix):
                belongs = place_of(stored.name)
                if belongs is not None:
                    found[belongs[0]][belongs[1]] = stored.size
        yield from sorted(found.items(), key=lambda item: (item[0].site, item[0].node, item[0].id))

    def _stands_behind(self, place: Place, segment: Segment) -> bool:
        """Say whether what was signed for stands behind what is listed, in a place that keeps older contents."""
        try:
            self.open(place, segment).close()
        except Damaged:
            return False
        return True

    def list(self, some: Callable[[Sequence[Place]], Collection[Place]] | None = None) -> tuple[Listed, ...]:
        """Return the committed backups by site, node and sequence. No signature or hash is checked here.

        One whose manifest was lost since is among them, as damaged: what is left of it may be all that others need.
        ``some`` may choose among the places by their names alone: then only those are read, and returned.
        """
        places = list(self.places())
        if some is not None:
            wanted = some([place for place, objects in places if MANIFEST in objects])
            places = [one for one in places if one[0] in wanted]
        committed = [(place, sizes) for place, sizes in places if MANIFEST in sizes]
        looked = self._each(lambda one: self._look(*one), committed)
        found = {backup.place: backup for backup in looked}
        lost = lost_places(places, {place: backup.manifest for place, backup in found.items()})
        listed = [
            found[place] if place in found else Listed(place, sizes, None, (f"{MANIFEST} is missing",))
            for place, sizes in places
            if place in found or place in lost
        ]
        return tuple(listed)

    def _look(self, place: Place, sizes: dict[str, int]) -> Listed:
        try:
            manifest = self.manifest(place)
        except (Unreachable, Refused):
            raise  # nothing was seen of it: unknown is not damaged
        except (Damaged, StorageError) as error:
            return Listed(place, sizes, None, (error.message,))
        return self.as_signed(Listed(place, sizes, None), manifest)

    def as_signed(self, listed: Listed, manifest: Manifest) -> Listed:
        """Return what is listed with this manifest of it, and with what damage that means."""
        damage = [UNSIGNED] if SIGNATURE not in listed.objects else []
        for artifact in manifest.artifacts:
            for segment in artifact.segments:
                size = listed.objects.get(segment.object)
                if size is None:
                    damage.append(f"{segment.object} is missing")
                elif size != segment.size and not self._stands_behind(listed.place, segment):
                    damage.append(f"{segment.object} has {size} bytes instead of {segment.size}")
        return replace(listed, manifest=manifest, damage=tuple(damage))

    def manifest(self, place: Place) -> Manifest:
        """Read one manifest. Raises ``Damaged`` if it is not one, or not this backup's, and ``ObjectMissing``."""
        name = place.object(MANIFEST)
        return first_good(
            self.storage,
            self.strays,
            name,
            MAX_MANIFEST,
            lambda file: self._decode(place, small(file, name, MAX_MANIFEST)),
        )

    def signed_manifest(self, place: Place, believed: "Believed | None" = None) -> "tuple[Manifest, PublicKey]":
        """Read one manifest and check its signature; return whose that is. Raises what ``signed`` does."""
        signed = self.signed(place, believed)
        return signed.manifest, signed.key

    def signed(self, place: Place, believed: "Believed | None" = None) -> "Signed":
        """Read one manifest with its signature. Raises ``Damaged``, ``ObjectMissing``.

        Where the place keeps several contents of it, the first whose signer is ``believed`` is taken; where none is,
        the first whose signature holds.
        """
        name = place.object(MANIFEST)
        signatures = _Remembering(self._signatures(place))
        doubtful: list[Signed] = []

        def read(file: BinaryIO) -> Signed:
            signed = self._with_signature(place, small(file, name, MAX_MANIFEST), signatures)
            if believed is not None and not believed(signed.manifest, signed.key):
                doubtful.append(signed)
                raise Damaged(f"the manifest of {place.id} is signed by somebody unknown")
            return signed

        try:
            return first_good(self.storage, self.strays, name, MAX_MANIFEST, read)
        except Damaged:
            if doubtful:
                return doubtful[0]
            raise

    def _signatures(self, place: Place) -> Iterator[bytes]:
        """Yield all signatures that stand where a backup's belongs."""
        from edgedr.sealing.signatures import MAX_SIGNATURE  # noqa: PLC0415

        name = place.object(SIGNATURE)
        try:
            for file in contents(self.storage, name, MAX_SIGNATURE):
                if file is not None:
                    with file, suppress(Damaged):
                        yield small(file, name, MAX_SIGNATURE)
        except ObjectMissing as error:
            raise Damaged(
                f"{place.id} is not signed: {SIGNATURE} is missing",
                hint="take another backup; --allow-unsigned restores it all the same, on your own judgement",
            ) from error

    def _with_signature(self, place: Place, data: bytes, signatures: Iterable[bytes]) -> "Signed":
        from edgedr.sealing.signatures import verify  # noqa: PLC0415

        first: Damaged | None = None
        for signature in signatures:
            try:
                key = verify(data, signature, f"the manifest of {place.id}")
                signed = Signed(self._decode(place, data), key, data, signature)
            except Damaged as error:
                first = first or error
                continue
            if first is not None:
                self.strays.add(place.object(SIGNATURE))
            return signed
        raise first or Damaged(f"{SIGNATURE} of {place.id} is damaged: it is longer than any signature")

    def open(self, place: Place, segment: Segment) -> BinaryIO:
        """Open a segment whose ciphertext has just been found to be what the manifest says (L1), at its beginning.

        Raises ``Damaged``, naming object and backup. Nothing is decrypted that was not signed for.
        """
        what = f"{segment.object} of {place.id}"
        try:
            name = place.object(segment.object)
            return first_good(self.storage, self.strays, name, segment.size, lambda file: proven(file, segment, what))
        except ObjectMissing as error:
            raise Damaged(f"segment {what} is missing") from error

    def check(self, place: Place, manifest: Manifest) -> tuple[str, ...]:
        """Hash every segment of a backup (the L1 of its own objects), and return what is wrong."""
        return self.check_all([(place, manifest)])[place]

    def check_all(
        self, backups: Sequence[tuple[Place, Manifest]], progress: Callable[[int], None] = lambda _: None
    ) -> dict[Place, tuple[str, ...]]:
        """Hash every segment of several backups; return what is wrong with each. ``progress`` gets bytes as read."""
        segments = [(p, segment) for p, manifest in backups for a in manifest.artifacts for segment in a.segments]

        def look(one: tuple[Place, Segment]) -> str | None:
            problem = self._problem(*one)
            progress(one[1].size)
            return problem

        found: dict[Place, list[str]] = {place: [] for place, _ in backups}
        for (place, _), problem in zip(segments, self._each(look, segments), strict=True):
            if problem is not None:
                found[place].append(problem)
        return {place: tuple(problems) for place, problems in found.items()}

    def _problem(self, place: Place, segment: Segment) -> str | None:
        try:
            self.open(place, segment).close()
        except (Unreachable, Refused):
            raise
        except (Damaged, StorageError) as error:
            return error.message
        return None

    def _each(self, act: Callable[[S], T], items: Sequence[S]) -> tuple[T, ...]:
        """Do ``act`` to each of ``items``, as many at once as is worth while here."""
        if self.storage.at_once == 1 or len(items) < 2:  # noqa: PLR2004
            return tuple(act(item) for item in items)
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

        with ThreadPoolExecutor(self.storage.at_once) as pool:
            try:
                return tuple(pool.map(act, items))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

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
        if any(stored.name == RECIPE for stored in self.storage.list(RECIPE)):
            return
        try:
            with self.storage.create(RECIPE) as out:
                out.write(recipe())
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

    @staticmethod
    def _decode(place: Place, data: bytes) -> Manifest:
        what = f"the manifest of {place.id}"
        manifest = strictjson.decode(Manifest, data, what=what, max_bytes=MAX_MANIFEST)
        for problem in inconsistencies(place, manifest):
            raise Damaged(f"{what} is damaged: {problem}", hint="it may be another backup's, put in this one's place")
        return manifest
