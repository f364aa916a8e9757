"""ZipVoice checkpoints of the community: sizes are found, weights run as published, tokens are read, and nothing is executed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from flowtts_core.acoustic import ZipVoice, ZipVoiceConfig
from flowtts_core.acoustic.zipvoice.importer import import_zipvoice, read_tokens, tokenizer_of
from flowtts_core.audio.mel import VOCOS_24K
from flowtts_core.errors import VoiceError
from flowtts_core.text.frontends import build as build_frontend
from flowtts_core.voice.card import load_card
from jobs import cli
from tests.speech_like import babble_clip

IPA = "_^$ !'(),-.:;?abcdefhijklmnopqrstuvwxyzæçðøħŋœɐɑɒɓɔɕɖəɚɛɜɡɪʃʊʌʒθˈˌː"
PINYIN = ("zh0", "ang1", "g0", "uo2", "n0", "i3", "h0", "ao3")


def write_tokens(path: Path, symbols: list[str] | None = None) -> dict[str, int]:
    table = {symbol: token for token, symbol in enumerate(symbols or [*IPA, *PINYIN])}
    path.write_text("".join(f"{symbol}\t{token}\n" for symbol, token in table.items()), encoding="utf-8")
    return table


def stated_of(config: ZipVoiceConfig) -> dict[str, Any]:
    """A model.json in the published form."""
    from flowtts_core.acoustic.zipvoice.importer import _STATED

    model = {name: getattr(config, own) for name, own in _STATED.items()}
    return {"model": model, "feature": {"sampling_rate": 24000, "type": "vocos"}}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A small model of random weights, as it is published."""
    table = write_tokens(tmp_path / "tokens.txt")
    config = dataclasses.replace(ZipVoiceConfig.debug(), n_symbols=len(table))
    torch.manual_seed(0)
    weights = ZipVoice(config).state_dict()
    weights["fm_decoder.out_proj.weight"] *= 0.05  # without noise its mels are those of a sound then
    weights["fm_decoder.out_proj.bias"].fill_(-0.3)
    torch.save({"model": weights, "step": 3}, tmp_path / "model.pt")
    (tmp_path / "model.json").write_text(json.dumps(stated_of(config)))
    return tmp_path


@pytest.mark.parametrize("kind", ["zipvoice", "zipvoice_distill"])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_published_weights_run_as_published(kind: str, suffix: str, parity_dir: Path, tmp_path: Path) -> None:
    values = json.loads((parity_dir / "zipvoice" / "config.json").read_text())
    weights = load_file(parity_dir / "zipvoice" / "weights.safetensors")
    if kind == "zipvoice_distill":
        weights = {name: value for name, value in weights.items() if not name.startswith("fm_decoder.")}
        weights |= load_file(parity_dir / kind / "weights.safetensors")
    (tmp_path / "model.json").write_text(json.dumps({"model": values["model"]}))
    path = tmp_path / f"model.{suffix}"
    if suffix == "pt":
        torch.save({"model": weights}, path)
    else:
        save_file(weights, path)
    write_tokens(tmp_path / "tokens.txt", ["_", *"abcdefghijklmnopqrstuvwxy"])
    mel = dataclasses.replace(VOCOS_24K, n_mels=20)
    imported = import_zipvoice(path, tmp_path / "tokens.txt", tmp_path / "model.json", mel)
    assert imported.config.embeds_guidance == (kind == "zipvoice_distill")
    from tests.flowtts_core.test_zipvoice import config_of

    wanted = config_of(values["model"], embeds_guidance=imported.config.embeds_guidance)
    assert imported.config == wanted
    assert all(torch.equal(value, weights[name]) for name, value in imported.model().state_dict().items())


