"""What a synthesis job will do: units with stable ids and seeds, stored in shards, and the job's identity."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count, islice
from typing import Any

from cluster.plan import PLANS, DoneRow, PlanWriter, StoredPlan
from cluster.storage import Storage
from flowtts_core import __version__
from flowtts_core.config import to_dict
from flowtts_core.errors import ConfigError, FlowTTSError, TextError
from flowtts_core.request import REQUEST_FIELDS
from flowtts_core.text.document import Chapter, Document, Sentence, TextRow
from jobs.synthesis.engine import Engine, Voices
from jobs.synthesis.omissions import omissions
from jobs.synthesis.prompts import PromptKeeper
from jobs.synthesis.settings import Speaking
from jobs.synthesis.units import PLAN_ROWS, Unit, plan_row

FORMAT = 3  # raised when a folder of an older program can no longer be resumed


@dataclass(frozen=True)
class Book:
    """What a book's files need beside its sound: the document with the titles of its chapters, without their texts.

    Attributes:
        slug: its folder among the job's books; empty where it is the only input.
        paragraphs: of each chapter the places of the sentences that begin a paragraph; empty: not known.
    """

    slug: str
    document: Document
    paragraphs: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Plan:
    """What will be spoken, as a stream: each book before its units, and the rows of tables.

    Attributes:
        items: opens the stream; the same each time.
        sources: what tells that the inputs are as they were (paths, sizes, times) without reading them; empty: unknown.
        reading: how the inputs are read, where not as usual, for the provenance: JSON values.
        part: what of the inputs it is, for people; empty for all.
    """

    title: str
    kind: str  # "book" or "corpus"
    items: Callable[[], Iterable[Book | Unit]]
    sources: tuple[Any, ...] = ()
    reading: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""

    @property
    def units(self) -> tuple[Unit, ...]:
        return tuple(item for item in self.items() if isinstance(item, Unit))


def plan_book(document: Document, speaking: Speaking, chapters: str = "", max_sentences: int | None = None) -> Plan:
    """A job of one book: id `0003-0042` is the 42nd sentence of chapter 3.

    Args:
        chapters: which to read, for instance "1-3,5"; empty for all.
        max_sentences: stop after so many in all (for a trial).

    Raises:
        TextError: when nothing is left to read.
        ConfigError: for chapters that the book does not have.
    """
    items = tuple(book_items(document, "", speaking, chapters, max_sentences))
    part = _part(document, chapters, sum(isinstance(item, Unit) for item in items))
    return Plan(_clean(document).title, "book", lambda: items, part=part)


def _part(document: Document, chapters: str, planned: int) -> str:
    """Return for people what of a book is read; empty for all of it."""
    chosen = parse_chapters(chapters, len(document.chapters))
    sentences = sum(len(document.chapters[number - 1].sentences) for number in chosen)
    told = [f"chapters {chapters} of {len(document.chapters)}"] if len(chosen) < len(document.chapters) else []
    told += [f"the first {planned} of {sentences} sentences"] if planned < sentences else []
    return ", ".join(told)


def book_items(
    document: Document, slug: str, speaking: Speaking, chapters: str = "", max_sentences: int | None = None
) -> Iterator[Book | Unit]:
    """A book and its units; among other inputs their ids begin with its slug."""
    document = _clean(document)
    chosen = parse_chapters(chapters, len(document.chapters))
    prefix = f"{slug}-" if slug else ""
    units = (
        Unit(
            f"{prefix}{number:04d}-{i + 1:04d}",
            _utf8(s.text),
            slug,
            number,
            i,
            role=s.role,
            pause_s=s.pause_s,
            voice=s.voice,
            settings=_book_settings(s, speaking),
        )
        for number in chosen
        for i, s in enumerate(document.chapters[number - 1].sentences)
    )
    first = next(units, None)
    if first is None:
        raise TextError(
            f"{document.title or 'the text'}: nothing to read",
            "is the file empty? --include-matter reads front and back matter too",
        )
    light = tuple(Chapter(chapter.title, "", ()) for chapter in document.chapters)
    yield Book(slug, replace(document, chapters=light), tuple(map(_paragraphs, document.chapters)))
    seed = speaking.seed
    for unit in islice(_chained(first, units), max_sentences):
        yield replace(unit, settings={"seed": unit_seed(seed, unit.id), **unit.settings})


def _book_settings(sentence: Sentence, speaking: Speaking) -> dict[str, Any]:
    """What a sentence of a book asks for beside its seed. Its text has marks at most: a reader took the SSML."""
    rate = {} if sentence.rate == 1.0 else {"speed": round(speaking.settings.get("speed", 1.0) * sentence.rate, 4)}
    return rate | ({"input_type": "text"} if "input_type" in speaking.settings else {})


def _paragraphs(chapter: Chapter) -> tuple[int, ...]:
    """The places of the sentences before which a blank line stands, and of the first."""
    ends = [0, *(sentence.end for sentence in chapter.sentences)]
    return tuple(
        place
        for place, (sentence, before) in enumerate(zip(chapter.sentences, ends, strict=False))
        if not place or "\n\n" in chapter.text[before : sentence.start]
    )


def _chained(first: Unit, rest: Iterator[Unit]) -> Iterator[Unit]:
    yield first
    yield from rest


def plan_corpus(rows: Iterable[TextRow | Unit], speaking: Speaking, title: str, limit: int | None = None) -> Plan:
    """A job of rows; a `Unit` among the rows is one that could not be read and passes through to the quarantine.

    Raises:
        TextError: when there is no row at all.
    """
    items = tuple(corpus_units((_stored(row) for row in islice(rows, limit)), speaking))
    if not items:
        raise TextError(f"{title}: no rows to read", "is the file empty?")
    return Plan(_utf8(title), "corpus", lambda: items)


@dataclass
class Taken:
    """The ids and file names that a job has given away so far; names of files as a file system that ignores case sees them."""

    ids: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=set)


def corpus_units(rows: Iterable[TextRow | Unit], speaking: Speaking, taken: Taken | None = None) -> Iterator[Unit]:
    """The units of rows. An id that occurs again is set aside as `id~2`, ..., after all others: the first keeps its row."""
    taken, doubled = taken or Taken(), []
    ids, files = taken.ids, taken.files
    for index, row in enumerate(rows):
        id = row.id
        if id in ids:
            doubled.append((index, row if isinstance(row, Unit) else _unit_of_row(row, speaking, index, "")))
            continue
        ids.add(id)
        file = unique_name(safe_name(id, 120), files)
        yield (
            replace(row, index=index, file=file) if isinstance(row, Unit) else _unit_of_row(row, speaking, index, file)
        )
    for index, unit in doubled:
        error = unit.error or f"row {index + 1}: id {unit.id!r} occurs more than once"
        name = _numbered(unit.id, ids)
        ids.add(name)
        yield replace(unit, id=name, error=error, index=index, file=unique_name(safe_name(name, 120), files))


def _stored(row: TextRow | Unit) -> TextRow | Unit:
    """With an id that can be stored."""
    return row if row.id.isascii() else replace(row, id=_utf8(row.id))


def _unit_of_row(row: TextRow, speaking: Speaking, index: int, file: str) -> Unit:
    settings = row.settings if "seed" in row.settings else {**row.settings, "seed": unit_seed(speaking.seed, row.id)}
    start, end = row.cue or (None, None)
    return Unit(
        row.id,
        _utf8(row.text),
        "",
        0,
        index,
        cue_start=start,
        cue_end=end,
        voice=row.voice,
        file=file,
        settings=settings,
    )


def write_plan(
    storage: Storage,
    plan: Plan,
    speaking: Speaking,
    voices: Voices,
    name: str,
    kept: Mapping[str, DoneRow] | None = None,
    first_index: int = 0,
    told: Callable[[int], None] = lambda rows: None,
) -> StoredPlan:
    """Read the inputs and store their units in shards, under `plan/NAME/`; `cluster.plan.store` makes them the job's.

    Args:
        kept: rows that are done already, by id.
        told: called with the number of rows now and then.

    Raises:
        TextError: for an input that cannot be read, or where there is nothing to speak.
    """
    writer = PlanWriter(storage, f"{PLANS}/{name}", PLAN_ROWS, kept, first_index)
    prints = Fingerprints(speaking, voices)
    prompts = PromptKeeper(storage, f"{PLANS}/{name}", speaking.asr, speaking.consent)
    books: list[dict[str, Any]] = []
    voice_names: dict[str | None, int] = {}
    rows = 0
    for item in plan.items():
        if isinstance(item, Book):
            books.append({**_store_book(storage, f"{PLANS}/{name}", item), "first": rows, "units": 0, "numbers": []})
            continue
        if item.chapter:
            book = books[-1]
            book["units"] += 1
            if item.chapter not in book["numbers"][-1:]:
                book["numbers"].append(item.chapter)
        unit = _prompted(prints.checked(voices.cast(item)), speaking.settings, voices, prompts)
        if not unit.error:
            voice_names[unit.voice] = voice_names.get(unit.voice, 0) + 1
        writer.add(plan_row(unit, prints.of(unit)))
        rows += 1
        if rows % 1000 == 0:
            told(rows)
    if not rows:
        raise TextError(f"{plan.title}: nothing to read", "is the input empty?")
    used = {voices.find(voice).name: voices.find(voice).facts() for voice in voice_names}
    notes = {"title": plan.title, "kind": plan.kind, "books": books, "voices": used, "sources": list(plan.sources)}
    cut = plan.kind == "book" or rows >= plan.reading.get("limit", 0)  # of rows it is known only now
    notes |= {"reading": dict(plan.reading), "part": plan.part if cut else ""}
    if prompts.references:
        notes["references"] = prompts.references
    return writer.close(notes)


def _prompted(unit: Unit, job: Mapping[str, Any], voices: Voices, prompts: PromptKeeper) -> Unit:
    """The unit with the digest of its prompt, or of the job's, and with its text, or an error where it cannot be imitated."""
    asked = {**job, **unit.settings}
    own = {name: value for name, value in unit.settings.items() if name != "prompt"}
    if asked.get("prompt") is None or unit.error:
        return replace(unit, settings=own) if unit.error else unit
    jobs = "prompt" not in unit.settings
    language = voices.find(unit.voice).language(asked.get("speaker"), asked.get("language"))
    try:
        kept = prompts.keep(asked["prompt"], asked.get("prompt_text"), language, jobs=jobs)
    except FlowTTSError as error:
        if jobs:  # no row could be spoken
            raise
        return replace(unit, settings=own, error=error.message)
    told = {} if kept.text is None else {"prompt_text": kept.text}
    return replace(unit, settings={**own, "prompt": kept.digest, **told})


