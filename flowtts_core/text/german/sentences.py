"""Whether a German sentence goes on after a full stop: "am 3. Oktober", "ca. 30", "Hauptstr. 5".

Texts are cut before anything asks for their language, so what an English sentence may end with is left out.
"""

from __future__ import annotations

import re

from flowtts_core.text.german.ordinals import after_article, is_ordinal, word_before
from flowtts_core.text.german.wordlists import ABBREVIATIONS, BEFORE_NUMBER, MAY_END, MONTHS

_ENGLISH = frozenset(
    "al dt ff gem med lat vs etc Art Fig Pos Tab Jan Feb Apr Aug Sept Nov Ing Mag St Dr Abs art".split()
)
_GOES_ON = frozenset(ABBREVIATIONS) - MAY_END - _ENGLISH
_MAY_END = MAY_END - _ENGLISH
_NUMBER_FOLLOWS = frozenset(BEFORE_NUMBER) - _ENGLISH
_SPACED = {word.replace(" ", ""): word for word in (*_GOES_ON, *_MAY_END)}
# Words of German alone.
_ARTICLES = frozenset("der das dem im vom zum zur beim ins bis diese dieser seine seinen ihre".split())
_NOUNS = frozenset("Jänner Jahrhundert Jahrhunderts Weltkrieg Kapitel Bezirk Auflage Klasse".split())
_WEEKDAY = re.compile(r"(?:tag|Mittwoch|Sonnabend), \Z")
_YEAR = re.compile(r"\s+\w+\s+\d{4}\b")
_STARTERS = frozenset(
    "Aber Alle Als Am An Auch Auf Bei Bis Da Dabei Dadurch Dafür Daher Damals Damit Danach Dann Darauf Darum Das Dass Dem Den "
    "Denn Der Deshalb Des Die Dies Diese Dieser Dieses Doch Dort Durch Ein Eine Einer Er Erst Es Für Hier Ich Ihr Ihre Im In "
    "Ist Jeder Jetzt Kein Keine Man Mit Nach Nachdem Nein Nicht Noch Nun Nur Ob Oder Ohne Schon Sein Seine Seit Sie Sind So "
    "Über Um Und Unter Viele Vom Von Vor Was Weil Wenn Wer Wie Wir Wo Zu Zum Zur Zwar".split()
)
_NUMBER = re.compile(r"(?<![\w.,])\d{1,3}\Z")
_WORD = re.compile(r"(?:\A|[\s(\"'„“])([^\W\d_](?:[^\W\d_]|[.-] ?(?=[^\W\d_]))*)\Z")
_STREET = re.compile(r"[a-zäöüß]{2}str\Z")
_FIRST = re.compile(r"\W*([^\W\d_]+)")
_DIGIT = re.compile(r"\W?\d|[IVXLC]+\b")
_LONGEST = 24  # characters of an abbreviation or a number


def goes_on(text: str, stop: int, start: int) -> bool:
    """Return whether the sentence with the full stop `text[stop]` goes on at `text[start]`."""
    if text[stop : stop + 1] != ".":
        return False
    before = text[max(0, stop - _LONGEST) : stop]
    number = _NUMBER.search(before)
    first = _FIRST.match(text, start, start + 40)
    if number is not None:
        return first is not None and _counts(text, stop - len(number.group()), stop, first[1])
    if _STREET.search(before):
        return _DIGIT.match(text, start) is not None
    return _abbreviated(text, before, start, first[1] if first else "")


def _counts(text: str, number: int, stop: int, noun: str) -> bool:
    """Return whether the number at `number` is the ordinal number of a noun; months may be English, too."""
    before = word_before(text, number).lower()
    if noun in MONTHS:
        dated = _YEAR.match(text, stop + 1) or _WEEKDAY.search(text, max(0, number - 12), number)
        return before == "bis" or after_article(text, number) or dated is not None
    if noun in _STARTERS:
        return False
    return noun in _NOUNS or before in _ARTICLES and is_ordinal(text, number, stop + 1)


def _abbreviated(text: str, before: str, start: int, first: str) -> bool:
    found = _WORD.search(before)
    if found is None:
        return False
    words = found[1].split()
    for count in range(len(words)):  # "ist z. B": the abbreviation is at the end
        word = "".join(words[count:])
        word = _SPACED.get(word, word)
        known = word if word in _GOES_ON | _MAY_END | _NUMBER_FOLLOWS else word[:1].lower() + word[1:]
        if known in _GOES_ON:
            return True
        if known in _MAY_END:
            return first not in _STARTERS
        if known in _NUMBER_FOLLOWS:
            return _DIGIT.match(text, start) is not None
    return False
