"""Choose the reading of homographs (a record, to record) by their part of speech and by the words around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

# Words whose other reading is so rare that a wrong tag would do more harm than it does good.
FIXED = frozenset(
    "a an the of to de do does dos were me re real reals number nice pace mare tales taxes taxis won sake sakes thou grave "
    "shower showers tier tiers lied drawer drawers evening evenings pram prayer prayers chi xi vale maria apply supply "
    "supplies multiply pussy stingy windy recount recounts recounted resign resigned resigning resigns resound resounded "
    "resounding recollect recollects recollected recollecting retard coop marked irony sewer sewers putting palled bowman "
    "bowmen grave nestling hinder hinders leads preposition prepositions affix lech manes rugged slough".split()
)
# The roles of gruut's lexicon to look for, in order, by the tag's first letters.
_ROLES = (
    ("VBD", ("VBD", "VB", "JJ")), ("VBN", ("VBD", "VB", "JJ")), ("VB", ("VB", "JJ", "NN")), ("NN", ("NN", "JJ")),
    ("JJ", ("JJ", "NN")), ("RB", ("RB", "JJ")),
)  # fmt: skip
_BE = frozenset("'m am is 's are 're was were be been being seem seems seemed feel felt look looked".split())
_DEGREES = frozenset("so very quite too perfectly more most not well how as entirely less".split())
_HAVE = frozenset("have has had having 've 'd".split())
_NEARLY = frozenset("i you he she it we they not n't ever never already just also both all always who".split())
_MODALS = frozenset("to will would can could shall should may might must do does did 'll ca wo please let n't".split())
_THE = frozenset("a an the this that his her my your our their its 's".split())
_NUMBERS = frozenset(
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen twenty thirty forty fifty sixty seventy eighty ninety about between from over under nearly".split()
)
_WINDOW = 6  # words to each side whose sense tells that of a homograph


class Sense(NamedTuple):
    """A reading of a word: where its tag begins with one of `tags` (separated by blanks), and one of `cues` is near."""

    ipa: str
    tags: str = ""
    cues: frozenset[str] = frozenset()


def _sense(ipa: str, tags: str, cues: str = "") -> Sense:
    return Sense(ipa, tags, frozenset(cues.split()))


_SHIP = "ship boat deck stern captain hull sea keel prow anchor canoe vessel"
_BEND = (
    f"{_SHIP} took take takes low deep made make stiff slight polite curtain graceful gave formal grave courteous butler "
    "servant waiter king queen audience"
)
_CLOTH = "coat shirt dress skirt fabric cloth paper sleeve trousers wear muscle ligament sail curtain jacket stocking"
_QUARREL = (
    "terrible quarrel neighbours neighbors noise furious blazing about kicked frightful awful dreadful police parents"
)
_FISH = "lake river caught catch fish fishing sea striped grilled fried pound angler pond ate cooked hook"
_WEEPING = "cheek cheeks eye eyes fell rolled wept face shed weeping sorrow trickled joy"
_METAL = (
    "pipe pipes made paint roof roofs bullet bullets pencil poisoning poison copper tin iron zinc metal heavy weight weights "
    "molten ounces silver gold coffin shot glass ore mines cast covered lined melted panes soldiers windows"
)
# Words that the part of speech alone does not decide. The first sense that fits is taken; where none does, the role is.
SENSES: dict[str, tuple[Sense, ...]] = {
    "tear": (_sense("tˈɛɹ", "VB"), _sense("tˈɪɹ", "", _WEEPING), _sense("tˈɛɹ", "", _CLOTH), _sense("tˈɪɹ", "")),
    "tears": (_sense("tˈɛɹz", "VB"), _sense("tˈɪɹz", "", _WEEPING), _sense("tˈɛɹz", "", _CLOTH), _sense("tˈɪɹz", "")),
    "tearing": (_sense("tˈɛɹɪŋ", ""),),
    "bow": (_sense("bˈoʊ", "", "arrow arrows violin cello fiddle hair ribbon quiver"), _sense("bˈaʊ", "VB"),
            _sense("bˈaʊ", "", _BEND), _sense("bˈoʊ", "")),
    "bows": (_sense("bˈoʊz", "", "arrow arrows violin hair ribbon ribbons"), _sense("bˈaʊz", "VB"),
             _sense("bˈaʊz", "", _BEND), _sense("bˈoʊz", "")),
    "bowed": (_sense("bˈoʊd", "", "legs legged strings"), _sense("bˈaʊd", "")),
    "bowing": (_sense("bˈaʊɪŋ", ""),),
    "row": (_sense("ɹˈaʊ", "NN", _QUARREL), _sense("ɹˈoʊ", "")),
    "rows": (_sense("ɹˈaʊz", "NN", _QUARREL), _sense("ɹˈoʊz", "")),
    "bass": (_sense("bˈæs", "", _FISH), _sense("bˈeɪs", "")),
    "lead": (_sense("lˈid", "VB"), _sense("lˈɛd", "", _METAL), _sense("lˈid", "")),
    "close": (_sense("klˈoʊz", "VB NN"), _sense("klˈoʊs", "")),
    "wound": (_sense("wˈaʊnd", "", "around round rope path string thread clock wire bandage through"),),
    "polish": (_sense("pˈoʊlɪʃ", "JJ"), _sense("pˈɑlɪʃ", "")),
    "resume": (_sense("ɹˈɛzəmˌeɪ", "NN"), _sense("ɹɪzˈum", "")),
    "used": (_sense("jˈust", "JJ"), _sense("jˈuzd", "")),
    "aged": (_sense("ˈeɪdʒd", "VB"), _sense("ˈeɪdʒɪd", "")),
    "axes": (_sense("ˈæksiz", "", "graph coordinate coordinates vertical horizontal rotation lines parallel plane"),
             _sense("ˈæksɪz", "")),
    "bases": (_sense("bˈeɪsiz", "", "theoretical legal moral scientific mathematical acids acid"),),
    "upset": (_sense("ˈʌpsˌɛt", "NN"), _sense("ʌpsˈɛt", "")),
    "buffet": (_sense("bˈʌfɪt", "VB"), _sense("bˈʌfeɪ", "")),
    "beloved": (_sense("bɪlˈʌvd", "VB"), _sense("bɪlˈʌvɪd", "")),
    "dove": (_sense("dˈoʊv", "VB"), _sense("dˈʌv", "")),
}  # fmt: skip
_TRACES = frozenset(
    "detail details trace traces particle particles amount amounts quantity quantities speck specks fragment fragments crack "
    "cracks inspection examination attention care difference differences portion portions creature creatures".split()
)
_SUBJECTS = frozenset("i you we they who nobody never".split())
_SOME = frozenset("many most some other these those such several few two three young old".split())
_PAST = frozenset(
    "was were had did said went came took sat stood saw knew made gave found thought got told left felt heard held kept "
    "ran wrote spoke laughed yesterday ago".split()
)
_NO_PLURALS = frozenset("this his its thus plus does yes perhaps versus has was minus".split())
_CLAUSE = _THE | frozenset("when if because while whenever it them him her us me you".split())
_OF = frozenset("of in for by with at to on was is had has who and after before".split())
_HABIT = frozenset("every always often usually daily each sometimes nowadays seldom regularly".split())
_PLURALS = frozenset("i we they you people children men women those these".split())


def choose(words: Sequence[str], place: int, tag: str, pronunciations: Sequence[tuple[str, str]]) -> str:
    """Return the IPA of `words[place]` of a sentence.

    Args:
        words: as the tagger takes them: marks, and the parts of contractions, are words of their own.
        tag: of the word, Penn Treebank's.
        pronunciations: `(IPA, role)` pairs of gruut's lexicon (NN, VB, VBD, JJ, ...), the usual one first.
    """
    tag = corrected_tag(words, place, tag)
    sense = sense_of(words, place, tag)
    if any(ipa == sense for ipa, _ in pronunciations):
        return sense
    for prefix, roles in _ROLES:
        if tag.startswith(prefix):
            return next((ipa for role in roles for ipa, own in pronunciations if own == role), pronunciations[0][0])
    return pronunciations[0][0]


def sense_of(words: Sequence[str], place: int, tag: str) -> str:
    """Return the IPA of a word whose reading the words around it decide, as `choose` takes them; "" for others."""
    senses = SENSES.get(words[place].lower())
    if senses is None:
        return ""
    around = {word.lower() for word in words[max(0, place - _WINDOW) : place + 1 + _WINDOW]}
    fits = (s for s in senses if tag.startswith(tuple(s.tags.split()) or "") and (not s.cues or s.cues & around))
    return next((sense.ipa for sense in fits), "")


def corrected_tag(words: Sequence[str], place: int, tag: str) -> str:
    """Return the tag of a homograph, or a better one where the tagger is known to err."""
    return _corrected(words[place], [word.lower() for word in words], place, tag)


def _corrected(written: str, near: Sequence[str], place: int, tag: str) -> str:
    word = near[place]
    before, after = near[place - 1] if place else "", near[place + 1] if place + 1 < len(near) else ""
    if word == "read":
        return _tense(near, place, tag)
    if tag == "NN" and (
        before in _SUBJECTS
        or _governor(near, place) in _MODALS
        or _is_plural(before)
        and (after in _CLAUSE or after.endswith("ly"))
    ):
        return "VB"
    if word == "close":
        return "NN" if before in ("a", "the") and (after in _OF or not after.isalpha()) else tag
    if word == "invalid":
        return "NN" if before not in _BE | _DEGREES and (after in _OF or not after.isalpha()) else tag
    if word == "used":
        return "JJ" if _is_accustomed(near, place) else "VBN"
    if word == "polish":
        lower = written.islower() or (place == 0 and tag.startswith("VB"))
        return "NN" if lower else "JJ"
    if word == "content":
        return "JJ" if before in _BE | _DEGREES or (after in ("to", "with") and before not in _THE) else tag
    if word == "minute":
        return "JJ" if before in _DEGREES | _BE or after in _TRACES else "NN"
    if word == "live":
        return "JJ" if before in ("it", "them", "him") and after in ("on", "from", "at", "in") else tag
    if word == "aged":
        return "VBN" if after in _NUMBERS or after.isdigit() else "JJ" if before in _THE else tag
    if word == "learned":
        return "JJ" if before in _THE | _SOME and after.isalpha() and after not in _OF | _CLAUSE else "VBD"
    if word == "resume":
        return "NN" if before in _THE else "VB"
    if word == "crooked":
        return "JJ"
    return tag


def _governor(near: Sequence[str], place: int) -> str:
    """Return the word before, without the subjects and adverbs between an auxiliary and its verb."""
    return next((near[i] for i in range(place - 1, -1, -1) if near[i] not in _NEARLY), "")


def _is_plural(word: str) -> bool:
    return len(word) > 3 and word[-1] == "s" and word[-2] != "s" and word not in _NO_PLURALS


def _tense(near: Sequence[str], place: int, tag: str) -> str:
    """Return the tag of "read", which tells its tense by other words alone."""
    governor, before = _governor(near, place), near[place - 1] if place else ""
    if governor in _HAVE:
        return "VBN"
    if governor in _MODALS:
        return "VB"
    if any(word in _PAST or len(word) > 4 and word.endswith("ed") for word in near):
        return "VBD"
    subject = near[place - 2] if before == "who" and place > 1 else before
    if subject in _PLURALS and _HABIT & set(near):
        return "VBP"
    if subject in ("he", "she", "it", "who"):
        return "VBD"
    return tag


def _is_accustomed(near: Sequence[str], place: int) -> bool:
    """Return whether "used" is that of "used to sing" and "used to the noise", not of "was used to cut bread"."""
    if place + 1 >= len(near) or near[place + 1] != "to":
        return False
    after = near[place + 2] if place + 2 < len(near) else ""
    person = any(
        word in ("i", "'m", "you", "we", "he", "she", "they", "get", "got", "getting") for word in near[:place]
    )
    passive = any(word in _BE for word in near[max(0, place - 3) : place])
    return not passive or person or after in _THE or not after.isalpha()
