"""A real nginx in front of a server, and what it says that it has passed on."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from urllib.parse import unquote

NGINX = which("nginx") or (which("nginx", path="/usr/sbin:/usr/local/sbin"))

# Connections to the server are kept and used again, and bodies are passed on as they come: what is hidden in one
# request would be read as the next one's beginning.
CONFIG = """
daemon off;
worker_processes 1;
error_log {folder}/errors;
pid {folder}/pid;
events {{ worker_connections 64; }}
http {{
    log_format passed escape=none '$upstream_status $request_method $request_uri';
    access_log {folder}/passed passed;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream server {{ server 127.0.0.1:{behind}; keepalive 1; }}
    server {{
        listen 127.0.0.1:{port};
        client_header_timeout 2s;
        client_body_timeout 2s;
        lingering_close off;
        location / {{
            proxy_pass http://server;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_request_buffering {buffering};
            proxy_buffering off;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Passed:
    """One request that nginx has passed on: its method and path, and the status that came back."""

    status: str
    request: str


@dataclass(frozen=True)
class Front:
    """A running nginx."""

    port: int
    _log: Path

    def passed_on(self, count: int) -> list[Passed]:
        """Return each request that it passed on since, of which there are at least `count`.

        The log has them when their replies are over, just after the caller has read them.
        """
        for _ in range(400):
            lines = [line.split(" ", 2) for line in self._log.read_text(errors="surrogateescape").splitlines()]
            passed = [Passed(line[0], f"{line[1]} {path_of(line[2])}") for line in lines if line[0] not in ("-", "")]
            if len(passed) >= count:
                break
            time.sleep(0.005)
        self._log.write_text("")
        return passed


def path_of(target: str) -> str:
    """Return the path that a request's target means."""
    if target.lower().startswith("http://"):
        target = "/" + target[7:].partition("/")[2]
    return unquote(target.partition("?")[0])


@contextmanager
def front(folder: Path, behind: int, *, buffering: bool) -> Iterator[Front]:
    """Run nginx in front of a port, with its files in `folder`."""
    assert NGINX is not None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    config, log = folder / "nginx.conf", folder / "passed"
    config.write_text(CONFIG.format(folder=folder, behind=behind, port=port, buffering="on" if buffering else "off"))
    words = [NGINX, "-e", str(folder / "errors"), "-p", str(folder), "-c", str(config)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(1000):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert process.poll() is None, (folder / "errors").read_text()
            time.sleep(0.01)
        yield Front(port, log)
    finally:
        process.terminate()
        process.wait(10)
