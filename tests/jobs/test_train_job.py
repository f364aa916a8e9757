"""The training job: identity of runs, what they end in, and a killed worker that changes nothing."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from flowtts_core.acoustic import Condition
from flowtts_core.audio.mel import F5_24K, MelConfig
from flowtts_core.config import spec_of
from flowtts_core.errors import ConfigError, DivergedError, TextError, VoiceError
from flowtts_core.request import SynthesisRequest
from flowtts_core.sampling import Sampling
from flowtts_core.text import frontends
from flowtts_core.training.checkpoints import BEST, load_best
from flowtts_core.training.files import LocalFiles
from flowtts_core.training.tasks import VocoderTaskConfig, vocoder_task
from flowtts_core.vocoder.files import load_vocoder, save_vocoder
from flowtts_core.voice import open_voice
from flowtts_core.voice.parts import load_parts
from jobs import cli
from jobs.training.outcome import read_outcome
from jobs.training.recipes import RECIPES, matcha_debug, recipe, vocos_debug
from jobs.training.recipes.f5 import between_words
from jobs.training.run import open_run, read_progress, run_without_validation, train_rank, write_result
from tests.speech_like import babble_clip, latest_checkpoint, statistics_of, write_examples


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_examples(tmp_path_factory.mktemp("data"), [40 + 7 * (i * 5 % 11) for i in range(12)])


def quick(**trainer):
    base = matcha_debug()
    return replace(
        base, frames_per_batch=500, trainer=replace(base.trainer, **{"steps": 4, "checkpoint_every": 2, **trainer})
    )


def paired(recipe, vocoder):
    return replace(recipe, vocoder=str(vocoder))


def test_a_run_ends_in_a_voice_that_speaks(data, tmp_path):
    this = open_run(tmp_path / "runs", data, quick())
    train_rank(this)
    assert read_progress(this)["step"] == 4
    write_result(this, tmp_path / "amy")
    voice = load_parts(tmp_path / "amy")
    assert voice.card.parts["acoustic"]["mel_mean"] == pytest.approx(statistics_of(data)["mel_mean"])
    assert voice.card.parts["vocoder"]["name"] == "source_filter"  # the bundled one for any speaker
    assert voice.card.name == "amy"
    condition = Condition(torch.randint(1, 24, (1, 9)), torch.tensor([9]))
    mel = voice.acoustic.generate(condition, [0], Sampling(steps=1)).features
    assert torch.isfinite(voice.vocoder(mel)).all()
    averaged = torch.load(latest_checkpoint(Path(this.folder)), weights_only=True)["ema"]
    assert all(torch.equal(averaged[key], value) for key, value in voice.acoustic.state_dict().items())


def test_a_vocoder_run_ends_in_a_vocoder_that_a_voice_can_take(data, tmp_path):
    this = open_run(tmp_path / "runs", data, vocos_debug())
    train_rank(this)
    write_result(this, tmp_path / "vocoder")
    loaded = load_vocoder(tmp_path / "vocoder")
    assert loaded.vocoder(torch.randn(1, 80, 10)).shape == (1, 2560)
    acoustic = open_run(tmp_path / "runs", data, paired(quick(steps=2), tmp_path / "vocoder"))
    train_rank(acoustic)
    write_result(acoustic, tmp_path / "amy")
    assert load_parts(tmp_path / "amy").card.parts["vocoder"] == loaded.spec
    weights = tmp_path / "vocoder" / "vocoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(VoiceError, match="SHA-256"):
        load_vocoder(tmp_path / "vocoder")


def test_hifigan_learns_and_is_saved_without_weight_norm(data, tmp_path):
    settings = {"trainer.steps": 30, "trainer.learning_rate": 3e-3, "losses.adversarial_from": 25}
    chosen = recipe("hifigan_debug", settings).fit(LocalFiles(data))
    this = open_run(tmp_path / "runs", data, chosen)
    train_rank(this)
    write_result(this, tmp_path / "vocoder")
    loaded = load_vocoder(tmp_path / "vocoder")
    assert not any("original" in name for name in loaded.vocoder.state_dict())
    torch.manual_seed(0)
    task, _ = chosen.task(data)
    with torch.no_grad():
        before, after = (
            float(task.validation(own, task.probe, torch.Generator())) for own in (task.vocoder, loaded.vocoder)
        )
    assert after < before - 0.2  # nats a band
    with pytest.raises(ConfigError, match="hop is 300"):
        replace(chosen, model=replace(chosen.model, mel=MelConfig(hop_length=300))).module()


@pytest.mark.parametrize("name", ["rfwave_debug", "band_split_debug"])
def test_flows_of_bands_learn_with_their_equalisers(name, data, tmp_path):
    settings = {"trainer.steps": 30, "trainer.learning_rate": 5e-3, "batch_size": 4, "losses.adversarial_from": 29}
    chosen = recipe(name, settings).fit(LocalFiles(data))
    this = open_run(tmp_path / "runs", data, chosen)
    train_rank(this)
    write_result(this, tmp_path / "vocoder")
    learnt, fresh = load_vocoder(tmp_path / "vocoder").vocoder, chosen.module().eval()
    assert learnt.equaliser.variance.max() < 0.9  # speech is fainter than noise of variance 1
    fresh.equaliser.load_state_dict(learnt.equaliser.state_dict())
    crops = chosen.task(data)[1].at(0)
    losses = []
    for vocoder in (fresh, learnt):
        [(_, found)] = vocoder_task(vocoder, crops, VocoderTaskConfig(None)).updates(crops, 0, torch.Generator())
        losses.append(float(found["flow"].detach()))
    assert losses[1] < 0.99 * losses[0]  # which begins at that of the average velocity


@pytest.mark.parametrize("name", ["wavefm", "diffusion"])
def test_flows_on_the_waveform_learn(name, data, tmp_path):
    trainer = {"steps": 32, "learning_rate": 5e-3, "ema_decay": 0.8, "checkpoint_every": 32, "sample_every": 32}
    chosen = recipe(f"{name}_debug", {f"trainer.{key}": value for key, value in trainer.items()})
    chosen = chosen.fit(LocalFiles(data))
    this = open_run(tmp_path / "runs", data, chosen)
    train_rank(this)
    write_result(this, tmp_path / "vocoder")
    loaded = load_vocoder(tmp_path / "vocoder")
    assert loaded.spec["name"] == name and loaded.vocoder.features == MelConfig()
    torch.manual_seed(0)
    task, _ = chosen.task(data)
    with torch.no_grad():
        before, after = (
            float(task.validation(own, task.probe, torch.Generator().manual_seed(0)))
            for own in (task.vocoder, loaded.vocoder)
        )
    assert after < 0.5 * before


def test_a_vocoder_is_distilled_to_one_step_and_goes_on_where_it_was(data, tmp_path):
    torch.manual_seed(0)
    of_it = {"licence": "CC0-1.0", "source": "somewhere"}
    for name, own in (("teacher", recipe("wavefm_debug").fit(LocalFiles(data))), ("vocos", vocos_debug())):
        save_vocoder(tmp_path / name, own.module(), spec_of(own.name, own.model), **of_it)
    settings = {"teacher": str(tmp_path / "teacher"), "trainer.steps": 4, "trainer.checkpoint_every": 2}
    chosen = recipe("consistency_debug", settings)
    whole = open_run(tmp_path / "whole", data, chosen)
    train_rank(whole)
    write_result(whole, tmp_path / "student")
    student = load_vocoder(tmp_path / "student")
    assert student.spec == {**load_vocoder(tmp_path / "teacher").spec, "steps": 1}
    assert student.vocoder(torch.randn(1, 80, 10)).shape == (1, 2560)
    card = json.loads((tmp_path / "student" / "vocoder.json").read_text())
    assert (card["licence"], card["source"]) == ("CC0-1.0", "somewhere")
    cut = open_run(tmp_path / "cut", data, chosen)
    train_rank(replace(cut, stop_at=2))
    train_rank(cut)  # the target that follows the student is in the checkpoint
    states = [torch.load(latest_checkpoint(Path(run.folder)), weights_only=True) for run in (whole, cut)]
    for module in ("vocoder", "target"):
        first, second = (state["modules"][module] for state in states)
        assert all(torch.equal(first[key], second[key]) for key in first)
    target = states[0]["modules"]["target"]
    assert any(not torch.equal(target[key], value) for key, value in states[0]["modules"]["vocoder"].items())
    other = write_examples(tmp_path / "other", [50], files=1, mel=MelConfig(f_max=None))
    with pytest.raises(ConfigError, match="f_max"):
        chosen.fit(LocalFiles(other))
    with pytest.raises(ConfigError, match="a Vocos, which cannot be distilled"):
        recipe("consistency_debug", {"teacher": str(tmp_path / "vocos")}).fit(LocalFiles(data))


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--steps", "2"], "distilled to one step"), (["--judged", "3"], "reads no texts")],
)
def test_a_vocoder_is_distilled_by_its_folder(words, message, data, tmp_path, capsys):
    (tmp_path / "vocoder.json").write_text("{}")
    command = ["distill", str(tmp_path), str(data), "-o", str(tmp_path / "out")]
    assert cli.main([*command, *words]) == 2
    assert message in capsys.readouterr().err
    assert cli.main(command) != 0  # the recipe is asked, which does not read such a card
    assert "not a vocoder" in capsys.readouterr().err


def test_the_flows_on_the_waveform_stay_within_their_budget(data):
    """Two thousand million products and sums a second of sound, over the steps of a WaveFM; the diffusion says what it takes."""
    for name, most in (("wavefm", 2e9), ("diffusion", 25e9)):
        chosen = replace(recipe(name), model=replace(recipe(name).model, mel=F5_24K))
        vocoder, counted = chosen.module(), list[int]()

        def count(layer, inputs, output, counted=counted):
            places = (
                inputs[0].shape[-1] if isinstance(layer, nn.ConvTranspose1d) else output[0].numel() // len(layer.weight)
            )
            counted.append(layer.weight.numel() * places)

        for layer in vocoder.modules():
            if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d | nn.Linear):
                layer.register_forward_hook(count)
        vocoder.net(torch.zeros(1, 24_064), torch.zeros(1), torch.zeros(1, 100, 94))
        assert 0.9 * most < sum(counted) * chosen.model.steps * 24_000 / 24_064 <= most


def test_only_the_same_run_is_resumed(data, tmp_path):
    def folder(recipe=None, source=data):
        return open_run(tmp_path / "runs", source, recipe or quick()).folder

    first = folder()
    assert folder() == first
    assert (
        folder(quick(log_every=1, checkpoint_every=1, sample_every=7, keep=9)) == first
    )  # changes nothing that is learnt
    others = [
        folder(quick(learning_rate=1e-3)),
        folder(quick(steps=5)),
        folder(replace(quick(), frames_per_batch=400)),
        folder(source=write_examples(tmp_path / "other", [50, 60, 70])),
    ]
    assert len({first, *others}) == 5
    assert json.loads(Path(first, "run.json").read_text())["recipe"]["frames_per_batch"] == 500


def test_an_unfinished_run_gives_no_voice(data, tmp_path):
    this = open_run(tmp_path / "runs", data, quick())
    train_rank(replace(this, stop_at=2))
    assert this.last_step == 2
    with pytest.raises(VoiceError, match="step 2 of 4.*\n.*goes on"):
        write_result(this, tmp_path / "amy")
    assert not (tmp_path / "amy").exists()
    train_rank(this)
    latest_checkpoint(Path(this.folder)).write_bytes(b"")  # the last checkpoint is lost: the run is at the one before
    with pytest.raises(VoiceError, match="step 2 of 4.*\n.*goes on"):
        write_result(this, tmp_path / "amy")
    train_rank(this)
    write_result(this, tmp_path / "amy")
    assert load_parts(tmp_path / "amy").card.name == "amy"


def test_a_run_that_stops_early_ends_in_the_weights_of_its_best_validation(tmp_path):
    clips = write_examples(tmp_path / "data", [40 + 3 * i for i in range(20)])
    chosen = quick(steps=40, learning_rate=0.5, patience=1, precision="fp32")
    this = open_run(tmp_path / "runs", clips, chosen)
    train_rank(this)
    best, outcome = load_best(Path(this.folder)), read_outcome(this.files)
    assert outcome is not None
    assert (this.ended, this.last_step, outcome.since) == (True, outcome.step, 1)
    assert best["step"] < outcome.step < 40
    write_result(this, tmp_path / "amy")
    weights = load_parts(tmp_path / "amy").acoustic.state_dict()
    assert all(torch.equal(best["ema"][key], value) for key, value in weights.items())
    on = open_run(tmp_path / "runs", clips, quick(steps=40, learning_rate=0.5, precision="fp32"))
    assert (on.folder, on.ended) == (this.folder, False)  # without patience it goes on from there
    Path(this.folder, BEST).write_bytes(b"")
    with pytest.raises(VoiceError, match="best.pt cannot be read.*\n.*patience=0"):
        write_result(this, tmp_path / "amy")


def test_data_too_small_to_hold_some_out_keep_the_runs_that_held_nothing_out(data, tmp_path):
    small = open_run(tmp_path / "runs", data, quick())
    assert small.recipe.trainer.validation == 0.0
    assert open_run(tmp_path / "runs", data, quick(validation=0.0)).folder == small.folder
    with pytest.raises(ConfigError, match="nothing is held out of 12 clips.*\n.*patience=0"):
        open_run(tmp_path / "runs", data, quick(patience=2))
    clips = write_examples(tmp_path / "data", [40 + 3 * i for i in range(20)])
    split, whole = (open_run(tmp_path / "runs", clips, quick(validation=share)) for share in (0.02, 0.0))
    assert split.folder != whole.folder == run_without_validation(split).folder


def test_weights_that_are_not_finite_are_never_written(data, tmp_path):
    this = open_run(tmp_path / "runs", data, quick())
    train_rank(this)
    path = latest_checkpoint(Path(this.folder))
    state = torch.load(path, weights_only=True)
    next(iter(state["ema"].values())).fill_(float("nan"))
    torch.save(state, path)
    with pytest.raises(DivergedError, match="step 4 are not finite"):
        write_result(this, tmp_path / "amy")
    assert not (tmp_path / "amy").exists()


@pytest.mark.slow
@pytest.mark.parametrize("steps", [12, 60])
def test_a_training_that_diverges_is_not_started_again(steps, data, tmp_path, capsys):
    words = ["train", str(data), "-o", str(tmp_path / "amy"), "--recipe", "matcha_debug", "--workers", "1", "--json"]
    words += ["--set", "trainer.learning_rate=1e9", "--steps", str(steps), "--set", "frames_per_batch=500"]
    assert cli.main(words) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "diverged" in told.err and "lower the learning rate" in told.err
    assert not (tmp_path / "amy").exists()
    [run] = (tmp_path / "amy-training").iterdir()
    assert len(json.loads((run / "starts.json").read_text())) == 1
    assert json.loads((run / "outcome.json").read_text())["state"] == "diverged"
    assert not any("NaN" in path.read_text() for path in run.glob("*.json*"))


def test_what_does_not_fit_fails_before_training(data, tmp_path):
    other = write_examples(tmp_path / "other", [50], files=1, mel=MelConfig(f_max=None))
    this = open_run(tmp_path / "runs", other, vocos_debug())
    train_rank(this)
    write_result(this, tmp_path / "vocoder")
    with pytest.raises(ConfigError, match="f_max"):
        open_run(tmp_path / "runs", data, paired(quick(), tmp_path / "vocoder"))
    with pytest.raises(TextError, match="flowtts prepare"):
        open_run(tmp_path / "runs", tmp_path / "nothing", quick())
    with pytest.raises(VoiceError):
        open_run(tmp_path / "runs", data, paired(quick(), "no-such-voice"))


def test_recipes_take_settings_and_list_the_valid_ones():
    assert {"matcha", "matcha_debug", "vocos", "vocos_debug"} <= RECIPES.keys()
    changed = recipe("matcha", {"trainer.learning_rate": "1e-4", "model.encoder_layers": "2", "frames_per_batch": "99"})
    assert (changed.trainer.learning_rate, changed.model.encoder_layers, changed.frames_per_batch) == (1e-4, 2, 99)
    assert recipe("vocos", {"losses.discriminators.periods": "[2, 3]"}).losses.discriminators.periods == (2, 3)
    with pytest.raises(ConfigError, match="learning_rat.*\n.*learning_rate"):
        recipe("matcha", {"trainer.learning_rat": "1"})
    with pytest.raises(ConfigError, match="no recipe.*\n.*vocos"):
        recipe("matchaa")


def _kill_the_worker_at(folder: Path, step: int, killed: list[int], over: threading.Event) -> None:
    """Kill the training worker of this process's Ray, once, as soon as a checkpoint of `step` stands."""
    import psutil

    while not (over.is_set() or killed):
        found = latest_checkpoint(folder)
        if found is not None and int(found.stem[-7:]) >= step:
            for process in psutil.Process().children(recursive=True):
                try:
                    name = " ".join(process.cmdline())
                except psutil.Error:
                    continue
                if "RayTrainWorker" in name:
                    os.kill(process.pid, signal.SIGKILL)
                    killed.append(process.pid)
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_killed_worker_changes_nothing_but_the_time(data, tmp_path):
    from jobs.train import train

    chosen = quick(steps=80, checkpoint_every=4)
    expected = open_run(tmp_path / "uncut", data, chosen)
    train_rank(expected)
    output, killed = tmp_path / "amy", list[int]()
    folder = Path(open_run(tmp_path / "amy-training", data, chosen).folder)
    over = threading.Event()
    killer = threading.Thread(target=_kill_the_worker_at, args=(folder, 8, killed, over))
    killer.start()
    try:
        result = train(data, output, chosen, workers=1, device="cpu", quiet=True)
    finally:
        over.set()
        killer.join()
    assert len(killed) == 1
    assert (result.steps, result.run) == (80, str(folder))
    whole, cut = (torch.load(latest_checkpoint(Path(f)), weights_only=True) for f in (expected.folder, folder))
    assert all(torch.equal(whole["ema"][key], cut["ema"][key]) for key in whole["ema"])
    again = train(data, output, chosen, workers=1, device="cpu", quiet=True)  # finished: nothing is trained again
    assert again.resumed_from == 80
    assert load_parts(output).card.name == "amy"


