"""`edgedr doctor` against real servers: what it finds, how it ends, what it leaves behind."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgedr.repository.names import node_prefixes
from edgedr.storage.base import Stored
from tests.lab.careless import careless
from tests.lab.etcd import free_port
from tests.lab.operator import Operator, Said
from tests.lab.policies import NODE, PREFIX, SITE, Tenant, filled, tenant
from tests.lab.s3servers import Ceph, Moto, Rclone, S3Server


@pytest.fixture(scope="module")
def set_up(tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """A node that is set up, without replicas."""
    operator = Operator(tmp_path_factory.mktemp("node"))
    operator.init()
    return operator


class Patient:
    """Runs the command for one bucket and one key, and looks that no secret is ever said."""

    def __init__(self, operator: Operator, capsys: pytest.CaptureFixture[str]) -> None:
        self._operator = operator
        self._plain = operator.config.read_text()
        self._said = Said(operator, capsys)
        self._secrets: set[str] = set()

    def given(self, **settings: str | bool) -> "Patient":
        """Set the one replica."""
        lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
        self._operator.config.write_text(f'{self._plain}\n[[replicas]]\nname = "offsite"\n{lines}')
        return self

    def bucket(self, server: S3Server, bucket: str, keys: tuple[str, str] | None = None, **more: str) -> "Patient":
        """Set a bucket, with a key: the administrator's unless another is given."""
        access, secret = keys or (server.access_key, server.secret_key)
        self._secrets.add(secret)
        kept = self._operator.directory / "credential"
        kept.touch(mode=0o600)
        kept.write_text(f"aws_access_key_id = {access}\naws_secret_access_key = {secret}\n")
        return self.given(
            url=f"s3://{bucket}/{PREFIX}",
            endpoint=server.endpoint,
            ca=str(server.ca),
            style="path",
            credential=f"file:{kept}",
            **more,
        )

    def __call__(self, *words: str, code: int = 0) -> str:
        text = self._said("doctor", "--replica", "offsite", *words, code=code)
        assert not any(secret in text for secret in self._secrets)
        assert max(map(len, text.partition("error:")[0].splitlines()), default=0) <= 80
        return " ".join(text.split())

    def facts(self, *words: str, code: int = 0) -> Any:
        """Return what was seen, by name; of each answer the answer itself."""
        text = self._said("doctor", "--replica", "offsite", "--json", *words, code=code)
        facts = json.loads(text.partition("\nerror: ")[0])["parts"][0]["facts"]
        return {name: told["answer"] if isinstance(told, dict) else told for name, told in facts.items()}

    def close(self) -> None:
        self._operator.config.write_text(self._plain)


@pytest.fixture
def doctor(set_up: Operator, capsys: pytest.CaptureFixture[str]) -> Iterator[Patient]:
    """The command, for a bucket to be told."""
    patient = Patient(set_up, capsys)
    yield patient
    patient.close()


@pytest.fixture(scope="module")
def there(ceph: Ceph) -> Tenant:
    """A bucket with Object Lock, the shipped policies and rules."""
    made = tenant(ceph)
    rules = filled("lifecycle.json", made.bucket)
    made.by("owner").put_bucket_lifecycle_configuration(Bucket=made.bucket, LifecycleConfiguration=rules)
    return made


def left(ceph: Ceph, bucket: str) -> list[Stored]:
    """Return every version that is in a bucket."""
    listed = ceph.client().list_object_versions(Bucket=bucket)
    return [Stored(each["Key"], each["Size"]) for each in listed.get("Versions", ())]


def test_a_node_with_the_shipped_policy_is_well(doctor: Patient, ceph: Ceph, there: Tenant) -> None:
    """It ends with 0, and says what a thief could and could not do; what cannot be known is said to be so."""
    doctor.bucket(ceph, there.bucket, there.keys["node"], full_lifetime="90 d", delta_lifetime="30 d")
    before = len(left(ceph, there.bucket))
    text = doctor()
    for said in (
        "ok signatures: a wrong secret is refused, and so is none",
        "ok read: get and list are refused, as they should be",
        "ok delete: refused, of versions too, as it should be",
        "ok other nodes: nothing can be put below their names",
        "ok settings: it may not set the bucket's versioning",
        "ok lifetimes: full 90 d, delta 30 d, as set; the rules cannot be read",
        "ok left there: 5 probes, 1.05 MB, could not be deleted: lifecycle rules take care of that",
        "warn overwrite: If-None-Match is ignored: a second object of a name hides the first, which stays as an older",
        "warn object lock: whether a lock really holds cannot be known with this credential",
        "a thief with this node offsite could not read any backup: get is refused could not delete anything",
        "could overwrite: readers take what the manifest signs for, the older version stays",
        "could not write in another node's name",
        "that is out of scope, no bucket can prevent it",
    ):
        assert said in text
    assert "BAD" not in text
    probes = left(ceph, there.bucket)
    assert len(probes) == before + 5
    own = tuple(f"{PREFIX}/{prefix}/doctor-" for prefix in node_prefixes(SITE, NODE))
    assert all(each.name.startswith(own) for each in probes)


