"""What tests read back from audio files: tags, chapters, cover, and loudness."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from flowtts_core.audio.loudness import LoudnessMeter


@dataclass(frozen=True)
class FileInfo:
    """What a file says of itself: tags by lower-case name, chapters in seconds, the cover's bytes, seconds of audio."""

    tags: dict[str, str]
    chapters: tuple[tuple[str, float, float], ...]
    cover: bytes | None
    seconds: float
    codec: str


def read_tags(path: str | Path) -> FileInfo:
    """Read back tags, chapters and cover of any file FFmpeg knows."""
    with av.open(str(path), "r") as container:
        audio = container.streams.audio[0]
        tags = {k.lower(): v for k, v in {**container.metadata, **audio.metadata}.items()}
        marks = tuple(_mark(chapter) for chapter in container.chapters())
        pictures = [s for s in container.streams.video if s.disposition & av.stream.Disposition.attached_pic]
        cover = next((bytes(packet) for packet in _packets(container, pictures)), None)
        return FileInfo(tags, marks, cover, (container.duration or 0) / 1e6, audio.codec_context.name)


def _packets(container: Any, streams: Sequence[Any]) -> Iterator[Any]:
    if streams:
        yield from (packet for packet in container.demux(streams[0]) if packet.size)


def _mark(chapter: Any) -> tuple[str, float, float]:
    base = chapter["time_base"]
    return chapter["metadata"].get("title", ""), float(chapter["start"] * base), float(chapter["end"] * base)


def integrated_loudness(waveform: np.ndarray, sample_rate: int) -> float:
    """LUFS of a whole mono waveform [S]."""
    meter = LoudnessMeter(sample_rate)
    meter.update(waveform)
    return meter.integrated()
