"""Parse one XHTML page of a book into blocks of text: what is read aloud, what is dropped, and where its anchors are."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from html.entities import html5

from lxml import etree
from lxml import html as lxml_html

from flowtts_core.text.sentences import Block


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BLOCKS = _words(
    "address article aside blockquote body caption center dd details div dl dt fieldset figcaption figure footer form "
    "h1 h2 h3 h4 h5 h6 header hgroup li main nav ol p pre section summary table tbody tfoot thead tr ul"
)
_SKIPPED = _words("audio head iframe img math object rp rt rtc script style svg template title video")
_INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # soft hyphens, joiners, controls
_SPACE = re.compile(r"\s+")
_NOTE_MARK = re.compile(r"[\[({]?\s*(?:\d{1,4}|[*†‡§¶#]{1,4}|[a-z]|[ivx]{1,5})\s*[\])}]?")
_BRACKETED = re.compile(r"\[.*\]|[*†‡§¶]+")
_PLAIN_MARK = re.compile(r"\(?\d{1,4}\)?|[*†‡§¶]{1,4}")
_MARK_CLASS = re.compile("sup(?!p)|note|fn|foot", re.IGNORECASE)  # "superscript", "_idFootnoteLink", but not "support"
_MARK_STYLE = re.compile(r"vertical-align:\s*super", re.IGNORECASE)
_SUP_CLASSES = _words("sup super superscript")
# A mark follows a word, a stop or a quote directly. So do other numbers: "p.1", "3:2", page numbers after leaders in a contents.
_HANGING = re.compile(r"(?:[^\W\d_]|[.!?…)\]\"'’”»]|(?<!\d)[,:;])$")
_NUMBER_FOLLOWS = re.compile(
    r"\b(?:No|[Nn]os|(?i:pp?|figs?|vols?|ch|chaps?|secs?|arts?|vv?|vs|cf|eqs?|tabs?|pls?|ll?|fols?|pts?|bks?))\.$|(?:\. ?){5,}$"
)
_UNITS = _words("km cm mm dm nm hm µm μm ft yd mi kg sec hr")
_UNITS_OF_A_NUMBER = _words(
    "in min foot feet inch inches yard yards mile miles meter meters metre metres second seconds kilometer kilometers "
    "kilometre kilometres centimeter centimeters centimetre centimetres millimeter millimeters millimetre millimetres"
)
# "mc" and "ab" are products; these are words.
_SHORT_WORDS = _words("ah am an as at be by do go he if in is it me my no of oh on or so to up us we")
_NOTEREF_CLASSES = _words("noteref footnote-ref footnoteref fnanchor fnref endnote-ref endnoteref")
_PAGE_CLASSES = _words("pagenum pageno pagenumber page-number pagebreak")
_NOTE_CLASSES = _words(
    "footnote footnotes endnote endnotes rearnote rearnotes _idfootnote _idfootnotes _idendnote _idendnotes"
)
_BACKLINKS = _words("↩ ↩︎ ↑ ^ ⏎ return back")
_EPUB_TYPE = "{http://www.idpf.org/2007/ops}type"
_SUPERSCRIPT = str.maketrans("0123456789+-n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ")
_PREDEFINED = _words("amp lt gt quot apos")
_ENTITY = re.compile(rb"&([A-Za-z][A-Za-z0-9]*);")


@dataclass(frozen=True)
class Passage:
    """A block, with the types that decide whether it is read.

    Attributes:
        types: epub:type and role words of all its ancestors ("endnotes", "dedication", ...).
        ids: the anchors at its start.
    """

    block: Block
    types: frozenset[str]
    ids: tuple[str, ...]


@dataclass
class Page:
    """A page's passages, the index of the passage at each anchor, and the place of the first note mark to each href."""

    title: str = ""
    passages: list[Passage] = field(default_factory=list)
    anchors: dict[str, int] = field(default_factory=dict)
    note_hrefs: dict[str, int] = field(default_factory=dict)
    warning: str = ""


def parse_page(data: bytes) -> Page:
    """Read a page. XHTML that is not well-formed is read as HTML; `warning` says so.

    Raises:
        ValueError: when the bytes cannot be parsed as a page.
    """
    root, warning = _parse(data)
    body = next((e for e in root.iter() if _tag(e) == "body"), root)
    page = Page(warning=warning)
    title = next((e for e in root.iter() if _tag(e) == "title"), None)
    page.title = clean("".join(title.itertext())) if title is not None else ""
    _Reader(page).read(body)
    return page