def test_an_administrators_key_on_a_node_is_found(doctor: Patient, ceph: Ceph, there: Tenant) -> None:
    """It ends with 2: such a key reads, deletes and changes; what was put to find that out is gone again."""
    before = set(left(ceph, there.bucket))
    text = doctor.bucket(ceph, there.bucket)(code=2)
    for said in (
        "BAD read: it may get objects, what is said of them, older versions",
        "BAD delete: it may delete for good, older versions too",
        "BAD settings: it may set the bucket's versioning",
        "could delete every backup there for good",
        "could switch versioning off",
        "error: offsite: read: it may get objects, what is said of them, older versions (and 2 more)",
        "hint: deny s3:Get*: a node never reads there: config/policies/README.md",
    ):
        assert said in text
    (kept,) = set(left(ceph, there.bucket)) - before
    assert kept.name.endswith("/retained")


def test_a_pruner_and_a_monitor_as_shipped_are_well(doctor: Patient, ceph: Ceph, there: Tenant) -> None:
    """Each may what it must; both read the bucket's rules, and find them as the configuration says."""
    lifetimes = {"full_lifetime": "90 d", "delta_lifetime": "30 d"}
    text = doctor.bucket(ceph, there.bucket, there.keys["pruner"], **lifetimes)("--as", "pruner")
    assert "ok delete: allowed, behind a mark, older versions stay" in text
    assert "ok lifetimes: full 90 d, delta 30 d, as set" in text
    assert "could hide backups, but not destroy them: versions stay could not put anything there" in text
    monitor = doctor.bucket(ceph, there.bucket, there.keys["monitor"], **lifetimes)
    text = monitor("--as", "monitor")
    assert "ok put: refused, as it should be" in text
    assert "ok delete: refused, of versions too, as it should be" in text
    assert "a thief with this monitor's credential offsite could read backups there" in text


def test_a_monitor_gets_whatever_there_is(doctor: Patient, ceph: Ceph) -> None:
    """In an empty bucket nobody knows whether it may get; an object of any node is enough to tell."""
    there = tenant(ceph)
    monitor = doctor.bucket(ceph, there.bucket, there.keys["monitor"])
    assert "warn read: whether it may get could not be told (there is nothing to get)" in monitor("--as", "monitor")
    there.by("node").put_object(Bucket=there.bucket, Key=f"{PREFIX}/v1/RECOVER.txt", Body=b"read me")
    assert "ok read: list and get are allowed" in monitor("--as", "monitor")


def test_a_key_for_another_role_is_found(doctor: Patient, ceph: Ceph, there: Tenant) -> None:
    """A monitor's key on a node stores nothing: 5, like every bucket that refuses; a node's key does not monitor: 2."""
    text = doctor.bucket(ceph, there.bucket, there.keys["monitor"])(code=5)
    assert f"error: cannot put into s3://{there.bucket}/{PREFIX}: AccessDenied" in text
    assert "BAD put: nothing can be stored (AccessDenied)" in text
    text = doctor.bucket(ceph, there.bucket, there.keys["node"])("--as", "monitor", code=2)
    assert "BAD put: a monitor may put" in text
    assert "BAD read: a monitor must get and list, and may not" in text


def test_a_lock_is_tried_and_holds(doctor: Patient, ceph: Ceph) -> None:
    """With a default retention an administrator's key finds nothing to mend: not even it could delete."""
    bucket = ceph.bucket(locked=True)
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    locked = {"ObjectLockEnabled": "Enabled", "Rule": rule}
    ceph.client().put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=locked)
    text = doctor.bucket(ceph, bucket)("--as", "admin")
    assert (
        "ok object lock: a version under COMPLIANCE could be neither deleted nor shortened; what is put is locked: "
        "COMPLIANCE 1 day" in text
    )
    assert "could delete every backup there for good, but what Object Lock retains" in text
    assert len(left(ceph, bucket)) == 8


