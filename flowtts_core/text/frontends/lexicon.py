"""A user's own pronunciations from a TSV or JSON file: words, phrases and patterns, as IPA, respelled, or replaced."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from flowtts_core.errors import TextError
from flowtts_core.text.frontends.symbols import MATCHA
from flowtts_core.text.given_phonemes import IPA_SIGNS
from flowtts_core.text.own_words import compiled, is_pattern

_ALSO = frozenset("gɫ\u0361\u035c\u0303")  # written in IPA, and put into the table's symbols by the front end
_IPA = re.compile(f"[{IPA_SIGNS}æðŋβθχ]")  # what no respelling has
_FORM = "write each line as a word, a tab and its IPA or a text to read in its place"


def load_lexicon(path: str | Path) -> dict[str, str]:
    """Return what is written and how it is read, as `flowtts_core.text.own_words` has it.

    The file has lines `written<TAB>read` (`#` begins a comment), or a JSON object `{"written": "read"}`. What is written is
    a word, a phrase, or a regular expression between slashes. It is read as IPA where it has a sign of IPA, or stands
    between slashes or brackets; else as a text, in which `shi-VAWN` is a word by its syllables. Quotation marks around it
    make it a text always.

    Raises:
        TextError: when the file cannot be read or a line is wrong; the message names file and line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TextError(f"{path}: cannot read the lexicon ({error})", f"give a UTF-8 file: {_FORM}") from error
    lexicon: dict[str, str] = {}
    lines: dict[str, int] = {}
    for line, written, said in _from_json(path, text) if path.suffix.lower() == ".json" else _from_lines(path, text):
        if written in lexicon:
            raise TextError(f"{path}, line {line}: {written!r} stands in line {lines[written]} too", "keep one of them")
        lexicon[written], lines[written] = _checked(f"{path}, line {line}", written, said), line
    return lexicon


def _from_lines(path: Path, text: str) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        written, tab, said = line.partition("\t")
        if not tab:
            raise TextError(f"{path}, line {number}: no tab in {line!r}", _FORM)
        yield number, written.strip(), said.strip()


def _from_json(path: Path, text: str) -> Iterator[tuple[int, str, str]]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise TextError(f"{path}, line {error.lineno}: {error.msg}", "give a JSON object of word: ipa") from error
    if not isinstance(values, dict):
        raise TextError(f"{path}, line 1: not a JSON object", 'write it as {"word": "ipa", ...}')
    for written, said in values.items():
        line = text[: max(text.find(json.dumps(written, ensure_ascii=False)), 0)].count("\n") + 1
        if not isinstance(said, str):
            raise TextError(
                f"{path}, line {line}: the value of {written!r} is not a string", "give its IPA or its text as a string"
            )
        yield line, written.strip(), said.strip()


def _checked(where: str, written: str, said: str) -> str:
    """Return how an entry is read: IPA, or a text in double quotes."""
    if not written:
        raise TextError(f"{where}: no word before the tab", _FORM)
    if len(said) > 1 and said[0] == said[-1] == '"':
        value = said
    elif _is_ipa(said):
        value = _known_ipa(where, said.strip("/[]"))
    else:
        value = f'"{said}"'
    if not value.strip('" ') and not is_pattern(written):
        raise TextError(f"{where}: nothing says how {written!r} is read", _FORM)
    if is_pattern(written):
        try:
            compiled(written, value)
        except TextError as error:
            raise TextError(f"{where}: {error.message}", error.remedy) from error
    return value


def _is_ipa(said: str) -> bool:
    """Return whether what is read is IPA: by a sign of it, or by the slashes or brackets around it."""
    if "[[" in said or "](/" in said:
        return False  # a text that brings phonemes itself
    return (len(said) > 2 and said[0] + said[-1] in ("//", "[]")) or _IPA.search(said) is not None


def _known_ipa(where: str, ipa: str) -> str:
    strange = sorted({c for c in ipa if (c not in MATCHA.ids or c == "_") and c not in _ALSO})
    if strange:
        raise TextError(
            f"{where}: no symbol for {' '.join(map(repr, strange))} in {ipa!r}", "use IPA letters and ˈ ˌ ː"
        )
    return ipa
