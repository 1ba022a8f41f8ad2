"""Certify: a bundle and its verifier under attack. The flow:

    forgery.py     a copy of the bundle in memory, and the tools that every attacker is given
    attack.py      what an attack is, who makes it, and which check must refuse it
    on_*.py        the attacks, by what they attack: container, text, signature, ledger, values, documents, verdicts, verifier, weights
    mutations.py   random mutations with a seed          untold.py   what of them no reader can tell without the weights
    judge.py       what the verifier says, through any of its doors; crashes and timeouts are findings
    suite.py       attacks to outcomes                   certification.py   all of it on one bundle, signed
    matrix.py      the certifier certified: with any one check taken out, some attack gets through

The copy is signed by a throwaway key that plays the signer's part: no forgery bears anybody's real signature.
"""

from formation.certify.certification import Certification, certify

__all__ = ["Certification", "certify"]
