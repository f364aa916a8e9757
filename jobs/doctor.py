"""`flowtts doctor`: says what this machine has, what is missing, and the command that installs it."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from flowtts_core.errors import FlowTTSError

State = Literal["ok", "optional", "failed"]
SIGNS = {"ok": "[green]ok[/green]", "optional": "[yellow]absent[/yellow]", "failed": "[red]FAILED[/red]"}
EVAL_MODULES = (
    "pocketsphinx",
    "jiwer",
    "speechmos.dnsmos",
    "onnxruntime",
    "librosa",
    "matplotlib",
    "webrtcvad",
    "resemblyzer",
)
EVAL_REMEDY = "pip install 'flowtts[eval]' && pip install --no-deps resemblyzer"
FREE_GIB = 2.0  # a ten-hour audiobook with its working files takes about this much


@dataclass(frozen=True)
class Check:
    """A finding. "optional" means absent but needed only for some uses; "failed" makes the exit code 1."""

    name: str
    state: State
    detail: str
    remedy: str = ""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="what this machine has, and what is missing",
        description="Look at everything that FlowTTS needs here. The exit code is 0 when synthesis will work, else 1.",
    )
    parser.add_argument("--voice", help="a voice to try (default: the bundled one)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    findings = examine(args.voice)
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        show(findings)
    return int(any(finding.state == "failed" for finding in findings))


def examine(voice: str | None = None) -> list[Check]:
    """Run every check in turn. One that raises counts as failed and prints no traceback."""
    checks: list[tuple[str, Callable[[], Check]]] = [
        ("python", python),
        ("machine", machine),
        ("torch", torch_build),
        ("torchaudio", torchaudio_import),
        ("ray", ray_version),
        ("audio files", audio_files),
        ("audiobook encoders", encoders),
        ("disk", disk),
        ("temporary files", temporary_files),
        ("voice", lambda: speaks(voice)),
        ("flite", flite),
        (
            "espeak extra",
            lambda: extra("espeak extra", ("espeakng_loader", "phonemizer"), "pip install 'flowtts[espeak]'"),
        ),
        (
            "japanese extra",
            lambda: extra("japanese extra", ("pyopenjtalk",), "pip install 'flowtts[japanese]'"),
        ),
        ("pdf extra", lambda: extra("pdf extra", ("pypdf",), "pip install 'flowtts[pdf]'")),
        ("eval extra", lambda: extra("eval extra", EVAL_MODULES, EVAL_REMEDY)),
    ]
    return [_guarded(name, check) for name, check in checks]


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except FlowTTSError as error:
        return Check(name, "failed", error.message, error.remedy)
    except ImportError as error:
        return Check(name, "failed", str(error), "pip install flowtts")
    except Exception as error:  # any error is a finding
        return Check(name, "failed", f"{type(error).__name__}: {error}", "run again as: flowtts --debug doctor")


def python() -> Check:
    state: State = "ok" if sys.version_info >= (3, 11) else "failed"
    return Check(
        "python", state, f"{platform.python_version()} at {sys.executable}", "" if state == "ok" else "Python >= 3.11"
    )


def machine() -> Check:
    from cluster.machine import gpu, memory_gib, processor
    from cluster.session import default_workers

    return Check(
        "machine", "ok", f"{default_workers()} cores of {processor()}, {memory_gib()} GiB, GPU: {gpu() or 'none'}"
    )


def torch_build() -> Check:
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    return Check("torch", "ok", f"{torch.__version__} ({build}, {torch.backends.cpu.get_cpu_capability()})")


def torchaudio_import() -> Check:
    module = importlib.import_module("flowtts_core.audio.torchaudio_import")
    return Check("torchaudio", "ok", str(module.torchaudio.__version__))


def ray_version() -> Check:
    import ray

    address = os.environ.get("RAY_ADDRESS")
    return Check(
        "ray", "ok", f"{ray.__version__}; {f'RAY_ADDRESS is {address}' if address else 'starts on this machine'}"
    )


def audio_files() -> Check:
    import soundfile

    missing = {"WAV", "FLAC", "MP3", "OGG"} - set(soundfile.available_formats())
    if missing:
        return Check(
            "audio files", "failed", f"libsndfile lacks {', '.join(missing)}", "pip install --upgrade soundfile"
        )
    return Check("audio files", "ok", f"WAV FLAC MP3 Ogg Opus by libsndfile {soundfile.__libsndfile_version__}")


def encoders() -> Check:
    import av

    wanted = {"aac": "M4B", "libmp3lame": "MP3", "libopus": "Opus"}
    missing = [f"{kind} ({codec})" for codec, kind in wanted.items() if codec not in av.codecs_available]
    if missing:
        return Check("audiobook encoders", "failed", f"PyAV lacks {', '.join(missing)}", "pip install --upgrade av")
    return Check("audiobook encoders", "ok", f"M4B MP3 Opus by PyAV {av.__version__}")


def disk() -> Check:
    here = Path.cwd()
    free = shutil.disk_usage(here).free / 2**30
    if not os.access(here, os.W_OK):
        return Check("disk", "failed", f"{here} cannot be written", "change to another folder, or name one with -o")
    if free < FREE_GIB:
        return Check(
            "disk", "failed", f"{free:.1f} GiB free in {here}", f"free at least {FREE_GIB:.0f} GiB, or name another -o"
        )
    return Check("disk", "ok", f"{free:.0f} GiB free in {here}, which can be written")


def temporary_files() -> Check:
    try:
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"x")
            return Check("temporary files", "ok", str(Path(file.name).parent))
    except OSError as error:
        return Check("temporary files", "failed", str(error), "export TMPDIR=/a/folder/with/space")


def speaks(voice: str | None) -> Check:
    """Load the voice and say one word."""
    from flowtts_core.engines.base import SynthesisFailure
    from flowtts_core.request import SynthesisRequest
    from flowtts_core.voice import open_voice

    started = time.perf_counter()
    synthesizer = open_voice(voice)
    loaded = time.perf_counter()
    [speech] = synthesizer.synthesize([SynthesisRequest(text="Hello.")])
    if isinstance(speech, SynthesisFailure):
        return Check("voice", "failed", f"cannot say hello: {speech.reason}", "flowtts voices")
    said = time.perf_counter() - loaded
    times = f"loads in {loaded - started:.1f} s, says hello ({speech.seconds:.1f} s) in {said:.1f} s the first time"
    return Check("voice", "ok", f"{voice or 'bundled'} ({synthesizer.fingerprint}) {times}")


def flite() -> Check:
    program = shutil.which("flite")
    if program is None:
        return Check(
            "flite",
            "optional",
            "speaks the voices flite:*, as the teacher of the recipe `bundled`",
            "apt-get install flite",
        )
    return Check("flite", "ok", program)


def extra(name: str, modules: tuple[str, ...], remedy: str) -> Check:
    """Check an optional extra by importing all its modules, since some install and then fail to import."""
    missing = []
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError:
            missing.append(module.split(".")[0])
    if missing:
        return Check(name, "optional", f"without {', '.join(missing)}", remedy)
    return Check(name, "ok", f"{', '.join(module.split('.')[0] for module in modules)}")


def show(findings: list[Check]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for finding in findings:
        remedy = f"\n[bold]{escape(finding.remedy)}[/bold]" if finding.remedy and finding.state != "ok" else ""
        table.add_row(finding.name, SIGNS[finding.state], escape(finding.detail) + remedy)
    Console(soft_wrap=False).print(table)
