"""The page to draw on: a small web application around `predict` functions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask import Flask, Response, abort, jsonify, request

from digits import DigitsError
from digits.handwriting import pictures, predictions
from digits.handwriting.predictions import Predict

STATIC = Path(__file__).with_name("static")
PARTS = {
    STATIC / "draw.html": "text/html",
    STATIC / "draw.css": "text/css",
    STATIC / "draw.js": "text/javascript",
}
LARGEST = 2_000_000  # bytes of a request; a drawing has some 10,000
# Whatever the page shows comes from this server, and no other page may show it within itself.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def application(networks: Mapping[str, tuple[str, Predict]]) -> Flask:
    """The page, and what it asks: `GET /models`, and `POST /read` with a picture as its body.

    Args:
        networks: by version, what is said of it and its `predict`.
    """
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST

    @app.get("/")
    def page() -> Response:
        return part("draw.html")

    @app.get("/<name>")
    def part(name: str) -> Response:
        path = STATIC / name
        if path not in PARTS:
            abort(404)
        return Response(path.read_bytes(), mimetype=PARTS[path])

    @app.get("/models")
    def models() -> Response:
        return jsonify([{"version": v, "about": about} for v, (about, _) in networks.items()])

    @app.post("/read")
    def read() -> Response:
        drawing = pictures.decode(request.get_data(), "the drawing", ["PNG"], megapixels=1)
        found = predictions.find(drawing, split=False)
        told: dict[str, Any] = {"found": bool(found)}
        told["image"] = found[0].image.tolist() if found else []
        told["answers"] = {
            version: predictions.read([("", found)], predict)[0].probabilities
            for version, (_, predict) in networks.items()
            if found
        }
        return jsonify(told)

    @app.errorhandler(DigitsError)
    def refused(error: DigitsError) -> tuple[Response, int]:
        return jsonify({"error": str(error)}), 400

    @app.errorhandler(413)
    def too_large(error: object) -> tuple[Response, int]:
        return jsonify({"error": f"expected at most {LARGEST:,} bytes"}), 413

    @app.after_request
    def headers(response: Response) -> Response:
        response.headers.update(HEADERS)
        return response

    return app
