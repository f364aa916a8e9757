"""Choose the reading of homographs (a record, to record) by a part of speech guessed from the neighbouring words."""

from __future__ import annotations

from collections.abc import Sequence

_VERB_AFTER = frozenset(
    "to will would can could shall should may might must cannot can't won't wouldn't couldn't shouldn't mustn't don't "
    "doesn't didn't do did not i you we they let's please i'll you'll we'll they'll he'll she'll it'll i'd you'd we'd "
    "they'd he'd she'd who never always".split()
)
_NOUN_AFTER = frozenset(
    "the a an this that these those my your his her its our their no any some each every another of in on at by with "
    "from into for under over about without one two three four five six seven eight nine ten first second last next "
    "other own great good little old new same such much more most few many what which whose".split()
)
_PARTICIPLE_AFTER = frozenset(
    "have has had having was were been being be is are am i've you've we've they've he's she's it's ever already".split()
)
_PAST_AFTER = frozenset("he she it who and".split())


_FIXED = frozenset("a an the of to de do does were".split())
_NOUNS = frozenset("tear tears wound bow bass row sow".split())


def choose(word: str, pronunciations: Sequence[tuple[str, str]], before: str, after: str) -> str:
    """Return the IPA to read, from `(IPA, role)` pairs of gruut's lexicon (NN, VB, VBD, JJ, ...), the usual one first.

    It is a rule of thumb that looks at one word on each side. gruut's tagger would take 30 ms a sentence.
    """
    if word == "used":  # I used to go; it was used
        return pronunciations[0 if after == "to" and before not in _PARTICIPLE_AFTER else -1][0]
    for wanted in _wanted_roles(word, before):
        for ipa, role in pronunciations:
            if role == wanted:
                return ipa
    return pronunciations[0][0]


def _wanted_roles(word: str, before: str) -> tuple[str, ...]:
    if word in _FIXED:
        return ()
    if word == "live":
        return ("JJ",) if before in ("a", "the", "is", "was") else ("VB",)
    if before in _PARTICIPLE_AFTER:
        return ("VBD", "JJ")
    if word == "read" and before in _PAST_AFTER:
        return ("VBD",)
    if word in _NOUNS:
        return ("VB",) if before in _VERB_AFTER else ("NN",)
    if before in _VERB_AFTER:
        return ("VB",)
    if before in _NOUN_AFTER or before.endswith("'s"):
        return ("NN", "JJ")
    return ()
