"""The web page: static files of `bulkhead/web` and of the packages that scripts/setup has installed there.

`/` is the page; everything that it loads is below `/web/DIGEST/`, where DIGEST is that of all files together. So what a
browser has is never asked for again, and never mixed with another version's. Only files that are listed here are
served: no path of a request reaches the file system.
"""

from __future__ import annotations

import gzip
import hashlib
import html
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

import bulkhead
from bulkhead.api.browsers import over_unix
from bulkhead.api.wire import CERTIFICATE
from bulkhead.errors import NotFound

router = APIRouter()
"""Routes of Starlette's, before which nothing is asked: who loads the page has not signed in yet."""
ROOT = Path(bulkhead.__file__).parent / "web"
INDEX = "index.html"
PACKAGES = ROOT / "node_modules"
VENDOR = {
    "vendor/uPlot.js": "uplot/dist/uPlot.esm.js",
    "vendor/uPlot.css": "uplot/dist/uPlot.min.css",
    "vendor/xterm.js": "@xterm/xterm/lib/xterm.mjs",
    "vendor/xterm.css": "@xterm/xterm/css/xterm.css",
    "vendor/xterm-fit.js": "@xterm/addon-fit/lib/addon-fit.mjs",
}
"""Files of npm packages by the names that the page has for them."""
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "font-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Nothing that is not a file of ours is run, loaded, styled by or sent to; the page is in no frame."""
SECURITY = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
FOREVER = "public, max-age=31536000, immutable"
Stamp = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class File:
    """A file as it is served."""

    media_type: str
    data: bytes
    packed: bytes
    """The same by gzip."""


@dataclass(frozen=True, slots=True)
class Site:
    """Everything that is served, of one state of the files."""

    stamp: Stamp
    digest: str
    index: bytes
    files: dict[str, File]


_sites: list[Site] = []
"""The last one that was read; files are looked at again with each visit of the page."""


def site() -> Site:
    """The files as they are now."""
    names = _names()
    stamp = tuple((name, path.stat().st_mtime_ns, path.stat().st_size) for name, path in names.items())
    if not _sites or _sites[0].stamp != stamp:
        _sites[:] = [_read(stamp, names)]
    return _sites[0]


def _names() -> dict[str, Path]:
    own = {
        str(path.relative_to(ROOT)): path
        for path in sorted(ROOT.rglob("*"))
        if path.suffix in TYPES and not path.is_relative_to(PACKAGES)
    }
    vendor = {name: PACKAGES / path for name, path in VENDOR.items() if (PACKAGES / path).is_file()}
    return {INDEX: ROOT / INDEX, **own, **vendor}


def _read(stamp: Stamp, names: dict[str, Path]) -> Site:
    contents = {name: path.read_bytes() for name, path in names.items()}
    digest = hashlib.sha256(repr([(name, hashlib.sha256(data).digest()) for name, data in contents.items()]).encode())
    short = digest.hexdigest()[:16]
    missing = " ".join(sorted({_package(path) for name, path in VENDOR.items() if name not in contents}))
    index = contents.pop(INDEX).decode()
    index = index.replace("@DIGEST@", short).replace("@MISSING@", html.escape(missing))
    files = {
        name: File(TYPES[Path(name).suffix], data, gzip.compress(data, mtime=0)) for name, data in contents.items()
    }
    return Site(stamp, short, index.encode(), files)


def _package(path: str) -> str:
    """The npm package that a file is of."""
    return "/".join(path.split("/")[: 2 if path.startswith("@") else 1])


async def page(request: Request) -> Response:
    """The page itself, which is asked for each time. It says whether a token has to be shown here."""
    known = over_unix(request.scope) or bool(request.scope.get(CERTIFICATE))
    index = site().index.replace(b"@DOOR@", b"open" if known else b"token")
    return Response(index, media_type="text/html", headers={**SECURITY, "Cache-Control": "no-cache"})


async def icon(_: Request) -> Response:
    """Browsers ask for it by themselves; the page names its own."""
    return Response(status_code=204, headers={"Cache-Control": FOREVER})


async def file(request: Request) -> Response:
    """A file of the page, which never changes."""
    digest, name = request.path_params["digest"], request.path_params["name"]
    have = _sites[0] if _sites and _sites[0].digest == digest else site()
    found = have.files.get(name) if have.digest == digest else None
    if not found:
        raise NotFound(f"the page has no file {name!r} of version {digest!r}", hint="load the page again")
    headers = {**SECURITY, "Cache-Control": FOREVER, "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(found.packed, media_type=found.media_type, headers=headers)
    return Response(found.data, media_type=found.media_type, headers=headers)


for _path, _route in (("/", page), ("/favicon.ico", icon), ("/web/{digest}/{name:path}", file)):
    router.add_route(_path, _route, methods=["GET"], include_in_schema=False)
