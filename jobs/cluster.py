"""`flowtts cluster`: a trial cluster of several nodes on this machine, and what any cluster has and does."""

from __future__ import annotations

import argparse
import json
from typing import Any

EXAMPLES = """\
examples:
  flowtts cluster up --local 3                                three Ray nodes on this machine, each of one logical CPU
  flowtts synthesize book.epub -o out/ --address HOST:PORT    a job on them: `up` prints the address
  flowtts cluster kill 2                                      what a power cut does
  flowtts cluster status                                      nodes, CPUs and GPUs, and what is free
  flowtts cluster down                                        ends it and removes its files

It stays up when the shell ends. Who joins it needs its token; commands of the same user find it by themselves."""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "cluster",
        help="a trial cluster on this machine; the state of any cluster",
        description="Start, look at and end a Ray cluster of several nodes on this machine, to try jobs and lost nodes.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    starts = actions.add_parser("up", help="start a trial cluster")
    starts.add_argument("--local", type=int, default=3, metavar="N", help="so many nodes on this machine (3)")
    starts.add_argument("--cpus-per-node", type=int, default=1, metavar="N", help="logical CPUs of each (1)")
    starts.add_argument("--json", action="store_true", help="print the addresses as JSON")
    starts.set_defaults(run=run, act=up)
    tells = actions.add_parser("status", help="nodes, CPUs and GPUs, and what is free")
    tells.add_argument("--address", help="of a Ray cluster (default: the trial cluster)")
    tells.add_argument("--json", action="store_true", help="print it as JSON")
    tells.set_defaults(run=run, act=status)
    kills = actions.add_parser("kill", help="end a node of the trial cluster as a power cut would")
    kills.add_argument("node", type=int, help="its number: 1 is the head")
    kills.set_defaults(run=run, act=kill)
    adds = actions.add_parser("add", help="start one more node of the trial cluster")
    adds.add_argument("--cpus-per-node", type=int, default=1, metavar="N", help="its logical CPUs (1)")
    adds.set_defaults(run=run, act=add)
    actions.add_parser("down", help="end the trial cluster").set_defaults(run=run, act=down)


def run(args: argparse.Namespace) -> int:
    return int(args.act(args))


def up(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from cluster.local import LocalCluster, default_folder

    record = LocalCluster(default_folder(), args.cpus_per_node).start(args.local)
    if args.json:
        print(json.dumps(asdict(record)))
        return 0
    print(f"{args.local} nodes of {args.cpus_per_node} CPU\n")
    print(f"  --address {record.address:<32} a job from this machine")
    print(f"  --address {record.dashboard:<32} the same, sent to the cluster: s3:// or whole paths (/...) only")
    print(f"  --address {record.client:<32} by Ray Client, for training alone")
    print(f"\nother programs: export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={record.token}")
    print("flowtts cluster down ends it")
    return 0


def status(args: argparse.Namespace) -> int:
    from cluster.local import default_folder, read_record
    from cluster.status import read_status
    from flowtts_core.errors import ConfigError

    record = read_record(default_folder())
    address = args.address or (record.address if record else None)
    if address is None:
        raise ConfigError("no trial cluster is up", "flowtts cluster up --local 3, or give --address")
    found = read_status(address)
    if args.json:
        print(json.dumps(found))
        return 0
    for node in found["nodes"]:
        print(
            f"{node['name']:<20} {node['host']:<16} {'alive  ' + _amounts(node['total']) if node['alive'] else 'lost'}"
        )
    print(f"free: {_amounts(found['free']) or 'nothing'}")
    return 0


def _amounts(resources: dict[str, float]) -> str:
    return ", ".join(f"{amount:g} {kind}" for kind, amount in resources.items())


def kill(args: argparse.Namespace) -> int:
    from cluster.local import LocalCluster, default_folder
    from flowtts_core.errors import ConfigError

    cluster = LocalCluster(default_folder())
    if args.node not in cluster.processes():
        raise ConfigError(f"the trial cluster has no node {args.node}", "flowtts cluster status")
    cluster.kill_node(args.node)
    print(f"node {args.node} is dead; Ray notices after some seconds")
    return 0


def add(args: argparse.Namespace) -> int:
    from cluster.local import LocalCluster, default_folder

    print(f"node {LocalCluster(default_folder(), args.cpus_per_node).add_node()}")
    return 0


def down(args: argparse.Namespace) -> int:
    from cluster.local import LocalCluster, default_folder

    nodes = LocalCluster(default_folder()).stop()
    print(f"ended {nodes} nodes" if nodes else "no trial cluster was up")
    return 0
