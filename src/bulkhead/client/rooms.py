"""Clean rooms and names of images that this process holds: they are gone when it is, however that ends."""

from __future__ import annotations

from bulkhead.client import Client, Response, quote

TYPE_CHECKING = False  # typing is not imported at run time
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any


class HeldName:
    """A name for an image, from `with` to the end of it: what is called so by then goes."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._answer: Response | None = None
        self.name = ""

    def __enter__(self) -> HeldName:
        answer = self._client.stream("POST", "/v1/images/temporary")
        try:
            self.name = str(next(answer.json_lines())["name"])
        except BaseException:
            answer.close()
            raise
        self._answer = answer
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        """Take it away, and return when that is done."""
        if self._answer is None:
            return
        try:
            self._client.call("POST", "/v1/images/remove", body={"reference": self.name, "force": False})
        except Exception as error:
            from bulkhead.errors import NotFound, Unavailable

            if not isinstance(error, NotFound | Unavailable):
                raise
        finally:
            self._answer.close()


class HeldRoom:
    """A room from `with` to the end of it. `record` is the instance's."""

    def __init__(self, client: Client, request: dict[str, object]) -> None:
        self._client = client
        self._request = request
        self._answer: Response | None = None
        self.record: dict[str, Any] = {}

    @property
    def id(self) -> str:
        """The instance's."""
        return str(self.record["spec"]["id"])

    def path(self, action: str = "") -> str:
        """The API's path of the room."""
        return f"/v1/instances/{quote(self.id)}" + (f"/{action}" if action else "")

    def __enter__(self) -> HeldRoom:
        answer = self._client.stream("POST", "/v1/rooms", body=self._request)
        try:
            self.record = next(answer.json_lines())["room"]
        except BaseException:
            answer.close()
            raise
        self._answer = answer
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        """Throw it away, and return when that is done."""
        if self._answer is None:
            return
        try:
            self._client.call("DELETE", self.path(), query={"force": True})
        except Exception as error:
            from bulkhead.errors import NotFound, Unavailable

            # Closing the connection does the same; a daemon that is gone has removed it, or the next one will.
            if not isinstance(error, NotFound | Unavailable):
                raise
        finally:
            self._answer.close()
