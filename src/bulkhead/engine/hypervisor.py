"""QEMU on this host: the root of its jail, and with what it runs guests."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from bulkhead.boot import processors, vmm
from bulkhead.boot.probe import Acceleration
from bulkhead.boot.probe import find as find_acceleration
from bulkhead.boot.vmm import Vmm
from bulkhead.config import Config
from bulkhead.errors import BulkheadError
from bulkhead.isolation.base import Ability, Probe

log = logging.getLogger(__name__)
Accelerator = Literal["kvm", "tcg"]


class Hypervisor:
    """One per daemon. `mount` mounts an EROFS file of a digest, once, and says where."""

    def __init__(self, config: Config, mount: Callable[[str, Path], Path]) -> None:
        self._config = config
        self._mount = mount
        self._lock = threading.Lock()
        self._acceleration: Acceleration | None = None
        self._vmm: Vmm | None = None
        self._processors: tuple[str, dict[str, tuple[str, ...]]] = "", {}
        """Of the QEMU of this digest."""

    def vmm(self) -> Vmm:
        """The QEMU that is installed now, with its jail's root, which is made when it has none yet."""
        with self._lock:
            # To look at its files takes less than a millisecond, to ask QEMU what they are fifty.
            if self._vmm is None or not self._vmm.is_current():
                self._vmm = vmm.prepare(self._config.cache_dir)
            return self._vmm

    def root(self) -> Path:
        """Where the root of a hypervisor's jail is mounted."""
        made = self.vmm()
        return self._mount(made.digest, made.erofs)

    def accelerator(self) -> Accelerator:
        """What guests run with. Raises Unavailable where QEMU is missing."""
        return "kvm" if self._find().accelerator == "kvm" else "tcg"

    def processors(self) -> dict[str, tuple[str, ...]]:
        """QEMU's models of processors with the features that guests here would lack; nothing where it does not say."""
        try:
            digest, accelerator = self.vmm().digest, self.accelerator()
            with self._lock:
                if self._processors[0] != digest:
                    self._processors = digest, processors.known(self._config.run_dir, accelerator)
                return self._processors[1]
        except BulkheadError as error:
            log.debug("no processor of virtual machines has a name here: %s", error)  # the level says why
            return {}

    def probe(self) -> Probe:
        """Whether virtual machines work here, and with what."""
        try:
            self.root()
            found = self._find()
        except BulkheadError as error:
            return Probe(works=False, reason=error.what, hint=error.hint)
        row = Ability("KVM", found.accelerator == "kvm", found.reason, found.hint)
        return Probe(works=True, reason=f"with {found.accelerator.upper()}", abilities=(row,))

    def _find(self) -> Acceleration:
        """Found out once; that guests are slow here is told once as well."""
        with self._lock:
            if self._acceleration is None:
                self._acceleration = find_acceleration(self._config.run_dir)
                if self._acceleration.accelerator != "kvm":
                    log.warning("%s (%s)", self._acceleration.reason, self._acceleration.hint)
            return self._acceleration
