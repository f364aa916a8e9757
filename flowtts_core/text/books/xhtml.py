"""Parse one XHTML page of a book into blocks of text: what is read aloud, what is left out, and where its anchors are."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from html.entities import html5

from lxml import etree
from lxml import html as lxml_html

from flowtts_core.text.books import note_marks, pictures
from flowtts_core.text.books.decode import decode_markup, mend
from flowtts_core.text.books.hidden import Hidden
from flowtts_core.text.books.initials import begins_with_initial, closes_initial, joins_initial
from flowtts_core.text.sentences import Block


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BLOCKS = _words(
    "address article aside blockquote body caption center dd details div dl dt fieldset figcaption figure footer form "
    "h1 h2 h3 h4 h5 h6 header hgroup li main nav ol p pre section summary table tbody tfoot thead tr ul"
)
_UNSEEN = _words("head script style template title")
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
_SUP_CLASSES = _words("sup super superscript")
_NOTEREF_CLASSES = _words("noteref footnote-ref footnoteref fnanchor fnref endnote-ref endnoteref")
_PAGE_CLASSES = _words("pagenum pageno pagenumber page-number pagebreak")
_NOTE_CLASSES = _words(
    "footnote footnotes endnote endnotes rearnote rearnotes _idfootnote _idfootnotes _idendnote _idendnotes"
)
_TRANSCRIBER_CLASSES = _words(
    "tnote tnotes transnote transnotes transcriber transcribernote transcribernotes transcribers-note"
)
_STANZA_CLASSES = _words("lg linegroup stanza verse")
_LINE_CLASSES = _words("l line poem-line poemline verse-line verseline")
_STRONG_CLASS = re.compile(r"bold|chap|head|title", re.IGNORECASE)
_BACKLINKS = _words("↩ ↩︎ ↑ ^ ⏎ return back")
_EPUB_TYPE = "{http://www.idpf.org/2007/ops}type"
_SUPERSCRIPT = str.maketrans("0123456789+-n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ")
_PREDEFINED = _words("amp lt gt quot apos")
_ENTITY = re.compile(r"&([A-Za-z][A-Za-z0-9]*);")
_NOTE_MARKS, _PAGE_NUMBERS, _HIDDEN, _BACK = (
    "note marks",
    "page numbers",
    "hidden by its style",
    "links back from notes",
)


@dataclass(frozen=True)
class Passage:
    """A block, with the types that decide whether it is read.

    Attributes:
        types: epub:type and role words of all its ancestors ("endnotes", "dedication", ...).
        ids: the anchors at its start.
        linked: the share of its characters that are links into the book, from 0 to 1.
        strong: all of it is bold or in a style named as a heading.
        left_out: (reason, text) of what was left out in it, or right before it.
    """

    block: Block
    types: frozenset[str] = frozenset()
    ids: tuple[str, ...] = ()
    linked: float = 0.0
    strong: bool = False
    left_out: tuple[tuple[str, str], ...] = ()


@dataclass
class Page:
    """A page's passages, the index of the passage at each anchor, and the place of the first note mark to each href.

    `wordless` has the indexes of passages before which a heading stands that is a picture without a description.
    `left_out` has (reason, text) of what is not read and stands in no passage, `warning` what was guessed or mended.
    """

    title: str = ""
    passages: list[Passage] = field(default_factory=list)
    anchors: dict[str, int] = field(default_factory=dict)
    note_hrefs: dict[str, int] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    wordless: set[int] = field(default_factory=set)
    warning: str = ""


def parse_page(data: bytes, language: str = "", sheet: Callable[[str], str] = lambda href: "") -> Page:
    """Read a page. XHTML that is not well-formed is read as HTML; `warning` says so.

    Args:
        language: of the book, which tells how pages are encoded that do not say it.
        sheet: returns the text of a style sheet that the page links to, "" where it cannot be read.

    Raises:
        ValueError: when the bytes cannot be parsed as a page.
    """
    root, warning = _parse(data, language)
    mended = _mend(root)
    body = next((e for e in root.iter() if _tag(e) == "body"), root)
    page = Page(warning="; ".join(filter(None, (warning, mended))))
    title = next((e for e in root.iter() if _tag(e) == "title"), None)
    page.title = clean("".join(title.itertext())) if title is not None else ""
    _Reader(page, Hidden(_sheets(root, sheet))).read(body)
    return page


def parse_xml(data: bytes, recover: bool = False) -> etree._Element:
    """Parse XML with no entity, DTD or network access. HTML's named characters (&nbsp;) are known.

    Raises:
        lxml.etree.XMLSyntaxError: when it is not well-formed.
    """
    return _parse_xml(decode_markup(data).text, recover)


def _parse_xml(text: str, recover: bool = False) -> etree._Element:
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        recover=recover,
        remove_comments=True,
        encoding="utf-8",
    )
    root = etree.fromstring(_known_entities(text), parser)
    if root is None:  # lxml recovers an empty document to None
        raise etree.XMLSyntaxError("no element found", 0, 0, 0)
    return root


def _known_entities(text: str) -> bytes:
    def character(match: re.Match[str]) -> str:
        value = html5.get(match[1] + ";")
        if value is None or match[1] in _PREDEFINED:
            return match[0]
        return "".join(f"&#{ord(c)};" for c in value)

    return _ENTITY.sub(character, text.strip()).encode("utf-8", "replace")


def _parse(data: bytes, language: str) -> tuple[etree._Element, str]:
    decoded = decode_markup(data, language)
    try:
        return _parse_xml(decoded.text), decoded.warning
    except (etree.XMLSyntaxError, ValueError) as error:
        cause = str(error).split("\n")[0]
    try:
        parser = lxml_html.HTMLParser(encoding="utf-8", no_network=True, huge_tree=False, remove_comments=True)
        root = lxml_html.document_fromstring(_known_entities(decoded.text), parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError, LookupError, ValueError) as error:
        raise ValueError(f"no page can be made of it ({error})") from error
    malformed = f"not well-formed XHTML ({cause}): read as HTML"
    return root, f"{decoded.warning}; {malformed}" if decoded.warning else malformed


def _mend(root: etree._Element) -> str:
    """Put right the letters of a page that were decoded wrongly before; return a warning of the first, or ""."""
    first = ""
    for element in root.iter():
        for name in ("text", "tail"):
            text = getattr(element, name)
            if text:
                mended, warning = mend(text)
                if warning:
                    setattr(element, name, mended)
                    first = first or warning
    return first


def _sheets(root: etree._Element, sheet: Callable[[str], str]) -> Iterator[str]:
    for element in root.iter():
        if _tag(element) == "style":
            yield element.text or ""
        elif _tag(element) == "link" and "stylesheet" in (element.get("rel") or "").lower():
            yield sheet(element.get("href") or "")


def clean(text: str) -> str:
    """Collapse spaces and drop soft hyphens and other invisible characters. Line feeds stay."""
    lines = (" ".join(line.split()) for line in note_marks.INVISIBLE.sub("", text).split("\n"))
    return "\n".join(line for line in lines if line)


def _tag(element: etree._Element) -> str:
    return etree.QName(element).localname.lower() if isinstance(element.tag, str) else ""


def types_of(element: etree._Element) -> set[str]:
    """Return the words of epub:type and role (without "doc-"), and "footnote" for classes that mean it."""
    words = f"{element.get(_EPUB_TYPE) or element.get('epub:type') or ''} {element.get('role') or ''}".lower().split()
    types = {word.removeprefix("doc-") for word in words}
    classes = set((element.get("class") or "").lower().split())
    if classes & _NOTE_CLASSES:
        types.add("footnote")
    if classes & _TRANSCRIBER_CLASSES:
        types.add("transcriber-note")
    if "pg-boilerplate" in classes or element.get("id") in ("pg-header", "pg-footer"):
        types.add("copyright-page")
    return types


def _all_text(element: etree._Element) -> str:
    return " ".join(clean("".join(element.itertext())).split())


def _letters(text: str) -> str:
    return "".join(character for character in unicodedata.normalize("NFKC", text) if character.isalnum())


def _inline(element: etree._Element) -> bool:
    return isinstance(element.tag, str) and _tag(element) not in _BLOCKS


def _is_line(element: etree._Element | None) -> bool:
    """Return whether an element is a line of verse by its class."""
    if element is None or not isinstance(element.tag, str) or _tag(element) not in _BLOCKS:
        return False
    return bool(set((element.get("class") or "").lower().split()) & _LINE_CLASSES)


def _follows(element: etree._Element) -> str:
    """Return the text after an element in its block."""
    parts: list[str] = [element.tail or ""]
    here = element
    while here is not None:
        following = here.getnext()
        while following is not None and _inline(following):
            if _tag(following) == "br":
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


class _Reader:
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

    def read(self, body: etree._Element) -> None:
        todo: list[tuple[etree._Element, bool]] = [(body, True)]
        while todo:
            element, entering = todo.pop()
            if not entering:
                self.leave(element)
            elif not isinstance(element.tag, str):
                pass
            elif element is not body and (reason := self.reason_to_skip(element)) is not None:
                self.note_anchor(element)
                self.leave_out(reason, _all_text(element))
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
        tag = _tag(element)
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
        inner = _all_text(math)
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
        raised = any(_tag(e) == "sup" for e in element.iter()) or _tag(element.getparent()) == "sup"
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
        while parent is not None and _tag(parent) not in _BLOCKS:
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
        links = [a for a in element.iter() if _tag(a) == "a" and "#" in (a.get("href") or "")]
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
        for name in {element.get("id"), element.get("name") if _tag(element) == "a" else None} - {None, ""}:
            self.page.anchors.setdefault(name, len(self.page.passages))
            if not self.has_text():
                self.ids.append(name)

    def enter(self, element: etree._Element) -> None:
        tag = _tag(element)
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
        self.stanzas += by * (tag in _BLOCKS and bool(set(classes.lower().split()) & _STANZA_CLASSES))
        self.links += by * (tag == "a" and bool(element.get("href")) and "://" not in (element.get("href") or ""))
        self.bold += by * (
            tag in ("b", "strong") or (tag in ("p", "span", "div") and bool(_STRONG_CLASS.search(classes)))
        )

    def title(self, heading: etree._Element) -> None:
        """Give a heading that is only a picture the words of its description, or of its title."""
        if not self.levels[-1] or self.titled or _all_text(heading):
            return
        images = [e for e in heading.iter() if _tag(e) in ("img", "image")]
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
            return next((int(_tag(h)[1]) for h in element.iter() if re.fullmatch("h[1-6]", _tag(h))), 6)
        return self.levels[-1]

    def leave(self, element: etree._Element) -> None:
        tag = _tag(element)
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
        seen = sum(character.isalnum() for character in text)
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
        if not self.verbatim:
            text, typed = note_marks.without_typed_marks(text)
            for mark in typed:
                self.leave_out(_NOTE_MARKS, mark)
        self.pending, self.after_initial = [], False
        linked, strong, self.linked, self.strong = self.linked, self.strong, 0, 0
        if not text:
            return
        if not any(character.isalnum() for character in text):
            self.scene_break()  # "* * *" and the like
            return
        if self.initial:
            letter, self.initial = self.initial, ""
            if text[0].islower():
                text = letter + text
            else:
                self.add(letter)
        if begins_with_initial(text) and not self.levels[-1]:
            self.initial = text  # the next block may be the rest of its word
            return
        lines = text.split("\n")
        if len(lines) > 1 and not self.levels[-1] and not self.verbatim and _is_wrapped(lines):
            text = " ".join(lines)
        self.add(text, linked, strong)

    def add(self, text: str, linked: int = 0, strong: int = 0) -> None:
        types = frozenset(word for words in self.types for word in words)
        seen = max(1, sum(character.isalnum() for character in text))
        passage = Passage(
            Block(text, self.levels[-1]), types, tuple(self.ids), linked / seen, strong >= seen, tuple(self.left)
        )
        self.page.passages.append(passage)
        self.ids, self.left = [], []
