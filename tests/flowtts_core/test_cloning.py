"""What is said in a recording: given, heard, cut with it, or refused; and recordings of two people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flowtts_core.audio.files import encode, read_audio
from flowtts_core.audio.reference import LONGEST_S, Reference
from flowtts_core.errors import DependencyError, TextError
from flowtts_core.metrics import optional, similarity
from flowtts_core.request import PromptClip
from flowtts_core.voice import cloning
from flowtts_core.voice.cloning import prepare_reference
from tests.speech_like import babble_clip


class Parrot:
    """A recogniser that hears what it was told."""

    name = "parrot"

    def __init__(self, heard: str) -> None:
        self.heard, self.asked = heard, list[tuple[float, str]]()

    def transcribe(self, waveform: np.ndarray, sample_rate: int, language: str = "en") -> str:
        self.asked.append((len(waveform) / sample_rate, language))
        return self.heard


@pytest.fixture
def hearing(monkeypatch: pytest.MonkeyPatch) -> Parrot:
    parrot = Parrot("what the parrot heard")
    monkeypatch.setattr(cloning, "recogniser", lambda spec: parrot)
    monkeypatch.setattr(similarity, "parts_alike", lambda waveform, rate: None)  # to it, a babble is many people
    return parrot


def test_a_given_text_is_kept_and_nothing_is_transcribed(hearing: Parrot) -> None:
    clip = babble_clip(3.5)
    found = prepare_reference(clip, " A text as it\nwas  given, of some words. ")
    assert (found.text, found.transcribed, found.clip, found.notes) == (
        "A text as it was given, of some words.",
        "",
        clip,
        (),
    )
    assert not hearing.asked and found.source_sha256 == clip.digest


def test_without_a_text_what_is_heard_is_taken(hearing: Parrot) -> None:
    found = prepare_reference(babble_clip(3.5), language="de-de", asr="whisper:any")
    assert (found.text, found.transcribed) == (hearing.heard, "whisper:any")
    assert hearing.asked == [(pytest.approx(3.5, abs=0.3), "de")]


def test_a_long_recording_is_transcribed_as_far_as_it_is_used(hearing: Parrot) -> None:
    hearing.heard = "words " * 20
    found = prepare_reference(babble_clip(30.0))
    assert hearing.asked[0][0] == pytest.approx(found.seconds, abs=0.01) and found.seconds <= LONGEST_S
    assert len(read_audio(found.clip.audio)[0]) / 16000 == pytest.approx(found.seconds, abs=0.01)
    again = prepare_reference(found.clip, found.text)
    assert (again.clip, again.text) == (found.clip, found.text), "and goes on as a clip with its own text"


def test_what_nobody_hears_is_refused_with_the_remedy(hearing: Parrot) -> None:
    hearing.heard = " ... "
    with pytest.raises(TextError, match="hears no words") as refused:
        prepare_reference(babble_clip(3.5))
    assert "--ref-text" in refused.value.remedy


def test_where_nothing_transcribes_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(spec: str) -> Parrot:
        raise DependencyError("this judge needs the package 'pocketsphinx'", optional.EVAL)

    monkeypatch.setattr(cloning, "recogniser", absent)
    with pytest.raises(DependencyError, match="nothing is installed") as refused:
        prepare_reference(babble_clip(3.5))
    assert "--ref-text" in refused.value.remedy and "flowtts[eval]" in refused.value.remedy


def test_a_text_that_a_recogniser_does_not_hear_is_doubted_or_refused(hearing: Parrot) -> None:
    pytest.importorskip("jiwer")
    hearing.heard = "the quick brown fox jumps over it"
    clip = babble_clip(3.5)
    assert not prepare_reference(clip, "The quick brown fox jumps over it.", asr="any").notes
    [doubt] = prepare_reference(clip, "The slow grey bear climbs over it.", asr="any").notes
    assert "any hears" in doubt
    with pytest.raises(TextError, match="do not match"):
        prepare_reference(clip, "Something else is said in here.", asr="any")


def test_the_text_of_a_long_recording_is_cut_with_it(shared_data: Path) -> None:
    """Two sentences of a reader, of which the second begins after the cut."""
    lines = (next((shared_data / "ljspeech").rglob("metadata.csv"))).read_text(encoding="utf-8").splitlines()
    said = {row.split("|")[0]: row.split("|")[2] for row in lines}
    first, second = "LJ001-0001", "LJ001-0003"
    waveforms = [read_audio(next((shared_data / "ljspeech").rglob(f"{name}.wav"))) for name in (first, second)]
    rest = np.zeros(round(0.5 * 22050), np.float32)
    clip = PromptClip(encode(np.concatenate([waveforms[0][0], rest, waveforms[1][0]]), 22050))
    found = prepare_reference(clip, f"{said[first]}. {said[second]}")
    assert found.text.rstrip(".") == said[first].rstrip(".")
    assert found.seconds == pytest.approx(len(waveforms[0][0]) / 22050, abs=0.6)
    assert any("its text is cut" in note for note in found.notes)
    with pytest.raises(TextError, match="its text is of all"):
        prepare_reference(clip, f"{said[first]}. {said[second]}", language="de")


def test_two_speakers_are_told_and_one_is_not(shared_data: Path) -> None:
    pytest.importorskip("resemblyzer")
    clips = sorted((shared_data / "librispeech/train-clean-100").glob("*.flac"))
    one, other = (read_audio(clips[i])[0][: 5 * 16000] for i in (0, 40))

    def noted(waveform: np.ndarray) -> bool:
        found = prepare_reference(PromptClip(encode(waveform, 16000)), "words " * 20)
        return any("two people" in note for note in found.notes)

    assert noted(np.concatenate([one, other])) and not noted(
        np.concatenate([one, read_audio(clips[0])[0][80000:160000]])
    )


def test_the_provenance_tells_file_consent_and_text() -> None:
    clip = babble_clip(3.5)
    told = prepare_reference(clip, "A text as it was given.").provenance("me.wav", "Ann Reader, by letter, 2026-05-01")
    assert told["source"] == "me.wav" and told["source_sha256"] == clip.digest
    assert told["consent"] == "Ann Reader, by letter, 2026-05-01" and told["text"] == "A text as it was given."
    assert prepare_reference(clip, "A text as it was given.").provenance("me.wav", "")["consent"] is None


def test_an_uncut_reference_needs_no_room_for_what_was_cut() -> None:
    assert len(Reference(np.zeros(3, np.float32), 16000).before_cut) == 0
