"""A guest that the tests themselves run in: a machine of Bulkhead's own with cgroup v2 alone, whatever this host has.

Its image is a small Debian with this checkout and its .venv at the same paths, and all of the kernel's modules that a
daemon needs. The parts that take long are made once and kept in $BULKHEAD_TEST_CACHE.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from bulkhead.boot import kernels
from bulkhead.engine.kernels import DEFAULT, KIND
from bulkhead.events import quiet
from bulkhead.host.workspace import workspace
from bulkhead.images import ImageStore
from tests.harness.abilities import require
from tests.harness.images import CACHE, make_rootfs_tar
from tests.harness.kernels import NEEDS

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = (
    *("python3", "e2fsprogs", "erofs-utils", "mount", "iproute2", "nftables", "kmod", "busybox-static"),
    *("libseccomp2", "procps", "dnsmasq-base"),
)
MODULES = (
    *("loop", "veth", "bridge", "dummy", "tun", "ifb", "sch_tbf", "sch_ingress", "sch_fq_codel", "act_police"),
    *("nf_tables", "nft_chain_nat", "nft_ct", "nft_masq", "nft_nat", "nft_fib_ipv4", "nft_fib_ipv6", "nft_fib_inet"),
    *(
        "nft_dup_ipv4",
        "nft_dup_ipv6",
        "nft_limit",
        "nft_connlimit",
        "nft_reject_inet",
        "nft_reject_bridge",
        "nft_meta_bridge",
    ),
    *("nf_conntrack_bridge", "inet_diag", "unix_diag"),
)
"""What a daemon uses in time, by their names; in a guest nothing loads a module when it is first wanted."""
_OPTIONAL = frozenset({"dummy", "ifb", "sch_fq_codel", "act_police", "nft_reject_bridge", "inet_diag", "unix_diag"})
_KEPT = ("kernel/net/", "kernel/lib/", "kernel/crypto/", "kernel/fs/", "kernel/drivers/net/", "kernel/drivers/block/")
_UNUSED = (
    *("matplotlib", "mpl_toolkits", "numpy", "numpy.libs", "PIL", "pillow.libs", "fontTools", "kiwisolver"),
    *("contourpy", "mypy", "mypyc", "pip", "setuptools", "ruff", "uv", "trove_classifiers", "tzdata", "ast_serialize"),
)
"""Packages of the .venv that no test in the guest imports, and that are large."""
RESULTS = "/results.xml"


@dataclass(frozen=True, slots=True)
class Parts:
    """What is made once."""

    layout: Path
    """An OCI layout with the kernel."""
    modules: Path
    """A tar with the kernel's modules."""


@dataclass(frozen=True, slots=True)
class Result:
    """How one test in the guest went."""

    name: str
    verdict: str
    """"passed", "skipped" or "failed"."""
    text: str
    """The reason, or what failed."""


def parts() -> Parts:
    """The kernel, and the modules of exactly this kernel."""
    require(*NEEDS)
    CACHE.mkdir(parents=True, exist_ok=True)
    code = b"".join(path.read_bytes() for path in sorted(Path(kernels.__file__).parent.glob("*.py")))
    made = CACHE / f"nested-kernel-{hashlib.sha256(code + repr(_KEPT).encode()).hexdigest()[:12]}"
    with (CACHE / "nested-kernel.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            draft = CACHE / "nested-kernel.new"
            shutil.rmtree(draft, ignore_errors=True)
            _make(draft)
            for old in CACHE.glob("nested-kernel-????????????"):
                shutil.rmtree(old)
            draft.rename(made)
    return Parts(made / "layout", made / "modules.tar")


def _make(draft: Path) -> None:
    cache = CACHE / "nested-kernel-cache"
    store = ImageStore(draft / "layout", cache)
    with workspace(cache / "work") as (work, held):
        kernel = kernels.make("debian", version=None, work=work, held=held, cache=cache, progress=quiet)
        store.add_files(
            KIND,
            [(kernels.ELF_TYPE, kernel.elf), (kernels.INITRD_TYPE, kernel.initrd)],
            names=[DEFAULT],
            architecture=kernel.architecture,
            annotations=kernel.annotations,
            progress=quiet,
        )
        (modules,) = (work / "package").glob("**/lib/modules/*")
        with tarfile.open(draft / "modules.tar", "w") as archive:
            for path in sorted(modules.rglob("*")):
                below = str(path.relative_to(modules))
                if path.is_file() and (below.startswith(_KEPT) or below.startswith("modules.")):
                    archive.add(path, f"lib/modules/{modules.name}/{below}")


def image(target: Path) -> Path:
    """The guest's root file system as a tar file: Debian, the modules, the checkout."""
    base, modules = make_rootfs_tar(PACKAGES, variant="minbase", name="nested"), parts().modules
    shutil.copyfile(base, target)
    with tarfile.open(target, "a") as archive:
        with tarfile.open(modules) as other:
            for entry in other:
                archive.addfile(entry, other.extractfile(entry))
        for path in _checkout():
            archive.add(path, str(path).lstrip("/"), recursive=False)
    return target


def _checkout() -> Iterator[Path]:
    """The files that the tests need, and no more."""
    venv = Path(sys.prefix)
    assert venv.is_relative_to(CHECKOUT), f"the tests run with {venv}, which is not the checkout's .venv"
    tops = [CHECKOUT / name for name in ("src", "tests", "pyproject.toml", "agent/build/agent", "agent/build/release")]
    tops += [venv / "pyvenv.cfg", venv / "bin"]
    tops += [path for path in Path(_site(venv)).iterdir() if path.name not in _UNUSED and "__mypyc" not in path.name]
    for top in tops:
        yield top
        for directory, names, files in os.walk(top):
            names[:] = [name for name in names if name not in (".pytest_cache", ".hypothesis")]
            yield from (Path(directory, name) for name in [*names, *files] if not name.endswith((".o", ".d")))


def _site(venv: Path) -> str:
    return str(venv / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages")


def command(tests: Sequence[str]) -> list[str]:
    """What the guest runs: the modules, then pytest, whose results are left in RESULTS."""
    required = " ".join(name for name in MODULES if name not in _OPTIONAL)
    optional = " ".join(sorted(_OPTIONAL))
    script = f"""
set -u
modprobe -a {required} || exit 90
for name in {optional}; do modprobe -q $name; done
ip link set lo up
mount -t tmpfs tmpfs /run
cd {CHECKOUT} || exit 91
export CI=true PYTHONDONTWRITEBYTECODE=1 BULKHEAD_TEST_NESTED=1
exec {sys.executable} -m pytest -p no:cacheprovider -q --durations=15 -o timeout=900 --junitxml={RESULTS} "$@"
"""
    return ["sh", "-c", script, "sh", *tests]


def results(file: Path) -> list[Result]:
    """What pytest has written down."""
    found = []
    for case in ElementTree.parse(file).iter("testcase"):
        verdict, text = "passed", ""
        for child in case:
            if child.tag in ("failure", "error", "skipped"):
                verdict = "skipped" if child.tag == "skipped" else "failed"
                text += f"{child.get('message') or ''}\n{child.text or ''}"
        found.append(Result(f"{case.get('classname')}::{case.get('name')}", verdict, text))
    return found
