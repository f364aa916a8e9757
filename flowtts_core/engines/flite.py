"""CMU Flite's voices (cmuflite.org), spoken by its program: small, robotic, in many Linux distributions."""

from __future__ import annotations

import re
import shutil
import string
import subprocess
import tempfile
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from flowtts_core.audio.files import read_audio
from flowtts_core.engines.base import Speech, Spoken, SynthesisFailure, UtteranceSynthesizer, failure
from flowtts_core.engines.forced_alignment import open_aligner
from flowtts_core.errors import AudioError, DependencyError, FlowTTSError, VoiceError
from flowtts_core.request import SynthesisRequest
from flowtts_core.text import frontends
from flowtts_core.text.plan import Utterance
from flowtts_core.voice.card import FLITE, VoiceCard

_RATES = {"kal": 8000}  # of its voices; the others have 16 kHz
_PATIENCE_S = 60.0


def _ascii(text: str) -> str:
    """Without accents: flite reads ASCII."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


_ACCENTED = "".join(c for c in map(chr, range(0xC0, 0x180)) if _ascii(c).isalpha())
_CHARACTERS = f" '-,.;:!?\"{string.ascii_letters}{_ACCENTED}"


def flite_card(name: str) -> VoiceCard:
    """Return the card of `flite:VOICE`; whether the program has that voice is known when it is opened."""
    voice = name.removeprefix(FLITE)
    if not re.fullmatch(r"[A-Za-z0-9_]+", voice):
        raise VoiceError(f"no voice {name!r}", f"write {FLITE} and a voice of `flite -lv`, as {FLITE}rms")
    return VoiceCard(
        name=name,
        kind="flite",
        parts={"frontend": {"name": "characters", "characters": _CHARACTERS, "lower_case": False}},
        sample_rate=_RATES.get(voice, 16_000),
        description=f"Flite's {voice}",
        licence="BSD-like (CMU Flite)",
        source="CMU Flite",
    )


class FliteVoice(UtteranceSynthesizer):
    """A voice of the program; it hears our normaliser's words, and the same text always sounds the same."""

    controls = frozenset({"seed", "speed"})
    seeded = False

    def __init__(self, card: VoiceCard, threads: int | None = None) -> None:
        self.card, self.voice = card, card.name.removeprefix(FLITE)
        self.name, self.fingerprint, self.sample_rate = card.name, card.fingerprint, card.sample_rate
        self.languages = card.languages
        self.frontend = frontends.build(card.parts["frontend"])
        self.aligner = open_aligner(threads)

    def speak(self, utterances: Sequence[Spoken]) -> list[Speech | SynthesisFailure]:
        return [self._one(request, utterance) for request, utterance in utterances]

    def _one(self, request: SynthesisRequest, utterance: Utterance) -> Speech | SynthesisFailure:
        assert utterance.encoded is not None
        encoded, text = utterance.encoded, request.text[utterance.start : utterance.end]
        try:
            waveform = self._read(encoded.phonemes, self.card.sampling.asked(request).speed)
        except FlowTTSError as error:
            return failure(error)
        if utterance.said is not None:  # the aligner would look for the words that are written
            return Speech(waveform, self.sample_rate, None, encoded.phonemes)
        words = self.aligner.words(text, encoded.words, waveform, self.sample_rate)
        return Speech(waveform, self.sample_rate, words, encoded.phonemes)

    def _read(self, text: str, speed: float) -> np.ndarray:
        """Let the program read the words; [S]."""
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "text.txt"), Path(folder, "speech.wav")
            source.write_text(f"{_ascii(text)}\n", encoding="ascii")
            command = ["flite", "-voice", self.voice, "--setf", f"duration_stretch={1 / speed:.4f}"]
            try:
                done = subprocess.run(
                    [*command, "-f", str(source), "-o", str(target)],
                    capture_output=True, text=True, timeout=_PATIENCE_S,
                )  # fmt: skip
            except (OSError, subprocess.TimeoutExpired) as error:
                raise AudioError(f"flite does not run: {error}") from error
            if done.returncode or not target.exists():
                raise AudioError(f"flite -voice {self.voice} failed: {done.stderr.strip() or 'no audio'}")
            waveform, rate = read_audio(target)
        if rate != self.sample_rate:
            raise AudioError(f"flite -voice {self.voice} gave {rate} Hz, expected {self.sample_rate}")
        if not waveform.any():
            raise AudioError(f"flite -voice {self.voice} made no sound of it")
        return waveform


def open_flite(folder: Path, card: VoiceCard, device: str, threads: int | None) -> FliteVoice:
    """Open a voice of the program, which reads on one thread; `threads` are those of the search for its words.

    Raises:
        DependencyError: where flite is not installed.
        VoiceError: for a voice that it does not have.
    """
    voice, known = card.name.removeprefix(FLITE), _voices()
    if voice not in known:
        raise VoiceError(f"flite has no voice {voice!r}", f"it has {', '.join(FLITE + name for name in known)}")
    return FliteVoice(card, threads)


@cache
def _voices() -> tuple[str, ...]:
    if shutil.which("flite") is None:
        raise DependencyError("flite is not installed", "apt-get install flite  (or: brew install flite)")
    listed = subprocess.run(["flite", "-lv"], capture_output=True, text=True).stdout
    return tuple(listed.partition(":")[2].split())
