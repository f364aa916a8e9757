"""Monotonic alignment search against the published search and against exhaustive enumeration."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from safetensors.torch import load_file

from flowtts_core.acoustic.alignment import ends_to_path, gaussian_log_likelihood, monotonic_alignment


def dense(path, tokens):
    """[B, T] token of each frame as the published [B, L, T] of 0 and 1."""
    one_hot = torch.nn.functional.one_hot(path.clamp(min=0), tokens) * (path >= 0).unsqueeze(2)
    return one_hot.transpose(1, 2).to(torch.int8)


@pytest.mark.parametrize(("scores", "path"), [("value", "path"), ("value_ties", "path_ties"), (None, "path_zeros")])
def test_paths_equal_the_published_ones(parity_dir, scores, path):
    io = load_file(parity_dir / "matcha_mas" / "io.safetensors")
    value = torch.zeros_like(io["value"]) if scores is None else io[scores]
    got = monotonic_alignment(value.transpose(1, 2), io["t_x"], io["t_y"])
    assert torch.equal(dense(got, value.shape[1]), io[path])


def test_path_is_the_best_of_all():
    generator = torch.Generator().manual_seed(0)
    for tokens, frames in ((1, 4), (3, 3), (4, 9), (5, 8)):
        scores = torch.randn(1, frames, tokens, generator=generator)
        path = monotonic_alignment(scores, torch.tensor([tokens]), torch.tensor([frames]))[0]
        assert path[0] == 0
        assert path[-1] == tokens - 1
        assert set(path.diff().tolist()) <= {0, 1}
        best = -math.inf
        for starts in itertools.combinations(range(1, frames), tokens - 1):
            tokens_of = torch.bucketize(torch.arange(frames), torch.tensor(starts, dtype=torch.long), right=True)
            best = max(best, scores[0, torch.arange(frames), tokens_of].sum().item())
        assert scores[0, torch.arange(frames), path].sum().item() == pytest.approx(best, rel=1e-5)


def test_padding_and_neighbours_change_nothing():
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(3, 40, 12, generator=generator)
    tokens, frames = torch.tensor([12, 5, 1]), torch.tensor([40, 17, 3])
    together = monotonic_alignment(scores, tokens, frames)
    wide = torch.nn.functional.pad(scores, (0, 4, 0, 7), value=50.0)
    assert torch.equal(monotonic_alignment(wide, tokens, frames)[:, :40], together)
    for row in range(3):
        time, length = int(frames[row]), int(tokens[row])
        alone = monotonic_alignment(scores[row : row + 1, :time, :length], tokens[row : row + 1], frames[row : row + 1])
        assert torch.equal(together[row, :time], alone[0])
        assert (together[row, time:] == -1).all()


@pytest.mark.parametrize("batch", [1, 2])
def test_scores_are_left_as_they_are(batch):
    scores = torch.randn(batch, 6, 4, generator=torch.Generator().manual_seed(1))
    before = scores.clone()
    monotonic_alignment(scores, torch.full((batch,), 3), torch.full((batch,), 6))
    assert torch.equal(scores, before)


def test_fewer_frames_than_tokens_does_not_fail():
    path = monotonic_alignment(torch.zeros(1, 3, 5), torch.tensor([5]), torch.tensor([3]))
    assert path[0, -1] == 4
    assert (path >= 0).all()


def test_log_likelihood_is_the_unit_gaussians():
    frames, means = torch.randn(2, 7, 5), torch.randn(2, 3, 5)
    normal = torch.distributions.Normal(means[:, None], 1.0)
    expected = normal.log_prob(frames[:, :, None]).sum(-1)
    torch.testing.assert_close(gaussian_log_likelihood(frames, means), expected, atol=1e-4, rtol=1e-5)


def test_log_likelihood_stays_in_float32_under_autocast():
    frames, means = torch.randn(1, 7, 80), torch.randn(1, 3, 80)
    exact = gaussian_log_likelihood(frames, means)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(gaussian_log_likelihood(frames, means), exact)


def test_fractional_ends_share_out_whole_frames():
    ends = torch.tensor([[1.5, 3.0, 4.7], [2.0, 2.0, 4.0]], dtype=torch.float64)
    path = ends_to_path(ends, torch.tensor([4, 4]), 6)
    assert path.tolist() == [[0, 0, 1, 2, -1, -1], [0, 0, 2, 2, -1, -1]]