def test_a_bucket_without_versions_is_bad(doctor: Patient, ceph: Ceph) -> None:
    """The shipped policy cannot help there: what is overwritten is gone, and `doctor` fails."""
    there = tenant(ceph, locked=False)
    text = doctor.bucket(ceph, there.bucket, there.keys["node"])(code=2)
    assert "BAD overwrite: what is put in place of an object destroys it: what is put gets no version" in text
    assert "could destroy every backup whose name it knows, by overwriting it" in text
    facts = doctor.bucket(ceph, there.bucket).facts("--as", "admin", code=2)
    assert facts["conditional"] == "yes"
    assert facts["versions"] == "no"
    assert facts["left_objects"] == 0


def test_an_open_bucket_is_found(doctor: Patient, ceph: Ceph) -> None:
    """A policy for everybody is bad, whatever the node's own key may do."""
    there = tenant(ceph)
    at = f"arn:aws:s3:::{there.bucket}"
    everybody = {"Effect": "Allow", "Principal": "*", "Action": ["s3:ListBucket"], "Resource": [at, f"{at}/*"]}
    there.put_policy(everybody)
    node = doctor.bucket(ceph, there.bucket, there.keys["node"])
    assert "BAD signatures: anybody may list here, without any key" in node(code=2)
    there.put_policy({**everybody, "Action": ["s3:ListBucket", "s3:GetObject", "s3:PutObject"]})
    assert "BAD signatures: anybody may put and list and get here, without any key" in node(code=2)


def test_names_without_a_slash_after_them_are_found(doctor: Patient, ceph: Ceph) -> None:
    """A policy for `cp-1*` is one for `cp-10` too."""
    there = tenant(ceph)
    (own,) = (each for each in there.statements("node") if each["Effect"] == "Allow")
    there.put_policy({**own, "Resource": [f"arn:aws:s3:::{there.bucket}/{PREFIX}/v1/full/{SITE}/{NODE}*"]})
    text = doctor.bucket(ceph, there.bucket, there.keys["node"])()
    assert "warn other nodes: it may put below the names of other nodes" in text
    assert "could write in another node's name: such backups are refused" in text


def test_rules_that_would_orphan_a_delta_are_found(doctor: Patient, ceph: Ceph) -> None:
    """What the bucket really does counts, not what the configuration says of it."""
    bucket = ceph.bucket(locked=True)
    rules = filled("lifecycle.json", bucket)
    next(rule for rule in rules["Rules"] if rule["ID"] == "edgedr-full")["Expiration"]["Days"] = 31
    ceph.client().put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=rules)
    doctor.bucket(ceph, bucket, full_lifetime="90 d", delta_lifetime="30 d")
    assert "BAD lifetimes: full 31 d, delta 30 d: deltas would outlive the full" in doctor("--as", "admin", code=2)


def test_a_lock_that_can_be_shortened_is_none(doctor: Patient, moto: Moto) -> None:
    """A server's word is no proof: this one says COMPLIANCE, and lets its time be changed."""
    text = doctor.bucket(moto, moto.bucket(locked=True))("--as", "admin", code=2)
    assert "BAD object lock: it does not hold: the time of a version under COMPLIANCE was shortened" in text


def test_a_weak_server_is_found(doctor: Patient, rclone: Rclone) -> None:
    """It ignores If-None-Match and keeps no versions: each is said, with what that lets a thief do."""
    text = doctor.bucket(rclone, rclone.bucket())(code=2)
    for said in (
        "BAD read: it may get objects, what is said of them",
        "BAD delete: it may delete, for good",
        "BAD overwrite: If-None-Match is ignored: what is put in place of an object destroys it",
        "warn object lock: there is none",
        "could delete every backup there for good: no versions stay",
    ):
        assert said in text
    bucket = rclone.bucket()
    assert doctor.bucket(rclone, bucket).facts("--as", "admin", code=2)["left_objects"] == 0
    assert "Contents" not in rclone.client().list_objects_v2(Bucket=bucket)


