"""A cast: which voice reads a character's lines, what is said between quotation marks, and all the rest.

`[Anna] Good evening.` is Anna's line, up to the next such tag or the end of the paragraph, where the cast has an Anna.
Other brackets are read as they stand.
"""

from __future__ import annotations

import json
import re
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from flowtts_core.errors import ConfigError, TextError
from flowtts_core.text.document import Chapter, Document, Role, Sentence, TextRow
from flowtts_core.text.marks import PLAIN, Manner, Marks, Turn, bare, cut, marks_in, without_holes
from flowtts_core.text.sentences import Pauses, collapse, split_paragraph

NARRATOR, DIALOGUE = "narrator", "dialogue"  # names that a cast file gives all the rest, and what is quoted
_TAG = re.compile(r"(?<!\S)\[(?P<name>[^\[\]\n:/]{1,60})\]:?[ \t]*(?=\S)")
_HEAD = re.compile(
    r"\[(?P<name>[^\W\d_a-z][\w .'’-]{0,40})\]:?[ \t]+(?=\S)"
)  # that may be a character's at a paragraph's head
_PARAGRAPH = re.compile(r"(?:(?!\n[^\S\n]*\n).)+", re.DOTALL)
# Speech ends with a mark inside its quotation marks, which a word that is only quoted does not: “so-called” friends.
_QUOTES = (
    re.compile(r"«[^«»]*»|»[^«»]*«|„[^„“”]*[“”]|「[^「」]*」|『[^『』]*』"),
    re.compile(r"“[^“”]*(?:”|\Z)"),
    re.compile(r'(?<![\w"])"(?=\S)[^"]*"(?!\w)'),
    re.compile(r"(?<!\w)‘(?:[^‘’]|(?<=\w)’(?=\w)|’(?=[^\W\d_]))*?[.,!?…—–-]’(?!\w)"),
    re.compile(r"(?<![\w'\"])'(?=[^\W\d_])(?:[^'\"]|(?<=\w)'(?=\w))*?[.,!?…—–-]'(?![\w'])"),
)
_ENDED = re.compile(r"[.,!?…—–;:-][\s*_]*[”\"’]?\Z")
_KEYS = {"voice", "speaker", "speed"}


def _key(name: str) -> str:
    """Return a character's name as it is looked up: case, runs of blanks and the form of apostrophes do not matter."""
    return " ".join(unicodedata.normalize("NFC", name).replace("’", "'").split()).casefold()


@dataclass(frozen=True)
class Cast:
    """Manners by the names of characters, in small letters.

    `narrator` reads all that is no character's; `dialogue`, where there is one, what is quoted in that.
    """

    roles: Mapping[str, Manner] = field(default_factory=dict)
    narrator: Manner = PLAIN
    dialogue: Manner | None = None

    def manner(self, name: str) -> Manner | None:
        """Return how a character speaks; None for a name that the cast lacks."""
        name = _key(name)
        return self.narrator if name == NARRATOR else self.roles.get(name)

    def __bool__(self) -> bool:
        return bool(self.roles) or self.narrator != PLAIN or self.dialogue is not None

    def to_json(self) -> list[Any]:
        """Return what its sound depends on."""
        return [sorted(self.roles.items()), self.narrator, self.dialogue]


def load_cast(path: str) -> Cast:
    """Read a cast file, JSON or TOML: names, each with `"VOICE"`, `"VOICE@SPEAKER"`, `"@SPEAKER"`, or a table.

    Such a table has voice, speaker or speed. Two names are not characters: `narrator` and `dialogue`, see `Cast`.

    Raises:
        ConfigError: for a file that cannot be read, and for an entry that is none; it names both.
    """
    try:
        text = Path(path).read_text("utf-8-sig")
        values = tomllib.loads(text) if path.lower().endswith(".toml") else json.loads(text)
    except (OSError, ValueError) as error:  # both parsers' errors are ValueErrors, and so is no UTF-8
        raise ConfigError(f"--cast {path}: cannot be read ({error})", 'write for instance {"Anna": "heart"}') from error
    if not isinstance(values, dict) or not values:
        raise ConfigError(f"--cast {path}: names nobody", 'write for instance {"Anna": "heart", "narrator": "natural"}')
    roles: dict[str, Manner] = {}
    for name, value in values.items():
        key = _key(name)
        if key in roles:
            raise ConfigError(f"--cast {path}: {name!r} is there twice", "capitals do not tell two names apart")
        roles[key] = _role(path, name, value)
    narrator, dialogue = roles.pop(NARRATOR, PLAIN), roles.pop(DIALOGUE, None)
    return Cast(roles, narrator, dialogue)


