"""Predict the digits in pictures and format the predictions."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digits.handwriting.segmentation import IMAGE_SIDE, DigitCrop

DIGITS = range(10)
SIDES = ("left", "top", "right", "bottom")
# What the `predict` of a classifier maps images to.
Classify = Callable[[NDArray[np.uint8]], Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class Prediction:
    """The prediction for one digit, or that a picture has none.

    Attributes:
        image: name of the picture.
        number: position of the digit, from the left, from 1; 0 if there is none.
        label: the predicted digit; None if there is none.
        probabilities: of the ten digits; empty if there is none.
        box: left, top, right and bottom as shares of the picture; empty if there is none.
    """

    image: str
    number: int
    label: int | None
    probabilities: Sequence[float]
    box: Sequence[float]


def predict_digits(
    crops_of_pictures: Sequence[tuple[str, Sequence[DigitCrop]]], classify: Classify
) -> list[Prediction]:
    """Classify the digits of all pictures in one call.

    Args:
        crops_of_pictures: each picture's name and the digits cropped from it.
        classify: the `predict` of a classifier.
    """
    images = [crop.image for _, crops in crops_of_pictures for crop in crops]
    outputs = classify(np.array(images, np.uint8).reshape(-1, IMAGE_SIDE, IMAGE_SIDE))
    rows = zip(outputs["label"].tolist(), outputs["probabilities"].tolist(), strict=True)
    predictions = []
    for name, crops in crops_of_pictures:
        if not crops:
            predictions.append(Prediction(name, 0, None, [], []))
        for number, crop in enumerate(crops, start=1):
            label, probabilities = next(rows)
            box = np.round(crop.box, 4).tolist()
            rounded = [round(probability, 6) for probability in probabilities]
            predictions.append(Prediction(name, number, label, rounded, box))
    return predictions


def as_table(predictions: Sequence[Prediction]) -> str:
    """Format predictions as a table: the digit and the probability of each digit in percent."""
    width = max((len(prediction.image) for prediction in predictions), default=0)
    heads = " ".join(f"{digit:>5}" for digit in DIGITS)
    lines = [f"{'':{width}}  digit  {heads}  %"]
    for prediction in predictions:
        if prediction.label is None:
            text = "no digit found"
        else:
            percents = " ".join(f"{100 * p:5.1f}" for p in prediction.probabilities)
            text = f"{prediction.label:>5}  {percents}"
        lines.append(f"{prediction.image:{width}}  {text}")
    return "\n".join(lines)


def as_json(predictions: Iterable[Prediction]) -> str:
    """Format predictions as a list of JSON objects, one a line, with the fields of Prediction."""
    lines = [json.dumps(asdict(prediction), ensure_ascii=False) for prediction in predictions]
    return "[" + ",\n ".join(lines) + "]"


def as_csv(predictions: Iterable[Prediction]) -> str:
    """Format predictions as CSV with a header; without a digit, label and numbers are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    probabilities = [f"p{digit}" for digit in DIGITS]
    writer.writerow(["image", "number", "label", *SIDES, *probabilities])
    empty = [""] * (len(SIDES) + len(DIGITS))
    for prediction in predictions:
        numbers = [*prediction.box, *prediction.probabilities] or empty
        writer.writerow([prediction.image, prediction.number, prediction.label, *numbers])
    return text.getvalue().rstrip("\n")
