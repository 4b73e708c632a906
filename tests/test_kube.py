"""The door to the Kubernetes API, against a real TLS server that fails in every way that one can."""

import os
import re
import socketserver
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from edgedr.errors import SourceError
from edgedr.node.files import Files
from edgedr.node.kube import Kube, KubeError, KubeSettings
from edgedr.node.kubeconfig import KubeAccess, read_kubeconfig
from tests.lab import kubeadm
from tests.lab.apiserver import ApiServer, recording, synthetic
from tests.lab.clock import Clock
from tests.lab.etcd import free_port
from tests.lab.pki import CLIENT, NOT_AFTER, NOT_BEFORE, SERVER, Authority, write_kubeadm_pki

CONFIGMAPS = "/api/v1/configmaps"
SECRETS = "/api/v1/secrets"
TOKEN = "canary-token-51f3"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kubeadm_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def server(pki: Path) -> Iterator[ApiServer]:
    with ApiServer(pki, recording()) as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kube(server: ApiServer, pki: Path, clock: Clock) -> Kube:
    return ask(server.url, pki, clock)


def ask(url: str, pki: Path, clock: Clock | None = None, **settings: Any) -> Kube:
    clock = clock or Clock()
    return Kube(access(url, pki), KubeSettings(**settings), clock=clock, sleep=clock.sleep)


def access(url: str, pki: Path) -> KubeAccess:
    ca, cert, key = (pki / name for name in ("ca.crt", "apiserver-kubelet-client.crt", "apiserver-kubelet-client.key"))
    return KubeAccess(url, ca.read_bytes(), cert.read_bytes(), key.read_bytes())


def names(items: list[dict[str, Any]]) -> list[str]:
    return [item["metadata"]["name"] for item in items]


def thing(name: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default"}, **more}


def things(*items: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "7"}, "items": list(items)}


def failure(kube: Kube, path: str = CONFIGMAPS) -> KubeError:
    with pytest.raises(KubeError) as caught:
        kube.every(path)
    return caught.value


