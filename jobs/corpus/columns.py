"""What the columns of a list of clips hold: by their names, or by the evidence of the rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from flowtts_core.errors import ConfigError, TextError
from flowtts_core.text.books.columns import ID_NAMES, TEXT_NAMES

UNUSED = "-"
ROLES = ("id", "audio", "text", "normalised", "speaker", "language", UNUSED)
NAMES = {  # of columns, the preferred first
    "id": ID_NAMES,
    "audio": (
        *("audio", "audio_filepath", "audio_file", "audio_path", "file_name", "filename", "wav_path", "wav_file"),
        *("wav", "file", "path"),
    ),
    "text": TEXT_NAMES,
    "speaker": ("speaker", "speaker_id", "speaker_name", "spk", "spk_id", "client_id"),
    "language": ("language", "lang", "locale"),
}
_CODE = re.compile(r"[A-Za-z]{2}([-_][A-Za-z]{2})?")
_DECIMAL = re.compile(r"-?\d+[.,]\d+")
_ENOUGH = 50  # rows that are looked at for what costs time


@dataclass(frozen=True)
class Reading:
    """What the user says about a corpus; all empty: the corpus is looked at.

    Attributes:
        layout: a name of `jobs.corpus.clips.LAYOUTS`.
        columns: a role (`ROLES`) for each column of a list without names.
        text, audio, speaker: names of columns.
    """

    layout: str = ""
    columns: tuple[str, ...] = ()
    text: str = ""
    audio: str = ""
    speaker: str = ""

    def __post_init__(self) -> None:
        unknown = [role for role in self.columns if role not in ROLES]
        given = [role for role in self.columns if role != UNUSED]
        remedy = f"name each column, in order: {', '.join(ROLES)} ({UNUSED}: not used), as --columns id,speaker,text"
        if unknown:
            raise ConfigError(f"--columns: unknown column {unknown[0]!r}", remedy)
        if self.columns and (len(given) != len(set(given)) or not {"id", "audio"} & {*given} or "text" not in given):
            raise ConfigError(f"--columns {','.join(self.columns)}: needs id or audio, and text, each once", remedy)

    @property
    def names(self) -> dict[str, str]:
        """Return the names of columns that were given, by role."""
        return {role: name for role in ("text", "audio", "speaker") if (name := getattr(self, role))}


def by_name(names: Iterable[str], reading: Reading, what: str) -> dict[str, str]:
    """Return the name of the column of each role that there is.

    Raises:
        ConfigError: for a column that was named and is not there, or for `--columns`, which is for lists without names.
        TextError: when no column, or more than one, can be the text, or none names the audio.
    """
    names = list(names)
    there = f"{what}: its columns are {', '.join(names) or 'none'}"
    if reading.columns:
        raise ConfigError(
            f"{there}: --columns is for lists without names", "use --text-column, --audio-column, --speaker-column"
        )
    for role, name in reading.names.items():
        if name not in names:
            raise ConfigError(f"{there}; there is no {name!r}", f"name one of them with --{role}-column")
    found: dict[str, str] = {}
    for role, known in NAMES.items():
        fitting = [name for wanted in known for name in names if name.lower() == wanted]
        if role in reading.names:
            found[role] = reading.names[role]
        elif role == "text" and len(fitting) > 1 and fitting[0] != "text":
            raise TextError(f"{there}; the text may be {' or '.join(fitting)}", "choose with --text-column")
        elif fitting:
            found[role] = fitting[0]
    for role, option in (("text", "--text-column"), ("audio", "--audio-column")):
        if role not in found and not (role == "audio" and "id" in found):
            raise TextError(f"{there}; none is known to hold the {role}", f"name it with {option}")
    return found


def is_header(cells: Sequence[str], reading: Reading) -> bool:
    """Return whether the first line of a list names its columns."""
    names = {cell.strip().lower() for cell in cells}
    if reading.names:
        return {name.lower() for name in reading.names.values()} <= names
    return bool(names & {*NAMES["text"]}) and bool(names & {*NAMES["audio"], *NAMES["id"]})


def by_evidence(rows: Sequence[Sequence[str]], has_audio: Callable[[str], bool]) -> tuple[str, ...] | None:
    """Return the role of each column of a list without names; None where the rows do not decide it.

    The id or path is what names audio files; a speaker is a word that comes again and again; of two columns that are alike the
    second is the normalised text.

    Args:
        rows: cells; rows of other widths than most are left out.
        has_audio: whether an id or path names an audio file.
    """
    width = usual_width(rows)
    if width < 2:
        return None
    whole = [row for row in rows if len(row) == width]
    columns = [_Column([row[i].strip() for row in whole]) for i in range(width)]
    found = [sum(map(has_audio, column.some)) / max(1, len(column.some)) for column in columns]
    key = found.index(max(found))
    if not found[key] and not columns[key].one_word:
        return None
    rest = [i for i in range(width) if i != key and columns[i].values]
    roles = _roles_of({i: columns[i] for i in rest})
    if roles is None:
        return None
    return tuple(columns[i].key_role if i == key else roles.get(i, UNUSED) for i in range(width))


def usual_width(rows: Sequence[Sequence[str]]) -> int:
    """Return how many columns most rows have; the larger of two numbers that are equally common."""
    widths = [len(row) for row in rows]
    return max(set(widths), key=lambda width: (widths.count(width), width), default=0)


@dataclass(frozen=True)
class _Column:
    cells: list[str]

    @property
    def values(self) -> list[str]:
        return [cell for cell in self.cells if cell]

    @property
    def some(self) -> list[str]:
        """Cells from everywhere in the list."""
        return self.values[:: -(-len(self.values) // _ENOUGH) or 1]

    @property
    def key_role(self) -> str:
        paths = sum("/" in cell or "\\" in cell or bool(re.search(r"\.\w{3,4}$", cell)) for cell in self.some)
        return "audio" if 2 * paths > len(self.some) else "id"

    @property
    def one_word(self) -> bool:
        return not any(re.search(r"\s", value) for value in self.values)

    @property
    def distinct(self) -> int:
        return len({*self.values})

    @property
    def names_speakers(self) -> bool:
        """Words that come again, which are no decimal numbers."""
        count = len(self.values)
        few = self.distinct <= max(count / 2, count - 1 if count < 8 else 0)
        return self.one_word and few and not all(map(_DECIMAL.fullmatch, self.values))

    @property
    def names_people(self) -> bool:
        """Short phrases that come again and again: first and last names, perhaps."""
        count = len(self.values)
        return count >= 8 and not self.one_word and self.distinct <= count / 4 and max(map(len, self.values)) <= 40

    @property
    def codes(self) -> bool:
        return all(map(_CODE.fullmatch, self.values))

    @property
    def spoken(self) -> bool:
        """Whether it may hold texts: not numbers alone, nor a single word for all rows."""
        numbers = all(re.fullmatch(r"[\d.,-]+", value) for value in self.values)
        return not numbers and not (self.one_word and self.distinct == 1 and len(self.values) > 1)


def _roles_of(columns: Mapping[int, _Column]) -> dict[int, str] | None:
    """Return the roles of the columns beside the id; None where that stays open."""
    numbers = list(columns)
    if len(numbers) == 2 and _alike(*columns.values()):
        return _texts(columns, numbers)
    words = [i for i in numbers if columns[i].names_speakers] if len(numbers) > 1 else []
    languages = [i for i in words if columns[i].codes]
    speakers = [i for i in words if i not in languages]
    if not words and len(numbers) > 1:
        speakers = [i for i in numbers if columns[i].names_people]
    if len(speakers) > 1 or len(languages) > len(speakers):  # codes alone may be languages, or initials of speakers
        return None
    texts = _texts(columns, [i for i in numbers if i not in speakers and i not in languages])
    if texts is None:
        return None
    return {**texts, **dict.fromkeys(speakers, "speaker"), **dict.fromkeys(languages, "language")}


def _texts(columns: Mapping[int, _Column], numbers: list[int]) -> dict[int, str] | None:
    if not numbers or not columns[numbers[0]].spoken:
        return None
    if len(numbers) == 1:
        return {numbers[0]: "text"}
    if len(numbers) == 2 and _alike(columns[numbers[0]], columns[numbers[1]]):
        return {numbers[0]: "text", numbers[1]: "normalised"}
    return None


def _alike(first: _Column, second: _Column) -> bool:
    """Return whether most rows say the same in both columns, as a text and its normalised form do."""
    pairs = [(a, b) for a, b in zip(first.cells, second.cells, strict=False) if a and b]
    pairs = pairs[:: -(-len(pairs) // _ENOUGH) or 1]
    return bool(pairs) and sum(map(_likeness, *zip(*pairs, strict=True))) / len(pairs) >= 0.4


def _likeness(a: str, b: str) -> float:
    """Return the share of common words, or of common characters where there are no spaces."""
    one, other = ({*re.findall(r"\w+", text.casefold())} for text in (a, b))
    if min(len(one), len(other)) > 1:
        return len(one & other) / min(len(one), len(other))
    return SequenceMatcher(None, a.casefold(), b.casefold(), autojunk=False).ratio()
