"""`bulkhead`: the only place where an error becomes an exit code."""

from __future__ import annotations

import os
import sys

OWN_ERROR = 125
INTERRUPTED = 130
BROKEN_PIPE = 141


def main() -> int:
    """Run the command line; its exit code."""
    from bulkhead.cli.main import main as run

    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has gone; nothing may be flushed into it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        sys.stdout.flush()
        return _told(error)
    return code


def _told(error: Exception) -> int:
    """Say what went wrong on stderr. The error tree is loaded only here: most commands succeed."""
    from bulkhead.errors import BulkheadError

    if not isinstance(error, BulkheadError):
        import traceback

        traceback.print_exception(error)
        sys.stderr.write("Error: this is a bug in bulkhead\n")
        return OWN_ERROR
    for problem in error.problems:
        sys.stderr.write(f"Error: {problem.what}\n")
        if problem.hint:
            sys.stderr.write(f"hint: {problem.hint}\n")
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
