"""`flowtts benchmark codecs`: rates that are those of the codes, words against the recording's, and that a cut run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowtts_core.audio.files import write_audio
from flowtts_core.codec import CODECS
from flowtts_core.codec.codebook import Codebook
from flowtts_core.codec.files import load_codec, save_codec
from flowtts_core.config import build
from flowtts_core.errors import ConfigError
from flowtts_core.metrics.judges import Clip, PanelConfig, Verdict
from flowtts_core.watermark.attacks import coded, transcoded
from jobs import cli
from jobs.benchmarks import codecs as benchmark
from jobs.benchmarks import vocoders
from tests.speech_like import buzz

SPEC: dict[str, Any] = {
    "name": "frames", "encoder_dim": 16, "encoder_intermediate": 32, "encoder_layers": 1, "decoder_dim": 16,
    "decoder_intermediate": 32, "decoder_layers": 1, "codebooks": 2, "bins": 16,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    codec = build(CODECS, SPEC).eval()
    for module in codec.modules():
        if isinstance(module, Codebook):
            module.inited.fill_(1)
            module.embed.normal_()
    save_codec(tmp_path / "codec", codec, SPEC)
    return tmp_path / "codec"


class Listener:
    """A panel that hears the same words in all, and takes a copy's text from the recording."""

    def __init__(self, config: PanelConfig) -> None:
        assert "words" in config.judges and config.asr == "made-up"

    def judge(self, clip: Clip) -> Verdict:
        if clip.reference is None:
            return Verdict(values={"naturalness": (4.0, 1.0)}, heard="one two three four")
        assert clip.text == "one two three four", "the words of the recording are the copy's text"
        values = {"naturalness": (3.0, 1.0), "stoi": (0.9, 1.0), "wer": (1.0, 4.0), "secs": (0.8, 1.0)}
        return Verdict(values=values, heard="one two three")


def test_the_benchmark_tells_rates_use_and_words_and_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        write_audio(tmp_path / f"clips/{number}.wav", buzz(12000 + 2400 * number, 110 + 20 * number, 24000), 24000)
    monkeypatch.setattr(vocoders, "_panel", Listener)
    monkeypatch.setattr(benchmark.shutil, "which", lambda name: None)
    line = ["benchmark", "codecs", "--codec", f"mine={folder}@0.6,0.3", "--clips", str(tmp_path / "clips")]
    line += ["--asr", "made-up", "--workers", "1", "--keep", str(tmp_path / "keep")]
    line += ["-o", str(tmp_path / "docs"), "--players", str(tmp_path / "x.html"), "--json", str(tmp_path / "x.json")]
    assert cli.main(line) == 0
    out = capsys.readouterr()
    assert "Codec2 is left out" in out.err
    figures = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    two, one, *opus = figures["systems"]
    assert (two["name"], one["name"]) == ("mine, 0.6 kbit/s", "mine, 0.3 kbit/s")
    assert two["bits_per_second"] == pytest.approx(600, rel=0.02) and two["tokens_per_second"] == 150
    assert one["challenge"] == {"samples": 24000, "tokens": 75, "back": 24000} and two["challenge"]["tokens"] == 150
    assert len(two["perplexity"]) == 2 and all(1 <= value <= 16 for value in two["perplexity"])
    assert all(0 < used <= 1 for used in two["used"]) and two["first_chunk"] is None
    assert [own["name"] for own in opus] == ["Opus, 6 kbit/s", "Opus, 12 kbit/s"] and "perplexity" not in opus[0]
    row = figures["sets"]["clips"]["mine, 0.6 kbit/s"]
    assert row["wer"]["value"] == 0.25 and row["secs"]["value"] == pytest.approx(0.8) and row["naturalness"]["n"] == 3
    page = (tmp_path / "docs/codecs-measured.md").read_text(encoding="utf-8")
    assert (
        page == out.out.removesuffix("\n") and "24,000 samples, 75 tokens, 24,000 samples" in page and "25.0 (" in page
    )
    assert (tmp_path / "x.html").read_text(encoding="utf-8").count("<audio") == 3 * 5

    def refuse(*_: object) -> None:
        raise AssertionError("judged or made again")

    monkeypatch.setattr(vocoders, "_panel", refuse)
    monkeypatch.setattr(benchmark, "write_audio", refuse)
    assert cli.main(line) == 0


def test_a_stream_is_told_by_the_sound_it_waits_for(tmp_path: Path) -> None:
    spec = {**SPEC, "causal": True}
    save_codec(tmp_path / "causal", build(CODECS, spec).eval(), spec)
    loaded = load_codec(tmp_path / "causal")
    chunk = benchmark.first_chunk(loaded)
    assert chunk is not None and chunk["sound_s"] == pytest.approx(loaded.codec.latency_s, abs=320 / 24000)


def test_the_bits_of_opus_are_those_of_its_packets() -> None:
    sound = buzz(48000, 120.0, 24000)
    made, size = transcoded(sound, 24000, "opus", 12_000)
    assert 0.5 * 12_000 * 2 < 8 * size < 1.5 * 12_000 * 2
    assert np.array_equal(made, coded(sound, 24000, "opus", 12_000))


def test_what_is_not_a_choice_of_codecs_is_refused(folder: Path) -> None:
    for given, why in (
        (["mine"], "give a name and a place"),
        ([f"a={folder}@fast"], "as in mine=codecs/mine@6,3"),
        ([f"a={folder}@0.1"], "this codec needs 0.3"),
        ([f"a={folder}", f"a={folder}"], "two are named"),
        ([], "no codec to measure"),
    ):
        with pytest.raises(ConfigError) as caught:
            benchmark.open_codecs(given, lambda _: None)
        assert why in f"{caught.value.message} {caught.value.remedy}"
