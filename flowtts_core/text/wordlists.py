"""What English writes short: abbreviations, units, symbols and capital words, with how they are read."""

from __future__ import annotations

# Read thus before a name or wherever they stand; the full stop belongs to them.
ABBREVIATIONS = {
    "Mr": "mister", "Mrs": "missus", "Ms": "miss", "Messrs": "messieurs", "Mme": "madame", "Mlle": "mademoiselle",
    "Drs": "doctors", "Prof": "professor", "Profs": "professors", "Capt": "captain", "Cpt": "captain", "Col": "colonel",
    "Gen": "general", "Lt": "lieutenant", "Sgt": "sergeant", "Maj": "major", "Cmdr": "commander", "Adm": "admiral",
    "Cpl": "corporal", "Pvt": "private", "Rev": "reverend", "Revd": "reverend", "Hon": "honorable", "Gov": "governor",
    "Sen": "senator", "Rep": "representative", "Pres": "president", "Supt": "superintendent", "Insp": "inspector",
    "Jr": "junior", "Sr": "senior", "Esq": "esquire", "Co": "company", "Inc": "incorporated", "Ltd": "limited",
    "Corp": "corporation", "Bros": "brothers", "Dept": "department", "Univ": "university", "Assn": "association",
    "Ave": "avenue", "Blvd": "boulevard", "Rd": "road", "Mt": "mount", "Ft": "fort", "Pt": "point", "Hwy": "highway",
    "Jan": "January", "Feb": "February", "Apr": "April", "Aug": "August", "Sept": "September", "Sep": "September",
    "Oct": "October", "Nov": "November", "Dec": "December", "Mon": "Monday", "Tue": "Tuesday", "Tues": "Tuesday",
    "Wed": "Wednesday", "Thu": "Thursday", "Thur": "Thursday", "Thurs": "Thursday", "Fri": "Friday",
    "etc": "et cetera", "vs": "versus", "viz": "namely", "cf": "compare", "approx": "approximately", "ca": "circa",
    "al": "al", "est": "established", "dept": "department", "govt": "government", "min": "minimum",
    "max": "maximum", "Vol": "volume", "vol": "volume", "vols": "volumes", "Ch": "chapter", "ch": "chapter",
    "ed": "edition", "eds": "editors", "trans": "translated", "Esqs": "esquires", "Bart": "baronet",
    "e.g": "for example", "i.e": "that is", "a.k.a": "also known as", "Ph.D": "^p ^h ^d", "p.s": "^p ^s",
}  # fmt: skip
# Only before a number.
BEFORE_NUMBER = {
    "No": "number", "no": "number", "Nos": "numbers", "nos": "numbers", "p": "page", "pp": "pages", "Fig": "figure",
    "fig": "figure", "figs": "figures", "Figs": "figures", "Sec": "section", "sec": "section", "Art": "article",
    "art": "article", "Eq": "equation", "eq": "equation", "Pt": "part", "pt": "part", "Mar": "March", "Jun": "June",
    "Jul": "July", "Ex": "exhibit", "c": "circa", "v": "volume", "Tel": "telephone", "tel": "telephone", "l": "line",
    "ll": "lines",
}  # fmt: skip
# Without their full stop, as the British write them.
BARE = frozenset("Mr Mrs Ms Dr Messrs Mme Mlle Prof Capt Lt Sgt Jr Sr Ltd Inc vs etc".split())

