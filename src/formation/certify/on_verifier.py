"""Attacks on the verifier's surroundings, and on whoever reads what it prints: flags and variables of the process, and hostile text of a model."""

from __future__ import annotations

import base64

from formation.certify.attack import INERT, RECORDER, SURROUNDINGS, Group
from formation.certify.forgery import Forgery
from formation.certify.on_signature import garbage_signature
from formation.certify.on_values import ranks_that_cross

GROUP = Group("verifier")
attack = GROUP.attack
HOSTILE = "</td><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[2J\x1b]0;verified\x07\u202everified\u2066\u200b\r\b{{7*7}}=cmd|calc!A0"
LOCALE = {"LC_ALL": "C", "LANG": "tr_TR.UTF-8", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "1"}
NAMES = "FORMATION_TRUST FORMATION_SKIP_CHECKS FORMATION_ALLOW_UNKNOWN_SIGNER FORMATION_DEBUG FORMATION_TEST PYTHONOPTIMIZE PYTHONDEBUG CI"
VARIABLES = dict.fromkeys(NAMES.split(), "1")


@attack(SURROUNDINGS, "ranks")
def without_asserts(f: Forgery) -> None:
    """python -OO takes every assert out of the verifier"""
    ranks_that_cross(f)
    f.process, f.flags = True, ("-OO",)


@attack(SURROUNDINGS, "signature")
def another_locale_and_hash_seed(f: Forgery) -> None:
    """the verifier runs with another locale, time zone, encoding and hash seed"""
    garbage_signature(f)
    f.process, f.environment = True, LOCALE


@attack(SURROUNDINGS, "root")
def environment_that_asks_for_leniency(f: Forgery) -> None:
    """environment variables ask the verifier to trust, to skip and to debug"""
    f.lines = f.lines[:-1]
    f.process, f.environment = True, VARIABLES


@attack(RECORDER, INERT)
def text_that_moves_the_cursor_and_runs_in_a_page(f: Forgery) -> None:
    """tokens, prompt and machine are spelled in scripts, escapes and marks of direction"""
    spelled = base64.b64encode(HOSTILE.encode()).decode()
    for position in f.scene.steps:
        f.change(position, "token", bytes=spelled)
    f.set_anchor(lambda a: a["prompt"].update(text=HOSTILE))
    f.edit("host.json", lambda h: h.update(system=HOSTILE))
    f.seal()
    f.shown = HOSTILE