def test_augmentation_is_of_recipes_that_hear_recordings(data):
    files = LocalFiles(data)
    plain, noisy = recipe("vocos_debug"), recipe("vocos_debug", {"augmentation.noise_db": "[10, 40]"})
    identity = plain.fit(files).identity()  # runs of earlier versions go on
    assert "augmentation" not in identity and "adversarial" not in identity["losses"]
    assert "scales" not in identity["losses"]["discriminators"]
    assert recipe("hifigan_debug").fit(files).identity()["losses"]["discriminators"]["scales"] == 2
    assert noisy.fit(files).identity()["augmentation"]["noise_db"] == [10, 40]
    _, batches = noisy.task(data)
    assert batches.augmentation == noisy.augmentation
    with pytest.raises(ConfigError, match=r"band_hz .* the mel ends at 8000 Hz"):
        recipe("vocos_debug", {"augmentation.band_hz": "[3000, 9000]"}).fit(files)
    with pytest.raises(ConfigError, match="not of the recordings"):
        recipe("tuning_debug", {"augmentation.gain_db": "[-6, 6]"})
    with pytest.raises(ConfigError, match="AcousticRecipe has no field 'augmentation'"):
        recipe("matcha_debug", {"augmentation.noise_db": "[10, 40]"})
    with pytest.raises(ConfigError, match="a list"):
        recipe("vocos_debug", {"augmentation.noise_db": "20"})


