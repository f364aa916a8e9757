"""Sentences: where they end, their offsets, and that no character is lost or doubled."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtts_core.text.document import Sentence
from flowtts_core.text.sentences import (
    Block,
    Draft,
    Pauses,
    build_chapter,
    finish_chapters,
    split_paragraph,
    split_sentences,
)


def assert_covers(text: str, sentences: tuple[Sentence, ...]) -> None:
    """Every character that is not white space lies in exactly one sentence, in order, and the texts say the same."""
    owners = [0] * len(text)
    end = 0
    for sentence in sentences:
        assert end <= sentence.start < sentence.end <= len(text)
        end = sentence.end
        assert sentence.text == " ".join(text[sentence.start : sentence.end].split())
        assert not text[sentence.start].isspace()
        assert not text[sentence.end - 1].isspace()
        for index in range(sentence.start, sentence.end):
            owners[index] += 1
    assert all(owner == 1 or (owner == 0 and c.isspace()) for owner, c in zip(owners, text, strict=True))


@pytest.mark.parametrize(
    "sentences",
    [
        ["‘Yes!’ he said.", "Then he left."],
        ["'Yes!' he said.", '"No?" she asked.'],
        ["“I see,” he said.", "“Go on!”", "“No.”"],
        ["Mr. Smith met Dr. H. G. Wells at 5 p.m. on St. John's Rd. yesterday.", "It was cold."],
        ["J. R. R. Tolkien wrote it.", "So did Capt. W. E. Johns."],
        ["He waited…", "Then he spoke.", "Well… no."],
        ["Then…he left.", "So did I."],
        ["“Wait... what?” she cried.", "No!", "No!"],
        ["(Which was very likely true.)", "She went."],
        ["It costs $3.50.", "See Fig. 3 for more."],
        ["No. 5 is alive.", "Vol. II is not."],
        ["‘Good-bye, feet!’ (for she looked down).", "‘Oh, my feet!’"],
        ["What?! he cried.", "Who in the world am I?", "Ah, that’s the puzzle!"],
        ["Use e.g. this, i.e. that, etc. and so on.", "Stop."],
        ["He met Lieut. Smith.", "Supt. Jones saw Insp. Lestrade, Cpl. Trim, Pvt. Ryan and Cmdr. Bond."],
        ["The Rt. Hon. Wm. Pitt met Pres. Lincoln and Revd. Green.", "Chas. Dickens, Geo. Eliot and Thos. Hardy left."],
        ["Jas. Boswell and Jno. Hancock went to Ft. Worth.", "Warner Bros. Studios is there.", "It is big."],
        ["The Dept. of State and the Dept. State runs.", "He left the Dept.", "The end."],
        ["Take Hwy. 5 now.", "See Ch. 5 and Eq. 3.", "Go to No. Ten Downing Street.", "I said No.", "Ten men came."],
        ["MR. HYDE met DR. JEKYLL.", "MRS. BENNET went to ST. IVES.", "NO. 5 IS HERE.", "NO.", "NEVER."],
        ["He lives at 5 Oak St.", "The house is red.", "Main St. Bridge is near St. The."],
        ["Plan C.", "It works.", "I took Vitamin C.", "He did.", "George W. Bush and A. A. Milne came."],
        ["C. It is a list."],
        [
            "He was born on Feb. 14th in Rome.",
            "On 5. Nov 2020 it began.",
            "It was the 5. November.",
            "In Feb.",
            "It fell.",
        ],
        ["They were 5.", "November came.", "At 9 a.m. Monday he left.", "He came at 5 p.m.", "She did not."],
        ["See ed. 3, para. 4, fol. 5 and Op. 27.", "Read 1 Sam. 3 and Rom. 8:2 aloud.", "I saw Sam.", "He ran."],
        ["The 3rd Inf. Div. landed.", "The 2nd Bn. 5th Regt. and Brig. Gen. Jones left the Div.", "It won."],
        ["‘They must go,’ she thought; ‘and how funny it is!’", "She laughed."],
    ],
)
def test_where_sentences_end(sentences):
    text = " ".join(sentences)
    assert [s.text for s in split_sentences(text)] == sentences
    assert_covers(text, split_sentences(text))


@pytest.mark.parametrize(
    "sentences",
    [
        ["今日は晴れです。", "明日は雨でしょう！", "え？！", "3.5倍です…。", "うん｡", "終わり"],
        ["彼は「行く。」と言った。", "「はい。」", "『本。』", "（何！？）と聞く。", "次。"],
    ],
)
def test_japanese_sentences_end_without_spaces(sentences):
    text = "".join(sentences)
    assert [s.text for s in split_sentences(text)] == sentences
    assert_covers(text, split_sentences(text))


def test_paragraphs_end_sentences_and_line_feeds_do_not():
    text = "One\ntwo three.  Four\n \n\nfive six\r\n\r\n  Seven.\n"
    sentences = split_sentences(text)
    assert [s.text for s in sentences] == ["One two three.", "Four", "five six", "Seven."]
    assert [s.pause_s for s in sentences] == [0.35, 0.7, 0.7, 0.7]
    assert_covers(text, sentences)


def test_what_cannot_be_spoken_alone_joins_its_neighbour():
    assert [s.text for s in split_sentences("“ — ” Yes. ...  ! No.")] == ["“ — ” Yes. ... !", "No."]
    assert [s.text for s in split_sentences("?! ...")] == ["?! ..."]
    assert split_sentences(" \n\t ") == ()


ODD = st.lists(
    st.one_of(
        st.characters(),
        st.characters(categories=["Cs", "Cc", "Cf", "Zs", "Zl"]),
        st.sampled_from(list("\x00\ud800\udfff\u200b\u2028\x85\x1c  \n\n.?!…—–-\"'“”‘’()[]AaBb1Ⅻß漢字")),
        st.sampled_from(["Mr.", "e.g.", "...", "No.", " I? ", ".) ", "\n\n"]),
    ),
    max_size=80,
).map("".join)


@settings(max_examples=400, deadline=None)
@given(ODD)
def test_no_character_is_lost_or_doubled(text):
    assert_covers(text, split_sentences(text))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(ODD, st.integers(0, 2), st.booleans()), max_size=5))
def test_a_chapter_of_any_blocks_is_covered(blocks):
    chapter = build_chapter("x", [Block(text, level, scene) for text, level, scene in blocks])
    assert_covers(chapter.text, chapter.sentences)


@pytest.mark.parametrize(
    "text", ["word " * 8000, "a" * 40_000, "a. " * 13_000, "'" * 40_000, "…" * 40_000, "(" * 40_000, "1,\x00" * 13_000]
)
def test_long_monotonous_texts_stay_whole_and_take_time_in_proportion(text):
    assert len(split_paragraph(text)) == 1
    ratio = min(seconds_of(text) / seconds_of(text[: len(text) // 4]) for _ in range(3))
    assert ratio < 12, "four times the characters take four times as long, or sixteen if the time grows with the square"


def seconds_of(text: str) -> float:
    """Processor time of a split; other processes do not count in it."""
    begin = time.process_time()
    split_paragraph(text)
    return max(time.process_time() - begin, 0.002)


def test_lone_surrogates_and_null_bytes_keep_their_places():
    text = "One\x00 two.\ud800 Three \udc00four. Five."
    sentences = split_sentences(text)
    assert_covers(text, sentences)
    assert "".join(s.text for s in sentences).count("\ud800") == 1
    assert sentences[-1].text == "Five."


def test_a_heading_is_one_sentence_a_line_and_pauses_are_settings():
    pauses = Pauses(sentence=1, paragraph=2, heading=3, scene_break=4)
    blocks = [Block("CHAPTER I.\nDown. Under.", level=2), Block("Ann read. Bob slept."), Block("E.", scene_break=True)]
    chapter = build_chapter("t", blocks, pauses)
    assert chapter.text == "CHAPTER I.\nDown. Under.\n\nAnn read. Bob slept.\n\nE."
    assert [(s.text, s.role, s.pause_s) for s in chapter.sentences] == [
        ("CHAPTER I.", "heading", 1),
        ("Down. Under.", "heading", 3),
        ("Ann read.", "sentence", 1),
        ("Bob slept.", "sentence", 2),
        ("E.", "sentence", 4),
    ]


def test_a_part_is_read_with_its_first_chapter_and_an_empty_chapter_is_left_out():
    drafts = [
        Draft("Part", [Block("Part", 1)], divider=True),
        Draft("I", [Block("I", 2), Block("Text.")], "Part"),
        Draft("II", [Block("II", 2)], "Part"),
    ]
    chapters, warnings = finish_chapters(drafts)
    assert [(c.title, c.text) for c in chapters] == [("Part: I", "Part\n\nI\n\nText.")]
    assert warnings == ["chapter 'II' holds no text: left out"]
