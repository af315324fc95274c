"""Files of any of the formats become an estate; whatever is wrong with all of them is told at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bulkhead.advise import documents, exposition, ganeti, measured, tables, uses
from bulkhead.advise.building import build
from bulkhead.advise.entries import Entries
from bulkhead.advise.estate import Estate
from bulkhead.advise.troubles import Place, Troubles
from bulkhead.errors import Refused

MOST_BYTES = 1 << 30


def read(paths: Sequence[str], use: str | None = None) -> Estate:
    """The estate that files tell of: one CSV, JSON or Ganeti file, or node_exporter's of two looks or more.

    `use`: a CSV file of use over time. Raises Refused with every problem.
    """
    troubles = Troubles()
    texts = [(Path(path).name, text) for path in paths if (text := _text(path, troubles)) is not None]
    use_text = _text(use, troubles) if use else None
    troubles.check()
    entries, found = _entries(texts, troubles)
    if use is not None and use_text is not None:
        if found is not None:
            troubles.add(Place(Path(use).name, 1), "node_exporter's files tell the use themselves: leave out --use")
        found = uses.read(use_text, Path(use).name, troubles)
    if not entries.servers and not troubles:
        troubles.add(Place(texts[0][0], 1), "there is no server in it")
    # Follow-up errors of entries that could not be read would only be noise.
    troubles.check()
    sources = [name for name, _ in texts] + ([Path(use).name] if use else [])
    estate = build(entries, found, sources, troubles)
    troubles.check()
    assert estate is not None
    return estate


def _text(path: str, troubles: Troubles) -> str | None:
    try:
        file = Path(path)
        with file.open("rb") as opened:  # a device or a pipe tells no size
            data = opened.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            troubles.add(Place(file.name, 1), f"it has more than {MOST_BYTES} bytes", "give means over longer steps")
            return None
        return data.decode("utf-8-sig")
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        troubles.add(Place(file.name, line), "this is not text (UTF-8)")
        return None


def _entries(texts: Sequence[tuple[str, str]], troubles: Troubles) -> tuple[Entries, uses.Uses | None]:
    name, text = texts[0]
    if exposition.is_exposition(text):
        return measured.entries(exposition.read(texts, troubles), troubles)
    for other, _ in texts[1:]:
        troubles.add(Place(other, 1), "only node_exporter's files can be several: put an estate into one file")
    if text.lstrip().startswith("{"):
        return documents.read(text, name, troubles), None
    if ganeti.is_ganeti(text):
        return ganeti.read(text, name, troubles), None
    return tables.read(text, name, troubles), None
