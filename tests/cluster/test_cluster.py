"""The cluster: what an address means, who is let in, a trial cluster that loses nodes, and commands sent as jobs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import auth, local, pool
from cluster import session as cluster_session
from cluster.driver import sized
from cluster.local import LocalCluster, Record
from cluster.pool import Patience, Stage, StageWork, run_stages, start_early, stop_early
from cluster.resources import PROFILES, Resources, profile_named
from cluster.session import SessionInfo, session
from cluster.submission import _words_there, refuse_local_output
from flowtts_core.errors import ConfigError, FlowTTSError
from jobs import cli, synthesize

ROOT = Path(__file__).resolve().parents[2]
linux = pytest.mark.skipif(sys.platform != "linux", reason="a trial cluster needs Linux")


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of a trial cluster, by a path short enough for Ray's sockets, which commands take for the user's own."""
    tmp_path_factory.getbasetemp()  # made when first asked for, and not to be in a folder that goes with the test
    with tempfile.TemporaryDirectory(prefix="ft") as place:
        monkeypatch.setenv("TMPDIR", place)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield local.default_folder()


@pytest.fixture
def no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home without a token, and nothing of tokens in the environment."""
    import ray  # noqa: F401  # it reads the mode once, and later tests of this process need the one of conftest.py

    for name in (auth.MODE, auth.TOKEN, auth.TOKEN_PATH):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def flowtts(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobs.cli", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        capture_output=True,
        text=True,
        timeout=280,
    )


def test_a_token_is_made_once_and_for_its_owner_alone(no_token: Path) -> None:
    with auth.authentication(None):
        path = no_token / ".ray" / "auth_token"
        first = path.read_text()
        assert path.stat().st_mode & 0o777 == 0o600
        assert len(first) >= 32
    with auth.authentication(None):
        assert path.read_text() == first


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_a_token_that_is_not_there_is_told(
    no_token: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    path = no_token / "token"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv(auth.TOKEN_PATH, str(path))
    with pytest.raises(ConfigError, match=r"RAY_AUTH_TOKEN_PATH=.*(No such file|empty)") as told, session("auto"):
        pass
    assert "chmod 600" in told.value.remedy


def test_a_mode_without_a_token_is_told(no_token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(auth.MODE, "token")
    with pytest.raises(ConfigError, match="no token on this machine"), session("127.0.0.1:1"):
        pass


def test_a_second_token_in_a_process_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(auth, "_tokens", [])
    for name in ("one", "other"):
        auth.make_token(tmp_path / name)
        with auth.authentication("127.0.0.1:1", tmp_path / name):
            assert auth.token_changed() == (name == "other")
    with auth.authentication("127.0.0.1:1", tmp_path / "one"):
        assert not auth.token_changed()


def test_the_environment_is_put_back(no_token: Path, tmp_path: Path) -> None:
    auth.make_token(tmp_path / "other")
    before = dict(os.environ)
    with auth.authentication("127.0.0.1:1", tmp_path / "other"):
        assert os.environ[auth.TOKEN_PATH] == str(tmp_path / "other")
    assert dict(os.environ) == before


def test_an_address_where_nothing_answers_is_told_at_once(no_token: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        began = time.monotonic()
        for form in (address, f"ray://{address}"):
            with pytest.raises(ConfigError, match="nothing answers there"), session(form, data=False):
                pass
        assert time.monotonic() - began < 15


def test_ray_data_is_refused_through_ray_client() -> None:
    with (
        pytest.raises(ConfigError, match="Ray Data does not work through Ray Client") as told,
        session("ray://head:10001"),
    ):
        pass
    assert "http://HOST:8265" in told.value.remedy


def test_a_dashboard_is_no_session() -> None:
    with pytest.raises(ConfigError, match="takes jobs"), session("http://127.0.0.1:8265"):
        pass


def test_workers_are_counted_node_by_node() -> None:
    nodes = [{"CPU": 3, "GPU": 1, "memory": 8 << 30}, {"CPU": 3, "memory": 5 << 30}, {}]
    assert Resources().room(nodes) == 6
    assert Resources(memory=4 << 30).room(nodes) == 3  # none spans two nodes
    assert Resources(gpus=0.25).room(nodes) == 3  # its cores are fewer than its GPU's quarters
    assert Resources(cpus=1.0, gpus=0.25, memory=1 << 30).options() == {
        "num_cpus": 1.0,
        "num_gpus": 0.25,
        "memory": 1 << 30,
    }
    assert Resources(cpus=0).options() == {"num_cpus": 0}


def in_a_process(code: str, address: str) -> str:
    """What a program of its own prints: Ray reads a token once in a process."""
    script = f"import sys\nfrom cluster.session import session\nfrom tests.cluster.test_cluster import where\n{code}"
    command = [sys.executable, "-c", script, address]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120).stdout.strip()


def no_work() -> StageWork:
    raise AssertionError("only counted")


def test_a_pool_starts_with_what_there_is_room_for_and_grows_where_machines_may_come() -> None:
    nodes = ({"CPU": 2.0, "memory": 8.0 * 2**30},)
    alone, shared = SessionInfo(2, 0, True, nodes), SessionInfo(2, 0, False, nodes)
    speak = Stage("speak", no_work, (4, 64), takes=Resources())
    assert sized(speak, alone, tasks=100) == (2, 2)
    assert sized(speak, shared, tasks=100) == (2, 64)
    assert sized(speak, shared, tasks=1) == (1, 1)
    free = Stage("front", no_work, (1, 16))
    assert sized(free, shared, tasks=100) == (1, 2)  # what takes no core in Ray's books still needs one
    large = Stage("speak", no_work, (1, 1), takes=Resources(memory=9 << 30))
    with pytest.raises(ConfigError, match=r"takes 9 GiB beside a core, no node has room: .* 8\.0 GiB"):
        sized(large, alone, tasks=1)


@pytest.mark.parametrize(("line", "device", "takes"), [
    ([], "cpu", Resources()),
    (["--profile", "cpu"], "cpu", Resources(memory=2 << 30)),
    (["--profile", "gpu-shared"], "cuda", Resources(gpus=0.25, memory=4 << 30)),
    (["--profile", "gpu-shared", "--gpus-per-worker", "0.5", "--worker-memory", "1"], "cuda", Resources(1, 0.5, 1 << 30)),
    (["--profile", "gpu", "--device", "cpu"], "cpu", Resources(memory=6 << 30)),
    (["--device", "cuda"], "cuda", Resources(gpus=1.0)),
])  # fmt: skip
def test_a_profile_says_what_a_worker_takes(
    line: list[str], device: str, takes: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def noted(*given: Any, **named: Any) -> None:
        seen.append((named["device"], given[5].running.takes))
        raise ConfigError("seen")

    monkeypatch.setattr(synthesize, "synthesize", noted)
    assert cli.main(["synthesize", "x.txt", "-o", "out", *line]) == 2
    assert seen == [(device, takes)]


def test_an_unknown_profile_is_refused() -> None:
    assert all(profile_named(name) for name in PROFILES)
    with pytest.raises(ConfigError, match="there is no such profile"):
        profile_named("mainframe")


def test_a_job_gets_the_same_words_but_for_the_address() -> None:
    words = ["synthesize", "s3://b/book.epub", "-o", "s3://b/out", "--address", "http://head:8265", "--workers", "2"]
    assert _words_there(words, "http://head:8265") == [*words[:5], "auto", *words[6:]]
    assert _words_there(["train", "--address=http://head:8265"], "http://head:8265") == ["train", "--address=auto"]


def test_paths_of_this_machine_are_refused_for_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("book.epub").touch()
    with pytest.raises(ConfigError, match="book.epub: a path on this machine"):
        _words_there(["synthesize", "book.epub"], "http://head:8265")
    with pytest.raises(ConfigError, match="-o out: the job runs on the cluster"):
        refuse_local_output(Namespace(output=Path("out")))
    refuse_local_output(Namespace(output="s3://bucket/out"))
    refuse_local_output(Namespace(output=tmp_path))
    refuse_local_output(Namespace())


def test_the_token_of_the_own_trial_cluster_is_found_by_its_address(folder: Path) -> None:
    assert local.token_of("127.0.0.2:6379") is None
    folder.mkdir()
    record = Record("127.0.0.2:6379", "ray://127.0.0.2:1", "http://127.0.0.2:2", "there")
    (folder / local.RECORD).write_text(json.dumps(vars(record)))
    for address in (record.address, record.client, record.dashboard, f"{record.dashboard}/"):
        assert local.token_of(address) == Path("there")
    assert local.token_of("127.0.0.2:6380") is None


def test_without_a_trial_cluster_the_commands_say_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cluster", "down"]) == 0
    assert "no trial cluster was up" in capsys.readouterr().out
    assert cli.main(["cluster", "status"]) == 2
    assert cli.main(["cluster", "kill", "2"]) == 2
    assert "flowtts cluster up" in capsys.readouterr().err
    assert not folder.exists()


@linux
@pytest.mark.parametrize("nodes", [0, -1, 101])
def test_a_number_of_nodes_out_of_range_is_refused(folder: Path, nodes: int) -> None:
    with pytest.raises(ConfigError, match="use 1 to 100 nodes"):
        LocalCluster(folder).start(nodes)
    assert not folder.exists()


def where(count: int) -> set[str]:
    """The nodes that so many tasks ran on."""
    import ray

    @ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
    def host() -> str:
        time.sleep(0.5)
        return str(ray.util.get_node_ip_address())

    return set(ray.get([host.remote() for _ in range(count)]))


def _make_slow() -> StageWork:
    def slow(task: Any, table: Any) -> tuple[Any, Any]:
        try:
            Path(task["mark"]).touch(exist_ok=False)
        except FileExistsError:  # only whoever comes first is quick
            time.sleep(600)
        return task, table

    return slow


def _make_refusing() -> StageWork:
    def refuse(task: Any, table: Any) -> tuple[Any, Any]:
        raise ConfigError("not with me", "leave it")

    return refuse


def test_workers_of_a_cluster_are_told_which_object_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_session, "refusal", lambda address: "")
    assert "runtime_env" not in cluster_session._options("10.0.0.1:6379", None)
    monkeypatch.setitem(cluster_session.chosen_store, "AWS_PROFILE", "speech")
    assert cluster_session._options("10.0.0.1:6379", None)["runtime_env"] == {"env_vars": {"AWS_PROFILE": "speech"}}


def test_a_job_ends_by_an_error_while_others_are_at_work(tmp_path: Path) -> None:
    """A task that is done just as it is cancelled crashes Ray's core; the job must tell its own error all the same."""
    stages = [Stage("slow", _make_slow, (2, 2)), Stage("refusing", _make_refusing)]
    tasks = [{"mark": str(tmp_path / "first")}] * 4
    with pytest.raises(ConfigError, match="not with me"):
        list(run_stages(stages, tasks, address=None, cpus=1))


