"""The symbols that voices are trained on: names of tables, and the id of each symbol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flowtts_core.errors import ConfigError

PAD = "_"
PUNCTUATION = ';:,.!?¡¿—…"«»“” '
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# The tail holds the syllabic mark between two apostrophes, as the VITS list has it; the order is part of every checkpoint.
IPA = (
    "ɑɐɒæɓʙβɔɕçɗɖðʤəɘɚɛɜɝɞɟʄɡɠɢʛɦɧħɥʜɨɪʝɭɬɫɮʟɱɯɰŋɳɲɴøɵɸθœɶʘɹɺɾɻʀʁɽʂʃʈʧʉʊʋⱱʌɣɤʍχʎʏʑʐʒʔʡʕʢǀǁǂǃˈˌːˑʼʴʰʱʲʷˠˤ˞↓↑→↗↘'\u0329'ᵻ"
)


@dataclass(frozen=True)
class SymbolTable:
    """Symbols in the order of their ids; where a symbol stands twice the later id is its own, as in VITS."""

    name: str
    symbols: tuple[str, ...]
    ids: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", {symbol: number for number, symbol in enumerate(self.symbols)})

    def __len__(self) -> int:
        return len(self.symbols)


MATCHA = SymbolTable("matcha", (PAD, *PUNCTUATION, *LETTERS, *IPA))
assert len(MATCHA) == 178 and MATCHA.ids[PAD] == 0 and MATCHA.ids[" "] == 16

SYMBOL_TABLES: dict[str, SymbolTable] = {"matcha": MATCHA}


def symbol_table(name: str) -> SymbolTable:
    """The table of that name.

    Raises:
        ConfigError: when there is none; the message lists those there are.
    """
    if name not in SYMBOL_TABLES:
        raise ConfigError(f"unknown symbol table {name!r}", f"use one of: {', '.join(sorted(SYMBOL_TABLES))}")
    return SYMBOL_TABLES[name]
