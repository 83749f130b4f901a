"""A control plane that says what a test wants it to say, over real HTTP."""

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from rollout.domain.flag import MAIN_FLAG, PUBLISHED_SALT, Flag
from rollout.domain.snapshot import Snapshot
from rollout.wire.snapshot import encode


class ControlPlane:
    """Answers `GET /api/v1/snapshot` by ETag; `asked` records what came in."""

    def __init__(self) -> None:
        self.snapshot = self.at(share=0, revision=1)
        self.status = 200
        self.body: bytes | None = None
        self.headers: dict[str, str] = {}
        self.asked: list[tuple[str | None, str | None, int]] = []
        self.news = threading.Condition()
        plane = self

        class Answering(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, body = plane.answer(self.path, self.headers.get("If-None-Match"))
                with plane.news:
                    plane.asked.append((self.headers.get("Authorization"), self.headers.get("If-None-Match"), status))
                    plane.news.notify_all()
                self.send_response(status)
                for name, value in {"ETag": plane.snapshot.etag, **plane.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                """Keep the test's output quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @staticmethod
    def at(*, share: int, revision: int, installation: str = "one", **fields: object) -> Snapshot:
        flag = Flag(MAIN_FLAG, PUBLISHED_SALT, share=share, revision=revision, **fields)  # type: ignore[arg-type]  # a builder
        return Snapshot(installation, revision, f"{revision:064x}", {MAIN_FLAG: flag}, ("a/b:free",))

    def answer(self, path: str, condition: str | None) -> tuple[int, bytes]:
        if path != "/api/v1/snapshot":
            return 404, b""
        if self.status != 200:
            return self.status, b"{}"
        if condition == self.snapshot.etag and self.body is None:
            return 304, b""
        return 200, encode(self.snapshot) if self.body is None else self.body

    def wait_until_asked(self, times: int) -> None:
        """Wait until that many more questions have come in."""
        with self.news:
            until = len(self.asked) + times
            assert self.news.wait_for(lambda: len(self.asked) >= until, 10), "nobody asked"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def eventually(true: Callable[[], object]) -> None:
    """Wait for something another thread is about to bring, ten seconds at most."""
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)
