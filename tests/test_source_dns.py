"""The dns source: real nameservers, an API server of its own, and what goes wrong with each."""

import dataclasses
import hashlib
import json
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dns.message
import dns.rrset
import pytest
import yaml

from edgedr.archive import DOCUMENT
from edgedr.decoding import Reading, decode
from edgedr.inventory import Inventory
from edgedr.layouts import KUBEADM, UNKNOWN, Layout
from edgedr.model import Finding, Severity
from edgedr.node.files import Files
from edgedr.node.kube import Kube
from edgedr.node.kubeconfig import KubeAccess
from edgedr.node.node import Node
from edgedr.sources.base import Captured, Count, Document, Fact, Lacking, TakePath
from edgedr.sources.dns import DnsSource, zone_member
from edgedr.sources.documents import document_fact, document_path
from edgedr.zone_transfers import Transfer, transfer_problems
from tests.lab.etcd import free_port
from tests.lab.nameserver import (
    CANARIES,
    CLOSED,
    KEY,
    OTHER_SECRET,
    PUBLIC,
    SECRET,
    ZONES,
    Bind,
    Knot,
    OddNameserver,
    RealNameserver,
    records_of,
)
from tests.source_contract import Restored, SourceContract, restore

COREFILE = ".:53 {\n    errors\n    health {\n       lameduck 5s\n    }\n    forward . /etc/resolv.conf\n}\n"
CONFIG_MAPS = "/api/v1/namespaces/kube-system/configmaps"
DEPLOYMENTS = "/apis/apps/v1/deployments"
WITH_KEY = ("example.test", "0/25.2.0.192.in-addr.arpa", "8.b.d.0.1.0.0.2.ip6.arpa", "xn--bcher-kva.test", "large.test")


def config_map(name: str, data: dict[str, str] | None, **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "kube-system",
            "uid": "133adb72-1d7b-4c14-ae00-e8ad33d94e71",
            "resourceVersion": "252",
            "creationTimestamp": "2026-11-22T22:35:40Z",
            "managedFields": [{"manager": "kubeadm", "operation": "Update"}],
            **metadata,
        },
        "data": data,
    }


def deployment(
    name: str, *arguments: str, image: str = "registry.k8s.io/external-dns/external-dns:v0.15.1", **container: Any
) -> dict[str, Any]:
    containers = [{"name": "main", "image": image, "args": list(arguments), **container}]
    return {
        "metadata": {"name": name, "namespace": "dns", "labels": {"app": name}},
        "spec": {"template": {"spec": {"containers": containers}}},
    }