class _CrashOnce:
    """Work that ends Ray's driver by the signal of a crash of its core, once."""

    def __init__(self, folder: Path) -> None:
        self.mark = folder / "crashed"

    def __call__(self) -> StageWork:
        def work(task: Any, table: Any) -> tuple[Any, Any]:
            if task["n"] == 3 and not self.mark.exists():
                self.mark.touch()
                os.kill(task["driver"], signal.SIGABRT)
            return task, table

        return work


@linux
@pytest.mark.slow
def test_a_crash_of_rays_core_costs_a_new_start_and_not_the_job(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As that of ray-project/ray#54527 and #54798 would be; what Ray prints of it stays out of our own output."""
    psutil = local.psutil()

    tasks: list[dict[str, Any]] = [{"n": n} for n in range(8)]
    told: list[str] = []
    start_early(1)
    try:
        [driver] = [p for p in psutil.Process().children() if "cluster.driver" in " ".join(p.cmdline())]
        for task in tasks:
            task["driver"] = driver.pid
        stage = Stage("work", _CrashOnce(tmp_path), takes=Resources())
        done = list(run_stages([stage], tasks, address=None, cpus=1, patience=Patience(told=told.append)))
    finally:
        stop_early()
    assert sorted(task["n"] for task in done) == list(range(8))
    assert [line.partition(":")[2] for line in told] == [" Ray's driver crashed"]
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_a_job_that_nothing_moves_in_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "first").touch()
    monkeypatch.setattr(pool, "STRIKES", 1)
    stage = Stage("slow", _make_slow, takes=Resources())
    with pytest.raises(FlowTTSError, match="failed 1 times without progress: no task was finished"):
        list(run_stages([stage], [{"mark": str(tmp_path / "first")}], address=None, cpus=1, patience=Patience(0.5)))


