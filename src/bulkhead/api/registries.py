"""Routes of registries: pulls and pushes (NDJSON, as imports), lists, whether a login is good."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import Field, SecretStr
from starlette.responses import Response

from bulkhead.api.auth import principal_of
from bulkhead.api.progress import with_progress
from bulkhead.api.responses import json_response
from bulkhead.api.service import service_of
from bulkhead.engine.registries import Access
from bulkhead.errors import Refused
from bulkhead.events import Progress
from bulkhead.images.registry.auth import Credentials
from bulkhead.images.registry.proxies import Proxies
from bulkhead.model import Model
from bulkhead.tenancy.roles import Permission

MAX_BODY = 1 << 20
MAX_REFERENCE = 512

router = APIRouter(prefix="/v1", tags=["images"], max_body_size=MAX_BODY)


class Login(Model):
    """Who asks one registry. What is secret is in no log and no answer."""

    registry: str = Field(min_length=1, max_length=256, description="its host, as `sources` tells it")
    username: str = Field(default="", max_length=1024)
    password: SecretStr = SecretStr("")
    identity_token: SecretStr = SecretStr("")


class Ways(Model):
    """Proxies on the way to registries, as the variables of these names have them. A password in them is in no log."""

    http_proxy: SecretStr = Field(default=SecretStr(""), max_length=2048)
    https_proxy: SecretStr = Field(default=SecretStr(""), max_length=2048)
    no_proxy: str = Field(default="", max_length=16384)


class Asked(Model):
    """What every request to a registry may say."""

    auth: tuple[Login, ...] = Field(default=(), max_length=64)
    proxies: Ways = Field(default=Ways(), description="where there are none, those of the daemon's environment")
    tls_verify: bool | None = Field(default=None, description="None: as registries.conf says")

    def access(self, request: Request) -> Access:
        """The same for the engine. Raises Forbidden for proxies of one who has no say on the host.

        A proxy is what the daemon connects to, wherever that is.
        """
        if self.proxies != Ways():
            principal_of(request).require(Permission.HOST)
        known = {
            login.registry: Credentials(
                login.username, login.password.get_secret_value(), login.identity_token.get_secret_value()
            )
            for login in self.auth
        }
        ways = self.proxies
        proxies = Proxies(ways.http_proxy.get_secret_value(), ways.https_proxy.get_secret_value(), ways.no_proxy)
        return Access(known, self.tls_verify, proxies)


class PullRequest(Asked):
    """An image that is to be in the store."""

    reference: str = Field(min_length=1, max_length=MAX_REFERENCE)
    policy: Literal["missing", "always", "never"] = "always"
    platform: str | None = Field(default=None, max_length=64, description="such as linux/arm64; None: this host's")
    all_platforms: bool = Field(default=False, description="every one of a list; the result has `images`, a list")


class PushRequest(Asked):
    """An image of the store that is given away."""

    reference: str = Field(min_length=1, max_length=MAX_REFERENCE)
    destination: str | None = Field(default=None, max_length=MAX_REFERENCE, description="None: its own name")
    compression: Literal["gzip", "zstd", "zstd:chunked"] | None = Field(
        default=None, description="of its layers; None: as they are, gzip where they are not compressed"
    )
    all_platforms: bool = Field(default=False, description="with the images of other platforms, as one list")


class RepositoryRequest(Asked):
    """A repository, or an image of one."""

    reference: str = Field(min_length=1, max_length=MAX_REFERENCE)


class LoginRequest(Asked):
    """A registry whose login is tried."""

    registry: str = Field(min_length=1, max_length=256)


class TagRequest(Model):
    """More names for an image."""

    reference: str = Field(min_length=1, max_length=MAX_REFERENCE)
    targets: tuple[str, ...] = Field(min_length=1, max_length=64)


@router.get("/registries/sources")
async def list_sources(request: Request, reference: str, push: bool = False) -> Response:
    """Where an image may come from or go to: whom credentials are needed for."""
    service = service_of(request)
    return json_response(await service.call(service.engine.registries.sources, reference, push=push))


@router.post("/images/pull")
async def pull_image(request: Request, body: PullRequest) -> Response:
    """Have a registry's image in the store; progress and result as NDJSON."""
    registries = service_of(request).engine.registries
    if body.all_platforms and (body.platform or body.policy != "always"):
        raise Refused("all platforms are asked for at the registry each time", hint="leave out platform and policy")

    access = body.access(request)

    def work(progress: Progress) -> object:
        if body.all_platforms:
            return {"images": registries.pull_all(body.reference, access=access, progress=progress)}
        return registries.pull(
            body.reference, policy=body.policy, platform=body.platform, access=access, progress=progress
        )

    return with_progress(request, work, target=body.reference)


@router.post("/images/push")
async def push_image(request: Request, body: PushRequest) -> Response:
    """Give an image away; progress and result as NDJSON."""
    registries, access = service_of(request).engine.registries, body.access(request)

    def work(progress: Progress) -> object:
        return registries.push(
            body.reference,
            body.destination,
            compression=body.compression,
            all_platforms=body.all_platforms,
            access=access,
            progress=progress,
        )

    return with_progress(request, work, target=body.reference)


@router.post("/images/tag")
async def tag_image(request: Request, body: TagRequest) -> Response:
    """Give an image more names."""
    service = service_of(request)
    return json_response(await service.call(service.engine.images.tag, body.reference, body.targets))


@router.post("/registries/tags")
async def list_tags(request: Request, body: RepositoryRequest) -> Response:
    """Every tag of a repository."""
    service = service_of(request)
    return json_response(
        await service.begin_long(service.engine.registries.tags, body.reference, access=body.access(request))
    )


@router.post("/registries/referrers")
async def list_referrers(request: Request, body: RepositoryRequest) -> Response:
    """What refers to an image in its registry."""
    service = service_of(request)
    return json_response(
        await service.begin_long(service.engine.registries.referrers, body.reference, access=body.access(request))
    )


@router.post("/registries/login")
async def try_login(request: Request, body: LoginRequest) -> Response:
    """Try credentials. Nothing of them is kept."""
    service = service_of(request)
    done = await service.begin_long(service.engine.registries.login, body.registry, access=body.access(request))
    return json_response({"registry": done})
