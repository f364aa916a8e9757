"""Monotonic alignment search: which token each frame of a recording belongs to (Glow-TTS, arXiv:2005.11129)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

_NEVER = np.float32(-1e9)


def gaussian_log_likelihood(frames: Tensor, means: Tensor) -> Tensor:
    """Log-likelihood [B, T, L] of each frame [B, T, M] under each token's unit Gaussian with mean [B, L, M], float32."""
    with torch.autocast(frames.device.type, enabled=False):
        frames, means = frames.float(), means.float()
        square_frames = -0.5 * frames.square().sum(2, keepdim=True)
        square_means = -0.5 * means.square().sum(2).unsqueeze(1)
        constant = -0.5 * math.log(2 * math.pi) * frames.shape[2]
        return torch.bmm(frames, means.transpose(1, 2)) + square_means + (square_frames + constant)


def monotonic_alignment(scores: Tensor, token_lengths: Tensor, frame_lengths: Tensor) -> Tensor:
    """The best path through `scores` that starts at the first token, ends at the last and skips none.

    One pass over frames forth and one back, on all items and tokens at once; on ties a frame stays with the later token,
    as in the published search. With fewer frames than tokens no such path exists, and the first tokens get no frame.

    Args:
        scores: [B, T, L] score of each frame and token, for instance log-likelihoods; float32 on any device.
        token_lengths, frame_lengths: [B].

    Returns:
        [B, T] int64: the token of each frame; -1 beyond `frame_lengths`.
    """
    batch, time, tokens = scores.shape
    value = np.ascontiguousarray(scores.detach().permute(1, 0, 2).float().cpu().numpy())  # [T, B, L]
    token_counts, frame_counts = token_lengths.cpu().numpy(), frame_lengths.cpu().numpy()
    # Padding tokens score 0 and are never on a path. A new array: that of a single item is the argument's own memory.
    value = value * (np.arange(tokens) < token_counts[:, None])
    advanced = np.empty((time, batch, tokens), dtype=bool)  # the best path came from the token before
    best = np.full((batch, tokens + 1), _NEVER, dtype=np.float32)  # column 0 stands before the first token
    best[:, 0] = 0.0
    for t in range(time):
        stay, advance = best[:, 1:], best[:, :-1]
        np.less(stay, advance, out=advanced[t])
        best[:, 1:] = np.maximum(stay, advance) + value[t]
        best[:, 0] = _NEVER
    path = np.full((batch, time), -1, dtype=np.int64)
    rows, index = np.arange(batch), token_counts - 1
    for t in range(time - 1, -1, -1):
        inside = t < frame_counts
        path[inside, t] = index[inside]
        index = index - (inside & (index > 0) & (advanced[t, rows, index] | (index == t)))
    return torch.from_numpy(path).to(scores.device)


def path_durations(path: Tensor, tokens: int) -> Tensor:
    """Frames of each token, [B, tokens] float32, from the token of each frame [B, T] (-1 is no frame)."""
    counts = torch.zeros(path.shape[0], tokens + 1, device=path.device)
    counts.scatter_add_(1, path + 1, torch.ones_like(path, dtype=counts.dtype))
    return counts[:, 1:]


def ends_to_path(ends: Tensor, frame_lengths: Tensor, frames: int) -> Tensor:
    """The token of each frame, [B, frames] int64 (-1 beyond `frame_lengths`).

    Frame t belongs to the first token whose end lies beyond t: `ends` [B, L] is the running sum of durations in frames,
    which may be fractions.
    """
    position = torch.arange(frames, device=ends.device, dtype=ends.dtype).expand(ends.shape[0], -1).contiguous()
    path = torch.searchsorted(ends, position, right=True).clamp(max=ends.shape[1] - 1)
    return torch.where(position < frame_lengths[:, None], path, -1)


def expand_by_path(values: Tensor, path: Tensor) -> Tensor:
    """Each frame's token values: [B, L, C] and [B, T] to [B, T, C]; zero where the path is -1."""
    index = path.clamp(min=0).unsqueeze(2).expand(-1, -1, values.shape[2])
    return values.gather(1, index) * (path >= 0).unsqueeze(2).to(values.dtype)
