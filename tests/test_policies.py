"""The policies in `config/policies` do what they say, on a real server that enforces them."""

import json
import re
import secrets
import shlex
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped,unused-ignore]

from edgedr.cli.parser import build_parser
from edgedr.replicas import ReplicaSettings, replica_problems
from edgedr.repository.choice import ChainPolicy
from edgedr.repository.heartbeats import heartbeat_name
from edgedr.repository.names import RECIPE, node_prefixes
from edgedr.storage.s3_facts import Rule, read_rules
from tests.lab.policies import NODE, OWN, POLICIES, PREFIX, SITE, Tenant, filled, tenant
from tests.lab.s3servers import Ceph

KINDS = ("bucket", "iam")
NAMES = sorted(path.name for path in POLICIES.glob("*.json"))


@pytest.fixture(scope="module", params=KINDS)
def there(ceph: Ceph, request: pytest.FixtureRequest) -> Tenant:
    """A bucket with Object Lock whose users have the shipped policies: on the bucket, or on the users."""
    return tenant(ceph, request.param)


def refused(act: Callable[[], Any]) -> bool:
    """Say whether the server says that this may not be done; any other failure is one of the test."""
    try:
        act()
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 403:
            return True
        raise
    return False


def stored(there: Tenant, name: str = "") -> tuple[str, str]:
    """Put something as the node does; return its key and its version."""
    key = name or f"{OWN}/{secrets.token_hex(4)}/manifest.json"
    return key, there.by("node").put_object(Bucket=there.bucket, Key=key, Body=b"sealed")["VersionId"]


def tries(there: Tenant, role: str, key: str, version: str) -> dict[str, Callable[[], Any]]:
    """Everything that could do harm to a stored object, or to the bucket."""
    s3, at = there.by(role), {"Bucket": there.bucket}
    one = {**at, "Key": key}
    later = datetime.now(UTC) + timedelta(minutes=5)
    rule = {"ID": "x", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}
    return {
        "get": lambda: s3.get_object(**one),
        "get version": lambda: s3.get_object(**one, VersionId=version),
        "head": lambda: s3.head_object(**one),
        "list": lambda: s3.list_objects_v2(**at, Prefix=f"{OWN}/"),
        "list all": lambda: s3.list_objects_v2(**at),
        "list versions": lambda: s3.list_object_versions(**at, Prefix=f"{OWN}/"),
        "copy": lambda: s3.copy_object(**at, Key=f"{OWN}/copy", CopySource={"Bucket": there.bucket, "Key": key}),
        "put": lambda: s3.put_object(**at, Key=f"{OWN}/{role}", Body=b"x"),
        "delete version": lambda: s3.delete_object(**one, VersionId=version),
        "acl": lambda: s3.put_object_acl(**one, ACL="public-read"),
        "get acl": lambda: s3.get_object_acl(**one),
        "tags": lambda: s3.put_object_tagging(**one, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]}),
        "retention": lambda: s3.put_object_retention(
            **one, VersionId=version, Retention={"Mode": "GOVERNANCE", "RetainUntilDate": later}
        ),
        "hold": lambda: s3.put_object_legal_hold(**one, VersionId=version, LegalHold={"Status": "ON"}),
        "versioning": lambda: s3.put_bucket_versioning(**at, VersioningConfiguration={"Status": "Enabled"}),
        "rules": lambda: s3.put_bucket_lifecycle_configuration(**at, LifecycleConfiguration={"Rules": [rule]}),
        "no rules": lambda: s3.delete_bucket_lifecycle(**at),
        "policy": lambda: s3.put_bucket_policy(**at, Policy="{}"),
        "no policy": lambda: s3.delete_bucket_policy(**at),
        "bucket acl": lambda: s3.put_bucket_acl(**at, ACL="public-read-write"),
        "lock": lambda: s3.put_object_lock_configuration(
            **at, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"}
        ),
        "bucket": lambda: s3.delete_bucket(**at),
        "delete": lambda: s3.delete_object(**one),  # the last: of what is hidden, not everything is asked any more
    }


def allowed(there: Tenant, role: str) -> set[str]:
    key, version = stored(there)
    return {act for act, do in tries(there, role, key, version).items() if not refused(do)}


def test_a_node_may_put_and_nothing_else(there: Tenant) -> None:
    """It neither gets, lists nor deletes, not even its own objects, nor changes what the bucket is set to."""
    assert allowed(there, "node") == {"put"}


def test_a_monitor_reads(there: Tenant) -> None:
    """It lists and gets, older versions too, and changes nothing."""
    assert allowed(there, "monitor") == {"get", "get version", "head", "list", "list all", "list versions"}


def test_a_pruner_deletes_behind_a_mark(there: Tenant) -> None:
    """It lists, gets and deletes; what it deletes stays as an older version, which it cannot delete."""
    assert allowed(there, "pruner") == {"get", "get version", "head", "list", "list all", "list versions", "delete"}


