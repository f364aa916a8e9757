"""How many replicas there should be: by the audio that waits, and by how full they are."""

from __future__ import annotations

import math
from typing import Any

TARGET_S = 8.0  # of audio waiting at each replica; one makes some 10 to 30 s of audio a second
TARGET_FULL = 0.75  # of the answers that a replica may make at once: short ones fill it before much audio waits


def by_queued_audio(context: Any) -> tuple[int | float, dict[str, Any]]:
    """Choose the number of replicas from the load: a policy of Ray Serve (`ray.serve.config.AutoscalingContext`).

    Serve applies the deployment's delays and bounds, and starts one at once when a front looks for a replica and there is none.
    """
    metrics = context.aggregated_metrics or {}
    queued_s = sum(metrics.get("queued_s", {}).values())
    active = sum(metrics.get("active", {}).values())
    full = sum(metrics.get("full", {}).values())
    wanted = max(math.ceil(queued_s / TARGET_S), math.ceil(full / TARGET_FULL), 1 if active > 0 or queued_s > 0 else 0)
    return min(max(wanted, context.capacity_adjusted_min_replicas), context.capacity_adjusted_max_replicas), {}
