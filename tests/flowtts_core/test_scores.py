"""Scores: any order and partition of clips gives the same figure, and what could not be measured is counted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import strategies as st

from flowtts_core.errors import ConfigError, FlowTTSError
from flowtts_core.metrics import judges, wer
from flowtts_core.metrics.judges import Clip, Judge, Panel, PanelConfig
from flowtts_core.metrics.scores import Metric, Scores, paired_difference
from flowtts_core.metrics.shape import mel_statistics, shape_of

MEAN = Metric("mos", "1 to 5", True, "a mean")
RATIO = Metric("wer", "errors per word", False, "a ratio", "ratio")
VALUES = st.dictionaries(
    st.text(min_size=1, max_size=3), st.none() | st.tuples(st.floats(0, 9), st.integers(1, 9)), min_size=1, max_size=12
)


def state(metric: Metric, values: dict[str, tuple[float, float] | None]) -> Scores:
    scores = Scores(metric)
    for id, value in values.items():
        scores.update(id, *((None,) if value is None else value))
    return scores


def test_a_mean_a_ratio_and_what_failed() -> None:
    mean = state(MEAN, {"a": (3.0, 1), "b": (4.0, 1), "c": None}).compute()
    assert (mean.value, mean.n, mean.failed) == (3.5, 2, 1)
    ratio = state(RATIO, {"a": (1, 10), "b": (3, 2)}).compute()
    assert ratio.value == pytest.approx(4 / 12)  # of all words, not the mean of both rates
    nothing = state(MEAN, {"a": None}).compute()
    assert (nothing.value, nothing.low, nothing.failed) == (None, None, 1)


def test_a_clip_counts_once() -> None:
    scores = state(MEAN, {"a": (1.0, 1)})
    with pytest.raises(FlowTTSError, match="'a' is there twice"):
        scores.update("a", 2.0)


def test_paired_difference_is_over_shared_clips() -> None:
    ours, theirs = (
        state(MEAN, {"a": (3.0, 1), "b": (5.0, 1), "x": (1.0, 1)}),
        state(MEAN, {"b": (4.0, 1), "a": (2.0, 1)}),
    )
    found = paired_difference(ours, theirs)
    assert found is not None
    assert (found.value, found.low, found.high, found.n) == (1.0, 1.0, 1.0, 2)
    assert paired_difference(state(MEAN, {"a": (1.0, 1)}), state(MEAN, {"b": (1.0, 1)})) is None
    other_text = paired_difference(state(RATIO, {"a": (1, 5), "b": (0, 4)}), state(RATIO, {"a": (0, 6), "b": (2, 4)}))
    assert other_text is not None
    assert (other_text.n, other_text.value) == (1, -0.5)  # "a" has another number of words there


def test_shape_of_a_waveform() -> None:
    rate = 8000
    tone = 0.5 * np.sin(2 * np.pi * 200 * np.arange(rate) / rate).astype(np.float32)
    waveform = np.concatenate([tone, np.zeros(rate // 2, np.float32), tone])
    found = shape_of(waveform, rate)
    assert found.seconds == 2.5
    assert found.silent_s == pytest.approx(0.5, abs=0.02)
    assert found.clipped == 0
    loud = np.clip(4 * waveform, -1, 1)
    assert shape_of(loud, rate).clipped > 1000
    assert shape_of(np.zeros(800, np.float32), rate).silent_s == pytest.approx(0.1)
    assert [shape_of(one, rate).sounding for one in (tone, np.zeros(840, np.float32), tone[:10])] == [100, 0, 0]
    assert np.linalg.norm(mel_statistics(tone, rate) - mel_statistics(0.1 * tone, rate)) > 1


def test_one_judge_that_cannot_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(panel: Panel, clip: Clip, verdict: judges.Verdict) -> None:
        raise FlowTTSError("no voice in it")

    monkeypatch.setitem(judges.JUDGES, "speaker", Judge(fail, judges.JUDGES["speaker"].metrics))
    clip = Clip(np.ones(8000, np.float32) * 0.1, 8000)
    verdict = Panel(PanelConfig(("words", "speaker", "shape"))).judge(clip)
    assert verdict.reasons == {"speaker": "no voice in it"}
    assert verdict.values["seconds"] == (1.0, 1.0)
    assert "wer" not in verdict.values  # there is no text to hold it against
    with pytest.raises(ConfigError, match="no judge 'taste'"):
        PanelConfig(("taste",))


def test_errors_of_words_and_characters() -> None:
    pytest.importorskip("jiwer")
    assert wer.errors_of("The cat sat.", "the cat sad") == (1, 3)
    assert wer.errors_of("The cat sat.", "the cat sad", characters=True) == (1, 11)
    assert wer.errors_of("", "a word", characters=True) == (6, 0)
    assert wer.alignment("The cat sat here.", "a cat sat") == [
        ("substitute", "the", "a"),
        ("equal", "cat sat", "cat sat"),
        ("delete", "here", ""),
    ]


@pytest.mark.parametrize("found", [math.nan, math.inf, None], ids=["nan", "infinity", "a library's error"])
def test_what_is_no_number_spoils_nothing(found: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(panel: Panel, clip: Clip, verdict: judges.Verdict) -> None:
        if found is None:
            raise ZeroDivisionError("in a library")
        verdict.values["secs"] = (found, 1.0)
        verdict.embeddings["speaker"] = np.array([1.0, found])

    monkeypatch.setitem(judges.JUDGES, "speaker", Judge(odd, judges.JUDGES["speaker"].metrics))
    verdict = Panel(PanelConfig(("speaker", "shape"))).judge(Clip(np.ones(8000, np.float32) * 0.1, 8000))
    assert (
        "in a library" in verdict.reasons["speaker"] if found is None else "secs, speaker" in verdict.reasons["speaker"]
    )
    assert "secs" not in verdict.values and "speaker" not in verdict.embeddings
    assert verdict.values["seconds"] == (1.0, 1.0)
