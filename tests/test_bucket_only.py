"""The bad day: the node is gone, and all there is is a bucket, an identity and a key. Faults 7, 16 to 18 and 20."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edgedr.repository import heartbeats
from edgedr.sealing.identities import make_identity
from edgedr.sealing.signatures import Signer
from tests.lab.policies import tenant
from tests.lab.s3faults import Fault, Request, always, portal_page
from tests.lab.s3proxy import S3Proxy
from tests.lab.s3road import by_way_of, fresh_prefix, key_file, light_clients, waits
from tests.lab.s3servers import Ceph
from tests.lab.shipped import HEARTBEAT, NODE, SITE, Away, Shipped


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for another try, and this machine is no node."""
    light_clients(monkeypatch)
    waits(monkeypatch)
    monkeypatch.delenv("EDGEDR_CONFIG", raising=False)


def test_a_bucket_is_enough(there: Away, shipped: Shipped, tmp_path: Path) -> None:
    """Listed, shown, proven and restored with nothing but the bucket's URL, how to reach it, and the identity."""
    assert [each["id"] for each in there.json("list")] == list(shipped.ids)
    assert "warn" not in there.here("list")
    shown = there.json("show", shipped.ids[2], *there.identity)
    assert shown["chain"] == list(shipped.ids)
    verdicts = there.json("verify", "--all", *there.identity)
    assert [(each["id"], each["state"], each["level"]) for each in verdicts] == [
        (one, "ok", "L2") for one in shipped.ids
    ]
    there.here("restore", "--to", tmp_path / "restored", *there.identity)
    assert there.restored(tmp_path / "restored") == dict(shipped.newest)
    assert not (tmp_path / "restored/.downloaded").exists()
    assert there.json("list", "--site", SITE, "--node", NODE) == there.json("list")


class Link:
    """A link that takes so many whole downloads of segments, then part of one, then nothing."""

    def __init__(self, whole: int, part: int) -> None:
        self._left, self._part, self._cut = whole, part, False

    def __call__(self, request: Request) -> Fault | None:
        if self._cut:
            return Fault(reset_after=0)
        if request.method != "GET" or not request.path.endswith(".age"):
            return None
        self._left -= 1
        if self._left >= 0:
            return None
        self._cut = True
        return Fault(truncate=self._part)


def asked_bytes(proxy: S3Proxy, shipped: Shipped) -> int:
    """Return how many bytes of segments were asked for."""
    asked = 0
    for request in proxy.requests:
        name = next((name for name in shipped.objects if request.path.endswith(name)), "")
        if request.method == "GET" and name.endswith(".age"):
            begin = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", "bytes=0-"))
            assert begin is not None
            asked += len(shipped.objects[name]) - int(begin[1])
    return asked


@pytest.mark.parametrize(("whole", "part"), [(0, 200), (1, 200), (3, 1)])
def test_a_restore_goes_on_where_it_was_cut(
    there: Away, shipped: Shipped, proxy: S3Proxy, tmp_path: Path, whole: int, part: int
) -> None:
    """The link dies for good: exit 5, nothing extracted; the same command brings the rest, and the rest alone."""
    place, to = by_way_of(proxy, there.place), tmp_path / "restored"
    proxy.faults = Link(whole, part)
    said = there.here("restore", "--to", to, *there.identity, code=5, place=place)
    assert f"what was downloaded is kept in {to / '.downloaded'}: the same command goes on from there" in said
    assert not (to / "files").exists()
    segments = shipped.segments(0, 1, 2)
    here = sum(path.stat().st_size for path in (to / ".downloaded").rglob("*.age*") if path.is_file())
    assert here > 0
    proxy.faults = lambda _: None
    proxy.requests.clear()
    there.here("restore", "--to", to, *there.identity, place=place)
    assert asked_bytes(proxy, shipped) == sum(map(len, segments.values())) - here
    assert there.restored(to) == dict(shipped.newest)
    assert not (to / ".downloaded").exists()


