"""Package databases, programs without a package, and versions: written here, and this machine's own."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedr.errors import SourceError
from edgedr.layouts import K3S, KUBEADM, UNKNOWN
from edgedr.node.commands import HostCommands, NoCommands
from edgedr.node.files import Files
from edgedr.node.packages import (
    Package,
    Program,
    installed,
    kubernetes_version,
    modules,
    operating_system,
    programs,
    read_apk,
    read_dpkg,
    static_images,
)
from tests.lab import kubeadm
from tests.lab.hardware import Answers, put

DPKG = """\
Package: kubelet
Status: hold ok installed
Architecture: amd64
Version: 1.36.2-1.1
Description: Node agent
 Version: 0 is in the second line of a description
Conffiles:
 /etc/default/kubelet 00000000000000000000000000000000

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0

Package: containerd.io
Status: install ok triggers-pending
Architecture: amd64
Version: 2.1.0-1

Package: half
Status: install reinstreq half-installed
Architecture: all
Version: 1
"""
APK = """\
C:Q1abc=
P:musl
V:1.2.5-r1
A:x86_64
F:lib
R:ld-musl-x86_64.so.1

P:containerd
V:2.0.1-r0
A:x86_64
"""
RPM = r"rpm -qa --qf %{NAME}\t%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\t%{ARCH}\n"


def test_dpkg_tells_what_is_installed() -> None:
    """What was removed or is half there does not count; a package that is held is known as such."""
    assert list(read_dpkg(DPKG)) == [
        Package("kubelet", "1.36.2-1.1", "amd64", held=True),
        Package("containerd.io", "2.1.0-1", "amd64"),
    ]


def test_apk_tells_what_is_installed() -> None:
    """Alpine's database is read where k3s likes to live."""
    assert list(read_apk(APK)) == [Package("musl", "1.2.5-r1", "x86_64"), Package("containerd", "2.0.1-r0", "x86_64")]


def test_each_manager_is_found(tmp_path: Path) -> None:
    """The database that is there says which manager it is; the answer is sorted, and each package is in it once."""
    put(tmp_path, "/lib/apk/db/installed", APK)
    assert installed(Files(tmp_path), NoCommands()) == ("apk", tuple(sorted(read_apk(APK))))
    put(tmp_path, "/var/lib/dpkg/status", f"{DPKG}\n{DPKG}")
    assert installed(Files(tmp_path), NoCommands()) == ("dpkg", tuple(sorted(read_dpkg(DPKG))))


def test_rpm_and_pacman_are_asked(tmp_path: Path) -> None:
    """Their databases are read by their own programs; keys that rpm trusts are no packages."""
    rpm, pacman = tmp_path / "rpm", tmp_path / "pacman"
    put(rpm, "/usr/lib/sysimage/rpm/rpmdb.sqlite")
    put(pacman, "/var/lib/pacman/local/ALPM_DB_VERSION")
    answers = Answers(
        {RPM: "runc\t4:1.2.4-1.el9\tx86_64\ngpg-pubkey\t8483-59\t(none)\n", "pacman -Q": "etcd 3.6.0-1\nrunc 1.2.4-1\n"}
    )
    assert installed(Files(rpm), answers) == ("rpm", (Package("runc", "4:1.2.4-1.el9", "x86_64"),))
    assert installed(Files(pacman), answers) == ("pacman", (Package("etcd", "3.6.0-1"), Package("runc", "1.2.4-1")))
    with pytest.raises(SourceError, match="was not run"):
        installed(Files(rpm), NoCommands())


def test_no_database_is_not_an_empty_one(tmp_path: Path) -> None:
    """A node without a package manager is told from one whose database is lost, damaged or cannot be read."""
    assert installed(Files(tmp_path), NoCommands()) is None
    put(tmp_path, "/var/lib/dpkg/status", "")
    with pytest.raises(SourceError, match="names no package"):
        installed(Files(tmp_path), NoCommands())
    (tmp_path / "var/lib/dpkg/status").unlink()
    (tmp_path / "var/lib/dpkg/status").mkdir()
    with pytest.raises(SourceError, match="cannot be read"):
        installed(Files(tmp_path), NoCommands())


@given(st.text())
def test_no_database_stops_it(text: str) -> None:
    """Whatever a database holds, what comes of it fits on one line, in three words."""
    for package in (
        *read_dpkg(f"Status: install ok installed\nPackage: {text}"),
        *read_apk(f"P:{text}"),
        *read_dpkg(text),
    ):
        for word in (package.name, package.version, package.architecture):
            assert all(sign.isprintable() and not sign.isspace() for sign in word)


