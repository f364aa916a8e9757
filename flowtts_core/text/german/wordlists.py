"""Abbreviations, units, symbols and the words around numbers of German, with their readings."""

from __future__ import annotations

MONTHS = (
    "Januar", "Februar", "März", "April", "Mai", "Juni",
    "Juli", "August", "September", "Oktober", "November", "Dezember",
)  # fmt: skip
# Their full stop belongs to them. Where a blank may stand between two letters, one is written here.
ABBREVIATIONS = {
    "a. D": "außer Dienst", "a. M": "am Main", "d. h": "das heißt", "d. i": "das ist", "e. V": "^e ^v",
    "e. G": "^e ^g", "i. A": "im Auftrag", "i. d. R": "in der Regel", "i. V": "in Vertretung", "m. E": "meines Erachtens",
    "n. Chr": "nach Christus", "o. ä": "oder ähnlich", "o. Ä": "oder Ähnliches", "o. g": "oben genannt",
    "s. o": "siehe oben", "s. u": "siehe unten", "u. a": "unter anderem", "u. ä": "und ähnlich", "u. Ä": "und Ähnliches",
    "u. U": "unter Umständen", "u. v. a": "und viele andere", "u. v. m": "und vieles mehr", "v. a": "vor allem",
    "v. Chr": "vor Christus", "z. B": "zum Beispiel", "z. T": "zum Teil", "z. Zt": "zur Zeit", "z. Z": "zur Zeit",
    "u. s. w": "und so weiter", "v. l": "von links", "v. r": "von rechts", "s. a": "siehe auch", "z. Hd": "zu Händen",
    "Dipl.-Ing": "Diplomingenieur", "Abb": "Abbildung", "allg": "allgemein", "amtl": "amtlich", "bspw": "beispielsweise",
    "bzgl": "bezüglich", "bzw": "beziehungsweise", "ca": "circa", "dgl": "dergleichen", "dt": "deutsch",
    "ehem": "ehemalig", "eigtl": "eigentlich", "engl": "englisch", "etc": "et cetera", "evtl": "eventuell",
    "exkl": "exklusive", "franz": "französisch", "Frl": "Fräulein", "geb": "geboren", "gegr": "gegründet",
    "gest": "gestorben", "ggf": "gegebenenfalls", "griech": "griechisch", "Hbf": "Hauptbahnhof", "Hl": "heilige",
    "hl": "heilige", "Hr": "Herr", "Hrn": "Herrn", "Hrsg": "Herausgeber", "inkl": "inklusive", "ital": "italienisch",
    "Jh": "Jahrhundert", "Jhd": "Jahrhundert", "Jhs": "Jahrhunderts", "Kap": "Kapitel", "lat": "lateinisch",
    "Mio": "Millionen", "Mrd": "Milliarden", "MwSt": "Mehrwertsteuer", "Nr": "Nummer", "Nrn": "Nummern",
    "Prof": "Professor", "Dr": "Doktor", "Dres": "Doktores", "Ing": "Ingenieur", "Mag": "Magister", "med": "medizin",
    "sog": "sogenannt", "sogen": "sogenannt", "St": "Sankt", "Std": "Stunden", "Str": "Straße", "str": "straße",
    "südl": "südlich", "nördl": "nördlich", "östl": "östlich", "westl": "westlich", "Tel": "Telefon", "Tsd": "Tausend",
    "tägl": "täglich", "urspr": "ursprünglich", "usf": "und so fort", "usw": "und so weiter", "vgl": "vergleiche",
    "Vgl": "vergleiche", "vs": "versus", "zzgl": "zuzüglich", "zw": "zwischen", "Hauptm": "Hauptmann", "Chr": "Christus",
    "Jan": "Januar", "Jän": "Jänner", "Feb": "Februar", "Febr": "Februar", "Apr": "April", "Aug": "August",
    "Sept": "September", "Okt": "Oktober", "Nov": "November", "Dez": "Dezember", "Jg": "Jahrgang", "Wwe": "Witwe",
    "Bhf": "Bahnhof", "ff": "folgende", "gem": "gemäß", "Ges": "Gesellschaft", "Inh": "Inhaber", "Verf": "Verfasser",
}  # fmt: skip
# Only before a number; else they are words, or names' initials.
BEFORE_NUMBER = {
    "Abs": "Absatz", "Art": "Artikel", "Bd": "Band", "Bde": "Bände", "Fig": "Figur", "Pos": "Position", "S": "Seite",
    "Tab": "Tabelle", "Ziff": "Ziffer", "Zi": "Zimmer", "Anm": "Anmerkung", "Aufl": "Auflage", "Anh": "Anhang",
    "Kfz": "^k ^f ^z",
}  # fmt: skip
# Only after a number.
AFTER_NUMBER = {"Min": "Minuten", "Sek": "Sekunden", "Mill": "Millionen", "Aufl": "Auflage", "Jh": "Jahrhundert"}
# After these a sentence may end.
MAY_END = frozenset(
    "usw;usf;etc;a. D;e. V;e. G;n. Chr;v. Chr;o. ä;o. Ä;u. a;u. ä;u. Ä;u. s. w;u. v. a;u. v. m;s. o;s. u;Mio;Mrd;Jh;Jhd;Jhs;"
    "Str;str;Tsd;MwSt;Hbf;Bhf;ff;Std;Chr;dgl;Min;Sek".split(";")
)
# In one word or letters, and how they are said.
WORDS = {
    "Hbf": "Hauptbahnhof", "kWh": "Kilowattstunden", "GmbH": "^g ^m ^b ^h", "mbH": "^m ^b ^h", "KfW": "^k ^f ^w",
    "BMW": "^b ^m ^w", "Lkw": "^l ^k ^w", "Pkw": "^p ^k ^w", "Kfz": "^k ^f ^z", "Lkws": "^l ^k ^ws", "Pkws": "^p ^k ^ws",
    "StGB": "^s ^t ^g ^b", "DDR": "^d ^d ^r", "EUR": "Euro", "DM": "^d Mark", "CHF": "Schweizer Franken", "PhD": "^p ^h ^d",
    "BAföG": "Bafög", "IBAN": "Iban", "TÜV": "Tüff", "WLAN": "^w Lan", "Frl": "Fräulein", "Nr": "Nummer",
}  # fmt: skip
# Capitals that are read as a word.
READ_AS_WORDS = frozenset(
    "NATO UNO UNESCO UNICEF NASA ESA OPEC AIDS DAX PIN RAF SARS PISA GAU FIFA UEFA DIN ALDI IKEA LIDL DEKRA EDEKA".split()
)
UNITS = {
    "km/h": "Kilometer pro Stunde", "m/s": "Meter pro Sekunde", "km^2": "Quadratkilometer", "m^2": "Quadratmeter",
    "cm^2": "Quadratzentimeter", "mm^2": "Quadratmillimeter", "m^3": "Kubikmeter", "cm^3": "Kubikzentimeter",
    "km": "Kilometer", "m": "Meter", "dm": "Dezimeter", "cm": "Zentimeter", "mm": "Millimeter", "µm": "Mikrometer",
    "nm": "Nanometer", "kg": "Kilogramm", "g": "Gramm", "mg": "Milligramm", "t": "Tonne", "l": "Liter", "ml": "Milliliter",
    "cl": "Zentiliter", "hl": "Hektoliter", "ha": "Hektar", "h": "Stunde", "min": "Minute", "s": "Sekunde",
    "ms": "Millisekunde", "°C": "Grad Celsius", "°F": "Grad Fahrenheit", "°": "Grad", "K": "Kelvin", "W": "Watt",
    "kW": "Kilowatt", "MW": "Megawatt", "GW": "Gigawatt", "kWh": "Kilowattstunde", "MWh": "Megawattstunde", "V": "Volt",
    "kV": "Kilovolt", "A": "Ampere", "mA": "Milliampere", "Hz": "Hertz", "kHz": "Kilohertz", "MHz": "Megahertz",
    "GHz": "Gigahertz", "J": "Joule", "kJ": "Kilojoule", "kcal": "Kilokalorie", "cal": "Kalorie", "Pa": "Pascal",
    "hPa": "Hektopascal", "bar": "Bar", "dB": "Dezibel", "PS": "^p ^s", "kB": "Kilobyte", "MB": "Megabyte",
    "GB": "Gigabyte", "TB": "Terabyte", "Mbit/s": "Megabit pro Sekunde", "%": "Prozent", "‰": "Promille", "N": "Newton",
}  # fmt: skip
# Of units: those that are feminine, and have a plural of their own.
FEMININE_UNITS = frozenset(
    "Tonne Stunde Minute Sekunde Millisekunde Kilowattstunde Megawattstunde Kilokalorie Kalorie".split()
)
# Alone they are seldom a unit: "7 A", "5 N".
LONE_UNITS = frozenset("m g t l h s K W V A J N".split())
CURRENCIES = {
    "€": ("Euro", "Cent"), "EUR": ("Euro", "Cent"), "Euro": ("Euro", "Cent"), "$": ("Dollar", "Cent"),
    "US-$": ("US-Dollar", "Cent"), "£": ("Pfund", "Pence"), "¥": ("Yen", ""), "CHF": ("Schweizer Franken", "Rappen"),
    "Fr.": ("Franken", "Rappen"), "DM": ("^d Mark", ""), "₹": ("Rupien", ""),
}  # fmt: skip
SCALES = {
    "Mio": ("Million", "Millionen"), "Mill": ("Million", "Millionen"), "Million": ("Million", "Millionen"),
    "Millionen": ("Million", "Millionen"), "Mrd": ("Milliarde", "Milliarden"), "Milliarde": ("Milliarde", "Milliarden"),
    "Milliarden": ("Milliarde", "Milliarden"), "Tsd": ("tausend", "tausend"), "Billion": ("Billion", "Billionen"),
    "Billionen": ("Billion", "Billionen"),
}  # fmt: skip
SYMBOLS = {
    "&": "und", "+": "plus", "=": "gleich", "%": "Prozent", "‰": "Promille", "§": "Paragraph", "§§": "Paragraphen",
    "@": "at", "#": "Raute", "°": "Grad", "×": "mal", "÷": "geteilt durch", "±": "plus minus", "−": "minus",
    "€": "Euro", "$": "Dollar", "£": "Pfund", "¥": "Yen", "≈": "ungefähr", "<": "kleiner als", ">": "größer als",
    "≤": "kleiner gleich", "≥": "größer gleich", "→": "nach", "√": "Wurzel aus", "∞": "unendlich", "~": "ungefähr",
    "½": "ein halb", "¼": "ein viertel", "¾": "drei viertel", "⅓": "ein drittel", "⅔": "zwei drittel", "µ": "mü",
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "λ": "lambda", "π": "pi", "σ": "sigma", "Ω": "omega",
    "\\": "", "*": "", "^": "hoch",
}  # fmt: skip
RULERS = frozenset(
    "Ludwig Friedrich Wilhelm Karl Heinrich Otto Leopold Franz Joseph Josef Georg Albrecht Maximilian Rudolf Ferdinand "
    "Philipp Philip Elisabeth Katharina Maria Margarethe Napoleon Alexander Nikolaus Iwan Peter Paul Johannes Pius Benedikt "
    "Gregor Innozenz Clemens Leo Urban August Christian Gustav Johann Ernst Konrad Ramses Eduard Richard Jakob Adolf Erich "
    "Harald Olaf Boleslaw Sigismund Ottokar Eberhard Ulrich Hermann Bernhard Wenzel Alfons Victor Viktor".split()
)
NUMBERED = frozenset(
    "Kapitel Band Teil Akt Buch Abschnitt Stufe Typ Klasse Weltkrieg Szene Phase Kategorie Gruppe".split()
)
# The case of an ordinal number, from the word before it.
WEAK = frozenset(  # the dritten
    "am im vom zum zur beim dem den des einem einen eines diesem diesen jedem jeden seinem seinen seiner ihrem ihren ihrer "
    "meinem meinen meiner unserem unseren ab bis seit deren dessen jenem jenen kein keinem keinen ersten".split()
)
NOMINATIVE = frozenset(
    "der die das ins ans aufs diese dieser dieses jede jeder jedes eine jene jener jenes seine ihre meine".split()
)
PREPOSITIONS = frozenset(  # before "der" they tell that it is a dative: in der dritten Runde
    "in an auf mit von aus bei nach seit zu vor unter über neben zwischen hinter während wegen trotz ab innerhalb".split()
)
FEMININE_NOUNS = frozenset(
    "Auflage Klasse Staffel Liga Etage Runde Woche Minute Person Sinfonie Symphonie Strophe Folge Szene Generation Stunde "
    "Ausgabe Stufe Reihe Frage Armee Division Kompanie Republik Nacht Etappe Phase Hälfte Stelle Mannschaft Legion".split()
)
NEUTER_NOUNS = frozenset(
    "Jahrhundert Jahrtausend Jahrzehnt Kapitel Semester Quartal Buch Spiel Jahr Gebot Mal Lebensjahr Regiment Bataillon Korps "
    "Viertel Drittel Konzert Internationale Reich Stockwerk Obergeschoss Untergeschoss Programm Tor Kind Studienjahr".split()
)
MASCULINE_NOUNS = frozenset(
    "Platz Akt Teil Bezirk Tag Absatz Stock Satz Band Weltkrieg Spieltag Geburtstag Jahrestag Todestag Kreuzzug Klasse Rang "
    "Präsident Kongress Parteitag Lauf Monat Grad Abschnitt Wahlgang Advent Hauptsatz Senat Zug Bundestag Versuch".split()
)
