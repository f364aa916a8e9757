"""Paragraphs to sentences: exact offsets, every visible character in exactly one sentence, and the pause after each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from syntok import segmenter

from flowtts_core.text.books.headings import full_title
from flowtts_core.text.document import Chapter, Role, Sentence
from flowtts_core.text.english.expand_common import MONTH, is_number_sign, is_street
from flowtts_core.text.english.wordlists import BEFORE_NAME, BEFORE_NUMBER, MAY_END, SCRIPTURE, STARTERS
from flowtts_core.text.german import sentences as german
from flowtts_core.text.given_phonemes import as_words
from flowtts_core.text.marks import bare


@dataclass(frozen=True)
class Pauses:
    """Silence in seconds after a sentence, a paragraph's end, a heading, before a new scene, and after a line of verse."""

    sentence: float = 0.35
    paragraph: float = 0.7
    heading: float = 1.2
    scene_break: float = 1.5
    line: float = 0.2


@dataclass(frozen=True)
class Block:
    """A paragraph, verse stanza, list item, table row or heading, as a reader hands it on.

    Attributes:
        text: cleaned; single spaces, and a line feed only where the line break means something (verse, addresses).
        level: 0 for a paragraph, 1 to 6 for a heading.
        scene_break: a longer pause follows (a rule or a row of stars stood here).
        note: a footnote or endnote.
    """

    text: str
    level: int = 0
    scene_break: bool = False
    note: bool = False


# What the splitter must not see: it would split or fail there. Each is replaced by ONE character, so offsets stay true.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_STARTER = rf"(?:{'|'.join(sorted(STARTERS))})\b(?!\.)"
_UNITS = "mins?|hrs?|secs?|mi|lbs?|oz|ft|yds?|km|kg|cm|mm"
# Ends the splitter reads as going on: "He waited… Then", "It costs $3.50. See" (not the "1." that opens a list item),
# "Plan C. It works" (not the "J. R." of a name), "in D.C. He left", "20 min. Then", "(1990). It is", "x.com. Then".
_MORE_ENDS = re.compile(
    r"(?:\bI[?!][\"'’”)\]]*|…[\"'’”)\]]*|(?<=\s)[^\s\w]?\d[\d.,:]*\.[\"'’”)\]]*)\s+(?=[\"'‘“(\[]?[A-Z](?:[a-z]|\s))"
    rf"|(?:(?<=\w\s)[A-Z]|\b(?:St|Dr|Ave|Blvd|Rd|[ap]\.m|[A-Z][a-z]?\.[A-Z]|(?<=\d\s)(?:{_UNITS})))\.[\"'’”)\]]*\s+(?=[\"'‘“(\[]?{_STARTER})"
    r"|(?<=\d\)\.)\s+(?=[A-Z][a-z])|(?<=\.(?:com|org|net|edu|gov)\.)\s+(?=[A-Z][a-z])"
)
# The splitter knows no end without a space after it. A quotation that is told goes on: 「行く。」と言った
_JAPANESE_ENDS = re.compile(
    r"[。！？｡][。！？｡!?…]*+(?:[」』）”’\"\])》〉】]+(?![とっ、]))?(?![」』）”’\"\])》〉】])\s*"
)
# The splitter may part a full stop from the bracket before it: "(so far off) | . 'Oh'".
_STRAY_END = re.compile(r"[.,;:!?)\]…]+[\"'’”)\]]*(?=\s|$)")
# The word with a full stop that ends the text before; no abbreviation is longer than what is looked at.
_LAST = re.compile(r"(?:^|[\s(\"'‘“—-])([A-Z]|[A-Za-z][A-Za-z]{1,6})\.$")
_LONGEST_LAST = 12
_STARTS = re.compile(rf"[\"'‘“(\[]*{_STARTER}")
_NUMBER = re.compile(r"\W?\d|(?:[IVXLC]{2,}|[VX])\b|I\b(?! [a-z])")
_VERSE = re.compile(r"\d{1,3}:\d")
_NUMBERED_BOOK = re.compile(r"(?<!\w)(?:[1-3]|I{1,3}) \w+\.\Z")  # of scripture: 1 Sam.
# "on 5. Nov 2020", "the 5. November"; but "They were 5. November came."
_DAY = re.compile(r"(?P<dated>\b(?:on|the|of|from|since|until|till|by|to)\s)?(?<![\d.,])\d{1,2}\.\Z", re.IGNORECASE)
_IN_MONTH = re.compile(rf"{MONTH}\b(?P<year>\.?\s\d{{4}}\b)?")
_OLD_MONEY = re.compile(r"\d[ls]\.\Z"), re.compile(r"\d+[sd]\b")  # £3 6s. | 8d.
_TIME = re.compile(r"(?:\d|\ba|\bone)\s?sec\.\Z", re.IGNORECASE)  # which may end a sentence, as "see sec. 3" does not
_ITEM = re.compile(r"\(?\d{1,3}[.)]")  # the number of a list's item is no sentence: 1. Eggs. 2. Milk.
_FIRST_WORD = re.compile(r"[^\W_]")
_SHORT_LINE = 16  # characters of a line of verse that is not spoken apart, unless a mark ends it