def _store_book(storage: Storage, folder: str, book: Book) -> dict[str, Any]:
    document = book.document
    cover = ""
    if document.cover is not None:
        cover = f"{folder}/{book.slug or 'book'}.cover"
        storage.write(cover, document.cover)
    kept = {name: getattr(document, name) for name in ("title", "author", "language", "identifier", "cover_media_type")}
    chapters = [chapter.title for chapter in document.chapters]
    told = {"warnings": list(document.warnings), "left_out": omissions(document.left_out)}
    noted = {"chapters": chapters, **told, "cover": cover}
    return {"slug": book.slug, **kept, **noted, "paragraphs": list(map(list, book.paragraphs))}


def stored_book(storage: Storage | None, note: dict[str, Any]) -> Book:
    """A book of a stored plan, from its note there; without its cover where no storage is given."""
    values = {name: note[name] for name in ("title", "author", "language", "identifier", "cover_media_type")}
    chapters = tuple(Chapter(title, "", ()) for title in note["chapters"])
    cover = storage.read(note["cover"]) if note["cover"] and storage is not None else None
    document = Document(chapters=chapters, cover=cover, warnings=tuple(note["warnings"]), **values)
    return Book(note["slug"], document, tuple(tuple(starts) for starts in note.get("paragraphs", ())))


