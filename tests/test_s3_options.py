"""Where a bucket is, and the key to it: every form of both, and no bad one that says its secret."""

import json
import random
import time

import pytest

from edgedr.credentials import Credential, Secret
from edgedr.errors import ConfigurationError, ObjectMissing, Refused, Unreachable
from edgedr.storage.pacing import Patience
from edgedr.storage.s3_client import S3Client, read_key
from edgedr.storage.s3_options import S3Options, parse_url, why_no_endpoint
from edgedr.storage.s3_trouble import BadCredential, Throttled

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYCANARY"
KEY = {"aws_access_key_id": "AKIAPLANT7", "aws_secret_access_key": SECRET}
WITH_TOKEN = {**KEY, "aws_session_token": "IQoJb3JpZ2luX2VjTOKEN"}
TOOK_TURNS = "env:EDGEDR_LAB_KEY"
NO_WAIT = Patience(attempts=3, longest=0.0)


# -- where it is


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://bucket", ("bucket", "")),
        ("s3://bucket/", ("bucket", "")),
        ("s3://b3.plant-7.example/edge", ("b3.plant-7.example", "edge")),
        ("s3://bucket/edge/eu_west/v1.2//", ("bucket", "edge/eu_west/v1.2")),
        ("s3://" + "a" * 63, ("a" * 63, "")),
    ],
)
def test_a_url_is_a_bucket_and_a_prefix(url: str, expected: tuple[str, str]) -> None:
    """Slashes at the end are nothing; people get to see the URL as they wrote it."""
    assert parse_url(url) == expected
    assert S3Options(*expected).url == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "", "s3://", "s3:///edge", "bucket/edge", "S3://bucket", "s3:/bucket", "https://bucket/edge", "s3://Bucket",
        "s3://ab", "s3://" + "a" * 64, "s3://-bucket", "s3://bucket.", "s3://buck_et", "s3://bücket", "s3://bucket\n",
        "s3://bucket:9000", f"s3://AKIAPLANT7:{SECRET}@bucket/edge",
    ],
)  # fmt: skip
def test_what_is_no_bucket(url: str) -> None:
    """Anything else is refused with what a bucket's name is, and not shown: a key may stand in it."""
    assert "it is not a URL of a bucket" in _refused(url)


@pytest.mark.parametrize(
    "prefix",
    ["/edge", "a//b", ".", "..", "../edge", "a/../b", ".hidden", "a/.b", "a b", "a?b", "ü", "a\n", f"edge@{SECRET}"],
)
def test_what_is_no_prefix(prefix: str) -> None:
    """Every part of a prefix is one that each server and a directory take as it is."""
    assert "its prefix cannot be used" in _refused(f"s3://bucket/{prefix}")


def _refused(url: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_url(url)
    assert "s3://bucket" in str(caught.value.hint)
    assert "CANARY" not in f"{caught.value.message} {caught.value.hint}"
    return caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "https://s3.example.net", "https://s3.example.net/", "https://s3.example.net:9000", "HTTPS://S3.EXAMPLE.NET",
        "https://10.0.0.7:9000", "https://[fd00::7]:9000", "http://127.0.0.1:9000", "http://localhost:9000",
        "http://[::1]:9000",
    ],
)  # fmt: skip
def test_an_endpoint_that_may_be_used(text: str) -> None:
    """TLS to anywhere, and plain HTTP as far as the machine itself."""
    assert why_no_endpoint(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "http://s3.example.net", "http://10.0.0.7:9000", "http://localhost.example.net", "http://127.0.0.1.example.net",
        "http://0.0.0.0:9000", "http://[fd00::7]:9000",
    ],
)  # fmt: skip
def test_tls_is_never_left_out(text: str) -> None:
    """Only the loopback is near enough to do without; a name that begins like it is not."""
    assert why_no_endpoint(text) == "it is not https; `ca` names a private authority"


@pytest.mark.parametrize(
    "text",
    [
        "", "s3.example.net", "s3.example.net:9000", "//s3.example.net", "ftp://s3.example.net", "https://",
        "https://:9000", "https://h:0", "https://h:65536", "https://h:x", "https://[::1", "https://h/bucket",
        f"https://h?key={SECRET}", f"https://h#{SECRET}", f"https://h/{SECRET}", f"https://h:{SECRET}",
    ],
)  # fmt: skip
def test_what_is_no_endpoint(text: str) -> None:
    """An endpoint is a scheme, a host and perhaps a port; what else stands in it is refused, and not shown."""
    assert why_no_endpoint(text) == "it is not a URL like https://s3.example.net:9000"


@pytest.mark.parametrize("scheme", ["https", "http", "socks5"])
def test_a_password_in_an_endpoint_is_not_echoed(scheme: str) -> None:
    """Who asks stands in the credential."""
    assert why_no_endpoint(f"{scheme}://AKIAPLANT7:{SECRET}@127.0.0.1") == "a user or a password is in it"


