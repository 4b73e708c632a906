"""The shipped policies, filled in, and put where a real server enforces them."""

import json
import secrets
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.s3servers import Ceph, client

POLICIES = Path(__file__).parent.parent.parent / "config" / "policies"
PREFIX, SITE, NODE = "edge", "plant-7", "cp-1"
OWN = f"{PREFIX}/v1/full/{SITE}/{NODE}"


def filled(name: str, bucket: str, principal: str = "", **values: str) -> Any:
    """Read one, with every placeholder in its place."""
    text = (POLICIES / name).read_text()
    names = {"BUCKET": bucket, "PREFIX": PREFIX, "SITE": SITE, "NODE": NODE, "PRINCIPAL": principal, **values}
    for placeholder, value in names.items():
        text = text.replace(f"@{placeholder}@", value)
    assert "@" not in text
    return json.loads(text)


@dataclass(frozen=True)
class Tenant:
    """A bucket on Ceph with a user of its own for each role, each with the policy that is shipped for it."""

    ceph: Ceph
    bucket: str
    keys: Mapping[str, tuple[str, str]]
    users: Mapping[str, str]

    def by(self, role: str) -> Any:
        """Return a client of that role; ``owner`` is whose bucket it is."""
        return self.ceph.client() if role == "owner" else self.ceph.client(*self.keys[role])

    def statements(self, role: str, to: str | None = None) -> list[Any]:
        """Return what a role's bucket policy says, to that role's user or to another."""
        found = filled(f"{role}.bucket.json", self.bucket, f"arn:aws:iam:::user/{to or self.users[role]}")
        return list(found["Statement"])

    def put_policy(self, *statements: Any) -> None:
        """Put what the roles have, and more, as the bucket's policy."""
        every = [each for role in self.users for each in self.statements(role)]
        policy = {"Version": "2012-10-17", "Statement": [*every, *statements]}
        self.ceph.client().put_bucket_policy(Bucket=self.bucket, Policy=json.dumps(policy))


def tenant(ceph: Ceph, kind: str = "bucket", *, locked: bool = True, roles: tuple[str, ...] = ()) -> Tenant:
    """Make a bucket and its users; the policies are on the bucket, or, of kind ``iam``, on the users."""
    bucket = ceph.bucket(locked=locked)
    run = secrets.token_hex(4)
    users = {role: f"{role}-{run}" for role in roles or ("node", "pruner", "monitor")}
    made = Tenant(ceph, bucket, {role: ceph.user(name) for role, name in users.items()}, users)
    if kind == "bucket":
        made.put_policy()
        return made
    ceph._do(ceph._admin, *ceph._flags("client.rgw"), "caps", "add", "--uid=admin", "--caps=user-policy=*")
    with closing(client(ceph.endpoint, ceph.ca, ceph.access_key, ceph.secret_key, service="iam")) as iam:
        for role, name in users.items():
            policy = json.dumps(filled(f"{role}.iam.json", bucket))
            iam.put_user_policy(UserName=name, PolicyName="edgedr", PolicyDocument=policy)
    return made
