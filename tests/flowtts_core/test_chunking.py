"""Long texts: every part fits, and together they are the text."""

from __future__ import annotations

import pytest

from flowtts_core.errors import TextError
from flowtts_core.text.chunking import n_tokens, speakable_chunks
from flowtts_core.text.frontends import PhonemeFrontend

FRONTEND = PhonemeFrontend()


@pytest.mark.parametrize(
    "text",
    [
        "Short enough.",
        "the quick brown fox, " * 60,
        "no stop anywhere in this one " * 40,
        "pneumono" * 60,
        "It cost 1,234,567,890 pounds; " * 30,
        "-" * 500 + " after a rule",
    ],
)
@pytest.mark.parametrize("max_tokens", [120, 400])
def test_chunks_fit_and_join_to_the_text(text: str, max_tokens: int) -> None:
    chunks = speakable_chunks(text, FRONTEND, max_tokens)
    assert "".join(chunk.text for chunk in chunks) == text
    assert all(chunk.text == text[chunk.start : chunk.end] for chunk in chunks)
    assert max(n_tokens(chunk.text, FRONTEND) for chunk in chunks) <= max_tokens


def test_cuts_stand_at_clauses_before_blanks() -> None:
    chunks = speakable_chunks("when the night has come, and the land is dark and wide, " * 4, FRONTEND, 200)
    assert all(chunk.text.rstrip().endswith(",") for chunk in chunks)
    chunks = speakable_chunks("one word after another " * 20, FRONTEND, 200)
    assert all(chunk.text.endswith(" ") for chunk in chunks)


def test_forty_thousand_characters_without_a_stop() -> None:
    text = ("and then the boat went on down the river " * 1000)[:40_000]
    chunks = speakable_chunks(text, FRONTEND, 600)
    assert "".join(chunk.text for chunk in chunks) == text
    assert max(n_tokens(chunk.text, FRONTEND) for chunk in chunks) <= 600
    assert len(chunks) < 200


def test_too_small_a_limit_is_an_error() -> None:
    with pytest.raises(TextError, match="tokens"):
        speakable_chunks("word", FRONTEND, 2)
