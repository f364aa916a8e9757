"""What a recording is freed of before it is learnt: a constant offset, and silence at its ends."""

from __future__ import annotations

import numpy as np

_FRAME_S = 0.01
_ABOVE_NOISE_DB = 9.0  # a frame so far above the noise of the recording is sound
_LOUD_FRAMES = 5  # so many are louder than what is called loud: a click is no speech, 50 ms may be
_LOWEST_DB, _HIGHEST_DB = -50.0, -34.0  # sound begins within these bounds, relative to the loud parts of speech


def without_offset(waveform: np.ndarray) -> np.ndarray:
    """Return [S] without its mean, as float32; made softer where it would pass full scale."""
    centred = waveform - waveform.mean(dtype=np.float64)
    return (centred / max(1.0, np.abs(centred).max(initial=0.0))).astype(np.float32)


def sound_bounds(waveform: np.ndarray, sample_rate: int, keep_s: float) -> tuple[int, int]:
    """Return the first sample and the end of what is not silence at the ends of [S], with `keep_s` left on either side.

    What counts as sound follows the recording: frames well above its noise, by the levels of its loud and quiet frames. The
    kept margin holds the soft beginnings and ends of words. A waveform without any sound is returned whole.
    """
    frame = max(1, round(_FRAME_S * sample_rate))
    count = len(waveform) // frame
    if count == 0:
        return 0, len(waveform)
    frames = waveform[: count * frame].reshape(count, frame).astype(np.float64)
    levels = 10 * np.log10(frames.var(axis=1) + 1e-12)  # the variance leaves an offset out, which silence may have too
    quiet, loud = np.percentile(levels, 5), np.sort(levels)[-min(_LOUD_FRAMES, count)]
    threshold = np.clip(quiet + _ABOVE_NOISE_DB, loud + _LOWEST_DB, loud + _HIGHEST_DB)
    sound = np.flatnonzero(levels > threshold)
    margin = round(keep_s * sample_rate)
    return max(0, sound[0] * frame - margin), min(len(waveform), (sound[-1] + 1) * frame + margin)
