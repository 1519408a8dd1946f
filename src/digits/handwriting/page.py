"""The page to draw digits on: a folder that any web server can show, and one for this machine.

The networks run in the browser; nothing that is drawn leaves it.
"""

import ipaddress
import json
import os
import shutil
import socket
from collections.abc import Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import onnx
from onnx import numpy_helper

from digits import DigitsError
from digits.core import files

STATIC = Path(__file__).with_name("static")
NETWORKS = "networks.json"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
# The page loads nothing from other servers, and no other page may embed it.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def write(folder: Path, networks: Mapping[str, tuple[str, bytes]]) -> None:
    """Write the page, with networks as `serving.export` returns them.

    Args:
        networks: by version, a description and the ONNX model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in STATIC.iterdir():
        shutil.copyfile(path, folder / path.name)
    described = []
    for version, (about, model) in networks.items():
        graph, constants = _graph(onnx.load_from_string(model))
        described.append({"version": version, "about": about, "file": f"{version}.bin", **graph})
        files.write_bytes(folder / f"{version}.bin", constants)
    files.write_text(folder / NETWORKS, json.dumps(described))


def _graph(model: Any) -> tuple[dict[str, Any], bytes]:
    """Return a model's nodes and constants for network.js, and the numbers of the constants."""
    constants, numbers = {}, bytearray()
    for initializer in model.graph.initializer:
        array = numpy_helper.to_array(initializer)
        kind = "float" if array.dtype == np.float32 else "int"
        constants[initializer.name] = {
            "shape": array.shape,
            "type": kind,
            "offset": len(numbers),
        }
        numbers += array.astype("<f4" if kind == "float" else "<i4").tobytes()
    nodes = [
        {
            "operation": node.op_type,
            "inputs": list(node.input),
            "output": node.output[0],
            "attributes": {a.name: _value(a) for a in node.attribute},
        }
        for node in model.graph.node
    ]
    return {"nodes": nodes, "constants": constants}, bytes(numbers)


def _value(attribute: Any) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    return value.decode() if isinstance(value, bytes) else value


class _Handler(SimpleHTTPRequestHandler):
    """Shows the folder of a page to this machine, and to whoever reaches it as `host`."""

    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds in which a connection is idle
    extensions_map = SimpleHTTPRequestHandler.extensions_map | MEDIA_TYPES

    def __init__(self, *args: Any, host: str, **options: Any) -> None:
        self._host = host
        super().__init__(*args, **options)

    def send_head(self) -> Any:
        """Refuse what a page of another site asks for, even if its name leads to this machine."""
        here = f"http://{self.headers.get('Host', '')}"
        if not self._is_here(here) or self.headers.get("Origin", here) != here:
            self.send_error(403)
            return None
        return super().send_head()

    def _is_here(self, url: str) -> bool:
        """Tell whether a URL names this machine, or any by a number, which no other site can do."""
        try:
            host = urlsplit(url).hostname or ""
            if host in (self._host, "localhost", socket.gethostname()):
                return True
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True

    def list_directory(self, path: Any) -> None:
        """Show no folder but the page's own, which has an index.html."""
        self.send_error(404)

    def end_headers(self) -> None:
        """Add the headers of all answers."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


class _Server(ThreadingHTTPServer):
    """A server that asks nobody for this machine's name, and prints nothing of lost connections."""

    def server_bind(self) -> None:
        """Bind the socket."""
        TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Drop the connection."""


def listen(folder: Path, host: str, port: int) -> ThreadingHTTPServer:
    """Return a server of a page's folder, before anything slow is done; port 0 is a free one.

    Raises:
        DigitsError: the port is in use, or the host is not this machine.
    """

    class Server(_Server):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    try:
        return Server((host, port), partial(_Handler, host=host, directory=str(folder)))
    except OSError as error:
        # Python appends the address to its own text, which the message has already.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise DigitsError(
            f"{host}:{port}: cannot listen there: {reason}; another --host or --port?"
        ) from error


def url(server: ThreadingHTTPServer) -> str:
    """Return the address to open in a browser."""
    host, port = server.socket.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
