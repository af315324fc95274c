"""The API is asked everything that its description allows, and what it does not allow, by schemathesis.

A longer run: `BULKHEAD_API_EXAMPLES=200 .venv/bin/pytest --timeout=3600 tests/integration/test_api_description.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.harness.daemon import Daemon
from tests.harness.tcp import bridged

OPENAPI = Path(__file__).resolve().parents[2] / "docs/reference/openapi.json"
EXAMPLES = os.environ.get("BULKHEAD_API_EXAMPLES", "2")
PHASES = "coverage,fuzzing" if "BULKHEAD_API_EXAMPLES" in os.environ else "fuzzing"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
    "missing_required_header",
)
LEFT_OUT = {
    "make_kernel": "downloads a kernel, or builds one",
    "prepare_rescue": "downloads packages",
    "bootstrap_image": "downloads packages",
    "bootstrap_disk": "downloads packages",
    "open_room": "goes on until its client goes",
    "try_login": "asks a registry, which does not answer",
    "list_tags": "asks a registry, which does not answer",
    "list_referrers": "asks a registry, which does not answer",
    "doctor": "boots a guest to see whether that works",
    "isolation": "boots a guest to see whether that works",
    "audit_level": "boots guests",
    "hold_name": "goes on until its client goes",
    "events": "may go on for ever",
    "logs": "may go on for ever",
    "watch": "goes on until it is ended",
    "attach": "goes on until its workload ends",
    "wait_instance": "goes on until its workload ends",
    "follow_operation": "goes on until its operation ends",
}
"""What cannot be asked at random, and why. Each has tests of its own."""


def test_the_api_is_as_it_is_described(daemon: Daemon, busybox_tar: Path) -> None:
    daemon.cli("image", "import", busybox_tar, "0")
    # What names at random are most often.
    daemon.cli("run", "-d", "--name", "0", "--isolation", "chroot", "0", "sleep", "1000")
    daemon.cli("volume", "create", "0", "--size", "16M")
    with bridged(daemon.config.socket_path) as url:
        argv = [
            *(str(Path(sys.executable).parent / "schemathesis"), "run", str(OPENAPI), "--url", url),
            *("--phases", PHASES, "--max-examples", EXAMPLES, "--mode", "all"),
            *("--checks", ",".join(CHECKS), "--request-timeout", "60", "--seed", "7"),
            *("--generation-database", "none", "--no-color", "--warnings", "off"),
            *(word for name in LEFT_OUT for word in ("--exclude-operation-id", name)),
        ]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=daemon.directory)
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr
    assert daemon.api("GET", "/v1/ping").status == 200
    assert "Traceback" not in daemon.log()
    for network in daemon.api("GET", "/v1/networks").body:
        if network["name"] != "default":
            daemon.api("DELETE", f"/v1/networks/{network['name']}")