@linux
def test_ray_ends_with_the_process_whose_job_it_does() -> None:
    psutil = local.psutil()

    script = "from cluster.pool import start_early; start_early(1); import time; time.sleep(600)"
    job = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    started: list[Any] = []
    until = time.monotonic() + 60
    while not any("raylet" in name for name in map(_name, started)):
        assert time.monotonic() < until
        time.sleep(0.2)
        started = psutil.Process(job.pid).children(recursive=True)
    job.kill()
    job.wait()
    _, left = psutil.wait_procs(started, timeout=30)
    assert not left


def _name(process: Any) -> str:
    with contextlib.suppress(Exception):
        return str(process.name())
    return ""


@linux
@pytest.mark.slow
def test_a_trial_cluster_is_joined_and_leaves_nothing(folder: Path, no_token: Path, tmp_path: Path) -> None:
    with LocalCluster(folder, cpus=2, dashboard=False) as cluster:
        record = cluster.start(1)
        assert Path(record.token).stat().st_mode & 0o777 == 0o600
        joined = in_a_process(
            "with session(sys.argv[1]) as info: print(info.cpus, info.embedded, *where(2))", record.address
        )
        assert joined == "2 False 127.0.0.2"
        auth.make_token(tmp_path / "wrong")
        for mode, why in (("disabled", "asks for a token"), ("token", "its token is another one")):
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(auth.MODE, mode)
                patch.setenv(auth.TOKEN_PATH, str(tmp_path / "wrong"))
                told = in_a_process(
                    "import cluster.session\n"
                    "cluster.session.token_of = lambda address: None\n"
                    "from flowtts_core.errors import ConfigError\n"
                    "try:\n"
                    "    with session(sys.argv[1]): pass\n"
                    "except ConfigError as error: print(error)",
                    record.address,
                )
            assert why in told
        with pytest.raises(ConfigError, match="is up already"):
            cluster.start(1)
        processes = [process for node in cluster.processes().values() for process in node]
        assert len(processes) >= 3
    assert not any(process.is_running() for process in processes)
    assert not folder.exists()


