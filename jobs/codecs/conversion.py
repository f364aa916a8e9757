"""Converts many recordings into a folder of FLAC files, with Parquet files that tell of each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtts_core.errors import AudioError, ConfigError
from jobs.codecs.corpus import QUARANTINE, file_of, require_distinct
from jobs.corpus.shards import (
    find_sounds,
    journal_of,
    make_files,
    parquet_bytes,
    shard_name,
    shards_of,
    storage_of,
    tried,
)
from jobs.corpus.source import SourceClip

if TYPE_CHECKING:
    from cluster.storage import Storage
    from flowtts_core.audio.reference import Reference
    from flowtts_core.watermark.marking import Marking

CARD, KIND, SUFFIX = "converted.json", "converted", ".flac"
SOUNDS_PER_FILE = 64
_VERSION = 1  # of the conversion: what another made is made anew


@dataclass(frozen=True)
class ConvertedCorpus:
    """What became of the recordings.

    Attributes:
        kept: files of an earlier run that were whole.
    """

    output: str
    codec: str
    sounds: int
    set_aside: int
    hours: float
    files: int
    kept: int
    wall_s: float


def convert_corpus(
    inputs: Sequence[str],
    output: str,
    codec_folder: Path,
    voice: Reference | None,
    prosody: Reference | None,
    *,
    same_words: bool | None = None,
    marking: Marking | None = None,
    provenance: dict[str, Any] | None = None,
    workers: int | None = None,
    address: str | None = None,
    overwrite: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> ConvertedCorpus:
    """Convert recordings into `ID.flac` of a folder or an `s3://` place; what an interrupted run finished is kept.

    `converted.json` is written last: a folder without it is not finished.

    Args:
        inputs: as `find_sounds` takes them.
        codec_folder: which the workers must see too.
        voice, prosody, same_words: as `Converter` takes them.
        marking: the watermark; None leaves it out.
        provenance: what the card tells of the recordings that were imitated.

    Raises:
        ConfigError: where two recordings have one name, or the output lies among the inputs.
        OutputError: when the place holds something else, or another run is at work there.
    """
    from flowtts_core.codec.files import load_codec

    began = time.perf_counter()
    _require_apart(inputs, output)
    loaded = load_codec(codec_folder)
    clips, stamps = find_sounds(inputs, output)
    require_distinct(clips)
    for clip in clips:
        file_of(clip.id, SUFFIX)
    storage = storage_of(output)
    digests = [None if one is None else one.clip.digest for one in (voice, prosody)]
    mark = None if marking is None else marking.identity
    shards = shards_of(KIND, clips, stamps, [_VERSION, loaded.fingerprint, digests, same_words, mark], SOUNDS_PER_FILE)
    make = partial(
        ShardConverter, str(codec_folder.absolute()), loaded.fingerprint, voice, prosody, same_words, marking, storage
    )
    with storage.lock():
        made = make_files(
            storage,
            shards,
            make,
            card=CARD,
            workers=workers,
            address=address,
            overwrite=overwrite,
            report=report,
        )
        aside = [entry for note in made.notes for entry in note["set_aside"]]
        lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in aside)
        storage.write(QUARANTINE, lines.encode())
        counts = {"sounds": sum(note["rows"] for note in made.notes), "set_aside": len(aside)}
        hours = round(sum(note["seconds"] for note in made.notes) / 3600, 4)
        card = {"codec": loaded.fingerprint, "watermark": mark, **(provenance or {}), **counts, "hours": hours}
        storage.write(CARD, (json.dumps({**card, "files": made.files}, indent=1, ensure_ascii=False) + "\n").encode())
    return ConvertedCorpus(
        output,
        loaded.fingerprint,
        **counts,
        hours=hours,
        files=len(made.files),
        kept=made.kept,
        wall_s=round(time.perf_counter() - began, 2),
    )


def _require_apart(inputs: Sequence[str], output: str) -> None:
    place = Path(output).absolute()
    for given in inputs:
        if Path(given).is_dir() and place.is_relative_to(Path(given).absolute()):
            raise ConfigError(f"-o {output} lies in {given}, whose recordings are converted", "give a folder beside it")


class ShardConverter:
    """Converts the recordings of a shard, and then writes the Parquet file that tells of them."""

    def __init__(
        self,
        codec_folder: str,
        codec: str,
        voice: Reference | None,
        prosody: Reference | None,
        same_words: bool | None,
        marking: Marking | None,
        storage: Storage,
    ) -> None:
        import torch

        from flowtts_core.codec.convert import Converter
        from flowtts_core.codec.factorised import require_factorised
        from flowtts_core.codec.files import load_codec

        torch.set_num_threads(1)
        loaded = load_codec(Path(codec_folder))
        if loaded.fingerprint != codec:
            raise ConfigError(f"{codec_folder}: another codec than that of the job", "have one on all machines")
        self._converter = Converter(require_factorised(loaded.codec, "convert"), voice, prosody, same_words)
        self._marking, self._storage = marking, storage

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        """Write the files of a task: `index`, `print` and `clips`."""
        index, clips = int(task["index"]), [SourceClip(**clip) for clip in task["clips"]]
        journal = journal_of(self._storage, index, clips)
        rows, aside = list[dict[str, Any]](), list[dict[str, Any]]()
        for clip, row in tried(clips, journal, self._row):
            if isinstance(row, AudioError):
                aside.append({"id": clip.id, "reason": row.message, "audio": clip.path, **clip.place})
            else:
                rows.append(row)
        note = {
            "print": task["print"],
            "rows": len(rows),
            "seconds": round(sum(row["seconds"] for row in rows), 3),
            "set_aside": aside,
        }
        self._storage.write(shard_name(KIND, index), _bytes(rows, note))
        journal.close()
        return {"index": index, "note": note}

    def _row(self, clip: SourceClip, audio: bytes | str) -> dict[str, Any]:
        from flowtts_core.audio.files import encode, read_audio
        from flowtts_core.codec.tokens import LONGEST_S

        waveform, rate = read_audio(audio, longest_s=LONGEST_S)
        made = self._converter.convert(waveform, rate)
        sound = made.waveform
        if self._marking is not None:
            sound = self._marking.marked(sound, made.sample_rate)
        name = file_of(clip.id, SUFFIX)
        self._storage.write(name, encode(sound, made.sample_rate, SUFFIX))
        seconds = len(sound) / made.sample_rate
        return {"id": clip.id, "file": name, "seconds": seconds, "prosody": made.prosody, "source": clip.path}


def _bytes(rows: list[dict[str, Any]], note: dict[str, Any]) -> bytes:
    import pyarrow as pa

    text = pa.string()
    schema = pa.schema([("id", text), ("file", text), ("seconds", pa.float64()), ("prosody", text), ("source", text)])
    return parquet_bytes(pa.Table.from_pylist(rows, schema), note)
