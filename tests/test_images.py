"""Container images of a node: from the API server's record of it, else from its runtime."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedr.errors import SourceError
from edgedr.layouts import K3S, KUBEADM, Layout
from edgedr.node.commands import Commands, NoCommands
from edgedr.node.files import Files
from edgedr.node.images import Image, images, own_node, read_crictl
from edgedr.node.kube import Kube, KubeError
from edgedr.node.kubeconfig import KubeAccess
from edgedr.node.node import Node
from edgedr.sealing.zstandard import zstd
from tests.lab import kubeadm
from tests.lab.hardware import Answers, put

RECORDED: dict[str, Any] = json.loads(
    zstd.decompress((Path(__file__).parent / "data/kubeadm-api.json.zst").read_bytes())
)
CRICTL = "crictl -r unix:///run/containerd/containerd.sock images -o json"
PAUSE = Image(("registry.k8s.io/pause:3.10",), ("registry.k8s.io/pause@sha256:aa",))
PRINTED = json.dumps(
    {
        "images": [
            {"id": "sha256:1", "repoTags": list(PAUSE.tags), "repoDigests": list(PAUSE.digests), "size": "1"},
            {"id": "sha256:2", "repoTags": ["<none>:<none>"], "repoDigests": []},
        ]
    }
)


class Nodes(Kube):
    """An API server that lists these Nodes, or does not answer."""

    def __init__(self, nodes: list[Any] | None) -> None:
        super().__init__(KubeAccess("https://127.0.0.1:6443", None))
        self.nodes = nodes

    def scan(self, path: str, take: Callable[[dict[str, Any]], object], again: Callable[[], object]) -> int:
        assert path == "/api/v1/nodes"
        if self.nodes is None:
            raise KubeError("cannot reach the API server")
        for node in self.nodes:
            take(node)
        return len(self.nodes)


def recorded() -> list[Any]:
    return list(RECORDED["/api/v1/nodes"]["items"])


def a_node(name: str, machine_id: str = "", *names: list[str]) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "status": {"nodeInfo": {"machineID": machine_id}, "images": [{"names": each} for each in names]},
    }


def machine(
    root: Path, nodes: list[Any] | None = None, commands: Commands | None = None, layout: Layout = KUBEADM
) -> Node:
    return Node(Files(root), layout, commands or NoCommands(), Nodes(nodes))


def name_of(node: Node) -> str | None:
    own = own_node(node)
    return None if own is None else str(own["metadata"]["name"])


def test_the_recorded_node_is_found_and_read(tmp_path: Path) -> None:
    """Among many Nodes with one machine id, the kubelet's own name finds the right one; images come sorted."""
    node = machine(kubeadm.unpack(tmp_path), recorded())
    put(tmp_path, "/etc/machine-id", "0" * 32 + "\n")
    assert name_of(node) == "cp-1"
    told = images(node)
    assert len(told.found) == 40
    assert told.doubt is None
    assert list(told.found) == sorted(told.found)
    assert Image(("reg.example.test/app11:1.11.0",), (f"reg.example.test/app11@sha256:{11:064x}",)) in told.found


def test_the_order_of_an_answer_does_not_matter(tmp_path: Path) -> None:
    """The kubelet sorts by size, and lists change: the same images are told the same."""
    put(tmp_path, "/etc/hostname", "cp-1\n")
    turned = [{**node, "status": {**node["status"], "images": node["status"]["images"][::-1]}} for node in recorded()]
    assert images(machine(tmp_path, turned)) == images(machine(tmp_path, recorded()))


@pytest.mark.parametrize(
    ("path", "text", "layout"),
    [
        ("/etc/hostname", "Edge-7\n", KUBEADM),
        ("/proc/sys/kernel/hostname", "edge-7\n", KUBEADM),
        ("/etc/machine-id", "77\n", KUBEADM),
        ("/etc/kubernetes/kubelet.conf", "users:\n- name: system:node:edge-7\n", KUBEADM),
        ("/var/lib/kubelet/kubeadm-flags.env", 'KUBELET_KUBEADM_ARGS="--hostname-override=edge-7"\n', KUBEADM),
        ("/etc/rancher/k3s/config.yaml", "node-name: edge-7\n", K3S),
    ],
)
def test_every_way_to_know_the_own_node(tmp_path: Path, path: str, text: str, layout: Layout) -> None:
    """A node is known by its host name, its machine id, or the name that its kubelet was told."""
    put(tmp_path, path, text)
    others = [a_node("edge-8", "88"), a_node("edge-7", "77"), a_node("edge-9", "99")]
    assert name_of(machine(tmp_path, others, layout=layout)) == "edge-7"


