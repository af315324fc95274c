"""Helper programs: found again, ended by what they are, and never there twice."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from bulkhead.host.services import Service

SERVER = """
import os, sys, time
from pathlib import Path
if os.fork():
    while not Path(sys.argv[1]).exists():
        time.sleep(0.01)
    os._exit(0)
os.setsid()
null = os.open(os.devnull, os.O_RDWR)
for stream in (0, 1, 2):
    os.dup2(null, stream)
Path(sys.argv[1]).write_text(str(os.getpid()))
time.sleep(600)
"""
"""Goes to the background once its pid file is there, as such programs do."""


def argv(service: Service) -> list[str]:
    return [sys.executable, "-c", SERVER, str(service.pid_file)]


def test_it_is_found_again_and_ended(tmp_path: Path) -> None:
    service = Service(tmp_path / "made" / "server.pid")
    assert service.running() is None
    service.start(argv(service))
    pid = service.running()
    assert pid
    assert Service(service.pid_file).running() == pid
    assert service.stop()
    assert not service.stop()
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text()


def test_one_that_a_crash_left_without_a_pid_file_does_not_stay(tmp_path: Path) -> None:
    service = Service(tmp_path / "server.pid")
    stray = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", str(service.pid_file)])
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", str(tmp_path / "other.pid")])
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    reader = subprocess.Popen(["tail", "-F", str(service.pid_file)], **silent)  # type: ignore[call-overload]
    try:
        while str(service.pid_file) not in Path(f"/proc/{stray.pid}/cmdline").read_text():
            time.sleep(0.01)
        service.start(argv(service))
        assert stray.wait(60) == -9
        assert other.poll() is None
        assert reader.poll() is None, "who only looks at the file is left alone"
        assert service.stop()
    finally:
        for each in (stray, other, reader):
            each.kill()
            each.wait()
