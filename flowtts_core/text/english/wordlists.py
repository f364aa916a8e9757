"""Abbreviations, units, symbols and capital words of English, with their readings."""

from __future__ import annotations

# Read so before a name or everywhere. The full stop belongs to them.
ABBREVIATIONS = {
    "Mr": "mister", "Mrs": "missus", "Ms": "miss", "Messrs": "messieurs", "Mme": "madame", "Mlle": "mademoiselle",
    "Mmes": "mesdames", "Mlles": "mademoiselles", "Fredk": "Frederick", "Alexr": "Alexander", "Andw": "Andrew",
    "Archd": "Archibald", "Ens": "ensign", "Gt": "great", "Pfc": "private first class", "Spc": "specialist",
    "Calif": "California",
    "Drs": "doctors", "Prof": "professor", "Profs": "professors", "Capt": "captain", "Cpt": "captain", "Col": "colonel",
    "Gen": "general", "Lt": "lieutenant", "Sgt": "sergeant", "Maj": "major", "Cmdr": "commander", "Adm": "admiral",
    "Lieut": "lieutenant", "Comdr": "commander", "Bp": "bishop", "Abp": "archbishop", "Ste": "saint", "Rt": "right",
    "Wm": "William", "Chas": "Charles", "Geo": "George", "Thos": "Thomas", "Jas": "James", "Jno": "John",
    "Robt": "Robert", "Benj": "Benjamin", "Edw": "Edward", "Jos": "Joseph", "Saml": "Samuel", "Danl": "Daniel",
    "Inf": "infantry", "Div": "division", "Regt": "regiment", "Bn": "battalion", "Bde": "brigade", "Cav": "cavalry",
    "Abn": "airborne", "Armd": "armored", "Sqn": "squadron", "Brig": "brigadier",
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
    "max": "maximum", "Vol": "volume", "vol": "volume", "vols": "volumes", "Vols": "volumes", "Ch": "chapter",
    "ch": "chapter",
    "ed": "edition", "eds": "editors", "trans": "translated", "Esqs": "esquires", "Bart": "baronet",
    "e.g": "for example", "i.e": "that is", "a.k.a": "also known as", "Ph.D": "^p ^h ^d", "p.s": "^p ^s",
}  # fmt: skip
# Only before a number.
BEFORE_NUMBER = {
    "No": "number", "no": "number", "Nos": "numbers", "nos": "numbers", "p": "page", "pp": "pages", "Fig": "figure",
    "fig": "figure", "figs": "figures", "Figs": "figures", "Sec": "section", "sec": "section", "Art": "article",
    "art": "article", "Eq": "equation", "eq": "equation", "Pt": "part", "pt": "part", "Mar": "March", "Jun": "June",
    "Jul": "July", "Ex": "exhibit", "c": "circa", "v": "volume", "Tel": "telephone", "tel": "telephone", "l": "line",
    "ll": "lines", "Bk": "book", "bk": "book", "Ps": "Psalm", "Sc": "scene", "Op": "opus", "op": "opus",
    "para": "paragraph", "fol": "folio", "fn": "footnote", "Apt": "apartment", "apt": "apartment", "Ste": "suite", "Rm": "room",
    "Bldg": "building", "Fl": "floor", "Rte": "route", "Rt": "route", "hwy": "highway", "Ext": "extension", "ext": "extension",
    "avg": "average", "Ref": "reference", "ref": "reference", "Tab": "table", "Chap": "chapter", "chap": "chapter",
    "Chaps": "chapters", "chaps": "chapters", "Lat": "latitude", "lat": "latitude", "Pl": "plate", "b": "born", "d": "died",
    "fl": "flourished", "sc": "scene",
}  # fmt: skip
# Without a full stop, as in British English.
BARE = frozenset("Mr Mrs Ms Dr Messrs Mme Mlle Prof Capt Lt Sgt Jr Sr Ltd Inc vs etc".split())
# For splitting sentences: abbreviations before a name, so that a capital after the full stop continues the sentence; and
# those that may end a sentence, but only before a word of STARTERS.
BEFORE_NAME = frozenset(
    "Mr Mrs Ms Messrs Mme Mlle Dr Drs Prof Profs Rev Revd Hon Rt Capt Cpt Col Gen Lt Lieut Sgt Maj Cmdr Comdr Adm Cpl Pvt "
    "Gov Sen Rep Pres Supt Insp St Ste Mt Ft Fr Bp Abp Sr Wm Chas Geo Thos Jas Jno Robt Benj Edw Jos Saml Danl Fredk Alexr "
    "Andw Archd Brig Ens Pfc Spc Gt Mmes Mlles Pt Br vs viz cf Cf ca".split()
)
MAY_END = frozenset("Bros Dept Univ Assn Co Corp Inc Ltd Inf Div Regt Bn Bde Cav Abn Armd Sqn".split())
# Words that begin a sentence rather than continue a name after an abbreviation or an initial.
STARTERS = frozenset(
    "The A An He She It They We You I Then But And So In On At There This That When While If As His Her Its Their Our My "
    "Your Who What Where Why How For From With By Or Now Yet Still All Some After Before Since Though Although Perhaps "
    "These Those Here Even Every Each Never Meanwhile However Not To Of".split()
)
# Codes of states that stand before a postcode and are no words in capitals.
STATES = frozenset(
    "AL AK AZ AR CA CO CT DE DC FL GA HI IA ID IL KS KY LA MA MD MI MN MS MO MT NE NV NH NJ NM NY NC ND OH PA RI SC SD TN TX UT "
    "VT VA WA WV WI WY".split()
)
NUMBER_WORDS = frozenset(
    "One Two Three Four Five Six Seven Eight Nine Ten Eleven Twelve Thirteen Fourteen Fifteen Sixteen Seventeen Eighteen "
    "Nineteen Twenty Thirty Forty Fifty Sixty Seventy Eighty Ninety".split()
)
# Books of scripture: "Gen. 3:15", "John 3:16". Abbreviations that are nothing else before chapter and verse.
SCRIPTURE = {
    "Gen": "Genesis", "Ex": "Exodus", "Exod": "Exodus", "Lev": "Leviticus", "Num": "Numbers", "Deut": "Deuteronomy",
    "Josh": "Joshua", "Judg": "Judges", "Sam": "Samuel", "Chron": "Chronicles", "Neh": "Nehemiah", "Ps": "Psalm",
    "Pss": "Psalms", "Prov": "Proverbs", "Eccl": "Ecclesiastes", "Isa": "Isaiah", "Jer": "Jeremiah", "Ezek": "Ezekiel",
    "Dan": "Daniel", "Hos": "Hosea", "Mic": "Micah", "Zech": "Zechariah", "Mal": "Malachi", "Matt": "Matthew",
    "Mk": "Mark", "Lk": "Luke", "Jn": "John", "Rom": "Romans", "Cor": "Corinthians", "Gal": "Galatians",
    "Eph": "Ephesians", "Phil": "Philippians", "Col": "Colossians", "Thess": "Thessalonians", "Tim": "Timothy",
    "Heb": "Hebrews", "Jas": "James", "Pet": "Peter", "Rev": "Revelation",
}  # fmt: skip
SCRIPTURE_BOOKS = frozenset(
    "psalm psalms kings ruth ezra esther job joel amos obadiah jonah nahum habakkuk zephaniah haggai mark luke acts titus "
    "philemon jude song songs lamentations tobit sirach".split()
) | {name.lower() for name in SCRIPTURE.values()}

