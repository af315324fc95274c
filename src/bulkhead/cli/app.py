"""What every command works with: the configuration's place and a client of the daemon."""

from __future__ import annotations

from bulkhead.client import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from bulkhead.errors import Problem


class App:
    """One run of the command line."""

    def __init__(self, config: str | None) -> None:
        self.config = config
        """The configuration's file as given by --config."""
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

    def judge(self, path: str, body: dict[str, object]) -> list[Problem]:
        """What a daemon that runs finds wrong with a request; nothing where none runs. None is started for it."""
        from bulkhead.cli.places import find_places
        from bulkhead.errors import BulkheadError, Unavailable

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
