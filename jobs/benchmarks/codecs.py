"""Codecs side by side on held-out recordings: rates, what judges hear of copies, use of codebooks, and cost."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from cluster.machine import Watch, describe, installed
from flowtts_core.audio.files import read_audio, resample, to_int16, write_audio
from flowtts_core.codec.base import DecodeStream, EncodeStream
from flowtts_core.codec.codebook import codebook_use, count_codes
from flowtts_core.codec.files import LoadedCodec, load_codec
from flowtts_core.codec.tokens import books_of, sound_of, tokens_of
from flowtts_core.errors import ConfigError
from flowtts_core.files import write_whole
from flowtts_core.metrics.judges import PanelConfig
from flowtts_core.metrics.parallel import parallel_starmap
from flowtts_core.watermark.attacks import transcoded
from jobs.bar import bar
from jobs.benchmarks.vocoders import RECORDINGS, Recording, find_recordings, judge, sets_of, sound_path, summary

OPUS_KBPS = (6, 12)
CODEC2_BITS = (1200, 3200)
_CODEC2_HZ = 8000
CHALLENGE_SAMPLES = 24_000  # a second at 24 kHz, which a lecture asks to be made 75 tokens, and sound again

Say = Callable[[str], None]


@dataclass(frozen=True)
class Copied:
    """A copy [S] of a sound, what it took, and its codes [Q, T] where it has codebooks."""

    waveform: np.ndarray
    sample_rate: int
    bits: float
    encode_s: float | None = None
    decode_s: float | None = None
    codes: np.ndarray | None = None


class System(Protocol):
    """What codes sounds. `key` changes with what it makes of them."""

    @property
    def name(self) -> str: ...

    @property
    def key(self) -> str: ...

    def copy(self, path: Path) -> Copied: ...


@dataclass(frozen=True)
class Ours:
    """A codec of ours, or an imported one, at so many codebooks."""

    name: str
    loaded: LoadedCodec
    books: int

    @property
    def key(self) -> str:
        return f"{self.loaded.fingerprint}-{self.books}"

    def copy(self, path: Path) -> Copied:
        codec = self.loaded.codec
        waveform, rate = read_audio(path, codec.sample_rate)
        sound = np.stack([waveform] * codec.channels)
        began = time.perf_counter()
        tokens = tokens_of(self.loaded, sound, self.books)
        coded = time.perf_counter()
        made = sound_of(self.loaded, tokens)
        ended = time.perf_counter()
        codes = tokens.encoded.codes[0].numpy()
        bits = codec.bits_per_second(self.books) * codes.shape[-1] / codec.frame_rate
        return Copied(made.mean(0), rate, bits, coded - began, ended - coded, codes)


@dataclass(frozen=True)
class Opus:
    """Opus, the usual codec of speech on the Internet, by FFmpeg's library; bits are those of its packets."""

    kbps: int

    @property
    def name(self) -> str:
        return f"Opus, {self.kbps} kbit/s"

    @property
    def key(self) -> str:
        return f"opus-{self.kbps}"

    def copy(self, path: Path) -> Copied:
        waveform, rate = read_audio(path)
        made, size = transcoded(waveform, rate, "opus", 1000 * self.kbps)
        return Copied(made, rate, 8 * size)


@dataclass(frozen=True)
class Codec2:
    """Codec 2, a codec of amateur radio at 8 kHz, by the programs of its Debian package."""

    bits: int

    @property
    def name(self) -> str:
        return f"Codec2, {self.bits / 1000:g} kbit/s"

    @property
    def key(self) -> str:
        return f"codec2-{self.bits}"

    def copy(self, path: Path) -> Copied:
        waveform, rate = read_audio(path)
        with tempfile.TemporaryDirectory() as folder:
            raw, coded, made = (Path(folder, name) for name in ("a.raw", "a.c2", "b.raw"))
            raw.write_bytes(to_int16(resample(waveform, rate, _CODEC2_HZ)).astype("<i2").tobytes())
            times = []
            for program, source, target in (("c2enc", raw, coded), ("c2dec", coded, made)):
                began = time.perf_counter()
                subprocess.run([program, str(self.bits), source, target], check=True, capture_output=True, timeout=600)
                times.append(time.perf_counter() - began)
            size = coded.stat().st_size
            heard = np.frombuffer(made.read_bytes(), "<i2").astype(np.float32) / 32768
        return Copied(heard, _CODEC2_HZ, 8 * size, times[0], times[1])


