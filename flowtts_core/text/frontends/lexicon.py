"""A user's own pronunciations, word to IPA, from a TSV or JSON file."""

from __future__ import annotations

import json
from pathlib import Path

from flowtts_core.errors import TextError
from flowtts_core.text.frontends.symbols import MATCHA

_ALSO = frozenset("gɫ\u0361\u035c\u0303")  # written in IPA, and put into the table's symbols by the front end


def load_lexicon(path: str | Path) -> dict[str, str]:
    """Words and their IPA: lines `word<TAB>ipa` (`#` begins a comment), or a JSON object `{"word": "ipa"}`.

    Raises:
        TextError: when the file cannot be read or a line is wrong; the message names file and line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TextError(
            f"{path}: cannot read the lexicon ({error})", "give a UTF-8 file of lines word<TAB>ipa"
        ) from error
    if path.suffix.lower() == ".json":
        return _from_json(path, text)
    lexicon: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        word, tab, ipa = line.partition("\t")
        if not tab:
            raise TextError(f"{path}, line {number}: no tab in {line!r}", "write each line as word<TAB>ipa")
        lexicon[word.strip()] = _checked(f"{path}, line {number}", word, ipa)
    return lexicon


def _from_json(path: Path, text: str) -> dict[str, str]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise TextError(f"{path}, line {error.lineno}: {error.msg}", "give a JSON object of word: ipa") from error
    if not isinstance(values, dict):
        raise TextError(f"{path}, line 1: not a JSON object", 'write it as {"word": "ipa", ...}')
    lexicon: dict[str, str] = {}
    for word, ipa in values.items():
        line = text[: max(text.find(json.dumps(word, ensure_ascii=False)), 0)].count("\n") + 1
        if not isinstance(ipa, str):
            raise TextError(f"{path}, line {line}: the value of {word!r} is not a string", "give its IPA as a string")
        lexicon[word.strip()] = _checked(f"{path}, line {line}", word, ipa)
    return lexicon


def _checked(where: str, word: str, ipa: str) -> str:
    ipa = ipa.strip().strip("/[]")
    if not word.strip() or any(c.isspace() for c in word.strip()):
        raise TextError(f"{where}: {word!r} is not one word", "give one word a line")
    if not ipa:
        raise TextError(f"{where}: {word.strip()!r} has no IPA", "write each line as word<TAB>ipa")
    strange = sorted({c for c in ipa if (c not in MATCHA.ids or c == "_") and c not in _ALSO})
    if strange:
        raise TextError(
            f"{where}: no symbol for {' '.join(map(repr, strange))} in {ipa!r}", "use IPA letters and ˈ ˌ ː"
        )
    return ipa
