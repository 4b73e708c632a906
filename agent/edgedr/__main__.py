"""Where every run begins: the command ``edgedr``, and ``python -m edgedr``."""

import gc
import sys


def start() -> int:
    """Run the command line, and return its exit code."""
    gc.disable()  # imports make no garbage, and looking for it is a quarter of what a short command costs
    from edgedr.cli.main import main  # noqa: PLC0415

    return main()


if __name__ == "__main__":
    sys.exit(start())
