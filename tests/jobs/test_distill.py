"""Distilled voices: of few steps, with the guidance in them, by each way, for voices with guidance and without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from flowtts_core.acoustic import Condition
from flowtts_core.acoustic.base import Prompt
from flowtts_core.config import spec_of
from flowtts_core.errors import ConfigError
from flowtts_core.sampling import Sampling
from flowtts_core.training.files import LocalFiles
from flowtts_core.voice.card import load_card
from flowtts_core.voice.parts import find_vocoder, load_parts, save_voice
from jobs import cli
from jobs.distill import METHODS, method_of
from jobs.training.recipes import recipe
from jobs.training.run import open_run, train_rank, write_result
from tests.speech_like import latest_checkpoint, write_examples
from tests.standins import make_character_voice

OPTIONS = {"vocoder": "griffin_lim", "trainer.steps": 4, "trainer.checkpoint_every": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_examples(tmp_path_factory.mktemp("data"), [40 + 7 * (i * 5 % 11) for i in range(12)])


@pytest.fixture(scope="module")
def voices(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A voice of each kind, of random weights."""
    folder = tmp_path_factory.mktemp("voices")
    for name in ("f5", "matcha", "zipvoice"):
        own = recipe(f"{name}_debug", OPTIONS).fit(LocalFiles(data))
        torch.manual_seed(0)
        paired, model = find_vocoder("griffin_lim", own.model.mel), own.module().eval()
        for parameter in model.parameters():
            if not parameter.any():  # a field that begins at zero teaches nothing
                parameter.data.normal_(0.0, 0.05)
        save_voice(
            folder / name,
            name=name,
            acoustic=model,
            acoustic_spec=spec_of(own.name, own.model),
            vocoder=paired.vocoder,
            vocoder_spec=paired.spec,
            frontend={"name": "phonemes"},
            sampling=model.sampling,
            licence="CC0-1.0",
        )
    return folder


def made_by(name: str, data: Path, folder: Path, **settings: Any) -> Path:
    this = open_run(folder / "runs", data, recipe(name, {**OPTIONS, **settings}))
    train_rank(this)
    write_result(this, folder / "made")
    return folder / "made"


def spoken(place: Path, **settings: Any) -> tuple[torch.Tensor, int]:
    """What a voice makes as its card says, and how often its velocity net is asked."""
    voice = load_parts(place)
    voice.acoustic.runners = {}
    calls: list[int] = []
    nets = {"decoder.estimator", "fm_decoder", "transformer"}
    [net] = [module for name, module in voice.acoustic.named_modules() if name in nets]
    net.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, 20, 80, generator=generator) - 5
    prompt = Prompt(features, torch.tensor([20]), torch.ones(1, 5, dtype=torch.int64), torch.tensor([5]))
    condition = Condition(torch.randint(1, 24, (1, 9), generator=generator), torch.tensor([9]), None, prompt)
    made = voice.acoustic.generate(condition, [0], replace(voice.card.sampling, **settings)).features
    return made, sum(calls)


def test_a_zipvoice_run_ends_in_a_voice_that_speaks_as_a_prompt(data: Path, tmp_path: Path) -> None:
    place = made_by("zipvoice_debug", data, tmp_path)
    card = load_card(place)
    assert (card.prompt, card.sampling) == (
        "required",
        Sampling(16, 1.0, guidance=1.0, grid={"name": "shift", "s": 0.5}),
    )
    mel, evaluations = spoken(place)
    assert mel.isfinite().all() and mel.shape == (1, 80, 36) and evaluations == 32  # 16 of two


