"""Texts in another language than the front end's: nearly all are found, and hardly a sentence is found wrongly."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from flowtts_core.text.languages import other_language, primary


def found(texts: list[str], read: str) -> list[str]:
    return [text for text in texts if other_language(text, "", read, detect=True)]


def test_8000_english_sentences_are_english(shared_data: Path):
    with (shared_data / "texts" / "ljspeech_transcripts.tsv").open(encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    assert len(texts) == 8000
    assert found(texts, "en-us") == []


def test_german_sentences_are_not_english(shared_data: Path):
    lines = (shared_data / "kerstin" / "metadata.csv").read_text(encoding="utf-8").splitlines()
    texts = [line.split("|")[1] for line in lines]
    assert len(found(texts, "en-us")) >= 0.97 * len(texts)
    assert found(texts, "de") == []


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("日本国憲法", "ja"),  # kanji alone look Chinese
        ("Dobro jutro, kako ste danas?", "sr"),
        ("Det er en fin dag i dag.", "nb"),  # the detector calls it `no`
        ("No-sir-ee.", "en-us"),
        ("Jack London, Waikiki Beach, Honolulu, Oahu.", "en-us"),
        ("Guten Tag, meine Damen und Herren.", "xx"),  # a language that it does not know
        ("Guten Tag, meine Damen und Herren.", ""),
    ],
)
def test_kin_and_unknown_languages_are_left_alone(text: str, read: str):
    assert other_language(text, "", read, detect=True) == ""


@pytest.mark.parametrize(
    ("text", "read", "name"),
    [
        ("今日は天気がいいですね。", "en-us", "ja"),
        ("Bonjour tout le monde.", "en", "fr"),
        ("Hello, my friend.", "de", "en"),
    ],
)
def test_the_language_found_is_named(text: str, read: str, name: str):
    assert f"another language: {name!r}" in other_language(text, "", read, detect=True)


def test_marks_are_compared_by_their_language_alone():
    assert primary("en_GB") == primary(" en-us") == "en"
    assert other_language("Hello.", "en-GB", "en-us", detect=False) == ""
    assert "its row says 'fr'" in other_language("Hello.", "fr", "en-us", detect=False)
