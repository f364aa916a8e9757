"""Many sounds to a folder of Parquet files of codes: each sound is there once, or listed with the reason why not."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.storage import Storage
from flowtts_core.errors import AudioError, ConfigError, OutputError
from jobs.corpus.shards import (
    Made,
    do_tasks,
    find_sounds,
    journal_of,
    make_files,
    parquet_bytes,
    read_note,
    shard_name,
    shards_of,
    storage_of,
    tried,
)
from jobs.corpus.source import SourceClip
from jobs.synthesis.webdataset import TARS, add_member, key_of, tar_name

if TYPE_CHECKING:
    from flowtts_core.codec.files import LoadedCodec

CARD, QUARANTINE, KIND = "tokens.json", "quarantine.jsonl", "tokens"


@dataclass(frozen=True)
class Coded:
    """What became of the sounds.

    Attributes:
        failed: how many are in the quarantine.
        kept: files of an earlier run that were whole.
    """

    output: str
    codec: str
    sounds: int
    failed: int
    hours: float
    frames: int
    kbps: float
    files: int
    kept: int
    wall_s: float


def encode_corpus(
    inputs: Sequence[str],
    output: str,
    codec_folder: Path,
    books: int | None,
    *,
    workers: int | None = None,
    address: str | None = None,
    sounds_per_file: int = 256,
    webdataset: bool = False,
    overwrite: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Coded:
    """Code sounds into a folder or an `s3://` place; files that an interrupted run finished are kept.

    Sound i goes into file `i // sounds_per_file`, whoever codes it. `tokens.json` is written last: a folder without it is not
    finished.

    Args:
        inputs: sounds, folders of sounds, globs, `s3://` places, or Parquet files with a column of audio.
        codec_folder: which the workers must see too.
        webdataset: also write each file's codes as a tar.

    Raises:
        ConfigError: where two sounds have one name, or a Parquet file has no audio.
        OutputError: when the place holds something else, or another run is at work there.
    """
    from flowtts_core.codec.files import load_codec

    began = time.perf_counter()
    loaded = load_codec(codec_folder)
    books = loaded.codec.require_books(books)
    clips, stamps = find_sounds(inputs, output)
    require_distinct(clips)
    storage = storage_of(output)
    settings = [loaded.fingerprint, books, *([TARS] if webdataset else [])]
    shards = shards_of(KIND, clips, stamps, settings, sounds_per_file)
    make = partial(ShardEncoder, str(codec_folder.absolute()), books, storage, webdataset)
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
        return _finish(storage, made, loaded, books, output, time.perf_counter() - began)


def require_distinct(clips: list[SourceClip]) -> None:
    """Raise ConfigError where two sounds have one name."""
    names: dict[str, str] = {}
    for clip in clips:
        if clip.id in names:
            raise ConfigError(
                f"two sounds are named {clip.id!r}: in {names[clip.id]} and {clip.path}",
                "rename one, or give folders apart",
            )
        names[clip.id] = clip.path


def _finish(storage: Storage, made: Made, loaded: LoadedCodec, books: int, output: str, wall_s: float) -> Coded:
    """Write the quarantine and, last, the card."""
    codec, ordered = loaded.codec, made.notes
    aside = [entry for note in ordered for entry in note["set_aside"]]
    storage.write(QUARANTINE, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in aside).encode())
    card = {
        "codec": loaded.fingerprint,
        "codec_card": loaded.card,
        "sample_rate": codec.sample_rate,
        "frame_rate": codec.frame_rate,
        "codebooks": list(codec.sizes[:books]),
        "bits_per_second": codec.bits_per_second(books),
        "sounds": sum(note["rows"] for note in ordered),
        "set_aside": len(aside),
        "files": made.files,
    }
    storage.write(CARD, (json.dumps(card, indent=1, ensure_ascii=False) + "\n").encode())
    samples = sum(note["samples"] for note in ordered)
    return Coded(
        output=output,
        codec=loaded.fingerprint,
        sounds=card["sounds"],
        failed=len(aside),
        hours=samples / codec.sample_rate / 3600,
        frames=sum(note["frames"] for note in ordered),
        kbps=codec.bits_per_second(books) / 1000,
        files=len(made.files),
        kept=made.kept,
        wall_s=round(wall_s, 2),
    )


class ShardEncoder:
    """Codes the sounds of a shard into its file, which holds its own record: what it was made of, and what was set aside."""

    def __init__(self, codec_folder: str, books: int, storage: Storage, webdataset: bool = False) -> None:
        import torch

        from flowtts_core.codec.files import load_codec

        torch.set_num_threads(1)
        self._loaded, self._books, self._storage = load_codec(Path(codec_folder)), books, storage
        self._webdataset = webdataset

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        """Write the file of a task: `index`, `print` and `clips`."""
        index, clips = int(task["index"]), [SourceClip(**clip) for clip in task["clips"]]
        journal = journal_of(self._storage, index, clips)
        rows, aside = [], []
        for clip, row in tried(clips, journal, self._row):
            if isinstance(row, AudioError):
                aside.append({"id": clip.id, "reason": row.message, "audio": clip.path, **clip.place})
            else:
                rows.append(row)
        codec = self._loaded.codec
        note = {
            "print": task["print"],
            "codec": self._loaded.fingerprint,
            "sample_rate": codec.sample_rate,
            "frame_rate": codec.frame_rate,
            "rows": len(rows),
            "samples": sum(row["samples"] for row in rows),
            "frames": sum(len(row["codes"]) for row in rows),
            "set_aside": aside,
        }
        if self._webdataset:  # before the Parquet, which says that both are there
            self._storage.write(tar_name(index), _tar(rows, note))
        self._storage.write(shard_name(KIND, index), self._bytes(rows, note))
        journal.close()
        return {"index": index, "note": note}

    def _row(self, clip: SourceClip, audio: bytes | str) -> dict[str, Any]:
        from flowtts_core.audio.files import read_channels
        from flowtts_core.codec.tokens import LONGEST_S, tokens_of

        codec = self._loaded.codec
        sound = read_channels(audio, codec.channels, codec.sample_rate, longest_s=LONGEST_S)
        tokens = tokens_of(self._loaded, sound, self._books)
        side = {f"side.{name}": values[0].tolist() for name, values in tokens.encoded.side.items()}
        row = {"id": clip.id, "samples": tokens.note.samples, "loudness_lufs": tokens.note.loudness_lufs}
        return {**row, "codes": tokens.encoded.codes[0].T.tolist(), **side}

    def _bytes(self, rows: list[dict[str, Any]], note: dict[str, Any]) -> bytes:
        """Return the Parquet file: `codes` is a list of frames, each a list of one number for each codebook."""
        import pyarrow as pa

        number = pa.uint16() if max(self._loaded.codec.sizes) <= 1 << 16 else pa.uint32()
        fields = [
            ("id", pa.string()),
            ("samples", pa.int64()),
            ("loudness_lufs", pa.float32()),
            ("codes", pa.list_(pa.list_(number, self._books))),
        ]
        sides = sorted({name for row in rows for name in row if name.startswith("side.")})
        schema = pa.schema([*fields, *((name, pa.list_(pa.float32())) for name in sides)])
        return parquet_bytes(pa.Table.from_pylist(rows, schema), note)


def _tar(rows: Iterable[dict[str, Any]], note: dict[str, Any]) -> bytes:
    """Return a WebDataset of KEY.codes.npy [Q, T] and KEY.json, sorted by key."""
    import numpy as np

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for row in sorted(rows, key=lambda row: key_of(row["id"])):
            key, codes = key_of(row["id"]), np.array(row["codes"])
            written = io.BytesIO()
            np.save(written, codes.T.astype(np.uint16 if codes.max(initial=0) < 1 << 16 else np.uint32))
            told = {name: value for name, value in row.items() if name != "codes"}
            told |= {name: note[name] for name in ("codec", "sample_rate", "frame_rate")}
            add_member(tar, f"{key}.codes.npy", written.getvalue())
            add_member(tar, f"{key}.json", json.dumps(told, ensure_ascii=False).encode())
    return buffer.getvalue()


class ShardDecoder:
    """Decodes a file of codes to sounds, one file each; those that are there already are kept."""

    def __init__(self, codec_folder: str, source: Storage, output: Storage, suffix: str) -> None:
        import torch

        from flowtts_core.codec.files import load_codec

        torch.set_num_threads(1)
        self._loaded, self._source, self._output, self._suffix = load_codec(Path(codec_folder)), source, output, suffix

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        """Decode the file named in a task."""
        import pyarrow.parquet as pq

        from flowtts_core.audio.files import encode

        rate, made = self._loaded.codec.sample_rate, 0
        with self._source.open(task["name"]) as file, pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(16):
                for row in batch.to_pylist():
                    name = file_of(row["id"], self._suffix)
                    if not self._output.exists(name):
                        sound = self._sound(row, task["note"])
                        data = encode(sound[0] if len(sound) == 1 else sound.T, rate, self._suffix)
                        self._output.write(name, data, durable=False)
                    made += 1
        return {"name": task["name"], "sounds": made}

    def _sound(self, row: dict[str, Any], note: dict[str, Any]) -> Any:
        import torch

        from flowtts_core.codec.base import Encoded
        from flowtts_core.codec.tokens import TokenNote, Tokens, sound_of

        side = {name.removeprefix("side."): torch.tensor(row[name])[None] for name in row if name.startswith("side.")}
        side = {name: values.long() if name == "frames" else values for name, values in side.items()}
        codes = torch.tensor(row["codes"], dtype=torch.int64).T[None]
        own = TokenNote(
            note["codec"], note["sample_rate"], note["frame_rate"], 0.0, row["samples"], row["loudness_lufs"]
        )
        return sound_of(self._loaded, Tokens(Encoded(codes, None, side), own))


def file_of(name: str, suffix: str) -> str:
    """Return the file of a sound, inside the output whatever the sound is named."""
    if not name or "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise OutputError(f"a sound named {name!r} would not lie in the output", "name it otherwise, and code it again")
    return f"{name}{suffix}"


def decode_corpus(
    source: str,
    output: str,
    codec_folder: Path,
    *,
    suffix: str = ".flac",
    workers: int | None = None,
    address: str | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Decode a folder that `encode_corpus` made; return the number of sounds.

    Raises:
        OutputError: where the folder is not finished.
        AudioError: where another codec made it.
    """
    from flowtts_core.codec.files import load_codec

    here, there = storage_of(source), storage_of(output)
    if not here.exists(CARD):
        raise OutputError(f"{source}: no {CARD}, so it is not finished", "run flowtts codec encode to its end")
    card = json.loads(here.read(CARD))
    loaded = load_codec(codec_folder)
    if card["codec"] != loaded.fingerprint:
        raise AudioError(
            f"{source}: codes of the codec {card['codec']}, not of {loaded.fingerprint}",
            "give the codec that made them",
        )
    tasks = []
    for name in card["files"]:
        note = read_note(here, name)
        if note is None:
            raise OutputError(f"{here.path(name)}: missing or damaged", "run flowtts codec encode again: it goes on")
        tasks.append({"name": name, "note": {key: note[key] for key in ("codec", "sample_rate", "frame_rate")}})
    done = 0
    with there.lock():
        there.require_writable()
        make = partial(ShardDecoder, str(codec_folder.absolute()), here, there, suffix)
        for made in do_tasks(make, tasks, address, workers):
            done += made["sounds"]
            report(done, card["sounds"])
    return done