SYMBOLS = {
    "&": "and", "+": "plus", "=": "equals", "@": "at", "%": "percent", "°": "degrees", "×": "times", "±": "plus or minus",
    "÷": "divided by", "§": "section", "√": "square root of", "≈": "about", "≠": "is not equal to", "≤": "at most",
    "≥": "at least", "∞": "infinity", "−": "minus", "→": "to", "←": "from", "↔": "to and from", "⇒": "implies",
    "∑": "sum", "∏": "product", "∫": "integral", "∂": "partial", "∇": "del", "∆": "delta", "∈": "in", "∉": "not in",
    "∪": "union", "∩": "intersection", "⊂": "within", "∀": "for all", "∃": "there exists", "∝": "is proportional to",
    "≡": "is identical to", "∴": "therefore", "∵": "because", "⋅": "times", "∅": "the empty set", "¬": "not", "¶": "paragraph",
    "♯": "sharp", "♭": "flat", "♮": "natural", "∼": "about", "≅": "is about equal to", "∠": "angle", "⊥": "perpendicular to",
}  # fmt: skip

VULGAR = {
    "¼": (1, 4), "½": (1, 2), "¾": (3, 4), "⅓": (1, 3), "⅔": (2, 3), "⅕": (1, 5), "⅖": (2, 5), "⅗": (3, 5), "⅘": (4, 5),
    "⅙": (1, 6), "⅚": (5, 6), "⅛": (1, 8), "⅜": (3, 8), "⅝": (5, 8), "⅞": (7, 8), "⅐": (1, 7), "⅑": (1, 9), "⅒": (1, 10),
}  # fmt: skip

