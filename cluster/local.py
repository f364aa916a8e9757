"""A trial cluster: several Ray nodes on this machine, to try what a real cluster does to a job, lost nodes included."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.auth import MODE, TOKEN, TOKEN_PATH, make_token
from flowtts_core.errors import ConfigError, FlowTTSError

RECORD, TOKEN_FILE, RAY_FOLDER = "cluster.json", "token", "ray"
MARK = "FLOWTTS_TRIAL_NODE"  # in the environment of each of a node's processes: `folder:number`
HEAD = 1
MOST_NODES = 100
OBJECT_STORE_BYTES = 128 << 20
START_SECONDS = 180
STOP_SECONDS = 5.0
AT_ONCE = max(1, (os.cpu_count() or 2) // 2)  # nodes that start together: each takes 5 s of CPU, and Ray gives it 30 s
TRIES = 3
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_health_check_period_ms": "1000",  # a dead node is noticed after 3 s; by Ray's own settings after some 12
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}


@dataclass(frozen=True)
class Record:
    """How the cluster is reached: `address` on this machine, `client` by Ray Client, `dashboard` for jobs; its token's file."""

    address: str
    client: str
    dashboard: str
    token: str


def default_folder() -> Path:
    """Return where a user's trial cluster lives; short, since Ray puts sockets into it, whose paths may have 107 characters."""
    return Path(tempfile.gettempdir()) / f"flowtts-cluster-{os.getuid()}"


