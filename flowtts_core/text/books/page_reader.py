"""Walk one page of a book and make passages of it: what is read aloud, what is left out, and where its anchors are."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Set
from dataclasses import replace

from lxml import etree

from flowtts_core.text.books import note_marks, pictures
from flowtts_core.text.books.hidden import Hidden
from flowtts_core.text.books.initials import begins_with_initial, begins_word, closes_initial, joins_initial
from flowtts_core.text.books.page import Page, Passage, clean, names, tag_of, text_of, types_of
from flowtts_core.text.sentences import Block

_BLOCKS = names(
    "address article aside blockquote body caption center dd details div dl dt fieldset figcaption figure footer form "
    "h1 h2 h3 h4 h5 h6 header hgroup li main nav ol p pre section summary table tbody tfoot thead tr ul"
)
_UNSEEN = names("head script style template title")
_NOT_READ = {
    **dict.fromkeys(("audio", "iframe", "object", "video"), "words in place of media"),
    **dict.fromkeys(("button", "input", "option", "select", "textarea"), "buttons and fields"),
    **dict.fromkeys(("rp", "rt", "rtc"), "readings beside characters"),
    "del": "deleted text",
    "svg": "drawings",
}
_SPACE = re.compile(r"\s+")
_MARK_CLASS = re.compile("sup(?!p)|note|fn|foot", re.IGNORECASE)  # "superscript", "_idFootnoteLink", but not "support"
_MARK_STYLE = re.compile(r"vertical-align:\s*super", re.IGNORECASE)
_SUP_CLASSES = names("sup super superscript")
_NOTEREF_CLASSES = names("noteref footnote-ref footnoteref fnanchor fnref endnote-ref endnoteref")
_PAGE_CLASSES = names("pagenum pageno pagenumber page-number pagebreak")
_STANZA_CLASSES = names("lg linegroup stanza verse")
_LINE_CLASSES = names("l line poem-line poemline verse-line verseline")
_STRONG_CLASS = re.compile(r"bold|chap|head|title", re.IGNORECASE)
_BACKLINKS = names("↩ ↩︎ ↑ ^ ⏎ return back")
_SUPERSCRIPT = str.maketrans("0123456789+-n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ")
_NOTE_MARKS, _PAGE_NUMBERS, _HIDDEN, _BACK = (
    "note marks",
    "page numbers",
    "hidden by its style",
    "links back from notes",
)


def _letters(text: str) -> str:
    return "".join(character for character in unicodedata.normalize("NFKC", text) if character.isalnum())


def _inline(element: etree._Element) -> bool:
    return isinstance(element.tag, str) and tag_of(element) not in _BLOCKS


def _is_line(element: etree._Element | None) -> bool:
    """Return whether an element is a line of verse by its class."""
    if element is None or not isinstance(element.tag, str) or tag_of(element) not in _BLOCKS:
        return False
    return bool(set((element.get("class") or "").lower().split()) & _LINE_CLASSES)


def _follows(element: etree._Element) -> str:
    """Return the text after an element in its block."""
    parts: list[str] = [element.tail or ""]
    here = element
    while here is not None:
        following = here.getnext()
        while following is not None and _inline(following):
            if tag_of(following) == "br":
                return "".join(parts)
            parts += ["".join(following.itertext()), following.tail or ""]
            following = following.getnext()
        parent = here.getparent()
        if following is not None or parent is None or not _inline(parent):
            return "".join(parts)
        parts.append(parent.tail or "")
        here = parent
    return "".join(parts)


def _is_wrapped(lines: list[str]) -> bool:
    """Return whether the line breaks of a block only wrap prose: long lines, after most of which a sentence goes on in small."""
    goes_on = sum(b[:1].islower() and not a.endswith((".", "!", "?")) for a, b in zip(lines, lines[1:], strict=False))
    return sum(map(len, lines[:-1])) > 45 * (len(lines) - 1) and 2 * goes_on > len(lines) - 1


class PageReader:
    """Walks a body once, with an explicit stack instead of recursion, and fills a `Page`."""

    def __init__(self, page: Page, hidden: Hidden) -> None:
        self.page = page
        self.hidden = hidden
        self.pending: list[str] = []
        self.left: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.types: list[set[str]] = []
        self.levels: list[int] = [0]
        self.initial = ""  # a letter that stood alone in a block, as the picture of a drop cap does
        self.after_initial = False  # a drop cap was left, and no text has come since
        self.titled = 0  # depth of a heading whose words are those of its picture
        self.links = self.linked = 0  # depth of links, and characters in them
        self.bold = self.strong = 0
        self.cells = 0
        self.rows = 0
        self.stanzas = 0
        self.verbatim = 0
        self.code = False  # the block has code in it, where "a[1]" is no note
        self.words: Set[str] = frozenset()

    def read(self, body: etree._Element) -> None:
        self.words = frozenset(re.findall(r"[^\W\d_]+", "".join(body.itertext()).casefold()))
        todo: list[tuple[etree._Element, bool]] = [(body, True)]
        while todo:
            element, entering = todo.pop()
            if not entering:
                self.leave(element)
            elif not isinstance(element.tag, str):
                pass
            elif element is not body and (reason := self.reason_to_skip(element)) is not None:
                self.note_anchor(element)
                self.leave_out(reason, text_of(element))
            else:
                self.enter(element)
                self.text(element.text)
                todo.append((element, False))
                todo.extend((child, True) for child in reversed(element))
                continue
            if element is not body:
                self.text(element.tail)
        self.flush()
        if self.initial:
            self.add(self.initial)
        if self.left and self.page.passages:
            last = self.page.passages[-1]
            self.page.passages[-1] = replace(last, left_out=last.left_out + tuple(self.left))
        elif self.left:
            self.page.left_out += self.left

    def leave_out(self, reason: str, text: str) -> None:
        if reason and any(character.isalnum() for character in text):
            self.left.append((reason, text))

    def reason_to_skip(self, element: etree._Element) -> str | None:
        """Return why an element is not read, "" for what nobody sees or what is read otherwise, None for what is read."""
        tag = tag_of(element)
        if tag in _UNSEEN:
            return ""
        if self.hidden(element):
            return _HIDDEN
        if tag in ("img", "image"):
            self.image(element)
            return ""
        if tag == "math":
            self.formula(element)
            return ""
        if tag in _NOT_READ:
            return _NOT_READ[tag]
        types = types_of(element)
        classes = set((element.get("class") or "").lower().split())
        if "pagebreak" in types or classes & _PAGE_CLASSES:
            return _PAGE_NUMBERS
        if "backlink" in types:
            return _BACK
        if tag == "a":
            return self.note_link(element, types, classes)
        raised = tag == "sup" or (tag == "span" and bool(classes & _SUP_CLASSES))
        if not raised or (element.tail or "").startswith(("/", "⁄")):  # "1/2" is a fraction
            return None
        if self.is_note_sup(element):
            return _NOTE_MARKS
        return "" if self.power(element) else None

    def image(self, image: etree._Element) -> None:
        """Read the description of an image that stands for words: a formula, a drop cap, a word in a line."""
        words = pictures.description(image)
        if not words or self.titled:
            return
        letter = len(words) == 1 and words.isalpha()
        after = _follows(image)
        if letter and not self.has_text():
            self.pending.append(words)
            self.after_initial = True
        elif pictures.stands_for_words(image, self.before(), after):
            gap = "" if not self.before()[-1:].isalnum() else " "
            self.pending.append(f"{gap}{words}{' ' if after[:1].isalnum() else ''}")
        else:
            self.leave_out("pictures", words)

    def formula(self, math: etree._Element) -> None:
        words = pictures.formula(math)
        self.pending.append(words)
        inner = " ".join("".join(e.text or "" for e in math.iter() if not tag_of(e).startswith("annotation")).split())
        if _letters(inner) != _letters(words):
            self.leave_out("formulas that are read in the author's words", inner)

    def note_link(self, element: etree._Element, types: set[str], classes: set[str]) -> str | None:
        href = element.get("href") or ""
        label = clean("".join(element.itertext()))
        if "noteref" in types or classes & _NOTEREF_CLASSES:
            self.target(href)
            return _NOTE_MARKS
        if "#" not in href:
            return None
        if label in _BACKLINKS:
            return _BACK
        raised = any(tag_of(e) == "sup" for e in element.iter()) or tag_of(element.getparent()) == "sup"
        mark = note_marks.is_label(label) and (raised or note_marks.is_bracketed(label))
        if mark or (note_marks.is_plain_label(label) and self.stands_as_mark(element)):
            self.target(href)
            return _NOTE_MARKS
        return None

    def stands_as_mark(self, element: etree._Element) -> bool:
        """Return whether a linked number is a note mark, by its class, its style or its position."""
        if any("toc" in types for types in self.types):
            return False
        nodes = list(element.iter())
        parent = element.getparent()
        while parent is not None and tag_of(parent) not in _BLOCKS:
            nodes.append(parent)
            parent = parent.getparent()
        return (
            any(_MARK_CLASS.search(e.get("class") or "") for e in nodes)
            or any(_MARK_STYLE.search(e.get("style") or "") for e in nodes)
            or note_marks.hangs_as_note(self.before())
        )

    def before(self) -> str:
        """Return the end of the text before this place in its block."""
        return note_marks.INVISIBLE.sub("", "".join(part[-80:] for part in self.pending[-12:]))[-80:]

    def is_note_sup(self, element: etree._Element) -> bool:
        label = clean("".join(element.itertext()))
        if not note_marks.is_label(label):
            return False
        links = [a for a in element.iter() if tag_of(a) == "a" and "#" in (a.get("href") or "")]
        for link in links:
            self.target(link.get("href"))
        return bool(links) or note_marks.raised_as_note(label, self.before())

    def power(self, element: etree._Element) -> bool:
        """Keep a raised number raised ("10²"): joined to its base it would be another number."""
        label = clean("".join(element.itertext()))
        if not label or set(label) - set("0123456789+-n"):
            return False
        self.pending.append(label.translate(_SUPERSCRIPT))
        return True

    def target(self, href: str) -> None:
        # A mark at the start of its block is the note's own number, linked back to the text.
        if href and self.has_text():
            self.page.note_hrefs.setdefault(href, len(self.page.passages))

    def has_text(self) -> bool:
        return any(part.strip() for part in self.pending)

    def note_anchor(self, element: etree._Element) -> None:
        for name in {element.get("id"), element.get("name") if tag_of(element) == "a" else None} - {None, ""}:
            self.page.anchors.setdefault(name, len(self.page.passages))
            if not self.has_text():
                self.ids.append(name)

    def enter(self, element: etree._Element) -> None:
        tag = tag_of(element)
        if tag in _BLOCKS:
            self.part(_is_line(element) and _is_line(element.getprevious()))
            self.types.append(types_of(element))
            self.levels.append(self.level(element, tag))
            self.title(element)
        elif self.levels[-1]:
            self.break_title(element)
        if tag in ("td", "th"):
            if self.has_text():
                self.pending = ["".join(self.pending).rstrip(), ", " if self.cells == 0 else " "]
            self.cells += 1
        self.count(element, tag, 1)
        self.note_anchor(element)
        if tag == "br":
            self.pending.append(" " if self.cells else "\n")
        elif tag == "hr":
            self.flush()
            self.scene_break()

    def count(self, element: etree._Element, tag: str, by: int) -> None:
        """Keep the depths of elements that change how text is taken."""
        classes = element.get("class") or ""
        self.rows += by * (tag == "tr")
        self.verbatim += by * (tag == "pre")
        self.code = self.code or tag in ("code", "kbd", "samp", "tt")
        self.stanzas += by * (tag in _BLOCKS and bool(set(classes.lower().split()) & _STANZA_CLASSES))
        self.links += by * (tag == "a" and bool(element.get("href")) and "://" not in (element.get("href") or ""))
        self.bold += by * (
            tag in ("b", "strong") or (tag in ("p", "span", "div") and bool(_STRONG_CLASS.search(classes)))
        )

    def title(self, heading: etree._Element) -> None:
        """Give a heading that is only a picture the words of its description, or of its title."""
        if not self.levels[-1] or self.titled or text_of(heading):
            return
        images = [e for e in heading.iter() if tag_of(e) in ("img", "image")]
        words = " ".join(filter(None, map(pictures.description, images))) or (
            heading.get("title") or "" if images else ""
        )
        if words:
            self.pending.append(words)
            self.titled = len(self.levels)
        elif images:
            self.page.wordless.add(len(self.page.passages))

    def break_title(self, element: etree._Element) -> None:
        """Part the number and the title of a heading, which styles set apart: <span>2</span><span>The Mill</span>."""
        previous = element.getprevious()
        if previous is None or not isinstance(previous.tag, str) or previous.tail or not self.has_text():
            return
        before, after = self.before()[-1:], "".join(element.itertext())[:1]
        if (before.isdigit() and after.isalpha() and not after.islower()) or (before.islower() and after.isupper()):
            self.pending.append("\n")

    def level(self, element: etree._Element, tag: str) -> int:
        if re.fullmatch("h[1-6]", tag):
            return int(tag[1])
        types = self.types[-1]
        if "heading" in types or (tag == "p" and (types & {"title", "subtitle"} or "ordinal" in types)):
            declared = element.get("aria-level") or "6"
            return min(max(int(declared), 1), 6) if declared.isdigit() else 6
        if tag == "hgroup":
            return next((int(tag_of(h)[1]) for h in element.iter() if re.fullmatch("h[1-6]", tag_of(h))), 6)
        return self.levels[-1]

    def leave(self, element: etree._Element) -> None:
        tag = tag_of(element)
        self.cells -= tag in ("td", "th")
        if tag in _BLOCKS:
            # while the element's own counts still hold: they tell how its text is taken
            stanza = bool(set((element.get("class") or "").lower().split()) & _STANZA_CLASSES)
            self.stanzas -= stanza
            self.part(_is_line(element) and _is_line(element.getnext()))
            self.stanzas += stanza
            self.titled = 0 if self.titled == len(self.levels) else self.titled
            self.types.pop()
            self.levels.pop()
        elif closes_initial(element, "".join(self.pending)):
            self.after_initial = True
        self.count(element, tag, -1)

    def text(self, text: str | None) -> None:
        if not text:
            return
        text = text if self.verbatim else _SPACE.sub(" ", text)
        if self.rows and not self.cells and not text.strip():
            return  # white space between cells
        if self.after_initial:
            if not text.strip():
                self.pending.append(text)
                return
            self.after_initial = False
            if joins_initial("".join(self.pending), text):
                self.pending = ["".join(self.pending).rstrip()]
                text = text.lstrip()
        self.pending.append(text)
        seen = sum(character.isalpha() for character in text)
        self.linked += seen if self.links else 0
        self.strong += seen if self.bold else 0

    def part(self, goes_on: bool) -> None:
        """Begin a new block, but in a table's cell add only a space, and within a stanza a line."""
        if self.cells:
            self.pending.append(" ")
        elif (goes_on or self.stanzas) and self.has_text():
            self.pending.append("\n")
        else:
            self.flush()

    def scene_break(self) -> None:
        passages = self.page.passages
        if passages:
            passages[-1] = replace(passages[-1], block=replace(passages[-1].block, scene_break=True))

    def flush(self) -> None:
        text = clean("".join(self.pending))
        if not self.verbatim and not self.code:
            text, typed = note_marks.without_typed_marks(text)
            for mark in typed:
                self.leave_out(_NOTE_MARKS, mark)
        initial, self.pending, self.after_initial, self.code = self.after_initial, [], False, False
        linked, strong, self.linked, self.strong = self.linked, self.strong, 0, 0
        if not text:
            return
        if not any(character.isalnum() for character in text):
            self.scene_break()  # "* * *" and the like
            return
        if self.initial:
            letter, self.initial = self.initial, ""
            if begins_word(letter, text, self.words):
                text = letter + text
            else:
                self.add(letter)
        if begins_with_initial(text, initial) and not self.levels[-1]:
            self.initial = text  # the next block may be the rest of its word
            return
        lines = text.split("\n")
        if len(lines) > 1 and not self.levels[-1] and not self.verbatim and _is_wrapped(lines):
            text = " ".join(lines)
        self.add(text, linked, strong)

    def add(self, text: str, linked: int = 0, strong: int = 0) -> None:
        types = frozenset(word for words in self.types for word in words)
        seen = max(1, sum(character.isalpha() for character in text))
        passage = Passage(
            Block(text, self.levels[-1]), types, tuple(self.ids), linked / seen, strong >= seen, tuple(self.left)
        )
        self.page.passages.append(passage)
        self.ids, self.left = [], []