UNITS = {
    "km": "kilometer", "m": "meter", "cm": "centimeter", "mm": "millimeter", "nm": "nanometer", "µm": "micrometer",
    "μm": "micrometer", "kg": "kilogram", "g": "gram", "mg": "milligram", "lb": "pound", "lbs": "pound", "oz": "ounce",
    "t": "ton", "mi": "mile", "yd": "yard", "yds": "yard", "ft": "foot", "in.": "inch", "ft.": "foot", "lbs.": "pound",
    "lb.": "pound", "oz.": "ounce", "yds.": "yard", "sq ft": "square foot", "l": "liter", "L": "liter",
    "ml": "milliliter", "mL": "milliliter", "cl": "centiliter", "mph": "mile an hour", "kph": "kilometer an hour",
    "km/h": "kilometer an hour", "m/s": "meter per second", "kB": "kilobyte", "KB": "kilobyte", "MB": "megabyte",
    "GB": "gigabyte", "TB": "terabyte", "Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz",
    "W": "watt", "kW": "kilowatt", "MW": "megawatt", "GW": "gigawatt", "kWh": "kilowatt hour", "V": "volt",
    "kV": "kilovolt", "mA": "milliamp", "dB": "decibel", "ms": "millisecond", "s": "second", "sec": "second",
    "secs": "second", "min": "minute", "mins": "minute", "h": "hour", "hr": "hour", "hrs": "hour", "ha": "hectare",
    "m²": "square meter", "km²": "square kilometer", "cm²": "square centimeter", "m³": "cubic meter",
    "cm³": "cubic centimeter", "cc": "^c ^c", "rpm": "^r ^p ^m", "px": "pixel", "kcal": "kilocalorie", "cal": "calorie",
    "°C": "degree Celsius", "°F": "degree Fahrenheit", "°": "degree", "º": "degree", "°K": "degree Kelvin",
    "%": "percent", "‰": "per mille", "kbps": "kilobit per second", "Mbps": "megabit per second", "fps": "frame per second",
    "K": "kelvin", "Pa": "pascal", "kPa": "kilopascal", "N": "newton", "J": "joule", "kJ": "kilojoule", "bpm": "beat per minute",
}  # fmt: skip
UNCOUNTED = frozenset(
    ("percent", "per mille", "^c ^c", "^r ^p ^m", "kelvin", "hertz", "kilohertz", "megahertz", "gigahertz")
)

SYMBOLS = {
    "&": "and", "+": "plus", "=": "equals", "@": "at", "%": "percent", "°": "degrees", "×": "times", "±": "plus or minus",
    "÷": "divided by", "§": "section", "√": "square root of", "≈": "about", "≠": "is not equal to", "≤": "at most",
    "≥": "at least", "∞": "infinity", "€": "euros", "£": "pounds", "$": "dollars", "¢": "cents", "¥": "yen", "−": "minus",
    "→": "to", "²": "squared", "³": "cubed",
}  # fmt: skip

VULGAR = {
    "¼": (1, 4), "½": (1, 2), "¾": (3, 4), "⅓": (1, 3), "⅔": (2, 3), "⅕": (1, 5), "⅖": (2, 5), "⅗": (3, 5), "⅘": (4, 5),
    "⅙": (1, 6), "⅚": (5, 6), "⅛": (1, 8), "⅜": (3, 8), "⅝": (5, 8), "⅞": (7, 8), "⅐": (1, 7), "⅑": (1, 9), "⅒": (1, 10),
}  # fmt: skip

# Words before a Roman numeral that is a number, and names before one that is an ordinal.
NUMBERED = frozenset(
    "chapter book part volume vol act scene section article title appendix figure fig table phase type class war canto "
    "psalm stage level lesson letter no number grade mark plate case exhibit unit series episode apollo".split()
)
RULERS = frozenset(
    "henry louis george charles james william edward richard elizabeth mary john paul pius leo gregory benedict clement "
    "innocent alexander nicholas peter philip ferdinand frederick napoleon catherine robert otto rameses ramses ptolemy "
    "albert alfonso boniface urban adrian sixtus julius victor wilhelm francis gustav christian haakon margaret anne "
    "leopold ludwig maximilian malcolm david darius xerxes cyrus artaxerxes thutmose amenhotep seti leonidas constantine "
    "king queen pope emperor tsar czar".split()
)

SPELLED = frozenset(
    "US PO UK UN EU USA USSR FBI CIA BBC CBS NBC ABC CNN NYC LA DC TV PC CD DVD AI ID HR PR VIP CEO CFO CTO PhD MP PM "
    "FM AD BC BCE CE IQ OK UFO HIV DNA RNA ATM GPS LED USB URL API CPU GPU RAF IRA NHS MIT UCLA IBM ASAP NRA IRS SUV "
    "GOP DIY FAQ HTML HTTP PDF SMS SOS POW WWI WWII EKG ESP GDP IOU IPO".split()
)
READ_AS_WORDS = frozenset(
    "NASA NATO UNESCO UNICEF AIDS OPEC LASER RADAR SONAR SCUBA NAFTA ASCII RAM ROM PIN SIM GIF JPEG SWAT NORAD COVID "
    "FEMA OSHA FIFA UEFA POTUS SCOTUS NASDAQ YOLO SARS DARPA CERN LIDAR".split()
)
