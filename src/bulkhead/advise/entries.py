"""Servers and workloads as files tell of them: one model for CSV and JSON, of which the JSON schema is made.

Amounts are numbers (bytes, bits per second, cores) or text with a unit ("16G", "1Gbit", "12%" of a server's cores).
In a CSV file everything is text: numbers are taken from it there alone.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, StringConstraints, ValidationInfo

from bulkhead.advise.estate import Data, Latency
from bulkhead.advise.troubles import Place
from bulkhead.model import Trust
from bulkhead.modelling import Model
from bulkhead.quantities import parse_rate, parse_seconds, parse_size

TEXT = {"text": True}
"""The context of validation in which numbers, truth and lists come as text."""
MOST_STEPS = 1_000_000
_YES, _NO = ("yes", "true", "y", "1"), ("no", "false", "n", "0")
_PERCENT = re.compile(r"[0-9]+(\.[0-9]+)?%")


def _is_text(info: ValidationInfo) -> bool:
    return bool(info.context and info.context.get("text"))


def _number(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, str) and _is_text(info):
        try:
            number = float(value)
        except ValueError:
            raise ValueError(f"{value[:40]!r} is not a number") from None
        return int(number) if math.isfinite(number) and number == int(number) and "." not in value else number
    return value


def _size(value: Any) -> Any:
    return parse_size(value) if isinstance(value, str) else value


def _rate(value: Any) -> Any:
    return parse_rate(value) if isinstance(value, str) else value


def _seconds(value: Any) -> Any:
    return parse_seconds(value) if isinstance(value, str) else value


def _truth(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, str) and _is_text(info):
        word = value.strip().lower()
        if word in _YES or word in _NO:
            return word in _YES
        raise ValueError(f"{value[:40]!r} is not yes or no")
    return value


def _names(value: Any, info: ValidationInfo) -> Any:
    return tuple(value.split()) if isinstance(value, str) and _is_text(info) else value


def _cores(value: Any, info: ValidationInfo) -> Any:
    """Cores, or a part of the server's: "12%" stays text and is weighed with the server."""
    if isinstance(value, str):
        text = value.strip()
        if _PERCENT.fullmatch(text):
            return text
        if not _is_text(info):
            raise ValueError(f"{value[:40]!r} is neither a number of cores nor a percentage such as 12%")
        return _number(text, info)
    return value


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:@/-]{0,127}$")]
Owner = Annotated[str, StringConstraints(pattern=r"^([^\x00-\x1f\x7f-\x9f=+@-][^\x00-\x1f\x7f-\x9f]{0,127})?$")]
"""Nothing that a terminal acts upon, or that a spreadsheet takes for a formula."""
Size = Annotated[int, BeforeValidator(_size, json_schema_input_type=int | str), Field(ge=0, le=1 << 60)]
Rate = Annotated[int, BeforeValidator(_rate, json_schema_input_type=int | str), Field(ge=0, le=10**15)]
Cores = Annotated[int, BeforeValidator(_number, json_schema_input_type=int), Field(ge=1, le=65536)]
Ghz = Annotated[float, BeforeValidator(_number, json_schema_input_type=float), Field(gt=0, le=100)]
Amount = Annotated[float, BeforeValidator(_number, json_schema_input_type=float), Field(ge=0, le=1e12)]
Seconds = Annotated[float, BeforeValidator(_seconds, json_schema_input_type=float | str), Field(ge=0, le=1e9)]
Truth = Annotated[bool, BeforeValidator(_truth, json_schema_input_type=bool)]
Names = Annotated[tuple[Name, ...], BeforeValidator(_names, json_schema_input_type=list[str])]
Value = Annotated[float, Field(ge=0, le=1e18)]
Values = Annotated[list[Value], Field(min_length=1, max_length=MOST_STEPS)]
Part = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?%$")]
CpuUse = Annotated[Value | Part, BeforeValidator(_cores, json_schema_input_type=float | str)]


