"""Long sounds through a codec in memory that does not grow with them, but for the sound and its codes."""

from __future__ import annotations

import torch
from torch import Tensor

from flowtts_core.codec.base import Codec, DecodeStream, Encoded, EncodeStream
from flowtts_core.codec.loss import LOST
from flowtts_core.errors import AudioError

PIECE_S = 20.0
_MARGIN_S = 1.0  # on either side of a piece, where a frame depends on all others


@torch.inference_mode()
def encode_long(codec: Codec, sound: Tensor, books: int | None = None, piece_s: float = PIECE_S) -> Encoded:
    """Return the codes of one sound [C, S], a batch of one.

    A causal codec, or one of segments, gives the codes of the whole. So does any other whose frames depend on few beside
    them; codes of one whose frames depend on all others are those of pieces that overlap by two seconds.

    Raises:
        AudioError, ConfigError: as `Codec.encode`.
    """
    piece, margin = _sizes(codec, piece_s)
    if sound.shape[-1] <= (piece + 2 * margin) * codec.hop_length:
        return codec.encode(_batch(codec, sound), books=books)
    if codec.causal:
        stream = EncodeStream(codec, books)
        codes = [stream.push(_batch(codec, part)) for part in sound.split(piece * codec.hop_length, -1)]
        return Encoded(torch.cat([*codes, stream.end()], -1))
    if codec.segmented:
        return codec.encode(_batch(codec, sound), books=books)
    frames, codes, sides, weights = codec.frames_of(sound.shape[-1]), [], [], []
    for start in range(0, frames, piece):
        low, high = max(0, start - margin), min(frames, start + piece + margin)
        made = codec.encode(_batch(codec, sound[:, low * codec.hop_length : high * codec.hop_length]), books=books)
        codes.append(made.codes[..., start - low : start - low + piece])
        sides.append(made.side)
        weights.append(codes[-1].shape[-1] / frames)
    side = {
        name: torch.stack([weight * own[name] for weight, own in zip(weights, sides, strict=True)]).sum(0)
        for name in sides[0]
    }  # means over time, as of a speaker
    return Encoded(torch.cat(codes, -1), None, side)


@torch.inference_mode()
def decode_long(codec: Codec, encoded: Encoded, piece_s: float = PIECE_S) -> Tensor:
    """Return the sound [C, S] of one item's codes; pieces as `encode_long` makes them.

    Frames that are `LOST` are concealed, as `DecodeStream` does it, where the codec is causal.

    Raises:
        AudioError: as `Codec.decode`, and for lost frames of a codec that codes whole sounds only.
    """
    piece, margin = _sizes(codec, piece_s)
    codes = encoded.codes
    gaps = bool((codes == LOST).any())
    codec.require_codes(codes, losses=gaps)
    if gaps and not codec.causal:
        raise AudioError(
            "frames are lost, and this codec conceals none: it codes whole sounds only", "use a causal one"
        )
    frames, hop = codes.shape[-1], codec.hop_length
    if not gaps and (frames <= piece + 2 * margin or codec.segmented):
        return _channels(codec, codec.decode(encoded))
    if codec.causal:
        stream = DecodeStream(codec)
        parts = [_channels(codec, stream.push(part)) for part in codes.split(piece, -1)]
        return torch.cat([*parts, _channels(codec, stream.end())], -1)
    parts = []
    for start in range(0, frames, piece):
        low, high = max(0, start - margin), min(frames, start + piece + margin)
        made = _channels(codec, codec.decode(Encoded(codes[..., low:high], None, encoded.side)))
        end = min(start + piece, frames)
        parts.append(made[:, (start - low) * hop : None if end == frames else (end - low) * hop])
    return torch.cat(parts, -1)


def _sizes(codec: Codec, piece_s: float) -> tuple[int, int]:
    """Return the frames of a piece, and those on either side of it."""
    margin = round(_MARGIN_S * codec.frame_rate) if codec.context_frames is None else codec.context_frames
    return max(1, round(piece_s * codec.frame_rate)), margin


def _batch(codec: Codec, sound: Tensor) -> Tensor:
    return sound if codec.channels == 1 else sound[None]


def _channels(codec: Codec, made: Tensor) -> Tensor:
    """[1, S] or [1, C, S] -> [C, S]."""
    return made if codec.channels == 1 else made[0]
