"""A bundle in a notebook: a quiet table of its tokens. Text of the model is shown with everything invisible spelled out, and escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from formation.evidence.plain import inert
from formation.ledger.tables import Absent, TokenRecord

if TYPE_CHECKING:
    from formation.evidence.bundle import Bundle

MOST = 40
LONGEST = 60  # characters of a token
COLUMNS = ("position", "id", "text", "surprisal_nats", "entropy_nats", "rank_low", "arrival_layer")
TITLES = ("position", "id", "token", "surprisal", "entropy", "rank", "arrives at layer")
ROOM = "padding:.1em .7em;"
RIGHT, LEFT = f"{ROOM}text-align:right;font-variant-numeric:tabular-nums", f"{ROOM}text-align:left;font-family:monospace;white-space:pre"


def page(bundle: Bundle) -> str:
    """A fragment without scripts, links or images"""
    tokens = bundle.first_tokens(MOST + 1)
    mark = "" if bundle.complete else " · <strong>INCOMPLETE</strong>: cut off, or did not hold; never closed"
    more = f"; the first {MOST} are shown" if len(tokens) > MOST else ""
    caption = f"{escape(bundle.folder.name)} · run {bundle.run_id[:16]}…{mark}"
    head = "".join(f'<th style="{style_of(name)}">{title}</th>' for name, title in zip(COLUMNS, TITLES, strict=True))
    body = "".join(row(token) for token in tokens[:MOST])
    note = f"surprisal and entropy in nats{more}; read, not verified"
    return (
        f'<table><caption style="text-align:left">{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody>'
        f'<tfoot><tr><td colspan="{len(COLUMNS)}" style="text-align:left"><small>{note}</small></td></tr></tfoot></table>'
    )


def row(token: TokenRecord) -> str:
    return f"<tr>{''.join(cell(name, getattr(token, name)) for name in COLUMNS)}</tr>"


def cell(name: str, value: Any) -> str:
    if isinstance(value, Absent):
        return f'<td style="{style_of(name)}" title="{escape(str(value))}">–</td>'
    shown = f"{value:.4f}" if isinstance(value, float) else inert(value) if isinstance(value, str) else str(value)
    cut = shown if len(shown) <= LONGEST else shown[:LONGEST] + "…"
    return f'<td style="{style_of(name)}" dir="ltr">{escape(cut)}</td>'


def style_of(name: str) -> str:
    return LEFT if name == "text" else RIGHT
