"""Texts on which offsets, directions and shells go wrong, if anything does."""

from __future__ import annotations

from typing import Final

TEXTS: Final = {
    "plain": "Angela Merkel met Barack Obama in Berlin for Siemens.",
    # A family of seven code points, flags of two each, a skin tone: four units and more of UTF-16.
    "emoji": ("👨‍👩‍👧‍👦 Angela Merkel 🇩🇪🇫🇷 flew 👍🏽 from Berlin 🛫 to Paris 🏳️‍🌈 with Siemens 𝔊."),
    "cjk": (
        "安格拉·默克尔在柏林会见了 Barack Obama。東京のソニー株式会社は Siemens と、"
        "김정은은 서울에서 Angela Merkel 을."
    ),
    "rtl": "سافرت Angela Merkel من برلين إلى باريس. ברק אובמה ביקר את Berlin עם Siemens.",
    # As Vietnamese and Czech come decomposed from a Mac, and a letter under a heap of marks.
    "combining": (
        "Nguye\u0302\u0303n Va\u0306n Linh a Be\u0301la Barto\u0301k a Z\u0351\u036b\u0343algo "
        "v Brne\u030c: Siemens."
    ),
    "lines": "Angela Merkel\r\nlives in Berlin.\r\n\r\n\tBarack Obama,\rChicago;\nSiemens\r\n",
    "markup": (
        "<script>alert(1)</script> <b>Angela Merkel</b> &amp; <img src=x onerror=alert(2)> in Berlin"
        " </textarea>"
    ),
    "shell": (
        """It's "Angela Merkel", $HOME `id` $(id) \\n ! #x {a} %s '''Berlin''' \"\"\"\n\n"""
        """Siemens 👩‍🚀 \\"""
    ),
}
"""By what is special of them; each has something that the bundled model finds."""


def long_document(characters: int = 240_000) -> str:
    """Paragraphs with names, of more than so many code points.

    Between the names are words that no vocabulary has: each is one token, so that all is tagged soon.
    """
    filler = ("0123456789abcdef" * 9 + " ") * 4
    paragraph = f"{TEXTS['plain']} {filler}{TEXTS['emoji']} {TEXTS['cjk']} {filler}\n\n"
    return paragraph * (characters // len(paragraph) + 1)
