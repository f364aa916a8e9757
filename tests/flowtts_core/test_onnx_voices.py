"""ONNX voices: what an import keeps and refuses, noise from the seed, word times, and the published package's samples."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from flowtts_core.engines.base import Speech
from flowtts_core.engines.hibari import import_hibari
from flowtts_core.engines.kokoro import DEFAULT_SPEAKER, import_kokoro, parse_mixture, read_vocab
from flowtts_core.engines.piper import import_piper
from flowtts_core.errors import FlowTTSError, VoiceError
from flowtts_core.request import SynthesisRequest
from flowtts_core.text.frontends import PhonemeConfig, PhonemeFrontend
from flowtts_core.text.frontends.misaki import to_misaki
from flowtts_core.voice import find_voice, load_card, open_voice
from flowtts_core.voice.card import write_card
from tests.onnx_graphs import (
    HOP,
    LETTERS,
    make_kokoro_voice,
    make_piper_graph,
    make_piper_voice,
    write_kokoro,
    write_piper,
)

HEART = Path(str(files("hibari") / "assets" / "hibari.onnx"))
TEXT = "Hello there, old world."


def speak(folder: Path, text: str = TEXT, **settings: Any) -> Speech:
    [speech] = open_voice(folder, threads=1).synthesize([SynthesisRequest(text=text, **settings)])
    assert isinstance(speech, Speech), speech
    return speech


@pytest.fixture(scope="module")
def heart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voices") / "heart"
    import_hibari(HEART, folder)
    return folder


# --- Piper --------------------------------------------------------------------------------------------------------------


def test_noise_comes_from_the_seed_alone(tmp_path: Path) -> None:
    voice = make_piper_voice(tmp_path / "joe")
    first, again, other = (speak(voice, seed=seed).waveform for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert len(first) != len(other) or not np.array_equal(first, other)
    quiet, still = (speak(voice, seed=1, temperature=t).waveform for t in (0.0, 0.667))
    assert np.array_equal(still, first) and not np.array_equal(quiet, first)


def test_words_lie_where_their_frames_do(tmp_path: Path) -> None:
    speech = speak(make_piper_voice(tmp_path / "joe"))
    assert speech.words is not None
    assert [word.word for word in speech.words] == ["Hello", "there", "old", "world"]
    frames = [word.end_s * 16_000 / HOP for word in speech.words]
    assert frames == pytest.approx([round(frame) for frame in frames])
    assert speech.words[-1].end_s < speech.seconds


def test_twice_as_fast_is_half_as_long(tmp_path: Path) -> None:
    voice = make_piper_voice(tmp_path / "joe")
    lengths = [speak(voice, "the quick brown fox " * 5, speed=speed).seconds for speed in (1.0, 2.0)]
    assert lengths[0] / lengths[1] == pytest.approx(2, rel=0.25)


def test_several_speakers_differ(tmp_path: Path) -> None:
    voice = make_piper_voice(tmp_path / "many", speakers=3)
    assert load_card(voice).speakers == ("speaker-0", "speaker-1", "speaker-2")
    assert not np.array_equal(speak(voice, speaker="speaker-1").waveform, speak(voice, speaker="speaker-2").waveform)
    assert np.array_equal(speak(voice).waveform, speak(voice, speaker="speaker-0").waveform)


def test_words_are_aligned_only_where_the_graph_does_not_tell(tmp_path: Path) -> None:
    timed, untimed = make_piper_voice(tmp_path / "joe"), make_piper_voice(tmp_path / "untimed", timed=False)
    assert not load_card(untimed).parts["graph"]["durations"]
    [told, aligned] = [speak(voice, seed=1) for voice in (timed, untimed)]
    assert np.array_equal(told.waveform, aligned.waveform)
    assert told.words is not None and aligned.words is not None
    assert [word.word for word in aligned.words] == [word.word for word in told.words]
    script = f"import sys; from flowtts_core.voice import open_voice; open_voice({str(timed)!r}); "
    script += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_symbols_that_the_voice_lacks_are_counted(tmp_path: Path) -> None:
    speech = speak(make_piper_voice(tmp_path / "joe"), "naïve café")
    assert speech.dropped == ("\u0308", "\u0301")  # the accents, which its table has not


def broken_files(folder: Path, what: str) -> tuple[Path, Path]:
    """Files of a Piper voice with one thing wrong."""
    graph, config = write_piper(folder)
    values = json.loads(config.read_text())
    if what == "no json":
        config.unlink()
    elif what == "no graph":
        graph.unlink()
    elif what == "truncated":
        graph.write_bytes(graph.read_bytes()[:-400])
    elif what == "empty":
        graph.write_bytes(b"")
    elif what == "not json":
        config.write_text("{")
    elif what == "symbols":
        values["phoneme_id_map"]["ż"] = [99]
    elif what == "no end":
        del values["phoneme_id_map"]["$"]
    elif what == "speakers":
        values["num_speakers"] = 4
    elif what == "sample rate":
        values["audio"]["sample_rate"] = 0
    elif what == "kind":
        values["phoneme_type"] = "pinyin"
    elif what == "custom operator":
        onnx.save(make_piper_graph(len(LETTERS) + 3, domain="com.example"), str(graph))
    elif what == "other model":
        onnx.save(make_piper_graph(len(LETTERS) + 3, speakers=2), str(graph))
    elif what == "outside":
        model = onnx.load(str(graph))
        tensor = next(t for t in model.graph.initializer if t.name == "emb")
        (folder.parent / "secret").write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../secret")
        graph.write_bytes(model.SerializeToString())
    if config.exists() and what not in ("not json",):
        config.write_text(json.dumps(values))
    return graph, config


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("no json", "voice.onnx.json: cannot be read"),
        ("no graph", "voice.onnx: no such file"),
        ("truncated", "no ONNX graph, or a damaged one"),
        ("empty", "no ONNX graph, or a damaged one"),
        ("not json", "not the JSON of a Piper voice"),
        ("symbols", "the graph does not run"),
        ("no end", "or _ is not 0"),
        ("speakers", "num_speakers is 4, but the graph has one speaker"),
        ("sample rate", "sample_rate 0"),
        ("kind", "phoneme_type 'pinyin'"),
        ("custom operator", "needs custom operators"),
        ("other model", "but the graph has several speakers"),
        ("outside", "has data outside its folder"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, what: str, told: str) -> None:
    with pytest.raises(VoiceError, match=told):
        import_piper(*broken_files(tmp_path / "files", what), tmp_path / "voice")
    assert not (tmp_path / "voice" / "voice.json").exists()


def test_data_beside_the_graph_is_taken_along(tmp_path: Path) -> None:
    graph, config = write_piper(tmp_path / "files")
    whole = speak(make_piper_voice(tmp_path / "whole"), seed=3).waveform
    onnx.save(onnx.load(str(graph)), str(graph), save_as_external_data=True, location="weights.bin", size_threshold=0)
    import_piper(graph, config, tmp_path / "voice")
    (tmp_path / "files" / "weights.bin").unlink()
    assert np.array_equal(speak(tmp_path / "voice", seed=3).waveform, whole)


def test_random_numbers_that_cannot_be_fed_are_refused(tmp_path: Path) -> None:
    model = make_piper_graph(len(LETTERS) + 3)
    shape = numpy_helper.from_array(np.array([1], np.int64), "side")
    model.graph.initializer.append(shape)
    model.graph.node.insert(0, helper.make_node("RandomNormal", [], ["unfed"], shape=[1]))
    with pytest.raises(VoiceError, match="cannot be fed"):
        import_piper(*write_piper(tmp_path / "files", model=model), tmp_path / "voice")


def test_an_altered_graph_is_not_opened(tmp_path: Path) -> None:
    voice = make_piper_voice(tmp_path / "joe")
    data = (voice / "model.onnx").read_bytes()
    (voice / "model.onnx").write_bytes(data[:-1] + b"\0")
    with pytest.raises(VoiceError, match="SHA-256 differs"):
        open_voice(voice)
    (voice / "model.onnx").write_bytes(data)
    card = load_card(voice)
    write_card(voice, replace(card, sha256={**card.sha256, "../model.onnx": "0"}))
    with pytest.raises(VoiceError, match="missing"):
        open_voice(voice)
    outside = {**card.parts["graph"], "file": "../model.onnx"}
    write_card(voice, replace(card, parts={**card.parts, "graph": outside}))
    with pytest.raises(VoiceError, match=r"has no SHA-256 of \.\./model\.onnx"):
        open_voice(voice)


def test_a_sound_without_end_is_a_failure(tmp_path: Path) -> None:
    model = make_piper_graph(len(LETTERS) + 3)
    lasting = next(t for t in model.graph.initializer if t.name == "lasting")
    lasting.CopyFrom(numpy_helper.from_array(np.full((len(LETTERS) + 3, 2), 90.0, np.float32), "lasting"))
    with pytest.raises(VoiceError, match="the graph does not run"):
        import_piper(*write_piper(tmp_path / "files", model=model), tmp_path / "voice")


# --- Kokoro -------------------------------------------------------------------------------------------------------------


def test_a_mixture_lies_between_its_speakers(tmp_path: Path) -> None:
    voice = make_kokoro_voice(tmp_path / "kokoro")
    low, high = (speak(voice, speaker=name, language="en-us").waveform for name in ("af_heart", "am_adam"))
    np.testing.assert_allclose(speak(voice, speaker="af_heart*2+af_heart*1", language="en-us").waveform, low, atol=1e-5)
    mixed = speak(voice, speaker="af_heart*0.5+am_adam*0.5", language="en-us").waveform
    assert not np.allclose(mixed, low) and not np.allclose(mixed, high)
    assert load_card(voice).speakers[0] == DEFAULT_SPEAKER


def test_the_accent_is_the_speakers(tmp_path: Path) -> None:
    voice = make_kokoro_voice(tmp_path / "kokoro")
    assert speak(voice, "Old.", speaker="am_adam").phonemes == "ˈOld."
    assert speak(voice, "Old.", speaker="bm_george").phonemes == "ˈQld."
    assert speak(voice, "Old.", speaker="am_adam", language="en-gb").phonemes == "ˈQld."


@pytest.mark.parametrize("speaker", ["nobody", "af_heart*x", "af_heart*0", "af_heart+", "af_heart*-1"])
def test_mixtures_that_are_none_are_refused(tmp_path: Path, speaker: str) -> None:
    voice = open_voice(make_kokoro_voice(tmp_path / "kokoro"))
    with pytest.raises(FlowTTSError, match="speaker"):
        voice.check(SynthesisRequest(text=TEXT, speaker=speaker))


def test_weights_of_a_mixture() -> None:
    assert parse_mixture("af_heart*0.6+am_fenrir*0.4") == [("af_heart", 0.6), ("am_fenrir", 0.4)]
    assert parse_mixture("af_heart") == [("af_heart", 1.0)]


def test_styles_of_another_size_are_refused(tmp_path: Path) -> None:
    graph, [voices] = write_kokoro(tmp_path / "files")
    np.zeros(100, np.float32).tofile(voices / "af_short.bin")
    with pytest.raises(VoiceError, match="af_short: 100 numbers"):
        import_kokoro(graph, [voices], None, tmp_path / "voice")
    with pytest.raises(VoiceError, match="no speakers"):
        import_kokoro(graph, [], None, tmp_path / "voice")


def test_an_archive_of_styles_is_read(tmp_path: Path) -> None:
    graph, [voices] = write_kokoro(tmp_path / "files")
    styles = {file.stem: np.fromfile(file, np.float32).reshape(510, 1, 256) for file in voices.glob("*.bin")}
    np.savez(tmp_path / "voices.npz", **styles)
    (tmp_path / "voices.npz").rename(tmp_path / "voices-v1.0.bin")  # as kokoro-onnx names it
    one = import_kokoro(graph, [tmp_path / "voices-v1.0.bin"], None, tmp_path / "one")
    other = import_kokoro(graph, [voices], None, tmp_path / "other")
    assert one.sha256 == other.sha256


@pytest.mark.parametrize(
    "text",
    [
        "The FBI's men and the MPs of the B.B.C. met a self-serving man on an x-ray level.",
        "It was the twenty-second of August.",
        "Nobody knew the well-known A-level results of the CIA.",
        "A.S. Byatt had no F.I.T. test.",
    ],
)
def test_abbreviations_and_compounds_sound_as_misaki_has_them(text: str) -> None:
    from hibari.g2p import G2P

    frontend = PhonemeFrontend(PhonemeConfig("misaki", alphabet="misaki", table=read_vocab(None), add_blank=False))
    encoded = frontend.encode(text)
    assert encoded.phonemes == G2P(british=False)(text.replace("B.B.C.", "BBC")) and not encoded.dropped
    assert [word.text for word in encoded.words] == [
        word if word.count(".") > 1 else word.rstrip(".") for word in text.split()
    ]
    own = PhonemeFrontend(replace(frontend.config, lexicon={"serving": "ˈa"}))
    assert "sˈɛlf ˈa" in own.encode("A self-serving man.").phonemes  # a word of the user's own stays a word


def test_ipa_in_misakis_letters() -> None:
    assert to_misaki("tʃˈeɪnd͡ʒ".replace("\u0361", ""), "en-us") == "ʧˈAnʤ"
    assert to_misaki("bˈɜːd", "en-us") == "bˈɜɹd" and to_misaki("bˈɜːd", "en-gb") == "bˈɜːd"
    assert to_misaki("pˈitsa", "it") == "pˈiʦa" and to_misaki("kˈæts", "en-us") == "kˈæts"


def test_own_pronunciations_are_spoken(tmp_path: Path) -> None:
    voice = make_kokoro_voice(tmp_path / "kokoro")
    [speech] = open_voice(voice, lexicon={"world": "dʒˈeɪn"}).synthesize([SynthesisRequest(text="[[tʃˈaʊ]] world")])
    assert isinstance(speech, Speech) and speech.phonemes == "ʧˈW ʤˈAn"


# --- a graph that a package brings ----------------------------------------------------------------------------------------


def test_the_default_voice_speaks_with_and_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first, again = (speak(find_voice("heart"), seed=1) for _ in range(2))
    assert first.words and np.array_equal(first.waveform, again.waveform)
    assert len(list((tmp_path / "cache").rglob("*.onnx"))) == 1
    (tmp_path / "file").write_text("where a folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert np.array_equal(speak(find_voice("heart"), seed=1).waveform, first.waveform)


def test_another_version_of_the_package_is_refused(tmp_path: Path) -> None:
    card = load_card("heart")
    tmp_path.joinpath("voice").mkdir()
    write_card(tmp_path / "voice", replace(card, sha256=dict.fromkeys(card.sha256, "0")))
    with pytest.raises(VoiceError, match="SHA-256 differs"):
        open_voice(tmp_path / "voice")
    graph = {**card.parts["graph"], "package": "no_such_package"}
    write_card(tmp_path / "voice", replace(card, parts={**card.parts, "graph": graph}))
    with pytest.raises(VoiceError, match="a voice may point at hibari alone"):  # it would be imported
        open_voice(tmp_path / "voice")


# --- hibari -------------------------------------------------------------------------------------------------------------


def test_hibari_sounds_as_its_package_does(heart: Path) -> None:
    from hibari import Hibari

    voice = open_voice(heart, threads=1)
    request = SynthesisRequest(text=TEXT, seed=7, speed=1.2)
    [utterance] = voice.plan(request).utterances
    assert utterance.encoded is not None
    package = Hibari(threads=1)
    expected = package.from_ids(list(utterance.encoded.tokens), 1.2, np.random.default_rng(7))
    assert package.phonemize(TEXT) == [utterance.encoded.phonemes]
    np.testing.assert_allclose(speak(heart, seed=7, speed=1.2).waveform, expected.clip(-1, 1), atol=1e-5)


def test_hibari_times_words_to_the_end(heart: Path) -> None:
    speech = speak(heart, "One, two, three, four.")
    assert speech.words is not None and [word.word for word in speech.words] == ["One", "two", "three", "four"]
    loud = np.flatnonzero(np.abs(speech.waveform) > 0.02) / speech.sample_rate
    assert speech.words[0].start_s == pytest.approx(loud[0], abs=0.1)
    assert loud[-1] < speech.words[-1].end_s < speech.seconds


def test_a_graph_of_another_kind_is_no_hibari(tmp_path: Path) -> None:
    graph, _ = write_piper(tmp_path / "files")
    with pytest.raises(VoiceError, match="its outputs are"):
        import_hibari(graph, tmp_path / "voice")
