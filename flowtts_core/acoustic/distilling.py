"""What a student of few steps is taught in an update, by any method of `flow/`, for any model that offers its flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowtts_core.acoustic.base import AcousticBatch, AcousticModel, FlowBatch
from flowtts_core.flow import (
    Consistency,
    Distillation,
    GuidedDistillation,
    LinearPath,
    VelocityField,
    consistent_end,
    end_of,
    end_weight,
    long_step,
    two_steps,
)
from flowtts_core.nn.share import Share, rows_of

Method = Distillation | GuidedDistillation | Consistency
_DRAWN = (0.0, 3.0)  # weights of guidance, where the method says nothing of them


@dataclass(frozen=True)
class Lesson:
    """By what a student is taught.

    Attributes:
        target: an average of the student, of methods that need one.
        temperature: of the noise, as the student will be sampled.
        guidance: weight of the teacher's guidance, for students that are not told one.
        later: whether this is the later stage of `GuidedDistillation`.
    """

    teacher: AcousticModel
    how: Method
    target: AcousticModel | None = None
    temperature: float = 1.0
    guidance: float = 0.0
    later: bool = False


def distillation_loss(
    student: AcousticModel, batch: AcousticBatch, lesson: Lesson, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Return named losses as `AcousticModel.loss` does; only what the student's `velocity` computes learns.

    What is given beside the noise (the text, for instance) is the teacher's: a student begins as its copy.

    Raises:
        FlowTTSError: for a model that cannot be distilled.
    """
    with torch.no_grad():
        flow = lesson.teacher.flow_batch(batch, generator)
    told, guidance = _guidance(student, lesson, batch.share, len(flow.x_1), generator)
    told, guidance = (None if part is None else part.to(flow.x_1) for part in (told, guidance))
    teach = {Distillation: _mean, GuidedDistillation: _two_steps, Consistency: _consistent}[type(lesson.how)]
    loss = teach(_Pupil(student, told), _Pupil(lesson.teacher, guidance), flow, lesson, batch.share, generator)
    return {"loss": loss}


@dataclass(frozen=True)
class _Pupil:
    """A model's velocity field at weights of guidance [B]."""

    model: AcousticModel
    guidance: Tensor | None

    def __call__(self, x: Tensor, t: Tensor, condition: Any) -> Tensor:
        return self.model.velocity(x, t, condition, self.guidance)


def _guidance(
    student: AcousticModel, lesson: Lesson, share: Share | None, count: int, generator: torch.Generator | None
) -> tuple[Tensor | None, Tensor | None]:
    """Return what the student is told of the guidance, and the weights [B] of the teacher's."""
    if not lesson.teacher.guided:
        return None, None
    if not student.embeds_guidance:
        return None, torch.full((count,), lesson.guidance) if lesson.guidance else None
    low, high = _DRAWN
    if isinstance(lesson.how, GuidedDistillation):
        low, high = lesson.how.later_guidance if lesson.later else lesson.how.guidance
    size, rows = rows_of(share, count)
    drawn = low + (high - low) * torch.rand(size, generator=generator)[rows]
    return drawn, drawn


def _mean(
    student: _Pupil,
    teacher: _Pupil,
    flow: FlowBatch,
    lesson: Lesson,
    share: Share | None,
    generator: torch.Generator | None,
) -> Tensor:
    assert isinstance(lesson.how, Distillation)
    which = int(torch.randint(lesson.how.steps, (), generator=generator))
    step = long_step(teacher, flow.x_0 * lesson.how.temperature, which, lesson.how, flow.condition)
    return flow.mean_square(student(step.x, step.t, flow.condition), step.velocity, share)


def _two_steps(
    student: _Pupil,
    teacher: _Pupil,
    flow: FlowBatch,
    lesson: Lesson,
    share: Share | None,
    generator: torch.Generator | None,
) -> Tensor:
    assert isinstance(lesson.how, GuidedDistillation)
    count, rows = rows_of(share, len(flow.x_1))
    t, first, second = (part[rows].to(flow.x_1.device) for part in lesson.how.draw(count, generator))
    point = LinearPath().sample(flow.x_0 * lesson.temperature, flow.x_1, t)
    field: VelocityField = teacher
    if lesson.later:
        assert lesson.target is not None, "the later stage's teacher is the target"
        field = _Pupil(lesson.target, student.guidance)
    step = two_steps(field, point.x_t, t, first, second, flow.condition)
    return flow.mean_square(student(step.x, t, flow.condition), step.velocity, share)


def _consistent(
    student: _Pupil,
    teacher: _Pupil,
    flow: FlowBatch,
    lesson: Lesson,
    share: Share | None,
    generator: torch.Generator | None,
) -> Tensor:
    assert isinstance(lesson.how, Consistency) and lesson.target is not None
    count, rows = rows_of(share, len(flow.x_1))
    t = lesson.how.times(count, generator)[rows].to(flow.x_1.device)
    point = LinearPath().sample(flow.x_0 * lesson.temperature, flow.x_1, t)
    target = end_of(_Pupil(lesson.target, student.guidance))
    wanted = consistent_end(teacher, target, point, lesson.how, flow.condition)
    said = end_of(student)(point.x_t, t, flow.condition)
    return flow.mean_square(said, wanted, share, end_weight(t))
