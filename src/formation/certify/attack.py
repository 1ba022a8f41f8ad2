"""An attack: what someone who holds this or that does to a bundle, and the check that must refuse it.

Attacks are functions over a Forgery, registered with `attack`: the function's name with spaces is the attack's, its docstring says what is done.
`expected` is a check's name in evidence/checks.py, "receipt: CHECK" for a refusal of a receipt, "audit: FIELD" for what re-execution must name,
or INERT. `withheld` marks those that do not make the bundle fail but must not get the claim they want: the check is then "not claimed".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from formation.certify.forgery import Forgery

# what the adversary holds
NOTHING = "nothing"
BUNDLE = "the bundle"
OTHER_KEY = "the bundle and a key of their own"
KEY = "the right key"
OTHER_BUNDLE = "another bundle of the same signer"
RECORDER = "a patched recorder and the right key"
WEIGHTS = "the right key, and weights to compute with"
SURROUNDINGS = "the bundle and the verifier's surroundings"
NETWORK = "the way between signer and reader"
INERT = "output stays inert"

Act = Callable[["Forgery"], None]


class NotApplicable(Exception):
    """Why an attack has no object in this bundle."""


@dataclass(frozen=True)
class Attack:
    group: str
    name: str
    adversary: str
    mutation: str
    expected: str
    act: Act
    withheld: bool = False


class Group:
    """Attacks of one kind, in the order they are written."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.attacks: list[Attack] = []

    def attack(self, adversary: str, expected: str, *, withheld: bool = False) -> Callable[[Act], Act]:
        def register(act: Act) -> Act:
            self.add(act.__name__.replace("_", " "), adversary, (act.__doc__ or "").strip(), expected, act, withheld=withheld)
            return act

        return register

    def add(self, name: str, adversary: str, mutation: str, expected: str, act: Act, *, withheld: bool = False) -> None:
        """For attacks that are made in a loop"""
        self.attacks.append(Attack(self.name, name, adversary, mutation, expected, act, withheld))
