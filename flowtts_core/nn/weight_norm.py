"""Weight norm (Salimans and Kingma 2016, arXiv 1602.07868) as training uses it, and folded into plain weights for all else."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

_PAIRS = (("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1"))


def add_weight_norm(module: nn.Module) -> None:
    """Give every convolution of a module weight norm; what it computes stays the same."""
    for part in list(module.modules()):
        if isinstance(part, nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d):
            weight_norm(part)


def fold_weight_norm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict in which each magnitude and direction, named as torch does or once did, are one weight."""
    folded = dict(tensors)
    for size_name, direction_name in _PAIRS:
        for name in [name for name in folded if name.endswith(size_name)]:
            prefix = name[: -len(size_name)]
            if prefix + direction_name not in folded:
                continue
            size, direction = folded.pop(name), folded.pop(prefix + direction_name)
            across = [side for side, extent in enumerate(size.shape) if extent == 1]
            length = torch.linalg.vector_norm(direction, dim=across, keepdim=True)
            folded[f"{prefix}weight"] = direction * (size / length)
    return folded
