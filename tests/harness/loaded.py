"""A process that has loaded what the daemon loads: holders of sandboxes are forked from it, and daemons from those.

To load it is nearly all that a daemon's start takes, which a run of the tests would spend more than a thousand times.
Run as a program; its arguments are the paths that it loads from, as the command's are. Each message on its stdin is the
network that a holder is to have, with the two descriptors by which it speaks; the answer is its pid.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from pathlib import Path


def load() -> None:
    """What `bulkhead serve` loads until it answers."""
    import uvloop  # noqa: F401

    import bulkhead.api.server
    import bulkhead.cli.main
    import bulkhead.cli.parsing
    import bulkhead.cli.serve
    import bulkhead.config
    import bulkhead.engine  # noqa: F401


def main() -> None:
    """Make holders until the end of stdin."""
    sys.path[1:1] = sys.argv[1:]
    from tests.harness import holder

    load()
    tasks = list(Path("/proc/self/task").iterdir())
    assert len(tasks) == 1, f"{len(tasks)} threads: it cannot be forked"
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them: see Sandbox.close
    for end in holder.ENDS:
        signal.signal(end, signal.SIG_IGN)
    connection = socket.socket(fileno=0)
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, 16, 2)
        if not message:
            os._exit(0)
        pid = os.fork()
        if pid == 0:
            connection.detach()
            for number, descriptor in enumerate(descriptors):
                os.dup2(descriptor, number)
            os.closerange(3, 1 << 16)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                holder.hold(message.decode())
            finally:
                os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)
        connection.send(str(pid).encode())


if __name__ == "__main__":
    main()
