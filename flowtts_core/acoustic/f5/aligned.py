"""Tokens laid out over their own frames: found in recordings by an alignment search, and told of a new text by a small net.

Voicebox (Le et al. 2023, arXiv 2306.15687) fills in speech this way; its alignments come from outside, these are the model's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowtts_core.acoustic.alignment import (
    expand_by_path,
    gaussian_log_likelihood,
    monotonic_alignment,
    path_durations,
)
from flowtts_core.acoustic.base import Condition, DurationModel, Layout, Prompt
from flowtts_core.acoustic.f5.config import F5Config
from flowtts_core.acoustic.f5.durations import MOST_FRAMES, PACES, USUAL, TokenNet, heard_frames, require_speed
from flowtts_core.errors import FlowTTSError
from flowtts_core.nn.dit import only
from flowtts_core.nn.masks import length_mask

_LEAST = 0.5  # frames that a token without any counts as: its logarithm would drown the others
_DOUBT = 8.0  # tokens, before anything is learnt
Sums = tuple[Tensor, Tensor]  # errors summed, and how many they are


@dataclass(frozen=True)
class Alignment:
    """Which token each frame of a recording belongs to."""

    tokens: Tensor  # [B, L]
    lengths: Tensor  # [B] of the tokens
    path: Tensor  # [B, T] int64; -1 is none
    durations: Tensor  # [B, L] frames of each token
    prior: Sums  # errors of the means that it was found by

    @property
    def by_frames(self) -> Tensor:
        """Return the token of each frame [B, T], 0 where there is none."""
        return self.tokens.gather(1, self.path.clamp(min=0)) * (self.path >= 0)


class Aligner(nn.Module):
    """Means of tokens, which find them in recordings, and how long tokens last, which depends on a prompt's pace.

    Recordings are aligned without their mean spectrum, so that speakers and rooms are more alike.
    """

    def __init__(self, n_symbols: int, bands: int, channels: int) -> None:
        super().__init__()
        self.means, self.lasting = TokenNet(n_symbols, channels, bands), TokenNet(n_symbols, channels, 2)
        with torch.no_grad():
            self.lasting.out.bias.copy_(torch.tensor([math.log(USUAL), 1.0]))
        self.doubt = nn.Parameter(torch.tensor(math.log(_DOUBT)))

    def align(self, mel: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor) -> Alignment:
        """Find tokens [B, L] in normalised mels [B, T, M]."""
        valid = length_mask(lengths, mel.shape[1]).unsqueeze(2)
        mean = only(mel, valid).sum(1, keepdim=True) / lengths.clamp(min=1)[:, None, None]
        frames, means = only(mel - mean, valid), self.means(tokens, token_lengths)
        path = monotonic_alignment(gaussian_log_likelihood(frames, means.detach()), token_lengths, lengths)
        error = only(frames - expand_by_path(means, path), valid).square()
        prior = error.sum(), valid.sum() * mel.shape[2]
        return Alignment(tokens, token_lengths, path, path_durations(path, tokens.shape[1]), prior)

    def log_frames(self, tokens: Tensor, lengths: Tensor, durations: Tensor, known: Tensor) -> Tensor:
        """Return the logarithms of the frames that tokens last [B, L], after those whose durations are known.

        The pace is how much longer known tokens are than is usual, in the mean of logarithms. Few of them say little of it, so
        that the mean is taken as if some more (`doubt`) had been as usual. Each token is stretched by it in its own measure.

        Args:
            durations: [B, L] frames, where they are known.
            known: [B, L] bool.
        """
        usual, stretch = self.lasting(tokens, lengths).unbind(2)
        slower = (durations.clamp(min=_LEAST).log() - usual) * known
        pace = slower.sum(1) / (known.sum(1) + self.doubt.exp())
        pace = pace.clamp(math.log(PACES[0]), math.log(PACES[1]))
        return usual + stretch * pace[:, None]

    def duration_errors(self, found: Alignment, hidden: Tensor) -> Sums:
        """Return the squared errors of the logarithms of durations, of tokens with a frame that is hidden.

        Args:
            hidden: [B, T] bool, frames that are filled in; the tokens of the others are known.
        """
        valid = length_mask(found.lengths, found.tokens.shape[1])
        inside = path_durations(found.path.where(hidden, -1), found.tokens.shape[1])
        known = valid & (inside == 0) & (found.durations > 0)
        told = self.log_frames(found.tokens, found.lengths, found.durations, known)
        error = (told - found.durations.clamp(min=_LEAST).log()) * (valid & ~known)
        return error.square().sum(), (valid & ~known).sum()


@dataclass(frozen=True)
class AlignedLayout(Layout):
    """An item with the token of each frame, those of its prompt before it."""

    durations: Tensor
    by_frames: Tensor  # [T]


class AlignedDurations(DurationModel):
    """Each token lasts as the net says after those of the prompt, which are found in it."""

    def __init__(self, aligner: Aligner, config: F5Config) -> None:
        self.aligner, self.config = aligner, config
        self.least = 1 + (config.mel.padding == "center")  # a prompt's last frame is its text's first, and one is made

    @torch.inference_mode()
    def lay_out(self, item: Condition, speed: float) -> AlignedLayout:
        require_speed(speed)
        said, between = item.tokens[0] != 0, item.tokens.new_tensor(self.config.between, dtype=torch.int64)
        said[0] |= ~said.any()  # a text of blanks alone is one
        before = between if item.prompt is None else between[:0]
        heard_tokens, heard = (between[:0], between[:0].float()) if item.prompt is None else self._heard(item.prompt)
        tokens = torch.cat((heard_tokens, before, item.tokens[0][said], between))[None]
        durations = nn.functional.pad(heard, (0, tokens.shape[1] - len(heard)))[None]
        count = tokens.new_tensor([tokens.shape[1]])
        lasting = self.aligner.log_frames(tokens, count, durations, durations > 0)[0, len(heard) :]
        made = self._whole(lasting, speed)
        frames, first, last = torch.cat((heard.long(), made)), len(before), len(made) - len(between)
        own = torch.zeros(item.tokens.shape[1], device=tokens.device)
        own[said] = made[first:last].float()
        own[0] += made[:first].sum()  # of what stands before and after all words
        own[-1] += made[last:].sum()
        return AlignedLayout(int(made.sum()), own, tokens[0].repeat_interleave(frames))

    def _heard(self, prompt: Prompt) -> tuple[Tensor, Tensor]:
        """Return the tokens of an item's prompt [L], and the frames of each."""
        mel = (
            prompt.features[:, : heard_frames(prompt, self.config)].float() - self.config.mel_mean
        ) / self.config.mel_std
        said = prompt.tokens[:, prompt.tokens[0] != 0]
        tokens, counts = with_edges(said, said.new_tensor([said.shape[1]]), self.config.between)
        if not tokens.shape[1]:
            raise FlowTTSError("nothing is said in the prompt", "give a clip and the text of what is said in it")
        found = self.aligner.align(mel, counts.new_tensor([mel.shape[1]]), tokens, counts)
        return tokens[0], found.durations[0]

    def _whole(self, lasting: Tensor, speed: float) -> Tensor:
        """Return whole frames of each token, from logarithms; fractions go on to the next token."""
        frames = (lasting.double().exp() * 64).round() / 64  # 64ths add up exactly, in any batch
        ends = frames.cumsum(0) / speed
        if not float(ends[-1]) <= MOST_FRAMES:  # nor a length that is not a number
            raise FlowTTSError(
                f"the model asks for {float(ends[-1]):.0f} frames, and {MOST_FRAMES} are the most",
                "use a shorter sentence; durations that are far too long come from a model that is not trained",
            )
        ends = ends.round().long()
        ends[-1] = ends[-1].clamp(min=self.least)
        return ends.diff(prepend=ends.new_zeros(1))


def with_edges(tokens: Tensor, lengths: Tensor, between: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return tokens [B, L] and their lengths with what stands between texts at either end: silence belongs to it."""
    size = len(between)
    edge = tokens.new_tensor(between, dtype=torch.int64).expand(len(tokens), -1)
    wide = torch.cat((edge, tokens * length_mask(lengths, tokens.shape[1]), torch.zeros_like(edge)), 1)
    ends = (lengths + size)[:, None] + torch.arange(size, device=tokens.device)
    return wide.scatter(1, ends, edge), lengths + 2 * size
