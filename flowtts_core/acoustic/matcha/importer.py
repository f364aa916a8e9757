"""Matcha-TTS checkpoints of the community: sizes from the tensors themselves, weights by their published names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from flowtts_core.acoustic.matcha.config import MatchaConfig
from flowtts_core.acoustic.matcha.model import MatchaTTS
from flowtts_core.audio.mel import MelConfig
from flowtts_core.config import spec_of
from flowtts_core.errors import ConfigError, VoiceError
from flowtts_core.voice.checkpoint import Checkpoint, check_fit, read_checkpoint

_NET = "decoder.estimator."
_TRANSFORMER = f"{_NET}down_blocks.0.1.0."


@dataclass(frozen=True)
class ImportedMatcha:
    """A checkpoint, checked to fit `config` tensor by tensor."""

    config: MatchaConfig
    state_dict: dict[str, Tensor]

    @property
    def spec(self) -> dict[str, Any]:
        """As a voice's card holds it."""
        return spec_of("matcha", self.config)

    def model(self) -> MatchaTTS:
        """The model with these weights, ready to generate."""
        model = MatchaTTS(self.config)
        model.load_state_dict(self.state_dict)
        return model.eval()


def import_matcha(checkpoint: Path, mel: MelConfig | None = None) -> ImportedMatcha:
    """Read a Lightning `.ckpt` or a `.safetensors` file of a Matcha-TTS model.

    What shapes do not tell (numbers of heads, sigma_min) comes from the file's hyperparameters, else from the published
    defaults; but for an activation that only they tell. The result runs with `masking="published"`, as the weights were trained.

    Args:
        mel: the mel it was trained on; by default the published one, of 22.05 kHz and 80 bands.

    Raises:
        VoiceError: for a file that cannot be read safely or is no Matcha-TTS model this package can run.
    """
    loaded = read_checkpoint(checkpoint)
    try:
        return _fitted(loaded, mel or MelConfig(), str(checkpoint))
    except VoiceError:
        raise
    except KeyError as error:
        raise VoiceError(
            f"{checkpoint}: has no tensor {error.args[0]!r}, so it is no Matcha-TTS model",
            "give a checkpoint of shivammehta25/Matcha-TTS or of a fork with the same architecture",
        ) from error
    except ConfigError as error:
        raise VoiceError(f"{checkpoint}: {error.message}", error.remedy) from error
    except Exception as error:  # weights without the dimensions that sizes are read from, numbers that are none, ...
        raise VoiceError(
            f"{checkpoint}: damaged, or no Matcha-TTS model ({type(error).__name__}: {error})",
            "take the file again from where it came from",
        ) from error


def _fitted(loaded: Checkpoint, mel: MelConfig, who: str) -> ImportedMatcha:
    config = _config_of(loaded, mel, who)
    tensors = {name: tensor.float() for name, tensor in loaded.tensors.items()}
    model = MatchaTTS(config)
    for name in ("mel_mean", "mel_std"):
        tensors[name] = tensors[name].reshape(()) if name in tensors else model.state_dict()[name]
    check_fit(model.state_dict(), tensors, who)
    return ImportedMatcha(config, tensors)


