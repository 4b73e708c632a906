"""Every way in which edgedr can fail: one class per exit code, raised with its hint by whoever knows it.

A message names what failed and where, in lower case and without a full stop; the hint is the next act.
They are printed once, by ``cli.main``.
"""


class EdgedrError(Exception):
    """Base of all expected failures. A bare one would be a bug, hence exit code 1."""

    exit_code = 1
    summary = "bug"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigurationError(EdgedrError):
    """The configuration, or the command line, cannot be meant like this."""

    exit_code = 2
    summary = "configuration"


class IncompleteBackup(EdgedrError):
    """A backup was committed, but an optional source is missing from it."""

    exit_code = 3
    summary = "stored, but an optional source is missing"


class SourceError(EdgedrError):
    """A source could not be captured."""

    exit_code = 4
    summary = "source"


class StorageError(EdgedrError):
    """A place that holds bytes refused, or is full, unreadable or out of reach."""

    exit_code = 5
    summary = "storage"


class Unreachable(StorageError):
    """A place does not answer, or says that it cannot for now: it may later, without anybody's doing."""


class Refused(StorageError):
    """A place answered no: the credential, the bucket or the clock is wrong, and stays so until somebody mends it."""


class ObjectExists(StorageError):
    """An object of that name is there already; object names are never reused."""


class TooLong(StorageError):
    """An object is longer than what belongs there, so that nothing of it was fetched."""


class ObjectMissing(StorageError):
    """There is no object of that name."""


class WrongKey(EdgedrError):
    """An identity is missing, unusable, or not one that the backup was sealed for."""

    exit_code = 6
    summary = "wrong key"


class Damaged(EdgedrError):
    """Bytes are not what the signed manifest says, or the signature does not hold.

    ``backup`` is the id of the one that is damaged, where that is known.
    """

    exit_code = 7
    summary = "damaged"

    def __init__(self, message: str, *, hint: str | None = None, backup: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.backup = backup


class NoSuchBackup(EdgedrError):
    """No backup fits what was asked for, or more than one does."""

    exit_code = 8
    summary = "no such backup"


class RestoreStopped(EdgedrError):
    """A restore stopped before it would have made something worse."""

    exit_code = 9
    summary = "restore stopped"


class DrillFailed(EdgedrError):
    """A drill did not bring the control plane back."""

    exit_code = 10
    summary = "drill failed"


class AlreadyRunning(EdgedrError):
    """Another edgedr works on the same state directory."""

    exit_code = 11
    summary = "already running"


EXIT_CODES: tuple[tuple[int, str], ...] = (
    (0, "ok"),
    *(
        (kind.exit_code, kind.summary)
        for kind in (
            EdgedrError,
            ConfigurationError,
            IncompleteBackup,
            SourceError,
            StorageError,
            WrongKey,
            Damaged,
            NoSuchBackup,
            RestoreStopped,
            DrillFailed,
            AlreadyRunning,
        )
    ),
)
