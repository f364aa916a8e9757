"""Units of measure: their signs, and their names in words."""

from __future__ import annotations

import re
from collections.abc import Iterable

from flowtts_core.text.english import numbers as say

_PREFIXES = {
    "p": "pico", "n": "nano", "µ": "micro", "μ": "micro", "m": "milli", "c": "centi", "d": "deci", "h": "hecto",
    "k": "kilo", "K": "kilo", "M": "mega", "G": "giga", "T": "tera", "P": "peta",
}  # fmt: skip
# Each with the prefixes that are in use, and that make no other word ("pm", "TV", "MA").
_WITH_PREFIXES = [
    ("m", "meter", "nµμmcdk"), ("g", "gram", "nµμmk"), ("s", "second", "nµμm"), ("l", "liter", "µμmcd"),
    ("L", "liter", "µμmcd"), ("V", "volt", "µμmk"), ("W", "watt", "µμmkMGT"), ("A", "amp", "nµμmk"), ("F", "farad", "pnµμm"),
    ("H", "henry", "nµμm"), ("Ω", "ohm", "mkMG"), ("Hz", "hertz", "mkMGT"), ("J", "joule", "mkMG"), ("N", "newton", "mk"),
    ("Pa", "pascal", "hkMG"), ("eV", "electron volt", "mkMGT"), ("Wh", "watt hour", "kMGT"), ("Ah", "amp hour", "m"),
    ("mol", "mole", "nµμm"), ("cal", "calorie", "k"), ("B", "byte", "kKMGTP"), ("bit", "bit", "kMG"),
    ("bps", "bit per second", "kMG"),
    ("Sv", "sievert", "µμm"), ("Gy", "gray", "µμm"), ("Bq", "becquerel", "kMG"), ("bar", "bar", "m"), ("M", "molar", "nµμm"),
]  # fmt: skip
_NOT_ALONE = ("A", "F", "H", "B", "M", "Ah", "bit")  # which mean something else
# Written with a full stop as well.
_CUSTOMARY = {
    "lb": "pound", "lbs": "pound", "oz": "ounce", "fl oz": "fluid ounce", "mi": "mile", "yd": "yard", "yds": "yard",
    "ft": "foot", "in": "inch", "gal": "gallon", "gals": "gallon", "qt": "quart", "qts": "quart", "tbsp": "tablespoon",
    "tbsps": "tablespoon", "tbs": "tablespoon", "tsp": "teaspoon", "tsps": "teaspoon", "cwt": "hundredweight",
    "sec": "second", "secs": "second", "min": "minute", "mins": "minute", "hr": "hour", "hrs": "hour", "wk": "week",
    "wks": "week", "mo": "month", "mos": "month", "yr": "year", "yrs": "year", "bbl": "barrel", "doz": "dozen",
    "Tbsp": "tablespoon", "Tsp": "teaspoon", "deg": "degree",
}  # fmt: skip
_AREAS = {"in": "inch", "ft": "foot", "yd": "yard", "mi": "mile", "m": "meter", "cm": "centimeter", "km": "kilometer"}
_OTHERS = {
    "t": "ton", "mph": "mile an hour", "MPH": "mile an hour", "kph": "kilometer an hour", "km/h": "kilometer an hour",
    "mcg": "microgram", "dB": "decibel", "h": "hour", "ha": "hectare", "rpm": "^r ^p ^m", "cc": "^c ^c", "px": "pixel",
    "°C": "degree Celsius", "°F": "degree Fahrenheit", "°": "degree", "º": "degree", "°K": "degree Kelvin",
    "° C": "degree Celsius", "° F": "degree Fahrenheit",
    "%": "percent", "‰": "per mille", "fps": "frame per second", "bpm": "beat per minute", "K": "kelvin", "kgf": "kilogram force",
    "ppm": "part per million", "ppb": "part per billion", "psi": "pound per square inch", "atm": "atmosphere",
    "mmHg": "millimeter of mercury", "lx": "lux", "lm": "lumen", "KiB": "kibibyte", "MiB": "mebibyte", "GiB": "gibibyte",
    "TiB": "tebibyte", "m/s": "meter per second", "m/s^2": "meter per second squared", "zł": "zloty",
    "kn": "knot", "kts": "knot", "kgs": "kilogram", "kms": "kilometer", "st": "stone", "Å": "angstrom", "dpi": "dot per inch",
    "ppi": "pixel per inch", "Nm": "newton meter", "N·m": "newton meter",
}  # fmt: skip


def _all() -> dict[str, str]:
    units = dict(_OTHERS)
    for sign, name, prefixes in _WITH_PREFIXES:
        if sign not in _NOT_ALONE:
            units[sign] = name
        units |= {prefix + sign: _PREFIXES[prefix] + name for prefix in prefixes}
    units |= {"kΩ": "kilohm", "MΩ": "megohm"}
    units |= {sign + dot: name for sign, name in _CUSTOMARY.items() for dot in ("", ".")} | {"fl. oz.": "fluid ounce"}
    for sign, name in _AREAS.items():
        units |= {f"sq{dot} {sign}{dot}": f"square {name}" for dot in ("", ".")}
        units |= {f"cu{dot} {sign}{dot}": f"cubic {name}" for dot in ("", ".")}
    for sign in ("mm", "cm", "m", "km", "ft", "in", "mi"):
        units |= {f"{sign}{power}": f"{name} {units[sign]}" for power, name in (("^2", "square"), ("^3", "cubic"))}
    for sign in ("mm", "cm", "m", "km", "ft"):
        units |= {f"{sign}2": f"square {units[sign]}", f"{sign}3": f"cubic {units[sign]}"}
    return units


UNITS = _all()
# What may stand below a slash alone.
PER = {
    **{
        u: UNITS[u]
        for u in ("kg g mg lb km m cm mm l L ml mL dL h hr s sec min m^2 m^3 cm^2 cm^3 km^2 ft^2 mol ha V kWh").split()
    },
    **{"mo": "month", "yr": "year", "wk": "week", "oz": "ounce", "s^2": "second squared"},
    **{word: word for word in "second minute hour day night week month year person mile head unit page share".split()},
}
UNCOUNTED = frozenset("percent dozen hundredweight kelvin lux stone".split()) | {"per mille", "^c ^c", "^r ^p ^m"}
# Letters that are units only beside a figure ("5N"): one that stands alone is seldom a unit.
BARE_LETTERS = frozenset("s h t L N J K M".split())


def _one_of(signs: Iterable[str]) -> str:
    return "|".join(map(re.escape, sorted(signs, key=len, reverse=True)))


# Only "2in" is inches; "2 in" is seldom. So with "min.", which ends a sentence.
UNIT = rf"(?:(?:{_one_of(sign for sign in UNITS if sign != 'in')}|(?<=\d)in)(?:/(?:{_one_of(PER)})(?![\w^])){{0,2}})"


def unit_name(unit: str, count: str) -> str:
    """Return the name of a unit after a number: `5`, `mg/dL` as milligrams per deciliter."""
    name = UNITS.get(unit)
    if name is None:
        unit, _, below = unit.rpartition("/")
        return f"{unit_name(unit, count)} per {PER[below]}"
    return name if name in UNCOUNTED or name.endswith("hertz") else say.plural(name, count)
