"""``make demo``: back up a real etcd with its certificates, lose all of it, get it back, compare everything."""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab import kubeadm
from tests.lab.churn import Site
from tests.lab.whole import ControlPlane, control_plane

MEGABYTES = 20
MINUTES = 60
NODE = "cp-1"
KEPT = "etc/kubernetes"


class Demo:
    """One node and its operator, each with a directory of their own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "etc-edgedr" / "edgedr.toml"
        self.state = directory / "var-lib-edgedr"
        self.disk = directory / "usb-disk"
        self.operator = directory / "operator"
        self.operator.mkdir(mode=0o700)
        self.identity = self.operator / "key.txt"
        self.rows: list[tuple[str, str, str]] = []

    def edgedr(self, *words: str, show: bool = True) -> str:
        """Run a command as the operator types it."""
        command = [sys.executable, "-m", "edgedr", "--config", str(self.config), *words]
        if show:
            print(f"\n$ edgedr {' '.join(self._short(word) for word in words)}")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"edgedr {words[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        if show:
            print(self._short(done.stdout), end="")
        return done.stdout

    def init(self, root: Path) -> None:
        """Set the node up; the operator answers the challenge with an identity that the node never sees."""
        recipient = self._make_identity()
        arguments = ["init", "--site", "plant-7", "--node", NODE, "--root", str(root), "--recipient", recipient]
        self.disk.mkdir()
        arguments += ["--state", str(self.state), "--replica", str(self.disk)]
        print(f"\n$ edgedr {' '.join(self._short(word) for word in arguments)}")
        command = [sys.executable, "-u", "-m", "edgedr", "--config", str(self.config), *arguments]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as node:
            assert node.stdin is not None
            assert node.stdout is not None
            for line in node.stdout:
                print(self._short(line), end="")
                if "keys prove" in line:
                    challenge = line.split("'")[1]
                    answer = self.edgedr("keys", "prove", challenge, "--identity", str(self.identity), show=False)
                    node.stdin.write(answer)
                    node.stdin.flush()
                if "allowed_signers" not in line and 'namespaces="edgedr"' in line:
                    (self.operator / "allowed_signers").write_text(line.strip() + "\n")
        if node.returncode:
            raise SystemExit(f"edgedr init ended with {node.returncode}")

    @contextmanager
    def timed(self, what: str) -> Iterator[list[str]]:
        """Time an act; what is appended to the list stands beside it in the table."""
        said: list[str] = []
        start = time.monotonic()
        yield said
        self.rows.append((what, f"{time.monotonic() - start:.1f} s", "  ".join(said)))

    def _make_identity(self) -> str:
        from edgedr.sealing.identities import make_identity  # noqa: PLC0415

        made = make_identity()
        self.identity.write_text(f"# public key: {made.recipient}\n{made.secret}\n")
        self.identity.chmod(0o600)
        return made.recipient

    def _short(self, text: str) -> str:
        return text.replace(str(self.directory), "~")


def files_below(top: Path) -> dict[str, tuple[int, int, int, int, str]]:
    """Return what each file and directory is: mode, owner, group, time, and hash or link target."""
    found = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        content = str(path.readlink()) if path.is_symlink() else ""
        if path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(top))] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, content)
    return found


def back_up(demo: Demo, title: str) -> None:
    """Back up, and note size and class."""
    with demo.timed(title) as said:
        demo.edgedr("backup")
        newest = json.loads(demo.edgedr("list", "--json", show=False))[-1]
        etcd = next(artifact for artifact in newest["artifacts"] if artifact["name"] == "etcd.db")
        said += [
            newest["class"],
            f"etcd {etcd['bytes'] / 1e6:.1f} MB",
            f"on the wire {newest['stored_bytes'] / 1e6:.2f} MB",
        ]


def run(directory: Path) -> None:
    """Carry the demonstration out."""
    demo = Demo(directory)
    print("A control-plane node as kubeadm left it: real etcd with TLS, a stand-in of its API server.")
    root = kubeadm.unpack(directory / "node")
    with control_plane(root, directory) as plane:
        etcd = plane.etcd
        member = etcd.members[0]
        site = Site(etcd)
        with demo.timed("fill etcd with a site"):
            site.fill(MEGABYTES)
        demo.init(root)
        plane.configure(demo.config)
        demo.config.write_text(f"{demo.config.read_text()}same_disk = true  # it is, in this demonstration\n")
        back_up(demo, "first backup")
        with demo.timed(f"{MINUTES} min of cluster life"):
            site.churn(MINUTES)
        back_up(demo, "second backup")
        demo.edgedr("list")
        demo.edgedr("show", "latest")
        keys, files, revision = etcd.items(), files_below(root / KEPT), etcd.revision()

        print("\nThe disaster: etcd's data, all of /etc/kubernetes, and edgedr's own repository and keys are gone.")
        print("What is left is the second disk, and the operator's key.")
        etcd.stop()
        shutil.rmtree(member.data)
        shutil.rmtree(root / KEPT)
        shutil.rmtree(demo.state)
        demo.config.unlink()

        identity = ("--from", str(demo.disk), "--identity", str(demo.identity))
        with demo.timed("prove") as said:
            demo.edgedr("verify", "--all", *identity)
            said.append("every backup decrypts, every hash holds")
        restored = directory / "restored"
        with demo.timed("restore"):
            demo.edgedr("restore", "latest", "--to", str(restored), *identity)
        with demo.timed("put back, start etcd"):
            subprocess.run(["cp", "-a", f"{restored}/files/{KEPT}", str(root / KEPT)], check=True)
            member.restore(restored / "etcd.db")
            etcd.start()
        compare(demo, plane, keys, files, revision)
    print()
    for what, seconds, said_of_it in demo.rows:
        print(f"{what:<24} {seconds:>7}   {said_of_it}".rstrip())
    print("\nEverything that was there is there again.")


def compare(
    demo: Demo,
    plane: ControlPlane,
    keys: dict[bytes, bytes],
    files: dict[str, tuple[int, int, int, int, str]],
    revision: int,
) -> None:
    """Compare every key and every file with what was there before; any difference ends the demonstration."""
    with demo.timed("compare") as said:
        etcd, top = plane.etcd, plane.root / KEPT
        now = etcd.items()
        if now != keys:
            raise SystemExit(f"{len(set(now) ^ set(keys))} keys differ")
        if etcd.revision() < revision:
            raise SystemExit(f"revision {etcd.revision()} is older than {revision}")
        back = files_below(top)
        different = sorted(path for path in files if back.get(path) != files[path])
        if different:
            raise SystemExit(f"files differ: {', '.join(different[:5])}")
        count = sum(1 for path in files if (top / path).is_file())
        said.append(f"{len(keys)} keys and {count} files equal: content, mode, owner, time")


def main() -> None:
    """Run in a directory of its own, which is removed at the end."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="edgedr-demo-") as directory:
        run(Path(directory))
    print(f"done in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
