"""What shipping costs: ``python -m benchmarks.replication [--json OUT] [--megabytes 1024] [--rounds 3]``.

One backup of incompressible bytes in segments of 64 MiB goes to a real S3 server on loopback over TLS: by
``edgedr replicate``, and by boto3's own ``upload_file``, one file after the other and in parts, as it comes. Both are
whole processes. The server is started anew for each run, so that neither finds the other's objects.
"""

import argparse
import io
import json
import statistics
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.measured import Cost, machine, mebibytes, run, table
from edgedr.cli.main import main as edgedr
from tests.lab.fake_source import OPERATOR, Lab, bytes_of
from tests.lab.s3servers import Ceph

TIME_TARGET, MEMORY_TARGET = 1.2, 128  # times boto3's, MiB
_MIB = 1 << 20
_BOTO3 = """
import sys, boto3
from botocore.config import Config
endpoint, ca, key, secret, bucket, *files = sys.argv[1:]
client = boto3.client(
    "s3", endpoint_url=endpoint, verify=ca, aws_access_key_id=key, aws_secret_access_key=secret,
    region_name="us-east-1",
    config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
)
for file in files:
    client.upload_file(file, bucket, "boto3" + file)
"""


@dataclass(frozen=True, slots=True)
class Run:
    """What one of them took, in one round."""

    who: str
    cost: Cost


def _edgedr(work: Path, lab: Lab, server: Ceph, at_once: int) -> Cost:
    """Set a node up beside the repository, and let it ship."""
    config, state = work / "edgedr.toml", work / "state"
    words = ["init", "--site", lab.site, "--node", lab.node, "--root", str(lab.root), "--unproven"]
    places = ["--repository", str(lab.objects), "--state", str(state), "--recipient", OPERATOR.recipient]
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as said:
        if edgedr(["--config", str(config), *words, *places]):
            raise RuntimeError(said.getvalue())
    credential = work / "credential"
    credential.write_text(f"{server.access_key}:{server.secret_key}")
    replica = {
        "name": "bench",
        "url": f"s3://{server.bucket()}/edge",
        "endpoint": server.endpoint,
        "ca": str(server.ca),
        "style": "path",
        "credential": f"file:{credential}",
    }
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in replica.items())
    config.write_text(f"{config.read_text()}\n[[replicas]]\n{lines}at_once = {at_once}\n")
    return run([sys.executable, "-m", "edgedr", "--config", config, "replicate"])


def _boto3(lab: Lab, server: Ceph) -> Cost:
    files = sorted(path for path in lab.objects.rglob("*") if path.is_file())
    access = (server.endpoint, server.ca, server.access_key, server.secret_key, server.bucket())
    return run([sys.executable, "-c", _BOTO3, *access, *files])


def rounds(work: Path, megabytes: int, number: int) -> list[Run]:
    """Measure in turn, so that a noisy neighbour hits all of them."""
    lab = Lab(work / "lab")
    lab.back_up(bytes_of(1, megabytes * _MIB), segment_size=64 * _MIB)
    taken = []
    for each in range(number):
        for at_once in (1, 2):
            with Ceph() as server, tempfile.TemporaryDirectory(dir=work) as name:
                taken.append(Run(f"edgedr replicate, at_once = {at_once}", _edgedr(Path(name), lab, server, at_once)))
        with Ceph() as server:
            taken.append(Run("boto3 upload_file", _boto3(lab, server)))
        print(f"round {each + 1} of {number}", file=sys.stderr)
    return taken


def main() -> int:
    """Measure, print a table, and fail above the targets."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replication", description=__doc__)
    parser.add_argument("--json", type=Path, help="write every figure there too")
    parser.add_argument("--megabytes", type=int, default=1024, help="size of the backup in MiB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="directory for temporary files; a tmpfs keeps the disk out of it")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.work, prefix="replication-") as name:
        taken = rounds(Path(name), chosen.megabytes, chosen.rounds)
    print(json.dumps(machine(), indent=2))
    typical = {
        who: _median([each.cost for each in taken if each.who == who]) for who in dict.fromkeys(r.who for r in taken)
    }
    base = typical["boto3 upload_file"]
    rows = [
        [who, f"{cost.seconds:.1f}", f"{cost.cpu:.1f}", mebibytes(cost.peak), f"{cost.seconds / base.seconds:.2f}",
         f"{cost.cpu / base.cpu:.2f}"]
        for who, cost in typical.items()
    ]  # fmt: skip
    print(table((f"{chosen.megabytes} MiB by", "s", "CPU s", "peak MiB", "time / boto3", "CPU / boto3"), rows))
    if chosen.json:
        chosen.json.write_text(json.dumps({"machine": machine(), "runs": [asdict(each) for each in taken]}, indent=2))
    ours = typical["edgedr replicate, at_once = 2"]
    missed = max(ours.seconds / base.seconds, ours.cpu / base.cpu) > TIME_TARGET or ours.peak > MEMORY_TARGET * _MIB
    print(
        f"\ntarget of {TIME_TARGET} times boto3 in time and CPU, {MEMORY_TARGET} MiB: {'missed' if missed else 'met'}"
    )
    return 1 if missed else 0


def _median(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(getattr(cost, name) for cost in costs) for name in ("seconds", "cpu", "peak")))


if __name__ == "__main__":
    sys.exit(main())
