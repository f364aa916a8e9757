"""`flowtts benchmark vocoders`: who is measured, what a figure means, and that a cut run goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowtts_core.audio.files import write_audio
from flowtts_core.audio.mel import VOCOS_24K, MelConfig
from flowtts_core.config import build, spec_of
from flowtts_core.errors import AudioError, ConfigError
from flowtts_core.metrics.judges import Clip, PanelConfig, Verdict
from flowtts_core.metrics.periodicity import periodicity_error
from flowtts_core.vocoder import VOCODERS, SourceFilterConfig, Vocos, VocosConfig, WaveFMConfig
from flowtts_core.vocoder.files import save_vocoder
from flowtts_core.vocoder.windows import sound_of
from jobs import cli
from jobs.benchmarks import vocoders as benchmark
from jobs.benchmarks import vocoders_against, vocoders_page, vocoders_speed
from jobs.benchmarks.vocoders import RECORDINGS, find_recordings, flows_of, open_systems, summary
from tests.speech_like import buzz

SMALL: dict[str, Any] = {"dim": 16, "intermediate_dim": 32, "num_layers": 2}
NARROW: dict[str, Any] = {"channels": (8, 8, 4, 4, 4), "kernel_sizes": (3,), "dilations": (1,), "time_channels": 8}


def saved(folder: Path, name: str, config: Any) -> str:
    torch.manual_seed(0)
    spec = spec_of(name, config)
    save_vocoder(folder, build(VOCODERS, spec).eval(), spec)
    return f"{folder.name}={folder}"


def clips_in(folder: Path, count: int) -> Path:
    for number in range(count):
        write_audio(folder / f"{number:02d}.wav", buzz(8000 + 400 * number, 100 + 10 * number, 16000), 16000)
    return folder


class Deaf:
    """A panel whose judges tell the peak of a clip, but have nothing to say of a copy named in `lost`."""

    def __init__(self, config: PanelConfig) -> None:
        self.config = config

    def judge(self, clip: Clip) -> Verdict:
        values = {"naturalness": (float(np.abs(clip.waveform).max()), 1.0), "mos_p808": (3.0, 1.0)}
        if clip.reference is None:
            return Verdict(values=values)
        return Verdict(values=values | {"stoi": (0.5, 1.0)}, reasons={"pesq": "no speech was found"})


def test_clips_are_spread_over_each_folder(tmp_path: Path) -> None:
    one, two = clips_in(tmp_path / "one", 9), clips_in(tmp_path / "two", 2)
    found = find_recordings([one, two], 3)
    assert [(clip.set, clip.path.name) for clip in found] == [
        ("one", "00.wav"), ("one", "04.wav"), ("one", "08.wav"), ("two", "00.wav"), ("two", "01.wav"),
    ]  # fmt: skip
    assert len({clip.key for clip in found}) == 5
    (tmp_path / "none").mkdir()
    with pytest.raises(ConfigError, match="no recordings"):
        find_recordings([tmp_path / "none"], 3)
    with pytest.raises(ConfigError, match="two folders are named one"):
        find_recordings([one, clips_in(tmp_path / "other/one", 1)], 3)


def test_each_definition_of_bands_has_its_floor(tmp_path: Path) -> None:
    named = [
        saved(tmp_path / "plain", "vocos", VocosConfig(**SMALL)),
        saved(tmp_path / "pitched", "source_filter", SourceFilterConfig(MelConfig(pitch=True), free_bins=64, **SMALL)),
        saved(tmp_path / "other", "vocos", VocosConfig(VOCOS_24K, **SMALL)),
    ]
    systems = open_systems(named)
    assert [system.name for system in systems] == [
        "plain", "pitched", "other", "Griffin-Lim, mel of plain", "Griffin-Lim, mel of other",
    ]  # fmt: skip
    assert [s.name for s in open_systems(named[:2])] == ["plain", "pitched", "Griffin-Lim"]
    assert len({system.key for system in systems}) == 5
    assert systems[0].key == open_systems(named[:1])[0].key
    for wrong in (["x"], ["=x"], [RECORDINGS + "=natural"], [named[0], named[0]], []):
        with pytest.raises(ConfigError):
            open_systems(wrong)


def test_flows_take_other_steps_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = find_recordings([clips_in(tmp_path / "clips", 2)], 2)
    named = [
        saved(tmp_path / "flow", "wavefm", WaveFMConfig(**NARROW, steps=2)),
        saved(tmp_path / "plain", "vocos", VocosConfig(**SMALL)),
    ]
    systems, told = open_systems(named), list[str]()
    with pytest.raises(ConfigError, match="no recording lasts 2 s"):
        flows_of(systems, [1], ["straightness"], clips, told.append)
    monkeypatch.setattr(benchmark, "STRAIGHT_S", 0.2)
    made = flows_of(systems, [1, 2], ["uniform", "straightness"], clips, told.append)
    assert [(s.name, s.flow, s.steps, s.grid) for s in made] == [
        ("flow, 1 step, uniform", "flow", 1, "uniform"), ("flow, 2 steps, uniform", "flow", 2, "uniform"),
        ("flow, 1 step, straightness", "flow", 1, "straightness"), ("flow, 2 steps, straightness", "flow", 2, "straightness"),
    ]  # fmt: skip
    assert told == 2 * ["how straight the paths of flow are"]
    own: Any = made[0].vocoder
    assert own.config.steps == 1 and made[1].key == systems[0].key, (
        "what is kept of the vocoder as it is serves here too"
    )
    for name, weight in own.state_dict().items():
        assert torch.equal(weight, systems[0].vocoder.state_dict()[name])
    with pytest.raises(ConfigError, match="none of the vocoders is a flow"):
        flows_of(systems[1:], [1], ["uniform"], clips, told.append)
    with pytest.raises(ConfigError, match="uniform"):
        flows_of(systems, [1], ["unknown"], clips, told.append)


def test_figures_are_means_in_pairs_and_count_what_was_not_measured() -> None:
    rng = np.random.default_rng(0)
    mels = rng.normal(size=(8, 6))

    def rows(offset: float, moved: float = 0.0, pesq: int = 8) -> list[dict[str, Any]]:
        return [
            {
                "values": {"naturalness": 4 + number / 10 + offset, "mos_p808": 3.0, "stoi": 0.9}
                | ({"pesq": 2 + offset} if number < pesq else {}),
                "reasons": {} if number < pesq else {"pesq": "no speech"},
                "mel": (mels[number] + moved).tolist(),
            }
            for number in range(8)
        ]

    every = {RECORDINGS: rows(0), "good": rows(-0.25, pesq=6), "floor": rows(-1, moved=3)}
    found = summary(every, range(8), {"good": "floor", "floor": "floor"})
    assert found["good"]["naturalness"]["value"] == pytest.approx(4.1)
    assert (found["good"]["pesq"]["n"], found["good"]["n"], found["good"]["reasons"]) == (6, 8, ["no speech"])
    less = found["good"]["over_recordings"]["naturalness"]
    assert [less[part] for part in ("value", "low", "high")] == pytest.approx([-0.25] * 3), (
        "in pairs the clips do not spread"
    )
    assert found["good"]["over_griffin_lim"]["pesq"]["value"] == pytest.approx(0.75)
    assert "over_griffin_lim" not in found["floor"] and "pesq" not in found[RECORDINGS]
    assert found["good"]["kad"]["value"] == pytest.approx(0, abs=1e-9) and found["floor"]["kad"]["low"] > 0.1
    assert summary(every, range(4), {})["good"]["kad"] is None, "four clips are too few for a distance of sets"
    table = vocoders_page.quality_table(found, [RECORDINGS, "good"])
    assert "2.00" not in table.splitlines()[2] and "1.75 (1.75 to 1.75)" in table.splitlines()[3]


@pytest.mark.slow
def test_the_benchmark_writes_its_pages_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "_panel", Deaf)
    monkeypatch.setattr(benchmark, "SPEED_S", 0.3)
    monkeypatch.setattr(vocoders_speed, "TURNS", 1)
    mel = replace(MelConfig(16000), n_fft=256, win_length=256, hop_length=64, n_mels=20)
    line = ["benchmark", "vocoders", "--clips", str(clips_in(tmp_path / "clips", 7)), "--n", "7", "--workers", "1"]
    line += [
        "--vocoder",
        saved(tmp_path / "small", "vocos", VocosConfig(mel, **SMALL)),
        "--keep",
        str(tmp_path / "keep"),
    ]
    flow = WaveFMConfig(mel, upsample_rates=(4, 4, 2, 2), steps=2, **NARROW)
    line += ["--vocoder", saved(tmp_path / "flow", "wavefm", flow), "--steps", "1,2"]
    line += [
        "-o",
        str(tmp_path / "docs"),
        "--players",
        str(tmp_path / "players.html"),
        "--json",
        str(tmp_path / "x.json"),
    ]
    assert cli.main(line) == 0
    figures = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert [s["name"] for s in figures["systems"]] == [
        "small", "flow", "Griffin-Lim", "flow, 1 step, uniform", "flow, 2 steps, uniform",
    ]  # fmt: skip
    small = figures["systems"][0]
    assert small["rtf"].keys() >= {"torch", "onnx"} and small["rtf"]["torch"].keys() == {"1", "2"}
    quality = figures["sets"]["clips"]["small"]
    assert quality["stoi"]["n"] == 7 and quality["pesq"] is None and quality["reasons"] == ["no speech was found"]
    assert quality["periodicity"]["value"] > 0 and quality["kad"] is not None
    page = (tmp_path / "docs/vocoders.md").read_text(encoding="utf-8")
    assert page == capsys.readouterr().out.removesuffix("\n")
    assert "## Flows by their number of steps" in page and "PESQ of 0" in page and "no speech was found" in page
    assert (tmp_path / "docs/vocoders-steps.svg").read_text(encoding="utf-8").startswith("<?xml")
    players = (tmp_path / "players.html").read_text(encoding="utf-8")
    assert players.count("<audio") == 4 * len(range(0, 7, 2)), "the recording and three vocoders, of every second clip"

    def refuse(*_: object) -> None:
        raise AssertionError("judged or made again")

    monkeypatch.setattr(benchmark, "_panel", refuse)
    monkeypatch.setattr(benchmark, "write_audio", refuse)
    assert cli.main(line) == 0
    saved(tmp_path / "small", "vocos", VocosConfig(mel, dim=24, intermediate_dim=32, num_layers=2))
    with pytest.raises(AssertionError, match="made again"):
        cli.main(["--debug", *line])


def test_costs_are_those_of_the_formula() -> None:
    torch.manual_seed(0)
    config = VocosConfig(dim=32, intermediate_dim=64, num_layers=2)
    vocoder, mel = Vocos(config).eval(), torch.zeros(80, 100)
    a_frame = 7 * 80 * 32 + 2 * (7 * 32 + 2 * 32 * 64) + 32 * 1026
    found = vocoders_speed.size(vocoder, mel)
    assert found["gmac"] == pytest.approx(a_frame * 22050 / 256 / 1e9, rel=1e-6)
    assert found["parameters"] == sum(weight.numel() for weight in vocoder.parameters())


def test_a_stream_waits_for_the_first_window_that_gives_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    vocoder, heard = Vocos(VocosConfig(**SMALL)).eval(), list[Any]()

    def noted(own: Any, pieces: Any) -> Any:
        heard.extend(pieces)
        return sound_of(own, pieces)

    monkeypatch.setattr(vocoders_speed, "sound_of", noted)
    found = vocoders_speed.first_sound(vocoder, torch.zeros(80, 400))
    assert vocoder.context_frames is not None and heard[0].end == 60 - vocoder.context_frames
    assert found["mel_s"] == pytest.approx(60 * 256 / 22050) and found["s"] > 0
    monkeypatch.setattr(vocoder, "context_frames", 100)
    assert vocoders_speed.first_sound(vocoder, torch.zeros(80, 400))["mel_s"] > 100 * 256 / 22050
    monkeypatch.setattr(vocoder, "context_frames", None)
    assert vocoders_speed.first_sound(vocoder, torch.zeros(80, 400))["mel_s"] == pytest.approx(400 * 256 / 22050)


def test_published_code_is_timed_in_turns_and_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def pair() -> vocoders_against.Pair:
        ours = Vocos(VocosConfig(**SMALL)).eval()
        return vocoders_against.Pair(ours, lambda mels: ours(mels) + 0.25, "torch", "tiny")

    monkeypatch.setitem(vocoders_against.REFERENCES, "tiny", pair)
    monkeypatch.setattr(vocoders_against, "SECONDS", 0.2)
    assert cli.main(["benchmark", "vocoders", "--against", "tiny", "--json", str(tmp_path / "x.json")]) == 0
    rows = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))["rows"]
    assert [(row["batch"], row["bar"]) for row in rows] == [(1, 1.0), (8, 1.2)]
    assert all(row["apart"] == pytest.approx(0.25) and row["times_as_fast"] > 0 for row in rows)
    assert "| tiny | tiny | 8 |" in capsys.readouterr().out
    assert cli.main(["benchmark", "vocoders", "--against", "nobody"]) == 2
    assert cli.main(["benchmark", "vocoders", "--vocoder", "a=natural"]) == 2, "without recordings"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hifigan", "vocos"])
def test_ours_makes_what_the_published_code_makes(name: str) -> None:
    pytest.importorskip({"hifigan": "transformers", "vocos": "vocos"}[name])
    pair = vocoders_against.REFERENCES[name]()
    mels = torch.randn(2, pair.ours.features.rows, 40) - 4
    with torch.inference_mode():
        torch.testing.assert_close(pair.published(mels).reshape(2, -1), pair.ours(mels), atol=1e-4, rtol=0)


def test_periodicity_tells_a_buzz_from_noise() -> None:
    clip = buzz(16000, 120.0, 16000)
    noise = (0.1 * np.random.default_rng(0).normal(size=16000)).astype(np.float32)
    same, other = periodicity_error(clip, 16000, clip, 16000), periodicity_error(noise, 16000, clip, 16000)
    assert (same.periodicity, same.voicing, same.cents) == (0, 0, 0)
    assert other.periodicity > 0.3 and other.voicing > 0.5
    higher = periodicity_error(buzz(16000, 120.0 * 2 ** (1 / 12), 16000), 16000, clip, 16000)
    assert higher.cents == pytest.approx(100, abs=25) and higher.voicing < 0.1
    with pytest.raises(AudioError, match="too short"):
        periodicity_error(clip[:800], 16000, clip, 16000)
    with pytest.raises(ConfigError, match="no pitch detector"):
        periodicity_error(clip, 16000, clip, 16000, "ear")
