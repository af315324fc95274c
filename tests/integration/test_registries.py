"""Pulls and pushes against Debian's docker-registry: the command line, the daemon, the store."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from urllib.request import Request, urlopen

import pytest

from bulkhead.images.registry.addresses import Reach, reach
from tests.harness import unikernels
from tests.harness.daemon import Daemon
from tests.harness.kernels import kernel_layout
from tests.harness.namespaces import in_network
from tests.harness.registries import PASSWORD, USER, Registry, configure, plain

MIB = 1 << 20
MakeRegistry = Callable[..., Registry]


@pytest.fixture
def make_registry(shared_daemon: Daemon, tmp_path: Path) -> Iterator[MakeRegistry]:
    """Makes registries that run; the first one of each set of options speaks plain HTTP unless `tls` is given."""
    with ExitStack() as stack:

        def make(*, port: int = 5000, login: bool = False, tls: bool = False) -> Registry:
            made = Registry(shared_daemon.sandbox, tmp_path / f"registry-{port}", port=port, login=login, tls=tls)
            stack.callback(made.stop)
            return made.start()

        yield make
    configure(shared_daemon, "")
    shared_daemon.cli("image", "prune", "--all")


@pytest.fixture
def registry(make_registry: MakeRegistry, shared_daemon: Daemon) -> Registry:
    made = make_registry()
    configure(shared_daemon, plain(made.host))
    return made


@pytest.fixture
def app(shared_daemon: Daemon, busybox_tar: Path) -> str:
    shared_daemon.cli("image", "import", busybox_tar, "app:1")
    return "app:1"


def partial(daemon: Daemon) -> list[Path]:
    return list((daemon.config.images_dir / "partial").iterdir())


def forget(daemon: Daemon, *names: str) -> None:
    for name in names:
        daemon.cli("image", "rm", name)


def test_an_image_is_pushed_removed_pulled_and_runs(shared_daemon: Daemon, registry: Registry, app: str) -> None:
    daemon, name = shared_daemon, f"{registry.host}/team/app:1"
    assert daemon.cli("image", "tag", app, name).stdout == f"{name}\n"
    pushed = daemon.json("image", "push", "--format", "json", name)
    assert (pushed["name"], pushed["known"], pushed["mounted"]) == (name, 0, 0)
    assert daemon.cli("image", "tags", f"{registry.host}/team/app").stdout == "1\n"
    (before,) = daemon.json("image", "inspect", name)
    forget(daemon, name, app)
    assert daemon.cli("image", "pull", name).stdout == f"{name}\n"
    (after,) = daemon.json("image", "inspect", name)
    assert after["RootFS"] == before["RootFS"]
    assert daemon.cli("run", "--rm", name, "echo", "works").stdout == "works\n"
    assert not partial(daemon)
    assert (
        json.loads(registry.skopeo("inspect", "--tls-verify=false", f"docker://{name}"))["Digest"] == pushed["digest"]
    )


def test_a_second_push_sends_nothing_and_another_repository_mounts(
    shared_daemon: Daemon, registry: Registry, app: str
) -> None:
    daemon = shared_daemon
    daemon.cli("image", "tag", app, f"{registry.host}/one:1")
    daemon.cli("image", "push", f"{registry.host}/one:1")
    again = daemon.json("image", "push", "--format", "json", f"{registry.host}/one:1")
    assert (again["moved"], again["known"]) == (0, 2)
    other = daemon.json("image", "push", "--format", "json", app, f"{registry.host}/two:1")
    assert (other["moved"], other["mounted"]) == (0, 2)


def test_run_pulls_what_is_missing_and_only_that(shared_daemon: Daemon, registry: Registry, app: str) -> None:
    daemon, name = shared_daemon, f"{registry.host}/app:1"
    daemon.cli("image", "push", app, name)
    forget(daemon, app)
    never = daemon.cli("run", "--rm", "--pull", "never", name, "true", check=False)
    assert (never.returncode, "no image" in never.stderr) == (125, True)
    assert daemon.cli("run", "--rm", name, "echo", "pulled").stdout == "pulled\n"
    registry.stop()
    assert daemon.cli("run", "--rm", name, "echo", "there").stdout == "there\n"
    always = daemon.cli("run", "--rm", "--pull", "always", name, "true", check=False)
    assert (always.returncode, "does not answer" in always.stderr) == (125, True)
    daemon.cli("create", "--name", "made", name)
    assert daemon.api("GET", "/v1/instances/made").body["spec"]["image"] == name


def test_short_names_are_looked_for_where_registries_conf_says(
    shared_daemon: Daemon, registry: Registry, app: str
) -> None:
    daemon = shared_daemon
    daemon.cli("image", "push", app, f"{registry.host}/library/short:1")
    forget(daemon, app)
    nowhere = daemon.cli("run", "--rm", "library/short:1", "true", check=False)
    assert "no image 'library/short:1'" in nowhere.stderr
    assert "hint: " in nowhere.stderr
    pulled = daemon.cli("image", "pull", "library/short:1", check=False)
    assert "unqualified-search-registries" in pulled.stderr
    configure(daemon, f'unqualified-search-registries = ["{registry.host}"]\n' + plain(registry.host))
    assert daemon.cli("run", "--rm", "library/short:1", "echo", "found").stdout == "found\n"
    registry.stop()
    assert daemon.cli("run", "--rm", "library/short:1", "echo", "kept").stdout == "kept\n"
    configure(daemon, f'[aliases]\n"mine" = "{registry.host}/library/short"\n' + plain(registry.host))
    assert daemon.cli("run", "--rm", "mine:1", "echo", "alias").stdout == "alias\n"


def test_a_mirror_is_asked_first_and_a_dead_one_is_passed_over(
    shared_daemon: Daemon, make_registry: MakeRegistry, app: str
) -> None:
    daemon, mirror = shared_daemon, make_registry(port=5001)
    configure(daemon, plain(mirror.host))
    daemon.cli("image", "push", app, f"{mirror.host}/cache/app:1")
    mirrored = (
        '[[registry]]\nprefix = "example.test"\nlocation = "localhost:5999"\ninsecure = true\n'
        '[[registry.mirror]]\nlocation = "localhost:5998/dead"\ninsecure = true\n'
        f'[[registry.mirror]]\nlocation = "{mirror.host}/cache"\ninsecure = true\n'
    )
    configure(daemon, mirrored)
    done = daemon.cli("image", "pull", "example.test/app:1")
    assert done.stdout == "example.test/app:1\n"
    assert "localhost:5998" in done.stderr
    assert "/v2/cache/app/manifests/1" in mirror.log()
    configure(daemon, '[[registry]]\nprefix = "example.test"\nblocked = true\n')
    assert "is blocked" in daemon.cli("image", "pull", "example.test/app:1", check=False).stderr


def test_a_login_is_tried_kept_used_and_forgotten(
    shared_daemon: Daemon, make_registry: MakeRegistry, app: str, tmp_path: Path
) -> None:
    daemon, registry = shared_daemon, make_registry(login=True)
    configure(daemon, plain(registry.host))
    auth, name = tmp_path / "auth.json", f"{registry.host}/app:1"
    unknown = daemon.cli("image", "push", app, name, check=False)
    assert "wants to know who asks" in unknown.stderr
    assert f"hint: bulkhead login {registry.host}" in unknown.stderr
    login = ("image", "login", "--authfile", auth, "-u", USER, "--password-stdin", registry.host)
    assert daemon.cli(*login, stdin="wrong\n", check=False).returncode == 125
    assert not auth.exists()
    daemon.cli(*login, stdin=f"{PASSWORD}\n")
    assert auth.stat().st_mode & 0o777 == 0o600
    daemon.cli("image", "push", "--authfile", auth, app, name)
    daemon.cli("image", "push", "--creds", f"{USER}:{PASSWORD}", app, name)
    assert registry.skopeo("inspect", "--authfile", auth, "--tls-verify=false", f"docker://{name}")
    forget(daemon, app)
    assert daemon.cli("run", "--rm", "--authfile", auth, name, "echo", "in").stdout == "in\n"
    daemon.cli("image", "logout", "--authfile", auth, registry.host)
    assert json.loads(auth.read_text())["auths"] == {}
    # Nothing of it is where others could read it.
    assert PASSWORD not in daemon.log()
    kept = subprocess.run(["grep", "-r", PASSWORD, str(daemon.config.state_dir)], capture_output=True, check=False)
    assert kept.returncode == 1


def test_logins_of_docker_and_of_helpers_are_used(
    shared_daemon: Daemon, make_registry: MakeRegistry, app: str, tmp_path: Path
) -> None:
    daemon, registry = shared_daemon, make_registry(login=True)
    configure(daemon, plain(registry.host))
    daemon.cli("image", "push", "--creds", f"{USER}:{PASSWORD}", app, f"{registry.host}/app:1")
    helper = Path("/usr/local/bin/docker-credential-bulkheadtest")
    answer = json.dumps({"ServerURL": registry.host, "Username": USER, "Secret": PASSWORD})
    helper.write_text(f'#!/bin/sh\n[ "$1" = get ] && [ "$(cat)" = {registry.host} ] && echo \'{answer}\'\n')
    try:
        helper.chmod(0o755)
        config = daemon.directory / ".docker/config.json"
        config.parent.mkdir()
        config.write_text(json.dumps({"credHelpers": {registry.host: "bulkheadtest"}}))
        assert daemon.cli("image", "tags", f"{registry.host}/app").stdout == "1\n"
        config.unlink()
        config.parent.rmdir()
    finally:
        helper.unlink()


def test_a_private_authority_is_trusted_where_certs_d_has_it(
    shared_daemon: Daemon, make_registry: MakeRegistry, app: str
) -> None:
    daemon, registry = shared_daemon, make_registry(tls=True)
    name = f"{registry.host}/app:1"
    refused = daemon.cli("image", "push", app, name, check=False)
    assert "is not trusted" in refused.stderr
    assert "certs.d" in refused.stderr
    daemon.cli("image", "push", "--tls-verify=false", app, name)
    certificates = daemon.config.containers_dir / "certs.d" / registry.host
    certificates.mkdir(parents=True)
    (certificates / "ca.crt").write_bytes(registry.authority.read_bytes())
    assert daemon.cli("image", "pull", name).stdout == f"{name}\n"
    (certificates / "ca.crt").unlink()


def test_http_where_tls_is_wanted_is_refused_with_a_hint(shared_daemon: Daemon, registry: Registry, app: str) -> None:
    configure(shared_daemon, "")
    refused = shared_daemon.cli("image", "push", app, f"{registry.host}/app:1", check=False)
    assert "does not speak TLS" in refused.stderr
    assert "--tls-verify=false" in refused.stderr


def test_of_a_list_of_platforms_one_is_taken(shared_daemon: Daemon, registry: Registry, busybox_tar: Path) -> None:
    """A list of our own image twice, once with the lie that it is for arm64."""
    daemon = shared_daemon
    daemon.cli("image", "import", busybox_tar, "list:amd64")
    digest = daemon.cli("image", "push", "list:amd64", f"{registry.host}/list:amd64").stdout.strip()
    raw = registry.skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{registry.host}/list:amd64")
    kind = "application/vnd.oci.image.manifest.v1+json"
    entry: dict[str, object] = {"mediaType": kind, "digest": digest, "size": len(raw)}
    other = {**entry, "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}}
    entry["platform"] = {"os": "linux", "architecture": "amd64"}
    kind = "application/vnd.oci.image.index.v1+json"
    listed = {"schemaVersion": 2, "manifests": [other, entry], "mediaType": kind}
    put(registry, "list", "1", json.dumps(listed).encode(), kind)
    forget(daemon, "list:amd64")
    daemon.cli("image", "pull", f"{registry.host}/list:1")
    assert daemon.cli("run", "--rm", f"{registry.host}/list:1", "echo", "amd64").stdout == "amd64\n"
    wrong = daemon.cli("image", "pull", "--platform", "linux/s390x", f"{registry.host}/list:1", check=False)
    assert "(linux/amd64, linux/arm64/v8), and not for linux/s390x" in wrong.stderr
    lie = daemon.cli("image", "pull", "--platform", "arm64", f"{registry.host}/list:1", check=False)
    assert "is for amd64, not for linux/arm64" in lie.stderr


def put(registry: Registry, repository: str, reference: str, data: bytes, kind: str) -> None:
    """Put a manifest into the registry by hand."""
    url = f"http://127.0.0.1:{registry.port}/v2/{repository}/manifests/{reference}"
    request = Request(url, data, {"Content-Type": kind}, method="PUT")
    in_network(f"/proc/{registry.sandbox.pid}/ns/net", lambda: urlopen(request).read())


def test_what_refers_to_an_image_is_listed(shared_daemon: Daemon, registry: Registry, app: str) -> None:
    """docker-registry has no API for it, so the tag that stands for it is read."""
    daemon, name = shared_daemon, f"{registry.host}/app:1"
    digest = daemon.cli("image", "push", app, name).stdout.strip()
    assert daemon.json("image", "referrers", "--format", "json", name) == []
    entry = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1}
    listed = {"schemaVersion": 2, "manifests": [{**entry, "artifactType": "application/spdx+json"}]}
    listed["mediaType"] = "application/vnd.oci.image.index.v1+json"
    put(registry, "app", digest.replace(":", "-"), json.dumps(listed).encode(), str(listed["mediaType"]))
    assert "application/spdx+json" in daemon.cli("image", "referrers", name).stdout


def test_a_disk_is_pushed_and_pulled_like_any_image(shared_daemon: Daemon, registry: Registry, tmp_path: Path) -> None:
    daemon, raw, name = shared_daemon, tmp_path / "disk.raw", f"{registry.host}/disks/small:1"
    with raw.open("wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["sfdisk", "-q", raw], input=b"label: gpt\nsize=8MiB, type=U\n", check=True, capture_output=True)
    daemon.cli("image", "import", raw, name)
    daemon.cli("image", "push", name)
    forget(daemon, name)
    assert not list((daemon.config.images_dir / "erofs").glob("*.raw"))
    daemon.cli("image", "pull", name)
    (about,) = daemon.json("image", "inspect", name)
    assert about["Kind"] == "disk"
    (unpacked,) = (daemon.config.images_dir / "erofs").glob("*.raw")
    assert unpacked.read_bytes() == raw.read_bytes()


def test_kernels_and_unikernels_are_pushed_and_pulled_too(
    shared_daemon: Daemon, registry: Registry, tmp_path: Path
) -> None:
    daemon = shared_daemon
    kernel, program = f"{registry.host}/kernel/debian:1", f"{registry.host}/uni/banner:1"
    daemon.cli("image", "import", kernel_layout(), kernel)
    daemon.cli("image", "import", "--unikernel", unikernels.banner(tmp_path), program)
    for name in (kernel, program):
        daemon.cli("image", "push", name)
        forget(daemon, name)
        daemon.cli("image", "pull", name)
    kinds = {image["references"][0]: image["kind"] for image in daemon.json("image", "ls", "--format", "json")}
    assert (kinds[kernel], kinds[program]) == ("kernel", "unikernel")
    daemon.cli("run", "-d", "--name", "uni", "--isolation", "unikernel", "--memory", "8M", program)
    deadline = time.monotonic() + 60
    while unikernels.SAYS not in daemon.cli("logs", "uni").stdout:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    refused = daemon.cli("push", "--compression-format", "zstd", kernel, check=False)
    assert "is a kernel, whose files stay as they are" in refused.stderr


def test_every_address_of_a_link_is_the_hosts_own(shared_daemon: Daemon) -> None:
    outside = shared_daemon.outside
    assert outside
    addresses = (outside.inside4, outside.inside6, outside.outside4)
    found = in_network(f"/proc/{shared_daemon.sandbox.pid}/ns/net", lambda: list(map(reach, addresses)))
    assert found == [Reach.OWN, Reach.OWN, Reach.PRIVATE]


def test_saved_images_are_loaded_again(shared_daemon: Daemon, app: str, tmp_path: Path) -> None:
    daemon, archive = shared_daemon, tmp_path / "saved.tar"
    daemon.cli("image", "tag", app, "app:2")
    digest = daemon.json("image", "inspect", app)[0]["Id"]
    daemon.cli("image", "save", "-o", archive, app, "app:2")
    again = subprocess.run([*("tar", "-tf"), archive], check=True, capture_output=True, text=True).stdout.splitlines()
    assert {"oci-layout", "index.json", "manifest.json"} < set(again)
    forget(daemon, app, "app:2")
    assert daemon.cli("image", "load", "-i", archive).stdout == "app:1\napp:2\n"
    (about,) = daemon.json("image", "inspect", "app:2")
    assert (about["Id"], about["RepoTags"]) == (digest, ["app:1", "app:2"])
    forget(daemon, "app:1", "app:2")
    assert daemon.cli("image", "load", stdin=archive.read_bytes()).stdout == "app:1\napp:2\n"
    missing = daemon.cli("image", "save", "-o", tmp_path / "none.tar", "nix", check=False)
    assert (missing.returncode, os.listdir(tmp_path)) == (125, ["saved.tar"])  # noqa: PTH208


def test_a_build_pulls_what_it_begins_with(shared_daemon: Daemon, registry: Registry, app: str, tmp_path: Path) -> None:
    shared_daemon.cli("image", "push", app, f"{registry.host}/base:1")
    forget(shared_daemon, app)
    (tmp_path / "Containerfile").write_text(
        f"FROM scratch\nCOPY --from={registry.host}/base:1 /bin/sh /x\nFROM {registry.host}/base:1\nRUN echo 1 > /a\n"
    )
    refused = shared_daemon.cli("build", "--pull", "never", tmp_path, check=False)
    assert "line 3: no image" in refused.stderr
    shared_daemon.cli("build", "-t", "pulled", tmp_path)
    assert shared_daemon.cli("run", "--rm", "--network", "none", "pulled", "cat", "/a").stdout == "1\n"
    shared_daemon.cli("build", "-q", "--pull", "always", "--target", "0", tmp_path)
    forget(shared_daemon, "pulled")


def test_a_layer_that_changed_a_little_moves_a_little(
    shared_daemon: Daemon, registry: Registry, tmp_path: Path
) -> None:
    """100 MB in 2,000 files that do not compress; one file is another in the second version."""
    daemon, name = shared_daemon, f"{registry.host}/big"
    for tag in ("1", "2"):
        daemon.cli("image", "import", big_tar(tmp_path / f"{tag}.tar", changed=tag == "2"), f"big:{tag}")
        daemon.cli("image", "push", "--compression-format", "zstd:chunked", f"big:{tag}", f"{name}:{tag}")
        forget(daemon, f"big:{tag}")
    daemon.cli("image", "pull", f"{name}:1")
    before = sent(registry)
    daemon.cli("image", "pull", f"{name}:2")
    moved = sent(registry) - before
    (about,) = daemon.json("image", "inspect", f"{name}:2")
    size = json.loads(registry.skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}:2"))["layers"][0][
        "size"
    ]
    assert size > 100_000_000
    assert moved < size / 10, (moved, size)
    assert about["Blobs"] == []
    # Both versions are whole: what our store wrote is what skopeo reads, digests and all.
    registry.skopeo("copy", "--src-tls-verify=false", f"docker://{name}:2", f"dir:{tmp_path / 'copy'}")


def big_tar(path: Path, *, changed: bool) -> Path:
    random = Random(1)
    with tarfile.open(path, "w") as archive:
        for number in range(2000):
            data = random.randbytes(51_000)
            if changed and number == 777:
                data = Random(2).randbytes(60_000)
            info = tarfile.TarInfo(f"data/{number // 100}/{number}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def sent(registry: Registry) -> int:
    """Bytes of answers' bodies that the registry has sent so far."""
    return sum(map(int, re.findall(r"http\.response\.written=(\d+)", registry.log())))
