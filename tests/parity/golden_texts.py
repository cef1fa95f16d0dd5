"""Texts and label sets of the golden cases; how they are run is the business of make_golden.py."""

import random
import unicodedata
from typing import Final


def _nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


PLAIN: Final = (
    "Angela Merkel met Emmanuel Macron in Paris on Monday.",
    "Microsoft works",
    "new york city in john",
    "works at google",
    "in U.K. startup",
    "John in Paris",
    "the european central bank raised rates in frankfurt",
    "IBM AND NASA SIGNED A DEAL IN WASHINGTON, D.C.",
    "john works at google in new york city",
    "a",
    "I",
)

ACCENTS: Final = (
    "Zürich, São Paulo and Łódź are cities.",
    _nfd("Zürich, São Paulo and Łódź are cities."),
    "Nguyễn Văn An lives in Đà Nẵng",
    _nfd("Nguyễn Văn An lives in Đà Nẵng"),
    "in cafe\u0301s",
    "xa\u0301\u0301b is in Rene\u0301e's cafe\u0301",
    "Å Å A\u030a ÅNGSTRÖM",
    "\u0301John met in \u0301Paris",
    "Z\u0337\u0351a\u0334l\u0335\u0489g\u0336o in Paris\u20dd",
)

SCRIPTS: Final = (
    "東京都の鈴木さん met 王小明 in 北京。",
    "中華人民共和國",
    "서울에서 김철수 met Samsung",
    _nfd("서울에서 김철수 met Samsung"),
    "in 한국",
    "زار مُحَمَّد مدينة القاهرة",
    "ירושלים הִיא עיר, \u200fתל אביב\u200e!",
    "กรุงเทพมหานคร is Bangkok",
    "नई दिल्ली में नरेन्द्र मोदी",
    "Москва и Санкт-Петербург, Ёлкин",
    "Αθήνα ΟΔΥΣΣΕΥΣ ά",
)

EMOJI: Final = (
    "👨\u200d👩\u200d👧\u200d👦 in Rome",
    "🇫🇷 Paris 🇩🇪 Berlin 🇺🇸",
    "👍🏽 John 👩🏿\u200d🚀 NASA",
    "1\ufe0f\u20e3 2\ufe0f\u20e3 🏳\ufe0f\u200d🌈 Oslo",
    "york.😀",
    "york😀",
    "New😀York 😀😀 City",
)

INVISIBLE: Final = (
    "Mic\u00adro\u00adsoft in Lon\u00addon",
    "mic\u00adrosoft \u00ad is",
    "New\u200bYork\u200cCity\u200dHall \ufeffBerlin \u2060Rome",
    "John\u00a0Doe in New\u00a0York",
    "東京\u3000大阪 and\u3000Kyoto",
    "John\u2009Smith\u202fof\u2003Rome\u1680in\u205fItaly",
    "John\x00Smith in\x00 Paris",
    "\x01\x02 Rome \x7f\x80 Oslo",
    "Ber\ufffdlin \ufffd Rome",
    "\ue000 Rome \uffff Oslo \U0010ffff",
    "\u202eRome\u202c \u2066Oslo\u2069",
)

BLANKS: Final = (
    "",
    " ",
    "   ",
    "\t\n",
    "\u3000",
    "\u00a0",
    "\u200b",
    "\u00ad",
    "\x00",
    "John\tSmith\tLondon",
    "Paris\nJohn",
    "line one\r\nParis two\r\n",
    "\n\nBerlin\n",
    "Rome\x0bOslo\x0cBern\x85Riga\u2028Kyiv\u2029Lima",
    "John  Doe",
    "John   Doe    in  Paris     now",
    "  John Smith  ",
    " \t John",
    "John ",
)

PIECES: Final = (
    "Antidisestablishmentarianism in Llanfairpwllgwyngyll",
    "internationalization's hyperparameterisation",
    "w" * 100 + " in Rome",
    "w" * 101 + " in Rome",
    "Supercalifragilistic" * 6,
    "in " + "z\u0301" * 51 + " Rome",
)

LITERALS: Final = (
    "York [SEP] City",
    "<s>John</s> in Paris",
    "[CLS] Berlin [MASK] Rome [PAD]",
    "[UNK] and <unk> in Oslo",
    "John <mask>Smith<pad> Rome",
    "[sep] [ SEP ] [SEP][SEP]",
    "[MASK]",
    "</s>",
    "##soft ▁John Ġin",
)

