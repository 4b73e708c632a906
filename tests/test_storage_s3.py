"""S3."""
import secrets
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import pytest

from edgedr.storage.base import Storage
from edgedr.storage.s3 import S3Storage
from edgedr.storage.s3_client import S3Client
from edgedr.storage.s3_options import S3Options, Style
from edgedr.credentials import Credential
from tests.lab.s3servers import S3Server
from tests.storage_contract import StorageContract


def options(server, bucket, directory):
    path = directory / "key"
    path.write_text(f"{server.access_key}:{server.secret_key}")
    return S3Options(bucket=bucket, endpoint=server.endpoint, style=Style.PATH, ca=server.ca, credential=Credential.parse(f"file:{path}"))


@pytest.fixture(scope="class")
def client(request, tmp_path_factory):
    server = request.getfixturevalue(request.cls.server)
    return S3Client(options(server, server.bucket(**request.cls.kept), tmp_path_factory.mktemp("key")))


class S3Contract(StorageContract):
    server: ClassVar[str]
    kept: ClassVar[dict[str, bool]] = {}

    @pytest.fixture
    def storage(self, client):
        storage = S3Storage(replace(client.options, prefix=f"edge-{secrets.token_hex(4)}"))
        storage.client = client
        return storage

class TestMoto(S3Contract): server="moto"
class TestMotoV(S3Contract): server="moto"; kept={"versioned":True}
class TestMotoL(S3Contract): server="moto"; kept={"locked":True}
class TestRclone(S3Contract): server="rclone"
class TestCeph(S3Contract): server="ceph"
class TestCephV(S3Contract): server="ceph"; kept={"versioned":True}
class TestCephL(S3Contract): server="ceph"; kept={"locked":True}