@pytest.fixture
def kept(set_up: Operator) -> str:
    """A key that a server takes which takes any."""
    path = set_up.directory / "any"
    path.touch(mode=0o600)
    path.write_text("any:secret-of-nobody")
    return f"file:{path}"


def test_a_careless_server_is_found(doctor: Patient, kept: str) -> None:
    """One that takes every signature, accepts a lock and deletes all the same is worth nothing, and called so."""
    with careless() as endpoint:
        text = doctor.given(url="s3://dr-backups/edge", endpoint=endpoint, style="path", credential=kept)(code=2)
    assert "BAD signatures: a request that was signed with a wrong secret is taken" in text
    assert "BAD signatures: anybody may put and list and get here, without any key" in text
    assert "BAD object lock: it does not hold: a version under COMPLIANCE was deleted all the same" in text
    assert "secret-of-nobody" not in text


def test_ids_are_no_versions(doctor: Patient, kept: str) -> None:
    """A server that gives each object an id and keeps only one of them keeps nothing."""
    with careless(forgetful=True) as endpoint:
        text = doctor.given(url="s3://dr-backups/edge", endpoint=endpoint, style="path", credential=kept)(code=2)
    assert "BAD overwrite: " in text
    assert "destroys it: it gives ids to versions, and does not keep them" in text
    assert "could delete every backup there for good" in text


def test_a_server_that_falls_silent_has_said_nothing(
    doctor: Patient, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not answered is neither allowed nor refused: the place is out of reach, 5."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    with careless(requests=4) as endpoint:
        text = doctor.given(url="s3://dr-backups/edge", endpoint=endpoint, style="path", credential=kept)(code=5)
    assert "not tried" in text
    assert "a thief" not in text


def test_a_wrong_key_or_bucket_is_an_error_of_the_place(doctor: Patient, ceph: Ceph, there: Tenant) -> None:
    """Nothing can be said of a bucket that refuses everything: 5, and why."""
    access, _ = there.keys["node"]
    text = doctor.bucket(ceph, there.bucket, (access, "not-its-secret"))(code=5)
    assert "SignatureDoesNotMatch" in text
    assert "not tried" in text
    assert "NoSuchBucket" in doctor.bucket(ceph, "lab-never-made")(code=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.sleep", lambda _: None)
        nobody = doctor.given(url="s3://dr-backups/edge", endpoint=f"http://127.0.0.1:{free_port()}", style="path")
        patch.setenv("AWS_ACCESS_KEY_ID", "any")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "any")
        text = nobody(code=5)
    assert "error: cannot put" in text
    assert "Connection refused" in text


def test_a_credential_that_is_not_there_is_configuration(doctor: Patient, ceph: Ceph, there: Tenant) -> None:
    """It is named, and ends with 2."""
    doctor.given(url=f"s3://{there.bucket}/edge", endpoint=ceph.endpoint, ca=str(ceph.ca), credential="file:/no/such")
    assert "BAD credential: file:/no/such cannot be read: no such file or directory" in doctor(code=2)


def test_how_much_is_sent(doctor: Patient, ceph: Ceph, there: Tenant) -> None:
    """The throughput is measured with as much as was asked for, or not at all."""
    doctor.bucket(ceph, there.bucket, there.keys["node"])
    facts = doctor.facts("--throughput", "64 KiB")
    assert facts["throughput"] > 0
    assert 64 << 10 < facts["left_bytes"] < 65 << 10
    facts = doctor.facts("--throughput", "0 B")
    assert facts["throughput"] is None
    assert facts["left_objects"] == 4
    assert "--throughput: 1 GiB is more than 64 MiB" in doctor("--throughput", "1 GiB", code=2)
    assert "'much' is not a size" in doctor("--throughput", "much", code=2)


def test_a_directory_is_looked_at_too(doctor: Patient, scratch: Path) -> None:
    """A disk that is there is written to; whoever has the machine has it; one that is not there cannot be tried."""
    disk = scratch / "disk"
    assert "is not there" in doctor.given(url=str(disk))(code=5)
    disk.mkdir()
    text = doctor.given(url=str(disk), same_disk=True)()
    assert "ok put: it is there, and can be written to" in text
    assert f"could delete all that is in {disk}: a disk on this machine is in its thief's hands" in text
    assert list(disk.iterdir()) == []
    disk.chmod(0o500)
    try:
        assert os.geteuid() == 0 or f"cannot create {disk}" in doctor(code=5)
    finally:
        disk.chmod(0o700)
