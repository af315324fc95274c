"""The demo: two applications, five walls, one plan. Uses the command line alone, as a user would."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from bulkhead.config import load

BULKHEAD = str(Path(sys.executable).with_name("bulkhead"))
CONTAINERFILES = Path(__file__).with_name("demo.d")
PLAN = ("--memory", "512M", "--cpus", "2", "--disk", "5G")
NGINX_ON = (
    "sed -i 's/80 default_server/{port} default_server/' /etc/nginx/sites-enabled/default"
    " && exec nginx -g 'daemon off;'"
)
KERNEL = "kernel/debian:latest"
INSIDE = "container in a VM"
UNIKERNEL = "redis-unikernel"
UNIKERNEL_COMMAND = ("redis-server", "--save", "", "--bind", "0.0.0.0", "--protected-mode", "no")
DEADLINE = 60.0
console = Console()


@dataclass(frozen=True)
class Service:
    """An instance to run; `port` is where it answers on this host, `wall` what the tables call its wall."""

    name: str
    image: str
    wall: str
    port: int
    options: tuple[str, ...] = ()
    command: tuple[str, ...] = ()

    @property
    def level(self) -> tuple[str, ...]:
        """The options that ask for its wall."""
        return ("--inside", "new") if self.wall == INSIDE else ("--isolation", self.wall)


BASE = "debian:bookworm"
PICTURES = ("nginx", "redis")
"""Images that are built; the Containerfiles are in scripts/demo.d/."""
SERVICES = (
    Service("demo-nginx", "nginx", "container", 8080, ("-p", "8080:80")),
    Service("demo-redis", "redis", "container", 16379, ("-p", "16379:6379")),
    Service("demo-nginx-chroot", "nginx", "chroot", 8081, (), ("sh", "-c", NGINX_ON.format(port=8081))),
    Service("demo-redis-chroot", "redis", "chroot", 16380, (), ("redis-server", "--port", "16380")),
    Service("demo-nginx-vm", "nginx", "vm", 8082, ("-p", "8082:80")),
    Service("demo-redis-vm", "redis", "vm", 16381, ("-p", "16381:6379")),
    Service("demo-redis-inside", "redis", INSIDE, 16382, ("-p", "16382:6379")),
    Service("demo-redis-unikernel", UNIKERNEL, "unikernel", 16383, ("-p", "16383:6379")),
)


def bulkhead(*arguments: str, show: bool = False) -> str:
    """Run one command; its output. With `show` what it says goes to the terminal."""
    done = subprocess.run([BULKHEAD, *arguments], stdout=None if show else subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"failed ({done.returncode}): bulkhead {' '.join(arguments)}")
    return done.stdout or ""


def make_images() -> None:
    """Bootstrap and build what is not there yet."""
    have = {name for image in json.loads(bulkhead("image", "ls", "--format", "json")) for name in image["references"]}
    if BASE in have:
        console.print(f"[dim]image {BASE} is there[/]")
    else:
        console.print(f"[bold]making image {BASE}[/] from Debian packages")
        bulkhead("image", "bootstrap", BASE, show=True)
    for name in PICTURES:
        # A build whose steps were all done before takes no time.
        console.print(f"[bold]$[/] bulkhead build -t {name} scripts/demo.d/{name}")
        bulkhead("build", "-t", name, *proxies(), str(CONTAINERFILES / name), show=True)
    if KERNEL in have:
        console.print(f"[dim]image {KERNEL} is there[/]")
    else:
        console.print(f"[bold]making image {KERNEL}[/] from Debian's kernel package")
        bulkhead("image", "kernel", "debian", show=True)
    if f"{UNIKERNEL}:latest" in have:
        console.print(f"[dim]image {UNIKERNEL} is there[/]")
    else:
        console.print(f"[bold]making image {UNIKERNEL}[/] of the program in redis and a kernel")
        bulkhead("build", "--unikernel", "-t", UNIKERNEL, "-w", "/tmp", "redis", *UNIKERNEL_COMMAND, show=True)


def proxies() -> list[str]:
    """Where this host's apt is set to use a proxy, builds are to use it too; those of the environment they see."""
    found = []
    for scheme in ("http", "https"):
        command = ["apt-config", "shell", "PROXY", f"Acquire::{scheme}::Proxy"]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        proxy = said.strip().removeprefix("PROXY='").removesuffix("'")
        if proxy and proxy != "DIRECT":
            found += ["--build-arg", f"{scheme}_proxy={proxy}"]
    return found


