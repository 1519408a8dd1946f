"""The page to draw on answers requests; without a browser."""

import io
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from digits import DigitsError
from digits.handwriting import page
from digits.handwriting.predictions import Classify

CLASSIFIED: list[NDArray[np.uint8]] = []


def always(digit: int) -> Classify:
    def classify(images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        CLASSIFIED.append(images)
        probabilities = np.full((len(images), 10), 0.02, np.float32)
        probabilities[:, digit] = 0.82
        return {"label": probabilities.argmax(axis=1), "probabilities": probabilities}

    return classify


@pytest.fixture
def client() -> FlaskClient:
    classifiers = {"v1": ("97.88 % right", always(3)), "v4": ("99.71 % right", always(8))}
    return page.application(classifiers).test_client()


def drawing(ink: bool = True) -> bytes:
    image = Image.new("RGBA", (280, 280), "white")
    if ink:
        ImageDraw.Draw(image).line((140, 40, 140, 240), fill="black", width=22)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "media_type"),
    [("", "text/html"), ("draw.css", "text/css"), ("draw.js", "text/javascript")],
)
def test_the_page_is_served_in_three_files(client: FlaskClient, name: str, media_type: str) -> None:
    response = client.get(f"/{name}")
    assert response.status_code == 200
    assert response.mimetype == media_type
    assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]


@pytest.mark.parametrize("name", ["page.py", "..%2fpage.py", "%2e%2e/page.py", "none.js"])
def test_nothing_else_is_served(client: FlaskClient, name: str) -> None:
    assert client.get(f"/{name}").status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example:8000"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "127.0.0.1:8000", "Origin": "http://127.0.0.1:8000"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "drawing.example"}, 200),
    ],
)
def test_pages_of_other_sites_are_refused(headers: dict[str, str], status: int) -> None:
    client = page.application({}, "drawing.example").test_client()
    assert client.get("/models", headers=headers).status_code == status


def test_it_states_the_models_and_their_accuracy(client: FlaskClient) -> None:
    assert client.get("/models").json == [
        {"version": "v1", "about": "97.88 % right"},
        {"version": "v4", "about": "99.71 % right"},
    ]


def test_every_model_predicts_from_the_same_image(client: FlaskClient) -> None:
    CLASSIFIED.clear()
    result = client.post("/read", data=drawing()).json
    assert result is not None
    assert result["found"]
    best = {version: p.index(max(p)) for version, p in result["answers"].items()}
    assert best == {"v1": 3, "v4": 8}
    first, second = CLASSIFIED
    assert (first == second).all()
    assert first[0].tolist() == result["image"]
    assert np.count_nonzero(first[0].any(axis=1)) == 20


def test_an_empty_drawing_is_no_digit(client: FlaskClient) -> None:
    result = client.post("/read", data=drawing(ink=False)).json
    assert result == {"found": False, "image": [], "answers": {}}


@pytest.mark.parametrize("body", [b"", b"three", drawing()[:90]])
def test_a_body_that_is_no_picture_is_refused(client: FlaskClient, body: bytes) -> None:
    response = client.post("/read", data=body)
    assert response.status_code == 400
    assert response.json is not None
    assert response.json["error"].startswith("the drawing: ")


def test_a_drawing_that_would_fill_the_memory_is_refused(client: FlaskClient) -> None:
    buffer = io.BytesIO()
    Image.new("1", (8000, 8000)).save(buffer, "PNG")
    response = client.post("/read", data=buffer.getvalue())
    assert response.status_code == 400
    assert response.json == {"error": "the drawing: too large; expected at most 1 megapixels"}


def test_a_request_that_is_too_large_is_refused(client: FlaskClient) -> None:
    response = client.post("/read", data=bytes(page.MAX_REQUEST + 1))
    assert response.status_code == 413
    assert response.json == {"error": "expected at most 2,000,000 bytes"}


def test_a_port_in_use_is_an_error_in_one_line() -> None:
    with page.listen("127.0.0.1", 0) as listening:
        url = page.url(listening)
        port = listening.getsockname()[1]
        assert url == f"http://127.0.0.1:{port}/"
        with pytest.raises(DigitsError, match=f"127.0.0.1:{port}: cannot listen there: Address al"):
            page.listen("127.0.0.1", port)
