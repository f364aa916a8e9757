"""Community checkpoints: every size is found, weights run as published, and nothing in a file is executed."""

from __future__ import annotations

import contextlib
import functools
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from flowtts_core.acoustic.matcha.importer import import_matcha
from flowtts_core.audio.mel import MelConfig
from flowtts_core.errors import VoiceError
from flowtts_core.sampling import Sampling
from flowtts_core.voice.checkpoint import read_checkpoint


class Config(dict):
    """Pickles as a class that the reader does not know, as hyperparameters of real checkpoints do."""


class Node:
    def __init__(self, **state):
        self.__dict__.update(state)


class Bomb:
    """Writes a file when it is unpickled by a reader that trusts it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (Path(self.path), "executed")


def omega(value):
    """A nested mapping in the layout that OmegaConf pickles."""
    if isinstance(value, dict):
        return Node(_metadata=None, _content={key: omega(item) for key, item in value.items()})
    return Node(_metadata=None, _val=value)


@pytest.fixture(params=["matcha_single", "matcha_multi"])
def published(request, parity_dir):
    folder = parity_dir / request.param
    return folder, load_file(folder / "weights.safetensors"), json.loads((folder / "config.json").read_text())


def lightning(weights, config, **more):
    hyper = {key: omega(value) if isinstance(value, dict) else value for key, value in config.items()}
    hyper["optimizer"] = functools.partial(torch.optim.Adam, lr=1e-4)
    return {"epoch": 3, "state_dict": weights, "hyper_parameters": hyper, "optimizer_states": [{}], **more}


def check(imported, folder, mel):
    from tests.flowtts_core.test_matcha import Reference, synthesise

    reference = Reference(imported.model(), load_file(folder / "io.safetensors"))
    io = reference.io
    made = synthesise(reference, reference.condition.item(1), io["syn4_single_item1.z"], 1.0, 4, False)
    torch.testing.assert_close(made.mel, io["syn4_single_item1.mel"], atol=1e-4, rtol=1e-4)
    assert imported.config.mel == mel


def test_lightning_checkpoint_runs_as_published(published, tmp_path):
    folder, weights, config = published
    mel = MelConfig(n_mels=config["n_feats"])
    torch.save(lightning(weights, config), tmp_path / "last.ckpt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "last.ckpt", weights_only=True)
    check(import_matcha(tmp_path / "last.ckpt", mel), folder, mel)


def test_plain_and_safetensors_files_run_as_published(published, tmp_path):
    folder, weights, config = published
    mel = MelConfig(n_mels=config["n_feats"])
    torch.save({"state_dict": weights}, tmp_path / "plain.ckpt")
    save_file(weights, tmp_path / "model.safetensors")
    for name in ("plain.ckpt", "model.safetensors"):
        check(import_matcha(tmp_path / name, mel), folder, mel)


def test_an_imported_model_generates_from_its_spec(published, tmp_path):
    from flowtts_core.acoustic import build

    _, weights, config = published
    save_file(weights, tmp_path / "model.safetensors")
    imported = import_matcha(tmp_path / "model.safetensors", MelConfig(n_mels=config["n_feats"]))
    model = build(imported.spec).eval()
    model.load_state_dict(imported.state_dict)
    from tests.flowtts_core.test_acoustic_contract import some_condition

    condition, settings = some_condition(model).item(0), Sampling(steps=2)
    ours, theirs = (m.generate(condition, [1], settings).features for m in (model, imported.model()))
    assert torch.equal(ours, theirs)


def test_malicious_pickle_is_not_executed(published, tmp_path):
    folder, weights, config = published
    mel, mark = MelConfig(n_mels=config["n_feats"]), tmp_path / "mark"
    path = tmp_path / "bad.ckpt"
    torch.save(lightning(weights, config, callbacks=Bomb(str(mark))), path)
    check(import_matcha(path, mel), folder, mel)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists(), "the bomb must be a real one"


def test_bomb_in_place_of_the_tensors_is_refused(tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "bad.ckpt"
    torch.save({"state_dict": Bomb(str(mark))}, path)
    with pytest.raises(VoiceError, match="no tensors"):
        import_matcha(path)
    path.write_bytes(pickle.dumps(Bomb(str(mark))))
    with pytest.raises(VoiceError):
        import_matcha(path)
    assert not mark.exists()


def test_damaged_and_foreign_files_get_clear_errors(published, tmp_path):
    _, weights, config = published
    mel = MelConfig(n_mels=config["n_feats"])
    path = tmp_path / "x.ckpt"
    with pytest.raises(VoiceError, match="no such file"):
        import_matcha(path)
    torch.save(lightning(weights, config), path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(VoiceError, match="x.ckpt"):
        import_matcha(path)
    path.write_text("not a checkpoint")
    with pytest.raises(VoiceError, match="x.ckpt"):
        import_matcha(path)
    torch.save({"state_dict": {"weight": torch.zeros(3)}}, path)
    with pytest.raises(VoiceError, match="no Matcha-TTS model"):
        import_matcha(path)
    torch.save({"state_dict": {k: v for k, v in weights.items() if "final_proj.bias" not in k}}, path)
    with pytest.raises(VoiceError, match="missing 1 .*final_proj.bias"):
        import_matcha(path, mel)
    torch.save({"state_dict": {**weights, "mel_std": torch.tensor(float("nan"))}}, path)
    with pytest.raises(VoiceError):
        import_matcha(path, mel)
    torch.save({"state_dict": weights}, path)
    with pytest.raises(VoiceError, match="mel bands"):
        import_matcha(path, MelConfig(n_mels=64))


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("encoder.proj_m.weight", torch.tensor(80.0)),
        ("encoder.emb.weight", torch.zeros(5)),
        ("encoder.encoder.ffn_layers.0.conv_1.weight", torch.zeros(4)),
        ("decoder.estimator.down_blocks.0.0.block1.block.0.weight", torch.zeros(0, 3, 3)),
        ("spk_emb.weight", torch.zeros(3)),
        ("mel_std", torch.ones(2)),
    ],
)
def test_weights_of_impossible_shapes_are_refused(published, name, tensor, tmp_path):
    _, weights, config = published
    torch.save({"state_dict": {**weights, name: tensor}}, tmp_path / "x.ckpt")
    with pytest.raises(VoiceError, match=r"x\.ckpt"):
        import_matcha(tmp_path / "x.ckpt", MelConfig(n_mels=config["n_feats"]))


@pytest.mark.parametrize(
    "hyper",
    [
        {"encoder": {"encoder_params": {"n_heads": -1}}},
        {"encoder": {"encoder_params": {"n_heads": "two"}}},
        {"decoder": {"num_heads": -2}},
        {"cfm": {"sigma_min": [1]}},
        {"data_statistics": {"mel_std": float("nan")}},
    ],
)
def test_impossible_hyperparameters_are_refused(published, hyper, tmp_path):
    _, weights, config = published
    plain = {name: tensor for name, tensor in weights.items() if name not in ("mel_mean", "mel_std")}
    torch.save({"state_dict": plain, "hyper_parameters": hyper}, tmp_path / "x.ckpt")
    with pytest.raises(VoiceError, match=r"x\.ckpt"):
        import_matcha(tmp_path / "x.ckpt", MelConfig(n_mels=config["n_feats"]))


def test_a_flipped_byte_gives_weights_or_a_clear_error(tmp_path):
    path, generator = tmp_path / "x.ckpt", torch.Generator().manual_seed(0)
    endless: list[object] = []
    endless.append(endless)
    torch.save({"state_dict": {"w": torch.ones(3)}, "hyper_parameters": {"n": endless}}, path)
    with pytest.raises(VoiceError, match="contain themselves"):
        read_checkpoint(path)
    torch.save(lightning({"w": torch.ones(3)}, {"a": {"b": 1}}), path)
    whole = path.read_bytes()
    for place in torch.randint(len(whole), (60,), generator=generator).tolist():
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(bytes(damaged))
        with contextlib.suppress(VoiceError):
            read_checkpoint(path)
    (tmp_path / "x.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(VoiceError, match=r"x\.safetensors"):
        read_checkpoint(tmp_path / "x.safetensors")


def test_hyperparameters_are_read_from_unknown_classes(tmp_path):
    content = {
        "state_dict": {"w": torch.arange(6.0).reshape(2, 3).t()},
        "hyper_parameters": {"a": omega({"b": {"c": 4}}), "d": (1, "x")},
    }
    torch.save(content, tmp_path / "x.ckpt")
    loaded = read_checkpoint(tmp_path / "x.ckpt")
    assert loaded.hyper_parameters == {"a": {"b": {"c": 4}}, "d": [1, "x"]}
    assert torch.equal(loaded.tensors["w"], content["state_dict"]["w"])


@pytest.mark.parametrize(
    "content",
    [
        lambda weights: {"model": weights, "optimizer": {"state": {}}},
        lambda weights: {"model_state_dict": weights, "epoch": 3},
        lambda weights: {"state_dict": {f"model.{name}": tensor for name, tensor in weights.items()}},
        lambda weights: {f"module._orig_mod.{name}": tensor for name, tensor in weights.items()},
    ],
)
def test_weights_are_found_where_trainings_put_them(content, tmp_path):
    weights = {"a.weight": torch.ones(2), "model.b": torch.zeros(1)}
    torch.save(content(weights), tmp_path / "x.ckpt")
    loaded = read_checkpoint(tmp_path / "x.ckpt").tensors
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())


def plain_feed_forward(weights):
    """The weights without what snakebeta adds to a linear layer: those of a GELU of either kind."""
    return {name: tensor for name, tensor in weights.items() if not name.endswith(("net.0.alpha", "net.0.beta"))}


@pytest.mark.parametrize("act_fn", ["gelu", "gelu-approximate"])
def test_the_activation_is_the_one_that_was_trained(published, act_fn, tmp_path):
    _, weights, config = published
    hyper = {**config, "decoder": {**config["decoder"], "act_fn": act_fn}}
    torch.save(lightning(plain_feed_forward(weights), hyper), tmp_path / "x.ckpt")
    imported = import_matcha(tmp_path / "x.ckpt", MelConfig(n_mels=config["n_feats"]))
    first = imported.model().decoder.estimator.mid_blocks[0][1][0].ff.net[0]
    x = torch.randn(3, first.proj.in_features)
    expected = torch.nn.functional.gelu(first.proj(x), approximate="tanh" if "approximate" in act_fn else "none")
    assert torch.equal(first(x), expected)
    assert imported.spec["feed_forward"] == act_fn


@pytest.mark.parametrize("act_fn", ["geglu-approximate", "snakebeta", None])
def test_an_activation_that_cannot_be_known_or_run_is_refused(published, act_fn, tmp_path):
    _, weights, config = published
    hyper = {**config, "decoder": {**config["decoder"], "act_fn": act_fn}}
    torch.save(lightning(plain_feed_forward(weights), hyper), tmp_path / "x.ckpt")
    with pytest.raises(VoiceError, match="activation"):
        import_matcha(tmp_path / "x.ckpt", MelConfig(n_mels=config["n_feats"]))
    torch.save(lightning(weights, {**config, "decoder": {**config["decoder"], "act_fn": "gelu"}}), tmp_path / "x.ckpt")
    with pytest.raises(VoiceError, match="'gelu', but its tensors are snakebeta's"):
        import_matcha(tmp_path / "x.ckpt", MelConfig(n_mels=config["n_feats"]))