@pytest.mark.parametrize("name", ["f5_debug", "zero_shot_debug"])
def test_a_run_of_f5_ends_in_a_voice_that_speaks_with_a_prompt_and_without(name, data, tmp_path):
    chosen = recipe(name, {"trainer.steps": 4, "frames_per_batch": 500}).fit(LocalFiles(data))
    this = open_run(tmp_path / "runs", data, chosen)
    train_rank(this)
    write_result(this, tmp_path / "any")
    voice = open_voice(tmp_path / "any")
    assert voice.voice.card.prompt == "optional" and voice.voice.card.speakers == ()
    clip = babble_clip()
    said = SynthesisRequest(text="Good evening.", steps=2)
    for request in (said, replace(said, prompt=clip, prompt_text="A buzz.")):
        [speech] = voice.synthesize([request])
        assert len(speech.waveform) > 1000 and np.isfinite(speech.waveform).all()
        assert bool(speech.words) == (name == "zero_shot_debug")  # times of words come from those of its tokens
    tuned = recipe("fine_tuning_debug", {"voice": str(tmp_path / "any"), "trainer.steps": 2})
    again = open_run(tmp_path / "runs", data, tuned)
    train_rank(again)
    write_result(again, tmp_path / "tuned")
    assert load_parts(tmp_path / "tuned").card.sampling == voice.voice.card.sampling


def test_what_stands_between_words_stands_between_texts():
    characters = frontends.build({"name": "characters"})
    assert between_words(characters) == (1,)
    assert len(between_words(frontends.build({"name": "phonemes"}))) == 1
    assert between_words(frontends.build({"name": "characters", "characters": "αβ", "language": "el"})) == ()