# Words before a Roman numeral that is a number, and names before one that is an ordinal.
NUMBERED = frozenset(
    "chapter book part volume vol act scene section article title appendix figure fig table phase type class war canto "
    "vols psalm stage level lesson letter no number grade mark plate case exhibit unit series episode apollo bowl ch bk sc sec "
    "pt art chapters books parts acts volumes scenes sections page pages p pp chap chaps types stages phases "
    "classes levels volumes "
    "titles letters".split()
)
RULERS = frozenset(
    "henry louis george charles james william edward richard elizabeth mary john paul pius leo gregory benedict clement "
    "innocent alexander nicholas peter philip ferdinand frederick napoleon catherine robert otto rameses ramses ptolemy "
    "albert alfonso boniface urban adrian sixtus julius victor wilhelm francis gustav christian haakon margaret anne "
    "leopold ludwig maximilian malcolm david darius xerxes cyrus artaxerxes thutmose amenhotep seti leonidas constantine "
    "ivan vladimir selassie umberto selim murad mehmed suleiman bayezid harald harold olaf olav eric erik magnus baldwin conrad "
    "rudolf lothair michael manuel basil theodosius valentinian justinian tiberius felipe juan carlos pedro afonso sancho jaime "
    "casimir sigismund ladislaus stephen matthias wenceslaus augustus antiochus seleucus mithridates demetrius canute edmund "
    "ethelred llywelyn rama kamehameha isabella matilda elisabeth frederik oscar karl carl joseph franz josef abbas akbar shapur "
    "abdullah faisal hussein hassan mohammed menelik tewodros eugenius celestine honorius martin callixtus gelasius hadrian "
    "king queen pope emperor tsar czar".split()
)
# Capitals that could be numerals and are letters: nowhere a number, and a number only after chapter, part and the like.
NO_NUMERALS = frozenset("MD DI CV MC MIX MM CC CD DM DC DVI MI ML DL CM CL DIV MV LCD DID MILD".split())
SELDOM_NUMERALS = NO_NUMERALS | {"XL", "LV", "LI"}
# Interjections: letters that the phonemizer would spell, and a word that sounds like them.
SOUNDS = {
    "sh{2,}|sh(?=[!,.])": "shush", "ps{2,}t": "pist", "br{2,}": "burr", "gr{2,}": "gurr", "hm{2,}|mhm+|m{3,}": "hmm",
    "tsk": "tisk", "z{3,}": "zuz", "pf{2,}t?": "puff",
}  # fmt: skip

SPELLED = frozenset(
    "US PO UK UN EU USA USSR FBI CIA BBC CBS NBC ABC CNN NYC LA DC TV PC CD DVD AI ID HR PR VIP CEO CFO CTO PhD MP PM "
    "FM AD BC BCE CE IQ OK UFO HIV DNA RNA ATM GPS LED USB URL API CPU GPU RAF IRA NHS MIT UCLA IBM ASAP NRA IRS SUV "
    "ISBN ISSN GOP DIY FAQ HTML HTTP PDF SMS SOS POW WWI WWII EKG ESP GDP IOU IPO IP AKA".split()
)
READ_AS_WORDS = frozenset(
    "NASA NATO UNESCO UNICEF AIDS OPEC LASER RADAR SONAR SCUBA NAFTA ASCII RAM ROM PIN SIM GIF JPEG SWAT NORAD COVID "
    "FEMA OSHA FIFA UEFA POTUS SCOTUS NASDAQ YOLO SARS DARPA CERN LIDAR".split()
)