def test_a_node_that_may_be_another_is_not_taken(tmp_path: Path) -> None:
    """Machines that were cloned share their id, and no name helps: nobody else's images are told as ours."""
    put(tmp_path, "/etc/machine-id", "77\n")
    twins = [a_node("a", "77", ["x:1"]), a_node("b", "77", ["y:1"])]
    with pytest.raises(SourceError, match="no Node object is surely this machine's"):
        images(machine(tmp_path, twins))
    with pytest.raises(SourceError, match="no Node object is surely this machine's"):
        images(machine(tmp_path, [a_node("c", "")]))


def test_the_name_decides_before_the_machine_id(tmp_path: Path) -> None:
    """A machine that was cloned from ours, and has its id, is not taken for it."""
    put(tmp_path, "/etc/machine-id", "77\n")
    put(tmp_path, "/etc/hostname", "a\n")
    assert name_of(machine(tmp_path, [a_node("b", "77"), a_node("a", "11")])) == "a"


def test_the_runtime_is_asked_when_the_server_is_down(tmp_path: Path) -> None:
    """Without an answer of the API server the runtime tells; without both, both are named."""
    put(tmp_path, "/run/containerd/containerd.sock")
    assert images(machine(tmp_path, None, Answers({CRICTL: PRINTED}))).found == (PAUSE,)
    with pytest.raises(SourceError, match="cannot reach the API server; there is no crictl on this machine"):
        images(machine(tmp_path, None, Answers({})))


def test_k3s_has_its_own_crictl(tmp_path: Path) -> None:
    """k3s brings the program along, and keeps its socket elsewhere."""
    put(tmp_path, "/run/k3s/containerd/containerd.sock")
    words = "k3s crictl -r unix:///run/k3s/containerd/containerd.sock images -o json"
    assert images(machine(tmp_path, None, Answers({words: PRINTED}), K3S)).found == (PAUSE,)


def test_a_cut_list_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    """A kubelet names fifty images: then the runtime is asked, and if it is silent, that is said."""
    put(tmp_path, "/etc/hostname", "a\n")
    put(tmp_path, "/run/containerd/containerd.sock")
    many = [a_node("a", "", *([f"r/app{n}:1"] for n in range(50)))]
    assert images(machine(tmp_path, many, Answers({CRICTL: PRINTED}))).found == (PAUSE,)
    cut = images(machine(tmp_path, many, Answers({})))
    assert len(cut.found) == 50
    assert str(cut.doubt).startswith("the kubelet names only its 50 largest ones, and there is no crictl")


def test_no_server_and_no_socket_is_said(tmp_path: Path) -> None:
    """Nothing known is a failure, not an empty list."""
    with pytest.raises(SourceError, match="no API server is known; there is no socket of a container runtime"):
        images(Node(Files(tmp_path), KUBEADM))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"images": 5}', '{"images": [5, {"repoTags": 7}]}', "[" * 100_000])
def test_what_is_no_list_of_images_is_refused(text: str) -> None:
    """A crictl that prints something else told nothing."""
    with pytest.raises(SourceError, match="crictl"):
        read_crictl(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda below: st.lists(below) | st.dictionaries(st.sampled_from(["images", "repoTags", "names", "status"]), below),
)


class Named(Files):
    """The files of a machine that is called edge, and has nothing else."""

    def text(self, path: object, *, limit: int = 0) -> str:
        return "edge"


@given(JSON)
def test_no_answer_stops_it(answer: Any) -> None:
    """Whatever crictl or the API server say, what comes out are names on one line, or a failure that is named."""
    nodes = [{**a_node("edge"), "status": answer}, {"metadata": answer, "status": answer}]
    node = Node(Named(Path("/nonexistent")), KUBEADM, NoCommands(), Nodes(nodes))
    assert name_of(node) == "edge"
    asks: tuple[Callable[[], tuple[Image, ...]], ...] = (
        lambda: read_crictl(json.dumps(answer)),
        lambda: images(node).found,
    )
    for ask in asks:
        try:
            found = ask()
        except SourceError:
            continue
        assert all(name.isprintable() and " " not in name for image in found for name in (*image.tags, *image.digests))