def open_codecs(named: Sequence[str], say: Say) -> list[System]:
    """Open `NAME=FOLDER[@KBPS,...]` each, and the usual codecs that are installed.

    Raises:
        ConfigError: for another form, two of one name, or a rate below a codec's.
        VoiceError: for what is no codec.
    """
    systems: list[System] = []
    for one in named:
        name, equals, place = one.partition("=")
        folder, _, rates = place.partition("@")
        if not equals or not name or not folder:
            raise ConfigError(
                f"--codec {one}", "give a name and a place: --codec mine=codecs/mine, or =codecs/mine@6,3"
            )
        loaded = load_codec(Path(folder))
        for rate in rates.split(",") if rates else [None]:
            books = books_of(loaded.codec, None, None if rate is None else _kbps(one, rate)) or loaded.codec.books
            kbps = loaded.codec.bits_per_second(books) / 1000
            systems.append(Ours(f"{name}, {kbps:g} kbit/s", loaded, books))
    if not systems:
        raise ConfigError("no codec to measure", "give one or more: --codec mine=codecs/mine")
    names = [system.name for system in systems]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"--codec: two are named {twice[0]}", "give other names or rates")
    systems += [Opus(kbps) for kbps in OPUS_KBPS]
    if shutil.which("c2enc") and shutil.which("c2dec"):
        systems += [Codec2(bits) for bits in CODEC2_BITS]
    else:
        say("Codec2 is left out: its programs are not there (apt install codec2)")
    return systems


def _kbps(given: str, rate: str) -> float:
    try:
        return float(rate)
    except ValueError:
        raise ConfigError(f"--codec {given}: {rate!r} is no rate in kbit/s", "as in mine=codecs/mine@6,3") from None


def challenge(system: Ours) -> dict[str, Any]:
    """Return what becomes of a second of sound: how many samples and tokens, and how many samples come back."""
    codec = system.loaded.codec
    encoded = codec.encode(torch.zeros(1, codec.channels, CHALLENGE_SAMPLES), books=system.books)
    tokens = encoded.codes[0].numel()
    return {"samples": CHALLENGE_SAMPLES, "tokens": tokens, "back": codec.decode(encoded).shape[-1]}


def first_chunk(loaded: LoadedCodec) -> dict[str, float] | None:
    """Return seconds of sound that a stream needs before its first sound comes, and of computing; None: it does not stream."""
    codec = loaded.codec
    if not codec.causal:
        return None
    encoder, decoder, needed = EncodeStream(codec), DecodeStream(codec), 0
    piece, began = torch.zeros(1, codec.channels, codec.hop_length), time.perf_counter()
    while True:
        needed += codec.hop_length
        codes = encoder.push(piece)
        if codes.shape[-1] and decoder.push(codes).shape[-1]:
            return {"sound_s": needed / codec.sample_rate, "computing_s": time.perf_counter() - began}


@torch.inference_mode()
def make_copies(systems: Sequence[System], recordings: Sequence[Recording], keep: Path) -> None:
    """Write each system's copy of each recording, and beside it its seconds and bits; what is there already is kept."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with bar() as shown:
            task = shown.add_task("copies", total=len(systems) * len(recordings))
            for one in recordings:  # systems in turns, since the machine's other load changes
                for system in systems:
                    if not _taken(keep, system, one).exists():
                        _make(system, one, keep)
                    shown.update(task, advance=1)
    finally:
        torch.set_num_threads(before)


def _taken(keep: Path, system: System, one: Recording) -> Path:
    return sound_path(keep, system.key, one).with_suffix(".json")


def _make(system: System, one: Recording, keep: Path) -> None:
    made = system.copy(one.path)
    seconds = len(made.waveform) / made.sample_rate
    write_audio(sound_path(keep, system.key, one), made.waveform, made.sample_rate)
    facts: dict[str, Any] = {"seconds": seconds, "bits": made.bits}
    facts |= {"encode_s": made.encode_s, "decode_s": made.decode_s}
    facts["codes"] = None if made.codes is None else made.codes.tolist()
    write_whole(_taken(keep, system, one), json.dumps(facts).encode())


def costs(system: System, recordings: Sequence[Recording], keep: Path) -> dict[str, Any]:
    """Return a system's rate, its speed on one thread, and the use of its codebooks, over all clips together."""
    taken = [json.loads(_taken(keep, system, one).read_text(encoding="utf-8")) for one in recordings]
    seconds = sum(one["seconds"] for one in taken)
    found: dict[str, Any] = {"name": system.name, "bits_per_second": sum(one["bits"] for one in taken) / seconds}
    for part in ("encode_s", "decode_s"):
        found[part.replace("_s", "_rtf")] = (
            None if taken[0][part] is None else sum(one[part] for one in taken) / seconds
        )
    if isinstance(system, Ours):
        codec = system.loaded.codec
        counts = sum(count_codes(torch.tensor(one["codes"])[None], max(codec.sizes)) for one in taken)
        assert isinstance(counts, torch.Tensor)
        use = codebook_use(counts)
        frames = int(counts[0].sum())
        found |= {
            "tokens_per_second": codec.frame_rate * system.books,
            "frames": frames,
            "perplexity": use.perplexity.tolist(),
            "used": [float((own > 0).sum()) / size for own, size in zip(counts, codec.sizes, strict=False)],
            "first_chunk": first_chunk(system.loaded),
            "challenge": challenge(system),
            "parameters": sum(weight.numel() for weight in codec.parameters()),
        }
    return found


