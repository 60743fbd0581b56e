"""Fields: titles and descriptions, freed of what is no text."""

from __future__ import annotations

import html
import math
import re
import unicodedata
from typing import Any

MISSING = frozenset({"", "nan", "null", "none", "\\n", "<na>", "n/a", "#n/a", "nat", "undefined"})
MARKUP_TAGS = (
    *("a", "abbr", "article", "b", "big", "blockquote", "body", "br", "button", "center", "cite", "code", "dd", "del"),
    *("div", "dl", "dt", "em", "embed", "figure", "font", "footer", "form", "h[1-6]", "head", "header", "hr", "html"),
    *("i", "iframe", "img", "input", "ins", "label", "li", "link", "main", "meta", "nav", "noscript", "object", "ol"),
    *("option", "p", "param", "pre", "q", "s", "script", "section", "select", "small", "span", "strike", "strong"),
    *("style", "sub", "sup", "svg", "table", "tbody", "td", "textarea", "tfoot", "th", "thead", "title", "tr", "tt"),
    *("u", "ul", "video"),
)
# They stand inside of a word, as in H<sub>2</sub>O: what they part is one.
INLINE_TAGS = (
    *("a", "abbr", "b", "big", "cite", "code", "del", "em", "font", "i", "ins", "q", "s", "small", "span", "strike"),
    *("strong", "sub", "sup", "tt", "u"),
)
INLINE = re.compile(rf"</?(?:{'|'.join(INLINE_TAGS)})(?:\s[^<>]*)?>", re.IGNORECASE)
# Only names that HTML has, so that <3 and <reboot> stay.
TAG = re.compile(rf"</?(?:{'|'.join(MARKUP_TAGS)})(?:\s[^<>]*)?/?>|<!DOCTYPE[^<>]*>", re.IGNORECASE)
UNSEEN = re.compile(r"<(script|style)\b[^<>]*>.*?(?:</\1\s*>|$)|<!--.*?(?:-->|$)", re.IGNORECASE | re.DOTALL)
# With its semicolon: `Q&notes` is no `Q¬es`.
ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
PAGE_SCRIPT = re.compile(
    r"\bgetTime\s*\(|\bdocument\.(?:get|write|cookie)|\bwindow\.\w+\s*=|\bvar\s+\w+\s*=|\bfunction\s*\w*\s*\([^)]*\)\s*\{"
    r"|(?:^|\})\s*[.#@]?[\w.#:>\s-]{1,60}\{\s*[\w-]+\s*:[^{}]*\}"
)
BLANK_LETTERS = frozenset("\u115f\u1160\u3164\uffa0\u2800\ufffd")
# Control characters count as spaces; marks that only steer how a line is drawn or broken are no text.
UNPRINTED = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), " ") | dict.fromkeys(
    (0xAD, 0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), 0x2060, *range(0x2066, 0x206A), 0xFEFF), ""
)
INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Cn", "Co", "Mn", "Me", "Zs", "Zl", "Zp"})


def parse_text(value: Any) -> str:
    """A text on one line, freed of HTML; empty where there is none or nothing of it can be seen.

    A list of texts is joined, and of an object only its name is text. Half characters become U+FFFD.
    """
    text = _joined(value)
    if not text:
        return ""
    if "&" in text or "<" in text:
        text = _without_markup(text)
    if not text.isprintable():
        text = _whole(text).translate(UNPRINTED)
    text = " ".join(text.split())
    return text if not is_missing(text) and is_visible(text) else ""


def is_missing(text: str) -> bool:
    """Whether the text is a word for nothing, such as NULL."""
    return len(text) <= 9 and text.strip().lower() in MISSING


def is_visible(text: str) -> bool:
    """Whether anything of a text can be seen: it is not all spaces, control and joining characters."""
    if text.isascii() and text.isprintable():
        return bool(text.strip())
    return any(unicodedata.category(letter) not in INVISIBLE and letter not in BLANK_LETTERS for letter in text)


def is_page_script(text: str) -> bool:
    """Whether a title is script or style of the page that it was taken from."""
    return PAGE_SCRIPT.search(text) is not None


def _joined(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        return " ".join(filter(None, (_joined(part) for part in value)))
    if isinstance(value, dict):
        return next((_joined(value[key]) for key in ("name", "title", "text", "value") if key in value), "")
    return str(value)


def _without_markup(text: str) -> str:
    """Entities become characters, twice, as `&amp;amp;` is common; tags go, and the insides of scripts and styles."""
    for _ in range(2):
        text = ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
    return TAG.sub(" ", INLINE.sub("", UNSEEN.sub(" ", text))) if "<" in text else text


def _whole(text: str) -> str:
    """Surrogates in pairs become their character, lone ones U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
