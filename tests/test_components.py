"""What a control plane was told: flags, mounts and options, as the kubelet, systemd and the distributions read them."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from edgedr.layouts import K3S, KUBEADM, RKE2, Layout
from edgedr.node.components import (
    Component,
    component,
    components,
    distribution_option,
    distribution_options,
    read_pod,
)
from edgedr.node.files import Files
from tests.lab import kubeadm

UNIT = "/etc/systemd/system/k3s.service"
SERVER = "ExecStart=/usr/local/bin/k3s server"


def write(root: Path, **files: str) -> Files:
    """Lay files of a k3s server: ``unit``, ``config``, or another by its path."""
    for name, content in files.items():
        path = root / {"unit": UNIT, "config": "/etc/rancher/k3s/config.yaml"}.get(name, name).lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return Files(root)


def pod(*containers: dict[str, object], **spec: object) -> str:
    return yaml.safe_dump({"metadata": {"name": "kube-x"}, "spec": {"containers": list(containers), **spec}})


def flags(*words: str) -> tuple[tuple[str, str], ...]:
    return read_pod(pod({"name": "x", "command": ["kube-x", *words]}), "/x.yaml").flags


def named(*told: tuple[str, str], mounts: tuple[tuple[str, str], ...] = ()) -> list[tuple[str, str]]:
    return list(Component("x", "/x.yaml", told, mounts).named_paths())


def test_a_flag_and_its_value_are_one_word_or_two() -> None:
    """Both forms are read; the value begins behind the first sign of equality, and a switch has none."""
    assert flags("--a=b", "--c", "d", "--e", "--f=", "--g=h=i,j=k", "plain", "-v", "2", "--last") == (
        ("a", "b"),
        ("c", "d"),
        ("e", ""),
        ("f", ""),
        ("g", "h=i,j=k"),
        ("last", ""),
    )
    assert flags("--switch", "-v=2", "--other", "value") == (("switch", ""), ("other", "value"))


def test_the_last_of_several_flags_counts() -> None:
    """As the programs themselves have it; one that is not there has no value, which an empty one is not."""
    told = Component("x", "/x.yaml", flags("--a=1", "--b", "--a=2"))
    assert (told.flag("a"), told.flag("b"), told.flag("c")) == ("2", "", None)


def test_flags_of_all_containers_count() -> None:
    """A sidecar's flags and mounts, in commands and in arguments, are those of the pod; its name is the pod's."""
    text = pod(
        {
            "name": "kms",
            "args": ["--config=/etc/kms/c.yaml"],
            "volumeMounts": [{"name": "kms", "mountPath": "/etc/kms"}],
        },
        {
            "name": "x",
            "command": ["kube-x", "--ca=/pki/ca.crt"],
            "args": ["--port", "6443"],
            "volumeMounts": [{"name": "pki", "mountPath": "/pki"}, {"name": "empty", "mountPath": "/etc/kms/tmp"}],
        },
        volumes=[
            {"name": "pki", "hostPath": {"path": "/etc/kubernetes/pki"}},
            {"name": "kms", "hostPath": {"path": "/srv/kms"}},
            {"name": "empty", "emptyDir": {}},
        ],
    )
    found = read_pod(text, "/x.yaml")
    assert found.name == "kube-x"
    assert found.flags == (("config", "/etc/kms/c.yaml"), ("ca", "/pki/ca.crt"), ("port", "6443"))
    assert found.mounts == (("/etc/kms", "/srv/kms"), ("/pki", "/etc/kubernetes/pki"))
    assert [path for _, path in found.named_paths()] == ["/srv/kms/c.yaml", "/etc/kubernetes/pki/ca.crt"]


@pytest.mark.parametrize(
    "text", ["", "[]", "spec: {}", "spec: {containers: []}", "spec: {containers: [x]}", "\t", "!!bool x"]
)
def test_what_is_no_pod_is_refused(text: str) -> None:
    """Whatever else stands in a manifest is a ``ValueError``, and never another one."""
    with pytest.raises(ValueError, match="not"):
        read_pod(text, "/x.yaml")


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        ("/etc/a", ["/etc/a"]),
        ("/etc/a,/etc/b", ["/etc/a", "/etc/b"]),
        ("/etc/a,b,/etc/c", ["/etc/a", "/etc/c"]),
        ("/", []),
        ("/etc/../root/.ssh", []),
        ("/..", []),
        ("/etc/..data/a..b", ["/etc/..data/a..b"]),
        ("etc/a", []),
        ("", []),
        ("https://host/etc", []),
    ],
)
def test_which_values_name_paths(value: str, paths: list[str]) -> None:
    """Absolute paths do; the whole root, and what climbs out of where it begins, are nothing to take."""
    assert named(("some-file", value)) == [("some-file", path) for path in paths]


@pytest.mark.parametrize("flag", ["audit-log-path", "log-file", "log-dir", "cert-dir", "data-dir", "wal-dir"])
def test_what_a_server_writes_is_not_named(flag: str) -> None:
    """Logs and databases are not files to read."""
    assert named((flag, "/var/x"), ("client-ca-file", "/etc/ca")) == [("client-ca-file", "/etc/ca")]


OUTER, INNER = ("/etc/app", "/srv/app"), ("/etc/app/pki", "/mnt/keys")


@pytest.mark.parametrize("mounts", [(OUTER, INNER), (INNER, OUTER), (("/", "/host"), OUTER, INNER)])
@pytest.mark.parametrize(
    ("inside", "on_node"),
    [
        ("/etc/app/pki/ca.crt", "/mnt/keys/ca.crt"),
        ("/etc/app/pki", "/mnt/keys"),
        ("/etc/app/pki-old/ca.crt", "/srv/app/pki-old/ca.crt"),
        ("/etc/app/c.yaml", "/srv/app/c.yaml"),
    ],
)
def test_the_longest_mount_wins(mounts: tuple[tuple[str, str], ...], inside: str, on_node: str) -> None:
    """A path in a container lies where the mount that is nearest above it has it, in whatever order they stand."""
    assert Component("x", "/x.yaml", (), mounts).on_node(inside) == on_node
    assert named(("ca", inside), mounts=mounts) == [("ca", on_node)]


def test_a_path_below_no_mount_is_the_same_on_the_node() -> None:
    """A directory whose name only begins like the mounted one is another."""
    assert Component("x", "/x.yaml", (), (OUTER,)).on_node("/etc/application/c.yaml") == "/etc/application/c.yaml"
    assert Component("x", "/x.yaml", (), ()).on_node("/etc/app/c.yaml") == "/etc/app/c.yaml"


def test_flags_are_gathered_from_every_file(tmp_path: Path) -> None:
    """One program told by several files has all their flags, in the order in which a later one counts."""
    files = write(
        tmp_path,
        config="kube-apiserver-arg: [v=1, --audit-policy-file=/etc/a]\n",
        unit=f"[Service]\n{SERVER} --kube-apiserver-arg v=3 --kube-apiserver-arg=--profiling\n",
        **{"/etc/rancher/k3s/config.yaml.d/10.yaml": "kube-apiserver-arg: v=2\n"},
    )
    found = component(files, K3S, "kube-apiserver")
    assert found is not None
    assert found.flags == (("v", "1"), ("audit-policy-file", "/etc/a"), ("v", "2"), ("v", "3"), ("profiling", ""))
    assert found.flag("v") == "3"


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("kube-apiserver-arg", "kube-apiserver"),
        ("kube-controller-manager-arg", "kube-controller-manager"),
        ("kube-scheduler-arg", "kube-scheduler"),
        ("etcd-arg", "etcd"),
        ("kubelet-arg", "kubelet"),
    ],
)
def test_each_option_is_passed_on_to_its_program(tmp_path: Path, option: str, name: str) -> None:
    """A flag goes to the program that the option is named after, and to no other."""
    told, _ = components(write(tmp_path, config=f"{option}: [some-file=/etc/x]\n"), K3S)
    assert told == (Component(name, "/etc/rancher/k3s/config.yaml", (("some-file", "/etc/x"),)),)


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        (f"{SERVER} --node-name one", "one"),
        (f"{SERVER} --node-name=one", "one"),
        (f"{SERVER} '--node-name' 'one two'", "one two"),
        (f"{SERVER} \\\n  --node-name \\\n  one", "one"),
        (f"  {SERVER} --node-name=one  ", "one"),
        ("ExecStart = /usr/local/bin/k3s server --node-name=one", "one"),
        (f"{SERVER} --node-name=one --node-name=two", "two"),
        ("ExecStart=-/usr/local/bin/k3s server --node-name=one", "one"),
        ("Environment=K3S_NODE_NAME=one", "one"),
        ('Environment="A=b c" "K3S_NODE_NAME=one two"', "one two"),
        ("Environment=OTHER_K3S_NODE_NAME=one", None),
        ("#Environment=K3S_NODE_NAME=one", None),
        (f"#{SERVER} --node-name=one", None),
        ("ExecStartPre=/bin/x --node-name=one", None),
        ("Environment=RKE2_NODE_NAME=one", None),
        (SERVER, None),
    ],
)
def test_options_of_a_unit(tmp_path: Path, unit: str, expected: str | None) -> None:
    """The command over several lines, quoted, or in variables, as systemd reads it; what is commented out is not."""
    assert distribution_option(write(tmp_path, unit=f"[Service]\n{unit}\n"), K3S, "node-name") == expected


@pytest.mark.parametrize(("short", "option"), [("-c", "config"), ("-d", "data-dir"), ("-t", "token")])
def test_short_options_are_read_as_long_ones(tmp_path: Path, short: str, option: str) -> None:
    """``-d /mnt`` moves the data directory as ``--data-dir /mnt`` does."""
    files = write(tmp_path, unit=f"[Service]\n{SERVER} {short} /mnt/x\n")
    assert distribution_option(files, K3S, option) == "/mnt/x"


def test_a_variable_file_beside_a_unit(tmp_path: Path) -> None:
    """Lines of shell, with and without ``export``; a comment, and the variables of others, are passed over."""
    text = "# K3S_TOKEN=old\nexport K3S_NODE_NAME='one'\nK3S_DATASTORE_ENDPOINT=\"x=y\"\nHOME=/root\n"
    text += "MY_K3S_TOKEN=x\nnot K3S_ at all\n"
    told = list(distribution_options(write(tmp_path, **{f"{UNIT}.env": text}), K3S))
    assert told == [(f"{UNIT}.env", {"node-name": ("one",), "datastore-endpoint": ("x=y",)})]


def test_a_unit_takes_the_place_of_one_of_lower_rank(tmp_path: Path) -> None:
    """``/etc`` before ``/usr``: the command of the other unit is not run, and its options do not count."""
    files = write(
        tmp_path,
        unit=f"[Service]\n{SERVER} --node-name=etc\n",
        **{"/usr/lib/systemd/system/k3s.service": f"[Service]\n{SERVER} --node-ip=10.0.0.1 --node-name=usr\n"},
    )
    assert [path for path, _ in distribution_options(files, K3S)] == [UNIT]
    assert (distribution_option(files, K3S, "node-ip"), distribution_option(files, K3S, "node-name")) == (None, "etc")


@pytest.mark.parametrize(("emptied", "expected"), [("ExecStart=\n", None), ("", "10.0.0.1")])
def test_a_drop_in_adds_to_the_command_or_empties_it_first(tmp_path: Path, emptied: str, expected: str | None) -> None:
    """An empty assignment resets what was before; without one the command is one more."""
    files = write(
        tmp_path,
        unit=f"[Service]\n{SERVER} --node-ip=10.0.0.1\n",
        **{f"{UNIT}.d/10.conf": f"[Service]\n{emptied}{SERVER} --node-name=drop-in\n"},
    )
    assert distribution_option(files, K3S, "node-name") == "drop-in"
    assert distribution_option(files, K3S, "node-ip") == expected


def test_files_of_options_come_in_the_order_in_which_they_count(tmp_path: Path) -> None:
    """Environment, configuration, its further files by name, command line; each under its own path."""
    more = "/etc/rancher/k3s/config.yaml.d"
    files = write(
        tmp_path,
        unit=f"[Service]\nEnvironment=K3S_NODE_NAME=0\n{SERVER} --node-name=5\n",
        config="node-name: 2\n",
        **{f"{more}/b.yml": "node-name: 4\n", f"{more}/a.yaml": "node-name: 3\n", f"{more}/c.txt": "node-name: 9\n"},
        **{f"{UNIT}.env": "K3S_NODE_NAME=1\n"},
    )
    told = [(path, options["node-name"]) for path, options in distribution_options(files, K3S)]
    assert told == [
        (UNIT, ("0",)),
        (f"{UNIT}.env", ("1",)),
        ("/etc/rancher/k3s/config.yaml", ("2",)),
        (f"{more}/a.yaml", ("3",)),
        (f"{more}/b.yml", ("4",)),
        (UNIT, ("5",)),
    ]
    assert distribution_option(files, K3S, "node-name") == "5"


def test_values_of_a_configuration_file_are_words(tmp_path: Path) -> None:
    """As the distribution would have them on its command line: switches, numbers, lists, and ``+`` to add to one."""
    text = "secrets-encryption: true\nport: 6443\ndisable: [traefik, 1]\nnode-label+: [a=b]\nempty:\n"
    ((_, options),) = distribution_options(write(tmp_path, config=text), K3S)
    assert options == {
        "secrets-encryption": ("true",),
        "port": ("6443",),
        "disable": ("traefik", "1"),
        "node-label": ("a=b",),
        "empty": ("",),
    }


@pytest.mark.parametrize("layout", [KUBEADM, RKE2], ids=lambda layout: layout.name)
def test_each_manifest_is_told_of_once(tmp_path: Path, layout: Layout) -> None:
    """The two that a layout names by themselves are among the static pods: none is a program twice."""
    assert layout.pods is not None
    text = pod({"name": "x", "command": ["kube-x", "--a=b"]})
    named_alone = [path for path in (layout.etcd_manifest, layout.apiserver_manifest) if path]
    assert len(named_alone) == 2
    files = write(tmp_path, **dict.fromkeys([*named_alone, f"{layout.pods}/own.yaml"], text))
    told, findings = components(files, layout)
    assert sorted(each.told_by for each in told) == sorted([*named_alone, f"{layout.pods}/own.yaml"])
    assert findings == ()


def test_a_manifest_elsewhere_is_read_too(tmp_path: Path) -> None:
    """Where an operator says that the API server's manifest lies elsewhere, it is read beside the static pods."""
    root = kubeadm.unpack(tmp_path / "node")
    (root / "etc/kubernetes/manifests/kube-apiserver.yaml").rename(root / "srv-apiserver.yaml")
    found = component(Files(root), replace(KUBEADM, apiserver_manifest="/srv-apiserver.yaml"), "kube-apiserver")
    assert found is not None
    assert found.told_by == "/srv-apiserver.yaml"


