"""Flow matching: paths, couplings, time grids, solvers, guidance and losses, shared by every model; no network lives here."""

from __future__ import annotations

from flowtts_core.flow.consistency import Consistency, consistent_end, end_weight, follow
from flowtts_core.flow.coupling import COUPLINGS, Coupling, sinkhorn_plan, squared_distances
from flowtts_core.flow.ddim import NoiseField, ddim
from flowtts_core.flow.distillation import Distillation, GuidedDistillation, LongStep, long_step, two_steps
from flowtts_core.flow.endpoint import EndPoint, end_of, velocity_to
from flowtts_core.flow.grid import NAMED_GRIDS, TIME_GRIDS, StraightnessGrid, TimeGrid, straightness_grid
from flowtts_core.flow.guidance import GUIDANCES, DoubledGuidance, Guidance, classifier_free
from flowtts_core.flow.loss import balanced, masked_flow_loss
from flowtts_core.flow.path import PATHS, CosinePath, LinearPath, PathSample
from flowtts_core.flow.solver import SOLVERS, Solution, Solver, VelocityField

__all__ = [
    "COUPLINGS",
    "GUIDANCES",
    "NAMED_GRIDS",
    "PATHS",
    "SOLVERS",
    "TIME_GRIDS",
    "Consistency",
    "CosinePath",
    "Coupling",
    "Distillation",
    "DoubledGuidance",
    "EndPoint",
    "Guidance",
    "GuidedDistillation",
    "LinearPath",
    "LongStep",
    "NoiseField",
    "PathSample",
    "Solution",
    "Solver",
    "StraightnessGrid",
    "TimeGrid",
    "VelocityField",
    "balanced",
    "classifier_free",
    "consistent_end",
    "ddim",
    "end_of",
    "end_weight",
    "follow",
    "long_step",
    "masked_flow_loss",
    "sinkhorn_plan",
    "squared_distances",
    "straightness_grid",
    "two_steps",
    "velocity_to",
]
