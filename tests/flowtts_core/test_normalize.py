"""What is written and how it is read: a table of truths."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flowtts_core.text.frontends.gruut import GruutPhonemizer
from flowtts_core.text.normalize import normalize

KNOWS = GruutPhonemizer().knows

READINGS = [
    # numbers
    ("I saw 3 men.", "I saw three men."),
    ("1,234,567", "one million two hundred and thirty four thousand five hundred and sixty seven"),
    ("3.14", "three point one four"),
    (".5", "point five"),
    ("-5 degrees", "minus five degrees"),
    ("agent 007", "agent zero zero seven"),
    ("2.0.1", "two point zero point one"),
    ("1500 men", "fifteen hundred men"),
    ("3000 men", "three thousand men"),
    ("the 21st, 2nd and 103rd", "the twenty first, second and one hundred and third"),
    ("a 5-year-old", "a five year old"),
    # years
    ("born in 1984.", "born in nineteen eighty four."),
    ("in 1066", "in ten sixty six"),
    ("in 1905", "in nineteen oh five"),
    ("by 2024", "by twenty twenty four"),
    ("in 2000", "in two thousand"),
    ("the 1900s", "the nineteen hundreds"),
    ("the 1960s and '70s", "the nineteen sixties and seventies"),
    ("1914–18", "nineteen fourteen to eighteen"),
    ("1914-1918", "nineteen fourteen to nineteen eighteen"),
    ("c. 1850", "circa eighteen fifty"),
    # money
    ("$3.50", "three dollars and fifty cents"),
    ("$1", "one dollar"),
    ("$0.99", "ninety nine cents"),
    ("£2m", "two million pounds"),
    ("$3.5 billion", "three point five billion dollars"),
    ("5¢", "five cents"),
    ("€20 or 20€", "twenty euros or twenty euros"),
    ("£1.01", "one pound and one penny"),
    ("saved $1,500, as", "saved one thousand five hundred dollars, as"),
    ("£4 10s. 6d.", "four pounds ten shillings six pence."),
    ("US$20", "twenty U S dollars"),
    ("$5/kg", "five dollars per kilogram"),
    # times and dates
    ("at 3:45 pm", "at three forty five P M"),
    ("10:00", "ten o'clock"),
    ("at 3:05", "at three oh five"),
    ("at 11:50 a.m. and", "at eleven fifty A M and"),
    ("at 8 p.m.", "at eight P M."),
    ("5 p.m. Then", "five P M. Then"),
    ("13:05:20", "thirteen oh five and twenty seconds"),
    ("on November 22, 1963", "on November twenty second, nineteen sixty three"),
    ("20 March 1915", "the twentieth of March nineteen fifteen"),
    ("the 20 March", "the twentieth of March"),
    ("22nd August", "twenty second August"),
    ("Sept. 11, 2001", "September eleventh, two thousand and one"),
    ("2024-03-15", "March fifteenth twenty twenty four"),
    ("3/15/2024", "March fifteenth twenty twenty four"),
    # fractions, percent, ranges
    ("1/2", "one half"),
    ("3/4 of it", "three quarters of it"),
    ("2 1/2 miles", "two and a half miles"),
    ("1½ miles", "one and a half miles"),
    ("⅔", "two thirds"),
    ("7/8", "seven eighths"),
    ("5/0", "five over zero"),
    ("50%", "fifty percent"),
    ("3–5%", "three to five percent"),
    ("pages 10-12", "pages ten to twelve"),
    ("16:9", "sixteen to nine"),
    ("24/7", "twenty four seven"),
    # digits
    ("call 555-1234", "call five five five, one two three four"),
    ("C2766", "C two seven six six"),
    ("PO Box 2915", "P O Box two nine one five"),
    ("214 Neely Street", "two fourteen Neely Street"),
    (".45 caliber", "forty five caliber"),
    # Roman numerals
    ("Chapter IV", "Chapter four"),
    ("Chapter I", "Chapter one"),
    ("Henry VIII was", "Henry the eighth was"),
    ("World War II", "World War two"),
    ("Pope John Paul II", "Pope John Paul the second"),
    ("Act III, scene ii", "Act three, scene two"),
    ("the XIV century", "the fourteenth century"),
    ("IX", "nine"),
    ("I. Introduction", "one. Introduction"),
    ("I am here, and so am I.", "I am here, and so am I."),
    ("Yes, I did.", "Yes, I did."),
    # abbreviations
    ("Mr. and Mrs. Smith", "mister and missus Smith"),
    ("Mr Smith", "mister Smith"),
    ("Dr. Jones", "doctor Jones"),
    ("Main St. in St. Louis", "Main street in saint Louis"),
    ("King Dr. near", "King drive near"),
    ("e.g. apples, i.e. fruit", "for example apples, that is fruit"),
    ("cats vs. dogs", "cats versus dogs"),
    ("and so on, etc.", "and so on, et cetera."),
    ("No. 7", "number seven"),
    ("No. I said no.", "No. I said no."),
    ("Prof. Lee and Capt. Cook", "professor Lee and captain Cook"),
    ("Smith & Co. Ltd.", "Smith and company limited."),
    ("vol. 2, pp. 10-12", "volume two, pages ten to twelve"),
    ("Edwin A. Walker", "Edwin A Walker"),
    # units
    ("5 km and 10 kg", "five kilometers and ten kilograms"),
    ("1 km", "one kilometer"),
    ("20°C", "twenty degrees Celsius"),
    ("1°", "one degree"),
    ("3 mph", "three miles an hour"),
    ("6 ft. tall", "six feet tall"),
    ("5'10\" tall", "five foot ten tall"),
    ("100 m²", "one hundred square meters"),
    # symbols
    ("you & me", "you and me"),
    ("2 + 2 = 4", "two plus two equals four"),
    ("3 × 4", "three times four"),
    ("3 x 4", "three times four"),
    ("±2", "plus or minus two"),
    ("#1 and #flow", "number one and hashtag flow"),
    ("the α particle", "the alpha particle"),
    # capitals
    ("the FBI said", "the F B I said"),
    ("the U.S.A. and", "the U S A and"),
    ("the U.S. Army", "the U S Army"),
    ("NASA said", "NASA said"),
    ("THE TIME MACHINE", "THE TIME MACHINE"),
    ("it was NOT there", "it was NOT there"),
    ("COVID-19", "COVID nineteen"),
    ("H2O", "H two O"),
    # addresses
    ("me@example.com", "me at example dot com"),
    ("https://www.example.org/news.", "example dot org slash news."),
    # the pronoun is no numeral
    ("For my part I think he is right.", "For my part I think he is right."),
    ("In part I agree", "In part I agree"),
    ("the book I read", "the book I read"),
    ("The scene I remember", "The scene I remember"),
    ("Every chapter I write", "Every chapter I write"),
    ("the volume I hold", "the volume I hold"),
    ("In that case I will go with Mr. Smith", "In that case I will go with mister Smith"),
    ("The letter I wrote to Mrs. Bell", "The letter I wrote to missus Bell"),
    ('"Oh, Mary, I cannot go to St. Ives"', '"Oh, Mary, I cannot go to saint Ives"'),
    ("John, I owe you $5", "John, I owe you five dollars"),
    ("He played his part. I paid $5", "He played his part. I paid five dollars"),
    ("Charles I was beheaded in 1649.", "Charles the first was beheaded in sixteen forty nine."),
    ("Queen Elizabeth I was crowned", "Queen Elizabeth the first was crowned"),
    ("the reign of James I., who", "the reign of James the first, who"),
    ("Part I", "Part one"),
    ("Part I begins", "Part one begins"),
    ("World War I ended", "World War one ended"),
    ("Vol. I of it", "volume one of it"),
    ("CHAPTER I", "CHAPTER one"),
    ("CHAPTER I. Down the Rabbit-Hole", "CHAPTER one. Down the Rabbit Hole"),
    ("CHAPTER I DOWN THE HOLE", "CHAPTER one DOWN THE HOLE"),
    # letters that are no numerals, and numerals
    ("Appendix C", "Appendix C"),
    ("Exhibit C, grade C", "Exhibit C, grade C"),
    ("Section C and Section V", "Section C and Section five"),
    ("Class D and Class M", "Class D and Class M"),
    ("the letter X and letter D", "the letter X and letter D"),
    ("John C Calhoun met David L Smith", "John C Calhoun met David L Smith"),
    ("Mary L., aged 5", "Mary L, aged five"),
    ("Malcolm X spoke", "Malcolm X spoke"),
    ("Leo X spoke", "Leo the tenth spoke"),
    ("Detroit, MI 48201", "Detroit, M I four eight two zero one"),
    ("Size XL", "Size X L"),
    ("Chapter XL", "Chapter forty"),
    ("Super Bowl XL", "Super Bowl forty"),
    ("Python ML library", "Python M L library"),
    ("LV", "L V"),
    ("DVI", "D V I"),
    ("An IV drip", "An I V drip"),
    ("the IV line, parts II and IV", "the I V line, parts two and four"),
    ("Star Trek VI", "Star Trek six"),
    ("Henry VIII's wives", "Henry the eighth's wives"),
    ("Elizabeth II's reign", "Elizabeth the second's reign"),
    ("Louis XVI's wife", "Louis the sixteenth's wife"),
    ("Charles I's head", "Charles the first's head"),
    ("World War II's end", "World War two's end"),
    # exponents and note marks
    ("10⁶ years", "ten to the power of six years"),
    ("10²", "ten squared"),
    ("10^6 and 10⁻³", "ten to the power of six and ten to the power of minus three"),
    ("x² + y²", "x squared plus y squared"),
    ("a³ = b", "A cubed equals b"),
    ("E=mc²", "E equals mc squared"),
    ("km²", "square kilometers"),
    ("5 km² or 1 m³", "five square kilometers or one cubic meter"),
    ("people per km²", "people per square kilometer"),
    ("3 m/s²", "three meters per second squared"),
    ("2ⁿ", "two to the power of n"),
    ("the treaty² was signed.¹² In 1984² it wasn't³ so", "the treaty was signed. In nineteen eighty four it wasn't so"),
    # abbreviations, in capitals too
    ("Lieut. Smith, Supt. Jones and Cmdr. Bond", "lieutenant Smith, superintendent Jones and commander Bond"),
    ("the Rt. Hon. Wm. Pitt", "the right honorable William Pitt"),
    ("Chas. and Geo. and Thos. Hardy", "Charles and George and Thomas Hardy"),
    ("Jas. or Jno. Adams", "James or John Adams"),
    ("Ft. Worth", "fort Worth"),
    ("Hwy. 5, Ch. 5, Eq. 3", "highway five, chapter five, equation three"),
    ("He went to No. Ten.", "He went to number Ten."),
    ("He said: No. Ten men came.", "He said: No. Ten men came."),
    ("DR. JEKYLL AND MR. HYDE", "doctor JEKYLL AND mister HYDE"),
    ("MRS. BENNET OF ST. IVES", "missus BENNET OF saint IVES"),
    ("NO. 5 IS ALIVE. NO. NEVER.", "number five IS ALIVE. NO. NEVER."),
    ("He lives at 5 Oak St. The house is red.", "He lives at five Oak street. The house is red."),
    ("On 3 June St. Paul's rang.", "On the third of June saint Paul's rang."),
    ("Then Dr. Brown came.", "Then doctor Brown came."),
    ("Plan C. It works.", "Plan C. It works."),
    ("Dr. A. J. Smith", "doctor A J Smith"),
    # what is broken up
    ("W-what? B-but I-I s-s-saw", "wuh what? buh but I I suh suh saw"),
    (
        "Th-that, C-certainly, G-go, K-know, Wh-where, A-and",
        "thuh that, suh certainly, guh go, nuh know, wuh where, a and",
    ),
    ("D-Day, X-ray, T-shirt, so-so, no-no", "D Day, X ray, T shirt, so so, no no"),
    ("C H A P T E R  O N E", "chapter one"),
    ("C H A P T E R O N E", "chapter one"),
    ("C H A P T E R  I V: T H E  E N D", "chapter four: the end"),
    ("the A B C D and F B I", "the A B C D and F B I"),
    # what is shouted
    ('He said "LET US GO" and left.', 'He said "LET US GO" and left.'),
    ('He said "GIVE IT TO US OR I AM LOST".', 'He said "GIVE IT TO US OR I AM LOST".'),
    ("The US ARMY, born IN THE US", "The U S ARMY, born IN THE U S"),
    ("I'LL soon make you dry enough!", "I'LL soon make you dry enough!"),
    ("YOU'LL see, IT'LL do, it ISN'T", "YOU'LL see, IT'LL do, it ISN'T"),
    ("Beauti—FUL SOUP!", "Beauti, FUL SOUP!"),
    ("HMM, SHH! PSST! BRR!", "hmm, shush! pist! burr!"),
    ("the MPs' pay, the FBI's men", "the M p's pay, the F B i's men"),
    # ranges
    ("$1–2 million was lost", "one to two million dollars was lost"),
    ("$10-$20", "ten to twenty dollars"),
    ("$2.50–$3.50", "two dollars and fifty cents to three dollars and fifty cents"),
    ("$500–$1 million", "five hundred dollars to one million dollars"),
    ("$1.2.3–4 million or $.00", "one point two point three to four million dollars or zero dollars"),
    ("10am-5pm", "ten A M to five P M"),
    ("9:00-17:00", "nine o'clock to seventeen hundred"),
    ("5–7 pm", "five to seven P M"),
    ("20 kHz–40 kHz", "twenty to forty kilohertz"),
    ("500 m–2 km", "five hundred meters to two kilometers"),
    ("10%-20%", "ten to twenty percent"),
    # amounts that stand before a noun
    ("a $20 bill and two $5 bills", "a twenty dollar bill and two five dollar bills"),
    ("the $64,000 question", "the sixty four thousand dollar question"),
    ("a $5 million deal", "a five million dollar deal"),
    ("a $5 or $10 bill", "a five dollar or ten dollar bill"),
    ("the $5 in his hand and a $20 of mine", "the five dollars in his hand and a twenty dollars of mine"),
    ("a 5 km run", "a five kilometer run"),
    ("the 5 km to town, the 5 km walked", "the five kilometers to town, the five kilometers walked"),
    ("a 12 V battery", "a twelve volt battery"),
    ("a 6 ft man", "a six foot man"),
    ("10-ft pole, 100-km trip, a 3-in. nail", "ten foot pole, one hundred kilometer trip, a three inch nail"),
    # a final s, and old money
    ("F-16s and MiG-29s", "F sixteens and MiG twenty nines"),
    ("100s of men, 1,000s of people", "hundreds of men, thousands of people"),
    ("It took 5s to fall, 9.58s in all", "It took five seconds to fall, nine point five eight seconds in all"),
    ("£3 4s 6d", "three pounds four shillings six pence"),
    ("7s 6d", "seven shillings six pence"),
    ("2s.", "two shillings."),
    ("a 6d. stamp", "a six penny stamp"),
    ("in the 60s. Then", "in the sixties. Then"),
    # years, scripture, small numbers
    ("A.D. 1066 or 1066 A.D.", "A D ten sixty six or ten sixty six A D."),
    ("Battle of Hastings (1066)", "Battle of Hastings , ten sixty six,"),
    ("(1066 men)", ", one thousand and sixty six men,"),
    ("Psalm 23:4", "Psalm twenty three four"),
    ("Matthew 5:3-10", "Matthew five three to ten"),
    ("Gen. 3:15 and Gen. Lee", "Genesis three fifteen and general Lee"),
    ("1 Cor. 13:4", "first Corinthians thirteen four"),
    ("John 3:16 or James, 5:30 pm", "John three sixteen or James, five thirty P M"),
    ("50/50", "fifty fifty"),
    ("1 000 000", "one million"),
    ("12 345 men", "twelve three hundred and forty five men"),
    ("2/3rds of it", "two thirds of it"),
    ("at 7:00 o'clock", "at seven o'clock"),
    ("6ft 2in tall", "six foot two tall"),
    # characters
    ("“Don’t,” she said", '"Don\'t," she said'),
    ("the ﬁnal oﬃce", "the final office"),
    ("wait--what", "wait, what"),
    ("wait — what", "wait, what"),
    ("Well... yes…", "Well, yes."),
    ("a\x00b\x07c", "abc"),
    ("Cafe\u0301", "Café"),
    ("non\u00adsense", "nonsense"),
]


def read_out(text: str, is_word: Callable[[str], bool] | None = None) -> str:
    """English text as it is read, for people: words as they are spoken, spelled letters as capitals."""
    out = ""
    glued = True  # nothing to part from
    for piece in normalize(text, "en-us", is_word):
        if piece.kind == "mark":
            out += piece.text
            glued = out.count('"') % 2 == 1 and piece.text == '"'
        elif piece.spoken:
            out += ("" if glued or out[-1:] == " " else " ") + (
                piece.text.upper() if piece.kind == "letter" else piece.text
            )
            glued = False
        elif piece.kind == "space" and out and out[-1] != " ":
            out += " "
    return out.strip()


@pytest.mark.parametrize(("written", "read"), READINGS, ids=[written for written, _ in READINGS])
def test_readings(written: str, read: str) -> None:
    assert read_out(written, KNOWS) == read


@pytest.mark.parametrize("text", [written for written, _ in READINGS])
def test_pieces_stand_in_order_within_the_text(text: str) -> None:
    pieces = normalize(text, "en-us", KNOWS)
    assert all(0 <= p.start <= p.end <= len(text) for p in pieces)
    assert all(
        a.end <= b.start or (a.start, a.end) == (b.start, b.end) for a, b in zip(pieces, pieces[1:], strict=False)
    )


def test_pieces_know_their_source() -> None:
    text = "It cost $3.50 in the ﬁrst week."
    spans = {p.text: text[p.start : p.end] for p in normalize(text) if p.spoken}
    assert spans["dollars"] == spans["cents"] == "$3.50"
    assert spans["first"] == "ﬁrst"
    assert spans["week"] == "week"


@pytest.mark.parametrize("text", ["20℃V", "②ǅ", "5㎞ǅ", "a²b³", "ǅ²", "№5㏂x", "10⁻³℉"])
def test_what_one_character_became_does_not_overlap(text: str) -> None:
    test_pieces_stand_in_order_within_the_text(text)


def test_other_languages_keep_their_superscripts() -> None:
    assert [p.text for p in normalize("5 m²", "fr") if p.spoken] == ["5", "m²"]


def test_plain_text_is_left_as_it_is() -> None:
    text = "It was a bright cold day in April, and the clocks were striking thirteen."
    pieces = normalize(text)
    assert [p.text for p in pieces if p.spoken] == text.replace(",", "").replace(".", "").split()
