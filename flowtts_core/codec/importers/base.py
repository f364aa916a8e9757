"""What importing a codec of any kind needs: sizes read off its tensors, names of other libraries, weights checked and written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from flowtts_core.codec import CODECS, Codec
from flowtts_core.codec.encodec import SEANetConfig
from flowtts_core.codec.files import save_codec
from flowtts_core.config import build, spec_of
from flowtts_core.errors import VoiceError
from flowtts_core.voice.checkpoint import check_fit


@dataclass(frozen=True)
class ImportedCodec:
    """A checkpoint of a codec, checked to fit `config` tensor by tensor.

    Attributes:
        name: in `CODECS`.
        assumed: what neither tensors nor settings told, for the user to know.
    """

    name: str
    config: Any
    state_dict: dict[str, Tensor]
    assumed: str = ""

    @property
    def spec(self) -> dict[str, Any]:
        """As a codec's card holds it."""
        return spec_of(self.name, self.config)

    def codec(self) -> Codec:
        """Return the codec with these weights, ready to run."""
        codec: Codec = build(CODECS, self.spec)
        codec.load_state_dict(self.state_dict)
        return codec.eval()

    def save(self, folder: Path, **notes: Any) -> None:
        """Write a codec folder; `notes` go into its card."""
        save_codec(folder, self.codec(), self.spec, **notes)


def fitted(name: str, config: Any, tensors: dict[str, Tensor], who: str, assumed: str = "") -> ImportedCodec:
    """Return a checkpoint whose tensors are those of the config's model, as float32.

    Raises:
        VoiceError: naming the tensors that are missing, unknown, of another shape or not finite.
    """
    tensors = {key: tensor.float() for key, tensor in tensors.items()}
    check_fit(build(CODECS, spec_of(name, config)).state_dict(), tensors, who)
    return ImportedCodec(name, config, tensors, assumed)


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def count_of(names: Mapping[str, Tensor], pattern: str) -> int:
    """Return how many different texts the group of a pattern matches at the beginning of names."""
    return len({found[1] for name in names if (found := re.match(pattern, name))})


def seanet_of(encoder: Mapping[str, Tensor], **told: Any) -> SEANetConfig:
    """Return the sizes of a SEANet by the tensors of its encoder, as `model.0.conv.conv.weight`, without weight norm.

    Args:
        told: what tensors do not tell: whether it is causal, and its padding.
    """
    widths = {
        int(found[1]): tensor
        for name, tensor in encoder.items()
        if (found := re.fullmatch(r"model\.(\d+)\.conv\.conv\.weight", name))
    }
    first, *strided, last = (widths[index] for index in sorted(widths))
    blocks = {int(found[1]) for name in encoder if (found := re.match(r"model\.(\d+)\.block\.", name))}
    block = encoder[f"model.{max(blocks)}.block.1.conv.conv.weight"]  # the widest, whose half is exact
    return SEANetConfig(
        channels=first.shape[1],
        dimension=last.shape[0],
        n_filters=first.shape[0],
        ratios=tuple(weight.shape[2] // 2 for weight in reversed(strided)),
        n_residual_layers=len(blocks) // len(strided),
        kernel_size=first.shape[2],
        last_kernel_size=last.shape[2],
        residual_kernel_size=block.shape[2],
        compress=block.shape[1] // block.shape[0],
        lstm=count_of(encoder, r"model\.\d+\.lstm\.weight_ih_(l\d+)"),
        true_skip=not any(".shortcut." in name for name in encoder),
        group_norm=any(".norm." in name for name in encoder),
        **told,
    )


def seanet_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of `transformers`' SEANet, as `encoder.layers.0.conv.bias`, under their published names."""
    direct = [int(found[1]) for name in tensors if (found := re.match(r"decoder\.layers\.(\d+)\.conv\.", name))]
    ends = (min(direct, default=0), max(direct, default=0))

    def published(name: str) -> str:
        found = re.fullmatch(
            r"(encoder|decoder)\.layers\.(\d+)\.((?:block\.\d+\.|shortcut\.)?)(?:(conv|norm)\.)?(.*)", name
        )
        if not found:
            return name
        side, index, inside, part, rest = found.groups()
        if part:
            kind = "convtr" if side == "decoder" and not inside and int(index) not in ends else "conv"
            rest = f"{kind}.{kind if part == 'conv' else 'norm'}.{rest}"
        return f"{side}.model.{index}.{inside}{rest}"

    return {published(name): tensor for name, tensor in tensors.items()}


def require_model_type(settings: Mapping[str, Any], wanted: str, path: Path) -> None:
    """Raise VoiceError unless a `config.json` of transformers is of a model of this type."""
    if settings.get("model_type") != wanted:
        raise VoiceError(f"{path}: settings of a {settings.get('model_type')!r}, not of {wanted!r}", "give its own")
