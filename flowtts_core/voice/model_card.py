"""The `README.md` of a published voice: a model card, as model hubs read it, written from the voice's own card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from flowtts_core.voice.card import VoiceCard

README = "README.md"
MADE = "<!-- written by flowtts push from voice.json -->"  # a page without this line is its owner's, and stays
# The hub's names of licences are the SPDX ones in lower case.
_LICENCES = """apache-2.0 mit bsd-2-clause bsd-3-clause cc0-1.0 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-4.0
cc-by-nc-sa-4.0 cc-by-nc-nd-4.0 cc-by-nd-4.0 gpl-3.0 lgpl-3.0 agpl-3.0 mpl-2.0 openrail""".split()
_SCORES = {
    "naturalness": "naturalness (DistillMOS, 1 to 5)",
    "p808": "DNSMOS P.808 (1 to 5)",
    "overall": "DNSMOS overall (1 to 5)",
    "wer": "word error rate",
    "cer": "character error rate",
    "similarity": "similarity to the speaker",
}


def model_card(card: VoiceCard, place: str) -> str:
    """Return the page of a voice.

    Args:
        place: where it is published, `hf://owner/name`.
    """
    parts = [f"---\n{yaml.safe_dump(_metadata(card), sort_keys=False, allow_unicode=True)}---\n{MADE}\n"]
    parts.append(f"# {card.name}\n\n{card.description or 'A voice for FlowTTS.'}\n")
    parts.append(_facts(card))
    parts.append(_usage(card, place))
    if scores := _scores(card):
        parts.append(scores)
    parts.append(
        "## Licence and source\n\n"
        f"Licence: {card.licence or 'its card does not say'}.\n\n"
        f"Trained on: {card.source or 'its card does not say'}.\n\n"
        "What this voice says is synthetic speech: say so where it is heard.\n"
    )
    return "\n".join(parts)


def _metadata(card: VoiceCard) -> dict[str, Any]:
    known = card.licence.lower() in _LICENCES
    licence = {"license": card.licence.lower()} if known else {"license": "other", "license_name": card.licence}
    languages = list(dict.fromkeys(language.partition("-")[0] for language in card.languages))
    return {
        **(licence if card.licence else {}),
        **({"language": languages} if languages else {}),
        "library_name": "flowtts",
        "pipeline_tag": "text-to-speech",
        "tags": ["text-to-speech", "flowtts", card.kind],
    }


def _facts(card: VoiceCard) -> str:
    rows = {
        "languages": ", ".join(card.languages) or "any",
        "speakers": ", ".join(card.speakers) or "one",
        "sample rate": f"{card.sample_rate} Hz",
        "model": f"{card.kind}: " + " + ".join(str(spec.get("name")) for spec in card.parts.values()),
        "word times": {"model": "its own", "aligned": "found in the sound", "none": "none"}[card.word_times],
        "prompt to imitate": card.prompt,
        "fingerprint": card.fingerprint,
    }
    return _table(("", ""), list(rows.items()))


def _usage(card: VoiceCard, place: str) -> str:
    more = f" --speaker {card.speakers[0]}" if card.speakers else ""
    more += " --prompt clip.wav" if card.prompt == "required" else ""
    return (
        "## Use\n\n```\npip install 'flowtts[hub]'\n"
        f'flowtts say "Good evening." --voice {place}{more} -o evening.wav\n'
        f"flowtts synthesize book.epub --voice {place}{more} -o audiobook/\n"
        f"flowtts pull {place} -o {card.name}/          # a copy of your own\n```\n"
    )


def _scores(card: VoiceCard) -> str:
    figures = card.figures
    rows = []
    for name, meaning in _SCORES.items():
        if isinstance(found := figures.get(name), dict) and "value" in found:
            low, high = found.get("low"), found.get("high")
            within = f"{low:.3f} to {high:.3f}" if low is not None and high is not None else ""
            rows.append((meaning, f"{found['value']:.3f}", within))
    if not rows:
        return ""
    told = {"texts": "texts", "asr": "recogniser"}
    how = ", ".join(
        f"{label}: {str(figures[name]).rsplit('/', 1)[-1]}" for name, label in told.items() if figures.get(name)
    )
    by = f"By `{figures.get('command', 'flowtts benchmark')}`" + (f" ({how})." if how else ".")
    return f"## Scores\n\n{_table(('score', 'value', '95 % interval'), rows)}\n{by}\n"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |\n" for line in lines
    )