def _both_cases(words: Iterable[str]) -> frozenset[str]:
    """The abbreviations, and as they stand in capitals: Mr, MR."""
    return frozenset(words) | {word.upper() for word in words if word[:1].isupper()}


_NAME_FOLLOWS = _both_cases(BEFORE_NAME)
_NAME_MAY_FOLLOW = _both_cases(MAY_END)
_NUMBER_MAY_FOLLOW = _both_cases(
    {
        *BEFORE_NUMBER,
        *SCRIPTURE,
        *"Ch Hwy Vol ch vol vols ed eds ft approx est Est Jan Feb Apr Aug Sept Sep Oct Nov Dec".split(),
    }
    - {"no", "art", "c", "v", "l"}
)


def split_paragraph(text: str) -> list[tuple[int, int]]:
    """Spans `(start, end)` of the sentences of one paragraph, in order, without the white space between them.

    Any string will do (control characters, lone surrogates, no letters at all); together the spans hold every character
    that is not white space. A span without a letter or digit is joined to its neighbour: it cannot be spoken alone.
    """
    if not text.strip():
        return []
    text = as_words(bare(text))  # no sentence ends within phonemes or marks
    safe = _UNSAFE.sub(" ", text)
    starts = sorted({0, *_starts(safe)})
    spans: list[tuple[int, int]] = []
    speakable = False  # whether the last of them is
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        piece = text[start:end]
        if not piece.strip():
            continue
        start, end = start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
        stray = _STRAY_END.match(text, start, end)
        if spans and stray:
            spans[-1] = (spans[-1][0], stray.end())
            start += len(text[start:end]) - len(text[stray.end() : end].lstrip())
        if start >= end:
            continue
        speaks = _speakable(text[start:end])
        if spans and (not speakable or not speaks or _continues(text, spans[-1], start, end)):
            spans[-1] = (spans[-1][0], end)
            speakable = speakable or speaks
        else:
            spans.append((start, end))
            speakable = speaks
    return spans


def _starts(safe: str) -> Iterable[int]:
    for paragraph in segmenter.analyze(safe):
        for tokens in paragraph:
            if tokens:
                yield min(max(tokens[0].offset, 0), len(safe))
    for pattern in (_MORE_ENDS, _JAPANESE_ENDS):
        yield from (match.end() for match in pattern.finditer(safe))


def _continues(text: str, before: tuple[int, int], start: int, end: int) -> bool:
    """Whether `text[start:end]` belongs to the sentence `before` in spite of the splitter."""
    if _ITEM.fullmatch(text, before[0], before[1]):
        return True
    first = _FIRST_WORD.search(text, start, end)
    if first is not None and first.group().islower():
        quoted = text[start] in "\"'‘“"
        if not quoted or re.search(r"[,;:—-][\"'’”)\]]*$", text[max(before[0], before[1] - _LONGEST_LAST) : before[1]]):
            return True  # 'Yes!' he said. / 'Yes,' he said; 'and no.'
    last = _LAST.search(text[max(before[0], before[1] - _LONGEST_LAST) : before[1]])
    if last is not None and _goes_on(text, before, last.group(1), start):
        return True
    if _is_date(text, before, start) or _is_old_money(text, before, start):
        return True
    return german.goes_on(text, before[1] - 1, start)