class Fingerprints:
    """What each unit's sound depends on, as a digest: text, voice, seed and settings, and this program's version.

    Settings at their defaults are left out, so that a new one changes no digest.
    """

    def __init__(self, speaking: Speaking, voices: Voices) -> None:
        self._job, self._voices = speaking.defaults, voices
        self._common = json.dumps(
            {**settings_identity(replace(speaking, settings={})), "program": __version__}, sort_keys=True
        )

    def checked(self, unit: Unit) -> Unit:
        """The unit, with an error where it asks for a voice that there is not."""
        if unit.voice is None or unit.error:
            return unit
        problem = self._voices.problem(unit.voice)
        return replace(unit, error=problem) if problem else unit

    def of(self, unit: Unit) -> str:
        voice = "" if unit.error else self._voices.find(unit.voice).fingerprint
        asked = {**self._job, **unit.settings}
        settings = [(name, v) for name, v in sorted(asked.items()) if v != REQUEST_FIELDS[name].default]
        parts = (unit.text, unit.error, voice, settings, self._common)
        return hashlib.blake2b(repr(parts).encode("utf-8", "replace"), digest_size=8).hexdigest()


def settings_identity(speaking: Speaking) -> dict[str, Any]:
    """The job's settings as JSON values; those at their defaults are left out, so that a new one changes no job."""
    settings = {name: v for name, v in speaking.settings.items() if v != REQUEST_FIELDS[name].default}
    gate = None if speaking.gate is None else to_dict(speaking.gate)
    mark = None if speaking.watermark is None else speaking.watermark.identity
    others = {"lexicon": speaking.lexicon, "gate": gate, "whole": speaking.whole, "watermark": mark}
    return {**settings, **{name: value for name, value in others.items() if value}}


