"""Replicas as they are set: what cannot be meant is said at once, and a disk that is not mounted is no replica."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from edgedr.errors import ConfigurationError, StorageError, Unreachable
from edgedr.replicas import ReplicaSettings, open_replica
from edgedr.sealing.identities import make_identity
from edgedr.settings import parse
from edgedr.storage.directory import DirectoryStorage
from edgedr.storage.s3_options import S3Options, Style
from tests.storage_contract import names, put
from tests.test_settings import CANARY, problems, text_of

RECIPIENT = make_identity().recipient
BUCKET = 'url = "s3://bucket/edge"'
DISK = 'url = "/mnt/usb"'
FOR_BUCKETS = ("endpoint", "region", "ca", "proxy", "credential", "sse", "kms_key", "storage_class")


def replicas(*each: str, more: str = "") -> str:
    """Return a configuration with these replicas; each is given a name unless it has one."""
    named = (
        lines if "name =" in lines else f'name = "r{number}"\n{lines}'
        for number, lines in enumerate(each, 1)
    )  # fmt: skip
    return text_of(RECIPIENT) + "".join(f"[[replicas]]\n{lines}\n" for lines in named) + more


def read(*each: str, more: str = "") -> tuple[ReplicaSettings, ...]:
    return parse(replicas(*each, more=more).encode(), "edgedr.toml").replicas


def test_a_bucket_and_a_disk() -> None:
    """A name and a URL are enough; the rest has defaults that ship everything to where it says."""
    bucket, disk = read(BUCKET, DISK)
    assert bucket == ReplicaSettings("r1", "s3://bucket/edge")
    assert (bucket.is_bucket, disk.is_bucket) == (True, False)
    assert bucket.options == S3Options("bucket", "edge")
    assert (bucket.bandwidth, bucket.daily_budget, bucket.catch_up) == (None, None, timedelta(hours=24))


def test_a_bucket_with_all_that_can_be_set() -> None:
    """Every setting gets to the object that does the work, with its unit."""
    (replica,) = read(
        'name = "far.1"\nurl = "s3://bucket/"\nendpoint = "https://s3.plant-7.example:9000"\nregion = "eu"\n'
        'style = "path"\nca = "/etc/ca.pem"\nproxy = "http://proxy:3128"\ncredential = "file:/etc/edgedr/s3.key"\n'
        'sse = "aws:kms"\nkms_key = "alias/edge"\nstorage_class = "STANDARD_IA"\ntimeout = "90 s"\n'
        'bandwidth = "64 KiB"\ndaily_budget = "1 GB"\nat_once = 4\ncatch_up = "2 d"\n'
        'full_lifetime = "90 d"\ndelta_lifetime = "30 d"\n'
    )
    options = replica.options
    assert str(options.credential) == "file:/etc/edgedr/s3.key"
    assert (options.bucket, options.prefix, options.style, options.ca) == (
        "bucket",
        "",
        Style.PATH,
        Path("/etc/ca.pem"),
    )
    assert (options.endpoint, options.proxy) == ("https://s3.plant-7.example:9000", "http://proxy:3128")
    assert (options.region, options.sse, options.kms_key) == ("eu", "aws:kms", "alias/edge")
    assert (options.storage_class, options.timeout) == ("STANDARD_IA", timedelta(seconds=90))
    assert (replica.bandwidth, replica.daily_budget, replica.at_once) == (64 << 10, 10**9, 4)
    assert (replica.full_lifetime, replica.delta_lifetime) == (timedelta(days=90), timedelta(days=30))


def test_the_machines_own_role_is_no_reference() -> None:
    """``instance-role`` leaves the key to boto3."""
    (replica,) = read(f'{BUCKET}\ncredential = "instance-role"')
    assert replica.options.credential is None


def test_every_contradiction_at_once() -> None:
    """Of every replica all that cannot be meant, each with its number and its setting."""
    said = problems(
        replicas(
            'name = "Far"\nurl = "s3://Bucket"\nendpoint = "http://s3.example.net"\nproxy = "proxy:3128"\n'
            'credential = "AKIA:secret"\nca = "ca.pem"\nsse = "yes"\nkms_key = "k"\nat_once = 0\n'
            'bandwidth = "1023 B"\ndaily_budget = "1 B"\nfull_lifetime = "30 d"\ndelta_lifetime = "30 d"',
            'name = "usb"\nurl = "usb"\nendpoint = "https://h"\nregion = "eu"\nca = "/ca"\nproxy = "https://h"\n'
            'credential = "env:X"\nsse = "AES256"\nkms_key = "k"\nstorage_class = "STANDARD"\nat_once = 17',
            f'name = "usb"\n{DISK}\ndelta_lifetime = "30 d"',
            'name = "up"\nurl = "/mnt/../usb"',
        )
    )
    expected = [
        "#1 name: 'Far' is not a name: lower case letters, digits, dots and hyphens",
        "#1 url: it is not a URL of a bucket (write it like s3://bucket/prefix; ",
        "#1 endpoint: it is not https; `ca` names a private authority",
        "#1 proxy: it is not a URL like https://s3.example.net:9000",
        "#1 credential: it is not a reference to a secret (write file:/path, env:NAME or credential:NAME, ",
        "#1 ca: it is not an absolute path",
        "#1 sse: it is none of AES256, aws:kms",
        '#1 kms_key: it is used with sse = "aws:kms" only',
        "#1 at_once: 0 is not between 1 and 16",
        "#1 bandwidth: it is less than 1 KiB: nothing would ever arrive",
        "#1 daily_budget: it is less than 1 KiB: nothing would ever arrive",
        "#1 full_lifetime: deltas would outlive the full that they need: make it 33 d or more",
        "#2 url: it is neither a bucket like s3://bucket/prefix nor the absolute path of a directory",
        *(f"#2 {field}: it is for buckets; this replica is a directory" for field in FOR_BUCKETS),
        "#2 at_once: 17 is not between 1 and 16",
        "#3 name: usb is there twice",
        "#3 full_lifetime: it is missing: the two belong together",
        "#4 url: it is neither a bucket like s3://bucket/prefix nor the absolute path of a directory",
    ]
    assert [line for line in expected if not any(one.startswith(f"replicas {line}") for one in said)] == []
    assert len(said) == len(expected)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (f'{BUCKET}\ncolour = "red"', "colour: unknown; known are at_once, bandwidth, ca, "),
        (f'{BUCKET}\nbandwith = "1 MiB"', "bandwith: unknown; did you mean bandwidth?"),
        (f"{BUCKET}\nencrypt = false", "encrypt: unknown; encryption has no off switch"),
        ('name = "r1"', "url: it is missing"),
        (f"{BUCKET}\nbandwidth = 5", "bandwidth: 5 is not a size: "),
        (f'{BUCKET}\ncatch_up = "soon"', "catch_up: 'soon' is not a duration: "),
        (f'{BUCKET}\ndaily_budget = "1 MB"\ncatch_up = "6 h"', "catch_up: it is less than a day"),
        (f'{BUCKET}\nregion = "eu central"', "region: it is not the name of a region"),
        (f'{BUCKET}\ntimeout = "0 s"', "timeout: '0 s' is not a duration: "),
        (f'{BUCKET}\nstyle = "ptah"', "style: 'ptah' is none of auto, path, virtual"),
        (f'{BUCKET}\nsame_disk = "yes"', "same_disk: 'yes' is not true or false"),
        (f"{BUCKET}\ncredential = 5", "credential: it is not a reference in quotes"),
        (f'{BUCKET}\ncredential = "file:key"', "credential: what follows file: is not an absolute path ("),
        (f'{BUCKET}\ncredential = ""', "credential: it is not a reference to a secret ("),
        (f'{BUCKET}\nkms_key = "k"\nsse = "AES256"', 'kms_key: it is used with sse = "aws:kms" only'),
        (f'{BUCKET}\nproxy = "https://u:p@proxy:3128"', "proxy: a user or a password is in it"),
        ('url = "s3://bucket/a//b"', "url: its prefix cannot be used (parts of a prefix are "),
        ('name = ""\nurl = "/mnt/usb"', "name: '' is not a name: "),
    ],
)
def test_each_mistake_is_named(lines: str, expected: str) -> None:
    """Its replica, its setting, and what was probably meant."""
    (said,) = problems(replicas(lines))
    assert said.startswith(f"replicas #1 {expected}")


@pytest.mark.parametrize(
    "text",
    [
        f"AKIA:{CANARY}",
        CANARY,
        f"s3://{CANARY}@bucket",
        f"https://AKIA:{CANARY}@h",
        f"https://h#{CANARY}",
        f"/{CANARY}/..",
    ],
)
@pytest.mark.parametrize("field", ["name", "url", *FOR_BUCKETS, "style", "bandwidth", "catch_up", "at_once", CANARY])
def test_no_secret_is_echoed(field: str, text: str) -> None:
    """Wherever somebody pastes a key, what is said of it does not show it."""
    said = []
    for url in ("s3://bucket", "/mnt/usb"):
        fields = {"name": "r1", "url": url, field: text}
        try:
            read("\n".join(f'{name} = "{value}"' for name, value in fields.items()))
        except ConfigurationError as error:
            said.append(f"{error.message} {error.hint}")
    assert said
    assert "CANARY" not in "".join(said).upper()


@pytest.mark.parametrize(
    ("full", "delta", "every", "least"),
    [
        ("33 d", "30 d", "24 h", None), ("32 d", "30 d", "24 h", 33), ("38 d", "30 d", "7 d", 39),
        ("39 d", "30 d", "7 d", None), ("3 d", "1 h", "1 h", None), ("2 d", "1 h", "1 h", 3),
        ("793 h", "30 d", "25 h", None), ("792 h", "30 d", "25 h", 34),
    ],
)  # fmt: skip
def test_a_full_outlives_what_needs_it(full: str, delta: str, every: str, least: int | None) -> None:
    """A bucket's rules never remove a full before the last delta upon it, a delta being made until the next full."""
    lines = f'{BUCKET}\nfull_lifetime = "{full}"\ndelta_lifetime = "{delta}"'
    more = f'[chain]\nfull_every = "{every}"\n'
    if least is None:
        read(lines, more=more)
        return
    (said,) = problems(replicas(lines, more=more))
    assert said.endswith(f"full_lifetime: deltas would outlive the full that they need: make it {least} d or more")
    read(lines.replace(f'"{full}"', f'"{least} d"'), more=more)  # what it says is right