def test_an_imported_voice_speaks_as_a_prompt(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voice, said = files / "voice", files / "said.wav"
    command = ["import", "zipvoice", *(str(files / name) for name in ("model.pt", "tokens.txt", "model.json"))]
    assert (
        cli.main([*command, "-o", str(voice), "--vocoder", "griffin_lim", "--phonemizer", "gruut", "--steps", "2"]) == 0
    )
    assert "--clone" in capsys.readouterr().out
    card = load_card(voice)
    assert (card.prompt, card.languages, card.sample_rate) == ("required", ("en-us", "zh"), 24000)
    assert (card.sampling.steps, card.sampling.guidance, card.sampling.grid) == (2, 1.0, {"name": "shift", "s": 0.5})
    (files / "ref.wav").write_bytes(babble_clip().audio)
    words = ["say", "Good evening.", "--voice", str(voice), "-o", str(said)]
    assert cli.main(words) != 0
    assert "give a prompt" in capsys.readouterr().err
    assert (
        cli.main(
            [*words, "--prompt", str(files / "ref.wav"), "--prompt-text", "How are you today?", "--temperature", "0"]
        )
        == 0
    )
    from flowtts_core.audio.files import read_audio

    waveform, rate = read_audio(said.read_bytes())
    assert rate == 24_000 and 0.3 < len(waveform) / rate < 3 and np.abs(waveform).max() > 1e-3


def test_heads_come_from_the_model_json_or_are_the_published_number(files: Path) -> None:
    told = import_zipvoice(files / "model.pt", files / "tokens.txt", files / "model.json")
    assert told.config.decoder_heads == 2 and told.config == dataclasses.replace(
        ZipVoiceConfig.debug(), n_symbols=told.config.n_symbols, dropout=0.1, guidance_dim=192
    )
    assumed = import_zipvoice(files / "model.pt", files / "tokens.txt")
    assert (assumed.config.decoder_heads, assumed.config.query_dim) == (4, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("fm_decoder.out_proj.bias"), "missing 1 .*out_proj.bias"),
        (lambda weights: weights.update(spk_embed=torch.zeros(2, 100)), "unknown 1 .*spk_embed"),
        (lambda weights: weights.update({"fm_decoder.in_proj.bias": torch.zeros(3)}), "of another shape 1 .*in_proj"),
        (lambda weights: weights.pop("embed.weight"), "no tensor 'embed.weight'"),
        (lambda weights: weights.update({"fm_decoder.out_proj.weight": torch.zeros(3)}), "damaged|no ZipVoice"),
        (lambda weights: weights.update({"fm_decoder.out_proj.weight": torch.zeros(80, 32)}), "80 mel bands"),
        (lambda weights: weights["embed.weight"].fill_(float("nan")), "not finite: embed.weight"),
    ],
)
def test_tensors_that_do_not_fit_are_named(files: Path, change: Any, message: str) -> None:
    weights = torch.load(files / "model.pt", weights_only=True)["model"]
    change(weights)
    torch.save({"model": weights}, files / "model.pt")
    with pytest.raises(VoiceError, match=message):
        import_zipvoice(files / "model.pt", files / "tokens.txt", files / "model.json")


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ("no JSON", "not the model.json"),
        ({"model": {"fm_decoder_dim": 48}}, "fm_decoder_dim 48, but the tensors have 32"),
        ({"model": {"fm_decoder_num_layers": [2, 1, 1]}}, "num_layers .2, 1, 1., but the tensors have .1, 1, 1."),
        ({"model": {}, "feature": {"type": "bigvgan"}}, "features of type 'bigvgan'"),
        ({"model": {}, "feature": {"sampling_rate": 16000}}, "at 16000 Hz"),
        ({"model": {"fm_decoder_num_heads": "two"}}, "fm_decoder_num_heads = 'two' is no number"),
        ({"model": {"fm_decoder_num_heads": 3}}, "does not divide into 3 heads"),
    ],
)
def test_a_model_json_of_another_model_is_refused(files: Path, stated: Any, message: str) -> None:
    (files / "model.json").write_text(stated if isinstance(stated, str) else json.dumps(stated))
    with pytest.raises(VoiceError, match=message):
        import_zipvoice(files / "model.pt", files / "tokens.txt", files / "model.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\t1\n", "no padding"),
        ("_\t0\na 1\n", "line 2: 'a 1' is no symbol"),
        ("_\t0\na\tone\n", "line 2"),
        ("_\t0\na\t1\na\t2\n", "line 3: .* repeats"),
        ("_\t0\na\t1\nb\t1\n", "line 3: .* repeats"),
        ("_\t0\na\t500\n", "'a' is token 500, and .* knows"),
    ],
)
def test_tokens_that_cannot_be_are_refused(files: Path, text: str, message: str) -> None:
    (files / "tokens.txt").write_text(text)
    with pytest.raises(VoiceError, match=message):
        import_zipvoice(files / "model.pt", files / "tokens.txt", files / "model.json")


