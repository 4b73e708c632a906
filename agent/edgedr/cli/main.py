"""The way in: read the command line, run one command, turn what went wrong into a message and an exit code."""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from edgedr.cli.parser import Arguments, build_parser
from edgedr.errors import EdgedrError

_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = build_parser().parse_args(argv)
    if arguments.config is None:
        arguments.config = Path(os.environ.get("EDGEDR_CONFIG", "/etc/edgedr/edgedr.toml"))
    os.umask(0o077)  # every file is made with its own mode; this is for what libraries may write
    try:
        return _run(arguments)
    except EdgedrError as error:
        _complain(error.message, error.hint, error.exit_code)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left; nothing more to say
        return 0
    except KeyboardInterrupt:
        print("interrupted; what was begun will be swept by the next run", file=sys.stderr)
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the boundary: a bug becomes a message and exit code 1
        return _bug(error)


def _run(arguments: Arguments) -> int:
    module, name = arguments.command.function
    function: Callable[[Arguments], int] = getattr(importlib.import_module(module), name)
    code = function(arguments)
    sys.stdout.flush()
    return code


def _complain(message: str, hint: str | None, code: int) -> None:
    red, plain = ("\033[31m", "\033[0m") if sys.stderr.isatty() else ("", "")
    print(f"{red}error:{plain} {message}", file=sys.stderr)
    if hint:
        print(f"  hint: {hint}", file=sys.stderr)
    print(f"(exit {code})", file=sys.stderr)


def _bug(error: Exception) -> int:
    """Say where, but no values: a traceback's locals may be secrets."""
    import traceback  # noqa: PLC0415

    frames = traceback.extract_tb(error.__traceback__)
    print(f"error: bug in edgedr: {type(error).__name__}: {error}", file=sys.stderr)
    for frame in frames[-4:]:
        print(f"  {Path(frame.filename).name}:{frame.lineno} in {frame.name}", file=sys.stderr)
    print("  hint: please report these lines; earlier backups are untouched", file=sys.stderr)
    print("(exit 1)", file=sys.stderr)
    return EdgedrError.exit_code


if __name__ == "__main__":
    sys.exit(main())
