"""What the levels have in common whose instances are a root that an agent has made: others can get into it as well."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from bulkhead.agent.frames import ExecRequest, Start
from bulkhead.isolation.base import Bundle, Command, Handle
from bulkhead.isolation.supervised import Supervised
from bulkhead.model import Spec


class Rooted(Supervised):
    """Runs instances whose files can be reached, and beside whose program commands can be run."""

    def within(self, stage: Path) -> Self:
        """The same, to make lists for a guest: its agent has made `stage`, and is held back by no limits."""
        self._stage, self.hard_limits = stage, {}
        return self

    def hold_request(self, bundle: Bundle) -> Start:
        """What the agent is asked to hold open for the instance's files; no side effects."""
        raise NotImplementedError

    def command_request(self, spec: Spec, join: Sequence[str], command: Command) -> ExecRequest:
        """What the agent is asked to run beside the workload; no side effects."""
        raise NotImplementedError

    def hold(self, bundle: Bundle) -> Handle:
        """Make the root without running the program, for `cp`; `stop` ends it."""
        return self._launch(bundle, self.hold_request(bundle), None)

    def exec_request(self, spec: Spec, handle: Handle, command: Command) -> ExecRequest:
        """The EXEC for a command beside the workload."""
        return self.command_request(spec, handle.data["join"].splitlines(), command)
