"""Fine-tuning: a voice goes on with other people's speech, and keeps what it is not asked to change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flowtts_core.audio.mel import MelConfig
from flowtts_core.errors import ConfigError, TextError, VoiceError
from flowtts_core.training.examples import DatasetMeta
from flowtts_core.training.files import files_of
from flowtts_core.voice.parts import load_parts
from jobs.cli import build_parser, main
from jobs.prepare import config_of
from jobs.training.recipes import recipe
from jobs.training.run import open_run, train_rank, write_result
from tests.speech_like import write_examples
from tests.voices import make_voice

LENGTHS = [40, 47, 54, 61, 68, 75]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_examples(tmp_path_factory.mktemp("data"), LENGTHS)


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    return make_voice(tmp_path_factory.mktemp("voices") / "pair", n_speakers=2)


def tuned(data, out, voice, **settings):
    """Fine-tune in a few steps; returns the voice before and after."""
    this = open_run(
        out.with_name("runs"), data, recipe("fine_tuning_debug", {"voice": str(voice), "trainer.steps": 2, **settings})
    )
    train_rank(this)
    write_result(this, out)
    return this, load_parts(out)


def test_a_new_speaker_joins_the_table_and_the_old_ones_stay_in_it(data, pair, tmp_path):
    this, after = tuned(data, tmp_path / "jo", pair, speaker="jo", **{"trainer.learning_rate": 1e-9})
    assert after.card.speakers == ("jo", "speaker-0", "speaker-1")
    before, table = (
        load_parts(pair).acoustic.state_dict()["spk_emb.weight"],
        after.acoustic.state_dict()["spk_emb.weight"],
    )
    assert torch.allclose(table[1:], before, atol=1e-6)
    assert torch.allclose(table[0], before.mean(0), atol=1e-6)
    assert after.card.parts["vocoder"] == load_parts(pair).card.parts["vocoder"]
    assert "CC0-1.0" in after.card.licence and "fine-tuned from" in after.card.source
    task, batches = this.recipe.task(data)
    assert set(batches.at(0).condition.speakers.tolist()) == {0}


def test_a_speaker_that_the_voice_knows_goes_on_from_its_own_row(data, pair, tmp_path):
    chosen = recipe("fine_tuning_debug", {"voice": str(pair), "speaker": "speaker-1"}).fit(files_of(data))
    _, batches = chosen.task(data)
    assert chosen.model.n_speakers == 2
    assert set(batches.at(0).condition.speakers.tolist()) == {1}


def test_frozen_parts_stay_and_the_others_learn(data, pair, tmp_path):
    _, after = tuned(data, tmp_path / "frozen", pair, frozen='["encoder."]')
    before = load_parts(pair).acoustic.state_dict()
    after_weights = after.acoustic.state_dict()
    kept = [name for name in before if not name.startswith(("decoder.", "spk_emb."))]
    assert all(torch.equal(after_weights[name], before[name]) for name in kept)
    assert any(not torch.equal(after_weights[name], before[name]) for name in before if name not in kept)
    for frozen, said in (
        ('["coder."]', "no weights begin with 'coder.'"),
        ('["encoder.", "decoder.", "spk_emb."]', "every"),
    ):
        with pytest.raises(ConfigError, match=said):
            recipe("fine_tuning_debug", {"voice": str(pair), "frozen": frozen}).fit(files_of(data)).task(data)


def test_a_voice_of_one_speaker_becomes_anothers_and_cannot_become_two(data, tmp_path):
    alone = make_voice(tmp_path / "alone")
    _, after = tuned(data, tmp_path / "other", alone)
    assert after.card.speakers == () and "spk_emb.weight" not in after.acoustic.state_dict()
    meta = replace(DatasetMeta.load(data), speakers=("a", "b"))
    chosen = recipe("fine_tuning_debug", {"voice": str(alone)})
    with pytest.raises(ConfigError, match="one speaker and no table"):
        chosen.fit_model(files_of(data), meta)


def test_a_checkpoint_is_gone_on_from(data, tmp_path):
    first = open_run(tmp_path / "runs", data, recipe("matcha_debug", {"trainer.steps": 2}))
    train_rank(first)
    newest = sorted(Path(first.folder).glob("checkpoint-*.pt"))[-1]
    averaged = torch.load(newest, weights_only=True)["ema"]
    for start in (newest, first.folder):
        _, after = tuned(data, tmp_path / "on", start, **{"trainer.learning_rate": 1e-9})
        assert all(
            torch.allclose(value, averaged[name], atol=1e-6) for name, value in after.acoustic.state_dict().items()
        )
    with pytest.raises(VoiceError, match="no such checkpoint"):
        open_run(
            tmp_path / "runs",
            data,
            recipe("fine_tuning_debug", {"voice": str(newest.with_name("checkpoint-0000003.pt"))}),
        )


def test_other_features_are_refused_with_the_command_that_makes_them(data, tmp_path):
    other = make_voice(tmp_path / "other", mel=replace(MelConfig(), n_mels=100))
    with pytest.raises(TextError) as error:
        recipe("fine_tuning_debug", {"voice": str(other)}).fit(files_of(data))
    assert f"--like {other}" in error.value.remedy
    with pytest.raises(ConfigError, match="24000 Hz, and the data were prepared at 22050"):
        recipe("fine_tuning_debug", {"voice": "natural"}).fit(files_of(data))


def test_prepare_takes_a_voices_features():
    config = config_of(build_parser("prepare").parse_args(["prepare", "corpus", "-o", "data", "--like", "natural"]))
    card = load_parts("natural").card
    assert config.mel == load_parts("natural").acoustic.features
    assert config.frontend == card.parts["frontend"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from", "heart"], "voice heart is of kind hibari"),
        (["--from", "natural", "--recipe", "vocos"], "--recipe vocos begins with fresh weights"),
        (["--speaker", "jo"], "--speaker goes with --from"),
    ],
)
def test_what_cannot_be_fine_tuned_is_said_before_any_work(data, tmp_path, capsys, words, said):
    assert main(["train", str(data), "-o", str(tmp_path / "out"), *words]) != 0
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
