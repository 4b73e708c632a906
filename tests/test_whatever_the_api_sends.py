"""Whatever an API server sends, a backup that was made can be restored, and no snapshot of etcd is lost over it.

The API is read by the sources that read it, and what they make of it is archived, extracted and proven as the commands
do; that the commands say so is in one test with a whole control plane.
"""

import copy
import dataclasses
import json
import os
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgedr.capture import Captured, Capturing
from edgedr.cli.terminal import Silent
from edgedr.errors import SourceError
from edgedr.log import Log
from edgedr.model import BackupId, Bytes, Severity, Status
from edgedr.node.kube import Kube, KubeSettings
from edgedr.node.kubeconfig import read_kubeconfig
from edgedr.node.node import Node
from edgedr.recovery.extract import extract
from edgedr.repository.parents import ParentCache
from edgedr.sources.base import Source
from edgedr.sources.dns import DnsSource
from edgedr.sources.objects import ObjectsSource
from edgedr.sources.serviceaccounts import ServiceAccountsSource
from tests.lab import kubeadm
from tests.lab.apiserver import ApiServer, recording
from tests.lab.whole import operated

GROUP = "x.example"
THINGS = f"/apis/{GROUP}/v1/things"
DEPLOYMENTS = "/apis/apps/v1/deployments"
BACKUP = BackupId(datetime(2026, 11, 22, 22, 15, tzinfo=UTC), 1, "1f2e3d4c")
SOURCES: tuple[Source, ...] = (ObjectsSource(), ServiceAccountsSource(), DnsSource())
Recording = dict[str, Any]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kubeadm.unpack(tmp_path_factory.mktemp("node"))