def run_service(service: Service) -> None:
    """Run it afresh, so that what is shown is this run's."""
    known = {row["spec"]["name"] for row in json.loads(bulkhead("ps", "-a", "--format", "json"))}
    if service.name in known:
        bulkhead("rm", "-f", service.name)
    options = ("--name", service.name, *service.level, *PLAN, *service.options)
    console.print(f"[bold]$[/] bulkhead run -d {' '.join(options)} {service.image}")
    bulkhead("run", "-d", *options, service.image, *service.command)


def ask(service: Service) -> str:
    """What the application answers: nginx over HTTP, redis over its protocol."""
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            if service.image == "nginx":
                with urllib.request.urlopen(f"http://127.0.0.1:{service.port}/", timeout=5) as answer:
                    return f"HTTP {answer.status}"
            with socket.create_connection(("127.0.0.1", service.port), timeout=5) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).decode().strip()
        except OSError:
            if time.monotonic() > deadline:
                raise SystemExit(f"{service.name} does not answer on port {service.port}") from None
            time.sleep(0.05)


def show(answers: dict[str, str]) -> None:
    """The tables that the demo is for: what runs, and what holds it to its plan."""
    usage = {row["name"]: row for row in json.loads(bulkhead("stats", "--no-stream", "--format", "json"))}
    services = Table(title="nginx and redis behind five walls", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("name", "wall", "start", "memory", "address", "answer"):
        services.add_column(column, justify="right" if column in ("start", "memory") else "left", no_wrap=True)
    holds: dict[str, dict[str, str]] = {}
    for service in SERVICES:
        described = json.loads(bulkhead("inspect", service.name))[0]
        for row in described["limits"]:
            holds.setdefault(f"{row['field']} {row['value']}", {})[service.wall] = row["mechanism"]
        services.add_row(
            service.name,
            service.wall,
            f"{described['start_seconds'] * 1000:,.0f} ms",
            f"{usage[service.name]['memory'] / 2**20:.1f} MiB",
            f"127.0.0.1:{service.port}",
            answers[service.name],
        )
    console.print(services)
    console.print(limits(holds))


def limits(holds: dict[str, dict[str, str]]) -> Table:
    """What enforces each limit of the plan, by wall; walls that share a mechanism share a row."""
    table = Table(title="one plan, and what enforces it", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("limit", "wall", "enforced by"):
        table.add_column(column)
    for limit, walls in holds.items():
        for mechanism in dict.fromkeys(walls.values()):
            shared = [wall for wall, enforced in walls.items() if enforced == mechanism]
            table.add_row(limit, ", ".join(shared), mechanism)
    return table


def main() -> None:
    """Images, instances, answers, table, what to try next."""
    make_images()
    with ThreadPoolExecutor(len(SERVICES)) as together:
        list(together.map(run_service, SERVICES))
    show({service.name: ask(service) for service in SERVICES})
    console.print("They are running. Try next (with .venv/bin in your PATH):", style="bold")
    for line in (
        "bulkhead ps",
        "curl http://127.0.0.1:8080/",
        "bulkhead exec demo-nginx sh -c 'nproc; head -1 /proc/meminfo; df -h /'",
        "bulkhead logs demo-redis",
        "bulkhead stats",
        "bulkhead inspect demo-nginx-chroot   # what a chroot does not isolate",
        f"bulkhead rm -f {' '.join(service.name for service in SERVICES)}",
    ):
        console.print(f"  {line}", highlight=False)
    tell_page()


def tell_page() -> None:
    """The web page's address, and how to get there."""
    console.print("And look at all of it on the web page:", style="bold")
    console.print("  bulkhead web   # then open [bold]http://localhost:8006/[/]", highlight=False)
    host, path = socket.gethostname(), load().socket_path
    console.print(f"  ssh -N -L 8006:{path} root@{host}   # from another machine", highlight=False)


if __name__ == "__main__":
    main()
