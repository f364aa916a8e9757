"""A source filter that finds pitch in the mel: it learns to, and streams and batches as others do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from flowtts_core.audio.mel import VOCOS_24K, LogMel, MelConfig
from flowtts_core.audio.pitch import SCALE, pitch_hz
from flowtts_core.engines.export_vocoder import sound_module
from flowtts_core.nn.graph import Graph
from flowtts_core.vocoder.losses import MultiMelLoss
from flowtts_core.vocoder.mel_pitch import MelPitch
from flowtts_core.vocoder.source_filter import SourceFilter, SourceFilterConfig, pulse_train
from flowtts_core.vocoder.windows import sound_in_windows

MEL = MelConfig(24000, n_mels=100, f_max=None, pitch=True)
SMALL = SourceFilterConfig(MEL, dim=32, intermediate_dim=64, num_layers=2, free_bins=100, finds_pitch=True)


def small() -> SourceFilter:
    torch.manual_seed(0)
    vocoder = SourceFilter(SMALL).eval()
    assert vocoder.pitch is not None
    # a pitch that turns, about 150 Hz: phases add up over time, and so do rounding errors, which are small where rows are
    torch.nn.init.normal_(vocoder.pitch.out.weight, std=0.5)
    vocoder.pitch.out.bias.data = -20 * vocoder.pitch.places.square()
    return vocoder


def mels(*shape: int) -> torch.Tensor:
    return torch.randn(*shape) - 4


def test_it_reads_mels_without_pitch() -> None:
    vocoder, mel = small(), mels(1, 100, 40)
    assert vocoder.features == replace(MEL, pitch=False)
    with torch.no_grad():
        assert vocoder(mel).shape == (1, vocoder.features.samples_of(40))
        pitched = torch.cat([mel, torch.full((1, 1, 40), 3.0)], 1)  # which it does not look at but in training
        torch.testing.assert_close(vocoder(pitched), vocoder(mel))
        vocoder.train()
        assert not torch.allclose(vocoder(pitched), vocoder(mel))


def test_a_padded_batch_equals_single_items() -> None:
    vocoder, mel, lengths = small(), mels(2, 100, 60), torch.tensor([60, 41])
    with torch.no_grad():
        batch, alone = vocoder(mel, lengths), vocoder(mel[1:, :, :41])
    torch.testing.assert_close(batch[1:, : alone.shape[1]], alone, atol=1e-4, rtol=0)
    assert not batch[1, alone.shape[1] :].any()


@pytest.mark.parametrize("end", [300, 500])
def test_windows_have_the_samples_of_the_whole(end: int) -> None:
    """From the left and from the right, one by one and in a batch, where what is known of the whole ends with the window."""
    vocoder, mel, hop = small(), mels(1, 100, 500), MEL.hop_length
    beside = vocoder.context_frames
    assert beside is not None
    with torch.no_grad():
        whole = vocoder(mel)
        until = whole.shape[1] if end == 500 else (end - beside) * hop
        lows = (0, 101, 200)
        starts = torch.stack([vocoder.start_at(mel[0, :, :end], low) for low in lows])
        earlier = None
        for low, start in zip(lows, starts, strict=True):  # the same from what is known of the window before
            earlier = vocoder.start_at(mel[0, :, :end], low, earlier)
            torch.testing.assert_close(earlier, start, atol=1e-5, rtol=0)
        padded = mels(len(lows), 100, end) * 0
        for row, low in enumerate(lows):
            padded[row, :, : end - low] = mel[0, :, low:end]
            part = vocoder(mel[:, :, low:end], start=starts[row : row + 1])
            first = (low + beside if low else 0) * hop
            torch.testing.assert_close(
                part[:, first - low * hop : until - low * hop], whole[:, first:until], atol=1e-4, rtol=0
            )
        batch = vocoder(padded, torch.tensor([end - low for low in lows]), starts)
        for row, low in enumerate(lows):
            first = (low + beside if low else 0) * hop
            torch.testing.assert_close(
                batch[row, first - low * hop : until - low * hop], whole[0, first:until], atol=1e-4, rtol=0
            )


def test_long_sound_is_made_in_windows() -> None:
    vocoder, mel = small(), mels(100, 700)
    with torch.no_grad():
        parts = list(sound_in_windows(vocoder, mel, 150))
        torch.testing.assert_close(torch.cat(parts), vocoder(mel[None])[0].clamp(-1, 1), atol=1e-4, rtol=0)
    assert len(parts) == 5


@pytest.mark.parametrize("kind", [torch.float16, torch.float64])
def test_mels_of_other_float_types_are_read(kind: torch.dtype) -> None:
    vocoder, mel = small(), mels(100, 400).to(kind)
    with torch.no_grad():
        made, wanted = torch.cat(list(sound_in_windows(vocoder, mel, 150))), vocoder(mel.float()[None])[0]
    torch.testing.assert_close(made, wanted.clamp(-1, 1), atol=1e-4, rtol=0)


def test_what_is_exported_has_no_runners() -> None:
    """Those of a voice that was loaded; traced, what they find would be a constant."""
    vocoder, mel = small(), mels(1, 100, 40)
    with torch.no_grad():
        wanted = vocoder(mel)
        vocoder.runners = dict.fromkeys(vocoder.graphs())  # type: ignore[dict-item]  # to call one fails
        torch.testing.assert_close(sound_module(vocoder, "it")(mel), wanted, atol=1e-4, rtol=0)


def test_it_learns_the_pitch_of_pulses() -> None:
    """Glides between 90 and 400 Hz: after some steps, those not heard before are found within half a semitone."""
    torch.manual_seed(0)
    bands, rng = LogMel(replace(MEL, pitch=False)), np.random.default_rng(0)

    def glides(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        ends = rng.uniform(np.log(90 / 150), np.log(400 / 150), (count, 2)) * SCALE
        rows = torch.from_numpy(np.linspace(ends[:, 0], ends[:, 1], 48).T.astype(np.float32))
        return bands(0.02 * pulse_train(pitch_hz(rows.double()), MEL)), rows

    finder = MelPitch(100)
    optimizer = torch.optim.Adam(finder.parameters(), 4e-3)
    for _ in range(60):
        mel, row = glides(8)
        loss = finder.loss(finder(mel), row)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    mel, row = glides(8)
    with torch.no_grad():
        found = finder.row_of(finder(mel))[:, 0]
    assert float((found - row).abs().median()) < 0.5 * SCALE * np.log(2) / 12


def test_graphs_find_what_torch_finds() -> None:
    vocoder, mel = small(), mels(1, 100, 64)
    graph: Graph = vocoder.graphs()["pitch"]
    with torch.no_grad():
        assert vocoder.pitch is not None
        torch.testing.assert_close(graph.module(mel)[0], vocoder.pitch(mel))
        plain = vocoder(mel)
        vocoder.runners = {name: one.module for name, one in vocoder.graphs().items()}
        torch.testing.assert_close(vocoder(mel), plain)


def test_the_pitch_is_learnt_beside_the_sound() -> None:
    vocoder = small().train()
    mel = torch.cat([mels(1, 100, 40), torch.randn(1, 1, 40)], 1)
    _, losses = vocoder.trained(mel, torch.zeros(1, vocoder.features.samples_of(40)))
    losses["pitch"].backward()
    assert vocoder.pitch is not None
    assert all(weight.grad is None for weight in vocoder.filter.parameters())
    assert all(weight.grad is not None for weight in vocoder.pitch.parameters())


def test_mel_distances_have_gradients_in_silence() -> None:
    """Also of mels whose magnitudes begin at 0, as Vocos's."""
    waveform = torch.zeros(1, 4096, requires_grad=True)
    MultiMelLoss(VOCOS_24K)(waveform, torch.randn(1, 4096)).backward()
    assert waveform.grad is not None and waveform.grad.isfinite().all()
