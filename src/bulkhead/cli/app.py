"""What every command works with: the configuration's place and a client of the daemon."""

from __future__ import annotations

import os

from bulkhead.client import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from bulkhead.errors import Problem


class App:
    """One run of the command line."""

    def __init__(self, config: str | None, options: dict[str, str] | None = None) -> None:
        self.config = config
        """The configuration's file as given by --config."""
        self._options = options or {}
        self.url = self._options.get("--url") or ("" if config else os.environ.get("BULKHEAD_HOST", ""))
        """The daemon to talk to; "" for the configuration's."""
        self._client: Client | None = None

    def __enter__(self) -> App:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if self._client:
            self._client.close()

    @property
    def client(self) -> Client:
        """A client whose daemon answers; the daemon is started where nobody else is to do that."""
        if self._client is None:
            self._client = self._connect()
        return self._client

    @property
    def is_remote(self) -> bool:
        """Whether the daemon may be on another host: paths of this one mean nothing there."""
        return bool(self.url) and not self.url.startswith("unix://")

    def require_local(self, what: str) -> None:
        """Raise Refused where the daemon is on another host, which `what` is not of."""
        if self.is_remote:
            from bulkhead.errors import Refused

            raise Refused(
                f"{what}: that is of this host, and the daemon is at {self.url}", hint="run it on the daemon's host"
            )

    def another_client(self) -> Client:
        """A client of the same daemon for another thread, whose it is to close."""
        return self._connect() if self.url else Client(self.client.path)

    def judge(self, path: str, body: dict[str, object]) -> list[Problem]:
        """What a daemon that runs finds wrong with a request; nothing where none runs. None is started for it."""
        from bulkhead.cli.places import find_places
        from bulkhead.errors import BulkheadError, Unavailable

        if self.url:
            return []
        client = Client(find_places(self.config).socket)
        try:
            client.call("POST", path, body=body)
        except Unavailable:
            return []
        except BulkheadError as error:
            return list(error.problems)
        finally:
            client.close()
        return []

    def _connect(self) -> Client:
        if self.url:
            from bulkhead.client.remote import find

            found = find(self.url, self._options)
            client = Client(found) if isinstance(found, str) else Client("", found)
            client.connect()
            return client
        from bulkhead.cli.places import find_places

        places = find_places(self.config)
        client = Client(places.socket)
        try:
            client.connect()
        except Exception as error:
            # Only now is it worth loading the error tree, and what starts a daemon.
            from bulkhead.cli.daemon import start_daemon
            from bulkhead.errors import Unavailable

            if not isinstance(error, Unavailable):
                raise
            start_daemon(client, places, error)
        return client
