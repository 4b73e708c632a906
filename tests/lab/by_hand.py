"""The recipe by hand, run as it is printed, with the stock tools and nothing else."""

import shlex
import subprocess
from importlib import resources
from pathlib import Path

from tests.lab.tools import need

TOOLS = ("sh", "age", "zstd", "tar", "ssh-keygen", "sed", "head", "cat", "grep", "sha256sum", "mkdir", "rm", "mv")


def recipe() -> str:
    """Return the script that lies in every repository, between its marks."""
    text = resources.files("edgedr").joinpath("data/RECOVER.txt").read_text()
    return text.split("--8<-- begin\n")[1].split("--8<-- end\n")[0]


def recover_by_hand(
    directory: Path,
    *,
    repository: Path,
    backup: str,
    identity: Path,
    allowed_signers: Path | None = None,
    site: str = "plant-7",
    node: str = "cp-1",
) -> subprocess.CompletedProcess[str]:
    """Run the recipe in ``directory``, made for it, with a PATH of stock tools; return how it ended."""
    tools = directory.with_name(f"{directory.name}-tools")
    tools.mkdir()
    for tool in TOOLS:
        (tools / tool).symlink_to(need(tool))
    directory.mkdir()
    settings = {"REPOSITORY": repository, "SITE": site, "NODE": node, "ID": backup, "IDENTITY": identity}
    if allowed_signers is not None:
        settings["ALLOWED_SIGNERS"] = allowed_signers
    script = "".join(f"{name}={shlex.quote(str(value))}\n" for name, value in settings.items()) + recipe()
    return subprocess.run(
        [tools / "sh"],
        input=script,
        cwd=directory,
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )
