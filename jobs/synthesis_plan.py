"""What a synthesis job will do: units with stable ids and seeds, their shards, and the job's identity."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count, islice
from typing import TYPE_CHECKING, Any

from flowtts_core import __version__
from flowtts_core.config import to_dict
from flowtts_core.errors import ConfigError, TextError
from flowtts_core.text.document import Document, TextRow

if TYPE_CHECKING:
    from jobs.verification import GateConfig

SHARD_UNITS = 48  # about five minutes of speech: a killed job loses seconds of work per worker
SHARD_CHARACTERS = 6000
FORMAT = 1  # raised when a folder of an older program can no longer be resumed


@dataclass(frozen=True)
class Unit:
    """One utterance: a sentence of a book or a row of a corpus.

    Attributes:
        chapter: number in the book, from 1; 0 in a corpus.
        index: place in its chapter or corpus, from 0.
        file: name of its audio file in a corpus, without suffix; empty in a book.
        error: why it cannot be spoken, known before synthesis (an unreadable row); empty otherwise.
    """

    id: str
    text: str
    seed: int
    chapter: int = 0
    index: int = 0
    role: str = "sentence"
    pause_s: float = 0.0
    speaker: str | None = None
    file: str = ""
    error: str = ""


@dataclass(frozen=True)
class Speaking:
    """The settings that change the sound; part of the job's identity."""

    seed: int = 0
    speed: float = 1.0
    steps: int | None = None
    temperature: float | None = None
    lexicon: str = ""  # fingerprint of the user's lexicon
    gate: GateConfig | None = None

    def __post_init__(self) -> None:
        if not 0.25 <= self.speed <= 4.0:
            raise ConfigError(f"speed {self.speed} is not possible", "choose one from 0.25 to 4")
        if self.steps is not None and not 0 <= self.steps <= 1000:
            raise ConfigError(f"steps {self.steps} is not possible", "choose 0 (no flow, the mean alone) to 1000")


@dataclass(frozen=True)
class Plan:
    """All units in order, cut into shards; `document` is None for a corpus."""

    units: tuple[Unit, ...]
    shards: tuple[tuple[Unit, ...], ...]
    document: Document | None = None
    title: str = ""

    @property
    def ids(self) -> list[list[str]]:
        return [[unit.id for unit in shard] for shard in self.shards]


def plan_book(document: Document, speaking: Speaking, chapters: str = "", max_sentences: int | None = None) -> Plan:
    """Units of a book: id `0003-0042` is the 42nd sentence of chapter 3.

    Args:
        chapters: which to read, for instance "1-3,5"; empty for all.
        max_sentences: stop after so many in all (for a trial).

    Raises:
        TextError: when nothing is left to read.
        ConfigError: for chapters that the book does not have.
    """
    document = _clean(document)
    chosen = parse_chapters(chapters, len(document.chapters))
    units = [
        Unit(f"{number:04d}-{i + 1:04d}", sentence.text, 0, number, i, sentence.role, sentence.pause_s)
        for number in chosen
        for i, sentence in enumerate(document.chapters[number - 1].sentences)
    ][:max_sentences]
    if not units:
        raise TextError(
            f"{document.title or 'the text'}: nothing to read",
            "is the file empty? --include-matter reads front and back matter too",
        )
    return _finish((replace(unit, seed=unit_seed(speaking.seed, unit.id)) for unit in units), document, document.title)


def plan_corpus(rows: Iterable[TextRow | Unit], speaking: Speaking, title: str, limit: int | None = None) -> Plan:
    """Units of a corpus; a `Unit` among the rows is one that could not be read and passes through to the quarantine.

    An id that occurs again is quarantined under `id~2`, `id~3`, ..., the next that no row has: the first keeps its row.

    Raises:
        TextError: when there is no row at all.
    """
    found = [row if isinstance(row, Unit) else _unit_of_row(row, speaking) for row in islice(rows, limit)]
    if not found:
        raise TextError(f"{title}: no rows to read", "is the file empty?")
    found = [replace(unit, id=_utf8(unit.id)) for unit in found]
    taken, seen, files, units = {unit.id for unit in found}, set[str](), set[str](), []
    for index, unit in enumerate(found):
        if unit.id in seen:
            error = unit.error or f"the id {unit.id!r} occurs more than once"
            unit = replace(unit, id=_numbered(unit.id, taken), error=error)
        taken.add(unit.id)
        seen.add(unit.id)
        units.append(replace(unit, index=index, file=unique_name(safe_name(unit.id, 120), files)))
    return _finish(units, None, title)


