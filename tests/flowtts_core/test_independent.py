"""The metrics against other people's packages, and against their definitions written out plainly in float64."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from flowtts_core.audio.mel import LogMel, MelConfig
from flowtts_core.errors import AudioError
from flowtts_core.metrics import paired, wer
from flowtts_core.metrics.degradations import band_limit, white_noise
from flowtts_core.metrics.fad import fad
from flowtts_core.metrics.kad import Kernel, kad, median_distance
from flowtts_core.metrics.signal import to_16k

RATE = 16_000


@pytest.fixture(scope="module")
def speech(shared_data: Path) -> np.ndarray:
    """Three seconds of a real voice at 16 kHz."""
    waveform, rate = soundfile.read(sorted((shared_data / "ljspeech/wavs").glob("*.wav"))[2], dtype="float32")
    return to_16k(waveform, rate)[RATE : 4 * RATE]


def texts(n: int) -> list[str]:
    """Of few words and letters, so that many edits tie."""
    rng = random.Random(0)
    words = ["a", "b", "ab", "abc", "the", "The", "it's", "caf\u00e9"]
    return [" ".join(rng.choices(words, k=rng.randint(1, 9))) for _ in range(n)]


def test_word_and_character_errors_against_torchmetrics() -> None:
    pytest.importorskip("jiwer", reason="needs pip install 'flowtts[eval]'")
    text = pytest.importorskip("torchmetrics.functional.text", reason="needs pip install torchmetrics")
    said, heard = texts(400)[:200], texts(400)[200:]
    for characters, other in ((False, text.word_error_rate), (True, text.char_error_rate)):
        counts = [wer.errors_of(a, b, characters=characters, normalizer=None) for a, b in zip(said, heard, strict=True)]
        for (errors, size), a, b in zip(counts, said, heard, strict=True):
            assert errors / size == pytest.approx(float(other(b, a)), rel=1e-6)
        rate = sum(errors for errors, _ in counts) / sum(size for _, size in counts)
        assert rate == pytest.approx(float(other(heard, said)), rel=1e-6)


@pytest.mark.parametrize("snr", [30, 5, -10])
def test_si_sdr_against_torchmetrics(snr: float) -> None:
    audio = pytest.importorskip("torchmetrics.functional.audio", reason="needs pip install torchmetrics")
    target = np.random.default_rng(1).standard_normal(RATE)
    estimate = 0.3 * white_noise(target, snr).astype(np.float64) + 0.1
    other = audio.scale_invariant_signal_distortion_ratio(
        torch.from_numpy(estimate), torch.from_numpy(target), zero_mean=True
    )
    assert paired.si_sdr(estimate, target) == pytest.approx(float(other), rel=1e-6)


def taal_stoi(clean: np.ndarray, processed: np.ndarray) -> float:
    """Short-time objective intelligibility as Taal, Hendriks, Heusdens and Jensen (2011), section II, state it."""
    from scipy.signal import resample_poly

    x, y = (resample_poly(side.astype(np.float64), 5, 8) for side in (clean, processed))  # to 10 kHz
    window = np.hanning(258)[1:-1]
    starts = range(0, len(x) - 256, 128)
    x_frames, y_frames = (np.stack([window * side[i : i + 256] for i in starts]) for side in (x, y))
    energy = 20 * np.log10(np.linalg.norm(x_frames, axis=1) + 1e-16)
    loud = energy > energy.max() - 40
    x, y = np.zeros((2, 128 * (int(loud.sum()) + 1)))
    for i, (a, b) in enumerate(zip(x_frames[loud], y_frames[loud], strict=True)):  # put together without the silence
        x[128 * i : 128 * i + 256] += a
        y[128 * i : 128 * i + 256] += b
    frequencies = np.arange(257) * 10_000 / 512

    def bands(signal: np.ndarray) -> np.ndarray:  # [15, M]
        frames = np.stack([window * signal[i : i + 256] for i in range(0, len(signal) - 256, 128)])
        power = np.abs(np.fft.rfft(frames, 512)) ** 2  # [M, 257]
        rows = []
        for j in range(15):
            centre = 150 * 2 ** (j / 3)
            low, high = (int(np.abs(frequencies - centre * 2**edge).argmin()) for edge in (-1 / 6, 1 / 6))
            rows.append(np.sqrt(power[:, low:high].sum(axis=1)))
        return np.array(rows)

    x_bands, y_bands = bands(x), bands(y)
    correlations = []
    for m in range(30, x_bands.shape[1] + 1):  # 30 frames, 384 ms
        for a, b in zip(x_bands[:, m - 30 : m], y_bands[:, m - 30 : m], strict=True):
            scaled = b * np.linalg.norm(a) / np.linalg.norm(b)
            clipped = np.minimum(scaled, a * (1 + 10 ** (15 / 20)))  # a signal-to-distortion ratio of -15 dB at least
            correlations.append(np.corrcoef(a, clipped)[0, 1])
    return float(np.mean(correlations))


@pytest.mark.parametrize("snr", [20, 5, -5])
def test_stoi_against_its_paper(speech: np.ndarray, snr: float) -> None:
    """To half a per cent: the paper leaves the resampling filter and the edges open."""
    pytest.importorskip("pystoi", reason="needs pip install 'flowtts[eval]'")
    noisy = white_noise(speech, snr)
    ours = paired.time_for_time(noisy, RATE, speech, RATE).stoi
    assert ours == pytest.approx(taal_stoi(speech, noisy), abs=0.005)


def test_pesq_against_torchmetrics(speech: np.ndarray) -> None:
    pytest.importorskip("pesq", reason="needs pip install pesq, which compiles")
    audio = pytest.importorskip("torchmetrics.functional.audio.pesq", reason="needs pip install torchmetrics")
    for damaged in (white_noise(speech, 15), band_limit(speech, RATE, 4000), 0.2 * speech):
        other = audio.perceptual_evaluation_speech_quality(
            torch.from_numpy(damaged), torch.from_numpy(speech), RATE, "wb"
        )
        assert paired.pesq(damaged, RATE, speech, RATE) == pytest.approx(float(other), rel=1e-6)


def test_pesq_of_the_example_that_torchmetrics_prints() -> None:
    """Its documentation, made with the random seed 42 of its tests, shows 1.6805 for two clips of noise."""
    pytest.importorskip("pesq", reason="needs pip install pesq, which compiles")
    noise = torch.Generator().manual_seed(42)
    estimate, target = (torch.randn(8000, generator=noise).numpy() for _ in range(2))
    assert paired.pesq(estimate, RATE, target, RATE) == pytest.approx(1.6805, abs=1e-3)


@pytest.mark.parametrize("name", ["gaussian", "iq", "imq", "cubic"])
def test_kad_against_a_double_loop(name: str) -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(23, 5)), rng.normal(0.5, 1.5, size=(31, 5))  # evaluated, reference
    distances = sorted(math.dist(y[i], y[j]) for i in range(len(y)) for j in range(i))
    bandwidth = distances[(len(distances) - 1) // 2]

    def k(a: np.ndarray, b: np.ndarray) -> float:
        u = math.dist(a, b) ** 2 / (2 * bandwidth**2)
        table = {"gaussian": math.exp(-u), "iq": 1 / (1 + u), "imq": (1 + u) ** -0.5, "cubic": (1 + float(a @ b)) ** 3}
        return table[name]

    within = [
        sum(k(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j) / (len(s) * (len(s) - 1))
        for s in (x, y)
    ]
    between = sum(k(a, b) for a in x for b in y) / (len(x) * len(y))
    ours = kad(torch.from_numpy(x), torch.from_numpy(y), Kernel(name))
    assert ours == pytest.approx(sum(within) - 2 * between, rel=1e-6)
    assert median_distance(torch.from_numpy(y)) == pytest.approx(bandwidth, rel=1e-12)


def test_fad_against_scipys_square_root() -> None:
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(3)
    mix = rng.normal(size=(6, 6))
    x, y = rng.normal(size=(80, 6)) @ mix, rng.normal(0.3, 1.2, size=(90, 6))
    a, b = np.cov(x.T), np.cov(y.T)
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert fad(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(expected, rel=1e-9)


def cepstra(clip: np.ndarray) -> np.ndarray:
    """[T, 13]: `log |H| = sum of c_m cos(m w)` over the 80 bands, c_0 left out."""
    config = MelConfig(
        sample_rate=RATE, n_fft=512, win_length=400, hop_length=160, n_mels=80, f_max=RATE / 2, padding="center"
    )
    mel = LogMel(config)(torch.from_numpy(clip)[None])[0].double().numpy()  # [80, T]
    angles = np.pi * (np.arange(80) + 0.5) / 80
    return (np.cos(np.arange(1, 14)[:, None] * angles) @ mel * 2 / 80).T


def test_mcd_against_a_plain_warp(speech: np.ndarray) -> None:
    """Over all paths of steps (1, 0), (0, 1) and (1, 1), the one of the least summed distance; its mean, in decibels."""
    pytest.importorskip("librosa", reason="needs pip install 'flowtts[eval]'")
    ours, theirs = speech[: RATE // 2], white_noise(speech[2000 : 2000 + 6 * RATE // 10], 15)
    a, b = cepstra(ours), cepstra(theirs)
    distance = [[math.dist(p, q) for q in b] for p in a]
    cost = np.full((len(a) + 1, len(b) + 1), math.inf)
    cost[0, 0] = 0
    length = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            before = min((i - 1, j - 1), (i - 1, j), (i, j - 1), key=lambda cell: cost[cell])
            cost[i, j], length[i, j] = cost[before] + distance[i - 1][j - 1], length[before] + 1
    expected = 10 / math.log(10) * math.sqrt(2) * cost[-1, -1] / length[-1, -1]
    assert paired.warped(ours, RATE, theirs, RATE).mcd == pytest.approx(expected, rel=1e-5)


def test_mcd_is_in_decibels_of_the_spectrum(speech: np.ndarray) -> None:
    """A filter whose log spectrum the cepstra hold whole is as far away as the root mean square of its decibels."""
    spectrum = np.fft.rfft(np.pad(speech, (0, RATE)).astype(np.float64))
    hertz = np.fft.rfftfreq(len(speech) + RATE, 1 / RATE)
    config = MelConfig(sample_rate=RATE, n_fft=512, win_length=400, hop_length=160, n_mels=80, f_max=RATE / 2)
    centres = band_centres(config)
    ripple = 3.0 * np.cos(np.pi * 2 * (np.arange(80) + 0.5) / 80)  # dB, one of the 13 cosines
    gain = np.interp(hertz, centres, ripple)
    filtered = np.fft.irfft(spectrum * 10 ** (gain / 20))[: len(speech)].astype(np.float32)
    rms = math.sqrt(np.square(ripple).mean())
    assert paired.warped(filtered, RATE, speech, RATE).mcd == pytest.approx(rms, rel=0.15)


def band_centres(config: MelConfig) -> np.ndarray:
    """Where in Hz each band is most sensitive, [80], by giving it tones."""
    mel = LogMel(config)
    n = np.arange(RATE // 5) / RATE
    tones = np.arange(20.0, RATE / 2, 20.0)
    heard = torch.stack([mel(torch.from_numpy(np.sin(2 * np.pi * f * n)).float()[None])[0].mean(1) for f in tones])
    return np.maximum.accumulate(tones[heard.argmax(dim=0).numpy()]) + 1e-3 * np.arange(80)


@pytest.mark.parametrize("bad", [np.zeros(0, np.float32), np.full(RATE, np.nan, np.float32), np.zeros((2, RATE))])
def test_no_measure_takes_what_is_no_waveform(speech: np.ndarray, bad: np.ndarray) -> None:
    pytest.importorskip("librosa", reason="needs pip install 'flowtts[eval]'")
    for measure in (paired.warped, paired.time_for_time):
        for sides in ((bad, speech), (speech, bad)):
            with pytest.raises(AudioError):
                measure(sides[0], RATE, sides[1], RATE)


def test_pesq_says_what_it_cannot_judge(speech: np.ndarray) -> None:
    pytest.importorskip("pesq", reason="needs pip install pesq, which compiles")
    with pytest.raises(AudioError, match="PESQ"):
        paired.pesq(speech, RATE, np.zeros(RATE, np.float32), RATE)
    with pytest.raises(AudioError, match="NaN"):
        paired.pesq(np.full(RATE, np.nan, np.float32), RATE, speech, RATE)
    with pytest.raises(AudioError, match="PESQ"):
        paired.pesq(speech[:1000], RATE, speech[:1000], RATE)
