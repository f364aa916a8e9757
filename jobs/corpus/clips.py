"""The clips of a corpus, in whichever of the known layouts it is: `LAYOUTS` has an entry for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from flowtts_core.errors import ConfigError, TextError
from jobs.corpus.columns import Reading, is_header
from jobs.corpus.folders import has_texts, is_kaldi, is_vctk, read_kaldi, read_texts, read_vctk
from jobs.corpus.lists import is_job, read_job, read_jsonl, read_list, read_parquet
from jobs.corpus.source import AUDIO_SUFFIXES as AUDIO_SUFFIXES
from jobs.corpus.source import Corpus
from jobs.corpus.source import SourceClip as SourceClip
from jobs.corpus.source import audio_of as audio_of
from jobs.corpus.text_lists import FORMS, csv_cells, delimiter_of

LISTS = (".csv", ".txt", ".tsv")


@dataclass(frozen=True)
class Layout:
    """A way to keep a corpus.

    Attributes:
        says: what is where.
        find: returns the files to read of a source; none where it is not of this layout.
        read: makes the corpus of those files.
    """

    says: str
    find: Callable[[Path, Reading], list[Path]]
    read: Callable[[list[Path], Reading], Corpus]


def read_clips(source: Path, reading: Reading | None = None) -> list[SourceClip]:
    """Read the clips of a corpus: those of `read_corpus`."""
    return read_corpus(source, reading).clips


def read_corpus(source: Path, reading: Reading | None = None) -> Corpus:
    """Read the clips of a corpus in its own order. A repeated id, or no speaker where others have one, is a problem.

    Args:
        reading: what the user says of it; the rest is looked at.

    Raises:
        TextError: when the source is of no known layout, lists no clip, or does not show which column is which.
        ConfigError: when what the user said does not fit it.
    """
    source, reading = source.absolute(), reading or Reading()
    if not source.exists():
        raise TextError(f"{source}: no such file or folder", f"give {_forms()}")
    corpus = _forced(source, reading) if reading.layout else _recognised(source, reading)
    if not corpus.clips:
        raise TextError(f"{source}: lists no clips", "fill it, or give another corpus")
    return replace(corpus, clips=_mark_unnamed(_mark_repeated(corpus.clips)))


def _recognised(source: Path, reading: Reading) -> Corpus:
    for name in ("flowtts", "kaldi", "vctk", "list", "parquet", "jsonl", "texts"):
        if files := LAYOUTS[name].find(source, reading):
            return LAYOUTS[name].read(files, reading)
    raise TextError(f"{source}: not a corpus", f"give {_forms()}")


def _forced(source: Path, reading: Reading) -> Corpus:
    if reading.layout not in LAYOUTS:
        raise ConfigError(f"--layout {reading.layout}: no such layout", f"use one of: {', '.join(LAYOUTS)}")
    layout = LAYOUTS[reading.layout]
    files = layout.find(source, reading)
    if not files:
        raise TextError(f"{source}: not of the layout {reading.layout}: {layout.says}", "leave --layout out")
    corpus = layout.read(files, reading)
    if corpus.layout != reading.layout and reading.layout != "list":
        raise ConfigError(f"{corpus.source}: its columns are of the layout {corpus.layout}", "leave --layout out")
    return corpus


def _forms() -> str:
    return f"a folder or a list of one of these layouts: {', '.join(LAYOUTS)} (flowtts prepare --help says more)"


def _mark_repeated(clips: list[SourceClip]) -> list[SourceClip]:
    seen: Counter[str] = Counter()
    marked = []
    for clip in clips:
        seen[clip.id] += 1
        repeated = seen[clip.id] > 1 and not clip.problem
        marked.append(replace(clip, problem="its id was used before") if repeated else clip)
    return marked


def _mark_unnamed(clips: list[SourceClip]) -> list[SourceClip]:
    """Set clips without a speaker aside where others have one: they would be taken for one speaker more."""
    if not any(clip.speaker for clip in clips if not clip.problem):
        return clips
    problem = "no speaker, where other clips have one"
    return [clip if clip.speaker or clip.problem else replace(clip, problem=problem) for clip in clips]


def _text_list(source: Path, reading: Reading) -> list[Path]:
    """Return the list of a folder, or the source itself where it is one."""
    if source.is_file():
        return [source] if source.suffix.lower() in LISTS else []
    named = [source / f"metadata{suffix}" for suffix in LISTS if (source / f"metadata{suffix}").is_file()]
    if named or _parquet(source, reading) or _json_lists(source):
        return named[:1]
    files = (file for file in sorted(source.iterdir()) if file.suffix.lower() in LISTS and file.is_file())
    return _only(source, [file for file in files if _is_list(file, reading)])


def _is_list(file: Path, reading: Reading) -> bool:
    """Return whether the first line of a file has columns; the text of an audio file beside it is no list."""
    if any(file.with_suffix(suffix).exists() for suffix in AUDIO_SUFFIXES):
        return False
    with file.open(encoding="utf-8-sig", errors="replace", newline="\n") as opened:
        first = next((line for line in opened if line.strip()), "")
    sign = delimiter_of(first)
    return sign != "," or file.suffix.lower() != ".txt" or is_header(csv_cells(first, sign), reading)


def _only(folder: Path, files: list[Path]) -> list[Path]:
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:9])
        raise TextError(f"{folder}: holds several lists: {names}", f"give one of them, as {files[0]}, or join them")
    return files


def _json_list(source: Path, reading: Reading) -> list[Path]:
    if source.is_file():
        return [source] if source.suffix.lower() in (".jsonl", ".json") else []
    return _only(source, _json_lists(source))


def _json_lists(folder: Path) -> list[Path]:
    """Return the .jsonl files of a folder; without them, the .json files that are NeMo's manifests."""
    return sorted(folder.glob("*.jsonl")) or [file for file in sorted(folder.glob("*.json")) if _is_manifest(file)]


