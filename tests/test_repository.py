"""What must be true of the repository's files themselves."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PUBLIC_HOSTS = {
    "deb.debian.org",
    "security.debian.org",
    "snapshot.debian.org",
    "registry-1.docker.io",
    "docker.io",
    "ghcr.io",
    "quay.io",
    "localhost",
}
"""Hosts that documentation and defaults may name."""


@cache
def tracked() -> tuple[Path, ...]:
    """Every file of the repository."""
    done = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "ls-files", "-z"], check=True, capture_output=True
    )
    return tuple(ROOT / name for name in done.stdout.decode().split("\0") if name and (ROOT / name).is_file())


def text_of(path: Path) -> str:
    """The file's text, "" where it is not text."""
    data = path.read_bytes()
    return "" if b"\0" in data[:8192] else data.decode(errors="replace")


# --- nothing of this machine


def test_no_file_holds_a_path_of_this_machine() -> None:
    """The checkout's own place and whoever's home it is in; short ones (/src, /root) are too general to tell."""
    places = {str(place) for place in (ROOT, Path.home()) if len(place.parts) >= 3}
    wrong = [f"{path.relative_to(ROOT)}: {place}" for path in tracked() for place in places if place in text_of(path)]
    assert not wrong, "\n".join(wrong)


def registry_hosts() -> set[str]:
    """Hosts from which this machine gets packages, from the configurations of the clients."""
    texts = [value for name, value in os.environ.items() if re.search(r"(INDEX|REGISTRY|PROXY|MIRROR)", name.upper())]
    files = [Path("/etc/pip.conf"), Path("/etc/uv/uv.toml"), Path("/etc/npmrc"), Path("/etc/apt/sources.list")]
    home = Path.home()
    files += [home / ".npmrc", home / ".config/pip/pip.conf", home / ".config/uv/uv.toml", home / ".cargo/config.toml"]
    files += [*Path("/etc/apt/sources.list.d").glob("*"), *Path("/etc/apt/apt.conf.d").glob("*")]
    texts += [file.read_text(errors="replace") for file in files if file.is_file()]
    hosts = {urlsplit(url).hostname or "" for text in texts for url in re.findall(r"https?://[^\s\"'<>;,]+", text)}
    return {host for host in hosts if "." in host} - PUBLIC_HOSTS


def test_no_file_names_this_machines_registries() -> None:
    # github.com and the like, from comments in apt's files, are no registries of packages.
    hosts = {host for host in registry_hosts() if not host.endswith(("github.com", "debian.org"))}
    wrong = [f"{path.relative_to(ROOT)}: {host}" for path in tracked() for host in hosts if host in text_of(path)]
    assert not wrong, "\n".join(wrong)


# --- the lock


def test_the_lock_holds_hashes_and_no_addresses() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    entries = re.split(r"\n(?=\S)", text.strip())
    assert all(" --hash=sha256:" in entry.replace("\n", " ") for entry in entries), "an entry has no hash"
    assert not (ROOT / "uv.lock").exists(), "uv.lock holds addresses of registries; the lock is requirements.lock"


def test_the_lock_satisfies_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    locked = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    locked = {canonicalize_name(name): version for name, version in locked.items()}
    for requirement in map(Requirement, wanted):
        version = locked.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not in requirements.lock: see HACKING.md, 'Dependencies'"
        assert requirement.specifier.contains(version), f"{requirement} is locked at {version}"


def test_the_environment_is_the_locks() -> None:
    wanted = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    program = "import json, importlib.metadata as m; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    have = {canonicalize_name(name): version for name, version in json.loads(done.stdout).items()}
    different = {
        name: have.get(canonicalize_name(name)) for name in wanted if have.get(canonicalize_name(name)) != wanted[name]
    }
    assert not different, f"run scripts/setup: {different}"


# --- packages and documents


def packages() -> dict[str, list[str]]:
    """scripts/packages.txt: section -> packages."""
    found: dict[str, list[str]] = {}
    section = ""
    for raw in (ROOT / "scripts" / "packages.txt").read_text().splitlines():
        line = raw.split("#")[0].strip()
        if line.startswith("["):
            section = line.strip("[]")
        elif line:
            found.setdefault(section, []).append(line)
    return found


def test_every_dependency_is_documented() -> None:
    text = (ROOT / "docs" / "reference" / "dependencies.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    python = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    names = [Requirement(entry).name for entry in python]
    names += [package for section in packages().values() for package in section]
    missing = [name for name in names if f"`{name}`" not in text]
    assert not missing, f"docs/reference/dependencies.md says nothing of {missing}"


def test_every_setting_is_documented() -> None:
    from bulkhead.config import Config

    text = (ROOT / "docs" / "reference" / "configuration.md").read_text()
    missing = [name for name in Config.model_fields if f"`{name}`" not in text]
    assert not missing, f"docs/reference/configuration.md says nothing of {missing}"
    documented = re.findall(r"^\| `([a-z0-9_]+)`", text, re.MULTILINE)
    unknown = [name for name in documented if name not in Config.model_fields]
    assert not unknown, f"docs/reference/configuration.md documents {unknown}, which are no settings"


@pytest.mark.parametrize("name", ["README.md", "LICENSE", "HACKING.md", "CHANGELOG.md", "SECURITY.md"])
def test_the_usual_files_are_there(name: str) -> None:
    assert (ROOT / name).read_text().strip(), f"{name} is empty"


def test_links_between_documents_lead_somewhere() -> None:
    wrong = []
    for path in tracked():
        if path.suffix != ".md":
            continue
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text_of(path)):
            if not urlsplit(target).scheme and not (path.parent / target).exists():
                wrong.append(f"{path.relative_to(ROOT)}: {target}")
    assert not wrong, "\n".join(wrong)


def test_shell_scripts_are_strict_and_executable() -> None:
    for path in tracked():
        if not text_of(path).startswith("#!/bin/bash"):
            continue
        assert os.access(path, os.X_OK), f"{path.relative_to(ROOT)} is not executable"
        assert re.search(r"^set -\S*u", text_of(path), re.MULTILINE), f"{path.relative_to(ROOT)} lacks set -u"
        subprocess.run(["bash", "-n", str(path)], check=True)


# --- documents


@pytest.mark.parametrize("name", ["SECURITY.md", "HACKING.md", "README.md", "docs/explanation/walls.md"])
def test_files_that_a_document_names_are_there(name: str) -> None:
    """Tests above all: a claim that names its proof has it."""
    named = re.findall(r"`((?:tests|docs|scripts|src|agent)/[\w./-]+)`", (ROOT / name).read_text())
    missing = [path for path in named if not (ROOT / path).exists() and not path.startswith("agent/build")]
    assert not missing, f"{name} names {missing}"
