"""Measures against a recording: closed forms, independent packages, and real speech made worse in known ways."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from filelock import FileLock

from flowtts_core.errors import AudioError
from flowtts_core.metrics.judges import Clip, Panel, PanelConfig
from flowtts_core.metrics.optional import compile_lock, require_librosa
from flowtts_core.metrics.paired import pesq, si_sdr, time_for_time, warped
from flowtts_core.metrics.signal import to_16k

pytest.importorskip("librosa", reason="needs pip install 'flowtts[eval]'")
RATE = 16000


@pytest.fixture(scope="module")
def speech(shared_data: Path) -> np.ndarray:
    """Three seconds of a real voice at 16 kHz."""
    waveform, rate = soundfile.read(sorted((shared_data / "ljspeech/wavs").glob("*.wav"))[0], dtype="float32")
    return to_16k(waveform, rate)[: 3 * RATE]


def noisy(clip: np.ndarray, snr_db: float) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(len(clip)).astype(np.float32)
    return clip + noise * float(np.sqrt(np.mean(clip**2) / np.mean(noise**2))) * 10 ** (-snr_db / 20)


def test_si_sdr_is_of_the_clips_own_rate_and_tells_it() -> None:
    rate, rng = 24_000, np.random.default_rng(0)
    target = rng.standard_normal(rate).astype(np.float32) * 0.1
    hiss = 0.02 * np.sin(2 * np.pi * 10_000 * np.arange(rate) / rate).astype(np.float32)  # that 16 kHz cannot hold
    native, narrow = (time_for_time(target + hiss, rate, target, rate, si_sdr_rate=asked) for asked in (None, RATE))
    assert (native.si_sdr_rate, narrow.si_sdr_rate) == (rate, RATE)
    assert native.si_sdr == pytest.approx(10 * np.log10(0.01 / (0.02**2 / 2)), abs=0.2)
    assert narrow.si_sdr > native.si_sdr + 10
    assert time_for_time(target, rate, target[::2], rate // 2).si_sdr_rate == rate  # the reference is resampled


def test_si_sdr_in_closed_form() -> None:
    """Of a target and noise that is orthogonal to it, whatever the scale: the ratio of both energies."""
    n = np.arange(RATE)
    target, noise = np.sin(2 * np.pi * 100 * n / RATE), np.sin(2 * np.pi * 300 * n / RATE)
    assert si_sdr(target + 0.1 * noise, target) == pytest.approx(20, abs=1e-6)
    assert si_sdr(-7 * (target + 0.1 * noise) + 3, target) == pytest.approx(20, abs=1e-6)
    with pytest.raises(AudioError, match="silent"):
        si_sdr(target, np.zeros(RATE))
    with pytest.raises(AudioError, match="silent"):
        si_sdr(np.zeros(RATE), target)
    with pytest.raises(AudioError, match="samples against"):
        si_sdr(target[1:], target)


def test_one_process_at_a_time_compiles() -> None:
    require_librosa.cache_clear()
    here = threading.Thread(target=require_librosa)
    with FileLock(compile_lock()):
        here.start()
        here.join(0.5)
        assert here.is_alive()
    here.join(60)
    assert not here.is_alive()


def test_a_clip_equals_itself(speech: np.ndarray) -> None:
    pytest.importorskip("pystoi")
    found = time_for_time(speech, RATE, speech, RATE)
    assert (found.mel_l1, found.stft) == (0, 0)
    assert found.si_sdr > 100
    assert found.stoi == pytest.approx(1, abs=1e-6)
    same = warped(speech, RATE, speech, RATE)
    assert (same.mcd, same.f0_rmse, same.voicing_error) == (0, 0, 0)


def test_noise_moves_every_measure(speech: np.ndarray) -> None:
    pytest.importorskip("pystoi")
    light, heavy = (time_for_time(noisy(speech, snr), RATE, speech, RATE) for snr in (20, 0))
    assert light.si_sdr == pytest.approx(20, abs=0.5)
    assert heavy.si_sdr == pytest.approx(0, abs=1)
    assert light.mel_l1 < heavy.mel_l1
    assert light.stft < heavy.stft
    assert light.stoi > heavy.stoi + 0.1


def test_the_warp_forgives_pace_and_sees_pitch(speech: np.ndarray) -> None:
    import librosa

    slow = librosa.effects.time_stretch(speech, rate=0.85)
    higher = librosa.effects.pitch_shift(speech, sr=RATE, n_steps=3)
    of_slow, of_higher = warped(slow, RATE, speech, RATE), warped(higher, RATE, speech, RATE)
    assert of_higher.f0_rmse is not None
    assert of_slow.f0_rmse is not None
    assert of_higher.f0_rmse > 200 > of_slow.f0_rmse  # three semitones are 300 cents
    assert of_slow.mcd < warped(speech[::-1].copy(), RATE, speech, RATE).mcd


def test_pesq_agrees_with_its_scale(speech: np.ndarray) -> None:
    pytest.importorskip("pesq")
    assert pesq(speech, RATE, speech, RATE) == pytest.approx(4.64, abs=0.02)
    assert pesq(noisy(speech, 20), RATE, speech, RATE) > pesq(noisy(speech, 0), RATE, speech, RATE)
    # the shorter clip decides what is compared: what is missing at the end is not heard as damage
    assert pesq(speech[: 2 * RATE], RATE, speech, RATE) == pytest.approx(4.64, abs=0.02)


@pytest.mark.parametrize("bad", [np.zeros(100, np.float32), np.full(RATE, math.nan, np.float32)])
def test_bad_clips(bad: np.ndarray) -> None:
    for measure in (warped, time_for_time):
        with pytest.raises(AudioError):
            measure(bad, RATE, np.ones(RATE, np.float32), RATE)


def test_too_short_for_stoi_is_no_score_near_zero(speech: np.ndarray) -> None:
    """pystoi gives 1e-5 for such a clip, even against itself; averaged, that would be taken for noise."""
    pytest.importorskip("pystoi")
    clip = speech[RATE : RATE + 4800]
    assert time_for_time(clip, RATE, clip, RATE).stoi is None
    verdict = Panel(PanelConfig(("copy",))).judge(Clip(clip, RATE, None, clip, RATE))
    assert "STOI" in verdict.reasons["copy"]
    assert verdict.values.keys() == {"mel_l1", "stft", "si_sdr", "si_sdr_rate"}
