"""Measures how a model's own durations compare with the recordings', for the voice's default speed."""

from __future__ import annotations

import torch

from flowtts_core.acoustic.base import AcousticModel, Condition
from flowtts_core.sampling import Sampling
from flowtts_core.training.examples import Examples


@torch.inference_mode()
def relative_length(model: AcousticModel, examples: Examples, n: int = 100) -> float:
    """Return the length that the model gives `n` examples, divided by the length of their recordings.

    Durations are learnt as logarithms, whose mean is not that of the durations, so the sum is off by some percent; a voice
    whose card has this ratio as its `speed` speaks as fast as its teacher.
    """
    settings = Sampling(steps=0)
    made = true = 0
    for index in torch.linspace(0, len(examples) - 1, min(n, len(examples))).long().tolist():
        tokens = torch.from_numpy(examples.tokens(index))[None]
        speaker = torch.from_numpy(examples.speaker_ids[index : index + 1]) if model.n_speakers > 1 else None
        made += int(
            model.generate(Condition(tokens, torch.tensor([tokens.shape[1]]), speaker), [0], settings).lengths[0]
        )
        true += int(examples.frames[index])
    return made / true
