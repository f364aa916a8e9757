"""CosyVoice's flow decoder against the published code, and what makes it stream."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from flowtts_core.acoustic.cosyvoice.decoder import DecoderCondition, FlowDecoder, published_names
from flowtts_core.acoustic.cosyvoice.net import FlowDecoderConfig
from flowtts_core.errors import ConfigError

CAUSAL = FlowDecoderConfig(channels=(24,), blocks=1, middle=1, heads=2, head_channels=12, chunk=8)
UNET = replace(CAUSAL, channels=(16, 16), head_channels=8, causal=False)
CONFIGS = {"causal": CAUSAL, "unet": UNET}


@pytest.fixture(scope="module")
def known(parity_dir: Path) -> dict[str, Tensor]:
    return load_file(parity_dir / "cosyvoice_flow" / "io.safetensors")


@pytest.fixture(scope="module")
def models(parity_dir: Path) -> dict[str, FlowDecoder]:
    weights = published_names(load_file(parity_dir / "cosyvoice_flow" / "weights.safetensors"))
    made = {}
    for name, config in CONFIGS.items():
        made[name] = FlowDecoder(config).eval()
        made[name].load_state_dict(
            {key.removeprefix(f"{name}."): t for key, t in weights.items() if key.startswith(f"{name}.")}
        )
    return made


def frames(tensor: Tensor) -> Tensor:
    """[B, M, T] -> [B, T, M]."""
    return tensor.transpose(1, 2)


@pytest.fixture
def condition(known: dict[str, Tensor]) -> DecoderCondition:
    lengths = known["mask"].sum((1, 2)).long()
    return DecoderCondition(frames(known["mu"]), known["spks"], frames(known["cond"]), lengths)


def first(condition: DecoderCondition) -> DecoderCondition:
    return DecoderCondition(condition.mean[:1], condition.speaker[:1], condition.prompt[:1], condition.lengths[:1])


def close(made: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(made, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_velocity_equals_the_published(
    models: dict[str, FlowDecoder], known: dict[str, Tensor], condition: DecoderCondition, name: str
) -> None:
    made = models[name].velocity(frames(known["x"]), known["t"], condition)
    close(made, frames(known[f"{name}.v"]))


@torch.no_grad()
def test_streamed_velocity_equals_the_published(
    models: dict[str, FlowDecoder], known: dict[str, Tensor], condition: DecoderCondition
) -> None:
    close(
        models["causal"].velocity(frames(known["x"]), known["t"], condition, True), frames(known["causal.v_streaming"])
    )


@pytest.mark.parametrize(
    ("name", "wanted", "steps", "temperature", "chunked"),
    [
        ("unet", "unet.sample5", 5, 1.0, False),
        ("causal", "causal.sample5", 5, 1.0, False),
        ("causal", "causal.sample10", 10, 1.0, False),
        ("causal", "causal.sample5_temp0.6", 5, 0.6, False),
        ("causal", "causal.sample5_streaming", 5, 1.0, True),
    ],
)
def test_samples_equal_the_published(
    models: dict[str, FlowDecoder],
    known: dict[str, Tensor],
    condition: DecoderCondition,
    name: str,
    wanted: str,
    steps: int,
    temperature: float,
    chunked: bool,
) -> None:
    whole = replace(first(condition), lengths=torch.tensor([25]))
    made = models[name].sample(whole, frames(known["noise"]) * temperature, steps, chunked=chunked)
    close(made, frames(known[wanted]))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    ("dropped", "wanted"), [((0, 0), "keep"), ((1, 0), "drop0"), ((1, 1), "drop_all")], ids=lambda v: str(v)
)
@torch.no_grad()
def test_loss_equals_the_published(
    models: dict[str, FlowDecoder],
    known: dict[str, Tensor],
    condition: DecoderCondition,
    name: str,
    dropped: tuple[int, int],
    wanted: str,
) -> None:
    heard = condition.dropped(torch.tensor(dropped).bool())
    made = models[name].loss(heard, frames(known["train.x1"]), known["train.t"], frames(known["train.noise"]))
    close(made, known[f"{name}.train.loss_{wanted}"])


def test_a_chunk_depends_on_none_after_it(models: dict[str, FlowDecoder], known: dict[str, Tensor]) -> None:
    """So that frames 0 to 16 of 25, made before the rest is known, are those of the whole."""
    condition = DecoderCondition(
        frames(known["mu"])[:1], known["spks"][:1], frames(known["cond"])[:1], torch.tensor([25])
    )
    begun = DecoderCondition(condition.mean[:, :16], condition.speaker, condition.prompt[:, :16], torch.tensor([16]))
    noise, model = frames(known["noise"]), models["causal"]
    whole = model.sample(condition, noise, 3, chunked=True)
    close(model.sample(begun, noise[:, :16], 3, chunked=True), whole[:, :16])
    full = model.sample(condition, noise, 3)
    assert not torch.allclose(full[:, :16], whole[:, :16], atol=1e-2), "without chunks it looks ahead"


def test_padding_changes_nothing_in_the_causal_net(
    models: dict[str, FlowDecoder], known: dict[str, Tensor], condition: DecoderCondition
) -> None:
    length = int(condition.lengths[1])
    alone = DecoderCondition(
        condition.mean[1:, :length], condition.speaker[1:], condition.prompt[1:, :length], condition.lengths[1:]
    )
    x, t = frames(known["x"]), known["t"]
    with torch.no_grad():
        together = models["causal"].velocity(x, t, condition)
        close(models["causal"].velocity(x[1:, :length], t[1:], alone)[0], together[1, :length])


def test_a_causal_net_has_one_level() -> None:
    with pytest.raises(ConfigError, match="one"):
        FlowDecoderConfig(channels=(8, 8))
