"""A training's settings and losses in MLflow, for those who ask for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from flowtts_core.errors import DependencyError

EXPERIMENT = "flowtts"
_LONGEST = 500  # characters of a setting's value, which MLflow limits


def require_mlflow() -> None:
    """Raise DependencyError where MLflow is not installed."""
    if find_spec("mlflow") is None:
        raise DependencyError("--mlflow: MLflow is not installed", "pip install 'flowtts[mlflow]'")


class Tracking:
    """Logs a run to an MLflow server or store; each start of its workers is an MLflow run of the same name.

    Args:
        uri: of the server or store, for example http://host:5000 or sqlite:////data/mlflow.db.
        name: of the run.
        settings: of the recipe, nested.
        tell: called with a sentence when the server does not answer, which does not end the training.
    """

    def __init__(self, uri: str, name: str, settings: Mapping[str, Any], tell: Callable[[str], None]) -> None:
        from ray.air.integrations.mlflow import setup_mlflow

        self._uri, self._tell = uri, tell
        self._mlflow: Any = setup_mlflow(
            flat(settings),
            tracking_uri=uri,
            experiment_name=EXPERIMENT,
            run_name=name,
            create_experiment_if_not_exists=True,
        )

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Log the scalars of a step, as far as they are finite."""
        try:
            self._mlflow.log_metrics({k: v for k, v in scalars.items() if math.isfinite(v)}, step=step)
        except Exception as error:  # a server out of reach is no reason to end a training
            self._tell(f"step {step}: MLflow at {self._uri} took no metrics: {error}")

    def end(self, finished: bool) -> None:
        try:
            self._mlflow.end_run("FINISHED" if finished else "FAILED")
        except Exception as error:
            self._tell(f"MLflow at {self._uri}: {error}")


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings by dotted names, their values as short texts."""
    found: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = str(value)[:_LONGEST]
    return found
