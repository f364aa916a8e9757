"""What a codec is: waveform in, codes of frames out, and back, whole or in pieces."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.codec.loss import FADE_S, LOST, Concealment
from flowtts_core.errors import AudioError, ConfigError
from flowtts_core.nn.share import Share
from flowtts_core.nn.stream import Stream


@dataclass(frozen=True)
class Encoded:
    """The codes of sounds, and what decoding needs beside them.

    Attributes:
        codes: [B, Q, T] int64, from 0; Q may be fewer codebooks than the codec has. Zero behind an item's end.
        lengths: [B] frames of each item; None: all of them.
        side: [B, ...] by name: loudness of segments, the timbre of a speaker.
    """

    codes: Tensor
    lengths: Tensor | None = None
    side: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """What training compares: the sound [B, S] of crops, their codes [B, Q, T], and scalar losses of the codec's own."""

    waveform: Tensor
    codes: Tensor
    losses: dict[str, Tensor]


class Codec(nn.Module, abc.ABC):
    """Contract: `encode(waveform[B, S]) -> Encoded`, `decode(Encoded) -> [B, samples_of(T)]`.

    Padding changes nothing: each item of a batch is coded as alone. Sounds of several channels are [B, C, S].

    Attributes:
        sample_rate, channels: of the sound; `hop_length` samples make a frame.
        sizes: of each codebook.
        least_books: how many codebooks are needed at least; fewer than all make a lower rate.
        segmented: whether it cuts sounds into segments of its own, which are coded apart.
        causal: whether it codes sounds in pieces as they come.
        lookahead: samples beyond a frame's end that its codes wait for, and that its sound waits for, together.
        first_frames: that a stream needs to begin.
        context_frames: how many frames on either side codes and sound depend on; None: on all of them.
        weight_norm: whether it is trained with weight norm, which is folded into the weights that are saved.
    """

    sample_rate: int
    hop_length: int
    sizes: tuple[int, ...]
    channels: int = 1
    least_books: int = 1
    segmented: bool = False
    causal: bool = False
    lookahead: int = 0
    first_frames: int = 1
    context_frames: int | None = None
    weight_norm: bool = False

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.sample_rate / self.hop_length

    @property
    def books(self) -> int:
        """Number of codebooks."""
        return len(self.sizes)

    def bits_per_second(self, books: int | None = None) -> float:
        """Return the rate of the first so many codebooks; None: of all."""
        return self.frame_rate * sum(math.log2(size) for size in self.sizes[:books])

    @property
    def latency_s(self) -> float:
        """Seconds between a sound and its copy, at the least, where it is coded as it comes."""
        return (self.hop_length + self.lookahead) / self.sample_rate

    def frames_of(self, samples: int) -> int:
        """Return the number of frames of a sound."""
        return -(-samples // self.hop_length)

    def samples_of(self, frames: int) -> int:
        """Return the number of samples that so many frames are decoded to."""
        return frames * self.hop_length

    def require_books(self, books: int | None) -> int:
        """Return the number of codebooks to use.

        Raises:
            ConfigError: for a number that the codec cannot use.
        """
        if books is None:
            return self.books
        if not self.least_books <= books <= self.books:
            raise ConfigError(
                f"{books} codebooks: this codec uses {self.least_books} to {self.books}",
                "choose another number, or leave it out",
            )
        return books

    def encode(self, waveform: Tensor, lengths: Tensor | None = None, books: int | None = None) -> Encoded:
        """Return the codes of sounds in about [-1, 1].

        Args:
            waveform: [B, S] or [B, C, S].
            lengths: [B] valid samples; None: all.
            books: how many codebooks to use; None: all.

        Raises:
            AudioError: for a sound without samples, or of another number of channels.
            ConfigError: for a number of codebooks that there is not.
        """
        sound, books = self.with_channels(waveform), self.require_books(books)
        samples = [sound.shape[-1]] * len(sound) if lengths is None else lengths.tolist()
        if min(samples) < 1:
            raise AudioError("a sound without samples has no codes", "leave it out")
        with torch.autocast(sound.device.type, enabled=False):  # codes would flip
            return _each(samples, lambda rows, count: self.encode_whole(sound[rows, :, :count].float(), books))

    def decode(self, encoded: Encoded) -> Tensor:
        """Return the waveforms [B, S], or [B, C, S] of several channels; zero behind an item's end.

        Raises:
            AudioError: for codes that are not of this codec.
        """
        codes = encoded.codes
        self.require_codes(codes)
        frames = [codes.shape[-1]] * len(codes) if encoded.lengths is None else encoded.lengths.tolist()
        sound = torch.zeros(len(codes), self.channels, self.samples_of(codes.shape[-1]), device=codes.device)
        for count in sorted(set(frames) - {0}):
            rows = [row for row, own in enumerate(frames) if own == count]
            side = {name: values[rows] for name, values in encoded.side.items()}
            with torch.autocast(codes.device.type, enabled=False):
                made = self.decode_whole(Encoded(codes[rows, :, :count], None, side))
            sound[rows, :, : made.shape[-1]] = made
        return sound[:, 0] if self.channels == 1 else sound

    def require_codes(self, codes: Tensor, losses: bool = False) -> None:
        """Raise AudioError unless codes [B, Q, T] are within the codebooks, or, where there may be losses, are lost."""
        if codes.dim() != 3 or codes.is_floating_point():
            raise AudioError(f"codes of shape {tuple(codes.shape)}, {codes.dtype}", "give whole numbers [B, Q, T]")
        try:
            self.require_books(codes.shape[1])
        except ConfigError as error:
            raise AudioError(error.message, "decode them with the codec that made them") from error
        sizes = torch.tensor(self.sizes[: codes.shape[1]], device=codes.device)[None, :, None]
        if bool(((codes < (LOST if losses else 0)) | (codes >= sizes)).any()):
            raise AudioError(
                f"codes from {int(codes.min())} to {int(codes.max())}, but the codebooks have {self.sizes[0]}",
                "decode them with the codec that made them",
            )

    def with_channels(self, waveform: Tensor) -> Tensor:
        """Return sounds [B, S] or [B, C, S] as [B, C, S].

        Raises:
            AudioError: for another number of channels than the codec's.
        """
        sound = waveform[:, None] if waveform.dim() == 2 else waveform
        if sound.dim() != 3 or sound.shape[1] != self.channels:
            raise AudioError(
                f"sound of shape {tuple(waveform.shape)}: this codec takes {self.channels} channel(s)",
                "give [B, S] of one channel, [B, C, S] of several",
            )
        return sound

    @abc.abstractmethod
    def encode_whole(self, sound: Tensor, books: int) -> Encoded:
        """Return the codes of sounds [B, C, S] of equal length, S > 0."""

    @abc.abstractmethod
    def decode_whole(self, encoded: Encoded) -> Tensor:
        """Return the sounds [B, C, S] of codes [B, Q, T] of equal length, T > 0."""

    def encode_piece(self, sound: Tensor, books: int, stream: Stream) -> Tensor:
        """Return the codes [B, Q, T] that the next piece [B, C, S] of sounds makes known; whole frames but for the last."""
        raise _cannot_stream(self)

    def decode_piece(self, codes: Tensor, stream: Stream) -> Tensor:
        """Return the sound [B, C, S] that the next piece of codes [B, Q, T] makes known."""
        raise _cannot_stream(self)

    def trained(
        self, waveform: Tensor, generator: torch.Generator | None = None, share: Share | None = None
    ) -> Trained:
        """Return the copies of crops [B, S] of whole frames, through codes whose gradients go straight through.

        Raises:
            ConfigError: for a form that is only imported.
        """
        raise ConfigError(
            f"{type(self).__name__} cannot be trained here", "train a codec of the form `frames` or `vqvae`"
        )


def _cannot_stream(codec: Codec) -> ConfigError:
    return ConfigError(f"{type(codec).__name__} of these settings codes whole sounds only", "use a causal codec")


def _each(samples: list[int], code: Callable[[list[int], int], Encoded]) -> Encoded:
    """Return the codes of items by a `code` that knows no padding: it gets items of the same length."""
    made: dict[int, tuple[Encoded, int]] = {}
    for count in sorted(set(samples)):
        rows = [row for row, own in enumerate(samples) if own == count]
        encoded = code(rows, count)
        made |= {row: (encoded, place) for place, row in enumerate(rows)}
    items = [made[row] for row in range(len(samples))]
    lengths = torch.tensor([encoded.codes.shape[-1] for encoded, _ in items])
    longest = int(lengths.max())
    codes = torch.stack([F.pad(e.codes[i], (0, longest - e.codes.shape[-1])) for e, i in items])
    side = {}
    for name in items[0][0].side:
        widest = max(e.side[name].shape[-1] for e, _ in items)
        side[name] = torch.stack([F.pad(e.side[name][i], (0, widest - e.side[name].shape[-1])) for e, i in items])
    return Encoded(codes, lengths.to(codes.device), side)


class EncodeStream:
    """Codes sounds that come in pieces; together the codes are those of the whole.

    Args:
        books: how many codebooks to use; None: all.

    Raises:
        ConfigError: for a codec that is not causal.
    """

    def __init__(self, codec: Codec, books: int | None = None) -> None:
        if not codec.causal:
            raise _cannot_stream(codec)
        self.codec, self.books = codec, codec.require_books(books)
        self._stream, self._begun = Stream(), False
        self._waiting: Tensor | None = None

    @torch.inference_mode()
    def push(self, waveform: Tensor) -> Tensor:
        """Return the codes [B, Q, T] that the next samples [B, S] make known; T may be 0."""
        sound = self.codec.with_channels(waveform).float()
        sound = sound if self._waiting is None else torch.cat([self._waiting, sound], -1)
        hop = self.codec.hop_length
        frames = sound.shape[-1] // hop
        if frames < (1 if self._begun else self.codec.first_frames):
            frames = 0
        self._waiting = sound[..., frames * hop :]
        if not frames:
            return torch.zeros(len(sound), self.books, 0, dtype=torch.int64, device=sound.device)
        self._begun = True
        return self.codec.encode_piece(sound[..., : frames * hop], self.books, self._stream)

    @torch.inference_mode()
    def end(self) -> Tensor:
        """Return the codes that were still waited for.

        Raises:
            AudioError: where nothing came.
        """
        if self._waiting is None or not (self._begun or self._waiting.shape[-1]):
            raise AudioError("a sound without samples has no codes", "leave it out")
        if not self._begun:
            return self.codec.encode_whole(self._waiting, self.books).codes
        self._stream.last = True
        return self.codec.encode_piece(self._waiting, self.books, self._stream)


class DecodeStream:
    """Decodes codes that come in pieces; together the sound is that of the whole.

    A frame that is lost (`LOST` in place of its codes) sounds like the one before it, and fades; the sound before it is as
    without the loss, and so is the sound behind it as soon as frames no longer depend on the lost one.

    Raises:
        ConfigError: for a codec that is not causal.
    """

    def __init__(self, codec: Codec) -> None:
        if not codec.causal:
            raise _cannot_stream(codec)
        self.codec, self._stream, self._begun = codec, Stream(), False
        self._waiting: Tensor | None = None
        self._nothing = torch.zeros(1, codec.books, 0, dtype=torch.int64)
        self._gaps = Concealment(codec.hop_length, FADE_S * codec.frame_rate)

    @torch.inference_mode()
    def push(self, codes: Tensor) -> Tensor:
        """Return the samples [B, S], or [B, C, S], that the next codes [B, Q, T] make known; S may be 0.

        Raises:
            AudioError: for codes that are not of this codec.
        """
        self.codec.require_codes(codes, losses=True)
        codes = self._gaps.filled(codes)
        codes = codes if self._waiting is None else torch.cat([self._waiting, codes], -1)
        if not codes.shape[-1] or (not self._begun and codes.shape[-1] < self.codec.first_frames):
            self._waiting = codes
            return self._given(torch.zeros(len(codes), self.codec.channels, 0, device=codes.device))
        self._waiting, self._begun, self._nothing = None, True, codes[..., :0]
        return self._given(self.codec.decode_piece(codes, self._stream))

    @torch.inference_mode()
    def end(self) -> Tensor:
        """Return the samples that were still waited for."""
        if not self._begun:
            if self._waiting is None or not self._waiting.shape[-1]:
                raise AudioError("no codes came", "leave it out")
            return self._given(self.codec.decode_whole(Encoded(self._waiting)))
        self._stream.last = True
        return self._given(self.codec.decode_piece(self._nothing, self._stream))

    def _given(self, sound: Tensor) -> Tensor:
        sound = self._gaps.faded(sound)
        return sound[:, 0] if self.codec.channels == 1 else sound
