"""One segment of an artifact: plaintext -> zstd -> age -> object, and back. Streaming; sizes in bytes.

A delta segment is what ``zstd --patch-from=PARENT`` writes: the parent's segment is the raw prefix, long-distance
matching is on, and the window covers both, so that the stock command line reads it back.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from edgedr.errors import Damaged, StorageError
from edgedr.sealing.identities import Identity, refusal
from edgedr.sealing.recipients import Recipient, age_recipient
from edgedr.storage.base import ByteSink

if TYPE_CHECKING:
    from edgedr.sealing.zstandard import zstd

FULL_LEVEL = 3  # measured on genuine snapshots: 18 % smaller than level 1 for 0.15 s more per 70 MB, once a day
DELTA_LEVEL = 1  # measured on genuine snapshots: as small as level 3, and twice as fast
_CHUNK = 1 << 20
_WINDOW_LOG_MIN = 10
_PREFIX_MIN = 8
_MAX_HEADER = 64 << 10
_MAX_STANZAS = 64
_FRAME_HEADER_MAX = 18
_AGE_VERSION = b"age-encryption.org/v1\n"


class Readable(Protocol):
    """Where plaintext comes from."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, at most ``size``; none at the end."""


class Prefix:
    """A parent's segment, ready to compress or decompress against. Holds a copy; the caller may let its bytes go.

    One of less than 8 bytes, which zstd refuses, is as good as none: what was compressed alone needs none to be read.
    """

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        from edgedr.sealing.zstandard import zstd  # noqa: PLC0415

        self.size = len(data)
        self.raw = zstd.ZstdDict(data, is_raw=True).as_prefix if len(data) >= _PREFIX_MIN else None


@dataclass(frozen=True, slots=True)
class Sealed:
    """What became of a segment: its size on the wire, and its SHA-256 in hex."""

    size: int
    sha256: str


def seal(
    plain: Readable, size: int, out: ByteSink, *, recipients: Sequence[Recipient], prefix: Prefix | None = None
) -> Sealed:
    """Read ``size`` bytes of ``plain``, compress (against ``prefix``, if any), encrypt, write to ``out``.

    Peak memory: the prefix's size, once more the segment's, and a few MiB. A ``plain`` that ends early is a bug of
    the caller: it was measured before.
    """
    import pyrage  # noqa: PLC0415

    pull = _Compressing(plain, size, _compressor(size, prefix))
    push = _Hashing(out)
    try:
        pyrage.encrypt_io(pull, push, [age_recipient(recipient) for recipient in recipients])
    except (pyrage.EncryptError, OSError):
        if pull.failure is not None:
            raise pull.failure from None  # what age reports is only that its reader failed
        if push.failure is not None:
            raise push.failure from None
        raise
    if push.failure is not None:  # age flushes its last block without looking whether that went well
        raise push.failure
    return Sealed(push.size, push.sha256.hexdigest())


def unseal(
    sealed: BinaryIO,
    size: int,
    out: ByteSink,
    *,
    identities: Sequence[Identity],
    what: str,
    prefix: Prefix | None = None,
) -> None:
    """Decrypt and decompress an object of exactly ``size`` plaintext bytes into ``out``.

    ``size`` comes from a signed manifest, and caps memory: a frame that claims more, a larger window, or anything
    after the frame is ``Damaged``. ``what`` names the object in errors. Raises ``WrongKey``, ``Damaged``, or
    ``StorageError`` where ``sealed`` cannot be read.
    """
    import pyrage  # noqa: PLC0415

    _check_header(sealed, what)
    pull = _Reading(sealed)
    push = _Decompressing(out, size, prefix, what)
    try:
        pyrage.decrypt_io(pull, push, [identity.key for identity in identities])
    except (pyrage.DecryptError, OSError) as error:  # an OSError, too, is age's word for what does not authenticate
        if pull.failure is not None:
            raise StorageError(f"cannot read {what}: {pull.failure.strerror}", hint="check the disk") from error
        if push.failure is not None:
            raise push.failure from None
        raise refusal(error, what) from error
    if push.failure is not None:  # as in ``seal``
        raise push.failure
    push.finish()


def _compressor(size: int, prefix: Prefix | None) -> "zstd.ZstdCompressor":
    from edgedr.sealing.zstandard import zstd  # noqa: PLC0415

    option = zstd.CompressionParameter
    options: dict[int, int] = {option.checksum_flag: 1, option.content_size_flag: 1}
    if prefix is None or prefix.raw is None:
        options[option.compression_level] = FULL_LEVEL
        compressor = zstd.ZstdCompressor(options=options)
    else:
        options[option.compression_level] = DELTA_LEVEL
        options[option.window_log] = _window_log(size + prefix.size)
        options[option.enable_long_distance_matching] = 1
        compressor = zstd.ZstdCompressor(options=options, zstd_dict=prefix.raw)
    compressor.set_pledged_input_size(size)
    return compressor


def _window_log(reach: int) -> int:
    return max((max(reach, 1) - 1).bit_length(), _WINDOW_LOG_MIN)


