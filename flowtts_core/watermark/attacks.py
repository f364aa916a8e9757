"""What happens to sound on its way: coding, resampling, noise, cuts. Watermarks are trained and measured against it."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from flowtts_core.audio.files import resample

Attack = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]
"""Waveform [S], its sample rate, random numbers -> waveform [S'], of the same rate."""

_AAC_PRIMING = 1024  # samples that the encoder puts before the first, and no header tells


def coded(waveform: np.ndarray, sample_rate: int, codec: str, bit_rate: int) -> np.ndarray:
    """Encode [S] and decode it again, of the same length and in time: "mp3", "aac" or "opus".

    Opus works at its own rates; other sound is resampled for it and back.
    """
    return transcoded(waveform, sample_rate, codec, bit_rate)[0]


def transcoded(waveform: np.ndarray, sample_rate: int, codec: str, bit_rate: int) -> tuple[np.ndarray, int]:
    """Return what `coded` does, and the bytes of the codec's packets, without those of the container."""
    import av

    name, container = {"mp3": ("libmp3lame", "mp3"), "aac": ("aac", "adts"), "opus": ("libopus", "ogg")}[codec]
    rate = _rate_for(codec, sample_rate)
    sound = resample(waveform.astype(np.float32), sample_rate, rate)
    buffer, size = io.BytesIO(), 0
    with av.open(buffer, "w", format=container) as file:
        stream: Any = file.add_stream(name, rate=rate, layout="mono")
        stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(np.clip(sound, -1, 1)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        context = stream.codec_context
        cut = av.AudioResampler(context.format, "mono", context.rate, frame_size=context.frame_size or 1024)
        for piece in [*cut.resample(frame), *cut.resample(None), None]:
            packets = stream.encode(piece)
            size += sum(packet.size for packet in packets)
            file.mux(packets)
    buffer.seek(0)
    with av.open(buffer, "r") as heard:
        plain = av.AudioResampler("fltp", "mono", rate)
        pieces = [piece for frame in heard.decode(audio=0) for piece in plain.resample(frame)] + plain.resample(None)
    decoded = np.concatenate([piece.to_ndarray()[0] for piece in pieces])
    if codec == "aac":
        decoded = decoded[_AAC_PRIMING:]
    return _as_long(resample(decoded, rate, sample_rate), len(waveform)), size


def _rate_for(codec: str, sample_rate: int) -> int:
    rates = {"opus": (8000, 12000, 16000, 24000, 48000)}.get(codec, (8000, 16000, 22050, 24000, 32000, 44100, 48000))
    return min((rate for rate in rates if rate >= sample_rate), default=rates[-1])


def _as_long(waveform: np.ndarray, samples: int) -> np.ndarray:
    return np.pad(waveform[:samples], (0, max(0, samples - len(waveform)))).astype(np.float32)


def at_rate(waveform: np.ndarray, sample_rate: int, rate: int) -> np.ndarray:
    """Resample [S] to a rate and back, which cuts what lies above half of it."""
    return _as_long(resample(resample(waveform, sample_rate, rate), rate, sample_rate), len(waveform))


def noisy(waveform: np.ndarray, decibels: float, rng: np.random.Generator) -> np.ndarray:
    """Add white noise, so many decibels below the sound."""
    level = float(np.sqrt(np.square(waveform, dtype=np.float64).mean())) * 10 ** (-decibels / 20)
    return (waveform + level * rng.standard_normal(len(waveform))).astype(np.float32)


def band_limited(waveform: np.ndarray, sample_rate: int, low: float, high: float) -> np.ndarray:
    """Keep what lies between two frequencies, with slopes of a tenth of each."""
    hertz = np.fft.rfftfreq(len(waveform), 1 / sample_rate)
    kept = np.clip((hertz - 0.9 * low) / max(0.1 * low, 1e-9), 0, 1) * np.clip(
        (1.1 * high - hertz) / (0.1 * high), 0, 1
    )
    return np.fft.irfft(np.fft.rfft(waveform) * kept, len(waveform)).astype(np.float32)


def at_speed(waveform: np.ndarray, factor: float) -> np.ndarray:
    """Play faster by a factor, as a tape does: pitch rises with it. Linear between samples."""
    places = np.arange(int(len(waveform) / factor)) * factor
    return np.interp(places, np.arange(len(waveform)), waveform).astype(np.float32)


def at_pitch(waveform: np.ndarray, sample_rate: int, semitones: float) -> np.ndarray:
    """Raise pitch and formants and keep the time, by FFmpeg's tempo filter on a tape that runs faster."""
    factor = 2 ** (semitones / 12)
    return _as_long(stretched(at_speed(waveform, factor), sample_rate, 1 / factor), len(waveform))


def stretched(waveform: np.ndarray, sample_rate: int, factor: float) -> np.ndarray:
    """Speak faster by a factor at the same pitch, by FFmpeg's `atempo` (overlap and add of alike pieces)."""
    import av

    graph = av.filter.Graph()
    source = graph.add_abuffer(
        format="fltp", sample_rate=sample_rate, layout="mono", time_base=Fraction(1, sample_rate)
    )
    tempo, sink = graph.add("atempo", f"{factor}"), graph.add("abuffersink")
    source.link_to(tempo)
    tempo.link_to(sink)
    graph.configure()
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(waveform, np.float32)[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts = sample_rate, 0
    graph.push(frame)
    graph.push(None)
    pieces = []
    while True:
        try:
            pieces.append(graph.pull().to_ndarray()[0])
        except (av.BlockingIOError, av.EOFError):
            break
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def echoed(waveform: np.ndarray, sample_rate: int, delay_s: float, share: float) -> np.ndarray:
    """Add one echo, after so many seconds and of this share of the sound."""
    lag = min(len(waveform), int(delay_s * sample_rate))
    late = np.pad(waveform[: len(waveform) - lag], (lag, 0))
    return (waveform + share * late).astype(np.float32)


def loudness_normalised(waveform: np.ndarray, decibels: float) -> np.ndarray:
    """Bring the sound to a level (root of the mean square, in decibels of full scale), and clip what is beyond."""
    level = float(np.sqrt(np.square(waveform, dtype=np.float64).mean()))
    factor = 10 ** (decibels / 20) / level if level > 0 else 1.0
    return np.clip(waveform * factor, -1, 1).astype(np.float32)


def cropped(waveform: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Keep a random piece of this share."""
    kept = max(1, math.ceil(share * len(waveform)))
    begin = int(rng.integers(0, len(waveform) - kept + 1))
    return waveform[begin : begin + kept]


ATTACKS: dict[str, Attack] = {
    "none": lambda x, rate, rng: x,
    "mp3_128": lambda x, rate, rng: coded(x, rate, "mp3", 128_000),
    "mp3_64": lambda x, rate, rng: coded(x, rate, "mp3", 64_000),
    "mp3_32": lambda x, rate, rng: coded(x, rate, "mp3", 32_000),
    "aac_64": lambda x, rate, rng: coded(x, rate, "aac", 64_000),
    "opus_32": lambda x, rate, rng: coded(x, rate, "opus", 32_000),
    "opus_16": lambda x, rate, rng: coded(x, rate, "opus", 16_000),
    "resample_24": lambda x, rate, rng: at_rate(x, rate, 24_000),
    "resample_16": lambda x, rate, rng: at_rate(x, rate, 16_000),
    "resample_8": lambda x, rate, rng: at_rate(x, rate, 8000),
    "noise_30": lambda x, rate, rng: noisy(x, 30, rng),
    "noise_20": lambda x, rate, rng: noisy(x, 20, rng),
    "low_pass": lambda x, rate, rng: band_limited(x, rate, 0, 4000),
    "telephone": lambda x, rate, rng: band_limited(x, rate, 300, 3400),
    "high_pass": lambda x, rate, rng: band_limited(x, rate, 500, rate / 2),
    "speed": lambda x, rate, rng: at_speed(x, (0.95, 1.05)[int(rng.integers(2))]),
    "tempo": lambda x, rate, rng: stretched(x, rate, (0.9, 1.1)[int(rng.integers(2))]),
    "pitch": lambda x, rate, rng: at_pitch(x, rate, (-1, 1)[int(rng.integers(2))]),
    "crop": lambda x, rate, rng: cropped(x, 0.5, rng),
    "echo": lambda x, rate, rng: echoed(x, rate, rng.uniform(0.05, 0.3), 0.3),
    "loudness": lambda x, rate, rng: loudness_normalised(x, -16),
}
"""By name, as they are measured."""