FOLDING: Final = (
    "ﬁnance in ﬂorence, oﬃce",
    "straße in GROẞENHAIN",
    "İstanbul'da IĞDIR ılık",
    "㎏ ½ Ⅷ ™ ﷺ ǅ ŉ",
    "𝐏𝐚𝐫𝐢𝐬 ａｎｄ Ｔｏｋｙｏ 𠜎",
)

PUNCTUATION: Final = (
    "U.K. and U.S.A. vs. the E.U.",
    "O'Neil's $1,000.50 at 3:30p.m.",
    '("John"), [Paris]; {Rome}...',
    "re-elected—twice – AT&T/IBM",
    "!!!???",
    ".",
    "’s “quoted” ‘text’… «Oslo»",
    "a.b@c.org https://example.com/x?y=1&z=%20",
    "#Rome @john_doe C++ C# .NET",
    "1234567890 12-34 ٣٤٥ ४५ ①②",
    "7/7/2005",
)

# Wikigold (Balasuriya et al. 2009), CC BY 4.0; the text is Wikipedia's.
WIKIGOLD: Final = (
    "In return Magedson filed a lawsuit under RICO .",
    "The Langejans Dualette is a two sided guitar which was custom made for Thom Bresh .",
    "Spain allied with France during the Seven Years ' War against Great Britain .",
    "Dorothea von Schlegel was born in 1764 in Berlin [1 ] .",
    "Friedrich died in 1829 , after which she moved to Frankfurt am Main .",
    "He studied medicine in Berlin and Würzburg .",
    "Its Hungarian title is Szomorú Vasárnap .",
    "Elias Howell ( 1792 - May 1844 ) was a United States Representative from Ohio .",
    "Howell 's son , James Bruen Howell , was a U.S. Senator from Iowa .",
    "In 1964 , Calabi joined the mathematics faculty at the University of Pennsylvania .",
)

SHORT: Final = (
    PLAIN + ACCENTS + SCRIPTS + EMOJI + INVISIBLE + BLANKS + PIECES + LITERALS + FOLDING
    + PUNCTUATION + WIKIGOLD
)  # fmt: skip

LABEL_SETS: Final = (
    ("O", "PER", "NON-ENT", "E-PER", "S-PER", "B-X-Y", "I-X-Y"),
    ("O", "PER", "ORG", "LOC"),
    ("PER",),
    ("O",),
    ("", "B-", "I-", "O", "O", "B-PER", "B-PER", "b-per"),  # repeated, empty, lower case
    ("O", "B-PER", "I-PER", "L-PER", "U-PER", "E-PER", "S-PER", "-PER", "PER-"),
)

LABEL_TEXTS: Final = (
    "john works at google in new york city",
    "Microsoft's O'Neil, of Zürich!",
    "in cafe\u0301s",
)

LONG: Final = (
    "Angela Merkel met Emmanuel Macron in Paris on Monday, while Microsoft, Apple and the "
    "European Central Bank were in New York City with O'Neil of Zürich.",
    "Rene\u0301e  Dupont\nof the U.N.\tvisited 東京, 서울 and Mic\u00adrosoft 👩🏿\u200d🚀 in "
    "São\u00a0Paulo; İstanbul'da [SEP] straße <s> in Łódź, Nguyễn said.  ",
    "john works at google in new york city",
    "  John   Doe  of\u3000Paris \n in Rome  ",
)

_PARTS: Final = (
    "John", "Smith", "paris", "ROME", "Microsoft", "in", "the", "of", "U.K.", "O'Neil", "1,000",
    "Zürich", "cafe\u0301", "東京", "한국", "मोदी", "القاهرة", "กรุง", "ﬁ", "ß", "İ", "ŉ", "½", "😀",
    "👍🏽", "🇫🇷", "👩\u200d🚀", "\u0301", "\u00ad", "\u200b", "\ufffd", "\x00", "[MASK]", "<s>",
    "</s>", "[SEP]", "-", ".", ",", "'", "$", "unbelievably", "internationalisation", "Ab", "x",
)  # fmt: skip
_JOINTS: Final = (" ",) * 8 + ("",) * 4 + ("  ", "\t", "\n", "\r\n", "\u00a0", "\u3000", " \n ")


def random_text(seed: str, parts: int) -> str:
    """Some words, odd characters and odd blanks in a row; equal seeds give equal texts."""
    rng = random.Random(seed)
    pieces = [rng.choice(_PARTS) + rng.choice(_JOINTS) for _ in range(parts)]
    return rng.choice(("", "", " ", "\n")) + "".join(pieces)