@pytest.mark.parametrize(
    ("flag", "value", "paths"),
    [
        ("tls-sni-cert-key", "/etc/a.crt,/etc/a.key:host.example,*.example", ["/etc/a.crt", "/etc/a.key"]),
        ("client-ca-file", "/etc/a:b.crt", ["/etc/a:b.crt"]),
        ("token", "/b64/that+begins/like=a/path", []),
        ("etcd-s3-secret-key", "/b64/that+begins/like=a/path", []),
        ("token-auth-file", "/etc/tokens.csv", ["/etc/tokens.csv"]),
        ("etcd-s3-config-secret", "/etc/x", []),
    ],
)
def test_values_that_are_no_plain_paths(flag: str, value: str, paths: list[str]) -> None:
    """A pair of files for some names is two files; what may be a secret is never said, whatever it looks like."""
    assert [path for _, path in named((flag, value))] == paths


@pytest.mark.parametrize("linked", ["etc/kubernetes", "etc/kubernetes/manifests"])
def test_static_pods_in_a_linked_directory_are_read(tmp_path: Path, linked: str) -> None:
    """With ``/etc/kubernetes`` on another disk every program is known, not only those that a layout names alone."""
    root = kubeadm.unpack(tmp_path / "node")
    (root / "srv").mkdir(exist_ok=True)
    (root / linked).rename(root / "srv/moved")
    (root / linked).symlink_to("/srv/moved")
    told, findings = components(Files(root), KUBEADM)
    assert {each.name for each in told} >= {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}
    assert findings == ()
