"""A process that works for another: it is asked on its stdin, answers on its stdout, and ends when whoever asked is gone.

Whoever asks holds one end of a pipe into which nothing is ever written. However it ends, by kill -9 too, the system closes that end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

ORPHANED = 3  # exit code: nobody is there to read it


def ask(module: str, asked: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
    """`python -m module`, asked in JSON, when it has ended"""
    theirs, ours = os.pipe()
    try:
        command = [sys.executable, "-m", module, str(theirs)]
        return subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=False, pass_fds=(theirs,))
    finally:
        os.close(theirs)
        os.close(ours)


def asked_of_parent() -> Any:
    """What stdin says, in JSON. A process that was started with the number of a pipe ends from now on when that is closed."""
    if len(sys.argv) > 1:
        threading.Thread(target=_end_with, args=(int(sys.argv[1]),), daemon=True).start()
    return json.load(sys.stdin)


def _end_with(pipe: int) -> None:
    os.read(pipe, 1)
    os._exit(ORPHANED)