def _role(path: str, name: str, value: Any) -> Manner:
    given = {"voice": value} if isinstance(value, str) else value
    fits = isinstance(given, dict) and given and given.keys() <= _KEYS
    if not fits or not all(isinstance(given[key], str) and given[key].strip() for key in given.keys() - {"speed"}):
        raise ConfigError(
            f"--cast {path}: {name!r}: {value!r} is no voice"[:300],
            f'write "VOICE", "VOICE@SPEAKER", "@SPEAKER", or a table of {", ".join(sorted(_KEYS))}',
        )
    speed = given.get("speed", 1.0)
    if isinstance(speed, bool) or not isinstance(speed, int | float) or not 0.25 <= speed <= 4:
        raise ConfigError(f"--cast {path}: {name!r}: speed {speed!r}", "give a number from 0.25 to 4")
    voice = given.get("voice", "").strip() + (f"@{given['speaker'].strip()}" if "speaker" in given else "")
    return Manner(float(speed), voice or None)


class _Directed(NamedTuple):
    """A text's marks with the tags of a cast among the holes, and the manner from each place on."""

    marks: Marks
    turns: tuple[Turn, ...]
    bare: str  # of the same length, without marks and tags


def _directed(text: str, cast: Cast, headings: Sequence[tuple[int, int]] = ()) -> _Directed:
    marks = marks_in(text)
    taken = [*marks.holes, *((sub.start, sub.end) for sub in marks.subs)]
    tags = [m for m in _TAG.finditer(text) if cast.manner(m["name"]) is not None] if cast.roles else []
    lines = list(_lines(text, tags, cast))
    plain = bare(text)
    for tag in tags:
        plain = plain[: tag.start()] + " " * len(tag[0]) + plain[tag.end() :]
    quotes = [] if cast.dialogue is None else [q for q in _speech(plain) if not _within(q[0], headings)]
    under: list[tuple[int, int, Manner]] = [*lines]
    under += [(start, end, cast.dialogue) for start, end in quotes if cast.dialogue and not _touches(start, end, lines)]
    places = sorted({0, *(p for p, _ in marks.turns), *(p for start, end, _ in under for p in (start, end))})
    under.sort()
    turns, last = [], None
    for place in places:
        manner = _joined(cast, _at(marks.turns, place), _over(under, place) or cast.narrator)
        if manner != last:
            turns.append((place, manner))
        last = manner
    holes = tuple(sorted([*marks.holes, *(tag.span() for tag in tags if not _within(tag.start(), taken))]))
    return _Directed(replace(marks, holes=holes), tuple(turns), plain)


def _lines(text: str, tags: Sequence[re.Match[str]], cast: Cast) -> Iterator[tuple[int, int, Manner]]:
    """The stretches that tags give to characters."""
    if not tags:
        return
    ends = [match.end() for match in _PARAGRAPH.finditer(text)]
    for tag, following in zip(tags, [*(t.start() for t in tags[1:]), len(text)], strict=True):
        end = next(end for end in ends if end >= tag.end())
        manner = cast.manner(tag["name"])
        assert manner is not None
        yield tag.end(), min(end, following), manner


def _speech(text: str) -> list[tuple[int, int]]:
    """What is said in quotation marks, in order. A speech of several paragraphs is closed in the last alone."""
    found: list[tuple[int, int]] = []
    paragraphs = [match.span() for match in _PARAGRAPH.finditer(text)]
    for index, (start, end) in enumerate(paragraphs):
        part = text[start:end]
        goes_on = index + 1 < len(paragraphs) and text[paragraphs[index + 1][0] :].lstrip().startswith("“")
        own: list[tuple[int, int]] = []
        for pattern in _QUOTES:
            for match in pattern.finditer(part):
                closed = match[0][0] != "“" or match[0][-1] == "”"
                spoken = (closed or goes_on) and (
                    not closed or match[0][0] in "«»„「『" or _ENDED.search(match[0][:-1])
                )
                if spoken and not _touches(*match.span(), [(a, b, PLAIN) for a, b in own]):
                    own.append(match.span())
        found += [(start + a, start + b) for a, b in sorted(own)]
    return found


def _touches(start: int, end: int, spans: Sequence[tuple[int, int, Manner]]) -> bool:
    return any(low < end and start < high for low, high, _ in spans)


def _within(place: int, spans: Sequence[tuple[int, int]]) -> bool:
    return any(low <= place < high for low, high in spans)


def _at(turns: Sequence[Turn], place: int) -> Manner:
    return next((manner for start, manner in reversed(turns) if start <= place), PLAIN)


def _over(spans: Sequence[tuple[int, int, Manner]], place: int) -> Manner | None:
    return next((manner for low, high, manner in spans if low <= place < high), None)


def _joined(cast: Cast, marked: Manner, under: Manner) -> Manner:
    """The manner of marks over that of a tag, a quotation or the narrator; a mark may name a character."""
    if marked.voice is None:
        return Manner(marked.rate * under.rate, under.voice)
    role = cast.manner(marked.voice)
    return marked if role is None else Manner(marked.rate * role.rate, role.voice)


