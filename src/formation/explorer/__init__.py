"""Pages that show and check a bundle without anything but a browser.

page.py              pages as self-contained files, made of the templates, styles and modules of static/
places.py            where each position begins in a ledger's file
gallery/             a run as a folder for any web server: formation publish
view.py              the explorer: a bundle's files packed into its page, which reads and verifies them itself
static/verify/*.js   twins of the modules of `ledger` and `evidence` that verify: same bytes accepted, same checks named, same numbers, bit for bit
static/explore/*.js  the explorer's views: one selection, every number from the embedded ledger; nothing is computed in Python
"""
