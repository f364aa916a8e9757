"""The page of `flowtts prepare`: the clips that were set aside and the most extreme of those that were kept, to be heard."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from typing import Any

from cluster.storage import Storage
from flowtts_core.audio.files import encode, read_audio, resample
from flowtts_core.config import to_dict
from flowtts_core.errors import AudioError
from flowtts_core.training.corpus_checks import ClipMeasures, kind_of
from flowtts_core.training.example_files import AUDIO, file_name
from flowtts_core.training.prepare import PrepareConfig
from jobs.corpus.prepare_worker import DEADLY
from jobs.corpus.source import PLACE, SourceClip, audio_of
from jobs.templates import fill

OUTLIERS = "outliers.html"
_OF_A_REASON, _EXTREMES = 20, 5  # clips shown
_LONGEST_S = 20.0
_RATE = 24000  # Hz of the page's sounds
_BUDGET = 12_000_000  # bytes of sound; later clips are shown without
_ENDS: dict[str, Callable[[ClipMeasures], float]] = {  # clips with the smallest values are shown
    "slowest": lambda clip: clip.rate,
    "fastest": lambda clip: -clip.rate,
    "softest": lambda clip: clip.lufs,
    "loudest": lambda clip: -clip.lufs,
    "shortest": lambda clip: clip.seconds,
    "longest": lambda clip: -clip.seconds,
    "most silence cut off": lambda clip: -clip.trimmed_s,
    "largest offset": lambda clip: -abs(clip.offset),
}


@dataclass(frozen=True)
class ClipPlace:
    """A clip whose audio is kept: its shard, its row in the shard's audio file, and its measures."""

    shard: int
    row: int
    measures: ClipMeasures


@dataclass(frozen=True)
class ShownClip:
    """A clip on the page.

    Attributes:
        why: the reason for which it was set aside, or in what it is extreme.
        measures: None where its audio was not kept.
        mp3: in base 64; empty where there is no sound, and `silent` says why.
    """

    id: str
    text: str
    why: str
    measures: ClipMeasures | None = None
    mp3: str = ""
    silent: str = ""


def outlier_page(
    storage: Storage,
    source: str,
    places: Sequence[ClipPlace],
    aside: Sequence[Mapping[str, Any]],
    config: PrepareConfig,
) -> str:
    """Return the page. It contains its sounds, as MP3.

    Args:
        places: of all clips whose audio is kept, those of them that were set aside included.
        aside: the lines of the quarantine.
    """
    sounds, by_id = _Sounds(storage), {place.measures.id: place for place in places}
    reasons: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for entry in aside:
        reasons[kind_of(entry["reason"])].append(entry)
    ranked = sorted(reasons.items(), key=lambda pair: -len(pair[1]))
    gone = {entry["id"] for entry in aside}
    kept = [place for place in places if place.measures.id not in gone]
    parts = {"limits": config.limits, "cleaning": config.cleaning}
    return fill(
        "outliers.html.j2",
        source=source,
        groups=[(kind, len(of), [_aside(sounds, entry, by_id) for entry in of[:_OF_A_REASON]]) for kind, of in ranked],
        extremes=[_kept(sounds, place, ", ".join(whys)) for place, whys in _extremes(kept)],
        kept=len(kept),
        aside=len(aside),
        settings={f"{part}.{name}": value for part, of in parts.items() for name, value in to_dict(of).items()},
    )


def _extremes(places: Sequence[ClipPlace]) -> list[tuple[ClipPlace, list[str]]]:
    """Return the clips at the ends of each measure, each once, with what they are extreme in."""
    whys: dict[str, tuple[ClipPlace, list[str]]] = {}
    for name, value in _ENDS.items():
        for place in nsmallest(_EXTREMES, places, key=lambda place: value(place.measures)):
            if value(place.measures):  # nothing cut off, no offset: not extreme
                whys.setdefault(place.measures.id, (place, []))[1].append(name)
    return list(whys.values())


def _kept(sounds: _Sounds, place: ClipPlace, why: str) -> ShownClip:
    text, audio = _stored(sounds.storage, place)
    return ShownClip(place.measures.id, text, why, place.measures, *sounds.of(audio))


def _aside(sounds: _Sounds, entry: Mapping[str, Any], places: Mapping[str, ClipPlace]) -> ShownClip:
    """Return a clip that was set aside: its own audio where it was not kept, else that which was."""
    if "audio" not in entry and entry["id"] in places:
        return _kept(sounds, places[entry["id"]], entry["reason"])
    where = {name: entry[name] for name in PLACE if name in entry}
    clip = SourceClip(entry["id"], entry.get("text", ""), entry.get("audio", ""), **where)
    return ShownClip(clip.id, clip.text, entry["reason"], None, *_source_sound(sounds, clip, entry["reason"]))


def _source_sound(sounds: _Sounds, clip: SourceClip, reason: str) -> tuple[str, str]:
    if reason == DEADLY:
        return "", "not opened here"
    try:
        return sounds.of(next(audio_of([clip])) if clip.path else b"")
    except Exception as error:  # the corpus may be gone by now; the page is made whatever its library raises
        return "", f"{type(error).__name__}: {error}"[:300]


def _stored(storage: Storage, place: ClipPlace) -> tuple[str, bytes]:
    """Return text and audio of a clip; each is a row group of its own."""
    import pyarrow.parquet as pq

    with storage.open(f"{AUDIO}/{file_name(place.shard)}") as file:
        (row,) = pq.ParquetFile(file).read_row_group(place.row, columns=["text", "audio"]).to_pylist()
    return row["text"], row["audio"]


def texts_of(storage: Storage, places: Iterable[ClipPlace]) -> dict[str, str]:
    """Return the texts of clips by id."""
    import pyarrow.parquet as pq

    shards: dict[int, list[ClipPlace]] = defaultdict(list)
    for place in places:
        shards[place.shard].append(place)
    texts: dict[str, str] = {}
    for shard, of in shards.items():
        with storage.open(f"{AUDIO}/{file_name(shard)}") as file:
            column = pq.read_table(file, columns=["text"])["text"].to_pylist()
        texts |= {place.measures.id: column[place.row] for place in of}
    return texts


@dataclass
class _Sounds:
    """Encodes clips for the page, within a budget of bytes."""

    storage: Storage
    spent: int = field(default=0)

    def of(self, audio: bytes | str) -> tuple[str, str]:
        """Return (MP3 in base 64, empty), or (empty, why there is no sound)."""
        if not audio:
            return "", "no audio"
        if self.spent > _BUDGET:
            return "", f"without its sound: the page holds {self.spent / 1e6:.0f} MB already"
        try:
            waveform, rate = read_audio(audio)
        except AudioError as error:
            return "", error.message
        waveform = resample(waveform[: round(_LONGEST_S * rate)], rate, _RATE)
        mp3 = base64.b64encode(encode(waveform, _RATE, ".mp3")).decode()
        self.spent += len(mp3)
        return mp3, ""