def parse_xml(data: bytes, recover: bool = False) -> etree._Element:
    """Parse XML with no entity, DTD or network access. HTML's named characters (&nbsp;) are known.

    Raises:
        lxml.etree.XMLSyntaxError: when it is not well-formed.
    """
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, recover=recover, remove_comments=True
    )
    root = etree.fromstring(_known_entities(data), parser)
    if root is None:  # lxml recovers an empty document to None
        raise etree.XMLSyntaxError("no element found", 0, 0, 0)
    return root


def _known_entities(data: bytes) -> bytes:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = data.decode("utf-16", "replace")
        data = re.sub(r"^\s*<\?xml[^>]*\?>", "", text).encode()

    def character(match: re.Match[bytes]) -> bytes:
        name = match[1].decode()
        value = html5.get(name + ";")
        if value is None or name in _PREDEFINED:
            return match[0]
        return "".join(f"&#{ord(c)};" for c in value).encode()

    return _ENTITY.sub(character, data.strip())


def _parse(data: bytes) -> tuple[etree._Element, str]:
    try:
        return parse_xml(data), ""
    except (etree.XMLSyntaxError, ValueError) as error:
        cause = str(error).split("\n")[0]
    encoding = re.search(rb"""encoding=["']([A-Za-z0-9._-]+)""", data[:200])
    try:
        parser = lxml_html.HTMLParser(
            encoding=encoding[1].decode() if encoding else "utf-8",
            no_network=True,
            huge_tree=False,
            remove_comments=True,
        )
        root = lxml_html.document_fromstring(_known_entities(data), parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError, LookupError, ValueError) as error:
        raise ValueError(f"no page can be made of it ({error})") from error
    return root, f"not well-formed XHTML ({cause}): read as HTML"


def clean(text: str) -> str:
    """Collapse spaces and drop soft hyphens and other invisible characters. Line feeds stay."""
    lines = (" ".join(line.split()) for line in _INVISIBLE.sub("", text).split("\n"))
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
    if "pg-boilerplate" in classes or element.get("id") in ("pg-header", "pg-footer"):
        types.add("copyright-page")
    return types


def _hangs_as_note(before: str) -> bool:
    """Return whether a linked number right after `before` is a note's: "so.1" and "treaty1", but not "See 1" and "p.1"."""
    return bool(_HANGING.search(before)) and not _NUMBER_FOLLOWS.search(before)


def _raised_as_note(before: str) -> bool:
    """Return whether a raised number without a link, after `before`, is a note's; else it is a power ("mc²", "(a+b)²")."""
    before = before.rstrip()
    if not before or before[-1] in ".,;:!?…\"'’”»—–":
        return True  # the note's own number begins a block
    if before[-1] in ")]":
        inner = re.search(r"[(\[]([^()\[\]]*).$", before)
        return inner is None or (bool(re.search(r"[^\W\d_]{3}", inner[1])) and not re.search(r"[+=×/^−]", inner[1]))
    word = re.search(r"(?:^|[\s(\[\"'“‘—–])([^\W\d_]+(?:[-'’][^\W\d_]+)*)$", before)
    if word is None or len(word[1]) == 1 or word[1] in _UNITS:
        return False
    if word[1] in _UNITS_OF_A_NUMBER and re.search(r"(?:\d|\b(?:per|square|cubic))[\s-]*$", before[: word.start(1)]):
        return False
    return len(word[1]) > 2 or word[1].lower() in _SHORT_WORDS


