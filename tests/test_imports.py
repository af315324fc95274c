"""The architecture as a test: who may import whom, who may touch the system, what the CLI's hot path loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"
PACKAGE = SOURCE / "bulkhead"

NOUNS = (
    *("errors", "events", "amounts", "config", "quantities", "elf", "ustar", "modelling", "model"),
    *("moves", "operation", "plan", "secret", "system", "tenancy", "fleet", "where", "overlay"),
)
LAYERS: tuple[tuple[str, ...], ...] = (
    NOUNS,
    ("host",),
    ("agent",),
    (
        "isolation",
        "boot",
        "containerfile",
        "images",
        "network",
        "storage",
        "limits",
        "store",
        "advise",
        "servers",
        "audit",
        "compose",
        "metering",
        "cluster",
    ),
    ("engine",),
    ("client", "api", "web"),
    ("packaging",),
    ("cli",),
    ("__main__",),
)
"""From the bottom up. A module imports from layers below its own, and from its own part of its layer."""
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}

THIRD_PARTY = {
    "cryptography": {"tenancy"},
    "jinja2": {"metering", "advise"},
    "highspy": {"advise"},
    "numpy": {"cluster", "advise"},
    "prometheus_client": {"metering", "advise"},
    "weasyprint": {"metering"},
    "debian": {"packaging"},
    "yaml": {"compose"},
    "fastapi": {"api"},
    "starlette": {"api"},
    "uvicorn": {"api"},
    "uvloop": {"api"},
    "httptools": {"api"},
    "h11": {"api"},
    "pydantic": {
        *("secret", "fleet", "moves", "plan", "where", "overlay"),
        *("model", "operation", "tenancy", "config", "store", "isolation", "images", "network", "storage", "limits"),
        *("modelling", "engine", "api", "audit", "metering", "advise"),
    },
    "pydantic_core": {"api", "model", "modelling"},
    "pyseccomp": {"isolation"},
    "qemu": {"host"},
    "rich": {"cli"},
    "urllib3": {"images", "store"},
    "zstandard": {"images", "boot"},
}
"""Who may use what comes from outside of the standard library."""

HOST_ONLY_MODULES = {"subprocess", "ctypes", "multiprocessing", "pty", "_posixsubprocess"}
HOST_ONLY_CALLS = {"fork", "forkpty", "system", "popen", "posix_spawn", "posix_spawnp", "chroot", "unshare", "setns"}
HOT_PATH = {"client", "quantities", "errors", "cli"}
"""What a CLI module may load when it is imported; anything else it imports inside the function that needs it."""
LAZY = {
    *("bulkhead.cli.serve", "bulkhead.cli.daemon", "bulkhead.cli.logins", "bulkhead.cli.progress"),
    *("bulkhead.cli.from_server", "bulkhead.cli.suggestion", "bulkhead.cli.on_host", "bulkhead.cli.forwarding"),
    *("bulkhead.cli.upping", "bulkhead.cli.fetching", "bulkhead.cli.composing", "bulkhead.cli.projects"),
    *("bulkhead.cli.carrying", "bulkhead.cli.drawing", "bulkhead.cli.given", "bulkhead.cli.interleaving"),
    *("bulkhead.cli.project_secrets", "bulkhead.cli.applying"),
}
"""CLI modules that others import inside functions alone: the daemon, its start, what is drawn with rich, and commands
that work on this side of the socket."""
HEAVY = {"pydantic", "fastapi", "starlette", "uvicorn", "rich", "asyncio", "http.server", "sqlite3", "ssl"}


@dataclass(frozen=True, slots=True)
class Import:
    """One import statement of one module. `target` is dotted; `top`: carried out when the module is loaded."""

    module: str
    target: str
    line: int
    top: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


@cache
def trees() -> dict[str, ast.Module]:
    """Dotted name -> syntax tree of every module."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(file.read_text(), str(file))
    return found


@cache
def modules() -> frozenset[str]:
    """Dotted names of all modules."""
    return frozenset(trees())


@cache
def imports() -> tuple[Import, ...]:
    """Every import of every module."""
    return tuple(found for module, tree in trees().items() for found in _imports(module, tree, top=True))