@pytest.mark.parametrize("field", ["full_lifetime", "delta_lifetime"])
def test_lifetimes_belong_together(field: str) -> None:
    """One without the other tells nothing: an expiring full would be built upon as if it stayed."""
    other = "delta_lifetime" if field == "full_lifetime" else "full_lifetime"
    assert problems(replicas(f'{BUCKET}\n{field} = "90 d"')) == [
        f"replicas #1 {other}: it is missing: the two belong together"
    ]


# -- opening a directory


def opened(path: Path, repository: Path, *, same_disk: bool = False) -> DirectoryStorage:
    storage = open_replica(ReplicaSettings("usb", str(path), same_disk=same_disk), repository=repository, keep_free=0)
    assert isinstance(storage, DirectoryStorage)
    return storage


@pytest.mark.parametrize("place", ["nothing", "a file", "a name too long"])
def test_a_disk_that_is_not_there_is_unreachable(tmp_path: Path, place: str) -> None:
    """It may be plugged in later; nothing is made in its place."""
    at = tmp_path / ("usb" if place != "a name too long" else "u" * 300)
    if place == "a file":
        at.touch()
    before = list(tmp_path.iterdir())
    with pytest.raises(Unreachable, match="is not there") as caught:
        opened(at, tmp_path / "repository", same_disk=True)
    assert "mount it" in str(caught.value.hint)
    assert list(tmp_path.iterdir()) == before


