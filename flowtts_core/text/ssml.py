"""Turn SSML into a text with marks: a safe subset, without entities of its own and without other documents.

Followed are `speak`, `p`, `s`, `break`, `emphasis`, `prosody rate`, `say-as`, `sub`, `phoneme` and `voice name`. Whatever
else is asked for is refused with its line: a text that is spoken otherwise than it asks is not what its author meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from xml.parsers import expat

from flowtts_core.errors import TextError
from flowtts_core.text.given_phonemes import has_sign
from flowtts_core.text.marks import MAX_PAUSE_S, rate_of, seconds_of
from flowtts_core.text.sentences import Pauses

_REMEDY = "docs/synthesis.md lists the SSML that is followed"
_BREAKS = {"none": 0.0, "x-weak": 0.15, "weak": 0.25, "medium": 0.5, "strong": 0.8, "x-strong": 1.2}  # seconds
_EMPHASIS = {"strong": 0.8, "moderate": 0.9, "none": 1.0, "reduced": 1.1}  # rates
_DEPTH = 32
_KNOWN = {
    "speak": {"version", "xmlns", "xml:lang", "xml:base", "xmlns:xsi", "xsi:schemaLocation"},
    "p": {"xml:lang"},
    "s": {"xml:lang"},
    "break": {"time", "strength"},
    "emphasis": {"level"},
    "prosody": {"rate"},
    "say-as": {"interpret-as", "format", "detail"},
    "sub": {"alias"},
    "phoneme": {"alphabet", "ph"},
    "voice": {"name"},
}
_NEEDED = {"prosody": "rate", "say-as": "interpret-as", "sub": "alias", "phoneme": "ph", "voice": "name"}
_WHOLE = ("say-as", "sub", "phoneme")  # hold words alone
_MONTHS = "January February March April May June July August September October November December".split()
_AS_WRITTEN = ("cardinal", "number", "fraction", "unit", "time", "currency", "address", "name")


class MarkedSource(NamedTuple):
    """A text with marks; `places[i]` is where its character `i` stands in the SSML, and `end` where that has no more text."""

    text: str
    places: list[int]
    end: int


def from_ssml(source: str) -> MarkedSource:
    """Return SSML as a text with marks.

    Raises:
        TextError: for what is no XML, has a DTD or entities, or asks for what is not followed; it names the line.
    """
    return _Reading(source).read()


@dataclass
class _Element:
    name: str
    attributes: dict[str, str]
    line: int
    start: int  # in the source
    words: list[str] = field(default_factory=list)  # of an element that holds words alone, and
    place: int = -1  # where they begin


class _Reading:
    """One pass over the SSML."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._bytes = source.encode("utf-8", "surrogatepass")
        self._ascii = len(self._bytes) == len(source)
        self._known = (0, 0)  # a byte and the character there: later ones are counted from it
        self._pieces: list[str] = []
        self._places: list[int] = []
        self._open: list[_Element] = []
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._begin
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.StartDoctypeDeclHandler = self._refuse_doctype
        self._parser.EntityDeclHandler = self._refuse_doctype
        self._parser.ProcessingInstructionHandler = self._refuse_instruction
        self._seen = False
        self._last = 0

    def read(self) -> MarkedSource:
        try:
            self._parser.Parse(self._bytes, True)
        except expat.ExpatError as error:
            raise TextError(
                f"SSML, line {error.lineno}: no XML ({expat.errors.messages[error.code]})",
                "write one <speak>...</speak>, close each tag, and write & as &amp; and < as &lt;",
            ) from error
        return MarkedSource("".join(self._pieces), self._places, self._last)

    # --- what is written ----------------------------------------------------------------------------------------------

    def _put(self, text: str, place: int) -> None:
        self._pieces.append(text)
        self._places += [place] * len(text)

    def _place(self) -> int:
        """The character of the source at which the parser is."""
        byte = self._parser.CurrentByteIndex
        if self._ascii:
            return byte
        known_byte, known = self._known
        place = known + len(self._bytes[known_byte:byte].decode("utf-8", "surrogatepass"))
        self._known = (byte, place)
        return place

    # --- what is read -------------------------------------------------------------------------------------------------

    def _begin(self, name: str, attributes: dict[str, str]) -> None:
        element = _Element(name, attributes, self._parser.CurrentLineNumber, self._place())
        if not self._seen and name != "speak":
            self._raise(f"begins with <{name}>", "an SSML text is one <speak>...</speak>")
        if name not in _KNOWN or (name == "speak" and self._seen):
            self._raise(f"<{name}> is not followed; known are: {', '.join(_KNOWN)}", _REMEDY)
        self._seen = True
        if self._open and self._open[-1].name in _WHOLE:
            self._raise(f"<{name}> inside <{self._open[-1].name}>, which holds words alone", _REMEDY)
        if len(self._open) >= _DEPTH:
            self._raise(f"more than {_DEPTH} elements in one another", "nest less")
        if more := [key for key in attributes if key not in _KNOWN[name]]:
            known = ", ".join(sorted(_KNOWN[name]))
            self._raise(f"<{name} {more[0]}=...> is not followed; known are: {known}", _REMEDY)
        if name in _NEEDED and not attributes.get(_NEEDED[name], "").strip():
            self._raise(f"<{name}> without {_NEEDED[name]}=...", _REMEDY)
        self._open.append(element)
        if name not in _WHOLE and name not in ("break", "speak", "s", "p"):
            self._put(self._opening(element), element.start)
        elif name == "break":
            self._put(f"[pause:{self._break(attributes):g}s]", element.start)
        elif name == "p":
            self._part_paragraph(element.start)

    def _end(self, name: str) -> None:
        element, place = self._open.pop(), self._place()
        self._last = place
        if name in _WHOLE:
            self._put_word(element, place)
        elif name in ("emphasis", "prosody"):
            self._put("[/rate]", place)
        elif name == "voice":
            self._put("[/voice]", place)
        elif name == "p":
            self._part_paragraph(place)
        elif name == "s":
            self._end_sentence(place)

    def _characters(self, text: str) -> None:
        element, place = self._open[-1], self._place()
        if element.name == "break":
            if text.strip():
                self._raise("words inside <break>", "write <break/>")
            return
        if element.name in _WHOLE:
            if text.strip() and element.place < 0:
                element.place = place + len(text) - len(text.lstrip())
            element.words.append(text)
            return
        self._pieces.append(text)
        exact = self._source[place : place + len(text)] == text  # not so for &amp;
        self._places += range(place, place + len(text)) if exact else [place] * len(text)

    def _opening(self, element: _Element) -> str:
        value = element.attributes.get(_NEEDED.get(element.name, ""), "").strip()
        if element.name == "voice":
            if re.search(r"[\[\]\n]", value):
                self._raise(f"<voice name={value!r}> is no name", _REMEDY)
            return f"[voice:{value}]"
        rate = self._level(element) if element.name == "emphasis" else self._rate(value)
        return f"[rate:{rate:.4g}]"

    def _level(self, element: _Element) -> float:
        level = element.attributes.get("level", "moderate")
        if level not in _EMPHASIS:
            self._raise(f"<emphasis level={level!r}>: use {', '.join(_EMPHASIS)}", _REMEDY)
        return _EMPHASIS[level]

    def _rate(self, value: str) -> float:
        change = re.fullmatch(r"([+-]\d+(?:\.\d+)?)%", value)
        rate = rate_of(value) if change is None else rate_of(f"{100 + float(change[1]):g}%")
        if rate is None:
            self._raise(f"<prosody rate={value!r}>: use 0.25 to 4, as 0.8, 80%, -20% or slow", _REMEDY)
        assert rate is not None
        return rate

    def _break(self, attributes: Mapping[str, str]) -> float:
        if "time" in attributes:
            seconds = seconds_of(attributes["time"])
            if seconds is None or seconds > MAX_PAUSE_S:
                self._raise(
                    f"<break time={attributes['time']!r}>: use at most {MAX_PAUSE_S:g}s, as 2s or 500ms", _REMEDY
                )
            assert seconds is not None
            return seconds
        strength = attributes.get("strength", "medium")
        if strength not in _BREAKS:
            self._raise(f"<break strength={strength!r}>: use {', '.join(_BREAKS)}", _REMEDY)
        return _BREAKS[strength]

    def _part_paragraph(self, place: int) -> None:
        if any(piece.strip() for piece in self._pieces):
            self._put("\n\n", place)

    def _end_sentence(self, place: int) -> None:
        """A sentence ends here even without a full stop; where it has one, the pause is the text's own."""
        written = re.sub(r"\[[^\[\]]*\]$", "", "".join(self._pieces[-4:])).rstrip()
        if written and not re.search(r"[.!?…。！？][\"'’”)\]]*$", written):
            self._put(f"[pause:{Pauses().sentence:g}s]", place)
        self._put(" ", place)

    # --- elements that hold words alone -------------------------------------------------------------------------------

    def _put_word(self, element: _Element, end: int) -> None:
        text = " ".join("".join(element.words).split())
        if re.search(r"[\[\]]", text):
            self._raise(f"brackets inside <{element.name}>", "leave them out")
        before, after = self._phoneme(element, text) if element.name == "phoneme" else self._sub(element, text)
        self._put(before, element.start)
        self._pieces.append(text)
        exact = self._source[element.place : element.place + len(text)] == text
        self._places += range(element.place, element.place + len(text)) if exact else [element.place] * len(text)
        self._put(after, end)

    def _sub(self, element: _Element, text: str) -> tuple[str, str]:
        """The mark before and after the words."""
        if not text:
            self._raise(f"<{element.name}> without words", _REMEDY)
        said = element.attributes["alias"] if element.name == "sub" else self._said(element, text)
        said = " ".join(said.translate(_NO_BRACKETS).split())
        return ("", "") if said == text else (f"[sub:{said}]", "[/sub]")

    def _phoneme(self, element: _Element, text: str) -> tuple[str, str]:
        alphabet, ipa = element.attributes.get("alphabet", "ipa"), element.attributes["ph"].strip()
        if alphabet != "ipa":
            self._raise(f"<phoneme alphabet={alphabet!r}>: only ipa is read", "write the word in IPA")
        if re.search(r"[/()\[\]\n]", ipa):
            self._raise(f"<phoneme ph={ipa!r}> is no IPA", _REMEDY)
        ipa = ipa if has_sign(ipa) else f"ˈ{ipa}"  # without any sign it would be read as a word
        return ("[", f"](/{ipa}/)") if text else (f"[[{ipa}]]", "")

    def _said(self, element: _Element, text: str) -> str:
        kind = element.attributes["interpret-as"].strip().lower()
        if kind in _AS_WRITTEN:
            return text
        if kind not in _SAY_AS:
            known = ", ".join(sorted((*_SAY_AS, *_AS_WRITTEN)))
            self._raise(f"<say-as interpret-as={kind!r}> is not followed; known are: {known}", _REMEDY)
        said = _SAY_AS[kind](text, element.attributes.get("format", ""))
        if not said:
            self._raise(f"<say-as interpret-as={kind!r}>: {text!r} is none, or of another format", _REMEDY)
        return said

    # --- what is refused ----------------------------------------------------------------------------------------------

    def _raise(self, what: str, remedy: str) -> None:
        raise TextError(f"SSML, line {self._parser.CurrentLineNumber}: {what}", remedy)

    def _refuse_doctype(self, *_: object) -> None:
        self._raise("it declares a document type or entities", "leave the DOCTYPE out")

    def _refuse_instruction(self, target: str, _: str) -> None:
        self._raise(f"<?{target} ...?> is not followed", "leave it out")