def _imports(module: str, node: ast.AST, *, top: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for name in child.names:
                yield Import(module, name.name, child.lineno, top)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{module}:{child.lineno}: relative imports are not used here"
            base = child.module or ""
            for name in child.names:
                # `from bulkhead import limits` names a module, `from bulkhead.errors import Refused` something in one.
                named = f"{base}.{name.name}"
                yield Import(module, named if named in modules() else base, child.lineno, top)
        else:
            inner = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _is_type_checking(child)
            yield from _imports(module, child, top=top and not inner)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def part_of(module: str) -> str:
    """ "bulkhead.images.store" -> "images"; "bulkhead" itself -> ""."""
    return module.partition(".")[2].partition(".")[0]


def test_every_part_has_its_layer() -> None:
    unknown = {part_of(module) for module in trees()} - {*RANK, ""}
    assert not unknown, f"not in LAYERS: {sorted(unknown)}"


def test_imports_point_downwards() -> None:
    wrong = []
    for found in imports():
        if found.target.split(".")[0] != "bulkhead":
            continue
        here, there = part_of(found.module), part_of(found.target)
        if here == there or (here in NOUNS and there in NOUNS) or there == "":
            continue
        if RANK[there] >= RANK[here]:
            wrong.append(str(found))
    assert not wrong, "\n".join(wrong)


def test_modules_do_not_import_in_circles() -> None:
    graph: dict[str, set[str]] = {module: set() for module in trees()}
    for found in imports():
        if found.top and found.target in graph and found.target != found.module:
            graph[found.module].add(found.target)
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for target in sorted(graph[module]):
                visit(target, (*path, module))
            done.add(module)

    for module in graph:
        # A package's __init__ names its own modules, which may import from one another.
        if not any(other.startswith(f"{module}.") for other in graph):
            visit(module, ())


def test_third_party_packages_are_used_where_they_belong() -> None:
    wrong = []
    for found in imports():
        name = found.target.split(".")[0]
        if name in sys.stdlib_module_names or name == "bulkhead":
            continue
        if part_of(found.module) not in THIRD_PARTY.get(name, set()):
            wrong.append(str(found))
    assert not wrong, "\n".join(wrong)


def test_only_host_starts_programs_and_makes_system_calls() -> None:
    wrong = [
        str(found)
        for found in imports()
        if found.target.split(".")[0] in HOST_ONLY_MODULES and part_of(found.module) != "host"
    ]
    for module, tree in trees().items():
        if part_of(module) == "host":
            continue
        wrong += [
            f"{module}:{node.lineno} uses os.{node.attr}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "os"
            and (node.attr in HOST_ONLY_CALLS or node.attr.startswith(("exec", "spawn")))
        ]
    assert not wrong, "\n".join(wrong)


def test_the_library_does_not_print() -> None:
    wrong = [
        f"{module}:{node.lineno}"
        for module, tree in trees().items()
        if part_of(module) not in ("cli", "__main__")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not wrong, "\n".join(wrong)


def test_cli_modules_load_the_client_alone() -> None:
    wrong = []
    for found in imports():
        if not found.top or found.module in LAZY or part_of(found.module) not in ("cli", "client", "__main__", ""):
            continue
        name = found.target.split(".")[0]
        if name != "bulkhead":
            if name not in sys.stdlib_module_names or name in HEAVY:
                wrong.append(str(found))
        elif part_of(found.target) not in {*HOT_PATH, ""} or found.target in LAZY:
            wrong.append(str(found))
    assert not wrong, "\n".join(wrong)


def test_the_hot_path_loads_nothing_heavy() -> None:
    if not (PACKAGE / "__main__.py").exists():
        pytest.fail("there is no __main__.py")
    program = "import sys, bulkhead.__main__; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert not HEAVY & set(done.stdout.split())


def test_a_daemon_loads_no_numbers_before_a_fleet_needs_them() -> None:
    program = "import sys, bulkhead.engine, bulkhead.api.app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert not {"numpy", "highspy", "matplotlib", "weasyprint"} & set(done.stdout.split())


@pytest.mark.parametrize("module", sorted(name for name in trees() if "." in name))
def test_modules_and_functions_stay_small(module: str) -> None:
    tree = trees()[module]
    long = [
        f"{node.name} has {length} lines"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > 80
    ]
    assert not long, f"{module}: {', '.join(long)}"
    end = max((getattr(node, "end_lineno", 0) or 0 for node in tree.body), default=0)
    assert end <= 450, f"{module} has {end} lines: split it"
