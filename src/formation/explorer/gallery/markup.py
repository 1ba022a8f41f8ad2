"""Markup from text: an element's children are markup that was made here, or anything else, which becomes text and nothing more.

What is invisible (control and format characters, those that turn text round, surrogates) is spelled out, so that no text can hide or lie about
its order. Attributes are text of our own, or text treated the same way.
"""

from __future__ import annotations

import unicodedata
from html import escape

from formation.evidence.plain import INVISIBLE, escaped


class Markup(str):
    """What a browser may read as markup. Only this module and the templates make it."""


def element(kind: str, *children: object, **attributes: object) -> Markup:
    """`kind` as "tag.class.class"; names of attributes have _ for -"""
    tag, *classes = kind.split(".")
    named = ({"class": " ".join(classes)} if classes else {}) | {name.replace("_", "-"): value for name, value in attributes.items()}
    spelled = "".join(f' {name}="{text(str(value))}"' for name, value in named.items())
    return Markup(f"<{tag}{spelled}>{joined(*children)}</{tag}>")


def joined(*children: object) -> Markup:
    return Markup("".join(child if isinstance(child, Markup) else text(str(child)) for child in children))


def text(value: str, keep: str = "") -> Markup:
    """Escaped, with everything invisible spelled out but for the characters in `keep`"""
    return Markup(escape("".join(c if c in keep or unicodedata.category(c) not in INVISIBLE else escaped(c) for c in value)))


def section(title: str, sentence: object, *children: object, **attributes: object) -> Markup:
    return element("section", element("h2", title), element("p.sentence", sentence), *children, **attributes)


def scrolls(label: str) -> dict[str, str]:
    """Attributes of what may be bigger than its place, so that a keyboard can move it too"""
    return {"tabindex": "0", "role": "group", "aria_label": label}
