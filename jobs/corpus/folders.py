"""Corpora whose folders say what belongs together: Kaldi's tables, VCTK, and texts beside the audio."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flowtts_core.errors import TextError
from jobs.corpus.find_audio import AudioFinder
from jobs.corpus.lists import read_lines
from jobs.corpus.source import AUDIO_SUFFIXES, Corpus, SourceClip

_TEXTS = (".normalized.txt", ".txt", ".lab")  # LibriTTS's normalised text goes before the original one
_NO_SPEAKERS = ("wavs", "wav", "audio", "clips", "train", "test", "dev", "val", "valid", "eval")


def read_kaldi(folder: Path) -> Corpus:
    """Read wav.scp, text, and where they are there utt2spk and segments. Commands in wav.scp are not run.

    Raises:
        TextError: for a line without a value, or an utterance that a table names twice.
    """
    audio, texts = _table(folder / "wav.scp"), _table(folder / "text")
    speakers = _table(folder / "utt2spk") if (folder / "utt2spk").is_file() else {}
    cuts = _table(folder / "segments") if (folder / "segments").is_file() else None
    utterances = audio if cuts is None else cuts
    finder = AudioFinder(folder, above=3)  # Kaldi's paths start where its recipe runs: above data/train
    clips = []
    for key in dict.fromkeys([*texts, *utterances]):
        recording, start, seconds, problem = _cut(key, cuts)
        place = audio.get(recording, "")
        problem = problem or _unusable(key, recording, place, texts)
        clip = SourceClip(key, texts.get(key, ""), "" if problem else str(finder.find(place)), speakers.get(key, ""))
        clips.append(SourceClip(**{**clip.to_json(), "problem": problem, "start": start, "seconds": seconds}))
    names = ["id", "audio (wav.scp)", "text (text)", *(["speaker (utt2spk)"] if speakers else [])]
    names += ["times (segments)"] if cuts is not None else []
    rows = []
    for clip in clips[:3]:
        cells = [clip.id, audio.get(_cut(clip.id, cuts)[0], ""), clip.text, *([clip.speaker] if speakers else [])]
        rows.append((*cells, *([cuts.get(clip.id, "")] if cuts is not None else [])))
    return Corpus("kaldi", folder, tuple(names), tuple(rows), clips)


def _table(file: Path) -> dict[str, str]:
    """Return the lines `KEY VALUE` of a file."""
    found: dict[str, str] = {}
    for number, line in enumerate(read_lines(file), 1):
        if line.strip():
            key, *value = line.strip(" \t").replace("\t", " ").split(" ", 1)
            if key in found:
                raise TextError(f"{file}, line {number}: {key} was there before", "leave one of the two out")
            found[key] = value[0].strip() if value else ""
    return found


def _cut(key: str, cuts: dict[str, str] | None) -> tuple[str, float, float, str]:
    """Return the recording of an utterance, where it begins, its seconds (0: all of it), and what is wrong with that."""
    if cuts is None:
        return key, 0.0, 0.0, ""
    recording, *times = cuts.get(key, "").split() or [""]
    try:
        start, end = map(float, times)
    except ValueError:
        return recording, 0.0, 0.0, f"segments: {key}: not `utterance recording start end`"
    if not 0 <= start < end:
        return recording, 0.0, 0.0, f"segments: {key}: from {start:g} s to {end:g} s"
    return recording, start, end - start, ""


def _unusable(key: str, recording: str, place: str, texts: dict[str, str]) -> str:
    if key not in texts:
        return f"{key} has no line in text"
    if not place:
        return f"{recording} has no file in wav.scp"
    if place.endswith("|"):
        return f"wav.scp: {recording}: a command, which is not run: convert the audio to files first"
    if ".ark:" in place:
        return f"wav.scp: {recording}: in a Kaldi archive: convert the audio to files first"
    return ""


def read_vctk(folder: Path) -> Corpus:
    """Read txt/SPEAKER/ID.txt and wav48*/SPEAKER/ID.wav, or ID_mic1.flac."""
    audio = _vctk_audio(folder)
    clips = []
    for file in sorted((folder / "txt").glob("*/*.txt")):
        places = AudioFinder(audio / file.parent.name)
        name = next((name for name in (f"{file.stem}_mic1", file.stem) if places.has(name)), file.stem)
        clips.append(SourceClip(file.stem, _text(file), str(places.find(name)), file.parent.name))
    columns = ("speaker (folder)", "audio", "text (txt/)")
    rows = tuple((clip.speaker, Path(clip.path).name, clip.text) for clip in clips[:3])
    return Corpus("vctk", folder, columns, rows, clips)


def _vctk_audio(folder: Path) -> Path:
    return next((found for found in sorted(folder.glob("wav*")) if found.is_dir()), folder / "wav48")


def read_texts(folder: Path) -> Corpus:
    """Read audio with a text beside each file, ID.wav and ID.txt. Where there are several folders, each is a speaker's.

    Raises:
        TextError: when folders are named as parts of a corpus are, not as speakers.
    """
    files = sorted(_audio_files(folder))
    tops = {file.relative_to(folder).parts[0] for file in files if file.parent != folder}
    parts = sorted(tops & {*_NO_SPEAKERS})
    several = len(tops) > 1 or (bool(tops) and any(file.parent == folder for file in files))
    if several and parts:
        raise TextError(
            f"{folder}: texts beside the audio in several folders, of which {parts[0]} is no speaker",
            f"give one folder, as {folder / parts[0]}, or a list with audio, text and speaker",
        )
    clips = []
    for file in files:
        name = file.relative_to(folder).with_suffix("").as_posix()
        beside = _text_of(file)
        speaker = name.split("/")[0] if several and "/" in name else ""
        clips.append(
            SourceClip(name, _text(beside), str(file), speaker)
            if beside
            else SourceClip(name, "", str(file), speaker, problem=f"no {file.stem}.txt beside it")
        )
    columns = (*(["speaker (folder)"] if several else []), "audio", "text (file beside it)")
    rows = [(*([clip.speaker] if several else []), Path(clip.path).name, clip.text) for clip in clips[:3]]
    return Corpus("texts", folder, columns, tuple(rows), clips)


def is_kaldi(folder: Path) -> bool:
    return all((folder / name).is_file() for name in ("wav.scp", "text"))


def is_vctk(folder: Path) -> bool:
    return (folder / "txt").is_dir() and _vctk_audio(folder).is_dir()


def has_texts(folder: Path) -> bool:
    """Return whether an audio file in a folder, or in folders below, has a text beside it."""
    return folder.is_dir() and any(_text_of(file) for file in _audio_files(folder))


def _audio_files(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES)


def _text_of(file: Path) -> Path | None:
    beside = (file.with_name(f"{file.stem}{suffix}") for suffix in _TEXTS)
    return next((text for text in beside if text.is_file()), None)


def _text(file: Path) -> str:
    return " ".join(read_lines(file)).strip()