@pytest.mark.parametrize("made", [False, True])
def test_a_disk_that_is_not_mounted_is_unreachable(tmp_path: Path, made: bool) -> None:
    """The empty directory that is left on the repository's own disk gets nothing, repository or none there yet."""
    (tmp_path / "usb").mkdir()
    repository = tmp_path / "var/lib/edgedr/repository"
    if made:
        repository.mkdir(parents=True)
    with pytest.raises(Unreachable, match="is on the same disk as the repository") as caught:
        opened(tmp_path / "usb", repository)
    assert "same_disk = true" in str(caught.value.hint)
    assert list((tmp_path / "usb").iterdir()) == []


def test_the_same_disk_may_be_meant(tmp_path: Path) -> None:
    """Whoever says so gets a copy beside the repository."""
    (tmp_path / "usb").mkdir()
    storage = opened(tmp_path / "usb", tmp_path / "repository", same_disk=True)
    put(storage, "v1/a")
    assert names(storage) == ["v1/a"]
    assert (tmp_path / "usb/v1/a").exists()


def test_another_disk(tmp_path: Path, scratch: Path) -> None:
    """A directory of another file system is taken as it is."""
    if scratch.stat().st_dev == tmp_path.stat().st_dev:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("there is one file system here: /dev/shm is missing")
    assert opened(scratch, tmp_path / "repository").describe() == str(scratch)


def test_a_replica_leaves_room_for_others(tmp_path: Path) -> None:
    """The floor of free space holds there too."""
    replica = ReplicaSettings("usb", str(tmp_path), same_disk=True)
    with pytest.raises(StorageError, match="kept free"):
        put(open_replica(replica, repository=tmp_path, keep_free=1 << 60), "v1/a")


def test_a_bucket_is_not_asked_yet() -> None:
    """Opening it needs neither a link nor a key."""
    replica = ReplicaSettings(
        "far", "s3://bucket/edge", endpoint="https://127.0.0.1:1", credential="env:EDGEDR_NOT_SET"
    )
    assert open_replica(replica, repository=Path("/nowhere"), keep_free=0).describe() == "s3://bucket/edge"
