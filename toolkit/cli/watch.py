"""``toolkit watch``: a run's page, served beside its training."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from toolkit.cli.arguments import parse
from toolkit.errors import ToolkitError

if TYPE_CHECKING:
    from toolkit.runs.folder import Run

HOST = "127.0.0.1"
"""Other machines see nothing of it."""
LAST = 19
"""How far a process can stand back for others."""


@dataclass(frozen=True)
class WatchOptions:
    """A run's page, as toolkit report writes it, on this machine alone, at the address that is printed.

    It is made anew whenever the run's log or pictures have changed, and the browser follows. It reads the folder only:
    a training beside it neither knows nor waits. It asks the system for the lowest priority. Ctrl-C ends it.
    """

    run: str = field(metadata={"help": "the run folder"})
    port: int = field(default=8765, metadata={"help": "the port on 127.0.0.1; 0: any that is free"})


def main(args: list[str]) -> int:
    options = parse("watch", WatchOptions, args)
    from toolkit.runs.folder import Run

    with server_of(Run.open(options.run), options.port) as server:
        give_way()
        print(f"http://{HOST}:{server.server_address[1]}/", flush=True)
        server.serve_forever()
    return 0


def give_way() -> None:
    """Asks the system to put others before this process, where there is ``nice``; how far it does is the system's."""
    if hasattr(os, "nice"):
        os.nice(LAST)


def server_of(run: Run, port: int) -> ThreadingHTTPServer:
    """A server of a run's page. ToolkitError where the port cannot be had."""
    try:
        return ThreadingHTTPServer((HOST, port), partial(_Handler, run))
    except OSError as e:
        raise ToolkitError(f"port={port}: {e.strerror or e}; choose another, or port=0 for any that is free") from e


class _Handler(BaseHTTPRequestHandler):
    """Two addresses: the page, and a line that changes when the page would."""

    def __init__(self, run: Run, *args: Any) -> None:
        self.run = run
        super().__init__(*args)

    def do_GET(self) -> None:
        if self.headers.get("Host", "").partition(":")[0] not in (HOST, "localhost"):
            self.send_error(403)  # a name of another machine's that leads here
        elif self.path == "/":
            self._answer("text/html", self._page())
        elif self.path == "/state":
            self._answer("text/plain", state_of(self.run))
        else:
            self.send_error(404)

    def _page(self) -> str:
        from html import escape

        from toolkit.page.contents import contents_of
        from toolkit.page.render import page_of

        try:
            return page_of(contents_of(self.run), live=True)
        except ToolkitError as e:
            return f"<!doctype html><meta http-equiv=refresh content=3><p>{escape(str(e))}</p>"

    def _answer(self, kind: str, text: str) -> None:
        content = text.encode("utf-8")
        self.send_response(200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing is printed of what a browser asks."""


def state_of(run: Run) -> str:
    """A line that is another one when the run's page would be."""
    folders = (run.path, run.samples)
    files = sorted(path for folder in folders if folder.is_dir() for path in folder.iterdir())
    return " ".join(
        f"{path.name}:{status.st_size}:{status.st_mtime_ns}"
        for path in files
        if not path.name.startswith(".") and (status := _status(path)) is not None
    )


def _status(path: Any) -> Any:
    try:
        return path.stat()
    except OSError:  # it has just been replaced
        return None