def _is_manifest(file: Path) -> bool:
    with file.open("rb") as opened:
        return b'"audio_filepath"' in opened.readline(100_000)


def _parquet(source: Path, reading: Reading) -> list[Path]:
    if source.is_file():
        return [source] if source.suffix.lower() == ".parquet" else []
    return sorted([*source.glob("*.parquet"), *source.glob("audio/*.parquet"), *source.glob("data/*.parquet")])


def _folder_if(fits: Callable[[Path], bool], source: Path, reading: Reading) -> list[Path]:
    return [source] if source.is_dir() and fits(source) else []


def _read_folder(read: Callable[[Path], Corpus], files: list[Path], reading: Reading) -> Corpus:
    if reading.columns or reading.names:
        raise ConfigError(f"{files[0]}: a corpus of folders and tables has no columns to name", "leave the option out")
    return read(files[0])


def _read_list(form: str, files: list[Path], reading: Reading) -> Corpus:
    if form and reading.columns:
        raise ConfigError("--layout and --columns say the same", "give one of them")
    return read_list(files[0], reading, form)


def _folder(says: str, fits: Callable[[Path], bool], read: Callable[[Path], Corpus]) -> Layout:
    return Layout(says, partial(_folder_if, fits), partial(_read_folder, read))


def _list(says: str, form: str = "") -> Layout:
    return Layout(says, _text_list, partial(_read_list, form))


def _json(says: str) -> Layout:
    return Layout(says, _json_list, lambda files, reading: read_jsonl(files[0], reading))


LAYOUTS = {
    **{name: _list(" or ".join("|".join(columns) for columns in forms), name) for name, forms in FORMS.items()},
    "list": _list("lines with | or tabs; --columns, or the rows, say which column is which"),
    "coqui": _list("lines with |, the first names the columns: audio_file|text|speaker_name"),
    "csv": _list("CSV whose first line names the columns: audio, text, speaker"),
    "tsv": _list("the same with tabs: path, sentence, client_id"),
    "audiofolder": Layout(
        "metadata.csv or metadata.jsonl with file_name and transcription",
        lambda source, reading: _text_list(source, reading) or _json_list(source, reading),
        lambda files, reading: (read_jsonl if files[0].suffix == ".jsonl" else read_list)(files[0], reading),
    ),
    "jsonl": _json("a line of JSON each: audio, text, speaker, language, id"),
    "nemo": _json("a manifest: audio_filepath, text, duration, offset, speaker"),
    "parquet": Layout("audio (bytes, path, or both) and text, speaker, language, id", _parquet, read_parquet),
    "flowtts": _folder("what flowtts synthesize and flowtts corpus write", is_job, read_job),
    "kaldi": _folder("wav.scp and text, with utt2spk and segments", is_kaldi, read_kaldi),
    "vctk": _folder("txt/SPEAKER/ID.txt and wav48/SPEAKER/ID.wav", is_vctk, read_vctk),
    "texts": _folder("ID.txt beside each ID.wav, in one folder or in one for each speaker", has_texts, read_texts),
}
