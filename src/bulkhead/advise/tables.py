"""A CSV file of servers with their workloads: a row each, read into entries, every problem with line and cell."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bulkhead.advise.entries import TEXT, Entries, ServerEntry, Told, WorkloadEntry
from bulkhead.advise.troubles import Place, Troubles

MOST_CELL = 65_536
MOST_COLUMNS = 256
SERVER = {
    "server": "name",
    **{name: name for name in ServerEntry.model_fields if name != "name"},
}
"""Column -> field of a server."""
WORKLOAD = {
    "workload": "name",
    **{name: name for name in WorkloadEntry.model_fields if name not in ("name", "server", "use")},
}
USE = {
    "cpu_peak": "cpu",
    "cpu_mean": "cpu_mean",
    "memory_used": "memory",
    "disk_used": "disk",
    "network_used": "network",
}
COLUMNS = (*SERVER, *WORKLOAD, *USE)
REQUIRED = ("server", "cores", "ghz", "memory", "disk")
NOTHING = "-"
"""In the column `workload`: nothing runs on this server."""
E_ = TypeVar("E_", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Cells:
    """Where an entry's fields stand."""

    place: Place
    fields: Mapping[str, Place]

    def at(self, name: str) -> Place:
        """Where a field ("memory", "use.cpu") stands, or where it would."""
        return self.fields.get(name, self.place)


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    cells: dict[str, str]
    places: dict[str, Place]


def read(text: str, file: str, troubles: Troubles) -> Entries:
    """Servers and workloads. A server that several rows name is told of in the first; later rows repeat or leave it
    out."""
    servers: dict[str, Told[ServerEntry]] = {}
    workloads: list[Told[WorkloadEntry]] = []
    first: dict[str, dict[str, str]] = {}
    for row in _rows(text, file, troubles):
        name = row.cells.get("server", "")
        told = {column: value for column, value in row.cells.items() if column in SERVER}
        if name and name in first:
            _same(row, first[name], told, troubles)
        elif name:
            first[name] = told
            missing = [column for column in REQUIRED if column not in told]
            for column in missing:
                troubles.add(Place(file, row.line), f"{column} is missing for server {name}")
            if not missing and (server := _entry(ServerEntry, _fields(told, SERVER), row, SERVER, troubles)):
                servers[name] = server
        elif len(told) > 0:
            troubles.add(Place(file, row.line), f"server is empty, and {', '.join(told)} of a server given")
        if found := _workload(row, troubles):
            workloads.append(found)
    return Entries(tuple(servers.values()), tuple(workloads))


def _same(row: _Row, before: Mapping[str, str], told: Mapping[str, str], troubles: Troubles) -> None:
    for column, value in told.items():
        if before.get(column, value) != value:
            what = f"{column} of server {told['server']} is {value!r} here and {before[column]!r} further up"
            troubles.add(row.places[column], what)


def _workload(row: _Row, troubles: Troubles) -> Told[WorkloadEntry] | None:
    mine = {column: value for column, value in row.cells.items() if column in WORKLOAD or column in USE}
    name = mine.get("workload", row.cells.get("server", ""))
    if name == NOTHING:
        for column in [column for column in mine if column != "workload"]:
            troubles.add(row.places[column], f"{column} of no workload: workload is {NOTHING!r}")
        return None
    if not name:
        troubles.add(
            Place(next(iter(row.places.values())).file, row.line), "the row names neither a server nor a workload"
        )
        return None
    fields: dict[str, Any] = {"server": row.cells.get("server", ""), **_fields(mine, WORKLOAD), "name": name}
    use = _fields(mine, USE)
    if use:
        fields["use"] = use
    return _entry(WorkloadEntry, fields, row, {**WORKLOAD, **USE}, troubles)


def _fields(cells: Mapping[str, str], columns: Mapping[str, str]) -> dict[str, Any]:
    return {columns[column]: value for column, value in cells.items() if column in columns}


def _entry(
    model: type[E_], fields: dict[str, Any], row: _Row, columns: Mapping[str, str], troubles: Troubles
) -> Told[E_] | None:
    column_of = {f"use.{field}" if column in USE else field: column for column, field in columns.items()}
    file = next(iter(row.places.values())).file
    try:
        entry = model.model_validate(fields, context=TEXT)
    except ValidationError as error:
        told = set()
        for each in error.errors(include_url=False):
            where = ".".join(str(key) for key in each["loc"][: 2 if each["loc"][0] == "use" else 1])
            column = column_of.get(where, where)
            if column not in told:
                told.add(column)
                value = row.cells.get(column, "")
                troubles.add(row.places.get(column, Place(file, row.line)), _words(column, value, each))
        return None
    places = {field: row.places[column] for field, column in column_of.items() if column in row.places}
    return Told(entry, Cells(Place(file, row.line), places))


def _words(column: str, value: str, error: Any) -> str:
    if error["type"] == "missing":
        return f"{column} is missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{column}: {message}" if repr(value) in message else f"{column}: {value[:60]!r}: {message}"


def _rows(text: str, file: str, troubles: Troubles) -> Iterator[_Row]:
    """Each row that is not empty, as column -> what the cell says; empty cells are left out."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            here, line = line, reader.line_num + 1
            stripped = [cell.strip() for cell in cells]
            if not any(stripped) or stripped[0].startswith("#"):
                continue
            if header is None:
                header = _header(stripped, file, here, troubles)
                if not {*REQUIRED} <= {*header}:
                    return
                continue
            if len(stripped) > len(header):
                what = f"there are {len(stripped)} cells under {len(header)} columns"
                troubles.add(Place(file, here, len(header) + 1), what, "quote a cell that has a comma in it")
                continue
            if any(len(cell) > MOST_CELL for cell in stripped):
                troubles.add(Place(file, here), f"a cell has more than {MOST_CELL} characters")
                continue
            named = [(name, cell, at) for at, (name, cell) in enumerate(zip(header, stripped, strict=False), 1) if cell]
            yield _Row(
                here,
                {name: cell for name, cell, _ in named},
                {name: Place(file, here, at) for name, _, at in named},
            )
    except csv.Error as error:
        troubles.add(Place(file, reader.line_num or 1), f"this is no CSV: {error}")
    if header is None and not troubles:
        troubles.add(Place(file, 1), "the file is empty: its first line has to name the columns", "see docs/reference")


def _header(cells: list[str], file: str, line: int, troubles: Troubles) -> list[str]:
    names = [cell.lower().removeprefix("\ufeff") for cell in cells]
    if len(names) > MOST_COLUMNS:
        troubles.add(
            Place(file, line), f"the first line names {len(names)} columns", f"columns are {', '.join(COLUMNS)}"
        )
        return []
    for at, name in enumerate(names, 1):
        if name not in COLUMNS:
            near = get_close_matches(name, COLUMNS, 1)
            hint = f"did you mean {near[0]}?" if near else f"columns are {', '.join(COLUMNS)}"
            troubles.add(Place(file, line, at), f"{name!r} is no column", hint)
        elif names.index(name) != at - 1:
            troubles.add(Place(file, line, at), f"column {name} is there twice")
    for column in REQUIRED:
        if column not in names:
            troubles.add(Place(file, line), f"there is no column {column}")
    return names