class _Reader:
    """Walks a body once, with an explicit stack instead of recursion, and fills a `Page`."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.pending: list[str] = []
        self.ids: list[str] = []
        self.types: list[set[str]] = []
        self.levels: list[int] = [0]
        self.cells = 0
        self.rows = 0
        self.verbatim = 0

    def read(self, body: etree._Element) -> None:
        todo: list[tuple[etree._Element, bool]] = [(body, True)]
        while todo:
            element, entering = todo.pop()
            if not entering:
                self.leave(element)
            elif not isinstance(element.tag, str) or self.skipped(element):
                if isinstance(element.tag, str):
                    self.note_anchor(element)
            else:
                self.enter(element)
                self.text(element.text)
                todo.append((element, False))
                todo.extend((child, True) for child in reversed(element))
                continue
            if element is not body:
                self.text(element.tail)
        self.flush()

    def skipped(self, element: etree._Element) -> bool:
        tag = _tag(element)
        if tag == "img":
            self.drop_cap_image(element)
        if tag in _SKIPPED or element.get("hidden") is not None:
            return True
        types = types_of(element)
        classes = set((element.get("class") or "").lower().split())
        if "pagebreak" in types or classes & _PAGE_CLASSES or "backlink" in types:
            return True
        if tag == "a":
            return self.is_note_link(element, types, classes)
        raised = tag == "sup" or (tag == "span" and bool(classes & _SUP_CLASSES))
        fraction = (element.tail or "").startswith(("/", "⁄"))
        return raised and not fraction and (self.is_note_sup(element) or self.power(element))

    def drop_cap_image(self, image: etree._Element) -> None:
        alt = image.get("alt") or ""
        if len(alt) == 1 and alt.isalpha() and "drop" in (image.get("class") or "").lower():
            self.pending.append(alt)

    def is_note_link(self, element: etree._Element, types: set[str], classes: set[str]) -> bool:
        href = element.get("href") or ""
        label = clean("".join(element.itertext()))
        if "noteref" in types or classes & _NOTEREF_CLASSES:
            self.target(href)
            return True
        if "#" not in href:
            return False
        if label in _BACKLINKS:
            return True
        raised = any(_tag(e) == "sup" for e in element.iter()) or _tag(element.getparent()) == "sup"
        mark = bool(_NOTE_MARK.fullmatch(label)) and (raised or bool(_BRACKETED.fullmatch(label)))
        if mark or (_PLAIN_MARK.fullmatch(label) and self.stands_as_mark(element)):
            self.target(href)
            return True
        return False

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
            or _hangs_as_note(self.before())
        )

    def before(self) -> str:
        """Return the end of the text before this place in its block."""
        return _INVISIBLE.sub("", "".join(part[-80:] for part in self.pending[-12:]))[-80:]

    def is_note_sup(self, element: etree._Element) -> bool:
        label = clean("".join(element.itertext()))
        if not _NOTE_MARK.fullmatch(label):
            return False
        links = [a for a in element.iter() if _tag(a) == "a" and "#" in (a.get("href") or "")]
        for link in links:
            self.target(link.get("href"))
        if links or _BRACKETED.fullmatch(label):
            return True
        return label.isdigit() and _raised_as_note(self.before())

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
            self.separate()
            self.types.append(types_of(element))
            self.levels.append(self.level(element, tag))
        if tag in ("td", "th"):
            if self.has_text():
                self.pending = ["".join(self.pending).rstrip(), ", " if self.cells == 0 else " "]
            self.cells += 1
        self.rows += tag == "tr"
        self.verbatim += tag == "pre"
        self.note_anchor(element)
        if tag == "br":
            self.pending.append(" " if self.cells else "\n")
        elif tag == "hr":
            self.flush()
            self.scene_break()

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
        self.rows -= tag == "tr"
        self.verbatim -= tag == "pre"
        if tag in _BLOCKS:
            self.separate()
            self.types.pop()
            self.levels.pop()

    def text(self, text: str | None) -> None:
        if not text:
            return
        text = text if self.verbatim else _SPACE.sub(" ", text)
        if self.rows and not self.cells and not text.strip():
            return  # white space between cells
        self.pending.append(text)

    def separate(self) -> None:
        """Begin a new block, or in a table's cell add only a space."""
        if self.cells:
            self.pending.append(" ")
        else:
            self.flush()

    def scene_break(self) -> None:
        passages = self.page.passages
        if passages:
            passages[-1] = replace(passages[-1], block=replace(passages[-1].block, scene_break=True))

    def flush(self) -> None:
        text = clean("".join(self.pending))
        self.pending = []
        if not text:
            return
        if not any(character.isalnum() for character in text):
            self.scene_break()  # "* * *" and the like
            return
        types = frozenset(word for words in self.types for word in words)
        self.page.passages.append(Passage(Block(text, self.levels[-1]), types, tuple(self.ids)))
        self.ids = []