def _clean(document: Document) -> Document:
    """With a title, author and chapter titles that can be stored: a title may be a file name that is not UTF-8."""
    chapters = tuple(replace(chapter, title=_utf8(chapter.title)) for chapter in document.chapters)
    language = document.language or "en"
    return replace(
        document, title=_utf8(document.title), author=_utf8(document.author), language=language, chapters=chapters
    )


def _utf8(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


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


def identity(stored: StoredPlan, engine: Engine, speaking: Speaking) -> dict[str, Any]:
    """What makes this job this job; equal for a resume, different for another book, voice or setting."""
    return {
        "format": FORMAT,
        "program": __version__,  # another version may read a text or join a book otherwise
        "kind": stored.notes["kind"],
        "title": stored.notes["title"],
        "texts": stored.texts,
        "units": stored.units,
        "voice": engine.name,
        "voice_fingerprint": engine.fingerprint,
        "voices": {name: facts["fingerprint"] for name, facts in sorted(stored.notes["voices"].items())},
        "settings": settings_identity(speaking),
    }


_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.~-]*[A-Za-z0-9_~-]")
_WINDOWS_DEVICES = {"con", "prn", "aux", "nul", *(f"com{i}" for i in range(1, 10)), *(f"lpt{i}" for i in range(1, 10))}


def safe_name(text: str, limit: int = 80) -> str:
    """A file name from a title or id: no separators, control characters, leading dots or device names; never empty."""
    if len(text) <= limit and _PLAIN_NAME.fullmatch(text) and text.lower().split(".")[0] not in _WINDOWS_DEVICES:
        return text  # as most ids are; what follows takes ten times as long
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