def _unit_of_row(row: TextRow, speaking: Speaking) -> Unit:
    seed = row.seed if row.seed is not None else unit_seed(speaking.seed, row.id)
    return Unit(row.id, row.text, seed, speaker=row.speaker)


def _finish(units: Iterable[Unit], document: Document | None, title: str) -> Plan:
    # A lone surrogate cannot be stored as UTF-8; the reader warns of it, here it only must not break a shard.
    clean = tuple(replace(unit, id=_utf8(unit.id), text=_utf8(unit.text)) for unit in units)
    return Plan(clean, tuple(_shards(clean)), document, _utf8(title))


def _clean(document: Document) -> Document:
    """With a title, author and chapter titles that can be stored: a title may be a file name that is not UTF-8."""
    chapters = tuple(replace(chapter, title=_utf8(chapter.title)) for chapter in document.chapters)
    return replace(document, title=_utf8(document.title), author=_utf8(document.author), chapters=chapters)


def _utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _shards(units: Sequence[Unit]) -> Iterator[tuple[Unit, ...]]:
    shard: list[Unit] = []
    characters = 0
    for unit in units:
        if shard and (len(shard) >= SHARD_UNITS or characters + len(unit.text) > SHARD_CHARACTERS):
            yield tuple(shard)
            shard, characters = [], 0
        shard.append(unit)
        characters += len(unit.text)
    if shard:
        yield tuple(shard)


def unit_seed(job_seed: int, id: str) -> int:
    """A seed in [0, 2^31) from the job's seed and the unit's id: neighbours differ, reruns agree."""
    return int.from_bytes(hashlib.sha256(f"{job_seed}\n{id}".encode("utf-8", "replace")).digest()[:4], "big") >> 1


def parse_chapters(text: str, chapters: int) -> list[int]:
    """Numbers from "1-3,5" (also "4-"), in the book's order.

    Raises:
        ConfigError: for another form or a number out of range.
    """
    if not text:
        return list(range(1, chapters + 1))
    chosen: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(-\s*(\d*)\s*)?", part)
        if not match:
            raise ConfigError(f"--chapters {text}: {part!r} is not a number or a range", "write for instance 1-3,5")
        first = int(match[1])
        last = first if match[2] is None else int(match[3] or chapters)
        if not 1 <= first <= last <= chapters:
            raise ConfigError(f"--chapters {text}: the book has chapters 1 to {chapters}", "write for instance 1-3,5")
        chosen.update(range(first, last + 1))
    return sorted(chosen)


def identity(plan: Plan, voice_name: str, voice_fingerprint: str, speaking: Speaking) -> dict[str, Any]:
    """What makes this job this job; equal for a resume, different for another book, voice or setting."""
    digest = hashlib.sha256()
    for unit in plan.units:
        digest.update(json.dumps(asdict(unit), sort_keys=True).encode())
    return {
        "format": FORMAT,
        "program": __version__,  # another version may read a text or join a book otherwise
        "kind": "book" if plan.document else "corpus",
        "title": plan.title,
        "texts": digest.hexdigest()[:16],
        "units": len(plan.units),
        "voice": voice_name,
        "voice_fingerprint": voice_fingerprint,
        "settings": to_dict(speaking),
        "shards": [len(shard) for shard in plan.shards],
    }


_WINDOWS_DEVICES = {"con", "prn", "aux", "nul", *(f"com{i}" for i in range(1, 10)), *(f"lpt{i}" for i in range(1, 10))}


def safe_name(text: str, limit: int = 80) -> str:
    """A file name from a title or id: no separators, control characters, leading dots or device names; never empty."""
    text = unicodedata.normalize("NFC", _utf8(text))
    text = "".join(" " if c in '/\\:*?"<>|\0' or unicodedata.category(c)[0] in "CZ" else c for c in text)
    text = " ".join(text.split()).strip(". ")
    while len(text.encode()) > limit:
        text = text[:-1].rstrip(". ")
    return f"_{text}" if text.lower().split(".")[0] in _WINDOWS_DEVICES else text or "untitled"


def unique_name(name: str, taken: set[str]) -> str:
    """`name`, or with a number where a file system that ignores case would mix two up; `taken` is lower case."""
    candidate = name if name.lower() not in taken else _numbered(name, taken, str.lower)
    taken.add(candidate.lower())
    return candidate


def _numbered(name: str, taken: set[str], key: Callable[[str], str] = str) -> str:
    """The first of `name~2`, `name~3`, ... that is not taken."""
    return next(f"{name}~{number}" for number in count(2) if key(f"{name}~{number}") not in taken)