@pytest.fixture
def server(root: Path) -> Iterator[ApiServer]:
    with ApiServer(root / "etc/kubernetes/pki") as running:
        yield running


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A capture and what came back of it."""

    captured: Captured
    root: Path

    def status(self, source: str) -> Status:
        return self.captured.inventory.sources[source].status

    def said(self, source: str) -> str:
        """Return why it is not whole."""
        record = self.captured.inventory.sources[source]
        return "\n".join((record.reason or "", *(finding.text for finding in record.findings)))

    def document(self, name: str) -> str:
        return (self.root / ".edgedr" / name).read_text()


def back_up(root: Path, server: ApiServer, to: Path, sources: Sequence[Source] = SOURCES, **asked: Any) -> Outcome:
    """Capture, extract, prove: what is archived must come back, and be found good."""
    node = kubeadm.node(root)
    access = read_kubeconfig(node.files, "/etc/kubernetes/admin.conf", server=server.url)
    kube = Kube(access, KubeSettings(**{"requests_per_second": 10_000, **asked}), sleep=lambda _: None)
    return of(dataclasses.replace(node, kube=kube), to, sources)


def of(node: Node, to: Path, sources: Sequence[Source]) -> Outcome:
    cache = ParentCache(to / "cache")
    captured = Capturing(node, cache, BACKUP, Silent(), Log()).run(sources, "plant-7", "cp-1")
    archive = cache.path(BACKUP, "node.tar")
    inventory, _ = extract(archive, to / "restored", max_bytes=archive.stat().st_size)
    assert inventory == captured.inventory
    bad = [
        finding
        for source in sources
        for finding in source.prove(to / "restored", inventory, {})
        if finding.severity is Severity.BAD
    ]
    assert bad == []
    return Outcome(captured, to / "restored")


def offer(of: Recording, *things: Any, group: str = GROUP, plural: str = "things", kind: str = "Thing") -> None:
    """Let the API have a kind of somebody, and its objects."""
    version = {"groupVersion": f"{group}/v1", "version": "v1"}
    of["/apis"]["groups"].append({"name": group, "versions": [version], "preferredVersion": version})
    resource = {"name": plural, "kind": kind, "namespaced": True, "verbs": ["list", "get"]}
    of[f"/apis/{group}/v1"] = {"kind": "APIResourceList", "groupVersion": f"{group}/v1", "resources": [resource]}
    metadata = {"resourceVersion": "1"}
    of[f"/apis/{group}/v1/{plural}"] = {
        "apiVersion": f"{group}/v1", "kind": f"{kind}List", "metadata": metadata, "items": list(things),
    }  # fmt: skip


def thing(name: str = "a", namespace: str = "default", **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace}, **more}


def external_dns(*arguments: str, **container: Any) -> dict[str, Any]:
    containers = [{"name": "c", "image": "mirror.test/external-dns:1", "args": list(arguments), **container}]
    return thing("edns", spec={"template": {"spec": {"containers": containers}}})


def nested(depth: int, inner: Any) -> Any:
    for _ in range(depth):
        inner = {"a": inner}
    return inner


LONG = ".".join(["g" * 60] * 3) + ".example"
UNWRITABLE = [
    {"metadata": {"name": f"{number:05d}-{'n' * 240}", "namespace": "n" * 60, "ownerReferences": ["x"]}}
    for number in range(1000)
]
HOSTILE: dict[str, Callable[[Recording], object]] = {
    "argument": lambda of: of[DEPLOYMENTS]["items"].append(external_dns(f"--txt-owner-id={'A' * 200_000}")),
    "references": lambda of: of[DEPLOYMENTS]["items"].append(
        external_dns(f"--txt-owner-id={'$(A)' * 40_000}", env=[{"name": "A", "value": "A" * 100_000}])
    ),
    "nested-argument": lambda of: of[DEPLOYMENTS]["items"].append(external_dns(nested(800, "x"))),
    "unwritable": lambda of: offer(of, *UNWRITABLE),
    "long-kind": lambda of: offer(of, thing(), group=LONG, plural="p" * (252 - len(LONG))),
    "long-kind-again": lambda of: offer(of, thing(), group=f"{LONG[:-1]}z", plural="p" * (252 - len(LONG))),
    "upwards": lambda of: offer(of, thing("../../x", "../..", spec={})),
    "control": lambda of: offer(of, thing("a\nb\x00\x1b[31mred", "n\r\n---\nkind: Secret", spec={"x": "\x1b]0;t\x07"})),
    "long-name": lambda of: offer(of, {"metadata": {"name": "N" * 500_000, "ownerReferences": ["x"]}}),
    "texts": lambda of: offer(of, {"metadata": {"name": "a", "annotations": "x", "labels": [1]}, "spec": "x"}),
    "namespace": lambda of: offer(of, {"metadata": {"name": "a", "namespace": ["x"]}}),
    "what-it-is": lambda of: offer(of, thing(apiVersion=["x"], kind={"a": 1})),
    "digits": lambda of: offer(of, thing(spec={"n": 10**4200})),
    "nested-100": lambda of: offer(of, thing(spec=nested(100, 1))),
    "nested-300": lambda of: offer(of, thing(spec=nested(300, 1))),
    "nested-900": lambda of: offer(of, thing(spec=nested(900, 1))),
    "integers": lambda of: offer(of, thing(spec=[1] * 500_000)),
    "integers-nested": lambda of: offer(of, thing(spec=nested(250, [1] * 500_000))),
    "empty": lambda of: offer(of, thing(spec=[{}] * 350_000)),
    "long-keys": lambda of: offer(of, thing(spec={"k" * 2000: [1] * 200_000})),
    "odd-signs": lambda of: offer(of, thing(spec=["\x7f\x85\u2028\ufeff\uffff\U0001f600"] * 200_000)),
    "core-dns": lambda of: of["/api/v1/configmaps"]["items"].extend(
        thing(f"{number:03}", "kube-system", data={"Corefile": "x" * 200_000}) for number in range(100)
    ),
    "accounts": lambda of: of["/api/v1/serviceaccounts"]["items"].append(thing("a\x1b[2J", "b\n\nUsers")),
    "tokens": lambda of: of["/api/v1/secrets"]["items"].append(
        thing("t\x1b[2J\nx", "b\n\nUsers", type="kubernetes.io/service-account-token")
    ),
}  # fmt: skip


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_was_backed_up_comes_back(root: Path, server: ApiServer, tmp_path: Path, hostile: str) -> None:
    """Whoever may create objects can cost their own kind, and not the restore; nor do they move anybody's cursor."""
    HOSTILE[hostile](server.recording)
    outcome = back_up(root, server, tmp_path)
    assert {outcome.status(source.name) for source in SOURCES} <= {Status.OK, Status.PARTIAL}
    assert {path.name for path in (outcome.root / ".edgedr").rglob("*")}.isdisjoint({"x", "passwd"})
    for page in ("kubernetes/contents.txt", "serviceaccounts/summary.txt"):
        assert all(sign.isprintable() or sign == "\n" for sign in outcome.document(page))
    kinds = outcome.captured.counts["objects"]["kinds"]
    assert kinds >= 44


