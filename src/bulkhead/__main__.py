"""`bulkhead`: the only place where an error becomes an exit code."""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

OWN_ERROR = 125
INTERRUPTED = 130
BROKEN_PIPE = 141


def main() -> NoReturn:
    """Run the command line and end with its exit code.

    At once: taking the interpreter apart costs 4 ms, a seventh of an `exec`, and there is nothing left to release.
    """
    # Nearly all that a command allocates stays to its end: looking for what does not costs a millisecond.
    gc.set_threshold(100_000)
    code = run(sys.argv[1:])
    try:
        sys.stderr.flush()
    finally:
        os._exit(code)


def testbed() -> NoReturn:
    """The program autopkgtest-virt-bulkhead."""
    from bulkhead.cli.virt import run as serve

    code = run(sys.argv[1:], serve)
    sys.stderr.flush()
    os._exit(code)


def run(words: list[str], carry_out: Callable[[list[str]], int] | None = None) -> int:
    """Run a command line; its exit code. What it printed has been flushed."""
    if carry_out is None:
        from bulkhead.cli.main import main as command

        carry_out = command
    try:
        code = carry_out(words)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has gone.
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as end:
        # argparse ends like this after --help.
        sys.stdout.flush()
        return end.code if isinstance(end.code, int) else 0
    except Exception as error:
        return _told(error)
    return code


def _told(error: Exception) -> int:
    """Say what went wrong on stderr. The error tree is loaded only here: most commands succeed."""
    from bulkhead.cli.output import printable
    from bulkhead.errors import BulkheadError

    if not isinstance(error, BulkheadError):
        import traceback

        traceback.print_exception(error)
        sys.stderr.write("Error: this is a bug in bulkhead\n")
        return OWN_ERROR
    sys.stdout.flush()
    for problem in error.problems:
        sys.stderr.write(f"Error: {printable(problem.what)}\n")
        if problem.hint:
            sys.stderr.write(f"hint: {printable(problem.hint)}\n")
    return error.exit_code


if __name__ == "__main__":
    main()