def read_record(folder: Path) -> Record | None:
    """Return the cluster of a folder, or None where none is up."""
    try:
        return Record(**json.loads((folder / RECORD).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def token_of(address: str) -> Path | None:
    """Return the token file of the user's own trial cluster, if that is what the address names."""
    record = read_record(default_folder())
    if record is not None and address.rstrip("/") in (record.address, record.client, record.dashboard):
        return Path(record.token)
    return None


class LocalCluster:
    """A Ray cluster of processes on this machine, on loopback addresses of its own; stays up until `stop`.

    Nodes are numbered from 1, the head. As a context manager it is stopped at the end.

    Args:
        folder: holds its record, token and logs; one folder, one cluster.
        cpus: logical ones of each node.
        dashboard: takes jobs; without it the head is up in half the time.
    """

    def __init__(self, folder: Path, cpus: int = 1, dashboard: bool = True) -> None:
        self.folder = folder.absolute()
        self.cpus = cpus
        self.dashboard = dashboard

    def start(self, nodes: int) -> Record:
        """Start the head and then the others, at the same time.

        Raises:
            ConfigError: on another system than Linux, for a number of nodes out of range, or where one is up already.
            FlowTTSError: when a node does not start; what was started is stopped.
        """
        if sys.platform != "linux":  # Ray itself refuses elsewhere, and 127.0.0.2 is no address there
            raise ConfigError("a trial cluster needs Linux", "leave out --address: one private node works everywhere")
        if not 1 <= nodes <= MOST_NODES or self.cpus < 0:
            raise ConfigError(f"{nodes} nodes of {self.cpus} CPUs: use 1 to {MOST_NODES} nodes", "--local 3")
        if self.processes():
            record = read_record(self.folder)
            where = f" at {record.address}" if record else ""
            raise ConfigError(f"a trial cluster is up already{where}", "flowtts cluster down")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.folder.lstat().st_uid != os.getuid():  # somebody else's folder under a name that all can guess
            raise ConfigError(f"{self.folder} belongs to another user", "set TMPDIR to a folder of your own")
        self._clear()
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.folder.chmod(0o700)
        make_token(self.folder / TOKEN_FILE)
        try:
            record = self._start_head()
            (self.folder / RECORD).write_text(json.dumps(asdict(record), indent=1))
            with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
                list(pool.map(self._join, range(HEAD + 1, nodes + 1)))
        except BaseException:
            self.stop()
            raise
        return record

    def add_node(self) -> int:
        """Start one more node; returns its number."""
        number = max(self.processes(), default=0) + 1
        self._join(number)
        return number

    def kill_node(self, number: int) -> None:
        """End every process of a node at once (SIGKILL), as a power cut would."""
        _kill(self.processes().get(number, []))

    def stop(self) -> int:
        """End every process and remove the folder; returns how many nodes there were."""
        found = self.processes()
        _terminate([process for node in found.values() for process in node])
        while left := self.processes():  # what was being started meanwhile
            _kill([process for node in left.values() for process in node])
        self._clear()
        return len(found)

    def processes(self) -> dict[int, list[Any]]:
        """Return the processes (psutil's) of each node that has any, by its number.

        Ray's workers and agents overwrite their environment with their title, so that they are found by their parents.
        """
        ps = psutil()
        nodes: dict[int, list[Any]] = {}
        for process in ps.process_iter():
            with suppress(ps.Error):
                folder, _, number = process.environ().get(MARK, "").rpartition(":")
                if folder == str(self.folder):
                    nodes.setdefault(int(number), []).append(process)
        for found in nodes.values():
            known = {process.pid for process in found}
            for process in list(found):
                with suppress(ps.Error):
                    below = [child for child in process.children(recursive=True) if child.pid not in known]
                    known |= {child.pid for child in below}
                    found += below
        return nodes

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _start_head(self) -> Record:
        host = _host(HEAD)
        ports = _free_ports(host, 2)
        dashboard, client = (f"{host}:{port}" for port in ports)
        self._ray_start(
            HEAD,
            "--head",
            "--port=0",
            f"--include-dashboard={str(self.dashboard).lower()}",
            f"--dashboard-host={host}",
            f"--dashboard-port={ports[0]}",
            f"--ray-client-server-port={ports[1]}",
        )
        address = (self.folder / RAY_FOLDER / "ray_current_cluster").read_text().strip()
        return Record(address, f"ray://{client}", f"http://{dashboard}", str(self.folder / TOKEN_FILE))

    def _join(self, number: int) -> None:
        record = read_record(self.folder)
        if record is None:
            raise ConfigError("no trial cluster is up", "flowtts cluster up --local 3")
        self._ray_start(number, f"--address={record.address}")

    def _ray_start(self, number: int, *options: str) -> None:
        host = _host(number)
        agent = next(iter(_free_ports(host, 1)))
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", *options),
            f"--node-ip-address={host}",
            f"--node-name=node-{number}",
            f"--num-cpus={self.cpus}",
            f"--temp-dir={self.folder / RAY_FOLDER}",
            f"--object-store-memory={OBJECT_STORE_BYTES}",
            f"--dashboard-agent-listen-port={agent}",
            "--min-worker-port=0",  # any free one: the usual range would be tried by all nodes at once
            "--max-worker-port=0",
            "--disable-usage-stats",
        ]
        log = self.folder / f"node-{number}.log"
        for _ in range(TRIES):
            if _succeeds(command, self._environment(number), log):
                return
            self.kill_node(number)
        lines = log.read_text(errors="replace").strip().splitlines()
        why = lines[-1].strip() if lines else f"nothing after {START_SECONDS} s"
        raise FlowTTSError(f"node {number} of the trial cluster did not start: {why}", "is the machine overloaded?")

    def _environment(self, number: int) -> dict[str, str]:
        own = {
            MODE: "token",
            TOKEN_PATH: str(self.folder / TOKEN_FILE),
            MARK: f"{self.folder}:{number}",
            "PATH": os.pathsep.join(
                [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
            ),  # jobs say `python`
        }
        return {k: v for k, v in os.environ.items() if k not in (TOKEN, "RAY_ADDRESS")} | _ENVIRONMENT | own

    def _clear(self) -> None:
        """Remove what a cluster left; the folder too, if it holds nothing else."""
        for file in (RECORD, TOKEN_FILE, *(path.name for path in self.folder.glob("node-*.log"))):
            (self.folder / file).unlink(missing_ok=True)
        shutil.rmtree(self.folder / RAY_FOLDER, ignore_errors=True)
        with suppress(OSError):
            self.folder.rmdir()


def _succeeds(command: list[str], environment: dict[str, str], log: Path) -> bool:
    """Run a command in a session of its own, which Ctrl-C and a terminal's end do not reach; return whether it ended with 0."""
    with log.open("wb") as output:
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                timeout=START_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0


def _host(number: int) -> str:
    """Return a node's loopback address: Ray tells nodes apart by address, and takes 127.0.0.1 for the machine's outer one."""
    return f"127.0.0.{number + 1}"


def _free_ports(host: str, count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((host, 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def psutil() -> Any:
    """Return the module psutil, which Ray brings along."""
    from importlib import import_module

    import_module("ray")
    return import_module("psutil")


def _terminate(processes: list[Any]) -> None:
    ps = psutil()
    for process in processes:
        with suppress(ps.Error):
            process.terminate()
    _, left = ps.wait_procs(processes, timeout=STOP_SECONDS)
    _kill(left)


def _kill(processes: list[Any]) -> None:
    ps = psutil()
    for process in processes:
        with suppress(ps.Error):
            process.kill()
    ps.wait_procs(processes, timeout=STOP_SECONDS)
