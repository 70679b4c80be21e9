"""Notices of a study's end, over real connections."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tuner.service.notices import Webhook


class _Endless(BaseHTTPRequestHandler):
    """Accepts a notice, and goes on answering until a test has ended."""

    over: threading.Event

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        while not self.over.wait(0.05):
            try:
                self.wfile.write(b"x" * 100)
            except OSError:
                return  # who asked has gone

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serving_without_end() -> Iterator[str]:
    """Serves until the block ends; yields the URL."""
    _Endless.over = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Endless)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        _Endless.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_server_whose_answer_has_no_end_keeps_nobody() -> None:
    with serving_without_end() as url:
        told: list[str] = []
        teller = threading.Thread(target=lambda: told.append(Webhook(url).take({"text": "over"})))
        teller.start()
        teller.join(10)
        assert told == [""]