@pytest.mark.parametrize(
    ("kind", "how", "steps"),
    [
        ("matcha", "guided", 4),
        pytest.param("matcha", "consistency", 1, marks=pytest.mark.slow),
        pytest.param("zipvoice", "mean", 2, marks=pytest.mark.slow),
        pytest.param("zipvoice", "guided", 4, marks=pytest.mark.slow),
        ("zipvoice", "consistency", 1),
        pytest.param("f5", "guided", 4, marks=pytest.mark.slow),
        pytest.param("f5", "mean", 2, marks=pytest.mark.slow),
        pytest.param("f5", "consistency", 1, marks=pytest.mark.slow),
    ],
)
def test_a_voice_is_distilled(kind: str, how: str, steps: int, data: Path, voices: Path, tmp_path: Path) -> None:
    settings = {} if how == "consistency" else {"how.steps": steps}
    place = made_by(f"{METHODS[how]}_debug", data, tmp_path, teacher=str(voices / kind), **settings)
    card, teacher = load_card(place), load_card(voices / kind)
    assert (card.sampling.steps, card.licence, card.prompt) == (steps, "CC0-1.0", teacher.prompt)
    assert f"distilled to {steps} step" in card.description
    mel, evaluations = spoken(place)
    assert mel.isfinite().all() and evaluations == steps
    if kind != "matcha":
        assert card.parts["acoustic"]["embeds_guidance"] and "guidance is embedded" in card.description
        assert card.sampling.guidance == teacher.sampling.guidance
        other, _ = spoken(place, guidance=3.0)
        assert not torch.allclose(mel, other)
    before, after = (load_parts(place).acoustic.state_dict() for place in (voices / kind, place))
    kept = {"matcha": "encoder.", "zipvoice": "text_encoder.", "f5": ("transformer.text_embed.", "lengths.")}[kind]
    assert all(torch.equal(value, after[name]) for name, value in before.items() if name.startswith(kept))
    assert any(not torch.equal(value, after[name]) for name, value in before.items())


def test_a_run_that_was_cut_goes_on_where_it_was_also_in_the_later_stage(
    data: Path, voices: Path, tmp_path: Path
) -> None:
    settings = {**OPTIONS, "teacher": str(voices / "zipvoice"), "trainer.steps": 6, "how.later": 0.5}
    chosen = recipe("guided_distillation_debug", settings)
    whole, cut = (open_run(tmp_path / name, data, chosen) for name in ("whole", "cut"))
    train_rank(whole)
    for until in (2, 4):  # within each stage
        train_rank(replace(cut, stop_at=until))
    train_rank(cut)
    states = [torch.load(latest_checkpoint(Path(run.folder)), weights_only=True) for run in (whole, cut)]
    for module in ("acoustic", "target"):
        first, second = (state["modules"][module] for state in states)
        assert all(torch.equal(first[key], second[key]) for key in first)
    target = states[0]["modules"]["target"]
    assert any(not torch.equal(target[key], value) for key, value in states[0]["modules"]["acoustic"].items())


def test_a_guided_model_that_is_told_no_guidance_learns_its_voices(voices: Path) -> None:
    """As any guided model may take part: the teacher's guidance goes into the weights, and the card asks for no more."""
    from flowtts_core.acoustic.distilling import Lesson, distillation_loss
    from flowtts_core.flow import GuidedDistillation
    from flowtts_core.training.tasks import few_steps
    from tests.flowtts_core.test_acoustic_contract import some_batch

    teacher = load_parts(voices / "zipvoice").acoustic
    with torch.no_grad():
        teacher.get_parameter("fm_decoder.out_proj.weight").mul_(10)
    student = load_parts(voices / "zipvoice").acoustic
    batch = some_batch(teacher, (5, 4))

    def loss(guidance: float) -> float:
        lesson = Lesson(teacher, GuidedDistillation(), guidance=guidance)
        return float(distillation_loss(student, batch, lesson, torch.Generator().manual_seed(0))["loss"].detach())

    assert loss(0.0) != loss(2.0)
    assert few_steps(Sampling(16, 1.0, guidance=2.0), GuidedDistillation(steps=4), student).guidance == 0.0


def test_the_way_goes_by_the_kind_of_voice(voices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, guided = load_card(voices / "matcha"), load_card(voices / "zipvoice")
    assert [method_of(plain, steps, None) for steps in (1, 4)] == ["mean", "mean"]
    assert [method_of(guided, steps, None) for steps in (1, 4, 8)] == ["consistency", "guided", "guided"]
    assert method_of(guided, 1, "mean") == "mean"
    with pytest.raises(ConfigError, match="leads to one step"):
        method_of(plain, 2, "consistency")
    words = ["distill", str(voices / "zipvoice"), str(tmp_path), "-o", str(tmp_path / "out")]
    assert cli.main([*words, "--judged", "3"]) == 2
    assert "speaks as a prompt does" in capsys.readouterr().err


def test_a_voice_that_cannot_be_distilled_is_refused(data: Path, tmp_path: Path) -> None:
    chosen = recipe("distillation_debug", {**OPTIONS, "teacher": str(make_character_voice(tmp_path / "characters"))})
    with pytest.raises(ConfigError, match="n_symbols"):  # and these data are not its own
        chosen.fit(LocalFiles(data))