def test_what_is_odd_is_named_and_no_more(root: Path, server: ApiServer, tmp_path: Path) -> None:
    """A thousand of them are twenty names and a number."""
    HOSTILE["unwritable"](server.recording)
    said = back_up(root, server, tmp_path).said("objects")
    assert said.count("-nnnn") == 20
    assert " and 980 more: malformed" in said
    assert len(said) < 8 << 10


def test_long_kinds_do_not_share_a_document(root: Path, server: ApiServer, tmp_path: Path) -> None:
    """Two kinds whose names differ only at the end have their own documents, with names that a disk takes."""
    HOSTILE["long-kind"](server.recording)
    HOSTILE["long-kind-again"](server.recording)
    found = sorted(path.name for path in (back_up(root, server, tmp_path).root / ".edgedr/kubernetes").glob("ppp*"))
    assert len(found) == 2
    assert max(map(len, found)) < 240


def test_integers_are_there(root: Path, server: ApiServer, tmp_path: Path) -> None:
    """An object of a megabyte of tiny values is written, and takes no hundreds of megabytes."""
    HOSTILE["integers"](server.recording)
    tracemalloc.start()
    try:
        outcome = back_up(root, server, tmp_path, sources=(ObjectsSource(exclude=("[!t]*",)),))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert outcome.document("kubernetes/things.x.example.yaml").count("1, 1") > 200_000
    assert peak < 64 << 20


def test_too_many_core_dns_are_some(root: Path, server: ApiServer, tmp_path: Path) -> None:
    """Not every ConfigMap with a Corefile in it is held in memory; that some are not there is said."""
    HOSTILE["core-dns"](server.recording)
    outcome = back_up(root, server, tmp_path, sources=(DnsSource(),))
    assert 1 << 20 < len(outcome.document("dns/coredns.yaml")) < 9 << 20
    assert re.search(r"CoreDNS: \d+ objects of it are more than 64, or 8 MiB", outcome.said("dns"))


def test_references_do_not_multiply(root: Path, server: ApiServer, tmp_path: Path) -> None:
    """Variables in arguments are not replaced where that would fill the memory."""
    HOSTILE["references"](server.recording)
    outcome = back_up(root, server, tmp_path, sources=(DnsSource(),))
    assert outcome.said("dns").startswith("external-dns: 1 objects of it are malformed, too large")


class Endless(ApiServer):
    """Has fresh things for ever, each page with its own name and token."""

    text = "x" * 20_000
    pages = 0

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        if path != THINGS:
            return super().answer(path, query)
        self.pages += 1
        items = [thing(f"{self.pages:07d}-{number}", spec=self.text) for number in range(100)]
        listed = {"apiVersion": f"{GROUP}/v1", "kind": "ThingList", "items": items}
        return 200, {**listed, "metadata": {"continue": f"token-{self.pages}"}}


def test_a_list_without_end_is_one_lost_kind(root: Path, tmp_path: Path) -> None:
    """At its bound it is given up and forgotten; the others are there, and nothing of it takes room on the disk."""
    with Endless(root / "etc/kubernetes/pki") as server:
        offer(server.recording)
        source = ObjectsSource(max_bytes=Bytes(8 << 20))
        outcome = back_up(root, server, tmp_path, sources=(source,))
    assert outcome.said("objects").strip() == (
        "things.x.example: does not fit into the 8 MiB that all documents may have; raise [sources.objects] max_bytes"
    )
    assert outcome.document("kubernetes/things.x.example.yaml").startswith("# things.x.example: could not be read: ")
    assert outcome.captured.counts["objects"]["objects"] == 556


def test_a_list_without_end_has_its_time(root: Path, tmp_path: Path) -> None:
    """Where there is room for ever, the deadline ends it, with all that is done with the objects."""
    with Endless(root / "etc/kubernetes/pki") as server:
        server.text = "x"
        offer(server.recording)
        outcome = back_up(root, server, tmp_path, (ObjectsSource(),), deadline=timedelta(seconds=4))
    assert "was not done within 4 s" in outcome.said("objects")
    assert outcome.status("objects") is Status.PARTIAL