def test_this_machine_is_told_as_dpkg_tells_it() -> None:
    """The whole list agrees with ``dpkg-query``."""
    if shutil.which("dpkg-query") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("dpkg-query is missing: Debian package dpkg")
    words = ("dpkg-query", "-W", "-f", "${db:Status-Status} ${Package} ${Version} ${Architecture}\n")
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    expected = sorted(line.removeprefix("installed ") for line in said.splitlines() if line.startswith("installed "))
    told = installed(Files(Path("/")), HostCommands())
    assert told is not None
    assert sorted(f"{package.name} {package.version} {package.architecture}" for package in told[1]) == expected


def test_programs_without_a_package_are_hashed(tmp_path: Path) -> None:
    """What a package brought is known by its version; what somebody put there is known by its content, once."""
    put(tmp_path, "/usr/local/bin/k3s", "abc")
    (tmp_path / "usr/local/bin/kubectl").symlink_to("k3s")
    put(tmp_path, "/usr/bin/kubelet", "packaged")
    put(tmp_path, "/usr/bin/kubeadm", "by hand")
    (tmp_path / "usr/local/bin/etcd").mkdir()
    found = list(programs(Files(tmp_path), [Package("kubelet", "1")]))
    hashed = [each for each in found if isinstance(each, Program)]
    assert [each.path for each in hashed] == ["/usr/bin/kubeadm", "/usr/local/bin/k3s"]
    assert hashed[1] == Program(
        "/usr/local/bin/k3s", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    assert [each for each in found if each not in hashed] == [("/usr/local/bin/etcd", "a directory")]


def test_a_changed_program_is_hashed_again(tmp_path: Path) -> None:
    """The hash that is kept for the next run belongs to one state of the file."""
    put(tmp_path, "/usr/local/bin/k3s", "abc")
    first = list(programs(Files(tmp_path), ()))
    put(tmp_path, "/usr/local/bin/k3s", "abcd")
    second = list(programs(Files(tmp_path), ()))
    assert first != second
    assert list(programs(Files(tmp_path), ())) == second


def test_a_huge_program_is_said_and_not_read(tmp_path: Path) -> None:
    """A file far larger than any such program is not read at every backup."""
    put(tmp_path, "/usr/local/bin/kubelet")
    with (tmp_path / "usr/local/bin/kubelet").open("wb") as file:
        file.truncate(300 << 20)
    assert list(programs(Files(tmp_path), ())) == [
        ("/usr/local/bin/kubelet", f"huge: {300 << 20} bytes, at most {256 << 20} are taken")
    ]


def test_the_kubelet_tells_its_version() -> None:
    """The program is asked first; on a root that does not run, its package tells."""
    packages = [Package("kubelet", "1.35.0-1.1")]
    assert kubernetes_version(Answers({"kubelet --version": "Kubernetes v1.36.2\n"}), KUBEADM, packages) == "v1.36.2"
    assert kubernetes_version(NoCommands(), KUBEADM, packages) == "v1.35.0"
    k3s = Answers({"k3s --version": "k3s version v1.33.1+k3s1 (99d91538)\ngo version go1.24.2\n"})
    assert kubernetes_version(k3s, K3S, ()) == "v1.33.1+k3s1"
    assert kubernetes_version(Answers({"kubelet --version": "no idea"}), KUBEADM, ()) is None
    assert kubernetes_version(k3s, UNKNOWN, packages) is None


def test_static_pods_tell_their_images(tmp_path: Path) -> None:
    """Versions of the control plane's parts are in its manifests; one that cannot be read stops nothing."""
    root = kubeadm.unpack(tmp_path)
    put(root, "/etc/kubernetes/manifests/broken.yaml", "spec: [")
    put(root, "/etc/kubernetes/manifests/list.yaml", "- a")
    found = static_images(Files(root), KUBEADM)
    assert sorted(found) == ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]
    assert found["etcd"] == "registry.k8s.io/etcd:3.6.8-0"
    assert static_images(Files(root), UNKNOWN) == {}


def test_the_system_tells_its_name(tmp_path: Path) -> None:
    """``os-release`` is read where distributions keep it, with and without quotes."""
    assert operating_system(Files(tmp_path)) == {}
    put(tmp_path, "/usr/lib/os-release", "ID=alpine\nPRETTY_NAME='Alpine 3.22'\nHOME_URL=x\nnonsense\n")
    assert operating_system(Files(tmp_path)) == {"id": "alpine", "pretty_name": "Alpine 3.22"}


def test_modules_that_are_configured_are_told(tmp_path: Path) -> None:
    """What is loaded at boot is told, without comments, each once."""
    put(tmp_path, "/etc/modules-load.d/a.conf", "# a\n; b\n\noverlay\n")
    put(tmp_path, "/etc/modules", "overlay\nbr_netfilter\n")
    assert modules(Files(tmp_path)) == ["br_netfilter", "overlay"]
