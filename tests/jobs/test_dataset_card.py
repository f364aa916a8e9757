"""The dataset card: says what made the speech, claims no freer licence than the voices, and holds foreign text as text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
import yaml

from flowtts_core.errors import ConfigError
from flowtts_core.voice.card import load_card
from jobs.synthesis import webdataset
from jobs.synthesis.dataset_card import CardFacts, VoiceFacts, render_card
from jobs.synthesis.units import SHARD_SCHEMA


def facts(form: str, **told: Any) -> CardFacts:
    voice = VoiceFacts("tone", "tone-1", "Apache-2.0", "nothing: it is computed", "en-us")
    card = CardFacts("A trial", form, "job-1", "flowtts 0.0", (voice,), 59, 30.0, failed=1, reasons={"no sound": 1})
    return replace(card, **told)


def header(card: str) -> dict[str, Any]:
    return dict(yaml.safe_load(card.split("---\n")[1]))


def test_a_card_says_what_made_it() -> None:
    card = load_card()
    voice = VoiceFacts(card.name, card.fingerprint, card.licence, card.source, ", ".join(card.languages))
    gate = {"require": ["wer<0.3", "mos>3"], "takes": 3, "target": None, "target_digest": ""}
    told = facts("parquet", settings={"seed": 7, "gate": gate}, scores={"wer": 0.125})
    told = replace(told, voices=(voice,))
    card = render_card(told)
    for said in (voice.fingerprint, voice.source, voice.licence, "job-1", "flowtts 0.0", "synthetic"):
        assert said in card
    assert "| seed | 7 |" in card and "| gate | require: wer&lt;0.3, mos>3; takes: 3 |" in card
    assert "| wer, on average | 0.125 |" in card
    assert "- 1: no sound" in card
    found = header(card)
    assert (found["license"], found["language"], found["size_categories"]) == ("apache-2.0", ["en"], ["n<1K"])
    assert found["task_categories"] == ["text-to-speech"]
    assert card == render_card(told)


@pytest.mark.parametrize(
    ("licences", "tags"),
    [
        (["MIT"], {"license": "mit"}),
        (["MIT", "CC-BY-4.0"], {"license": ["cc-by-4.0", "mit"]}),
        (["MIT", "ask us"], {"license": "other", "license_name": "MIT; ask us"}),
        (["MIT", ""], {"license": "unknown"}),
    ],
)
def test_the_licence_is_no_freer_than_the_voices(licences: list[str], tags: dict[str, Any]) -> None:
    voices = tuple(VoiceFacts(f"v{i}", "f", licence) for i, licence in enumerate(licences))
    found = header(render_card(replace(facts("files"), voices=voices)))
    assert {name: value for name, value in found.items() if name.startswith("license")} == tags


def test_a_card_holds_text_from_outside_as_text() -> None:
    told = facts("files", reasons={"a | b\n# <script>": 1})
    card = render_card(replace(told, title="---\n# Evil: [x](y) <b> 'q' \"r\""))
    assert header(card)["pretty_name"] == "--- # Evil: [x](y) <b> 'q' \"r\""
    assert "<b>" not in card.split("---\n", 2)[2] and "<script>" not in card
    with pytest.raises(ConfigError, match="unknown form"):
        facts("tapes")


def test_an_empty_voice_card_and_no_rows_make_a_card() -> None:
    told = replace(facts("webdataset", rows=0, seconds=0.0), voices=(VoiceFacts("v", "f"),))
    assert header(render_card(told))["license"] == "unknown"


@pytest.mark.parametrize("form", ["files", "parquet", "webdataset"])
def test_the_columns_are_those_that_the_data_have(form: str) -> None:
    told = facts(form, scores={"wer": 0.1})
    columns = {column["name"]: column for column in header(render_card(told))["dataset_info"]["features"]}
    if form == "parquet":
        assert list(columns) == SHARD_SCHEMA.names
        assert columns["words"]["list"][3] == {"name": "start_s", "dtype": "float32"}
    if form == "webdataset":
        described = {field["name"]: field for field in columns["json"]["struct"]}
        assert list(described) == webdataset.sample_schema().names
        judged = {field["name"]: field for field in described["provenance"]["struct"]}
        assert judged["scores"]["struct"] == [{"name": "wer", "dtype": "float64"}]
    assert sum(column.get("dtype") == "audio" for column in columns.values()) == 1
    assert pa.types.is_string(SHARD_SCHEMA.field("audio").type)  # a place, not the sound