def _goes_on(text: str, before: tuple[int, int], word: str, start: int) -> bool:
    """Whether the sentence goes on at `start` after `word`, which a full stop follows."""
    begins = _STARTS.match(text, start) is not None
    dot = before[1] - 1
    if len(word) == 1:
        named = re.fullmatch(r"\w\s", text[max(before[0], dot - 3) : dot - 1]) is not None
        return word != "I" and not (named and begins)  # "Plan C. It works.", not "C. Then" that opens a list item
    if word in ("No", "NO"):
        return is_number_sign(text, dot - 2, dot + 1)
    if word in ("St", "Dr", "ST", "DR"):
        return not is_street(text, dot - 2, dot + 1)
    if word in _NAME_FOLLOWS or word in ("Vol", "Fig", "pp", "Nos"):
        return True
    if word == "sec" and _TIME.search(text, before[0], before[1]):
        return False
    if word in _NAME_MAY_FOLLOW:
        return not begins
    if word in SCRIPTURE and _VERSE.match(text, start):
        return True
    book = word in SCRIPTURE and _NUMBERED_BOOK.search(text, before[0], before[1]) is not None
    return (book or word in _NUMBER_MAY_FOLLOW) and _NUMBER.match(text, start) is not None


def _is_date(text: str, before: tuple[int, int], start: int) -> bool:
    """Return whether a day with a full stop ends the sentence before, and its month begins at `start`."""
    month = _IN_MONTH.match(text, start)
    day = month and _DAY.search(text, max(before[0], before[1] - _LONGEST_LAST), before[1])
    return bool(month and day and (month["year"] or day["dated"]))


def _is_old_money(text: str, before: tuple[int, int], start: int) -> bool:
    """Return whether pounds or shillings end the sentence before, and shillings or pence begin at `start`."""
    larger, smaller = _OLD_MONEY
    return bool(larger.search(text, before[0], before[1]) and smaller.match(text, start))


def _speakable(text: str) -> bool:
    return any(character.isalnum() for character in text)


def collapse(text: str) -> str:
    """The text with each run of white space as one space."""
    return " ".join(text.split())


def split_sentences(text: str, pauses: Pauses | None = None) -> tuple[Sentence, ...]:
    """The sentences of a plain text; blank lines part paragraphs.

    Returns:
        sentences in order; `text[s.start:s.end]` with white space collapsed is `s.text`, and every character of `text`
        that is not white space lies in exactly one. A sentence of any length is left whole.
    """
    pauses = pauses or Pauses()
    out: list[Sentence] = []
    for match in _paragraphs(text):
        out += _sentences(text, match[0], match[1], 0, pauses.paragraph, pauses)
    return tuple(out)


def _paragraphs(text: str) -> list[tuple[int, int]]:
    spans, start = [], 0
    for blank in re.finditer(r"\n[^\S\n]*\n", text):
        spans.append((start, blank.start()))
        start = blank.end()
    return [span for span in [*spans, (start, len(text))] if text[slice(*span)].strip()]


def _sentences(text: str, start: int, end: int, level: int, last_pause: float, pauses: Pauses) -> list[Sentence]:
    """Sentences of `text[start:end]`; the last one gets `last_pause`. A heading is one sentence per line."""
    part = text[start:end]
    spans = _lines(part) if level else split_paragraph(part)
    role: Role = "heading" if level else "sentence"
    return [
        Sentence(collapse(part[a:b]), start + a, start + b, role, pauses.sentence if i < len(spans) - 1 else last_pause)
        for i, (a, b) in enumerate(spans)
    ]


def _lines_of_verse(part: str, sentences: list[Sentence], start: int, pauses: Pauses) -> list[Sentence]:
    """Cut sentences of the block `part`, at `start` of its chapter, at its line feeds, with a short pause after each line.

    A line of few letters without a mark at its end is joined to the next.
    """
    out: list[Sentence] = []
    for sentence in sentences:
        end = sentence.end - start
        cuts = [sentence.start - start]
        for feed in re.finditer(r"\s*\n\s*", part[:end]):
            line, rest = part[cuts[-1] : feed.start()], part[feed.end() : end]
            whole = len(line) >= _SHORT_LINE or re.search(r"[,;:.!?—–…][\"'’”)]*$", line)
            if feed.start() > cuts[-1] and whole and _speakable(line) and _speakable(rest):
                cuts.append(feed.end())
        for index, (a, b) in enumerate(zip(cuts, [*cuts[1:], end], strict=True)):
            text = part[a:b].rstrip()
            pause = sentence.pause_s if index == len(cuts) - 1 else pauses.line
            out.append(
                replace(sentence, text=collapse(text), start=start + a, end=start + a + len(text), pause_s=pause)
            )
    return out


