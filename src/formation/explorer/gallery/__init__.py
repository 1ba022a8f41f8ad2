"""A gallery: one folder that holds a run, its evidence and the means to check it, ready for any web server.

publish.py                  the folder: a copy of the bundle, its verdict, every file, and their digests; all or nothing
index.py                    its first page, of material.py: verdict.py, output.py with the figure of lens.py, about.py
markup.py                   text becomes markup in one place
copies.py, receipts.py      the bundle as one ZIP, and a receipt for each token
"""
