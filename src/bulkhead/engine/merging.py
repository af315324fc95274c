"""Equal pages of one tenant's virtual machines, once in memory: on the operator's setting (`merge_tenant`).

One tenant at a time: the kernel merges whatever has asked for it, whosever it is, and a page that is merged tells by
the time that a write takes that somebody else has the same. So only that tenant's machines ask, and nobody else on the
host may be merging already. See docs/design/0020.
"""

from __future__ import annotations

import logging

from bulkhead.engine.context import Context
from bulkhead.errors import HostError, Problem, Refused
from bulkhead.host import ksm
from bulkhead.host.ksm import Ksm
from bulkhead.model import Isolation, Spec

log = logging.getLogger(__name__)


def merges(context: Context, spec: Spec) -> bool:
    """Whether a machine's pages may be merged with those of its tenant's others."""
    return spec.isolation is Isolation.VM and spec.tenant == context.config.merge_tenant


class Merger:
    """Turns the kernel's merging on and off."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tenant = context.config.merge_tenant
        self._ksm = Ksm(context.config.run_dir / "ksm-run")

    def check(self) -> None:
        """Raise Refused with everything because of which the configured tenant's pages cannot be merged here."""
        if self._tenant is None:
            return
        asked = f"merge_tenant {self._tenant}"
        if not self._ksm.exists():
            raise Refused(f"{asked}: this kernel does not merge pages (CONFIG_KSM)", hint="leave merge_tenant out")
        problems = []
        if self._ksm.is_used() and not self._ksm.is_ours():
            what = f"{asked}: the host merges pages of other programs already ({ksm.ROOT}/run): theirs and the tenant's"
            problems.append(Problem(f"{what} would be told from each other by time", "echo 2 > run there, then 0"))
        for instance in self._context.state.instances():
            spec = instance.spec
            if instance.pid and not merges(self._context, spec) and ksm.has_asked(instance.pid):
                what = f"{asked}: {spec.key} of tenant {spec.tenant} runs and may be merged from an earlier setting"
                problems.append(Problem(what, f"stop it first, with the setting as it was: bulkhead stop {spec.key}"))
        if problems:
            raise Refused(problems)

    def begin(self) -> None:
        """As the configuration says; what an earlier one had turned on is turned off."""
        if self._tenant is not None:
            self._ksm.begin()
        else:
            self._ksm.end()

    def close(self) -> None:
        """Where no machine of the tenant runs, leave the host as it was."""
        if any(each.pid and merges(self._context, each.spec) for each in self._context.state.instances()):
            return
        try:
            self._ksm.end()
        except HostError as error:
            log.warning("merging of pages stays on: %s", error)

    def saved(self) -> int | None:
        """Bytes that are not in memory because they are merged; None where nothing is."""
        return None if self._tenant is None else self._ksm.saved() * 4096
