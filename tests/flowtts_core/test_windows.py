"""Frames, samples and windows: every frame is made once, wherever a text is cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtts_core.acoustic.windows import FIRST_FRAMES, LATER_FRAMES, LOOK_AHEAD, LOOK_BACK, STRIDE, plan_windows
from flowtts_core.audio.mel import BIGVGAN_24K, F5_24K, VOCOS_24K, MelConfig
from flowtts_core.audio.spec import AudioSpec
from flowtts_core.errors import ConfigError


@settings(deadline=None)
@given(st.integers(1, 20_000))
def test_windows_keep_every_frame_once(frames: int) -> None:
    windows, done = plan_windows(frames), 0
    for window in windows:
        assert window.low % STRIDE == 0, "a net that halves the frame rate sees the same pairs as in the whole"
        assert 0 <= window.low <= done < window.end <= window.high <= frames
        assert window.low == 0 or done - window.low >= LOOK_BACK
        assert window.high == frames or window.high - window.end >= LOOK_AHEAD
        done = window.end
    assert done == frames


@settings(deadline=None)
@given(st.integers(1, 20_000), st.integers(1, 500))
def test_windows_have_few_lengths_so_that_they_can_be_made_together(frames: int, more: int) -> None:
    """A longer sentence has the same windows but for its last two: sizes depend on places, not on what follows."""
    shorter, longer = plan_windows(frames), plan_windows(frames + more)
    assert longer[: max(0, len(shorter) - 1)] == shorter[:-1]
    sizes = {window.high - window.low for window in longer[2:-2]}
    assert len(sizes) <= len(LATER_FRAMES)


def test_a_listener_waits_for_the_first_frames_alone() -> None:
    assert plan_windows(10_000)[0].end == FIRST_FRAMES
    assert [w.end for w in plan_windows(FIRST_FRAMES)] == [FIRST_FRAMES]


SPECS = st.builds(
    AudioSpec,
    sample_rate=st.sampled_from([8000, 16000, 22050, 24000, 44100, 48000]),
    hop_length=st.integers(1, 1024),
    padding=st.sampled_from(["same", "center"]),
)


@settings(deadline=None)
@given(SPECS, st.integers(0, 10**7), st.integers(1, 10**5))
def test_frames_and_samples_agree(spec: AudioSpec, samples: int, frames: int) -> None:
    assert spec.frames_of(spec.samples_of(frames)) == frames
    assert samples - spec.hop_length < spec.samples_of(spec.frames_of(samples)) <= samples
    assert spec.seconds_of(frames) == pytest.approx(frames * spec.hop_length / spec.sample_rate)


def test_arithmetic_of_the_known_mels() -> None:
    same, center = MelConfig(), VOCOS_24K
    assert same.frames_of(256 * 10 + 255) == 10 and same.samples_of(10) == 2560
    assert center.frames_of(2560) == 11 and center.samples_of(11) == 2560 and center.samples_of(0) == 0


def test_equal_features_have_equal_fingerprints_and_others_say_how_they_differ() -> None:
    known = [MelConfig(), BIGVGAN_24K, VOCOS_24K, F5_24K, AudioSpec()]
    assert len({spec.fingerprint for spec in known}) == len(known)
    assert MelConfig().fingerprint == MelConfig(22050).fingerprint
    MelConfig().require(MelConfig(), "who")
    with pytest.raises(ConfigError, match=r"who: the features differ \(log_floor 1e-07 against 1e-05\)"):
        VOCOS_24K.require(F5_24K, "who")
    with pytest.raises(ConfigError, match="n_fft None against 1024"):
        AudioSpec().require(MelConfig(), "who")  # a waveform codec's frames are no mel


@pytest.mark.parametrize("values", [{"padding": "left"}, {"hop_length": 0}, {"hop_length": 2048}, {"win_length": 2048}])
def test_impossible_features_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        MelConfig(**values)  # type: ignore[arg-type]