class TestLists:
    def test_pages(self, server: ApiServer, pki: Path) -> None:
        """Page by page, every object comes once, in order, and says what it is."""
        server.recording[CONFIGMAPS] = synthetic(23)
        found = ask(server.url, pki, page=5).every(CONFIGMAPS)
        assert names(found) == [f"object-{number:06d}" for number in range(23)]
        assert {(item["apiVersion"], item["kind"]) for item in found} == {("v1", "ConfigMap")}
        assert len(server.requests) == 5
        assert all("limit=5" in request for request in server.requests)

    def test_rate(self, pki: Path, clock: Clock) -> None:
        """Requests begin no closer together than the settings say, and one at a time."""
        begun = []

        class Watched(ApiServer):
            def begin(self, path: str, headers: dict[str, str]) -> None:
                begun.append(clock.now)
                super().begin(path, headers)

        with Watched(pki, {**recording(), CONFIGMAPS: synthetic(40)}) as server:
            kube = ask(server.url, pki, clock, page=5, requests_per_second=4)
            kube.every(CONFIGMAPS)
            kube.every(SECRETS)
        assert len(begun) > 12
        assert all(later - earlier >= 0.25 for earlier, later in pairwise(begun))
        assert server.most_at_once == 1

    def test_time_between_questions_counts_for_the_rate(self, server: ApiServer, kube: Kube, clock: Clock) -> None:
        """Who asks seldom is not slowed down."""
        for _ in range(3):
            kube.get("/version")
            clock.now += 5
        assert clock.slept == []

    def test_outdated_once(self, server: ApiServer, pki: Path) -> None:
        """A list that is outdated in the middle begins anew: each object once, none of the first attempt."""
        server.recording[CONFIGMAPS] = synthetic(12)
        server.expire[CONFIGMAPS] = 1
        kube = ask(server.url, pki, page=5)
        taken: list[str] = []
        again: list[int] = []

        def restart() -> None:
            again.append(len(taken))
            taken.clear()

        assert kube.scan(CONFIGMAPS, lambda item: taken.append(item["metadata"]["name"]), restart) == 12
        assert again == [5]
        assert taken == [f"object-{number:06d}" for number in range(12)]

    def test_outdated_always(self, server: ApiServer, pki: Path) -> None:
        """A list that is outdated each time is an error, and what was taken of it is forgotten."""
        server.recording[CONFIGMAPS] = synthetic(12)
        server.expire[CONFIGMAPS] = -1
        taken: list[Any] = []
        with pytest.raises(KubeError, match="outdated before it was read, 3 times") as caught:
            ask(server.url, pki, page=5).scan(CONFIGMAPS, taken.append, taken.clear)
        assert caught.value.status == 410
        assert taken == []

    def test_too_large_a_page(self, server: ApiServer, pki: Path) -> None:
        """A page that is too large is asked for again in smaller ones; every object still comes once, in order."""
        server.recording[CONFIGMAPS] = synthetic(20, size=700 << 10)
        seen: list[str] = []
        ask(server.url, pki, page=16).scan(CONFIGMAPS, lambda item: seen.append(item["metadata"]["name"]), seen.clear)
        assert seen == [f"object-{number:06d}" for number in range(20)]
        limits = [re.search(r"limit=(\d+)", request)[1] for request in server.requests]  # type: ignore[index]
        assert limits[:4] == ["16", "2", "4", "8"]

    def test_one_object_larger_than_a_page(self, server: ApiServer, kube: Kube) -> None:
        """One object may be larger than a page may be."""
        server.recording[CONFIGMAPS] = things(thing("a"), thing("huge", data={"x": "y" * (9 << 20)}), thing("z"))
        found = kube.every(CONFIGMAPS)
        assert names(found) == ["a", "huge", "z"]
        assert len(found[1]["data"]["x"]) == 9 << 20

    def test_endless_answer(self, server: ApiServer, kube: Kube) -> None:
        """An answer that no page size makes small enough is given up, whatever its length, and others are not."""
        server.huge[CONFIGMAPS] = 1 << 40
        assert failure(kube).message == "the API server's answer to /api/v1/configmaps is longer than 16 MiB"
        assert kube.every(SECRETS)

    def test_pages_in_a_circle(self, server: ApiServer, kube: Kube) -> None:
        """A server that always sends the same page is not followed for ever."""
        circle = {**things(thing("a")), "metadata": {"continue": "again"}}
        server.raw[CONFIGMAPS] = repr(circle).replace("'", '"').encode()
        assert "go round in a circle" in failure(kube).message
        assert len(server.requests) == 2

    def test_the_same_objects_for_ever(self, pki: Path, clock: Clock) -> None:
        """Nor is one whose tokens are new each time, but not what comes with them."""
        with Endless(pki, lambda number: [thing("a"), thing("b")]) as server:
            assert "go round in a circle" in failure(ask(server.url, pki, clock)).message
            assert len(server.requests) == 2

    @pytest.mark.parametrize("size", [0, 10])
    def test_new_objects_for_ever(self, pki: Path, clock: Clock, size: int) -> None:
        """A list without end ends at the deadline, whether its pages are empty or not; what is done with it counts."""

        def take(_: dict[str, Any]) -> None:
            clock.now += 0.1

        again: list[int] = []
        with Endless(pki, lambda number: [thing(f"{number}-{each}") for each in range(size)]) as server:
            kube = ask(server.url, pki, clock, requests_per_second=10, deadline=timedelta(seconds=11))
            with pytest.raises(KubeError, match="was not done within 11 s"):
                kube.scan(CONFIGMAPS, take, lambda: again.append(1))
            assert len(server.requests) == (11 if size else 110)
            assert again == [1]
            assert "was not done within 11 s" in failure(kube, SECRETS).message

    def test_who_takes_may_end_it(self, server: ApiServer, kube: Kube) -> None:
        """What is raised over an object goes to whoever asked, and no further page is asked for."""

        def take(item: dict[str, Any]) -> None:
            raise OverflowError(item["metadata"]["name"])

        server.recording[CONFIGMAPS] = synthetic(1000)
        with pytest.raises(OverflowError, match="object-000000"):
            kube.scan(CONFIGMAPS, take, list)
        assert len(server.requests) == 1

    def test_a_small_list_that_is_not(self, server: ApiServer, pki: Path) -> None:
        """What is held in memory as a whole has a bound."""
        server.recording[CONFIGMAPS] = synthetic(10_001, size=10)
        kube = ask(server.url, pki, page=5000)
        assert failure(kube).message == f"the list of {CONFIGMAPS} has more than 10000 objects"

    def test_twenty_thousand(self, server: ApiServer, kube: Kube) -> None:
        """20,000 objects pass through in little more memory than one page takes, the server's included."""
        server.recording[CONFIGMAPS] = synthetic(20_000, size=2000)
        kube.get("/version")
        taken: list[int] = []
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            count = kube.scan(CONFIGMAPS, lambda item: taken.append(len(item["data"]["value"])), taken.clear)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert count == 20_000
        assert sum(taken) == 40_000_000
        assert peak - before < 8 << 20

    def test_a_question_of_ones_own(self, server: ApiServer, kube: Kube) -> None:
        """A path may carry a query of its own."""
        kube.every("/api/v1/pods?fieldSelector=spec.nodeName%3Dcp-1")
        assert server.requests == ["/api/v1/pods?fieldSelector=spec.nodeName%3Dcp-1&limit=250"]


