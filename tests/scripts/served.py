"""Archives on a web server of one's own."""

import io
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(SimpleHTTPRequestHandler):
    """A file server that knows ranges, and notes what was asked."""

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append((self.path, asked))
        file = Path(self.translate_path(self.path))
        if not asked:
            return super().do_GET()
        body = file.read_bytes()[int(asked.removeprefix("bytes=").removesuffix("-")) :]
        self.send_response(206)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_header(self, keyword: str, value: str) -> None:
        if self.server.tells_lengths or keyword != "Content-Length":
            super().send_header(keyword, value)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(site: Path) -> Iterator[ThreadingHTTPServer]:
    """The files below a folder, on a server whose `asked` lists what was asked for."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(site)))
    server.asked, server.tells_lengths = [], True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def address(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def zipped(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def files_below(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
