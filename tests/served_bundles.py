"""A bundle with its page, served as `formation explore --serve` does, on any free port of this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from formation.cli import serve
from formation.explorer import view


@contextmanager
def serving(bundle: Path) -> Iterator[serve.Server]:
    with view.opened(bundle) as (opened, contents):
        site = serve.Site(serve.new_root(), view.served(bundle, opened, contents), opened, contents.sizes)
        with serve.listening(site, 0) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            try:
                yield server
            finally:
                server.shutdown()
                thread.join()
