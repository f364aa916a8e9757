"""Subtitles: what a viewer can read in time, two lines and seven seconds at most, cut where the sentence breathes."""

from __future__ import annotations

import random
import re

import pytest

from jobs.synthesis.subtitles import LINE, LONGEST_S, Cue, WordAt, cut, lingering, srt, vtt

LONG = (
    "The Time Traveller (for so it will be convenient to speak of him) was expounding a recondite matter to us; his pale "
    "grey eyes shone and twinkled, and his usually pale face was flushed and animated, while the fire burned brightly, "
    "and the soft radiance of the incandescent lights in the lilies of silver caught the bubbles that flashed and passed "
    "in our glasses, and he put it to us in this way, marking the points with a lean forefinger, as we sat."
)
JAPANESE = (
    "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。何でも薄暗い所で泣いていた事だけは記憶している。"
)


def blocks(cues: list[Cue]) -> list[list[str]]:
    """The lines of each cue's text."""
    return [block.splitlines()[2:] for block in srt(cues).strip().split("\n\n")]


@pytest.mark.parametrize("text", [LONG, JAPANESE, "word " * 90, "See https://example.org/" + "a" * 300, "Yes."])
def test_no_cue_has_more_than_two_lines_or_seven_seconds(text: str) -> None:
    cues = cut(Cue(text, 10.0, 10.0 + len(text) / 14))
    widths = [sum(2 if ord(c) > 0x2E80 else 1 for c in line) for lines in blocks(cues) for line in lines]
    assert max(widths) <= LINE
    assert max(map(len, blocks(cues))) <= 2
    assert max(cue.end_s - cue.start_s for cue in cues) <= LONGEST_S + 1e-9
    assert "".join("".join(cue.text.split()) for cue in cues) == "".join(text.split())
    assert (cues[0].start_s, cues[-1].end_s) == (10.0, pytest.approx(10.0 + len(text) / 14))


def test_cues_end_at_clauses_and_never_after_an_article() -> None:
    ends = [cue.text.split()[-1] for cue in cut(Cue(LONG, 0.0, 33.0))]
    assert {"him)", "twinkled,", "way,"} <= set(ends)
    assert not {"the", "a", "his", "of", "and"} & set(ends)


def test_cuts_take_the_times_of_their_words() -> None:
    rng, clock, words = random.Random(1), 5.0, []
    for word in LONG.split():
        spoken = 0.05 + 0.3 * rng.random()
        words.append(WordAt(word.strip("();,."), clock, clock + spoken))
        clock += spoken + 0.2 * rng.random()
    cues = cut(Cue(LONG, 5.0, clock), words)
    place = 0
    for cue in cues:
        count = len(cue.text.split())
        first, last = words[place], words[place + count - 1]
        assert cue.start_s == pytest.approx(first.start_s)
        assert cue.end_s == pytest.approx(clock if place + count == len(words) else last.end_s, abs=0.2)
        place += count


def test_a_word_that_is_not_in_the_text_moves_no_other() -> None:
    text = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    times = [WordAt(word, float(i), i + 0.5) for i, word in enumerate(text.split())]
    times[3] = WordAt("[[spoken otherwise]]", 3.0, 3.5)
    cues = cut(Cue(text, 0.0, 16.0), times)
    assert [cue.start_s for cue in cues] == [float(text[: text.index(cue.text)].count(" ")) for cue in cues]


def test_a_cue_stays_until_it_is_read_but_never_over_the_next() -> None:
    cues = lingering([Cue("No.", 0.0, 0.3), Cue("x" * 34, 0.5, 0.6), Cue("x" * 34, 4.0, 4.1)], end_s=5.0)
    assert [cue.end_s for cue in cues] == pytest.approx([0.5, 2.5, 5.0])
    assert lingering([], end_s=5.0) == []


def test_clocks_and_marks_of_both_formats() -> None:
    cue = Cue("<Tea> & cake", 3661.5, 3662.0)
    assert srt([cue]) == "1\n01:01:01,500 --> 01:01:02,000\n<Tea> & cake\n"
    assert re.search(r"^01:01:01\.500 --> 01:01:02\.000\n&lt;Tea&gt; &amp; cake$", vtt([cue]), re.MULTILINE)