@pytest.mark.slow
@linux
def test_a_trial_cluster_loses_and_gains_nodes(folder: Path) -> None:
    with LocalCluster(folder, dashboard=False) as cluster:
        record = cluster.start(3)
        assert sorted(cluster.processes()) == [1, 2, 3]
        with session(record.address) as info:
            assert info.cpus == 3
            assert where(9) == {"127.0.0.2", "127.0.0.3", "127.0.0.4"}
            cluster.kill_node(3)
            assert sorted(cluster.processes()) == [1, 2]
            import ray

            until = time.monotonic() + 60
            while sum(node["Alive"] for node in ray.nodes()) > 2:
                assert time.monotonic() < until, "Ray has not noticed the death of a node"
                time.sleep(0.2)
            assert cluster.add_node() == 3
            assert where(9) == {"127.0.0.2", "127.0.0.3", "127.0.0.4"}


@pytest.mark.slow
@linux
def test_a_trial_cluster_takes_jobs_and_outlives_its_shell(folder: Path, tmp_path: Path) -> None:
    """`up` in a shell that ends; then a job sent to it: its output, its exit code, and its end by Ctrl-C."""
    text = tmp_path / "text.txt"
    text.write_text("Good evening. " * 3)
    try:
        up = flowtts("cluster", "up", "--local", "2", "--json")
        assert up.returncode == 0, up.stderr
        record = Record(**json.loads(up.stdout))
        status = json.loads(flowtts("cluster", "status", "--json").stdout)
        assert [(node["alive"], node["total"]["CPU"]) for node in status["nodes"]] == [(True, 1), (True, 1)]
        assert status["free"]["CPU"] == 2
        words = ("synthesize", str(text), "--no-progress", "--workers", "1", "--address", record.dashboard)
        done = flowtts(*words, "-o", str(tmp_path / "out"))
        assert done.returncode == 0, done.stdout + done.stderr
        assert list((tmp_path / "out").glob("*.m4b"))
        failed = flowtts(*words, "-o", str(tmp_path / "out2"), "--voice", "s3-less-voice")
        assert failed.returncode == 1
        assert "remedy" in failed.stdout
        text.write_text("It rains. " * 2000)
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", *words, "-o", str(tmp_path / "long")],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(
                signal.SIGINT, signal.SIG_DFL
            ),  # what runs in a shell's background ignores it
        )
        assert process.stderr is not None
        assert process.stderr.readline().startswith("job raysubmit_")
        time.sleep(15)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "STOPPED" in told
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert "ended 2 nodes" in flowtts("cluster", "down").stdout
    assert not folder.exists()
