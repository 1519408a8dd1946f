"""What a network answers about the digits in pictures, and how it is told."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digits import CLASSES
from digits.handwriting import segmentation
from digits.handwriting.pictures import Picture

NOTHING = "no digit found"
SIDES = ("left", "top", "right", "bottom")
Answers = Mapping[str, NDArray[Any]]  # as digits.served.Served gives them
Predict = Callable[[NDArray[np.uint8]], Answers]


@dataclass(frozen=True)
class Answer:
    """One digit read, or that there is none.

    Attributes:
        image: name of the picture.
        number: of the digit in it, from the left, from 1; 0 if there is none.
        label: the digit; None if there is none.
        probabilities: of the ten digits.
        box: left, top, right and bottom of its ink as shares of the picture.
    """

    image: str
    number: int
    label: int | None
    probabilities: Sequence[float]
    box: Sequence[float]


def find(picture: Picture, split: bool) -> list[segmentation.DigitCrop]:
    """The digits in a picture: with `split` each piece of ink is one, else all of it is."""
    if split:
        return segmentation.digits(picture)
    whole = segmentation.digit(picture)
    return [whole] if whole else []


def read(
    found: Sequence[tuple[str, Sequence[segmentation.DigitCrop]]], predict: Predict
) -> list[Answer]:
    """What a network says of the digits found in pictures, which have names."""
    images = [digit.image for _, digits in found for digit in digits]
    told: Iterator[tuple[int, list[float]]] = iter(())
    if images:
        answers = predict(np.stack(images))
        told = zip(answers["label"].tolist(), answers["probabilities"].tolist(), strict=True)
    return [answer for name, digits in found for answer in _read(name, digits, told)]


def _read(
    name: str, digits: Sequence[segmentation.DigitCrop], told: Iterator[tuple[int, list[float]]]
) -> Iterator[Answer]:
    if not digits:
        yield Answer(name, 0, None, [], [])
    for number, digit in enumerate(digits, start=1):
        label, probabilities = next(told)
        box = [round(share, 4) for share in digit.box]
        yield Answer(name, number, label, [round(p, 6) for p in probabilities], box)


def table(answers: Sequence[Answer]) -> str:
    """For people: the digit and how probable each is, in percent."""
    width = max((len(answer.image) for answer in answers), default=0)
    head = f"{'':{width}}  digit  " + " ".join(f"{digit:>5}" for digit in range(CLASSES)) + "  %"
    return "\n".join([head, *(_row(answer, width) for answer in answers)])


def _row(answer: Answer, width: int) -> str:
    if answer.label is None:
        return f"{answer.image:{width}}  {NOTHING}"
    shares = " ".join(f"{100 * p:5.1f}" for p in answer.probabilities)
    return f"{answer.image:{width}}  {answer.label:>5}  {shares}"


def as_json(answers: Iterable[Answer]) -> str:
    """A list of objects with the fields of Answer, one a line."""
    lines = [json.dumps(asdict(answer), ensure_ascii=False) for answer in answers]
    return "[" + ",\n ".join(lines) + "]"


def as_csv(answers: Iterable[Answer]) -> str:
    """With a header line; label and place are empty where there is no digit."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    shares = (f"p{digit}" for digit in range(CLASSES))
    writer.writerow(["image", "number", "label", *SIDES, *shares])
    for answer in answers:
        told: list[object] = [answer.label, *answer.box, *answer.probabilities]
        if answer.label is None:
            told = [""] * (1 + len(SIDES) + CLASSES)
        writer.writerow([answer.image, answer.number, *told])
    return text.getvalue().rstrip("\n")
