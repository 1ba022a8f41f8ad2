"""Pages that show and check a bundle without anything but a browser.

page.py             the verify page as one self-contained file, made of static/verify.html, its style and the modules of static/verify/
static/verify/*.js  twins of the modules of `ledger` and `evidence` that verify: same bytes accepted, same checks named, same numbers, bit for bit
"""
