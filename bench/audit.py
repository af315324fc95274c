"""The audit of a container of podman's, as it is without an option, by the same probe and the same rules.

bench/run is for figures; this is `.venv/bin/python -m bench.audit ROOTFS.tar > podman.json`, and bench/audit.sh makes
the page of all levels with it. Runs as root, in mount and network namespaces of its own; podman's store is thrown away.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from bench import timing
from bulkhead.agent.probe import find_probe
from bulkhead.audit.assessing import Gathered, assess
from bulkhead.audit.facts import parse
from bulkhead.engine import auditing

NAME, IMAGE, INSIDE = "audited", "localhost/audited", "/audit-probe"
RUNTIMES = ("crun", "runc")
LIMITS = tuple(
    f"--ulimit={name}={min(most, resource.getrlimit(which)[1] if resource.getrlimit(which)[1] > 0 else most)}"
    for name, which, most in (("nofile", resource.RLIMIT_NOFILE, 1024), ("nproc", resource.RLIMIT_NPROC, 4096))
)
"""podman asks for more files and processes than some hosts allow; nothing that is looked at depends on them."""


def main(archive: Path) -> int:
    """Print the report."""
    if os.environ.get("BENCH_AUDIT_APART") != "yes":
        os.environ["BENCH_AUDIT_APART"] = "yes"
        command = ["unshare", "--mount", "--net", sys.executable, "-m", "bench.audit", str(archive)]
        return subprocess.run(command, check=False).returncode
    with ExitStack() as stack:
        home = Path(tempfile.mkdtemp(prefix="bench-audit-"))
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        report = _audit(_podman(home, archive, stack), home)
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return 0


def _podman(home: Path, archive: Path, stack: ExitStack) -> list[str]:
    """podman with a container that runs; the words before its commands."""
    options = {
        "root": home / "store",
        "runroot": home / "run",
        "tmpdir": home / "tmp",
        "network-config-dir": home / "networks",
        "cgroup-manager": "cgroupfs",
        "events-backend": "file",
        "storage-driver": "overlay",
    }
    (home / "networks").mkdir()
    common = [timing.find("podman", "podman"), *(f"--{key}={value}" for key, value in options.items())]
    subprocess.run([*common, "import", "-q", str(archive), IMAGE], check=True, stdout=subprocess.DEVNULL)
    for runtime in RUNTIMES:
        podman = [*common, f"--runtime={runtime}"]
        stack.callback(subprocess.run, [*podman, "rm", "-f", "-t", "0", "-a"], check=False, stdout=subprocess.DEVNULL)
        run = [*podman, "run", "-d", *LIMITS, "--name", NAME, IMAGE, "sleep", "infinity"]
        if subprocess.run(run, check=False, stdout=subprocess.DEVNULL).returncode == 0:
            return podman
        subprocess.run([*podman, "rm", "-f", NAME], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    raise SystemExit("podman starts no container here")


def _audit(podman: list[str], home: Path) -> dict[str, object]:
    probe = find_probe()
    pid = int(timing.output([*podman, "inspect", "-f", "{{.State.Pid}}", NAME]))
    version = timing.output([*podman, "--version"]).split()[-1]
    subprocess.run([*podman, "cp", str(probe), f"{NAME}:{INSIDE}"], check=True)
    told = subprocess.run([*podman, "exec", NAME, INSIDE, "look"], check=True, stdout=subprocess.PIPE).stdout
    process = auditing.seen(pid, own=[str(home)])
    reference = auditing.reference(probe, auditing.mask_of(process.bounding)) if process.seccomp else {}
    runtime = podman[-1].partition("=")[2]
    gathered = Gathered(
        instance=NAME,
        level="container",
        image="the same root file system",
        host_kernel=os.uname().release,
        when=time.time(),
        looks={"root": parse(told)},
        process=process,
        reference=reference,
        notes=("no addresses were tried: it is the only container of its network",),
    )
    return {"label": f"podman {version} ({runtime})", **assess(gathered).model_dump(mode="json")}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])) if len(sys.argv) == 2 else 2)