class ServerEntry(Model):
    """A machine."""

    name: Name
    cores: Cores = Field(description="hardware threads")
    ghz: Ghz = Field(description="the clock of one of them")
    memory: Size = Field(ge=1 << 20, description='bytes, or "64G"')
    disk: Size = Field(ge=1 << 20, description='bytes, or "2T"')
    network: Rate = Field(default=10**9, ge=10**5, description='bits per second, or "10G"')
    idle_watts: Amount | None = Field(default=None, description="drawn at no load; none: the price list's")
    peak_watts: Amount | None = Field(default=None, description="drawn at full load; none: the price list's")
    purchase: Amount | None = Field(default=None, description="what it, or its successor, costs")


class UseEntry(Model):
    """What a workload uses: a peak each, or in JSON a series of values `step` seconds apart."""

    cpu: CpuUse | Values = Field(description='cores that were busy, or "12%" of the server\'s')
    cpu_mean: CpuUse | None = Field(default=None, description="with a peak alone: the mean, by which power is counted")
    memory: Size | Values = Field(description="bytes in use")
    disk: Size | Values = Field(description="bytes in use")
    network: Rate | Values = Field(default=0, description="bits per second, the busier way")


class WorkloadEntry(Model):
    """A workload: where it runs, what it uses, what is to be known of its risk."""

    name: Name
    server: Name | Literal[""] = Field(description="where it runs now; empty: it is still to come")
    owner: Owner = Field(default="", description="whose it is: different owners are different tenants")
    trust: Trust = Field(default="own", description="whose program it is: own, partner, public")
    hostile_input: Truth = Field(default=False, description="it reads what strangers send")
    needs_kernel: Truth = Field(default=False, description="it needs a kernel of its own")
    system: Truth = Field(default=False, description="another operating system than Linux, or an unmodified one")
    data: Data = Field(default="internal", description="what a breach discloses: none, internal, personal, secret")
    licence_per_core: Amount = Field(default=0.0, description="a year, for each core that the plan gives it")
    latency: Latency = Field(default="normal", description="low: its peak is kept for it at every hour")
    near: Names = Field(default=(), description="workloads that have to be on the same host")
    apart: Names = Field(default=(), description="workloads that must not be on the same host")
    downtime: Seconds | None = Field(default=None, description="how long one move may take it away")
    outage_hour: Amount | None = Field(default=None, description="what an hour without it costs")
    use: UseEntry | None = Field(default=None, description="none: it is in the file given by --use")


class EstateEntry(Model):
    """A whole estate: what `bulkhead advise` reads as JSON."""

    version: Literal[1] = Field(default=1, description="of this format")
    start: float = Field(default=0.0, ge=0, le=1e11, description="of the series: seconds since the epoch, UTC")
    step: float = Field(default=300.0, gt=0, le=31_536_000, description="seconds between two values of a series")
    servers: tuple[ServerEntry, ...] = Field(min_length=1, max_length=20_000)
    workloads: tuple[WorkloadEntry, ...] = Field(max_length=100_000)


E_co = TypeVar("E_co", bound=BaseModel, covariant=True)


class Where(Protocol):
    """Where an entry stands in its file."""

    def at(self, name: str) -> Place:
        """Where a field ("memory", "use.cpu") stands; "": the entry itself."""
        ...


@dataclass(frozen=True, slots=True)
class Told(Generic[E_co]):
    """An entry, and where it stands."""

    entry: E_co
    where: Where


@dataclass(frozen=True, slots=True)
class Entries:
    """What a file tells of."""

    servers: tuple[Told[ServerEntry], ...]
    workloads: tuple[Told[WorkloadEntry], ...]
    start: float = 0.0
    step: float = 0.0
    notes: tuple[str, ...] = ()


_KEYWORDS = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum"}
"""What pydantic calls bounds of values that it first takes from text."""


def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of an estate."""
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", **EstateEntry.model_json_schema()}
    told: dict[str, Any] = _standard(made)
    return told


def _standard(value: Any) -> Any:
    if isinstance(value, list):
        return [_standard(each) for each in value]
    if not isinstance(value, dict):
        return value
    # A bound is a number; a property may be called like one.
    return {
        _KEYWORDS.get(key, key) if isinstance(each, int | float) else key: _standard(each)
        for key, each in value.items()
    }
