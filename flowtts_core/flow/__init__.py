"""Flow matching: paths, couplings, time grids, solvers, guidance and losses, shared by every model; no network lives here."""

from __future__ import annotations

from flowtts_core.flow.coupling import COUPLINGS, Coupling, sinkhorn_plan, squared_distances
from flowtts_core.flow.distillation import Distillation, LongStep, long_step
from flowtts_core.flow.grid import TIME_GRIDS, StraightnessGrid, TimeGrid, straightness_grid
from flowtts_core.flow.guidance import GUIDANCES, Guidance, classifier_free
from flowtts_core.flow.loss import balanced, masked_flow_loss
from flowtts_core.flow.path import PATHS, LinearPath, PathSample
from flowtts_core.flow.solver import SOLVERS, Solution, Solver, VelocityField

__all__ = [
    "COUPLINGS",
    "GUIDANCES",
    "PATHS",
    "SOLVERS",
    "TIME_GRIDS",
    "Coupling",
    "Distillation",
    "Guidance",
    "LinearPath",
    "LongStep",
    "PathSample",
    "Solution",
    "Solver",
    "StraightnessGrid",
    "TimeGrid",
    "VelocityField",
    "balanced",
    "classifier_free",
    "long_step",
    "masked_flow_loss",
    "sinkhorn_plan",
    "squared_distances",
    "straightness_grid",
]
