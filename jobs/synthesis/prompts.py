"""The clips that a job's rows ask to be imitated: kept once each, by their digests, in the folder of the job's plan."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from cluster.storage import Storage, read_input
from flowtts_core.audio.reference import LONGEST_S
from flowtts_core.errors import FlowTTSError, TextError
from flowtts_core.request import PromptClip

PROMPTS = "prompts"
_LOADED = 64  # clips that a process holds at once
_NOTED = 1000  # references of which the plan tells more than the digest


@dataclass(frozen=True)
class KeptPrompt:
    """A clip by its digest, and what is said in it (None: not told)."""

    digest: str
    text: str | None


@dataclass
class PromptKeeper:
    """Keeps clips in a plan's folder.

    Args:
        asr: what transcribes clips of rows that have no text; "" leaves them without.
        consent: who agreed to be imitated, for the provenance.

    Attributes:
        references: what is known of the first clips, for the provenance.
    """

    storage: Storage
    folder: str
    asr: str = ""
    consent: str = ""
    references: list[dict[str, Any]] = field(default_factory=list)
    _kept: dict[tuple[str, str | None], KeptPrompt | FlowTTSError] = field(default_factory=dict)

    def keep(self, given: str | PromptClip, text: str | None, language: str, *, jobs: bool = False) -> KeptPrompt:
        """Return the clip at a path or `s3://` place, or in a cell, which is kept from now on.

        Args:
            language: in which it is transcribed.
            jobs: it is the whole job's, and so prepared here, where its user reads what is said of it; the clips of rows are
                cleaned by the workers, which note what they did in the manifest.

        Raises:
            FlowTTSError: where it cannot be read, or cannot be imitated.
        """
        key = (given if isinstance(given, str) else given.digest, text)
        if key not in self._kept:
            try:
                self._kept[key] = self._prepared(given, text, language, jobs)
            except FlowTTSError as error:
                self._kept[key] = TextError(f"prompt {_named(given)}: {error.message}", error.remedy)
        found = self._kept[key]
        if isinstance(found, FlowTTSError):
            raise found
        return found

    def _prepared(self, given: str | PromptClip, text: str | None, language: str, jobs: bool) -> KeptPrompt:
        clip = given if isinstance(given, PromptClip) else _read(given)
        asr = self.asr if text is None else ""
        if not jobs and not asr and (text is None or _seconds(clip) <= LONGEST_S):
            told: dict[str, Any] = {"source": _named(given), "source_sha256": clip.digest, "text": text}
        else:
            from flowtts_core.voice.cloning import prepare_reference

            prepared = prepare_reference(clip, text, asr=asr or None, language=language)
            for note in (*prepared.notes, *([f"heard: {prepared.text!r}"] if prepared.transcribed else [])):
                print(f"note: {_named(given)}: {note}", file=sys.stderr)
            told = prepared.provenance(_named(given), self.consent)
            clip, text = prepared.clip, prepared.text
        self.storage.write(f"{self.folder}/{PROMPTS}/{clip.digest}", clip.audio)
        if len(self.references) < _NOTED:
            self.references.append({**told, "consent": self.consent or None, "prompt": clip.digest})
        return KeptPrompt(clip.digest, text)


def _read(path: str) -> PromptClip:
    try:
        return PromptClip(read_input(path))
    except OSError as error:
        raise TextError(str(error.strerror or error), "give the path of a clip") from error


def _named(given: str | PromptClip) -> str:
    return given if isinstance(given, str) else f"clip {given.digest[:12]}"


def _seconds(clip: PromptClip) -> float:
    """As the file's header tells; 0 where it does not: who decodes it finds out."""
    import soundfile

    try:
        return float(soundfile.info(io.BytesIO(clip.audio)).duration)
    except (soundfile.SoundFileError, RuntimeError):
        return 0.0


class Clips(dict[str, PromptClip]):
    """The clips of a stored plan by their digests, read as they are asked for."""

    def __init__(self, storage: Storage, folder: str) -> None:
        super().__init__()
        self._read = lru_cache(_LOADED)(lambda digest: PromptClip(storage.read(f"{folder}/{PROMPTS}/{digest}")))

    def __missing__(self, digest: str) -> PromptClip:
        return self._read(digest)