# -- the key


INI = f"aws_access_key_id = AKIAPLANT7\naws_secret_access_key = {SECRET}\n"
GOOD = {
    "a profile": (f"[default]\n{INI}", KEY),
    "lines": (INI, KEY),
    "lines of Windows": (INI.replace("\n", "\r\n"), KEY),
    "no spaces": (INI.replace(" ", ""), KEY),
    "quotes": (f'aws_access_key_id = "AKIAPLANT7"\naws_secret_access_key = "{SECRET}"', KEY),
    "capitals": (INI.replace("aws_", "AWS_"), KEY),
    "comments": (f"# of plant-7\n[default]\nregion = eu\n{INI}", KEY),
    "short names": (f"access_key = AKIAPLANT7\nsecret_key = {SECRET}", KEY),
    "another profile": (f"[edge]\n{INI}", KEY),
    "the default among others": (f"[old]\n{INI.replace('PLANT', 'OLD')}[default]\n{INI}", KEY),
    "a token": (f"{INI}aws_session_token = IQoJb3JpZ2luX2VjTOKEN", WITH_TOKEN),
    "JSON": (json.dumps({"AccessKeyId": "AKIAPLANT7", "SecretAccessKey": SECRET}), KEY),
    "JSON as in the file": (json.dumps(KEY, indent=1), KEY),
    "JSON of STS": (
        json.dumps({"AccessKeyId": "AKIAPLANT7", "SecretAccessKey": SECRET, "SessionToken": "IQoJb3JpZ2luX2VjTOKEN"}),
        WITH_TOKEN,
    ),
    "JSON with more": (json.dumps({**KEY, "Version": 1, "Expiration": None}), KEY),
    "with a colon": (f"AKIAPLANT7:{SECRET}", KEY),
    "in two lines": (f"AKIAPLANT7\n{SECRET}\n", KEY),
    "in one line": (f"  AKIAPLANT7 {SECRET}", KEY),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_key_in_every_form(name: str) -> None:
    """Whatever a server's console hands out can be kept as it is."""
    text, expected = GOOD[name]
    assert read_key(Secret(text.encode()), "file:/key") == expected


@pytest.mark.parametrize("secret", ["abc+def=", "a=b", "===", "a:b:c", "a%(b)s", "#;'\"", "{}", "[a]"])
@pytest.mark.parametrize("form", ["AKIA:{}", "AKIA\n{}", "aws_access_key_id=AKIA\naws_secret_access_key={}"])
def test_a_secret_may_hold_any_sign(form: str, secret: str) -> None:
    """What separates or quotes elsewhere is a part of the secret here."""
    found = read_key(Secret(form.format(secret).encode()), "file:/key")
    assert found["aws_access_key_id"] == "AKIA"
    assert found["aws_secret_access_key"] == (secret.strip('"') if "=AKIA" in form else secret)


BAD = {
    "nothing": "",
    "one word": SECRET,
    "three words": f"AKIAPLANT7 {SECRET} {SECRET}",
    "no id": f":{SECRET}",
    "no secret": "AKIAPLANT7:",
    "the id alone": "aws_access_key_id = AKIAPLANT7",
    "the secret alone": f"aws_secret_access_key = {SECRET}",
    "an empty secret": "aws_access_key_id = AKIAPLANT7\naws_secret_access_key =",
    "a misspelt name": f"aws_acess_key_id = AKIAPLANT7\naws_secret_access_key = {SECRET}",
    "misspelt names": f"aws_acess_key_id=AKIAPLANT7\naws_secret_acess_key={SECRET}",
    "a profile without": f"[default]\ntoken={SECRET}",
    "a name twice": f"{INI}{INI}",
    "JSON without": json.dumps({"AccessKeyId": "AKIAPLANT7", "Secret": SECRET}),
    "JSON of other types": json.dumps({"AccessKeyId": 7, "SecretAccessKey": [SECRET]}),
    "JSON that is a list": json.dumps(["AKIAPLANT7", SECRET, 7]),
    "JSON that is deep": "[" * 100_000,
    "half of JSON": json.dumps({"AccessKeyId": "AKIAPLANT7", "SecretAccessKey": SECRET, "x": 1})[:-1],
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_key(name: str) -> None:
    """The error names where the key should stand and how it is written; it never shows what stands there."""
    with pytest.raises(ConfigurationError) as caught:
        read_key(Secret(BAD[name].encode()), "file:/etc/edgedr/s3.key")
    assert caught.value.message == "file:/etc/edgedr/s3.key holds no access key of S3"
    assert "aws_access_key_id" in str(caught.value.hint)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_bytes_that_are_no_text_are_no_key() -> None:
    """A file of another kind is refused like any other."""
    with pytest.raises(ConfigurationError, match="holds no access key"):
        read_key(Secret(b"\xff\xfe\x00"), "file:/key")


# -- trying again


class Attempts:
    """Attempts that end as told, one after another, the last one for ever; each with the key that it was made with."""

    def __init__(self, client: S3Client, *ends: Exception | str) -> None:
        self.client = client
        self.ends = list(ends)
        self.numbers: list[int] = []
        self.keys: list[str | None] = []

    def __call__(self, number: int) -> str:
        signer = self.client._connected()._request_signer
        self.numbers.append(number)
        self.keys.append(signer._credentials and signer._credentials.access_key)
        end = self.ends.pop(0) if len(self.ends) > 1 else self.ends[0]
        if isinstance(end, str):
            return end
        raise end


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> S3Client:
    monkeypatch.setenv("EDGEDR_LAB_KEY", "first:1")
    return S3Client(S3Options("bucket", credential=Credential.parse(TOOK_TURNS)), NO_WAIT)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was slept, without sleeping, with the least spread."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(random, "random", lambda: 0.0)
    return slept


BAD_KEY = BadCredential("cannot put object: InvalidAccessKeyId")


def test_a_bad_key_is_read_again(client: S3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another key stands by now it is used at once: nobody has to start anything again."""
    attempts = Attempts(client, BAD_KEY, "done")

    def attempt(number: int) -> str:
        monkeypatch.setenv("EDGEDR_LAB_KEY", "second:2") if number == 1 else None
        return attempts(number)

    client._connected()
    assert client.persist(attempt) == "done"
    assert attempts.keys == ["first", "second"]


def test_the_same_bad_key_is_not_tried_twice(client: S3Client) -> None:
    """A server is not hammered with a key that it does not know."""
    attempts = Attempts(client, BAD_KEY)
    with pytest.raises(BadCredential):
        client.persist(attempts)
    assert attempts.numbers == [1]


def test_each_new_key_is_tried_once(client: S3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second bad key is no better than the first one."""
    attempts = Attempts(client, BAD_KEY)
    client._connected()
    monkeypatch.setenv("EDGEDR_LAB_KEY", "second:2")
    with pytest.raises(BadCredential):
        client.persist(attempts)
    assert attempts.keys == ["first", "second"]


def test_another_thread_may_have_read_the_new_key_first(client: S3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer to the old key that comes after the new one was read is no reason to give the new one up."""
    client._connected()
    other = Attempts(client, BAD_KEY, "done")
    late = Attempts(client, "done")

    def attempt(number: int) -> str:
        if number == 1:  # while this one is under way with the old key
            monkeypatch.setenv("EDGEDR_LAB_KEY", "second:2")
            assert client.persist(other) == "done"
            raise BAD_KEY
        return late(number)

    assert client.persist(attempt) == "done"
    assert (other.keys, late.keys) == (["first", "second"], ["second"])


def test_a_key_that_is_gone_is_named(client: S3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing stands any more, the reference is what somebody has to mend."""
    client._connected()
    monkeypatch.delenv("EDGEDR_LAB_KEY")
    with pytest.raises(ConfigurationError, match="env:EDGEDR_LAB_KEY is not set"):
        client.persist(Attempts(client, BAD_KEY))


def test_what_boto3_finds_is_not_read_again() -> None:
    """Without a reference there is nothing to read again."""
    attempts = Attempts(S3Client(S3Options("bucket"), NO_WAIT), BAD_KEY)
    with pytest.raises(BadCredential):
        attempts.client.persist(attempts)
    assert attempts.numbers == [1]


def test_patience_has_an_end(client: S3Client) -> None:
    """What cannot be reached is tried as often as patience allows, and told its number."""
    attempts = Attempts(client, Unreachable("cannot put object: timed out"))
    with pytest.raises(Unreachable, match="timed out"):
        client.persist(attempts)
    assert attempts.numbers == [1, 2, 3]
    assert client.persist(Attempts(client, Unreachable("x"), Unreachable("x"), "done")) == "done"


@pytest.mark.parametrize("error", [Refused("no"), ObjectMissing("gone")])
def test_a_plain_no_is_not_asked_again(client: S3Client, error: Exception) -> None:
    """What only a person can mend, or is simply so, is said at once."""
    attempts = Attempts(client, error)
    with pytest.raises(type(error)):
        client.persist(attempts)
    assert attempts.numbers == [1]


def test_a_server_that_asks_for_time_gets_it(waits: list[float]) -> None:
    """Retry-After is waited for, up to what patience allows; without it the wait grows."""
    client = S3Client(S3Options("bucket"), Patience(attempts=6, longest=20.0))
    ends = [Throttled("busy", after=after) for after in (7.0, 3600.0, None)]
    assert client.persist(Attempts(client, *ends, Unreachable("x"), "done")) == "done"
    assert waits == [7.0, 20.0, 2.0, 4.0]