def test_the_tokens_tell_their_tokenizer(tmp_path: Path) -> None:
    assert tokenizer_of(write_tokens(tmp_path / "t")) == "emilia"
    assert tokenizer_of(write_tokens(tmp_path / "t", [*IPA])) == "espeak"
    assert tokenizer_of(write_tokens(tmp_path / "t", [*"_ abc."])) == "simple"
    assert read_tokens(tmp_path / "t")[" "] == 1  # a blank is a symbol, too


# --- the front ends ---------------------------------------------------------------------------------------------------


@pytest.fixture
def emilia(tmp_path: Path) -> Any:
    return build_frontend({"name": "emilia", "table": write_tokens(tmp_path / "t"), "phonemizer": "gruut"})


def symbols_of(frontend: Any, encoded: Any) -> list[str]:
    names = {token: symbol for symbol, token in frontend.config.table.items()}
    return [names[token] for token in encoded.tokens]


def test_english_is_read_in_the_tables_phonemes(emilia: Any) -> None:
    encoded = emilia.encode("Good morning.")
    assert "".join(symbols_of(emilia, encoded)) == "ɡˈʊd mˈɔɹnɪŋ.".replace("ɹ", "")
    assert encoded.dropped == ("ɹ",)  # which this table lacks: told, not silent
    assert [word.text for word in encoded.words] == ["Good", "morning"]


def test_chinese_is_read_by_initials_and_finals(emilia: Any) -> None:
    pytest.importorskip("pypinyin")
    pytest.importorskip("jieba")
    encoded = emilia.encode("你好，Good 中国!")
    shown = symbols_of(emilia, encoded)
    assert shown[:4] == ["n0", "i2"][:1] + ["h0", "ao3"] + [","]  # 你 before 好 is ní, whose final the table lacks
    assert "i2" in encoded.dropped and shown[-4:] == ["zh0", "g0", "uo2", "!"]
    assert encoded.dropped.count("ong1") == 1
    for word in encoded.words:
        assert word.text == "你好，Good 中国!"[word.start : word.end]


def test_pinyin_in_a_text_is_read_as_it_stands(emilia: Any) -> None:
    pytest.importorskip("pypinyin")
    pytest.importorskip("jieba")
    assert symbols_of(emilia, emilia.encode("<zhang1>")) == ["zh0", "ang1"]


def test_chinese_without_its_packages_is_a_clear_error(emilia: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from flowtts_core.errors import DependencyError

    monkeypatch.setitem(sys.modules, "pypinyin", None)
    monkeypatch.setitem(sys.modules, "jieba", None)
    assert emilia.encode("Good.").tokens
    with pytest.raises(DependencyError, match="Chinese texts need"):
        emilia.encode("中国")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("90%", "百分之九十"),
        ("3.5", "三点五"),
        ("2024年", "二零二四年"),
        ("12", "十二"),
        ("110", "一百一十"),
        ("1001", "一千零一"),
        ("10500", "一万零五百"),
        ("1000010", "一百万零一十"),
        ("100000000", "一亿"),
        ("007", "零零七"),
        ("0", "零"),
    ],
)
def test_figures_in_chinese(written: str, said: str) -> None:
    from flowtts_core.text.chinese import readings

    text = written
    for reading in reversed(readings(written)):
        text = text[: reading.start] + reading.words + text[reading.end :]
    assert text == said


def test_letters_are_taken_in_the_case_that_the_table_has() -> None:
    table = {symbol: token for token, symbol in enumerate("_ ABCDEFGHIJKLMNOPQRSTUVWXYZ.")}
    frontend = build_frontend({"name": "letters", "table": table})
    encoded = frontend.encode("3 cafés!")
    assert "".join(symbols_of(frontend, encoded)) == "THREE CAFES" and encoded.dropped == ("!",)
    as_it_stands = build_frontend({"name": "letters", "table": {**table, "3": 40}, "language": ""})
    assert "".join(symbols_of(as_it_stands, as_it_stands.encode("3 b."))) == "3 B."
