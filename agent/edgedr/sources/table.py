"""Every source, typed, in restore order. A new one is a module and a row here."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from enum import StrEnum

from edgedr.sources.addresses import AddressesSource
from edgedr.sources.base import Source
from edgedr.sources.certificates import CertificatesSource
from edgedr.sources.dns import DnsSource
from edgedr.sources.etcd import EtcdSource
from edgedr.sources.files import FilesSource
from edgedr.sources.machine import MachineSource
from edgedr.sources.objects import ObjectsSource
from edgedr.sources.serviceaccounts import ServiceAccountsSource
from edgedr.sources.sqlite import SqliteSource


class ClusterCapture(StrEnum):
    """Whether this node captures what belongs to the whole cluster."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class SourceTable:
    """``[sources.…]``: the fields of each source are its settings.

    ``disabled`` names those to leave out; ``cluster_capture`` says whether this node captures what all share.
    """

    disabled: tuple[str, ...] = ()
    cluster_capture: ClusterCapture = ClusterCapture.AUTO
    serviceaccounts: ServiceAccountsSource = field(default_factory=ServiceAccountsSource)
    certificates: CertificatesSource = field(default_factory=CertificatesSource)
    files: FilesSource = field(default_factory=FilesSource)
    dns: DnsSource = field(default_factory=DnsSource)
    addresses: AddressesSource = field(default_factory=AddressesSource)
    machine: MachineSource = field(default_factory=MachineSource)
    etcd: EtcdSource = field(default_factory=EtcdSource)
    sqlite: SqliteSource = field(default_factory=SqliteSource)
    objects: ObjectsSource = field(default_factory=ObjectsSource)

    def __iter__(self) -> Iterator[Source]:
        """Yield the enabled sources."""
        for name in SOURCE_NAMES:
            if name not in self.disabled:
                yield getattr(self, name)


SOURCE_NAMES = tuple(row.name for row in fields(SourceTable) if row.name not in {"disabled", "cluster_capture"})