class TestRefusals:
    def test_forbidden(self, server: ApiServer, kube: Kube) -> None:
        """What we may not list is named, at once, with what to do; the rest is still there."""
        server.refuse[SECRETS] = 403
        error = failure(kube, SECRETS)
        assert error.status == 403
        assert error.message == "the API server refused /api/v1/secrets: /api/v1/secrets is refused"
        assert "must be allowed to read it" in str(error.hint)
        assert len(server.requests) == 1
        assert kube.every(CONFIGMAPS)

    def test_find(self, server: ApiServer, kube: Kube) -> None:
        """A kind that the server does not have has no objects; one that it refuses is another matter."""
        assert kube.find("/apis/metallb.io/v1beta1/ipaddresspools") == []
        assert failure(kube, "/apis/metallb.io/v1beta1/ipaddresspools").status == 404
        server.refuse[SECRETS] = 403
        with pytest.raises(KubeError):
            kube.find(SECRETS)

    def test_too_many_requests(self, server: ApiServer, kube: Kube, clock: Clock) -> None:
        """A server that asks for patience gets as much as it asks for, within reason."""
        server.refuse[CONFIGMAPS], server.refusals[CONFIGMAPS] = 429, 1
        server.retry_after[CONFIGMAPS] = "7"
        assert kube.every(CONFIGMAPS)
        assert clock.slept == [7.0]

    @pytest.mark.parametrize(
        ("asked", "slept"),
        [("86400", 10.0), ("-5", 1.0), ("nan", 1.0), ("1e9", 1.0), ("Fri, 31 Dec 1999 23:59:59 GMT", 1.0)],
    )
    def test_retry_after_is_believed_within_reason(
        self, server: ApiServer, kube: Kube, clock: Clock, asked: str, slept: float
    ) -> None:
        """A Retry-After that is no number, or too long a wait, does not decide how long we wait."""
        server.refuse[CONFIGMAPS], server.refusals[CONFIGMAPS] = 429, 1
        server.retry_after[CONFIGMAPS] = asked
        assert kube.every(CONFIGMAPS)
        assert clock.slept == [slept]

    @pytest.mark.parametrize("status", [500, 503])
    def test_passing_trouble(self, server: ApiServer, kube: Kube, clock: Clock, status: int) -> None:
        """What passes is waited for, longer each time."""
        server.refuse[CONFIGMAPS], server.refusals[CONFIGMAPS] = status, 2
        assert kube.every(CONFIGMAPS)
        assert clock.slept == [1.0, 2.0]

    @pytest.mark.parametrize("status", [500, 503])
    def test_lasting_trouble(self, server: ApiServer, kube: Kube, status: int) -> None:
        """What does not pass is an error after three tries, and only for what was asked."""
        server.refuse[CONFIGMAPS] = status
        error = failure(kube)
        assert error.status == status
        assert "kubectl get apiservices" in str(error.hint)
        assert len(server.requests) == 3
        assert kube.every(SECRETS)

    def test_redirect(self, server: ApiServer, kube: Kube, pki: Path) -> None:
        """A redirect is never followed: neither our certificate nor our token goes elsewhere."""
        with ApiServer(pki, recording()) as elsewhere:
            server.redirect[CONFIGMAPS] = elsewhere.url + CONFIGMAPS
            error = failure(kube)
            assert error.status == 302
            assert "redirects are not followed" in str(error.hint)
            assert elsewhere.requests == []

    def test_only_reads(self, server: ApiServer, kube: Kube) -> None:
        """Whatever is asked, nothing is ever written."""
        for kind in kube.kinds().listable:
            kube.find(kind.path)
        assert len(server.requests) > 60
        assert server.writes == []


