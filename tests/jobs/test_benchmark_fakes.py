"""The study of synthetic speech: its plan, its rates and intervals, its calibration, and a tiny one from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flowtts_core.audio.files import write_audio
from flowtts_core.errors import ConfigError
from flowtts_core.fakes.detector import FakeDetector
from flowtts_core.fakes.net import FakeNetConfig
from jobs.benchmarks.fakes import CHANGED, MARKED, PLAIN, Scored, fakes, fitted, page, summed_up
from jobs.benchmarks.fakes_plan import Plan, clips_of, read_plan
from tests.speech_like import buzz

PLAN = """
folds = [["one"], ["two"]]
licence = "CC0-1.0"
[[humans]]
name = "heard"
clips = ["people/heard/*.wav"]
windows = 8
[[readers]]
name = "unheard"
clips = ["people/r*/*.wav"]
[[engines]]
name = "first"
family = "one"
clips = ["first/*.wav"]
windows = 4
[[engines]]
name = "second"
family = "two"
taught_by = ["one"]
clips = ["second/*.wav"]
tests = ["first/c0.wav"]
windows = 4
"""


def plan_in(folder: Path, text: str = PLAN) -> Path:
    rng = np.random.default_rng(0)
    for place in ("people/heard", "people/r1", "people/r2", "first", "second"):
        (folder / place).mkdir(parents=True, exist_ok=True)
        for n in range(4):
            sound = rng.standard_normal(16000) * 0.1 if "people" in place else buzz(16000, 100 + 20 * n, 16000)
            write_audio(folder / place / f"c{n}.wav", sound.astype("f4"), 16000)
    (folder / "plan.toml").write_text(text)
    return folder / "plan.toml"


@pytest.mark.parametrize(("change", "why"), [
    (('folds = [["one"], ["two"]]', 'folds = [["one"]]'), "name each family in one fold"),
    (('name = "second"', 'name = "first"'), "two sources are named first"),
    (("windows = 8", "window = 8"), "no field window"),
    (("[[readers]]", "[[humans]]"), "readers"),
    (("folds = [", "folds = "), "plan.toml"),
])  # fmt: skip
def test_a_wrong_plan_says_what_is_wrong(change: tuple[str, str], why: str, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN.replace(*change))
    with pytest.raises(ConfigError) as raised:
        read_plan(tmp_path / "plan.toml")
    assert why in f"{raised.value.message} {raised.value.remedy}"


def test_no_clip_is_both_trained_on_and_tested_on(tmp_path: Path) -> None:
    plan = read_plan(plan_in(tmp_path))
    clips, tests = clips_of(tmp_path, plan.engines[0])
    assert [path.name for path in tests] == ["c0.wav"] and [path.name for path in clips] == [
        "c1.wav",
        "c2.wav",
        "c3.wav",
    ]
    assert clips_of(tmp_path, plan.engines[1])[1] == [tmp_path / "first/c0.wav"]
    assert plan.without(["one"]) == ["first", "second"] and plan.without(["two"]) == ["second"]


def test_a_calibration_is_that_of_logistic_scores() -> None:
    """Of scores from two normals a distance d apart the log odds are a line: slope d, through 0 in the middle."""
    rng, d = np.random.default_rng(0), 1.5
    scores = np.concatenate(
        [rng.normal(-d / 2, 1, 60_000), rng.normal(d / 2, 1, 20_000)]
    )  # unequal parts change nothing
    line = fitted(10 * scores + 3, np.arange(80_000) >= 60_000)
    assert (line.slope * 10, line.slope * 3 + line.offset) == pytest.approx((d, 0), abs=0.05)
    apart = fitted(np.array([-1.0, -2.0, 1.0, 2.0]), np.array([False, False, True, True]))
    assert np.isfinite([apart.slope, apart.offset]).all() and apart.probability(1.5) > 0.99
    with pytest.raises(ConfigError):
        fitted(np.ones(3), np.ones(3, bool))


def scored(group: str, synthetic: bool, reader: str, value: float, fold: int, heard: bool = False) -> Scored:
    return Scored(
        group, synthetic, reader, {PLAIN: value, MARKED: value + 0.25, CHANGED: value}, np.array([value]), fold, heard
    )


def test_rates_are_of_engines_left_out_and_intervals_of_readers(tmp_path: Path) -> None:
    plan: Plan = read_plan(plan_in(tmp_path))
    people = [
        scored("unheard", False, f"r{r}", float(r == 3), fold) for fold in (0, 1) for r in range(4) for _ in range(5)
    ]
    first = [scored("first", True, "", 0.5, 0) for _ in range(20)]
    second = [scored("second", True, "", 2.0, 1) for _ in range(20)]
    heard = [scored("first", True, "", 3.0, 1, heard=True)]
    found = summed_up([*people, *first, *second, *heard], plan)
    rates = {name: row[PLAIN] for name, row in found["engines"].items()}
    assert rates["second"] == {"value": 0, "low": 0, "high": 0, "n": 20}
    assert rates["first"]["value"] == pytest.approx(0.2, abs=0.06)  # all of one reader in four score higher
    assert rates["first"]["low"] == 0 and rates["first"]["high"] > 0.4  # of which four there may be none, or several
    assert found["engines"]["first"]["heard"] == 0 and found["engines"]["second"]["heard"] is None
    assert found["readers"] == {"unheard": {"readers": 4, "clips": 20}}
    assert found["mark"]["human"]["value"] == pytest.approx(0.25)
    assert page(found).count("| first |") == 1


def test_a_study_from_end_to_end(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, PLAN.replace('taught_by = ["one"]\n', ""))
    model = FakeNetConfig(4)
    figures = fakes(plan, lambda line: None, steps=2, output=tmp_path / "net", model=model)
    assert {name: row["clips"] for name, row in figures["engines"].items()} == {"first": 1, "second": 1}
    assert figures["sources"]["heard"] == {"clips": 4, "windows": 8, "synthetic": False}
    card = json.loads((tmp_path / "net" / "fakes.json").read_text())
    assert card["licence"] == "CC0-1.0" and card["heard"] == ["first", "second"]
    assert 0 <= FakeDetector.open(tmp_path / "net").heard(buzz(16000, 120, 16000), 16000).whole <= 1