def _lines(part: str) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for match in re.finditer(r"[^\n]+", part):
        line = match.group()
        if not line.strip():
            continue
        span = (match.start() + len(line) - len(line.lstrip()), match.start() + len(line.rstrip()))
        if spans and (not _speakable(line) or not _speakable(part[slice(*spans[-1])])):
            spans[-1] = (spans[-1][0], span[1])
        else:
            spans.append(span)
    return spans


def build_chapter(title: str, blocks: Iterable[Block], pauses: Pauses | None = None) -> Chapter:
    """A chapter of `blocks`: its text (blocks parted by a blank line) and sentences with pauses."""
    pauses = pauses or Pauses()
    parts: list[str] = []
    sentences: list[Sentence] = []
    placed: list[tuple[int, Block]] = []
    offset = 0
    for block in blocks:
        if not block.text.strip():
            continue
        placed.append((offset, block))
        parts.append(block.text)
        offset += len(block.text) + 2
    text = "\n\n".join(parts)
    for start, block in placed:
        pause = pauses.heading if block.level else pauses.paragraph
        if block.scene_break:
            pause = max(pause, pauses.scene_break)
        found = _sentences(text, start, start + len(block.text), block.level, pause, pauses)
        is_verse = (
            not block.level and "\n" in block.text and bare(block.text) == block.text
        )  # marks may hold several lines
        sentences += _lines_of_verse(block.text, found, start, pauses) if is_verse else found
    return Chapter(title, text, tuple(sentences))


@dataclass
class Draft:
    """A chapter in the making.

    Attributes:
        title: as in the book; `parent` is the part it stands in, "" for none.
        divider: holds chapters of its own (a part); its heading alone is read at the head of the first of them.
    """

    title: str
    blocks: list[Block] = field(default_factory=list)
    parent: str = ""
    divider: bool = False


def finish_chapters(
    drafts: list[Draft], pauses: Pauses | None = None, *, notes_last: bool = False
) -> tuple[tuple[Chapter, ...], list[str]]:
    """Chapters of the drafts, and a warning for each that is empty and left out; `notes_last` puts notes at a chapter's end.

    A title that says little alone ("I", "Chapter 2" in each part) gets its part's before it ("Part Two: I").
    """
    kept: list[Draft] = []
    carried: list[Block] = []
    warnings: list[str] = []
    for draft in drafts:
        prose = any(not block.level and block.text.strip() for block in draft.blocks)
        if not prose and draft.divider and draft.blocks:
            carried += draft.blocks
        elif not prose:
            warnings.append(f"chapter {draft.title!r} holds no text{_lost(draft.blocks, draft.title)}: left out")
        else:
            kept.append(Draft(draft.title, carried + draft.blocks, draft.parent))
            carried = []
    if carried:
        warnings.append(f"heading {collapse(' '.join(b.text for b in carried))!r} has no text after it: left out")
    titles = Counter(draft.title for draft in kept)
    named = [full_title(draft.title, draft.parent, titles[draft.title] > 1) for draft in kept]
    order = _notes_last if notes_last else list
    return tuple(build_chapter(name, order(d.blocks), pauses) for name, d in zip(named, kept, strict=True)), warnings


def _notes_last(blocks: list[Block]) -> list[Block]:
    notes = [block for block in blocks if block.note]
    text = [block for block in blocks if not block.note]
    return [*text, Block("Notes", level=2), *notes] if notes and text else blocks


def _lost(blocks: list[Block], title: str) -> str:
    """Say what headings are lost with an empty chapter, where its title does not say it."""
    text = collapse(" ".join(block.text for block in blocks))
    return f" but {text!r}" if text and text.casefold() not in title.casefold() else ""
