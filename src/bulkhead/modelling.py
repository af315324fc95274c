"""The base of all nouns. Numbers are numbers and truth is true or false: what pydantic would make of others is refused.

Without it `{"timeout": false}` is 0 seconds and `{"force": "on"}` is true: a client's mistake would be carried out.
It is a flag of the compiled schema, so it costs nothing when a value is judged.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, StringConstraints
from pydantic_core import CoreSchema

_KINDS = ("bool", "int", "float")
NAME_PATTERN = r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""Of what users name."""
Taken = dict[Literal["memory", "cpu", "disk", "bandwidth", "iops", "disk_bps"], Annotated[int, Field(ge=0, le=1 << 62)]]
"""What something takes of a host, in the units of Amounts."""


def harden(schema: Any) -> Any:
    """A core schema in which every number and truth value is strict, in place. A whole number is a number as well.

    No number is infinite or none at all: JSON has no such, though Python reads it.
    """
    if isinstance(schema, dict):
        if schema.get("type") in _KINDS:
            schema.setdefault("strict", True)
        if schema.get("type") == "float":
            schema.setdefault("allow_inf_nan", False)
        for value in schema.values():
            if isinstance(value, dict | list | tuple):
                harden(value)
    elif isinstance(schema, list | tuple):
        for value in schema:
            harden(value)
    return schema


class Model(BaseModel):
    """The base of all nouns: immutable, and an unknown key is an error."""

    strict: ClassVar[bool] = True
    """Whether false is no 0, and "1" no number. Not of what comes as text: a query."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        return harden(schema) if cls.strict else schema
