"""The page to draw on, without a browser."""

import io

import numpy as np
import pytest
from flask.testing import FlaskClient
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from digits.handwriting import page
from digits.handwriting.predictions import Answers, Predict

ASKED: list[NDArray[np.uint8]] = []


def always(digit: int) -> Predict:
    def predict(images: NDArray[np.uint8]) -> Answers:
        ASKED.append(images)
        probabilities = np.full((len(images), 10), 0.02, np.float32)
        probabilities[:, digit] = 0.82
        return {"label": probabilities.argmax(axis=1), "probabilities": probabilities}

    return predict


@pytest.fixture
def client() -> FlaskClient:
    networks = {"v1": ("97.88 % right", always(3)), "v4": ("99.71 % right", always(8))}
    return page.application(networks).test_client()


def drawing(ink: bool = True) -> bytes:
    image = Image.new("RGBA", (280, 280), "white")
    if ink:
        ImageDraw.Draw(image).line((140, 40, 140, 240), fill="black", width=22)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["", "draw.css", "draw.js"])
def test_the_page_has_its_parts(client: FlaskClient, name: str) -> None:
    answered = client.get(f"/{name}")
    assert answered.status_code == 200
    assert "frame-ancestors 'none'" in answered.headers["Content-Security-Policy"]


@pytest.mark.parametrize("name", ["page.py", "..%2fpage.py", "%2e%2e/page.py", "none.js"])
def test_nothing_else_is_served(client: FlaskClient, name: str) -> None:
    assert client.get(f"/{name}").status_code == 404


def test_it_states_the_models_and_their_accuracy(client: FlaskClient) -> None:
    assert client.get("/models").json == [
        {"version": "v1", "about": "97.88 % right"},
        {"version": "v4", "about": "99.71 % right"},
    ]


def test_every_model_answers_about_the_same_image(client: FlaskClient) -> None:
    ASKED.clear()
    told = client.post("/read", data=drawing()).json
    assert told is not None
    assert told["found"]
    assert {version: p.index(max(p)) for version, p in told["answers"].items()} == {
        "v1": 3,
        "v4": 8,
    }
    one, other = ASKED
    assert (one == other).all()
    assert one[0].tolist() == told["image"]
    assert np.count_nonzero(one[0].any(axis=1)) == 20


def test_an_empty_drawing_is_no_digit(client: FlaskClient) -> None:
    told = client.post("/read", data=drawing(ink=False)).json
    assert told == {"found": False, "image": [], "answers": {}}


@pytest.mark.parametrize("body", [b"", b"three", drawing()[:90]])
def test_what_is_no_picture_is_refused(client: FlaskClient, body: bytes) -> None:
    answered = client.post("/read", data=body)
    assert answered.status_code == 400
    assert answered.json is not None
    assert answered.json["error"].startswith("the drawing: ")


def test_a_drawing_that_would_fill_the_memory_is_refused(client: FlaskClient) -> None:
    buffer = io.BytesIO()
    Image.new("1", (8000, 8000)).save(buffer, "PNG")
    answered = client.post("/read", data=buffer.getvalue())
    assert answered.status_code == 400
    assert answered.json == {"error": "the drawing: too large; expected at most 1 megapixels"}


def test_a_request_that_is_too_large_is_refused(client: FlaskClient) -> None:
    answered = client.post("/read", data=bytes(page.LARGEST + 1))
    assert answered.status_code == 413
    assert answered.json == {"error": "expected at most 2,000,000 bytes"}