def judged(
    systems: Sequence[System], recordings: Sequence[Recording], keep: Path, panel: PanelConfig, workers: int | None
) -> dict[str, list[dict[str, Any]]]:
    """Return by system, and for the recordings themselves, what was measured of each clip, in their order.

    Words are compared with those that the recogniser hears in the recording.
    """
    asr = f"-{panel.asr.replace('/', '_')}" if "words" in panel.judges else ""

    def jobs(key: str, texts: Sequence[str]) -> list[tuple[Any, ...]]:
        kept = keep / f"judged{asr}-{key}"
        return [
            (str(sound_path(keep, key, one)), str(one.path), "swift_f0", str(kept / f"{one.key}.json"), panel, text)
            for one, text in zip(recordings, texts, strict=True)
        ]

    first = list(parallel_starmap(judge, jobs(RECORDINGS, [""] * len(recordings)), workers))
    texts = [one.get("heard", "") for one in first]
    todo = [job for system in systems for job in jobs(system.key, texts)]
    found = iter(parallel_starmap(judge, todo, workers))
    return {RECORDINGS: first, **{system.name: [next(found) for _ in recordings] for system in systems}}


def codecs(
    named: Sequence[str],
    folders: Sequence[Path],
    n: int,
    say: Say,
    *,
    asr: str | None = None,
    workers: int | None = None,
    keep: Path | None = None,
    players: Path | None = None,
) -> dict[str, Any]:
    """Measure codecs by their copies of held-out recordings, beside Opus and Codec2.

    Args:
        n: clips of each folder.
        asr: a recogniser, as `flowtts evaluate --asr` takes it; None: words are not compared.
        keep: sounds and figures of each clip stay here, and a cut run goes on.
        players: the HTML page to write.

    Raises:
        ConfigError: for too few clips, and as `open_codecs` and `find_recordings`.
    """
    systems, recordings = open_codecs(named, say), find_recordings(folders, n)
    if len(recordings) < 2:
        raise ConfigError(f"{len(recordings)} clips have no spread", "give 2 or more")
    judges = ("opinions", "naturalness", "copy", "pesq", "speaker", *(("words",) if asr else ()))
    panel = PanelConfig(judges, asr=asr) if asr else PanelConfig(judges)
    with Watch() as watch, nullcontext(str(keep)) if keep else tempfile.TemporaryDirectory() as place:
        say(f"{len(recordings)} recordings through {len(systems)} codecs")
        make_copies(systems, recordings, Path(place))
        say("judging")
        rows = judged(systems, recordings, Path(place), panel, workers)
        figures = {
            "benchmark": "codecs",
            "asr": asr,
            "systems": [costs(system, recordings, Path(place)) for system in systems],
            "sets": {name: summary(rows, places, {}) for name, places in sets_of(recordings).items()},
            "clips": [{"set": one.set, "file": one.path.name} for one in recordings],
            "rows": {name: [one["values"] for one in own] for name, own in rows.items()},
        }
        if players is not None:
            from jobs.benchmarks.codecs_page import write_players

            keys = {RECORDINGS: RECORDINGS, **{system.name: system.key for system in systems}}
            sounds = [{name: sound_path(Path(place), key, one) for name, key in keys.items()} for one in recordings]
            write_players(players, figures, sounds)
    packages = ("speechmos", "distillmos", "pystoi", "pesq", "resemblyzer", "faster-whisper", "torch", "av")
    versions = {name: installed(name) for name in packages}
    return {**figures, "machine": describe(), "versions": versions, "busy": watch.busy.to_json()}