def test_a_node_puts_its_own_names(there: Tenant) -> None:
    """All that replication puts, and nothing below the name of another node or site, which may begin with ours."""
    put = there.by("node").put_object
    own = [f"{prefix}/x/y" for prefix in node_prefixes(SITE, NODE)]
    for name in (*own, heartbeat_name(SITE, NODE), RECIPE):
        put(Bucket=there.bucket, Key=f"{PREFIX}/{name}", Body=b"x")
    others = [f"{prefix}/x/y" for node in (f"{NODE}1", "cp-2") for prefix in node_prefixes(SITE, node)]
    others += [f"{prefix}/x/y" for prefix in node_prefixes(f"{SITE}7", NODE)]
    others += [heartbeat_name(SITE, "cp-2"), "v1/drills/x.json", "v1/full/x", f"v1/full/{SITE}/{NODE}", "x"]
    for name in others:
        assert refused(lambda name=name: put(Bucket=there.bucket, Key=f"{PREFIX}/{name}", Body=b"x")), name  # type: ignore[misc]
    for key in (f"v1/full/{SITE}/{NODE}/x", f"other/v1/full/{SITE}/{NODE}/x"):
        assert refused(lambda key=key: put(Bucket=there.bucket, Key=key, Body=b"x")), key  # type: ignore[misc]


def test_who_reads_tells_absent_from_refused(there: Tenant) -> None:
    """For what is not there a monitor gets 404: "hidden" is found out by it."""
    key, _ = stored(there)
    there.by("pruner").delete_object(Bucket=there.bucket, Key=key)
    for name in (key, f"{OWN}/never"):
        with pytest.raises(ClientError, match="404"):
            there.by("monitor").head_object(Bucket=there.bucket, Key=name)


def test_what_a_thief_overwrites_or_hides_stays(there: Tenant) -> None:
    """The node overwrites, the pruner deletes: who restores still reads what was there first."""
    key, first = stored(there)
    stored(there, key)
    there.by("pruner").delete_object(Bucket=there.bucket, Key=key)
    reply = there.by("monitor").get_object(Bucket=there.bucket, Key=key, VersionId=first)
    assert reply["Body"].read() == b"sealed"


def test_a_locked_version_stays(ceph: Ceph) -> None:
    """With a default retention, what a node puts is locked: not even who may delete versions can, nor the owner."""
    there = tenant(ceph)
    owner = there.by("owner")
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    locked = {"ObjectLockEnabled": "Enabled", "Rule": rule}
    owner.put_object_lock_configuration(Bucket=there.bucket, ObjectLockConfiguration=locked)
    key, version = stored(there)
    stored(there, key)
    name = f"deleter-{secrets.token_hex(4)}"
    deleter = ceph.client(*ceph.user(name))
    there.put_policy(
        {
            "Effect": "Allow",
            "Principal": {"AWS": [f"arn:aws:iam:::user/{name}"]},
            "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion"],
            "Resource": [f"arn:aws:s3:::{there.bucket}/*"],
        }
    )
    mark = deleter.delete_object(Bucket=there.bucket, Key=key)["VersionId"]
    deleter.delete_object(Bucket=there.bucket, Key=key, VersionId=mark)  # it may, where nothing is locked
    for s3 in (deleter, owner):
        assert refused(lambda s3=s3: s3.delete_object(Bucket=there.bucket, Key=key, VersionId=version))  # type: ignore[misc]
    reply = there.by("monitor").get_object(Bucket=there.bucket, Key=key, VersionId=version)
    assert reply["Body"].read() == b"sealed"


def test_an_owner_reads_with_the_statements_of_a_monitor(ceph: Ceph) -> None:
    """On RGW an object belongs to who wrote it; what lets a monitor read lets the bucket's owner read too."""
    there = tenant(ceph)
    key, version = stored(there)
    owner = there.by("owner")
    assert refused(lambda: owner.get_object(Bucket=there.bucket, Key=key, VersionId=version))
    there.put_policy(*(each for each in there.statements("monitor", to="admin") if each["Effect"] == "Allow"))
    assert owner.get_object(Bucket=there.bucket, Key=key)["Body"].read() == b"sealed"


def test_without_the_denials_a_node_reads_its_own_objects(ceph: Ceph) -> None:
    """Why they are there: on RGW who wrote an object may do with it what nobody denies."""
    there = tenant(ceph, roles=("node",))
    key, _ = stored(there)
    bare = [each for each in there.statements("node") if each["Effect"] == "Allow"]
    policy = json.dumps({"Version": "2012-10-17", "Statement": bare})
    there.by("owner").put_bucket_policy(Bucket=there.bucket, Policy=policy)
    assert there.by("node").get_object(Bucket=there.bucket, Key=key)["Body"].read() == b"sealed"


def test_the_rules_are_taken(ceph: Ceph) -> None:
    """A server takes the lifecycle rules, and gives them back as they are."""
    bucket = ceph.bucket(locked=True)
    rules = filled("lifecycle.json", bucket)
    ceph.client().put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=rules)
    back = ceph.client().get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert sorted(map(str, read_rules(back))) == sorted(map(str, read_rules(rules["Rules"])))


