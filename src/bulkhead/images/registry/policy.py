"""policy.json of containers/image: which images may come at all, and whose signatures they must have.

What needs no cryptography is decided here. Signatures are skopeo's affair (`verified`): it reads the policy itself,
fetches what it needs and says whether the image is allowed. It runs in a jail, as a user of its own, with the network,
and without any file of the host's but its configuration and keys. containers-policy.json(5) is the reference.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from bulkhead.errors import HostError, ImageError, Refused
from bulkhead.host import jailed, processes
from bulkhead.images import documents
from bulkhead.images.bounds import Bounds
from bulkhead.images.documents import Manifest, Platform, digest_of
from bulkhead.images.registry.auth import Credentials
from bulkhead.images.registry.conf import DOCKER_CERTIFICATES, Source

FILE = "policy.json"
_SECONDS = 3600.0
_MEMORY = 4 << 30
_OUT, _SETTINGS = "/out", "/etc/containers"
_WAYS = "proxies"
_ETC = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/ssl", "/etc/passwd")
"""What a program needs to find and trust a server."""
_SEE = "see containers-policy.json(5)"
_NO_SIGSTORE = "Debian builds its skopeo without sigstore: ask for signedBy, or have a skopeo that checks sigstore's"


class Verdict(Enum):
    """What the policy says of an image by its name alone."""

    ACCEPT = "accept"
    REJECT = "reject"
    VERIFY = "verify"


@dataclass(frozen=True, slots=True)
class Policy:
    """The requirements by scope, for images of registries; "" is everything else."""

    file: Path
    scopes: Mapping[str, Sequence[Mapping[str, Any]]]

    def requirements(self, full: str) -> Sequence[Mapping[str, Any]]:
        """Those of an image by its full name: of the closest scope that there is."""
        return next((self.scopes[scope] for scope in _scopes_of(full) if scope in self.scopes), ())

    def verdict(self, full: str) -> Verdict:
        """Whether an image may come. Raises Refused where the policy says nothing of it, or what is not known."""
        kinds = {str(requirement.get("type")) for requirement in self.requirements(full)}
        if not kinds:
            raise Refused(f"{self.file} has no requirements for {full}", hint=_SEE)
        if unknown := kinds - {"insecureAcceptAnything", "reject", "signedBy", "sigstoreSigned", "signedBaseLayer"}:
            raise Refused(f"{self.file} has requirements of unknown types: {', '.join(sorted(unknown))}", hint=_SEE)
        if "reject" in kinds:
            return Verdict.REJECT
        return Verdict.ACCEPT if kinds == {"insecureAcceptAnything"} else Verdict.VERIFY

    def keys(self, full: str) -> list[Path]:
        """Files with keys that its requirements name."""
        found: list[str] = []
        for requirement in self.requirements(full):
            found += [str(requirement["keyPath"])] if requirement.get("keyPath") else []
            found += [str(path) for path in requirement.get("keyPaths") or []]
        return [Path(path) for path in found]


def load(directory: Path) -> Policy:
    """The policy of this host; where there is none everything is accepted. Raises Refused when it is damaged."""
    file = directory / FILE
    anything = ({"type": "insecureAcceptAnything"},)
    if not file.exists():
        return Policy(file, {"": anything})
    try:
        said = json.loads(file.read_bytes())
        scopes = {"": said["default"], **(said.get("transports") or {}).get("docker", {})}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise Refused(f"{file} is damaged: {error}", hint=_SEE) from error
    wrong = [scope for scope, found in scopes.items() if not _is_list(found)]
    if wrong:
        raise Refused(f"{file}: the requirements of {', '.join(map(repr, wrong))} are no list of objects", hint=_SEE)
    return Policy(file, scopes)


def _is_list(found: object) -> bool:
    return isinstance(found, list) and all(isinstance(entry, dict) for entry in found)


def _scopes_of(full: str) -> Iterator[str]:
    """From the closest to the widest: host/ns/name:tag, host/ns/name, host/ns, host, *.of.host, ""."""
    yield full
    name = full.partition("@")[0]
    head, slash, last = name.rpartition("/")
    name = head + slash + last.partition(":")[0]
    while name:
        yield name
        name = name.rpartition("/")[0]
    host = full.partition("/")[0].partition(":")[0]
    while "." in host:
        host = host.partition(".")[2]
        yield f"*.{host}"
    yield ""


@dataclass(frozen=True, slots=True)
class Asked:
    """An image whose signatures are to be checked."""

    source: Source
    platform: Platform | None
    host: str
    """Of its registry, as files of logins have it."""
    credentials: Credentials | None


def verified(asked: Asked, policy: Policy, *, directory: Path, partial: Path, bounds: Bounds) -> str:
    """Have skopeo check an image's signatures by the policy. The digest of the manifest that it found to be good.

    `directory`: an empty one, for what comes. The blobs that have come with it are moved to `partial`, where the pull
    finds them as if it had been broken off at its end: it believes nothing of them. Raises Refused where the policy
    does not allow the image.
    """
    out = directory / "out"
    out.mkdir(mode=0o700)
    login = _login(asked)
    if login:
        (out / "auth.json").write_text(json.dumps(login))
        (out / "auth.json").chmod(0o600)
    ways = asked.source.place.proxies.environment()
    # A password may be in them: in a file that is skopeo's alone, not among the words that every process can read.
    (out / _WAYS).write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in ways.items()))
    (out / _WAYS).chmod(0o600)
    for path in (out, *out.iterdir()):
        os.chown(path, jailed.USER, jailed.USER)
    given = {_OUT: jailed.Given(out, write=True), _SETTINGS: jailed.Given(policy.file.parent)}
    given |= {str(path): jailed.Given(path) for path in (*map(Path, _ETC), DOCKER_CERTIFICATES) if path.exists()}
    for key in policy.keys(asked.source.name):
        if not key.is_relative_to(_SETTINGS):
            given[str(key)] = jailed.Given(key)
    limits = jailed.Bounds(memory=_MEMORY, file=bounds.total, cpu_seconds=int(_SECONDS))
    argv = jailed.command(_words(asked, login=bool(login)), given=given, bounds=limits, network=True, files=512)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, out, ignore_errors=True)
        processes.require("skopeo")
        try:
            processes.run(argv, timeout=_SECONDS, env={}, package=jailed.PACKAGE)
        except HostError as error:
            reason = error.what.partition(": ")[2].rpartition("msg=")[2].strip('"')
            hint = _NO_SIGSTORE if "sigstore disabled" in reason else _SEE
            raise Refused(f"{asked.source.name} is not allowed by {policy.file}: {reason[:400]}", hint=hint) from error
        manifest = out / "image" / "manifest.json"
        if manifest.is_symlink() or not manifest.is_file() or manifest.stat().st_size > bounds.document:
            raise ImageError(f"skopeo left no manifest of {asked.source.name}")
        data = manifest.read_bytes()
        digest = digest_of(data)
        layers = documents.read(Manifest, data, f"manifest {digest}", bounds).layers
        _hand_over([manifest.with_name(layer.digest.removeprefix("sha256:")) for layer in layers], partial)
        return digest


def _hand_over(blobs: Sequence[Path], partial: Path) -> None:
    """Move blobs to where pulls have theirs; those that are there already stay."""
    for path in blobs:
        with suppress(FileNotFoundError):
            kind = path.lstat()
            if stat.S_ISREG(kind.st_mode) and kind.st_nlink == 1 and not (partial / path.name).exists():
                os.chown(path, 0, 0, follow_symlinks=False)
                path.chmod(0o600)
                path.rename(partial / path.name)


def _words(asked: Asked, *, login: bool) -> list[str]:
    words = ["/usr/bin/env", f"HOME={_OUT}", f"TMPDIR={_OUT}", "PATH=/usr/bin"]
    words += ["/usr/bin/sh", "-c", f'. {_OUT}/{_WAYS} && exec "$@"', "sh", "/usr/bin/skopeo", "--tmpdir", _OUT]
    if asked.platform:
        words += ["--override-arch", asked.platform.architecture]
        words += ["--override-variant", asked.platform.variant] if asked.platform.variant else []
    words += ["copy", "-q", "--remove-signatures"]
    words += ["--src-authfile", f"{_OUT}/auth.json"] if login else ["--src-no-creds"]
    words += ["--src-tls-verify=false"] if asked.source.place.insecure else []
    return [*words, f"docker://{asked.source.name}", f"dir:{_OUT}/image"]


def _login(asked: Asked) -> dict[str, object]:
    """A file of logins with the one that is needed."""
    if asked.credentials is None:
        return {}
    if asked.credentials.identity_token:
        return {"auths": {asked.host: {"identitytoken": asked.credentials.identity_token}}}
    return {"auths": {asked.host: {"auth": asked.credentials.encoded()}}}
