"""Every source, typed, in restore order. A new one is a module and a row here."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields

from edgedr.sources.base import Source
from edgedr.sources.certificates import CertificatesSource
from edgedr.sources.etcd import EtcdSource
from edgedr.sources.files import FilesSource


@dataclass(frozen=True, slots=True)
class SourceTable:
    """``[sources.…]``: the fields of each source are its settings; ``disabled`` names those to leave out."""

    disabled: tuple[str, ...] = ()
    certificates: CertificatesSource = field(default_factory=CertificatesSource)
    files: FilesSource = field(default_factory=FilesSource)
    etcd: EtcdSource = field(default_factory=EtcdSource)

    def __iter__(self) -> Iterator[Source]:
        """Yield the enabled sources."""
        for row in fields(self):
            source = getattr(self, row.name)
            if row.name != "disabled" and row.name not in self.disabled:
                yield source


SOURCE_NAMES = tuple(row.name for row in fields(SourceTable) if row.name != "disabled")
