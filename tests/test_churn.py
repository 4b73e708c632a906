"""The generated life of a site: what the benchmarks and the demonstration rest on."""

from pathlib import Path

import pytest

from tests.lab.churn import Site
from tests.lab.etcd import EtcdCluster


def _live(directory: Path, seed: int) -> tuple[dict[bytes, bytes], dict[bytes, bytes], str]:
    cluster = EtcdCluster(directory, tls=False)
    cluster.members[0].extra_flags = ("--unsafe-no-fsync",)
    with cluster as etcd:
        site = Site(etcd, seed=seed)
        site.fill(megabytes=1)
        before = etcd.items()
        site.churn(minutes=5, rate=3)
        with pytest.raises(RuntimeError) as compacted:
            etcd.etcdctl("get", "--rev=2", "/registry/minions/node-0")
        return before, etcd.items(), str(compacted.value)


def _kind(key: bytes) -> str:
    return key.split(b"/")[2].decode()


def test_the_same_seed_lives_the_same_life(tmp_path: Path) -> None:
    """Benchmarks can be repeated: one seed gives one content, before the churn and after it."""
    first, second = (_live(tmp_path / name, seed=7)[:2] for name in ("a", "b"))
    assert first == second


def test_a_site_looks_like_kubernetes_and_changes_like_it(tmp_path: Path) -> None:
    """The content has the kinds and encodings of an API server; churn renews, edits, creates, expires and compacts."""
    before, after, refused = _live(tmp_path, seed=1)
    assert {_kind(key) for key in before} == {
        *("configmaps", "deployments", "endpointslices", "events", "example.org", "leases", "masterleases"),
        *("minions", "pods", "replicasets", "secrets", "serviceaccounts", "services"),
    }
    for key, value in before.items():
        start = b"{" if b"/example.org/" in key else b"k8s:enc:secretbox:v1:key1:" if b"/secrets/" in key else b"k8s\0"
        assert value.startswith(start), key
    changed = {key for key in before.keys() & after.keys() if before[key] != after[key]}
    assert {key for key in before if b"/leases/" in key} <= changed
    assert {_kind(key) for key in changed} >= {"minions", "pods", "example.org"}
    assert all(
        any(path in key for key in keys)
        for path in (b"/events/", b"/pods/")
        for keys in (before.keys() - after.keys(), after.keys() - before.keys())
    )
    assert b"compact_rev_key" in after
    assert "compacted" in refused
