"""How many speakers there should be: by the audio that waits, not by the number of requests."""

from __future__ import annotations

import math
from typing import Any

TARGET_S = 8.0  # of audio waiting at each speaker; one makes some 10 to 30 s of audio a second


def by_queued_audio(context: Any) -> tuple[int | float, dict[str, Any]]:
    """A policy of Ray Serve's autoscaling (`ray.serve.config.AutoscalingContext`): speakers for the audio that is queued.

    Serve applies the deployment's delays and bounds, and starts one at once when a front looks for a speaker and there is none.
    """
    metrics = context.aggregated_metrics or {}
    queued_s = sum(metrics.get("queued_s", {}).values())
    active = sum(metrics.get("active", {}).values())
    wanted = max(math.ceil(queued_s / TARGET_S), 1 if active > 0 or queued_s > 0 else 0)
    return min(max(wanted, context.capacity_adjusted_min_replicas), context.capacity_adjusted_max_replicas), {}