class TestAnswers:
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"not json",
            b"[" * 100_000,
            b'{"items": ' + b'{"a":' * 100_000,
            b'{"apiVersion": "v1", "kind": "X", "items": [], "n": ' + b"9" * 5000 + b"}",
            b'{"apiVersion": "v1", "kind": "X", "items": [], "n": NaN}',
            b'{"apiVersion": "v1", "kind": "X", "items": [], "n": 1e999}',
            b'{"apiVersion": "v1", "kind": "X", "items": [], "n": "\\ud800"}',
            b'{"apiVersion": "v1", "kind": "X", "items": [], "n": "\xed\xa0\x80"}',
            b'{"apiVersion": "v1", "kind": "X", "items": [], "n": "\xff"}',
        ],
        ids=["empty", "text", "nested", "nested-in", "number", "nan", "infinite", "half-escape", "half", "latin"],
    )
    def test_not_json(self, server: ApiServer, kube: Kube, body: bytes) -> None:
        """An answer that is not JSON, or a bomb in it, is named; what is kept could always be written as UTF-8."""
        server.raw[CONFIGMAPS] = body
        error = failure(kube)
        assert error.message == "the API server's answer to /api/v1/configmaps is not JSON"
        assert kube.every(SECRETS)

    @pytest.mark.parametrize(
        "body",
        [
            b"[]",
            b"3",
            b"null",
            b"{}",
            b'{"kind": "Status", "apiVersion": "v1", "status": "Success"}',
            b'{"apiVersion": "v1", "kind": "XList"}',
            b'{"apiVersion": "v1", "kind": "XList", "items": 3}',
            b'{"apiVersion": "v1", "kind": "XList", "items": "abc"}',
            b'{"apiVersion": "v1", "kind": "XList", "items": [3]}',
            b'{"apiVersion": "v1", "kind": "XList", "items": [{}]}',
            b'{"apiVersion": "v1", "kind": "XList", "items": [{"metadata": null}]}',
            b'{"apiVersion": "v1", "kind": "XList", "items": [{"metadata": {"name": 3}}]}',
            b'{"apiVersion": "v1", "kind": 4, "items": []}',
            b'{"apiVersion": "v1", "kind": "XList", "items": [], "metadata": [1]}',
            b'{"apiVersion": "v1", "kind": "XList", "items": [], "metadata": {"continue": 5}}',
        ],
    )
    def test_not_a_list(self, server: ApiServer, kube: Kube, body: bytes) -> None:
        """JSON that is no list of named objects never passes for an empty list, and never breaks who reads it."""
        server.raw[CONFIGMAPS] = body
        assert re.search(r"is not (a list of objects|an object)$", failure(kube).message)

    def test_no_items(self, server: ApiServer, kube: Kube) -> None:
        """Go writes an empty list as null."""
        server.raw[CONFIGMAPS] = b'{"apiVersion": "v1", "kind": "XList", "metadata": {}, "items": null}'
        assert kube.every(CONFIGMAPS) == []

    def test_web_page(self, server: ApiServer, kube: Kube) -> None:
        """A proxy's welcome page is no answer, though its status is 200."""
        server.html.add(CONFIGMAPS)
        error = failure(kube)
        assert error.message == "the API server's answer to /api/v1/configmaps is not JSON"
        assert error.hint == "is that an API server?"