def _rule(name: str) -> Rule:
    rules = read_rules(filled("lifecycle.json", "any-bucket")["Rules"])
    return next(rule for rule in rules if rule.prefix == f"{PREFIX}/v1/{name}/")


def test_no_delta_outlives_its_full() -> None:
    """The shipped lifetimes pass the check of the settings; so do those of older versions."""
    full, delta = _rule("full"), _rule("delta")
    for first, last in ((full.days, delta.days), (full.older_days, delta.days)):
        assert first is not None
        assert last is not None
        replica = ReplicaSettings(
            "bucket",
            "s3://dr-backups/edge",
            full_lifetime=timedelta(days=first),
            delta_lifetime=timedelta(days=last),
        )
        assert list(replica_problems([replica], full_every=ChainPolicy().full_every)) == []
        shorter = ReplicaSettings(
            "bucket", "s3://dr-backups/edge", full_lifetime=timedelta(days=last), delta_lifetime=timedelta(days=last)
        )
        assert list(replica_problems([shorter], full_every=ChainPolicy().full_every))
    assert _rule("heartbeat").days is None
    text = (POLICIES / "README.md").read_text()
    assert f'full_lifetime = "{full.days} d"\n    delta_lifetime = "{delta.days} d"\n' in text
    assert f"Older versions stay for {full.older_days} and {delta.older_days} days" in text


def test_a_bucket_and_a_user_get_the_same() -> None:
    """Both forms of a policy differ in whom they are for, which only a bucket's says."""
    for role in ("node", "pruner", "monitor"):
        of_bucket = filled(f"{role}.bucket.json", "dr-backups", "arn:aws:iam:::user/one")
        for statement in of_bucket["Statement"]:
            assert statement.pop("Principal") == {"AWS": ["arn:aws:iam:::user/one"]}
        assert of_bucket == filled(f"{role}.iam.json", "dr-backups")


def test_on_aws_nothing_but_the_heartbeat_is_replaced() -> None:
    """That policy allows the same names, those of backups with If-None-Match only; it denies the same."""
    plain, aws = (filled(name, "dr-backups")["Statement"] for name in ("node.iam.json", "node.aws.iam.json"))
    assert aws[2:] == plain[1:]
    once, replaced = aws[:2]
    assert once["Condition"] == {"Null": {"s3:if-none-match": "false"}}
    assert sorted([*once["Resource"], *replaced["Resource"]]) == sorted(plain[0]["Resource"])
    assert replaced["Resource"] == [f"arn:aws:s3:::dr-backups/{PREFIX}/{heartbeat_name(SITE, NODE)}"]
    assert {each["Effect"] for each in (once, replaced)} == {"Allow"}


def test_the_readme_knows_every_file_and_types_what_works() -> None:
    """Every policy has its row, every placeholder is explained, and what one types is something that edgedr takes."""
    text = (POLICIES / "README.md").read_text()
    for name in NAMES:
        assert f"`{name}`" in text
    used = {found for name in NAMES for found in re.findall("@([A-Z]+)@", (POLICIES / name).read_text())}
    assert used == {"BUCKET", "PREFIX", "SITE", "NODE", "PRINCIPAL"}
    assert all(f"-e 's|@{name}@|" in text for name in used)
    lines = re.findall(r"^    (edgedr .*)$", text, re.MULTILINE)
    assert lines
    for line in lines:
        build_parser().parse_args(shlex.split(line)[1:])


def test_the_readme_fills_a_fleet_and_no_prefix() -> None:
    """With tags in place of names, and without a prefix, what comes out is what was meant."""
    tags = {"SITE": "${aws:PrincipalTag/site}", "NODE": "${aws:PrincipalTag/node}"}
    fleet = filled("node.aws.iam.json", "dr-backups", **tags)
    wanted = "arn:aws:s3:::dr-backups/edge/v1/full/${aws:PrincipalTag/site}/${aws:PrincipalTag/node}/*"
    assert wanted in fleet["Statement"][0]["Resource"]
    bare = (POLICIES / "node.iam.json").read_text().replace("@PREFIX@/", "").replace("@BUCKET@", "dr-backups")
    assert "arn:aws:s3:::dr-backups/v1/full/@SITE@/@NODE@/*" in json.loads(bare)["Statement"][0]["Resource"]


def test_ceph_passes_over_the_condition_of_aws(ceph: Ceph) -> None:
    """Why there is a policy for AWS apart: elsewhere its condition promises what nobody keeps."""
    there = tenant(ceph, roles=("node",))
    principal = {"AWS": [f"arn:aws:iam:::user/{there.users['node']}"]}
    conditional = [{**each, "Principal": principal} for each in filled("node.aws.iam.json", there.bucket)["Statement"]]
    policy = json.dumps({"Version": "2012-10-17", "Statement": conditional})
    there.by("owner").put_bucket_policy(Bucket=there.bucket, Policy=policy)
    key, _ = stored(there)
    stored(there, key)
    assert refused(lambda: there.by("node").get_object(Bucket=there.bucket, Key=key))