def test_the_wrong_identity_is_found_before_anything_is_downloaded(there: Away, proxy: S3Proxy, tmp_path: Path) -> None:
    """A key that opens nothing here, or none, is told by the manifests: no segment is asked for, nothing is left."""
    place = by_way_of(proxy, there.place)
    proxy.faults, other = (lambda _: None), tmp_path / "other.txt"
    proxy.requests.clear()
    other.write_text(make_identity().secret + "\n")
    shutil.copy(there.shipped.keys / "allowed_signers", tmp_path)
    for words in (("--identity", other), ()):
        there.here("restore", "--to", tmp_path / "restored", *words, code=6, place=place)
    there.here("verify", "--identity", other, code=6, place=place)
    assert proxy.requests
    assert not [each for each in proxy.requests if each.path.endswith(".age")]
    assert not (tmp_path / "restored/files").exists()


COMMANDS: dict[str, Callable[[Away, Path], list[str | Path]]] = {
    "list": lambda there, to: ["list"],
    "show": lambda there, to: ["show"],
    "verify": lambda there, to: ["verify", "--all"],
    "restore": lambda there, to: ["restore", "--to", to / "restored", *there.identity],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_where_nothing_is_that_is_no_empty_place(there: Away, ceph: Ceph, tmp_path: Path, command: str) -> None:
    """A wrong prefix, site or node: exit 8; a wrong bucket or a key that may not look: 5. Each with the next act."""
    words = COMMANDS[command](there, tmp_path)
    nowhere = replace(there.place, prefix=fresh_prefix())
    gone = replace(there.place, bucket="lab-gone")
    low = replace(there.place, prefix=f"{there.place.prefix}/v1")
    said = [
        *(there.here(*words, code=8, place=place) for place in (nowhere, low)),
        there.here(*words, "--site", "plant-8", code=8),
        there.here(*words, "--node", "cp-9", "--site", SITE, code=8),
        there.here(*words, code=5, place=gone),
    ]
    assert "NoSuchBucket" in said[-1]
    blind = tenant(ceph, locked=False, roles=("node",))
    key = key_file(tmp_path / "key", *blind.keys["node"])
    place = replace(there.place, bucket=blind.bucket, credential=key)
    said.append(there.here(*words, code=5, place=place))
    assert "AccessDenied" in said[-1]
    assert not any(re.search("empty|no backups|yet", each) for each in said)
    assert not (tmp_path / "restored").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_portal_is_no_empty_bucket(there: Away, proxy: S3Proxy, tmp_path: Path, command: str) -> None:
    """Somebody answers in the server's place, or nobody does: exit 5, whatever is asked."""
    for fault in (portal_page(), Fault(reset_after=0)):
        proxy.faults = always(fault)
        said = there.here(*COMMANDS[command](there, tmp_path), code=5, place=by_way_of(proxy, there.place))
        assert "look at the link" in said or "goes on from there" in said
    proxy.faults = lambda _: None
    assert not (tmp_path / "restored/files").exists()


def test_hidden_backups_are_missed_and_found(keeping: Away, shipped: Shipped, tmp_path: Path) -> None:
    """The newest were deleted from a bucket with versions: the heartbeat says so, `--deleted` has them, whole."""
    keeping.hide(1, 2)
    said = keeping.here("list")
    assert f"the node says that it shipped {shipped.ids[2]}, which is not here: removed or hidden" in said
    assert "--deleted shows what a bucket with versions still has" in said
    assert f"2 backups deleted here, and held as older versions: the newest is {shipped.ids[2]}" in said
    assert [each["id"] for each in keeping.json("list")] == [shipped.ids[0]]
    assert [each["id"] for each in keeping.json("list", "--deleted")] == list(shipped.ids)
    said = keeping.here("list", "--deleted")
    assert "removed or hidden" not in said
    assert f"of these, 2 backups deleted here, and held as older versions: the newest is {shipped.ids[2]}" in said
    keeping.here("verify", "--all", "--deleted", *keeping.identity)
    keeping.here("restore", "--to", tmp_path / "restored", "--deleted", *keeping.identity)
    assert keeping.restored(tmp_path / "restored") == dict(shipped.newest)


@pytest.mark.parametrize("heartbeat", [True, False])
def test_a_prefix_that_was_deleted_is_no_empty_place(
    keeping: Away, shipped: Shipped, tmp_path: Path, heartbeat: bool
) -> None:
    """All of it is gone: exit 8, with the alarm where the heartbeat was left; `--deleted` brings all back."""
    for name in shipped.objects:
        if name != HEARTBEAT or not heartbeat:
            keeping.storage.delete(name)
    restore = ("restore", "--to", tmp_path / "nothing", *keeping.identity)
    for command in (("list",), ("show",), ("verify", "--all"), restore):
        said = keeping.here(*command, code=8)
        assert "are deleted, and held as older versions" in said
        assert "the same command with --deleted finds them" in said
    assert (f"it shipped {shipped.ids[2]}" in keeping.here("list", code=8)) is heartbeat
    assert "empty" not in said
    assert [each["id"] for each in keeping.json("list", "--deleted")] == list(shipped.ids)
    keeping.here("restore", "--to", tmp_path / "restored", "--deleted", *keeping.identity)
    assert keeping.restored(tmp_path / "restored") == dict(shipped.newest)


def test_a_gap_is_seen(there: Away, shipped: Shipped, tmp_path: Path) -> None:
    """A backup in between was removed: that is said, what depends on it is damaged, and what is intact is named."""
    there.hide(1)
    said = there.here("list")
    assert f"1 backup is missing between {shipped.ids[0]} and {shipped.ids[2]}" in said
    assert [each["condition"] == "ok" for each in there.json("list")] == [True, False]
    assert shipped.ids[1] in there.here("verify", *there.identity, code=7)
    said = there.here("restore", "--to", tmp_path / "restored", *there.identity, code=7)
    assert shipped.ids[0] in said.rpartition("hint:")[2]
    there.here("restore", shipped.ids[0], "--to", tmp_path / "restored", *there.identity)


def heartbeat(there: Away, signer: Signer | None = None, **changes: Any) -> None:
    """Put a heartbeat in place of the one that is there: the same but for some fields, and for who signed it."""
    now, _ = heartbeats.decode(there.shipped.objects[HEARTBEAT], "it")
    there.write(HEARTBEAT, heartbeats.encode(replace(now, **changes), signer or there.shipped.signer))


def test_a_replayed_heartbeat_is_seen(there: Away, shipped: Shipped) -> None:
    """One of yesterday in the place of today's, which hid that the newest backups were there, or that nobody works."""
    old, _ = heartbeats.decode(shipped.objects[HEARTBEAT], "it")
    before = old.at - timedelta(days=1)
    heartbeat(there, at=before, captured_at=before, next_due=before + timedelta(minutes=15))
    said = there.here("list")
    assert f"the heartbeat is older than {shipped.ids[2]}: an old one was put in its place" in said
    assert "the node's last word is of" in said


def test_silence_is_seen(there: Away, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that says nothing for twice as long as it should between two backups is asked after."""
    assert "last word" not in there.here("list")

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(minutes=45)

    monkeypatch.setattr("edgedr.cli.look.datetime", Later)
    assert "the node's last word is of" in there.here("list")


@pytest.mark.parametrize("forged", ["by a stranger", "no heartbeat at all", "another node's"])
def test_a_heartbeat_that_is_not_the_nodes_is_not_believed(there: Away, forged: str) -> None:
    """Whoever may put there cannot calm anybody: it is said that there is none to believe."""
    match forged:
        case "by a stranger":
            heartbeat(there, Signer.generate())
        case "another node's":
            heartbeat(there, node="cp-2")
        case _:
            there.write(HEARTBEAT, b"{}")
    said = there.here("list")
    assert f"the heartbeat of {SITE}/{NODE}" in said
    assert "there is no heartbeat of it to believe" in said