class TestKinds:
    def test_all(self, kube: Kube, server: ApiServer) -> None:
        """All that can be listed is found, each once, sorted, with where it is; it is asked once."""
        kinds = kube.kinds()
        by_name = {kind.name: kind for kind in kinds.listable}
        assert list(by_name) == sorted(by_name)
        assert len(by_name) == len(kinds.listable)
        assert by_name["secrets"].path == "/api/v1/secrets"
        assert by_name["deployments.apps"].path == "/apis/apps/v1/deployments"
        assert by_name["certs.cert.example.test"].namespaced
        assert not by_name["nodes"].namespaced
        assert "pods/log" not in by_name
        assert "tokenreviews.authentication.k8s.io" not in by_name
        assert kinds.broken == ()
        asked = len(server.requests)
        assert kube.kinds() is kinds
        assert len(server.requests) == asked

    def test_preferred_version(self, kube: Kube) -> None:
        """A kind that several versions serve is taken in the preferred one only."""
        found = [kind for kind in kube.kinds().listable if kind.plural == "horizontalpodautoscalers"]
        assert [kind.api_version for kind in found] == ["autoscaling/v2"]

    def test_preferred_version_is_not_first(self, server: ApiServer, kube: Kube) -> None:
        """The preferred version counts, not the first of the list; what only another version has is there too."""
        group = next(group for group in server.recording["/apis"]["groups"] if group["name"] == "autoscaling")
        group["versions"].reverse()
        other = {"groupVersion": "autoscaling/v1", "kind": "APIResourceList", "resources": []}
        whole = server.recording["/apis/autoscaling/v2"]["resources"]
        old = {"name": "olds", "kind": "Old", "namespaced": True, "verbs": ["list"]}
        server.recording["/apis/autoscaling/v1"] = {**other, "resources": [*whole, old]}
        found = {kind.name: kind.version for kind in kube.kinds().listable if kind.group == "autoscaling"}
        assert found == {"horizontalpodautoscalers.autoscaling": "v2", "olds.autoscaling": "v1"}

    def test_two_groups_with_the_same_objects(self, kube: Kube) -> None:
        """Objects that two groups serve are not taken twice: events, for one."""
        assert [kind.name for kind in kube.kinds().listable if kind.plural == "events"] == ["events"]

    @pytest.mark.parametrize("plural", ["t{}", "{}"])
    def test_nobody_hides_a_kind(self, server: ApiServer, kube: Kube, plural: str) -> None:
        """Who repeats the marks of ``apps`` in an earlier group, under other plurals or the same, hides nothing."""
        before = {kind.name for kind in kube.kinds().listable}
        version = {"groupVersion": "a.example/v1", "version": "v1"}
        server.recording["/apis"]["groups"].insert(0, {"name": "a.example", "versions": [version]})
        whole = [each for each in server.recording["/apis/apps/v1"]["resources"] if each.get("storageVersionHash")]
        assert len(whole) >= 5
        copied = [{**each, "name": plural.format(each["name"])} for each in whole]
        server.recording["/apis/a.example/v1"] = {"kind": "APIResourceList", "resources": copied}
        after = {kind.name for kind in ask(kube.server, server.pki).kinds().listable}
        assert after == before | {f"{each['name']}.a.example" for each in copied}

    def test_a_name_that_is_too_long(self, server: ApiServer, kube: Kube) -> None:
        """A kind with a longer name than any that Kubernetes takes costs its group."""
        server.recording["/apis/db.example.test/v1"]["resources"][0]["name"] = "x" * 254
        assert [name for name, _ in kube.kinds().broken] == ["db.example.test/v1"]

    def test_broken_group(self, server: ApiServer, kube: Kube) -> None:
        """A broken APIService is named with why, and the rest is there."""
        server.refuse["/apis/db.example.test/v1"] = 503
        kinds = kube.kinds()
        why = "the API server refused /apis/db.example.test/v1: /apis/db.example.test/v1 is refused"
        assert kinds.broken == (("db.example.test/v1", why),)
        by_name = {kind.name for kind in kinds.listable}
        assert "postgreses.db.example.test" not in by_name
        assert {"secrets", "certs.cert.example.test", "roles.rbac.authorization.k8s.io"} <= by_name

    def test_stalled_group(self, server: ApiServer, pki: Path) -> None:
        """An extension that never answers costs one wait, and not the server's reputation."""
        server.stall.add("/apis/db.example.test/v1")
        kinds = ask(server.url, pki, answer=timedelta(seconds=0.3)).kinds()
        assert [name for name, _ in kinds.broken] == ["db.example.test/v1"]
        assert len([request for request in server.requests if "db.example" in request]) == 1
        assert len(kinds.listable) > 50

    @pytest.mark.parametrize(
        "resources",
        [
            3,
            [3],
            [{"name": 3}],
            [
                {"name": "../../secrets", "kind": "X", "verbs": ["list"]},
                {"name": "a b", "kind": "X", "verbs": ["list"]},
            ],
            [{"name": "as", "verbs": ["list"]}],
        ],
    )
    def test_nonsense(self, server: ApiServer, kube: Kube, resources: Any) -> None:
        """A group that talks nonsense is named, and the rest is there."""
        server.recording["/apis/db.example.test/v1"]["resources"] = resources
        kinds = kube.kinds()
        assert [name for name, _ in kinds.broken] == ["db.example.test/v1"]

    def test_no_groups(self, server: ApiServer, kube: Kube) -> None:
        """Without the groups nothing is known, and that is not nothing."""
        server.refuse["/apis"] = 403
        with pytest.raises(KubeError) as caught:
            kube.kinds()
        assert caught.value.status == 403
        server.refuse.clear()
        server.recording["/apis"] = {"kind": "APIGroupList", "groups": [{"name": "../..", "versions": []}]}
        with pytest.raises(KubeError, match="is not a list of groups"):
            kube.kinds()