_NO_BRACKETS = str.maketrans("[]\n", "() ")


def _letters(text: str, _: str) -> str:
    """A full stop tells the letter A from the article."""
    said = " ".join(f"{c.upper()}." if c.isalpha() else c for c in text if c.isalnum())
    return said if said.endswith("A.") else said.removesuffix(".")


def _digits(text: str, _: str) -> str:
    """Digit by digit, with a pause between the groups that are written."""
    return ", ".join(" ".join(group) for group in re.findall(r"\d+", text))


def _ordinal(text: str, _: str) -> str:
    if not text.isdecimal():
        return ""
    number = int(text)
    last = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{last}"


def _date(text: str, order: str) -> str:
    """A date of numbers as words, in the order of `format` (mdy, dmy, ymd, my, md, ...); other dates as they are written."""
    numbers = re.findall(r"\d+", text)
    if re.search(r"[^\W\d_]", text):
        return text
    order = order.lower() or ("ymd" if numbers and len(numbers[0]) == 4 else "mdy")
    if len(numbers) != len(order) or set(order) - set("dmy") or len(set(order)) != len(order):
        return ""
    values = dict(zip(order, numbers, strict=True))
    if not 1 <= int(values.get("m", "1")) <= 12 or not 1 <= int(values.get("d", "1")) <= 31:
        return ""
    month = _MONTHS[int(values["m"]) - 1] if "m" in values else ""
    return " ".join(filter(None, (str(int(values["d"])) if "d" in values else "", month, values.get("y", ""))))


_SAY_AS: dict[str, Callable[[str, str], str]] = {
    "characters": _letters,
    "spell-out": _letters,
    "verbatim": _letters,
    "digits": _digits,
    "telephone": _digits,
    "ordinal": _ordinal,
    "date": _date,
}