ODD: st.SearchStrategy[Any] = st.sampled_from([
    None, [], {}, 0, -1, 1.5, True, "", "x", "a\nb", "\x00\x1b[0m", "/", "../..", [[]], [None], ["x"], [1], {"": ""},
    {"a": None}, {"items": 5}, "9" * 5000, 10**30, "k8s" * 1000, {"name": []}, "--", "$(A)", {"kind": 1},
])  # fmt: skip


def small() -> Recording:
    """A recording with a few objects of each kind, one of them an external-dns."""
    found = recording()
    found[DEPLOYMENTS]["items"].insert(0, external_dns("--txt-owner-id=$(X)", env=[{"name": "X", "value": "y"}]))
    for answer in found.values():
        if isinstance(answer, dict) and isinstance(answer.get("items"), list):
            answer["items"] = answer["items"][:3]
    return found


def places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        found.append((value, key))
        places(value[key], found)
    return found


class Direct(Kube):
    """Asks a recording without a network: thousands of questions a second."""

    def __init__(self, api: ApiServer, access: Any) -> None:
        super().__init__(access, KubeSettings(requests_per_second=1_000_000), sleep=lambda _: None)
        self._api = api

    def _send(self, path: str, limit: int) -> tuple[int, bytes | None, float]:
        plain, _, query = path.partition("?")
        try:
            status, body = self._api.answer(plain, dict(each.split("=", 1) for each in query.split("&") if each))
        except (AttributeError, LookupError, TypeError, ValueError):  # no list that the lab could cut into pages
            status, body = 200, self._api.recording.get(plain)
        return status, json.dumps(body).encode(), 0.0


def test_any_part_may_be_odd(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever stands in the place of any part of an answer, the backup is made and comes back, or says why not."""
    whole = small()
    access = read_kubeconfig(kubeadm.node(root).files, "/etc/kubernetes/admin.conf")

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def check(data: st.DataObject) -> None:
        api = ApiServer(root / "etc/kubernetes/pki", copy.deepcopy(whole))
        for _ in range(data.draw(st.integers(1, 8))):
            found = places(api.recording[data.draw(st.sampled_from(sorted(whole)))], [])
            if found:
                holder, key = found[data.draw(st.integers(0, len(found) - 1))]
                holder[key] = copy.deepcopy(data.draw(ODD))
        node = dataclasses.replace(kubeadm.node(root), kube=Direct(api, access))
        of(node, tmp_path_factory.mktemp("odd"), SOURCES)

    check()


def test_the_commands_end_as_they_should(tmp_path: Path) -> None:
    """A control plane under all of this at once: the backup is stored, incomplete, and its restore is one."""
    with operated(tmp_path) as plane:
        for number, (_, hostile) in enumerate(sorted(HOSTILE.items())):
            before = len(plane.api.recording["/apis"]["groups"])
            hostile(plane.api.recording)
            for group in plane.api.recording["/apis"]["groups"][before:]:
                _rename(plane.api.recording, group, f"{number:02}")
        out, err = plane.operator.run("backup", code=3)
        assert "\x1b" not in out + err
        plane.operator.signers()
        to = tmp_path / "restored"
        words = ["restore", "latest", "--to", str(to), "--identity", str(plane.operator.identity)]
        command = [sys.executable, "-m", "edgedr", *plane.operator.words(*words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
        assert done.returncode in {0, 3}, done.stdout + done.stderr
        assert "\x1b" not in done.stdout + done.stderr


def _rename(of: Recording, group: dict[str, Any], prefix: str) -> None:
    """Let a group have a name that no other has."""
    old, new = group["name"], prefix + group["name"][len(prefix) :]
    group["name"] = new
    for version in (*group["versions"], group["preferredVersion"]):
        version["groupVersion"] = f"{new}/v1"
    for path in [path for path in of if path.startswith(f"/apis/{old}/")]:
        of[path.replace(old, new, 1)] = of.pop(path)


def test_no_kind_at_all_is_a_missing_source(root: Path, server: ApiServer, tmp_path: Path) -> None:
    """Without room for anything the source is missing; a backup that requires it is none."""
    with pytest.raises(SourceError, match="no kind could be read: does not fit"):
        back_up(root, server, tmp_path, sources=(ObjectsSource(max_bytes=Bytes(1), required=True),))
    outcome = back_up(root, server, tmp_path / "optional", sources=(ObjectsSource(max_bytes=Bytes(1)),))
    assert outcome.status("objects") is Status.MISSING