class TestConnection:
    def test_nothing_listens(self, pki: Path, clock: Clock) -> None:
        """Where nothing listens, we say so at once, and once: later questions cost nothing."""
        url = f"https://127.0.0.1:{free_port()}"
        kube = ask(url, pki, clock)
        error = failure(kube)
        assert error.message == f"cannot reach the API server at {url}: connection refused"
        assert error.status is None
        assert failure(kube, SECRETS).message == error.message
        with pytest.raises(KubeError, match="connection refused"):
            kube.kinds()
        assert clock.slept == []

    def test_wrong_authority(self, server: ApiServer, pki: Path, tmp_path: Path) -> None:
        """A server that another authority vouches for gets neither question nor token."""
        other = write_kubeadm_pki(tmp_path)
        of = access(server.url, pki)
        kube = Kube(KubeAccess(of.server, (other / "ca.crt").read_bytes(), token=TOKEN), clock=Clock())
        error = failure(kube)
        assert "its certificate cannot be trusted: " in error.message
        assert "the kubeconfig's authority" in str(error.hint)
        assert server.requests == []

    def test_wrong_name(self, pki: Path, tmp_path: Path) -> None:
        """A certificate of our authority for another address is not accepted."""
        elsewhere = write_kubeadm_pki(tmp_path, addresses=("10.0.0.1",))
        with ApiServer(elsewhere, {}) as server:
            error = failure(ask(server.url, elsewhere))
            assert "its certificate cannot be trusted: IP address mismatch" in error.message
            assert server.requests == []

    def test_intermediate_authority(self, pki: Path, tmp_path: Path) -> None:
        """As for kubectl, the kubeconfig's authority may be an intermediate one, without its root."""
        root = Authority.make("root")
        between = intermediate(root)
        between.issue(tmp_path / "apiserver", "kube-apiserver", SERVER, sans=("127.0.0.1",))
        (tmp_path / "ca.crt").write_bytes((pki / "ca.crt").read_bytes())
        of = access("", pki)
        with ApiServer(tmp_path, recording()) as server:
            ca = between.certificate.public_bytes(Encoding.PEM)
            assert Kube(KubeAccess(server.url, ca, of.cert, of.key)).every(SECRETS)

    def test_our_certificate_is_refused(self, server: ApiServer, pki: Path, tmp_path: Path) -> None:
        """A client certificate of another authority: named as such, and no retries, for it would not help."""
        Authority.make("stranger").issue(tmp_path / "client", "kubernetes-admin", CLIENT, organization="system:masters")
        cert, key = ((tmp_path / f"client.{end}").read_bytes() for end in ("crt", "key"))
        clock = Clock()
        kube = Kube(KubeAccess(server.url, (pki / "ca.crt").read_bytes(), cert, key), clock=clock, sleep=clock.sleep)
        error = failure(kube)
        assert "it refused our certificate" in error.message
        assert "renew the kubeconfig" in str(error.hint)
        assert clock.slept == []
        assert server.requests == []

    def test_anonymous(self, server: ApiServer, pki: Path) -> None:
        """Without a certificate the server says who we are not."""
        error = failure(Kube(KubeAccess(server.url, (pki / "ca.crt").read_bytes()), clock=Clock()))
        assert error.status == 401
        assert "renew the kubeconfig" in str(error.hint)

    def test_without_tls(self, pki: Path) -> None:
        """A port that speaks plain HTTP is named, and we never speak plainly to it."""
        with listener(b"HTTP/1.1 400 Bad Request\r\n\r\n") as (url, heard):
            assert "it does not speak TLS" in failure(ask(url, pki)).message
        assert not heard[0].startswith(b"GET")

    def test_unusable_key(self, server: ApiServer, pki: Path) -> None:
        """A key that is none, or not that of its certificate, is named without showing a byte of it."""
        good = access(server.url, pki)
        foreign = (pki / "front-proxy-client.key").read_bytes()
        for key in (b"canary-not-a-key", foreign, None):
            error = failure(Kube(KubeAccess(server.url, good.ca, good.cert, key)))
            assert error.message == "a certificate or key of the kubeconfig cannot be used"
        assert failure(Kube(KubeAccess(server.url, b"\xff", good.cert, good.key))).message == error.message

    def test_stall(self, server: ApiServer, pki: Path, clock: Clock) -> None:
        """A server that sends headers and then nothing is given up on in time, without asking again."""
        server.stall.add(CONFIGMAPS)
        kube = ask(server.url, pki, clock, answer=timedelta(seconds=0.3))
        error = failure(kube)
        assert error.message == "the API server gave no answer to /api/v1/configmaps within 0.3 s"
        assert "[kubernetes] answer" in str(error.hint)
        assert len(server.requests) == 1
        assert kube.every(SECRETS)

    def test_trickle(self, server: ApiServer, pki: Path) -> None:
        """A body that comes byte by byte, never quite silent, is given up on in time too."""
        server.trickle.add(CONFIGMAPS)
        kube = ask(server.url, pki, answer=timedelta(seconds=0.3))
        assert failure(kube).message == "the API server gave no answer to /api/v1/configmaps within 0.3 s"

    def test_trickling_headers(self, server: ApiServer, pki: Path) -> None:
        """So are headers without an end."""
        server.trickle_headers.add(CONFIGMAPS)
        kube = ask(server.url, pki, answer=timedelta(seconds=0.3))
        assert failure(kube).message == "the API server gave no answer to /api/v1/configmaps within 0.3 s"
        assert kube.every(SECRETS)

    def test_hangs_up_between_questions(self, server: ApiServer, kube: Kube) -> None:
        """A connection that was closed between two questions is opened again."""
        for _ in range(3):
            assert kube.every(SECRETS)
            server.hang_up()
        assert len(kube.every(CONFIGMAPS)) == 40

    def test_stalls_throughout(self, server: ApiServer, pki: Path) -> None:
        """A server that answers nothing is not waited for again and again: after three waits it is given up."""
        paths = [CONFIGMAPS, SECRETS, "/api/v1/nodes", "/api/v1/pods", "/api/v1/services"]
        server.stall.update(paths)
        kube = ask(server.url, pki, answer=timedelta(seconds=0.2))
        errors = [failure(kube, path) for path in paths]
        assert len(server.requests) == 3
        assert errors[4].message == f"the API server at {server.url} no longer answers"

    def test_stalls_now_and_then(self, server: ApiServer, pki: Path) -> None:
        """What does not answer is not held against a server that answers other questions in between."""
        paths = ["/api/v1/nodes", "/api/v1/pods", "/api/v1/services", "/api/v1/events"]
        server.stall.update(paths)
        kube = ask(server.url, pki, answer=timedelta(seconds=0.2))
        for path in paths:
            assert "gave no answer" in failure(kube, path).message
            assert kube.every(SECRETS)

    def test_stalls_while_kinds_are_asked(self, server: ApiServer, pki: Path) -> None:
        """What a server that has gone away did not tell is not a list of broken groups."""
        server.stall.update(path for path in server.recording if path.startswith("/apis/"))
        with pytest.raises(KubeError, match=r"no longer answers|gave no answer"):
            ask(server.url, pki, answer=timedelta(seconds=0.2)).kinds()

    def test_cut(self, server: ApiServer, kube: Kube, clock: Clock) -> None:
        """An answer that breaks off is asked for again; half an answer is none."""
        server.recording[CONFIGMAPS] = synthetic(30)
        server.cut[CONFIGMAPS] = 2
        assert len(kube.every(CONFIGMAPS)) == 30
        assert len(server.requests) == 3
        assert clock.slept == [1.0, 2.0]

    def test_cut_small(self, server: ApiServer, kube: Kube) -> None:
        """An answer of known length is not taken for whole when it ends early."""
        server.recording[CONFIGMAPS] = things(thing("a"))
        server.cut[CONFIGMAPS] = -1
        error = failure(kube)
        assert error.message == "the API server broke off its answer to /api/v1/configmaps"
        assert len(server.requests) == 3
        assert kube.every(SECRETS)

    def test_deadline_over_all(self, server: ApiServer, pki: Path, clock: Clock) -> None:
        """All answers together have a deadline; beyond it nothing more is asked, and later questions fail at once."""
        server.recording[CONFIGMAPS] = synthetic(100)
        kube = ask(server.url, pki, clock, page=1, deadline=timedelta(seconds=3))
        error = failure(kube)
        assert error.message == f"the API server at {server.url} was not done within 3 s"
        assert "[kubernetes] deadline" in str(error.hint)
        asked = len(server.requests)
        assert asked == 30
        assert failure(kube, SECRETS).message == error.message
        assert len(server.requests) == asked

    def test_deadline_is_for_answers(self, server: ApiServer, pki: Path, clock: Clock) -> None:
        """What else a backup does between two questions is not the API server's time."""
        kube = ask(server.url, pki, clock, deadline=timedelta(seconds=3))
        for _ in range(5):
            assert kube.every(SECRETS)
            clock.now += 60

    def test_deadline_bounds_patience(self, server: ApiServer, pki: Path, clock: Clock) -> None:
        """No wait between two tries goes beyond the deadline."""
        server.refuse[CONFIGMAPS] = 429
        server.retry_after[CONFIGMAPS] = "10"
        kube = ask(server.url, pki, clock, deadline=timedelta(seconds=4))
        assert "was not done within 4 s" in failure(kube).message
        assert clock.slept == [4.0]

    def test_proxies_of_the_environment(self, server: ApiServer, kube: Kube, monkeypatch: pytest.MonkeyPatch) -> None:
        """A proxy that the environment names has no business between us and our own API server."""
        nowhere = f"http://127.0.0.1:{free_port()}"
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, nowhere)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        assert kube.every(CONFIGMAPS)


