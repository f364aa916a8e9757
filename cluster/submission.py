"""Job submission: the same command on a cluster's head, by its dashboard's address; logs come here, and so does the exit code."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster.auth import REMEDY, authentication
from cluster.local import token_of
from flowtts_core.errors import ConfigError, FlowTTSError

PACKAGES = ("flowtts_core", "cluster", "jobs", "deploy")
STOP_SECONDS = 30.0
POLL_SECONDS = 0.5
SILENT_SECONDS = 120.0
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}


def submit(words: Sequence[str], address: str) -> int:
    """Run `flowtts WORDS` as a Ray job with the code of this machine; returns its exit code.

    Its output is printed as it comes. An interrupt stops the job.

    Args:
        words: the command's, with `--address ADDRESS`, in whose place the job gets `--address auto`.
        address: `http://head:8265`.

    Raises:
        ConfigError: where the dashboard cannot be reached or refuses us, or a word names a file of this machine.
        FlowTTSError: when the job's end says no exit code: its node was lost, say.
    """
    entrypoint = shlex.join(["python", "-m", "jobs.cli", *_words_there(words, address)])
    with authentication(address, token_of(address)):
        logging.disable(logging.INFO)  # Ray tells of each package that it sends
        client = _client(address)
        runtime = {"py_modules": [str(_folder() / name) for name in PACKAGES], "env_vars": _ENVIRONMENT}
        try:
            job = client.submit_job(entrypoint=entrypoint, runtime_env=runtime)
        except RuntimeError as error:
            raise ConfigError(f"Ray at {address} took no job: {error}", "ask whoever runs the cluster") from error
        print(f"job {job} at {address}", file=sys.stderr)
        try:
            asyncio.run(_follow(client, job))
            return _exit_code(client, job)
        except KeyboardInterrupt:
            _stop(client, job)
            raise


def _folder() -> Path:
    return Path(__file__).resolve().parents[1]


def _words_there(words: Sequence[str], address: str) -> list[str]:
    """Return the words for the cluster; refuse paths that would mean another file there, or none."""
    there = ["auto" if word == address else word.replace(f"={address}", "=auto") for word in words]
    named = [word for word in there if not word.startswith("-")]
    for word in named[1:]:  # the first is the command
        if not os.path.isabs(word) and os.path.exists(word):
            raise ConfigError(
                f"{word}: a path on this machine, but the job runs on the cluster",
                "give s3://..., or the whole path (/...) in a folder that all machines of the cluster share",
            )
    return there


def refuse_local_output(args: Namespace) -> None:
    """Refuse an output folder that would lie in a job's own folder, which goes with the job."""
    output = getattr(args, "output", None)
    if output is not None and "://" not in str(output) and not os.path.isabs(str(output)):
        raise ConfigError(
            f"-o {output}: the job runs on the cluster, where this folder is lost",
            "give s3://..., or the whole path (/...) of a folder that all machines of the cluster share",
        )


def _client(address: str) -> Any:
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address.rstrip("/"))
    except Exception as error:  # of several classes, by what is wrong
        refused = "401" in str(error) or "403" in str(error) or "auth" in str(error).lower()
        remedy = REMEDY if refused else "check --address: http://HEAD:8265, the port of Ray's dashboard"
        first = next(iter(str(error).strip().splitlines()), "")
        raise ConfigError(f"cannot submit a job to {address}: {first}", remedy) from error


async def _follow(client: Any, job: str) -> None:
    """Print the job's output until it ends; a connection that breaks does not end it."""
    shown, silent_since = 0, time.monotonic()
    while True:
        try:
            seen = 0
            async for text in client.tail_job_logs(job):  # from the beginning, also after a break
                fresh = text[max(0, shown - seen) :]
                seen += len(text)
                shown = max(shown, seen)
                print(fresh, end="", flush=True)
        except Exception:
            await asyncio.sleep(POLL_SECONDS)
        try:
            if client.get_job_status(job).is_terminal():
                return
            silent_since = time.monotonic()
        except Exception as error:
            if time.monotonic() - silent_since > SILENT_SECONDS:
                raise FlowTTSError(
                    f"job {job}: its cluster has not answered for {SILENT_SECONDS:.0f} s",
                    "the job may have gone on; the same command goes on where it was",
                ) from error


def _exit_code(client: Any, job: str) -> int:
    details = client.get_job_info(job)
    if details.driver_exit_code is None:
        raise FlowTTSError(f"job {job} ended without an exit code: {details.message}", "run the same command again")
    return int(details.driver_exit_code)


def _stop(client: Any, job: str) -> None:
    with suppress(Exception):
        client.stop_job(job)
        until = time.monotonic() + STOP_SECONDS
        while time.monotonic() < until and not client.get_job_status(job).is_terminal():
            time.sleep(POLL_SECONDS)
        print(f"job {job}: {client.get_job_status(job).value}", file=sys.stderr)