def direct(document: Document, cast: Cast | None = None, pauses: Pauses | None = None) -> Document:
    """Return a document whose sentences are cut where the voice or the rate turns and where a mark asks for a pause.

    A document without marks comes back as it is if there is no cast.

    Raises:
        TextError: for a mark that cannot be followed; it names the chapter and the line in it.
    """
    cast, pauses = cast or Cast(), pauses or Pauses()
    chapters, strangers = [], Counter[str]()
    for chapter in document.chapters:
        if not cast and bare(chapter.text) == chapter.text:
            chapters.append(chapter)
            continue
        try:
            chapters.append(_directed_chapter(chapter, cast, pauses))
        except TextError as error:
            raise TextError(f"chapter {chapter.title!r}, {error.message}", error.remedy) from error
        strangers.update(_strangers(chapter.text, cast))
    told = tuple(
        f"[{name}] begins {count} paragraph{'s' * (count > 1)} and is not in the cast: read as it stands"
        for name, count in strangers.items()
    )
    return replace(document, chapters=tuple(chapters), warnings=(*document.warnings, *told))


def _strangers(text: str, cast: Cast) -> Iterator[str]:
    """Names in the place of a tag that the cast lacks."""
    for paragraph in _PARAGRAPH.finditer(text) if cast.roles else ():
        match = _HEAD.match(paragraph[0].lstrip())
        if match and cast.manner(match["name"]) is None:
            yield match["name"]


def _directed_chapter(chapter: Chapter, cast: Cast, pauses: Pauses) -> Chapter:
    headings = [(s.start, s.end) for s in chapter.sentences if s.role == "heading"]
    marks, turns, plain = _directed(chapter.text, cast, headings)
    spans: list[tuple[int, int, float]] = []
    for sentence in chapter.sentences:  # which were cut with the tags in them
        inner = [
            (sentence.start + a, sentence.start + b) for a, b in split_paragraph(plain[sentence.start : sentence.end])
        ]
        spans += [(a, b, pauses.sentence) for a, b in inner[:-1]]
        spans += [(a, b, sentence.pause_s) for a, b in inner[-1:]]
    lead_s, parts = cut(plain, spans, turns, marks.pauses)
    sentences: list[Sentence] = []
    for part in parts:
        text = collapse(without_holes(chapter.text, marks, part.start, part.end))
        if lead_s and not sentences:
            text = f"[pause:{lead_s:g}s] {text}"
        role: Role = "heading" if _within(part.start, headings) else "sentence"
        rate = round(part.manner.rate, 4)
        sentences.append(Sentence(text, part.start, part.end, role, part.pause_s, part.manner.voice, rate))
    return replace(chapter, sentences=tuple(sentences))


def directed_text(text: str, cast: Cast) -> str:
    """Return a text of a request with marks in the place of the cast's tags and quotations.

    Raises:
        TextError: for a mark that cannot be followed.
    """
    marks, turns, _ = _directed(text, cast)
    kept = tuple(hole for hole in marks.holes if hole[0] not in {place for place, _ in marks.pauses})
    marks, pieces = replace(marks, holes=kept), []
    for (place, manner), end in zip(turns, [*(place for place, _ in turns[1:]), len(text)], strict=True):
        piece = without_holes(text, marks, place, end)
        if not piece.strip():
            continue
        pieces.append(_marked(piece, manner))
    return "".join(pieces)


def directed_row(row: TextRow, cast: Cast) -> TextRow:
    """Return a row of a table as the cast speaks it: a row of one character takes its voice and speed, any other has marks.

    A mark that cannot be followed stays, to be told with its row.
    """
    if row.settings.get("input_type") == "ssml":
        return row
    row = _with_tag(row, cast)
    try:
        marks, turns, _ = _directed(row.text, cast)
        alone = {m for (a, m), b in zip(turns, [*(t[0] for t in turns[1:]), len(row.text)], strict=True)
                 if without_holes(row.text, marks, a, b).strip()}  # fmt: skip
        if len(alone) != 1 or marks.pauses:
            return replace(row, text=directed_text(row.text, cast))
    except TextError:
        return row
    [manner] = alone
    settings = row.settings if manner.rate == 1.0 else {"speed": manner.rate, **row.settings}
    text = without_holes(row.text, marks, 0, len(row.text)).strip()
    return replace(row, text=text, voice=row.voice or manner.voice, settings=settings)


def _with_tag(row: TextRow, cast: Cast) -> TextRow:
    """Return a row with the tag of the character who says it, as its file tells, where the cast has one."""
    if not row.character:
        return row
    known = cast.roles and cast.manner(row.character) is not None and _TAG.match(f"[{row.character}] x")
    return replace(row, text=f"[{row.character}] {row.text}" if known else row.text, character="")


def _marked(text: str, manner: Manner) -> str:
    before, inner, after = text[: len(text) - len(text.lstrip())], text.strip(), text[len(text.rstrip()) :]
    if manner.rate != 1.0:
        inner = f"[rate:{manner.rate:.4g}]{inner}[/rate]"
    if manner.voice is not None:
        inner = f"[voice:{manner.voice}]{inner}[/voice]"
    return f"{before}{inner}{after}"
