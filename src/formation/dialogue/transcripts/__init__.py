"""Transcripts: what two sides said, as files.

    transcript.py   what was said, and what the header states about it
    markdown.py     as text for people, read and written to the same bytes
    jsonl.py        the lossless form
    foreign.py      other programs' forms
    formats.py      from a file to a transcript and back

What is read is written back to the same bytes; what could be read in two ways is refused.
"""