def _check_header(sealed: BinaryIO, what: str) -> None:
    """Look at the age header before age does: only so long, only so many stanzas, and no passphrase to grind on."""
    start = sealed.tell()
    header = sealed.read(_MAX_HEADER)
    sealed.seek(start)
    if not header.startswith(_AGE_VERSION):
        raise Damaged(f"{what} is damaged: it is not an age file")
    end = header.find(b"\n--- ")
    if end < 0:
        raise Damaged(f"{what} is damaged: its age header has no end")
    stanzas = [line for line in header[:end].split(b"\n") if line.startswith(b"-> ")]
    if len(stanzas) > _MAX_STANZAS:
        raise Damaged(f"{what} is damaged: its age header has {len(stanzas)} recipients")
    if any(stanza.startswith(b"-> scrypt ") for stanza in stanzas):
        raise Damaged(f"{what} is sealed with a passphrase, which edgedr never does: it is not ours")


class _Compressing:
    """A reader for age: compressed bytes, pulled from the plaintext as needed."""

    def __init__(self, plain: Readable, size: int, compressor: "zstd.ZstdCompressor") -> None:
        self._plain = plain
        self._left = size
        self._compressor = compressor
        self._ready = b""
        self._ended = False
        self.failure: BaseException | None = None

    def read(self, count: int = -1) -> bytes:
        try:
            while not self._ready and not self._ended:
                self._ready = self._more()
        except BaseException as error:
            self.failure = error
            raise
        give, self._ready = (self._ready, b"") if count < 0 else (self._ready[:count], self._ready[count:])
        return give

    def _more(self) -> bytes:
        chunk = self._plain.read(min(_CHUNK, self._left))
        self._left -= len(chunk)
        if self._left and not chunk:
            raise EOFError(f"plaintext ended {self._left} bytes early")
        if self._left:
            return self._compressor.compress(chunk)
        self._ended = True
        return self._compressor.compress(chunk, self._compressor.FLUSH_FRAME)


class _Reading:
    """A reader for age that remembers what went wrong below it."""

    def __init__(self, sealed: BinaryIO) -> None:
        self._sealed = sealed
        self.failure: OSError | None = None

    def read(self, count: int = -1) -> bytes:
        try:
            return self._sealed.read(count)
        except OSError as error:
            self.failure = error
            raise


class _Hashing:
    def __init__(self, out: ByteSink) -> None:
        self._out = out
        self.sha256 = hashlib.sha256()
        self.size = 0
        self.failure: BaseException | None = None

    def write(self, data: bytes) -> int:
        try:
            self._out.write(data)
        except BaseException as error:
            self.failure = self.failure or error
            raise
        self.sha256.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        pass


class _Decompressing:
    """A writer for age: decompresses what it is given, and takes no more than was signed for."""

    def __init__(self, out: ByteSink, size: int, prefix: Prefix | None, what: str) -> None:
        self._out = out
        self._left = size
        self._size = size
        self._what = what
        self._prefix = prefix
        self._head = b""
        self._decompressor: Any = None
        self.failure: BaseException | None = None

    def write(self, data: bytes) -> int:
        try:
            if self._decompressor is not None:
                self._take(data)
            else:
                self._head += data
                if len(self._head) >= _FRAME_HEADER_MAX:
                    self._start()
        except BaseException as error:
            self.failure = self.failure or error
            raise
        return len(data)

    def flush(self) -> None:
        pass

    def finish(self) -> None:
        """Refuse what ended early."""
        if self._decompressor is None and self._head:
            self._start()
        if self._decompressor is None or not self._decompressor.eof or self._left:
            raise Damaged(f"{self._what} is damaged: its zstd frame is not whole")

    def _start(self) -> None:
        from edgedr.sealing.zstandard import zstd  # noqa: PLC0415

        try:
            info = zstd.get_frame_info(self._head)
        except zstd.ZstdError as error:
            raise Damaged(f"{self._what} is damaged: {error}") from error
        if info.decompressed_size != self._size:
            says = "an unknown number of" if info.decompressed_size is None else str(info.decompressed_size)
            raise Damaged(f"{self._what} is damaged: it would unpack to {says} bytes, {self._size} are signed")
        reach = self._size + (self._prefix.size if self._prefix else 0)
        limit: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _window_log(reach)}
        raw = self._prefix.raw if self._prefix else None
        self._decompressor = zstd.ZstdDecompressor(zstd_dict=raw, options=limit)
        self._take(self._head)

    def _take(self, feed: bytes) -> None:
        from edgedr.sealing.zstandard import zstd  # noqa: PLC0415

        if self._decompressor.eof:
            raise Damaged(f"{self._what} is damaged: something follows its zstd frame")
        try:
            while True:
                plain = self._decompressor.decompress(feed, _CHUNK)
                feed = b""
                self._left -= len(plain)
                if self._left < 0:
                    raise Damaged(f"{self._what} is damaged: it unpacks to more than {self._size} bytes")
                self._out.write(plain)
                if self._decompressor.eof:
                    if self._decompressor.unused_data:
                        raise Damaged(f"{self._what} is damaged: something follows its zstd frame")
                    return
                if self._decompressor.needs_input:
                    return
        except zstd.ZstdError as error:
            raise Damaged(f"{self._what} is damaged: {error}") from error
