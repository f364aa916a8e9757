"""The worker of `flowtts align`: finds the words of some clips and writes what becomes of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.storage import Storage
from flowtts_core.audio.files import read_audio
from flowtts_core.engines.phone_alignment import Alignment, PhoneAligner
from flowtts_core.errors import AudioError, TextError
from jobs.corpus.clips import SourceClip, audio_of
from jobs.corpus.tiers import FILES, ctm


class ClipAligner:
    """Aligns the clips of a task: writes a file for each, or hands back the lines of a CTM.

    Args:
        form: "textgrid", "json" or "ctm".
        max_seconds: of a clip; memory grows with the square of the length.
    """

    def __init__(
        self, storage: Storage, form: str, voice: str | None, lexicon: Mapping[str, str] | None, max_seconds: float
    ) -> None:
        self._storage, self._form, self._max_seconds = storage, form, max_seconds
        self._aligner = PhoneAligner(voice, lexicon)

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        """Align a task's `clips`, whose output is called by `names`; `place` comes back with the result."""
        clips = [SourceClip(**clip) for clip in task["clips"]]
        made: dict[str, Any] = {"place": task["place"], "clips": 0, "words": 0, "seconds": 0.0, "confidence": 0.0}
        made |= {"not_read": [], "set_aside": [], "ctm": {"words": "", "phones": ""}}
        for clip, name, audio in zip(clips, task["names"], audio_of(clips), strict=True):
            found = self._align(clip, audio)
            if isinstance(found, str):
                made["set_aside"].append({"id": clip.id, "reason": found, "audio": clip.path, "text": clip.text})
                continue
            if self._form == "ctm":
                for tier, lines in ctm(name, found).items():
                    made["ctm"][tier] += lines
            else:
                suffix, text_of = FILES[self._form]
                self._storage.write(f"{name}{suffix}", text_of(found).encode("utf-8"), durable=False)
            made["clips"] += 1
            made["words"] += len(found.words)
            made["seconds"] += found.seconds
            made["confidence"] += found.fit
            if found.dropped:
                made["not_read"].append({"id": clip.id, "not_read": list(found.dropped)})
        return made

    def _align(self, clip: SourceClip, audio: bytes | str) -> Alignment | str:
        """The alignment of a clip, or why it has none."""
        problem = clip.problem or ("" if clip.text.strip() else "empty text")
        if not problem and not self._aligner.reads(clip.language):
            card = self._aligner.card
            problem = f"language {clip.language}: voice {card.name} reads {', '.join(card.languages)}"
        if problem:
            return problem
        try:
            waveform, rate = read_audio(audio)
            if len(waveform) > self._max_seconds * rate:
                return f"too long: {len(waveform) / rate:.1f} s (--max-seconds {self._max_seconds:g})"
            return self._aligner.align(clip.text, waveform, rate)
        except (AudioError, TextError) as error:
            return error.message