def _config_of(loaded: Checkpoint, mel: MelConfig, who: str) -> MatchaConfig:
    """The sizes that the tensors have."""
    tensors, hyper = loaded.tensors, loaded.hyper_parameters
    n_mels = tensors["encoder.proj_m.weight"].shape[0]
    if n_mels != mel.n_mels:
        raise VoiceError(f"{who}: made for {n_mels} mel bands, not {mel.n_mels}", "give the mel it was trained on")
    if f"{_TRANSFORMER}ff.net.0.proj.weight" not in tensors and f"{_TRANSFORMER}ff1.sequential.0.weight" in tensors:
        raise VoiceError(
            f"{who}: has conformer blocks", "only Matcha-TTS's transformer blocks (its default) are supported"
        )
    full, half = (tensors[f"{_NET}down_blocks.{i}.0.block1.block.0.weight"].shape[0] for i in (0, 1))
    if f"{_NET}down_blocks.2.0.block1.block.0.weight" in tensors:
        raise VoiceError(f"{who}: has more than two frame rates", "only the published two are supported")
    speakers = tensors.get("spk_emb.weight")
    encoder = _under(hyper, "encoder", "encoder_params")
    decoder = _under(hyper, "decoder")
    heads = int(decoder.get("num_heads") or 2)
    statistics = _under(hyper, "data_statistics")
    base = replace(MatchaConfig.published(), mel_mean=0.0, mel_std=1.0)
    return replace(
        base,
        n_symbols=tensors["encoder.emb.weight"].shape[0],
        n_speakers=1 if speakers is None else speakers.shape[0],
        speaker_channels=base.speaker_channels if speakers is None else speakers.shape[1],
        mel=mel,
        mel_mean=_scalar(tensors, statistics, "mel_mean", 0.0),
        mel_std=_scalar(tensors, statistics, "mel_std", 1.0),
        encoder_channels=tensors["encoder.emb.weight"].shape[1],
        encoder_filter_channels=tensors["encoder.encoder.ffn_layers.0.conv_1.weight"].shape[0],
        encoder_layers=_count(tensors, "encoder.encoder.attn_layers."),
        encoder_heads=int(encoder.get("n_heads") or 2),
        encoder_kernel=tensors["encoder.encoder.ffn_layers.0.conv_1.weight"].shape[2],
        prenet="encoder.prenet.proj.weight" in tensors,
        duration_channels=tensors["encoder.proj_w.conv_1.weight"].shape[0],
        duration_kernel=tensors["encoder.proj_w.conv_1.weight"].shape[2],
        decoder_channels=(full, half),
        decoder_blocks=_count(tensors, f"{_NET}down_blocks.0.1."),
        decoder_mid_blocks=_count(tensors, f"{_NET}mid_blocks."),
        decoder_heads=heads,
        decoder_head_channels=tensors[f"{_TRANSFORMER}attn1.to_q.weight"].shape[0] // heads,
        feed_forward=_feed_forward(tensors, decoder.get("act_fn"), who),
        sigma_min=float(_under(hyper, "cfm").get("sigma_min") or base.sigma_min),
    )


def _feed_forward(tensors: dict[str, Tensor], stated: Any, who: str) -> str:
    """Return the first layer of the feed-forward nets; all but snakebeta have the same tensors, so hyperparameters tell."""
    told = "snakebeta" if f"{_TRANSFORMER}ff.net.0.alpha" in tensors else stated
    if told is None:
        raise VoiceError(
            f"{who}: does not tell the activation of its feed-forward nets, which its tensors do not show either",
            "give the .ckpt that its training wrote, whose hyperparameters tell it (decoder.act_fn)",
        )
    if told not in ("gelu", "gelu-approximate", "snakebeta") or stated not in (None, told):
        raise VoiceError(
            f"{who}: its decoder's activation is {stated!r}"
            + (f", but its tensors are {told}'s" if told != stated else ""),
            "gelu, gelu-approximate and snakebeta (the published one) are supported",
        )
    return str(told)


def _scalar(tensors: dict[str, Tensor], statistics: dict[str, Any], name: str, default: float) -> float:
    if name in tensors:
        return float(tensors[name])
    return float(statistics.get(name) or default)


def _under(hyper: dict[str, Any], *names: str) -> dict[str, Any]:
    """The mapping below `names`, empty where there is none."""
    for name in names:
        below = hyper.get(name)
        hyper = below if isinstance(below, dict) else {}
    return hyper


def _count(tensors: dict[str, Tensor], prefix: str) -> int:
    """How many numbered parts there are below `prefix`."""
    return len({name[len(prefix) :].split(".", 1)[0] for name in tensors if name.startswith(prefix)})
