"""Ray's token: the secret that every node and driver of a cluster presents, where it lies, and what a refusal means."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flowtts_core.errors import ConfigError

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
DEFAULT_PATH = Path("~/.ray/auth_token")  # where Ray looks by itself
REMEDY = f"put the cluster's token into a file that only you may read (chmod 600), then export {MODE}=token {TOKEN_PATH}=FILE"
PROBE_SECONDS = 10.0


def make_token(path: Path) -> None:
    """Write a new random token that only this user may read; keep one that is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))


_tokens: list[str] = []  # used in this process, in order


@contextmanager
def authentication(address: str | None, token: Path | None = None) -> Iterator[None]:
    """Let the Ray that is started or joined within the block use the right token; put the environment back at the end.

    Ray reads mode and token once in a process: a second cluster with another token needs another process.

    Args:
        address: of a cluster; None for a Ray of our own, whose token is made where there is none.
        token: a file that goes before what the environment says.

    Raises:
        ConfigError: when the environment asks for a token that is not there.
    """
    before = {name: os.environ.get(name) for name in (MODE, TOKEN, TOKEN_PATH)}
    try:
        if token is not None:
            os.environ.pop(TOKEN, None)  # Ray would take it before the file
            os.environ |= {MODE: "token", TOKEN_PATH: str(token)}
        _check(address)
        _tokens.append(_token_in_force())
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def token_changed() -> bool:
    """Whether this process used another token before the last one: Ray still sends the first."""
    return len(_tokens) > 1 and _tokens[-1] != _tokens[0]


def _token_in_force() -> str:
    if os.environ.get(MODE, "token").lower() != "token":
        return ""
    path = Path(os.environ.get(TOKEN_PATH) or DEFAULT_PATH).expanduser()
    try:
        return os.environ.get(TOKEN) or path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _check(address: str | None) -> None:
    if os.environ.get(MODE, "token").lower() != "token" or os.environ.get(TOKEN):
        return
    if path := os.environ.get(TOKEN_PATH):
        try:
            problem = "" if Path(path).read_text().strip() else "the file is empty"
        except (OSError, UnicodeDecodeError) as error:
            problem = getattr(error, "strerror", None) or "it is no text"
        if problem:
            raise ConfigError(f"{TOKEN_PATH}={path}: {problem}", REMEDY)
    elif address is None:  # Ray would make it too, but for everybody to read
        make_token(DEFAULT_PATH.expanduser())
    elif MODE in os.environ and not DEFAULT_PATH.expanduser().exists():
        raise ConfigError(f"Ray at {address}: {MODE}=token, but there is no token on this machine", REMEDY)


def refusal(address: str) -> str:
    """Return why the cluster at `host:port` or `ray://host:port` would not let us in, or "" where it seems that it would.

    Ray itself tries for 20 to 30 seconds, and then says only that it could not connect.
    """
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):  # this plain question would be misunderstood
        return ""
    import grpc

    method = "RayletDriver/ClusterInfo" if address.startswith("ray://") else "NodeInfoGcsService/GetClusterId"
    with grpc.insecure_channel(address.removeprefix("ray://")) as channel:
        ask: Any = channel.unary_unary(f"/ray.rpc.{method}")
        try:
            ask(b"", timeout=PROBE_SECONDS, metadata=_metadata())
        except grpc.RpcError as error:
            code = error.code()  # type: ignore[attr-defined]  # gRPC's stub knows only its base class
            if code == grpc.StatusCode.UNAUTHENTICATED:
                return "its token is another one" if _metadata() else "it asks for a token"
            if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                return "nothing answers there"
    return ""


def _metadata() -> tuple[tuple[str, str], ...]:
    token = os.environ.get(TOKEN, "")
    if not token:
        path = Path(os.environ.get(TOKEN_PATH) or DEFAULT_PATH.expanduser())
        token = path.read_text().strip() if path.exists() else ""
    wanted = os.environ.get(MODE, "token").lower() == "token"
    return (("authorization", f"Bearer {token}"),) if token and wanted else ()