class TestSecrets:
    def test_token(self, server: ApiServer, pki: Path) -> None:
        """A token lets us in, and is in no message: not even where the server repeats it."""
        server.tokens.add(TOKEN)
        of = KubeAccess(server.url, (pki / "ca.crt").read_bytes(), token=TOKEN)
        kube = Kube(of, clock=(clock := Clock()), sleep=clock.sleep)
        assert kube.every(CONFIGMAPS)
        assert server.headers[0]["Authorization"] == f"Bearer {TOKEN}"
        said = [repr(of), str(of), repr(kube)]
        for path, body in ((CONFIGMAPS, b"<html>"), (SECRETS, TOKEN.encode())):
            server.raw[path] = body
            said.append(failure(kube, path).message)
        error = failure(kube, f"/api/v1/{TOKEN}")
        server.tokens.clear()
        said += [error.message.replace(f"/api/v1/{TOKEN}", ""), failure(kube, "/api/v1/nodes").message]
        assert not any(TOKEN in text for text in said)

    def test_server_repeats_the_token(self, pki: Path) -> None:
        """What a server says is shown, but for our own token in it, and for what moves a terminal's cursor."""

        class Parrot(ApiServer):
            def answer(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
                return 403, {"kind": "Status", "message": f"who is {self.headers[-1]['Authorization']}?\x1b[2J\n"}

        with Parrot(pki, {}) as server:
            server.tokens.add(TOKEN)
            error = failure(Kube(KubeAccess(server.url, (pki / "ca.crt").read_bytes(), token=TOKEN)))
        assert error.message == "the API server refused /api/v1/configmaps: who is Bearer …? [2J "

    def test_a_token_that_no_header_may_hold(self) -> None:
        """A token with a line break in it is refused before it could end up in a library's message."""
        for token in ("canary\nline", "canary\r\nX: y", "canary-ü", ""):
            with pytest.raises(ValueError, match="no header may hold") as caught:
                KubeAccess("https://127.0.0.1:1", None, token=token)
            assert "canary" not in str(caught.value)

    def test_nothing_on_disk(self, server: ApiServer, pki: Path, tmp_path: Path) -> None:
        """Nothing is opened for writing, neither our key nor TLS secrets; and no memory file stays open."""
        log = tmp_path / "keys.log"
        script = """
import os, sys
opened = []
def watch(event, args):
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT
    if event == "open" and isinstance(args[0], (str, bytes)) and (args[2] or 0) & writing:
        opened.append(args[0])
from tests.test_kube import access, CONFIGMAPS
from edgedr.node.kube import Kube
from pathlib import Path
kube = Kube(access(sys.argv[1], Path(sys.argv[2])))
sys.addaudithook(watch)
assert kube.every(CONFIGMAPS)
assert not opened, opened
from tests.test_kube import descriptors
print([name for name in descriptors() if "memfd" in name])
"""
        environment = {**os.environ, "SSLKEYLOGFILE": str(log), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-c", script, server.url, str(pki)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "[]\n"
        assert not log.exists()

    def test_many_doors(self, server: ApiServer, pki: Path) -> None:
        """A process that opens the door often, a daemon for one, leaves no memory files with keys behind."""
        kubes = [ask(server.url, pki) for _ in range(20)]
        for kube in kubes:
            kube.get("/version")
        assert not [name for name in descriptors() if "memfd" in name]


class TestUnusable:
    """What stands for an API server whose kubeconfig cannot be used."""

    def test_every_question_is_answered_with_why(self) -> None:
        """Its error and its hint, at once, however often; and what was taken is forgotten as with any other error."""
        clock = Clock()
        kube = Kube.unusable(SourceError("/x.conf is no kubeconfig", hint="set another"))
        forgotten: list[int] = []
        for ask_it in (
            kube.kinds,
            lambda: kube.get("/version"),
            lambda: kube.every(SECRETS),
            lambda: kube.find(SECRETS),
            lambda: kube.scan(SECRETS, list, lambda: forgotten.append(1)),
            kube.kinds,
        ):
            with pytest.raises(KubeError) as caught:
                ask_it()
            assert (caught.value.message, caught.value.hint) == ("/x.conf is no kubeconfig", "set another")
            assert caught.value.status is None
        assert forgotten == [1]
        assert clock.slept == []
        assert kube._connection is None


class Endless(ApiServer):
    """Answers each question for ConfigMaps with a page that another follows."""

    def __init__(self, pki: Path, make: Callable[[int], list[dict[str, Any]]]) -> None:
        super().__init__(pki, recording())
        self._make = make
        self._page = 0

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        if path != CONFIGMAPS:
            return super().answer(path, query)
        self._page += 1
        return 200, {**things(*self._make(self._page)), "metadata": {"continue": f"token-{self._page}"}}


class TestShape:
    def test_import_is_cheap(self) -> None:
        """What a command does not ask it does not import."""
        script = (
            "import sys, edgedr.node.kube, edgedr.node.kubeconfig;"
            "print(sorted({'kubernetes', 'urllib3', 'yaml', 'cryptography', 'requests'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout == "[]\n"

    def test_recorded_node(self, tmp_path: Path) -> None:
        """The kubeconfig that kubeadm wrote opens the door of its cluster."""
        root = kubeadm.unpack(tmp_path)
        with ApiServer(root / "etc/kubernetes/pki") as server:
            of = read_kubeconfig(Files(root), "/etc/kubernetes/admin.conf", server=server.url)
            assert names(Kube(of).every("/api/v1/nodes"))[0] == "cp-1"
            assert "admin" in subject(of)


def intermediate(root: Authority) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "between")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(root.certificate.subject)
    builder = builder.not_valid_before(NOT_BEFORE).not_valid_after(NOT_AFTER).serial_number(7)
    builder = builder.public_key(key.public_key()).add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
    return Authority(builder.sign(root.key, hashes.SHA256()), key)


def subject(of: KubeAccess) -> str:
    assert of.cert is not None
    return x509.load_pem_x509_certificate(of.cert).subject.rfc4514_string()


def descriptors() -> list[str]:
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # that of the listing itself
            found.append(str(descriptor.readlink()))
    return found


@contextmanager
def listener(reply: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A port that answers anything with ``reply``, in plain; and what it heard."""
    heard: list[bytes] = []

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            heard.append(self.request.recv(4096))
            self.request.sendall(reply)

    with socketserver.TCPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_address[1]}", heard
        finally:
            server.shutdown()
            thread.join()
