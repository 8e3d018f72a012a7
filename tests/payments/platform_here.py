"""A platform on this machine, whose hook is asked to stop and resume sandboxes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from payments.platform_hook import SIGNATURE

SECRET = "platform-secret"  # noqa: S105 - signs what only tests receive


class Platform:
    """A platform on this machine, that notes what it is asked."""

    def __init__(self) -> None:
        self.status = 204
        self.location = ""
        self.asked: list[tuple[str, str, bytes]] = []
        self.meanwhile: Callable[[], object] = lambda: None
        platform = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 5

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                platform.asked.append((self.path, self.headers.get(SIGNATURE, ""), body))
                platform.meanwhile()
                self.send_response(platform.status)
                if platform.location:
                    self.send_header("Location", platform.location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_words: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def told(self) -> list[str]:
        return [json.loads(body)["action"] for _, _, body in self.asked]
