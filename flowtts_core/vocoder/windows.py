"""Sound made window by window: the samples that a whole mel has, in memory that does not grow with its length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowtts_core.vocoder.base import Vocoder

FRAMES = 512  # of a window, at least


@dataclass(frozen=True)
class Piece:
    """Frames of a mel whose sound is wanted.

    Attributes:
        mel: [M, t] of the whole from its first frame on, as far as it is made: to `context_frames` beyond `end`, or to its end.
        begin, end: frames.
        last: whether the mel ends with `end`.
        start: where sources of sound stand, as `start_of` says; None for a piece that begins the mel.
    """

    mel: Tensor
    begin: int
    end: int
    last: bool
    start: Tensor | None = None


def start_of(vocoder: Vocoder, mel: Tensor, begin: int, earlier: Tensor | None = None) -> Tensor | None:
    """Return where sources stand at the first frame that the sound from frame `begin` on depends on.

    Args:
        mel: as of a `Piece`.
        earlier: what this gave for the piece before.
    """
    return vocoder.start_at(mel, _low(vocoder, begin), earlier)


def _low(vocoder: Vocoder, begin: int) -> int:
    return 0 if vocoder.context_frames is None else max(0, begin - vocoder.context_frames)


def sound_of(vocoder: Vocoder, pieces: Sequence[Piece], *, together: bool = False) -> list[Tensor]:
    """Return the samples [S] of each piece, float32 in [-1, 1]: those that the whole mel has there.

    Args:
        together: make all of them at once, as a GPU likes it.
    """
    device = _device_of(vocoder)
    lows = [_low(vocoder, piece.begin) for piece in pieces]
    parts = [piece.mel[:, low:].T.to(device).float() for piece, low in zip(pieces, lows, strict=True)]  # [t, M]
    starts = [piece.start for piece in pieces]
    made: Sequence[Tensor]
    if together:
        padded = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True).transpose(1, 2)
        lengths = torch.tensor([len(part) for part in parts], device=padded.device)
        begun = [start for start in starts if start is not None]
        made = list(vocoder(padded, lengths, torch.stack(begun) if begun else None).float())
    else:
        made = [
            vocoder(part.T[None], start=None if start is None else start[None])[0].float()
            for part, start in zip(parts, starts, strict=True)
        ]
    hop, found = vocoder.features.hop_length, []
    for piece, low, part, waveform in zip(pieces, lows, parts, made, strict=True):
        end = vocoder.features.samples_of(len(part)) if piece.last else (piece.end - low) * hop
        found.append(waveform[(piece.begin - low) * hop : end].clamp(-1.0, 1.0))
    return found


def window_frames(vocoder: Vocoder) -> int | None:
    """Return the frames of a window: most of what is computed is its own. None: this vocoder makes a mel as a whole."""
    return None if vocoder.context_frames is None else max(FRAMES, 2 * vocoder.context_frames)


@torch.inference_mode()
def sound_in_windows(vocoder: Vocoder, mel: Tensor, frames: int | None = None) -> Iterator[Tensor]:
    """Yield the samples of a mel [M, T], window by window.

    Args:
        mel: of any float type, perhaps a file that is mapped into memory; a window of it is read at a time.
        frames: of a window; by default `window_frames`.
    """
    context, total = vocoder.context_frames, mel.shape[1]
    size = (frames or window_frames(vocoder)) if context is not None else None
    if context is None or size is None:
        yield sound_of(vocoder, [Piece(mel, 0, total, True)])[0]
        return
    start = None
    for begin in range(0, total, size):
        end = min(total, begin + size)
        known = mel[:, : min(total, end + context)]
        start = start_of(vocoder, known, begin, start)
        yield sound_of(vocoder, [Piece(known, begin, end, end == total, start)])[0]


def _device_of(vocoder: Vocoder) -> torch.device:
    for tensor in (*vocoder.parameters(), *vocoder.buffers()):
        return tensor.device
    return torch.device("cpu")
