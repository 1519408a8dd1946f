"""The page to draw digits on: a small web application and its server."""

import ipaddress
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import waitress
from flask import Flask, Response, abort, jsonify, request

from digits import DigitsError
from digits.handwriting import pictures, segmentation
from digits.handwriting.predictions import Classify, predict_digits

STATIC = Path(__file__).with_name("static")
MEDIA_TYPES = {"draw.html": "text/html", "draw.css": "text/css", "draw.js": "text/javascript"}
MAX_REQUEST = 2_000_000  # bytes; a drawing has some 10,000
# The page loads nothing from other servers, and no other page may embed it.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def application(classifiers: Mapping[str, tuple[str, Classify]], host: str = "localhost") -> Flask:
    """Return the application: the page, `GET /models`, and `POST /read` with a PNG as its body.

    Args:
        classifiers: by version, a description and the `predict` of its classifier.
        host: under whose name it is reached, beside localhost and the addresses of this machine.
    """
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST

    @app.before_request
    def refuse_other_sites() -> None:
        """Refuse what a page of another site asks for, even if its name leads to this machine."""
        origin = request.headers.get("Origin", request.host_url.rstrip("/"))
        names = (host, "localhost", socket.gethostname())
        is_here = urlsplit(request.host_url).hostname in names or _is_address(request.host_url)
        if not is_here or origin != request.host_url.rstrip("/"):
            abort(403)

    @app.get("/")
    @app.get("/<name>")
    def asset(name: str = "draw.html") -> Response:
        if name not in MEDIA_TYPES:
            abort(404)
        return Response((STATIC / name).read_bytes(), mimetype=MEDIA_TYPES[name])

    @app.get("/models")
    def models() -> Response:
        return jsonify([{"version": v, "about": about} for v, (about, _) in classifiers.items()])

    @app.post("/read")
    def read() -> Response:
        drawing = pictures.decode(request.get_data(), "the drawing", ["PNG"], megapixels=1)
        crops = segmentation.digits(drawing, split=False)
        if not crops:
            return jsonify({"found": False, "image": [], "answers": {}})
        answers = {
            version: predict_digits([("", crops)], classify)[0].probabilities
            for version, (_, classify) in classifiers.items()
        }
        return jsonify({"found": True, "image": crops[0].image.tolist(), "answers": answers})

    @app.errorhandler(DigitsError)
    def bad_request(error: DigitsError) -> tuple[Response, int]:
        return jsonify({"error": str(error)}), 400

    @app.errorhandler(413)
    def too_large(error: object) -> tuple[Response, int]:
        return jsonify({"error": f"expected at most {MAX_REQUEST:,} bytes"}), 413

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.update(HEADERS)
        return response

    return app


def _is_address(url: str) -> bool:
    """Tell whether a URL names its host by a number, which no other site can make lead here."""
    try:
        ipaddress.ip_address(urlsplit(url).hostname or "")
    except ValueError:
        return False
    return True


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket, so that a wrong address fails before anything slow is done.

    Raises:
        DigitsError: the port is in use, or the host is not this machine.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        # Python appends the address to its own text, which the message has already.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise DigitsError(
            f"{host}:{port}: cannot listen there: {reason}; another --host or --port?"
        ) from error


def url(listening: socket.socket) -> str:
    """Return the address to open in a browser."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def serve(app: Flask, listening: socket.socket) -> None:
    """Answer requests until interrupted."""
    waitress.serve(
        app,
        sockets=[listening],
        threads=4,
        ident="digits",
        # Waitress refuses a larger body without reading it; Flask reads and refuses the others.
        max_request_body_size=2 * MAX_REQUEST,
        _quiet=True,
    )
