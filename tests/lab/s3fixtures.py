"""What tests of buckets share: a real server behind a proxy, and backups that were shipped. Loaded by conftest."""

from collections.abc import Iterator

import pytest

from edgedr.storage.s3 import S3Storage
from tests.lab.s3proxy import S3Proxy
from tests.lab.s3road import Junction, Road, junction, options
from tests.lab.s3servers import Ceph
from tests.lab.shipped import Away, Shipped, away, ship_some


@pytest.fixture(scope="module")
def crossing(ceph: Ceph) -> Iterator[Junction]:
    with junction(ceph) as made:
        yield made


@pytest.fixture
def road(crossing: Junction) -> Iterator[Road]:
    with crossing.road() as made:
        yield made


@pytest.fixture(scope="module")
def shipped(ceph: Ceph, tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    return ship_some(ceph, tmp_path_factory.mktemp("node"))


@pytest.fixture(scope="module")
def plain_bucket(ceph: Ceph) -> S3Storage:
    return S3Storage(options(ceph, ceph.bucket()))


@pytest.fixture(scope="module")
def versioned_bucket(ceph: Ceph) -> S3Storage:
    return S3Storage(options(ceph, ceph.bucket(versioned=True)))


@pytest.fixture
def there(shipped: Shipped, plain_bucket: S3Storage, capsys: pytest.CaptureFixture[str]) -> Away:
    """A place that keeps one content of a name."""
    return away(shipped, plain_bucket, capsys)


@pytest.fixture
def keeping(shipped: Shipped, versioned_bucket: S3Storage, capsys: pytest.CaptureFixture[str]) -> Away:
    """A place that keeps versions."""
    return away(shipped, versioned_bucket, capsys)


@pytest.fixture(scope="module")
def proxy(ceph: Ceph) -> Iterator[S3Proxy]:
    with S3Proxy(ceph.endpoint, ceph.ca) as made:
        yield made
