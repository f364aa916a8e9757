"""F5-TTS checkpoints of the community: sizes from the tensors themselves, weights by their published names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowtts_core.acoustic.f5.config import F5Config
from flowtts_core.acoustic.f5.model import F5TTS
from flowtts_core.audio.mel import F5_24K, MelConfig
from flowtts_core.config import spec_of
from flowtts_core.errors import ConfigError, VoiceError
from flowtts_core.nn.dit import RotaryPositions
from flowtts_core.sampling import Sampling
from flowtts_core.text.frontends import ByteConfig, VocabularyConfig
from flowtts_core.text.frontends.vocabulary import read_vocabulary, symbol_bytes
from flowtts_core.voice.checkpoint import Checkpoint, check_fit, read_checkpoint

GENERATIONS = ("v1", "v0")
SAMPLING = Sampling(steps=32, temperature=1.0, guidance=2.0, grid={"name": "pruned", "s": -1.0})
"""As published."""
_EMA = "ema_model."
_NO_WEIGHTS = ("initted", "step")  # of the running mean
_MEL_BUFFERS = "mel_spec."  # of old checkpoints
_BYTES = 256
_REMEDY = "give a checkpoint of SWivid/F5-TTS or of a fork with the same architecture"


@dataclass(frozen=True)
class ImportedF5:
    """A checkpoint, checked to fit `config` tensor by tensor, and what reads its texts."""

    config: F5Config
    state_dict: dict[str, Tensor]
    frontend: dict[str, Any]

    @property
    def spec(self) -> dict[str, Any]:
        """As a voice's card holds it."""
        return spec_of("f5", self.config)

    def model(self) -> F5TTS:
        """The model with these weights, ready to generate."""
        model = F5TTS(self.config)
        model.load_state_dict(self.state_dict)
        return model.eval()


def import_f5(
    checkpoint: Path,
    vocabulary: Path | None = None,
    *,
    mel: MelConfig = F5_24K,
    generation: str = "v1",
    average_upsampling: bool = False,
    language: str = "en-us",
    write_out: bool = True,
    precision: str = "fp32",
) -> ImportedF5:
    """Read a `.safetensors` file or a training's `.pt` of an F5-TTS model; of the latter, the running mean of its weights.

    Args:
        vocabulary: its vocab.txt; None for a model of bytes.
        mel: that it was trained on.
        generation: "v0" for models from before F5-TTS v1, which have the same tensors and compute otherwise.
        average_upsampling: it was trained with `text_embedding_average_upsampling`, which tensors do not show either.
        language, write_out: as `VocabularyConfig` has them.
        precision: as `F5Config` has it.

    Raises:
        VoiceError: for a file that cannot be read safely or is no F5-TTS model this package can run.
    """
    if generation not in GENERATIONS:
        raise VoiceError(f"generation {generation!r}", f"use one of: {', '.join(GENERATIONS)}")
    who = str(checkpoint)
    tensors = {name: tensor.float() for name, tensor in _named(read_checkpoint(checkpoint)).items()}
    try:
        config = _config_of(tensors, mel, generation, average_upsampling, who)
        config, frontend = _read_by(replace(config, precision=precision), vocabulary, language, write_out, who)
        with torch.device("meta"):  # names and shapes alone
            wanted = F5TTS(config).state_dict()
    except VoiceError:
        raise
    except KeyError as error:
        raise VoiceError(f"{who}: has no tensor {error.args[0]!r}, so it is no F5-TTS model", _REMEDY) from error
    except ConfigError as error:
        raise VoiceError(f"{who}: {error.message}", error.remedy) from error
    except Exception as error:  # weights without the dimensions that sizes are read from
        raise VoiceError(
            f"{who}: damaged, or no F5-TTS model ({type(error).__name__}: {error})",
            "take the file again from where it came from",
        ) from error
    positions = RotaryPositions(config.head_channels)  # which follow from the sizes, and need not be in the file
    tensors.setdefault("transformer.rotary_embed.inv_freq", positions.inv_freq)
    check_fit(wanted, tensors, who)
    return ImportedF5(config, tensors, frontend)


def _named(loaded: Checkpoint) -> dict[str, Tensor]:
    """Return the weights by our names, without what is none."""
    tensors = loaded.tensors
    if any(
        name.startswith(_EMA) for name in tensors
    ):  # beside the running mean stand its counters, or what was averaged
        tensors = {
            name.removeprefix(_EMA): tensor
            for name, tensor in tensors.items()
            if name not in _NO_WEIGHTS and not name.startswith("online_model.")
        }
    return {
        name if name.startswith("transformer.") else f"transformer.{name}": tensor
        for name, tensor in tensors.items()
        if not name.startswith(_MEL_BUFFERS)
    }


def _config_of(
    tensors: dict[str, Tensor], mel: MelConfig, generation: str, average_upsampling: bool, who: str
) -> F5Config:
    """The sizes that the tensors have."""

    def shape(name: str) -> tuple[int, ...]:
        return tuple(tensors[f"transformer.{name}"].shape)

    bands, dim = shape("proj_out.weight")
    if bands != mel.n_mels:
        raise VoiceError(f"{who}: made for {bands} mel bands, not {mel.n_mels}", "give the mel it was trained on")
    rows, text_dim = shape("text_embed.text_embed.weight")
    inner = shape("transformer_blocks.0.attn.to_q.weight")[0]
    frequencies = tensors.get("transformer.rotary_embed.inv_freq")
    head_channels = 64 if frequencies is None else 2 * len(frequencies)
    if inner % head_channels:
        raise VoiceError(f"{who}: {inner} channels do not divide into heads of {head_channels}", _REMEDY)
    config = F5Config(
        n_symbols=rows,
        mel=mel,
        dim=dim,
        depth=_count(tensors, "transformer.transformer_blocks."),
        heads=inner // head_channels,
        head_channels=head_channels,
        ff_mult=shape("transformer_blocks.0.ff.ff.0.0.weight")[0] // dim,
        text_dim=text_dim,
        conv_layers=_count(tensors, "transformer.text_embed.text_blocks."),
        average_upsampling=average_upsampling,
        qk_norm="transformer.transformer_blocks.0.attn.q_norm.weight" in tensors,
        long_skip="transformer.long_skip_connection.weight" in tensors,
    )
    return config if generation == "v1" else config.first_generation()


def _read_by(
    config: F5Config, vocabulary: Path | None, language: str, write_out: bool, who: str
) -> tuple[F5Config, dict[str, Any]]:
    """Return the config with what it must know of its tokens, and the front end that makes them."""
    if vocabulary is None:
        if config.n_symbols != _BYTES + 1:
            raise VoiceError(
                f"{who}: reads {config.n_symbols - 1} symbols, and no vocabulary names them", "give its vocab.txt"
            )
        return replace(config, between=(ord(" ") + 1,)), spec_of("bytes", ByteConfig(language=language))
    symbols = read_vocabulary(vocabulary)
    if len(symbols) + 1 != config.n_symbols:
        raise VoiceError(
            f"{vocabulary}: has {len(symbols)} symbols, and the checkpoint reads {config.n_symbols - 1}",
            "give the vocab.txt that the checkpoint was trained with",
        )
    frontend = spec_of("vocabulary", VocabularyConfig(symbols, language=language, write_out=write_out))
    return replace(config, between=(1,), token_bytes=symbol_bytes(symbols)), frontend


def _count(tensors: dict[str, Tensor], prefix: str) -> int:
    """How many numbered parts there are below `prefix`."""
    return len({name[len(prefix) :].split(".", 1)[0] for name in tensors if name.startswith(prefix)})
