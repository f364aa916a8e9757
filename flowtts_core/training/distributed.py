"""What the processes of a torch.distributed group tell each other: the mean of their gradients, and where they begin."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the ranks, in one flattened all-reduce.

    A parameter that no rank has a gradient of keeps none, so that the optimiser leaves it alone, as in a single process.
    A gradient that is not finite on one rank is so on all, so that all leave the step out together.
    """
    if not parameters:
        return
    size = dist.get_world_size()
    device = parameters[0].device
    present = torch.tensor([float(p.grad is not None) for p in parameters], device=device)
    pieces = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten().float() for p in parameters]
    flat = torch.cat([*pieces, present])
    dist.all_reduce(flat)
    totals = flat[len(flat) - len(parameters) :].tolist()
    offset = 0
    for parameter, total in zip(parameters, totals, strict=True):
        mean = flat[offset : offset + parameter.numel()].view_as(parameter) / size
        offset += parameter.numel()
        if total:
            parameter.grad = mean.to(parameter.dtype)


def number_of_first(number: int, device: torch.device) -> int:
    """Rank 0's `number`, on every rank; `device` is one that the group's backend can send from."""
    message = torch.tensor(number, dtype=torch.int64, device=device)
    dist.broadcast(message, 0)
    return int(message)
