"""The API server of the tests behaves like a real one where it matters."""

import base64
import http.client
import json
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.lab.apiserver import ApiServer, Many, recording, synthetic
from tests.lab.pki import write_kubeadm_pki, write_pair

SECRETS = "/api/v1/secrets"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kubeadm_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def server(pki: Path) -> Iterator[ApiServer]:
    with ApiServer(pki) as server:
        yield server


def ask(
    server: ApiServer, pki: Path, path: str, *, method: str = "GET", client: bool = True, token: str = ""
) -> tuple[int, Any]:
    context = ssl.create_default_context(cafile=pki / "ca.crt")
    if client:
        context.load_cert_chain(pki / "apiserver-kubelet-client.crt", pki / "apiserver-kubelet-client.key")
    connection = http.client.HTTPSConnection(server.url.removeprefix("https://"), context=context, timeout=10)
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def names(answer: Any) -> list[tuple[str, str]]:
    return [(item["metadata"].get("namespace", ""), item["metadata"]["name"]) for item in answer["items"]]


def test_pages(server: ApiServer, pki: Path) -> None:
    """Pages hold what they were asked for, in order, say how much is left, and continue after the last object."""
    _, whole = ask(server, pki, SECRETS)
    found: list[tuple[str, str]] = []
    left, token, pages = len(whole["items"]), "", 0
    while True:
        status, page = ask(server, pki, f"{SECRETS}?limit=10" + (f"&continue={token}" if token else ""))
        assert status == 200
        assert page["kind"] == "SecretList"
        assert page["metadata"]["resourceVersion"] == whole["metadata"]["resourceVersion"]
        found += names(page)
        left -= len(page["items"])
        pages += 1
        assert page["metadata"].get("remainingItemCount", 0) == left
        if not (token := page["metadata"].get("continue", "")):
            break
        assert json.loads(base64.urlsafe_b64decode(token))["rv"] == int(whole["metadata"]["resourceVersion"])
    assert found == names(whole) == sorted(found)
    assert pages == -(-len(found) // 10)


def test_derived(server: ApiServer, pki: Path) -> None:
    """What was recorded for all namespaces is there for one, and for one object."""
    _, page = ask(server, pki, "/api/v1/namespaces/kube-system/configmaps")
    assert ("kube-system", "coredns") in names(page)
    assert {namespace for namespace, _ in names(page)} == {"kube-system"}
    status, one = ask(server, pki, "/api/v1/namespaces/kube-system/configmaps/coredns")
    assert (status, one["kind"], one["apiVersion"]) == (200, "ConfigMap", "v1")
    assert ask(server, pki, "/api/v1/nodes/cp-1")[1]["kind"] == "Node"
    assert ask(server, pki, "/apis/apps/v1/namespaces/nowhere/deployments")[1]["items"] == []
    assert ask(server, pki, "/api/v1/nodes/nowhere")[0] == 404


def test_whole_recording(server: ApiServer, pki: Path) -> None:
    """Every kind that the recording says can be listed is there."""
    for path, answer in recording().items():
        if isinstance(answer, dict) and answer.get("kind") == "APIResourceList":
            for resource in answer["resources"]:
                if "list" in resource["verbs"] and "/" not in resource["name"]:
                    assert f"{path}/{resource['name']}" in server.recording
    assert ask(server, pki, "/apis/autoscaling/v1")[1]["groupVersion"] == "autoscaling/v1"


def test_who_is_let_in(server: ApiServer, pki: Path) -> None:
    """A client certificate or a token; anybody else gets 401."""
    server.tokens.add("open")
    assert ask(server, pki, SECRETS)[0] == 200
    assert ask(server, pki, SECRETS, client=False, token="open")[0] == 200
    status, said = ask(server, pki, SECRETS, client=False)
    assert (status, said["kind"], said["reason"]) == (401, "Status", "Unauthorized")
    assert ask(server, pki, SECRETS, client=False, token="shut")[0] == 401


def test_statuses(server: ApiServer, pki: Path) -> None:
    """Refusals are Status objects, as many times as asked for."""
    assert ask(server, pki, "/api/v1/nothing")[1]["reason"] == "NotFound"
    server.refuse[SECRETS], server.refusals[SECRETS] = 503, 1
    assert ask(server, pki, SECRETS)[1]["reason"] == "ServiceUnavailable"
    assert ask(server, pki, SECRETS)[0] == 200
    server.expire[SECRETS] = 1
    token = ask(server, pki, f"{SECRETS}?limit=5")[1]["metadata"]["continue"]
    assert ask(server, pki, f"{SECRETS}?limit=5&continue={token}")[1]["reason"] == "Expired"
    assert ask(server, pki, f"{SECRETS}?limit=5&continue={token}")[0] == 200
    assert ask(server, pki, f"{SECRETS}?limit=5&continue=nonsense")[0] == 400
    assert ask(server, pki, f"{SECRETS}?watch=true")[0] == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_writes(server: ApiServer, pki: Path, method: str) -> None:
    """Nothing but GET is answered, and what was tried is known."""
    assert ask(server, pki, f"{SECRETS}/x", method=method)[0] == 405
    assert server.writes == [f"{method} {SECRETS}/x"]
    assert server.requests == []


def test_synthetic(server: ApiServer, pki: Path) -> None:
    """Objects of a long list are made when they are asked for, and only those."""
    made: list[int] = []

    def make(number: int) -> dict[str, Any]:
        made.append(number)
        return {"metadata": {"name": f"{number:09d}"}}

    server.recording[SECRETS] = {**synthetic(0), "items": Many(10**9, make)}
    _, page = ask(server, pki, f"{SECRETS}?limit=3")
    assert len(page["items"]) == 3
    assert page["metadata"]["remainingItemCount"] == 10**9 - 3
    _, page = ask(server, pki, f"{SECRETS}?limit=3&continue={page['metadata']['continue']}")
    assert names(page) == [("", "000000003"), ("", "000000004"), ("", "000000005")]
    assert len(made) < 100


def test_certificate_whose_year_is_over(tmp_path: Path) -> None:
    """A recorded certificate that has run out is replaced by one like it, of the same authority."""
    pki = write_kubeadm_pki(tmp_path)
    authority = x509.load_pem_x509_certificate((pki / "ca.crt").read_bytes())
    signer: Any = load_pem_private_key((pki / "ca.key").read_bytes(), password=None)
    own: Any = load_pem_private_key((pki / "apiserver.key").read_bytes(), password=None)
    old = x509.CertificateBuilder().subject_name(authority.subject).issuer_name(authority.subject)
    old = old.not_valid_before(datetime(2020, 1, 1, tzinfo=UTC)).not_valid_after(datetime(2021, 1, 1, tzinfo=UTC))
    old = old.serial_number(1).public_key(own.public_key())
    write_pair(pki / "apiserver", old.sign(signer, hashes.SHA256()), own)
    with ApiServer(pki) as server:
        assert ask(server, pki, SECRETS)[0] == 200
