"""Plans: what an instance may use. Bytes, bits per second for the network's bandwidth, GHz."""

from __future__ import annotations

from pydantic import Field

from bulkhead.modelling import Model, Name


class Plan(Model):
    """What an instance may use. Every field that is set is a hard limit; None is no limit."""

    memory: int = Field(ge=6 << 20, le=1 << 50, description="bytes of RAM, page cache included")
    swap: int = Field(default=0, ge=0, le=1 << 50, description="bytes of swap on top of memory")
    cpus: float = Field(gt=0, le=4096, description="cores")
    ghz: float | None = Field(default=None, gt=0, le=100, description="speed of a core; None: the host's")
    baseline: float | None = Field(default=None, gt=0, le=4096, description="cores that are sold; None: all of cpus")
    disk: int = Field(ge=16 << 20, le=1 << 50, description="bytes of the instance's own ext4 file")
    iops: int | None = Field(default=None, ge=10, le=10**9, description="disk operations/s, each way")
    disk_bps: int | None = Field(default=None, ge=1 << 16, le=1 << 50, description="disk bytes/s, each way")
    bandwidth: int | None = Field(default=None, ge=100_000, le=10**13, description="network bits per second, each way")
    pids: int = Field(default=512, ge=1, le=4_194_304, description="processes and threads")

    @property
    def sold_cpus(self) -> float:
        """Cores that it gets when everybody wants all that was sold; no more than it may use."""
        return self.cpus if self.baseline is None else min(self.baseline, self.cpus)


class NamedPlan(Model):
    """A plan that can be sold by its name."""

    name: Name
    plan: Plan


class PlanRequest(Model):
    """A plan as asked for: a name, single fields that override it, or both."""

    name: Name | None = None
    memory: int | None = None
    swap: int | None = None
    cpus: float | None = None
    ghz: float | None = None
    baseline: float | None = None
    disk: int | None = None
    iops: int | None = None
    disk_bps: int | None = None
    bandwidth: int | None = None
    pids: int | None = None
