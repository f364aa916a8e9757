"""How long a text takes after a prompt: by its bytes, as published, or by a small net that learns how long texts are."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.acoustic.base import Condition, DurationModel, Layout, Prompt
from flowtts_core.acoustic.f5.config import F5Config
from flowtts_core.errors import ConfigError, FlowTTSError
from flowtts_core.nn.dit import only
from flowtts_core.nn.masks import length_mask
from flowtts_core.sampling import SPEEDS

MOST_FRAMES = 8192  # of prompt and text together, as published: 87 s
_SHORT_BYTES, _SHORT_SPEED = 10, 0.3  # shorter texts are given more time, as published
PACES = (1 / 3, 3.0)  # of a prompt, beside the average speaker's: beyond it, its text is not what is said in it
USUAL = 6.0  # frames of a token before anything is learnt


class TokenNet(nn.Module):
    """What is told of each token, seen with its neighbours."""

    def __init__(self, n_symbols: int, channels: int, told: int, kernel_size: int = 5) -> None:
        super().__init__()
        self.embed = nn.Embedding(n_symbols, channels)
        self.convs = nn.ModuleList(nn.Conv1d(channels, channels, kernel_size, padding=kernel_size // 2) for _ in "ab")
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in "ab")
        self.out = nn.Linear(channels, told)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Map tokens [B, L] to [B, L, `told`], float32, 0 beyond their lengths."""
        valid = length_mask(lengths, tokens.shape[1]).unsqueeze(2)
        x = only(self.embed(tokens), valid)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = only(x + F.relu(norm(conv(x.transpose(1, 2)).transpose(1, 2))), valid)
        return only(self.out(x).float(), valid)


class TextLengths(TokenNet):
    """Frames that a text takes at an average pace: a sum over its tokens."""

    def __init__(self, n_symbols: int, channels: int) -> None:
        super().__init__(n_symbols, channels, 1)
        nn.init.constant_(self.out.bias, math.log(math.expm1(USUAL)))

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return frames [B], float32, of tokens [B, L]."""
        valid = length_mask(lengths, tokens.shape[1]).unsqueeze(2)
        return only(F.softplus(super().forward(tokens, lengths)), valid).sum((1, 2))


class ByteRatio(DurationModel):
    """As many frames a byte as the prompt has; a text of less than 10 bytes takes longer. As published."""

    def __init__(self, config: F5Config) -> None:
        self.config = config

    def lay_out(self, item: Condition, speed: float) -> Layout:
        require_speed(speed)
        if item.prompt is None:
            raise FlowTTSError("this model speaks as long as its prompt does: it needs one", "give a clip and its text")
        heard, said = heard_frames(item.prompt, self.config), self._bytes(item.prompt.tokens)
        size = self._bytes(item.tokens)
        pace = speed * (_SHORT_SPEED if size < _SHORT_BYTES else 1.0)
        return Layout(int(heard / max(said, 1) * size / pace), None)

    def _bytes(self, tokens: Tensor) -> int:
        sizes = self.config.token_bytes
        return tokens.numel() if sizes is None else sum(sizes[token] for token in tokens.flatten().tolist())


class LearntDurations(DurationModel):
    """The net's frames, times how much longer than the net's the prompt is."""

    def __init__(self, lengths: TextLengths, config: F5Config) -> None:
        self.lengths, self.config = lengths, config

    @torch.inference_mode()
    def lay_out(self, item: Condition, speed: float) -> Layout:
        require_speed(speed)
        frames, pace = float(self.lengths(item.tokens, item.token_lengths)), 1.0
        if (prompt := item.prompt) is not None and prompt.tokens.shape[1] and prompt.features.shape[1]:
            usual = float(self.lengths(prompt.tokens, prompt.token_lengths))
            pace = min(max(heard_frames(prompt, self.config) / usual, PACES[0]), PACES[1])
        frames = frames * pace / speed
        if not math.isfinite(frames):
            raise FlowTTSError("the model's durations are not finite", "they come from a model that is not trained")
        return Layout(max(1, round(frames)), None)


def heard_frames(prompt: Prompt, config: F5Config) -> int:
    """Return the frames of an item's prompt; of frames that are centred on samples, the last one belongs to what follows."""
    return max(0, int(prompt.lengths[0]) - (config.mel.padding == "center"))


def require_speed(speed: float) -> None:
    """Raise ConfigError for a speed out of range."""
    if not SPEEDS[0] <= speed <= SPEEDS[1]:
        raise ConfigError(
            f"speed = {speed}", f"use a value from {SPEEDS[0]} to {SPEEDS[1]}; 1 is the pace of the prompt"
        )