@contextmanager
def api_server(answers: dict[str, list[dict[str, Any]] | int]) -> Iterator[Kube]:
    """Serve lists by path, or a status; what is not named is an empty list."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer = answers.get(urlsplit(self.path).path, [])
            kind = "DeploymentList" if "deployments" in self.path else "ConfigMapList"
            body: dict[str, Any] = {"kind": kind, "apiVersion": "apps/v1" if "apps" in self.path else "v1"}
            body |= {"message": "not today"} if isinstance(answer, int) else {"metadata": {}, "items": answer}
            content = json.dumps(body).encode()
            self.send_response(answer if isinstance(answer, int) else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield kube_at(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def kube_at(port: int) -> Kube:
    return Kube(KubeAccess(f"http://127.0.0.1:{port}", None), sleep=lambda _: None)


@pytest.fixture(scope="module", params=[Knot, Bind])
def nameserver(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealNameserver]:
    with request.param(tmp_path_factory.mktemp("nameserver"), ZONES, public=PUBLIC, closed=CLOSED) as running:
        yield running


@pytest.fixture(scope="module")
def knot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealNameserver]:
    with Knot(tmp_path_factory.mktemp("knot"), ZONES, public=PUBLIC, closed=CLOSED) as running:
        yield running


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The secrets, where the references in these tests say."""
    monkeypatch.setenv("EDGEDR_TEST_TSIG", SECRET)
    monkeypatch.setenv("EDGEDR_TEST_OTHER", OTHER_SECRET)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "node"
    for path, content in {
        "etc/hosts": "127.0.0.1 localhost\n192.0.2.11 cp-1\n",
        "etc/nsswitch.conf": "hosts: files dns\n",
        "run/systemd/resolve/stub-resolv.conf": "nameserver 127.0.0.53\n",
        "run/systemd/resolve/resolv.conf": "nameserver 192.0.2.53\n",
        "etc/bind/named.conf": "options { };\n",
        "var/lib/bind/site.zone": ZONES["public.test"],
        "srv/dns/extra.zone": ZONES["public.test"],
        "srv/dns/extra.zone.jnl": "journal",
        "etc/passwd": "root:x:0:0::/root:/bin/sh\n",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    (root / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    return root


def node_at(root: Path, layout: Layout = UNKNOWN, **parts: Any) -> Node:
    return Node(Files(root), layout, **parts)


def with_key(server: str, *zones: str, **settings: Any) -> Transfer:
    return Transfer(**{"server": server, "zones": zones, "key": KEY, "secret": "env:EDGEDR_TEST_TSIG", **settings})


def captured(root: Path, *transfers: Transfer, **parts: Any) -> list[Captured]:
    return list(DnsSource(transfers=transfers).capture(node_at(root, **parts)))


def documents(items: list[Captured]) -> dict[str, str]:
    return {item.member: item.data.decode() for item in items if isinstance(item, Document)}


def facts(items: list[Captured]) -> dict[str, str]:
    return {item.key: item.value for item in items if isinstance(item, Fact)}


def counts(items: list[Captured]) -> dict[str, int]:
    return {item.noun: item.number for item in items if isinstance(item, Count)}


def lacking(items: list[Captured]) -> list[str]:
    return [item.reason for item in items if isinstance(item, Lacking)]


def warnings(items: list[Captured]) -> list[Finding]:
    return [item for item in items if isinstance(item, Finding)]


def paths(items: list[Captured]) -> set[str]:
    return {str(item.path) for item in items if isinstance(item, TakePath)}


class TestDnsSource(SourceContract):
    @pytest.fixture
    def source(self, knot: RealNameserver) -> DnsSource:
        return DnsSource(transfers=(with_key(knot.server, *WITH_KEY),))

    @pytest.fixture
    def node(self, root: Path) -> Iterator[Node]:
        maps = [config_map("coredns", {"Corefile": COREFILE}), config_map("kube-proxy", {})]
        with api_server({CONFIG_MAPS: maps, DEPLOYMENTS: [deployment("one", "--txt-owner-id=a")]}) as kube:
            yield node_at(root, KUBEADM, kube=kube)


class TestDnsSourceWithoutFiles(SourceContract):
    """The same where zones are all that there is, so that only documents can be damaged."""

    @pytest.fixture
    def source(self, knot: RealNameserver) -> DnsSource:
        return DnsSource(transfers=(with_key(knot.server, "example.test"),))

    @pytest.fixture
    def node(self, tmp_path: Path) -> Node:
        (tmp_path / "bare").mkdir()
        return node_at(tmp_path / "bare")


def test_zones_are_what_the_server_loaded(nameserver: RealNameserver, root: Path) -> None:
    """Each zone is a zone file with exactly the records of the server's own; its serial and size are facts."""
    everybody = Transfer(server=nameserver.server, zones=PUBLIC)
    items = captured(root, with_key(nameserver.server, *WITH_KEY), everybody)
    assert lacking(items) == []
    assert warnings(items) == []
    texts = documents(items)
    for zone in (*WITH_KEY, *PUBLIC):
        loaded = records_of(ZONES[zone], zone)
        assert records_of(texts[zone_member(f"{zone}.")], zone) == loaded
        serial = re.search(r"SOA \S+ \S+ (\d+) ", ZONES[zone])
        assert serial
        expected = f"serial {serial[1]}, {len(loaded)} records from {nameserver.server}"
        assert facts(items)[f"zone {zone}."] == expected
    total = sum(len(records_of(ZONES[zone], zone)) for zone in (*WITH_KEY, *PUBLIC))
    assert counts(items) == {"zones": len(WITH_KEY) + 1, "records": total}


def test_what_does_not_come_is_named_and_the_rest_comes(nameserver: RealNameserver, root: Path) -> None:
    """Wrong secret, unknown key, no key, refused, no such zone: each lacks with its zone, its server and the reason."""
    server = nameserver.server
    items = captured(
        root,
        with_key(server, "large.test", secret="env:EDGEDR_TEST_OTHER"),
        with_key(server, "xn--bcher-kva.test", key="other.test"),
        Transfer(server=server, zones=("8.b.d.0.1.0.0.2.ip6.arpa",)),
        with_key(server, "example.test", "closed.test", "nowhere.test", "0/25.2.0.192.in-addr.arpa"),
    )
    reasons = {reason.split()[1]: reason for reason in lacking(items)}
    assert sorted(reasons) == [
        "8.b.d.0.1.0.0.2.ip6.arpa.",
        "closed.test.",
        "large.test.",
        "nowhere.test.",
        "xn--bcher-kva.test.",
    ]
    assert all(server in reason for reason in reasons.values())
    assert reasons["large.test."].endswith("has another secret for the key edgedr.test. (BADSIG)")
    assert "does not know the key other.test" in reasons["xn--bcher-kva.test."]
    for zone in ("8.b.d.0.1.0.0.2.ip6.arpa.", "closed.test.", "nowhere.test."):
        assert re.search(r"\((REFUSED|NOTAUTH|BADKEY)\)$", reasons[zone])
    assert set(documents(items)) == {zone_member("example.test."), zone_member("0/25.2.0.192.in-addr.arpa.")}
    assert counts(items)["zones"] == 2


def test_a_server_that_is_down_costs_only_its_own_zones(knot: RealNameserver, root: Path) -> None:
    """Nobody listens there; all that it should have given is named, and the other server's zones come."""
    down = f"127.0.0.1:{free_port()}"
    items = captured(root, with_key(down, "a.test", "b.test"), with_key(knot.server, "example.test"))
    assert lacking(items) == [
        f"zone a.test. did not come from {down}: no connection: connection refused",
        f"zone b.test. was not asked for at {down}: no answer for a.test. either",
    ]
    assert counts(items)["zones"] == 1


def test_a_server_that_hangs_is_waited_for_once(knot: RealNameserver, root: Path) -> None:
    """A deadline for each of a hundred zones would hold the whole backup."""
    zones = [f"z{number}.test" for number in range(100)]
    with OddNameserver(lambda _: [], hold=True) as odd:
        hanging = with_key(odd.server, *zones, deadline=timedelta(seconds=0.3))
        items = captured(root, hanging, with_key(knot.server, "example.test"))
        assert len(odd.questions) <= 1
    assert len(lacking(items)) == 100
    assert lacking(items)[0] == f"zone z0.test. did not come from {odd.server}: the server did not answer within 0.3 s"
    assert counts(items)["zones"] == 1


def test_a_server_that_stalls_is_waited_for_twice(knot: RealNameserver, root: Path) -> None:
    """It begins each zone, and ends none: one may be odd, but a hundred must not cost a hundred deadlines."""

    def begin(query: Any) -> list[dns.message.Message]:
        response = dns.message.make_response(query)
        name = query.question[0].name
        soa = dns.rrset.from_text(name, 60, "IN", "SOA", "ns.b.test. hostmaster.b.test. 1 7200 3600 1209600 300")
        response.answer = [soa]
        return [response]

    zones = [f"z{number}.test" for number in range(100)]
    with OddNameserver(begin, hold=True) as odd:
        stalling = with_key(odd.server, *zones, key=None, secret=None, deadline=timedelta(seconds=0.4))
        items = captured(root, stalling, with_key(knot.server, "example.test"))
        assert len(odd.questions) == 2
    reasons = lacking(items)
    assert len(reasons) == 100
    assert reasons[1] == f"zone z1.test. did not come from {odd.server}: the server had not sent all of it within 0.4 s"
    either = "it did not come to an end with z0.test. and z1.test. either"
    assert reasons[2] == f"zone z2.test. was not asked for at {odd.server}: {either}"
    assert counts(items)["zones"] == 1


def test_a_transfer_that_is_cut_is_no_zone(knot: RealNameserver, root: Path) -> None:
    """Half a zone is not stored as one; the server is asked for its other zones all the same."""
    with OddNameserver(lambda q: [b"\x02\x00" + b"\0" * 100]) as odd:
        items = captured(root, with_key(odd.server, "a.test", "b.test"), with_key(knot.server, "example.test"))
        assert len(odd.questions) == 2
    assert [reason.partition(": ")[2] for reason in lacking(items)] == [
        "the server closed the connection without an answer"
    ] * 2
    assert set(documents(items)) == {zone_member("example.test.")}


def test_a_zone_that_is_too_large_is_said(knot: RealNameserver, root: Path) -> None:
    """``max_records`` bounds what one zone may cost."""
    source = DnsSource(transfers=(with_key(knot.server, "large.test", "example.test"),), max_records=100)
    items = list(source.capture(node_at(root)))
    assert lacking(items) == [
        f"zone large.test. did not come from {knot.server}: the server sent more than 100 records"
    ]
    assert set(documents(items)) == {zone_member("example.test.")}


def test_another_server_gives_what_the_first_does_not(knot: RealNameserver, root: Path) -> None:
    """A zone that two transfers name is complete if one of them gives it; that the other did not is said."""
    down = f"127.0.0.1:{free_port()}"
    items = captured(root, with_key(down, "Example.TEST"), with_key(knot.server, "example.test."))
    assert lacking(items) == []
    assert facts(items)["zone example.test."].endswith(f"from {knot.server}")
    [warning] = warnings(items)
    assert (warning.severity, warning.subject) == (Severity.WARN, "zone example.test.")
    assert down in warning.text


def test_the_first_server_that_gives_a_zone_is_asked_alone(knot: RealNameserver, root: Path) -> None:
    """A secondary is there for the bad day, not to be asked each time."""
    with OddNameserver(lambda _: []) as odd:
        items = captured(root, with_key(knot.server, "example.test"), with_key(odd.server, "example.test"))
        assert odd.questions == []
    assert lacking(items) == []
    assert warnings(items) == []


def test_records_of_elsewhere_are_warned_of(root: Path) -> None:
    """A zone that is stored without something that its server sent says so."""

    def answer(query: Any) -> list[dns.message.Message]:
        response = dns.message.make_response(query)
        soa = dns.rrset.from_text("a.test.", 60, "IN", "SOA", "ns.b.test. hostmaster.b.test. 1 7200 3600 1209600 300")
        response.answer = [soa, dns.rrset.from_text("ns.b.test.", 60, "IN", "A", "192.0.2.1"), soa]
        return [response]

    with OddNameserver(answer) as odd:
        items = captured(root, Transfer(server=odd.server, zones=("a.test",)))
    [warning] = warnings(items)
    assert (warning.severity, warning.subject) == (Severity.WARN, "zone a.test.")
    assert warning.text.startswith("1 records that ")
    assert counts(items) == {"zones": 1, "records": 1}


def test_a_secret_that_cannot_be_read_is_said(knot: RealNameserver, root: Path) -> None:
    """The reference is named, nothing is sent without the key that was meant, and zones with another key come."""
    items = captured(
        root,
        with_key(knot.server, "large.test", secret="file:/nonexistent/tsig"),
        with_key(knot.server, "public.test", secret=None),
        with_key(knot.server, "closed.test", secret=SECRET),
        with_key(knot.server, "example.test"),
    )
    at = f"was not asked for at {knot.server}:"
    assert lacking(items) == [
        f"zone large.test. {at} file:/nonexistent/tsig cannot be read: no such file or directory",
        f"zone public.test. {at} of key and secret, one is missing",
        f"zone closed.test. {at} it is not a reference to a secret",
    ]
    assert counts(items)["zones"] == 1


def test_settings_that_were_not_checked_are_no_bug(root: Path) -> None:
    """What the check of the configuration would have found is lacking, not a traceback."""
    items = captured(
        root,
        with_key("127.0.0.1:99999", "a.test"),
        with_key("127.0.0.1:1", "b..test", "c.test", algorithm="hmac-md5"),
        with_key("127.0.0.1:1", "d.test", key="k..k"),
    )
    assert [reason.rpartition(": ")[2] for reason in lacking(items)] == [
        "its port is not between 1 and 65535",
        "'b..test' is not a name that DNS can have",
        "'hmac-md5' is none of hmac-sha256, hmac-sha512, hmac-sha384, hmac-sha224, hmac-sha1",
        "'k..k' is not a name that DNS can have",
    ]


def test_no_secret_comes_out(nameserver: RealNameserver, root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The TSIG secret is in no item, whether the transfer works or fails, nor in anything printed."""
    server = nameserver.server
    transfers = (
        with_key(server, "example.test", "closed.test"),
        with_key(server, "large.test", secret="env:EDGEDR_TEST_OTHER"),
        with_key(server, "public.test", secret=SECRET),
        with_key(server, "nowhere.test", secret=f"file:{SECRET}"),
        with_key(f"127.0.0.1:{free_port()}", "down.test"),
    )
    items = captured(root, *transfers)
    shown = "\n".join(map(repr, items)) + "".join(capfd.readouterr())
    assert len(lacking(items)) == 5
    assert not any(canary in shown for canary in CANARIES)


def test_core_dns_can_be_applied_again(root: Path) -> None:
    """ConfigMaps of CoreDNS by what they hold or are called: kubeadm, k3s and rke2; without what the server adds."""
    server_blocks = {"internal.server": "internal.test:53 {\n    file /etc/coredns/internal.zone\n}\n"}
    maps = [
        config_map("coredns", {"Corefile": COREFILE, "NodeHosts": "192.0.2.11 cp-1\n"}, labels={"a": "b"}),
        config_map("coredns-custom", server_blocks),
        config_map("rke2-coredns-rke2-coredns", {"Corefile": COREFILE}),
        config_map("node-local-dns", {"Corefile": COREFILE}),
        config_map("odd-name", {"Corefile": COREFILE}),
        config_map("chart-content-rke2-coredns", {"rke2-coredns.tgz.base64": "AAAA"}),
        config_map("kube-proxy", {"config.conf": "mode: x"}),
        config_map("empty", None),
    ]
    with api_server({CONFIG_MAPS: maps}) as kube:
        items = captured(root, layout=KUBEADM, kube=kube)
    text = documents(items)["dns/coredns.yaml"]
    objects = list(yaml.safe_load_all(text))
    assert [each["metadata"]["name"] for each in objects] == [
        "coredns",
        "coredns-custom",
        "node-local-dns",
        "odd-name",
        "rke2-coredns-rke2-coredns",
    ]
    assert objects[0] == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "coredns", "namespace": "kube-system", "labels": {"a": "b"}},
        "data": {"Corefile": COREFILE, "NodeHosts": "192.0.2.11 cp-1\n"},
    }
    assert objects[1]["data"] == server_blocks
    assert "  Corefile: |\n    .:53 {\n        errors\n" in text
    assert max(map(len, text.splitlines())) <= 80
    assert lacking(items) == []


def test_a_cluster_without_core_dns_lacks_nothing(root: Path) -> None:
    """That there is none is known, and is said as a fact."""
    with api_server({CONFIG_MAPS: [config_map("kube-proxy", {})]}) as kube:
        items = captured(root, layout=KUBEADM, kube=kube)
    assert lacking(items) == []
    assert documents(items) == {}
    assert facts(items) == {"CoreDNS": "no ConfigMap of it in kube-system"}


def test_an_odd_config_map_is_no_bug(root: Path) -> None:
    """Who may write to kube-system must not be able to stop a backup."""
    with api_server(
        {CONFIG_MAPS: [{"metadata": {"name": "coredns", "annotations": 5, "labels": []}, "data": 7}]}
    ) as kube:
        items = captured(root, layout=KUBEADM, kube=kube)
    assert documents(items) or lacking(items)


def test_one_odd_config_map_costs_only_itself(root: Path) -> None:
    """The others are there, and that one is not is said."""
    deep: Any = "x"
    for _ in range(400):
        deep = [deep]
    maps = [config_map("coredns", {"Corefile": COREFILE}), config_map("coredns-odd", {"x": deep})]
    with api_server({CONFIG_MAPS: maps}) as kube:
        items = captured(root, layout=KUBEADM, kube=kube)
    assert [each["metadata"]["name"] for each in yaml.safe_load_all(documents(items)["dns/coredns.yaml"])] == [
        "coredns"
    ]
    assert lacking(items) == ["CoreDNS: 1 objects of it are malformed, too large, or nested too deeply"]


@pytest.mark.parametrize(("count", "size", "kept"), [(100, 10, 64), (12, 1 << 20, 7)])
def test_what_is_held_in_memory_has_a_bound(root: Path, count: int, size: int, kept: int) -> None:
    """Whoever may write to kube-system cannot fill the memory with Corefiles, nor others with Deployments."""
    maps = [config_map(f"coredns-{number:03}", {"Corefile": "x" * size}) for number in range(count)]
    deployments = [deployment(f"edns-{number:03}", f"--txt-owner-id={'x' * size}") for number in range(count)]
    with api_server({CONFIG_MAPS: maps, DEPLOYMENTS: deployments}) as kube:
        items = captured(root, layout=KUBEADM, kube=kube)
    assert len(list(yaml.safe_load_all(documents(items)["dns/coredns.yaml"]))) == kept
    more = "objects of it are more than 64, or 8 MiB"
    assert lacking(items)[0] == f"CoreDNS: {count - kept} {more}"
    assert re.fullmatch(rf"external-dns: \d+ {more}", lacking(items)[1])


def test_references_are_not_followed_into_a_flood(root: Path) -> None:
    """A few bytes that stand for many, many times: such a Deployment is not read, and that is said."""
    flood = deployment("flood", f"--txt-owner-id={'$(A)' * 10_000}", env=[{"name": "A", "value": "x" * 100_000}])
    with api_server({DEPLOYMENTS: [flood, deployment("one", "--txt-owner-id=a")]}) as kube:
        items = captured(root, layout=KUBEADM, kube=kube)
    assert lacking(items) == ["external-dns: 1 objects of it are malformed, too large, or nested too deeply"]
    assert facts(items)["external-dns owner"] == "a (dns/one, policy sync)"


def test_who_owns_which_records_is_known(root: Path) -> None:
    """The flags of each external-dns that decide what it owns, from its command line or environment; no others."""
    environment = [
        {"name": "EXTERNAL_DNS_TXT_PREFIX", "value": "edns-"},
        {"name": "EXTERNAL_DNS_DOMAIN_FILTER", "value": "a.test\nb.test"},
        {"name": "EXTERNAL_DNS_POLICY", "value": "create-only"},
        {"name": "SITE", "value": "edge-7"},
        {
            "name": "EXTERNAL_DNS_TXT_ENCRYPT_AES_KEY",
            "valueFrom": {"secretKeyRef": {"name": "external-dns", "key": "aes"}},
        },
        {"name": "CF_API_TOKEN", "value": "CANARY-cloud"},
    ]
    arguments = ("--txt-owner-id=$(SITE)", "--policy", "upsert-only", "--rfc2136-tsig-secret=CANARY-cloud")
    deployments = [
        deployment("web", image="docker.io/library/nginx:1"),
        deployment("two", *arguments, env=environment),
        deployment("labelled", "--txt-owner-id=c", "--source=service", "--source=ingress", image="mirror.test/edns:1"),
        {"metadata": {"name": "odd", "namespace": "dns", "labels": "x"}, "spec": {"template": []}},
    ]
    deployments[2]["metadata"]["labels"] = {"app.kubernetes.io/name": "external-dns"}
    with api_server({DEPLOYMENTS: deployments}) as kube:
        items = captured(root, layout=KUBEADM, kube=kube)
    owner = "c (dns/labelled, policy sync); edge-7 (dns/two, policy upsert-only)"
    assert facts(items)["external-dns owner"] == owner
    text = documents(items)["dns/external-dns.yaml"]
    assert yaml.safe_load(text) == {
        "dns/labelled": {
            "image": "mirror.test/edns:1",
            "owner": "c",
            "policy": "sync",
            "flags": {"txt-owner-id": "c", "source": ["service", "ingress"]},
        },
        "dns/two": {
            "image": "registry.k8s.io/external-dns/external-dns:v0.15.1",
            "owner": "edge-7",
            "policy": "upsert-only",
            "flags": {
                "txt-owner-id": "edge-7",
                "txt-prefix": "edns-",
                "txt-encrypt-aes-key": "from Secret external-dns: aes",
                "policy": "upsert-only",
                "domain-filter": ["a.test", "b.test"],
            },
        },
    }
    assert list(yaml.safe_load(text)["dns/two"]["flags"]) == [
        "txt-owner-id", "txt-prefix", "txt-encrypt-aes-key", "policy", "domain-filter",
    ]  # fmt: skip
    assert "CANARY" not in repr(items)
    assert warnings(items) == []
    assert max(map(len, text.splitlines())) <= 80


def test_an_owner_that_is_nobody_in_particular_is_warned_of(root: Path) -> None:
    """Without an id of its own it shares its records with every such cluster; what cannot be seen is not guessed."""
    unseen = deployment("unseen", envFrom=[{"secretRef": {"name": "settings"}}])
    with api_server({DEPLOYMENTS: [deployment("plain"), deployment("none", "--registry=noop"), unseen]}) as kube:
        items = captured(root, layout=KUBEADM, kube=kube)
    assert facts(items)["external-dns owner"] == (
        "default (dns/none, policy sync); default (dns/plain, policy sync); not known (dns/unseen, policy not known)"
    )
    [warning] = warnings(items)
    assert (warning.severity, warning.subject) == (Severity.WARN, "dns/plain")
    assert warning.hint == "give it --txt-owner-id, once for all"


def test_an_api_server_that_is_down_costs_only_the_cluster_part(knot: RealNameserver, root: Path) -> None:
    """Files and zones come all the same; both things that could not be asked for are named."""
    items = captured(root, with_key(knot.server, "example.test"), layout=KUBEADM, kube=kube_at(free_port()))
    assert [reason.partition(":")[0] for reason in lacking(items)] == ["CoreDNS", "external-dns"]
    assert counts(items)["zones"] == 1
    assert "/etc/hosts" in paths(items)


def test_one_list_that_is_refused_costs_only_itself(root: Path) -> None:
    """A user that may not list deployments still gets CoreDNS."""
    maps = [config_map("coredns", {"Corefile": COREFILE})]
    with api_server({CONFIG_MAPS: maps, DEPLOYMENTS: 403}) as kube:
        items = captured(root, layout=KUBEADM, kube=kube)
    assert set(documents(items)) == {"dns/coredns.yaml"}
    [reason] = lacking(items)
    assert reason.startswith("external-dns: ")
    assert "not today" in reason


def test_another_node_captures_what_is_not_of_this_one(root: Path) -> None:
    """Files are of this machine; the cluster's DNS and the zones are the other one's, and nobody is asked."""
    with OddNameserver(lambda _: []) as odd:
        items = captured(
            root, with_key(odd.server, "a.test"), layout=KUBEADM, kube=kube_at(free_port()), elsewhere="cp-2"
        )
        assert odd.questions == []
    assert facts(items) == {"cluster part": "captured by cp-2"}
    assert "/etc/hosts" in paths(items)
    assert lacking(items) == []
    assert counts(items) == {}


def test_an_unknown_api_server_is_lacking_where_there_must_be_one(root: Path) -> None:
    """A control plane whose API server is not known lacks its DNS; a machine that is none does not."""
    assert lacking(captured(root, layout=KUBEADM)) == ["CoreDNS, external-dns: no API server is known"]
    assert lacking(captured(root)) == []


def test_files_are_those_of_resolvers_and_nameservers(root: Path) -> None:
    """With links and where they lead, zone files, and nothing that belongs to others."""
    assert paths(captured(root)) == {
        "/etc/hosts",
        "/etc/nsswitch.conf",
        "/etc/resolv.conf",
        "/run/systemd/resolve/stub-resolv.conf",
        "/run/systemd/resolve/resolv.conf",
        "/etc/bind",
        "/etc/bind/named.conf",
        "/var/lib/bind",
        "/var/lib/bind/site.zone",
    }


def test_settings_add_and_take_away_files(root: Path) -> None:
    """``zone_files`` brings more, ``exclude`` keeps some out, and what is named but not there is said."""
    source = DnsSource(zone_files=("/srv/dns", "/srv/none/*.zone"), exclude=("/srv/dns/*.jnl", "/etc/bind"))
    items = list(source.capture(node_at(root)))
    assert {"/srv/dns", "/srv/dns/extra.zone"} <= paths(items)
    assert not paths(items) & {"/srv/dns/extra.zone.jnl", "/etc/bind", "/etc/bind/named.conf"}
    [warning] = warnings(items)
    assert (warning.severity, warning.subject) == (Severity.WARN, "/srv/none/*.zone")


def test_too_many_files_do_not_cost_the_zones(knot: RealNameserver, root: Path) -> None:
    """A glob that is too wide is lacking, with its reason."""
    source = DnsSource(zone_files=("/etc",), transfers=(with_key(knot.server, "example.test"),))
    items = list(source.capture(Node(Files(root, max_entries=3), UNKNOWN)))
    [reason] = lacking(items)
    assert reason.startswith("files: more than 3 paths")
    assert counts(items)["zones"] == 1


def test_zones_have_safe_names_of_their_own() -> None:
    """A zone's name may hold anything; its document's may not, nor be that of another zone or the same but for case."""
    for zone in ("example.test", "xn--bcher-kva.test", "_msdcs.example.test", "8.b.d.0.1.0.0.2.ip6.arpa"):
        assert zone_member(f"{zone}.") == f"dns/zones/{zone}.zone"
    classless = zone_member("0/25.2.0.192.in-addr.arpa.")
    assert re.fullmatch(r"dns/zones/0_25\.2\.0\.192\.in-addr\.arpa-[0-9a-f]{8}\.zone", classless)
    odd = [
        "0/25.2.0.192.in-addr.arpa.",
        ".",
        "0_25.2.0.192.in-addr.arpa.",
        "root.",
        "-a.test.",
        "_a.test.",
        "a\\.b.test.",
        "..\\047..\\047etc.",
        "a\\032b.test.",
        "x" * 63 + "." + "y" * 63 + "." + "z" * 63 + "." + "w" * 59 + ".",
        "x" * 63 + "." + "y" * 63 + "." + "z" * 63 + "." + "v" * 59 + ".",
    ]
    members = [zone_member(zone) for zone in odd]
    assert len(set(members)) == len(odd)
    assert all(DOCUMENT.fullmatch(member) and len(member.rpartition("/")[2]) <= 255 for member in members)


def restored_zone(knot: RealNameserver, root: Path, to: Path) -> tuple[DnsSource, Restored, Path]:
    source = DnsSource(transfers=(with_key(knot.server, "example.test"),))
    restored = restore(source, node_at(root), to)
    return source, restored, restored.root / str(document_path(zone_member("example.test.")))[1:]


def test_a_zone_that_is_another_one_is_found(knot: RealNameserver, root: Path, tmp_path: Path) -> None:
    """Even with the right hash: a record less, another serial, a second SOA, or no zone file at all."""
    source, restored, path = restored_zone(knot, root, tmp_path / "restored")
    good = [finding.text for finding in restored.findings(source) if finding.subject == "zones"]
    assert good == ["zones that load as captured: 1, with 23 records"]
    whole = path.read_text()
    soa = next(line for line in whole.splitlines() if " SOA " in line)
    for text, problem in {
        whole.replace("www ", ";ww ", 1): "has serial 2026112201 and 22 records, not 2026112201 and 23 as at capture",
        whole.replace(" 2026112201 ", " 1 "): "has serial 1 and 23 records, not 2026112201 and 23 as at capture",
        whole
        + soa.replace("2026112201", "8")
        + "\n": "has 24 records, of which 23 are different and can stand together",
        whole.replace(soa, ""): "has no SOA record",
        whole.replace(" 192.0.2.53", " 192.0.2.530"): "is not a zone file: ",
    }.items():
        path.write_text(text)
        findings = _believing(restored, path).findings(source)
        told = [finding for finding in findings if finding.severity is Severity.BAD]
        assert [finding.subject for finding in told] == [zone_member("example.test.")]
        assert told[0].text.startswith(problem)


def _believing(restored: Restored, path: Path) -> Restored:
    """Return it with the inventory believing in what the file holds now."""
    record = restored.inventory.sources["dns"]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    changed = dataclasses.replace(record, facts={**record.facts, document_fact(zone_member("example.test.")): digest})
    inventory: Inventory = dataclasses.replace(restored.inventory, sources={"dns": changed})
    return dataclasses.replace(restored, inventory=inventory)


def test_a_restored_zone_can_be_served(knot: RealNameserver, root: Path, tmp_path: Path) -> None:
    """What a backup holds is what a nameserver takes: another server loads it, and hands out the same records."""
    zones = ("example.test", "0/25.2.0.192.in-addr.arpa", "large.test")
    texts = documents(captured(root, with_key(knot.server, *zones)))
    with Bind(tmp_path / "again", {zone: texts[zone_member(f"{zone}.")] for zone in zones}) as again:
        items = captured(root, with_key(again.server, *zones))
    assert lacking(items) == []
    for zone in zones:
        assert records_of(documents(items)[zone_member(f"{zone}.")], zone) == records_of(ZONES[zone], zone)


def test_nobody_pays_for_zones_that_are_not_asked_for(root: Path) -> None:
    """Without transfers, dnspython is not even imported."""
    code = (
        "import sys; from pathlib import Path; from edgedr.layouts import UNKNOWN; from edgedr.node.files import Files;"
        "from edgedr.node.node import Node; from edgedr.sources.dns import DnsSource;"
        "assert list(DnsSource().capture(Node(Files(Path(sys.argv[1])), UNKNOWN)));"
        "assert not {'dns', 'yaml', 'kubernetes'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(root)], check=True)


TABLE = """
zone_files = ["/srv/dns"]
max_records = 5000
[[transfers]]
server = "192.0.2.53"
zones = ["example.test", "0/25.2.0.192.in-addr.arpa"]
key = "edgedr.example.test"
algorithm = "hmac-sha512"
secret = "credential:tsig"
deadline = "2 min"
[[transfers]]
server = "[2001:db8::53]:5353"
zones = ["public.test"]
"""


def test_a_table_becomes_the_source() -> None:
    """``[[sources.dns.transfers]]`` decodes into what does the work, with nothing to complain of."""
    reading = Reading()
    source = decode(DnsSource, tomllib.loads(TABLE), "[sources.dns]", reading)
    assert reading.problems == []
    assert source == DnsSource(
        zone_files=("/srv/dns",),
        max_records=5000,
        transfers=(
            Transfer(
                server="192.0.2.53",
                zones=("example.test", "0/25.2.0.192.in-addr.arpa"),
                key="edgedr.example.test",
                algorithm="hmac-sha512",
                secret="credential:tsig",
                deadline=timedelta(minutes=2),
            ),
            Transfer(server="[2001:db8::53]:5353", zones=("public.test",)),
        ),
    )
    assert list(transfer_problems(source.transfers)) == []


def test_what_is_wrong_with_a_table_is_said() -> None:
    """What is missing, and what was misspelt."""
    reading = Reading()
    decode(DnsSource, {"transfers": [{"sever": "a", "zones": []}]}, "[sources.dns]", reading)
    assert [str(problem) for problem in reading.problems] == [
        "[sources.dns] transfers #1 sever: unknown; did you mean server?",
        "[sources.dns] transfers #1 server: it is missing",
    ]


@pytest.mark.parametrize(
    ("settings", "field", "text"),
    [
        ({"server": "::1"}, "server", "'::1' is not host, host:port or [v6]:port"),
        ({"server": "user:CANARY-tsig@host"}, "server", "it is not host, host:port or [v6]:port"),
        ({"server": "host:0"}, "server", "'host:0' is not host, host:port or [v6]:port"),
        ({"zones": ()}, "zones", "there is none"),
        ({"zones": ("a..b",)}, "zones", "'a..b' is not a name that DNS can have"),
        ({"zones": ("A.test", "a.test.")}, "zones", "'a.test.' is there twice"),
        ({"algorithm": "hmac-sha265"}, "algorithm", "'hmac-sha265' is unknown; did you mean hmac-sha256?"),
        ({"secret": None}, "secret", "it is missing: key is set, and they belong together"),
        ({"key": None}, "key", "it is missing: secret is set, and they belong together"),
        ({"key": "CANARY-tsig.." + SECRET}, "key", "it is not a name that DNS can have"),
        ({"secret": SECRET}, "secret", "it is not a reference to a secret: write file:/path, env:NAME or "),
        ({"secret": "file:CANARY-tsig"}, "secret", "what follows file: is not an absolute path: write file:/path"),
        ({"deadline": timedelta(hours=2)}, "deadline", "it is longer than 1 h"),
    ],
)
def test_transfers_that_cannot_work_are_told_before(settings: dict[str, Any], field: str, text: str) -> None:
    """Each is named by its number and field; no secret is shown, wherever it was put."""
    good = with_key("192.0.2.53", "example.test")
    [(where, said)] = transfer_problems((good, dataclasses.replace(good, **settings)))
    assert where == f"[sources.dns] transfers #2 {field}"
    assert said.startswith(text)
    assert not any(canary in said for canary in CANARIES)
