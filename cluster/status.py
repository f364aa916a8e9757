"""What a cluster has and lacks: its nodes with what is free, and what waits for a place."""

from __future__ import annotations

from typing import Any

from cluster.session import session

SHOWN = ("CPU", "GPU")


def read_status(address: str) -> dict[str, Any]:
    """The nodes of the cluster at an address, and the demands that no node can take now, as JSON values.

    Raises:
        ConfigError: when the cluster cannot be reached.
    """
    with session(address, data=False):
        import ray

        free = ray._private.state.available_resources_per_node()
        nodes = [
            {
                "name": node["NodeName"],
                "host": node["NodeManagerAddress"],
                "alive": node["Alive"],
                "total": _shown(node["Resources"]),
                "free": _shown(free.get(node["NodeID"], {})),
            }
            for node in ray.nodes()
        ]
        return {"address": address, "nodes": sorted(nodes, key=lambda node: node["name"]), "waiting": _waiting()}


def _shown(resources: dict[str, float]) -> dict[str, float]:
    return {kind: resources[kind] for kind in SHOWN if kind in resources}


def _waiting() -> list[dict[str, Any]]:
    import ray
    from ray.autoscaler.v2.sdk import get_cluster_resource_state

    state = get_cluster_resource_state(ray._private.worker.global_worker.gcs_client)  # type: ignore[attr-defined]  # Ray leaves it untyped
    return [
        {"wants": dict(demand.request.resources_bundle), "count": demand.count}
        for demand in state.pending_resource_requests
    ]
