"""What a cluster has: its nodes, and what is free on all of them together."""

from __future__ import annotations

from typing import Any

from cluster.session import session

SHOWN = ("CPU", "GPU")


def read_status(address: str) -> dict[str, Any]:
    """Return the nodes of the cluster at an address, and what is free on all of them together, as JSON values.

    Raises:
        ConfigError: The cluster cannot be reached.
    """
    with session(address, data=False):
        import ray

        nodes = [
            {
                "name": node["NodeName"],
                "host": node["NodeManagerAddress"],
                "alive": node["Alive"],
                "total": _shown(node["Resources"]),
            }
            for node in ray.nodes()
        ]
        nodes.sort(key=lambda node: str(node["name"]))
        return {"address": address, "nodes": nodes, "free": _shown(ray.available_resources())}


def _shown(resources: dict[str, float]) -> dict[str, float]:
    return {kind: resources[kind] for kind in SHOWN if kind in resources}
