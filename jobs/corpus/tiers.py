"""An alignment as a Praat TextGrid, as lines of a CTM, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from flowtts_core.engines.phone_alignment import Alignment

Interval = tuple[str, float, float]  # label, start and end in seconds


def tiers(alignment: Alignment) -> dict[str, list[Interval]]:
    """Return the words and the phones, in order; what lies between two is silence."""
    return {
        "words": [(word.word, word.start_s, word.end_s) for word in alignment.words],
        "phones": [(phone.phone, phone.start_s, phone.end_s) for word in alignment.words for phone in word.phones],
    }


def textgrid(alignment: Alignment) -> str:
    """Return a TextGrid in Praat's long text form; intervals without a label are silences."""
    end = _number(alignment.seconds)
    found = tiers(alignment)
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {end}"]
    lines += ["tiers? <exists>", f"size = {len(found)}", "item []:"]
    for number, (name, intervals) in enumerate(found.items(), 1):
        whole = list(_without_gaps(intervals, end))
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{name}"']
        lines += ["        xmin = 0", f"        xmax = {end}", f"        intervals: size = {len(whole)}"]
        for i, (label, left, right) in enumerate(whole, 1):
            text = " ".join(label.split()).replace('"', '""')
            lines += [f"        intervals [{i}]:", f"            xmin = {left}", f"            xmax = {right}"]
            lines += [f'            text = "{text}"']
    return "\n".join(lines) + "\n"


def _without_gaps(intervals: Iterable[Interval], end: str) -> Iterable[tuple[str, str, str]]:
    """Yield the intervals with edges as they are written, each beginning where the one before ends, from 0 to `end`."""
    at = "0"
    for label, start_s, end_s in intervals:
        left, right = _number(start_s), _number(end_s)
        right = end if float(right) > float(end) else right
        if float(left) > float(at):
            yield "", at, left
            at = left
        yield label, at, right
        at = right
    if float(at) < float(end):
        yield "", at, end


def _number(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def ctm(file: str, alignment: Alignment) -> dict[str, str]:
    """Return the lines `file channel start duration token confidence` of each tier, times in seconds.

    The channel is always 1. Blanks within a name or token, which the form does not have, become "_".
    """
    fits = {
        "words": [word.fit for word in alignment.words],
        "phones": [phone.fit for word in alignment.words for phone in word.phones],
    }
    return {
        name: "".join(
            f"{_one_word(file)} 1 {start:.3f} {end - start:.3f} {_one_word(label)} {fit:.2f}\n"
            for (label, start, end), fit in zip(intervals, fits[name], strict=True)
        )
        for name, intervals in tiers(alignment).items()
    }


def _one_word(text: str) -> str:
    return "_".join(text.split())


def as_json(alignment: Alignment) -> str:
    """Return words, with their characters in the text, and their phones, times in seconds, as JSON."""
    words = [
        {
            "word": word.word,
            "start": word.start,
            "end": word.end,
            "start_s": round(word.start_s, 4),
            "end_s": round(word.end_s, 4),
            "confidence": round(word.fit, 3),
            "phones": [
                {
                    "phone": p.phone,
                    "start_s": round(p.start_s, 4),
                    "end_s": round(p.end_s, 4),
                    "confidence": round(p.fit, 3),
                }
                for p in word.phones
            ],
        }
        for word in alignment.words
    ]
    values = {"seconds": round(alignment.seconds, 4), "confidence": round(alignment.fit, 3), "words": words}
    return json.dumps({**values, "not_read": list(alignment.dropped)}, ensure_ascii=False, indent=1) + "\n"


FILES: dict[str, tuple[str, Callable[[Alignment], str]]] = {
    "textgrid": (".TextGrid", textgrid),
    "json": (".json", as_json),
}
