"""`make at-work`: measure the models on other pictures than MNIST's, and served.

Writes benchmarks/results/at-work.json and, for `digits evaluate --data`, the digits of UCI, made
like MNIST, to data/uci.npz.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import requests
from numpy.typing import NDArray

import generated
import paths
import render
from digits import DigitsError
from digits.cli import options
from digits.core import config, dataset, evaluation, files, models
from digits.core.dataset import pixels
from digits.handwriting import segmentation
from digits.serving.classifier import ImageClassifier
from digits.serving.keras_classifier import CompiledNetwork
from digits.tracking.machine import libraries, machine
from digits.tracking.provenance import code
from samples import summarise

SEED = 2018  # of the generated pictures
DIGITS_PER_PAGE = 4
TIMEOUT = 120  # seconds for the server to start
WITHOUT_ONNX = ["--onnx", str(paths.ONNX / "none")]
# A process of its own, since the system counts the memory of the parent at a fork as the child's.
LAUNCHER = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
seconds = time.perf_counter() - start
kilobytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps([done.returncode, seconds, kilobytes / 1000]))
"""
HEADERS = {"Content-Type": "application/json"}
Images = NDArray[np.uint8]


@click.command()
@click.option("--pictures", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--requests", "count", type=click.IntRange(2), default=300, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=paths.RESULTS / "at-work.json")
def main(pictures: int, count: int, out: Path) -> None:
    """Measure on a machine with nothing else to do."""
    params, mnist = config.load(paths.PARAMS), dataset.load(paths.DATA)
    networks = {v: models.load(paths.MODELS / f"{v}.keras") for v in params.versions}
    tta = params.tta
    chosen = np.random.default_rng(SEED).permutation(len(mnist.x_test))[:pictures]
    sets = {
        "plain": (mnist.x_test[chosen], mnist.y_test[chosen]),
        "generated": pasted(mnist.x_test[chosen], mnist.y_test[chosen]),
        "uci": uci(),
    }
    np.savez_compressed(paths.UCI, x=sets["uci"][0], y=sets["uci"][1])
    measured: dict[str, Any] = {
        "machine": machine() | libraries() | dict(code().tags),
        "images": {name: len(y) for name, (_, y) in sets.items()},
        "accuracy": {
            version: {
                name: evaluation.evaluate_model([network], x, y, tta.get(version, ())).scores[
                    "accuracy"
                ]
                for name, (x, y) in sets.items()
            }
            for version, network in networks.items()
        },
    }
    measured["pages"] = pages(mnist, networks, tta, pictures // DIGITS_PER_PAGE)
    measured["exported"] = exported_against_keras(mnist, networks, tta)
    measured |= latency(params.registry.name, mnist.x_test, count, networks, tta)
    measured["commands"] = commands(measured["champion"], max(count // 30, 2))
    files.write_json(out, measured)
    click.echo(render.section("at-work", measured))
    click.echo(f"wrote {out}")


def pasted(x: Images, y: Images) -> tuple[Images, Images]:
    """Return the digits that `digits predict` crops from pictures generated of these."""
    random = np.random.default_rng(SEED)
    pictures = [generated.picture(image, random) / np.float32(255) for image in x]
    return np.stack([crop(picture) for picture in pictures]), y


def crop(picture: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Return the digit of a picture, or a blank image if there is none."""
    crops = segmentation.digits(picture, split=False)
    return crops[0].image if crops else np.zeros((28, 28), np.uint8)


def pages(
    mnist: dataset.Dataset, networks: dict[str, Any], tta: dict[str, Any], count: int
) -> dict[str, Any]:
    """Count the pages of several digits that `digits predict --split` reads without a mistake."""
    random = np.random.default_rng(SEED)
    order = random.permutation(len(mnist.x_test))[: count * DIGITS_PER_PAGE]
    indices = order.reshape(count, DIGITS_PER_PAGE)
    crops = [
        segmentation.digits(generated.page(mnist.x_test[i], random) / np.float32(255))
        for i in indices
    ]
    whole = [number for number in range(count) if len(crops[number]) == DIGITS_PER_PAGE]
    images = np.stack([crop.image for number in whole for crop in crops[number]])
    labels = mnist.y_test[indices[whole]]
    right = {}
    for version, network in networks.items():
        probabilities = evaluation.predict_probabilities(network, images, tta.get(version, ()))
        predicted = evaluation.predicted_labels(probabilities).reshape(labels.shape)
        right[version] = int((predicted == labels).all(axis=1).sum())
    return {"digits": DIGITS_PER_PAGE, "pages": count, "parted": len(whole), "right": right}


def uci() -> tuple[Images, Images]:
    """Return the 1,797 test digits of UCI's "Optical Recognition of Handwritten Digits".

    They have 8 × 8 pixels of 17 grays and reach to the edge, so that they get a border of paper,
    and are then cropped and scaled as MNIST was made.
    Source: E. Alpaydin and C. Kaynak (1998), as scikit-learn has them.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    pictures = np.pad(digits.images / 16, ((0, 0), (2, 2), (2, 2))).astype(np.float32)
    crops = [crop(np.repeat(picture[..., np.newaxis], 3, axis=2)) for picture in pictures]
    return np.stack(crops), digits.target.astype(np.uint8)


def exported_against_keras(
    mnist: dataset.Dataset, networks: dict[str, Any], tta: dict[str, Any]
) -> dict[str, Any]:
    """Compare each exported network with that of Keras on all training and test images."""
    images, compared = np.concatenate([mnist.x_train, mnist.x_test]), {}
    for version, network in networks.items():
        expected = evaluation.predict_probabilities(network, images, tta.get(version, ()))
        answers = ImageClassifier(paths.ONNX / f"{version}.onnx").predict(images)
        differing = answers["label"] != evaluation.predicted_labels(expected)
        compared[version] = {
            "images": len(images),
            "labels": int(differing.sum()),
            "probabilities": float(np.abs(answers["probabilities"] - expected).max()),
        }
    return compared


def commands(version: str, count: int) -> dict[str, Any]:
    """Measure whole processes of `digits predict` with one picture, in turn."""
    predict = [sys.executable, "-m", "digits", "predict", str(paths.PICTURE)]
    ways = {
        "`digits predict`, the champion": predict,
        "`digits predict --version`, exported": [*predict, "--version", version],
        "`digits predict --version`, TensorFlow": [*predict, "--version", version, *WITHOUT_ONNX],
    }
    measured: dict[str, dict[str, list[float]]] = {
        way: {"seconds": [], "megabytes": []} for way in ways
    }
    for number in range(-1, count):
        for way, command in ways.items():
            launched = [sys.executable, "-c", LAUNCHER, *command]
            done = subprocess.run(launched, capture_output=True, text=True, check=True)
            status, seconds, megabytes = json.loads(done.stdout)
            if status:
                raise DigitsError(f"{' '.join(command)}: failed")
            if number >= 0:  # The first one fills the system's cache of files.
                measured[way]["seconds"].append(seconds)
                measured[way]["megabytes"].append(megabytes)
    return {
        way: {name: summarise(values) for name, values in sample.items()}
        for way, sample in measured.items()
    }


def latency(
    name: str, x: Images, count: int, networks: dict[str, Any], tta: dict[str, Any]
) -> dict[str, Any]:
    """Measure the time of an answer: served, in process, and by Keras's own `predict`."""
    from digits.tracking import promotion, registry

    options.connect()
    champion = registry.champion(name)
    if champion is None or champion.version not in networks:
        raise DigitsError(f"{name}: no champion among the models here: `dvc repro` registers them")
    network, transforms = networks[champion.version], tta.get(champion.version, ())
    own, graph = registry.load(name), CompiledNetwork(network)
    same = evaluation.predict_probabilities(graph, x[:200], transforms)
    if not np.allclose(own.predict(x[:200])["probabilities"], same, atol=1e-5):
        raise DigitsError(
            f"{name}: the champion is another {champion.version} than that of {paths.MODELS}: "
            f"`digits register --models {paths.MODELS} --force` takes the one here"
        )
    measured: dict[str, Any] = {
        "champion": champion.version,
        "tta": len(transforms),
        "latency": {},
    }
    with serving(f"models:/{name}@{promotion.CHAMPION}") as address:
        for size in (1, 100):
            ways: dict[str, Callable[[Images], Any]] = {
                "served": lambda images: ask(address, images),
                "in process": own.predict,
                "TensorFlow's graph": lambda images: evaluation.predict_probabilities(
                    graph, images, transforms
                ),
                "model.predict": lambda images: network.predict(pixels(images), verbose=0),
            }
            seconds = timed(ways, x, size, count if size == 1 else max(count // 3, 2))
            measured["latency"][str(size)] = {
                way: _quantiles(s, size) for way, s in seconds.items()
            }
        asked, answered = own.predict(x[:200]), ask(address, x[:200])
        assert asked["label"].tolist() == answered["label"]
        difference = np.abs(asked["probabilities"] - np.array(answered["probabilities"])).max()
        measured["largest_difference"] = float(difference)
    return measured


def timed(
    ways: dict[str, Callable[[Images], Any]], x: Images, size: int, count: int
) -> dict[str, list[float]]:
    """Return the seconds of `count` requests each way, in turn, after three that compile."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(-3, count):
        at = (number % (len(x) // size)) * size
        for way, answer in ways.items():
            start = time.perf_counter()
            answer(x[at : at + size])
            if number >= 0:
                seconds[way].append(time.perf_counter() - start)
    return seconds


def _quantiles(seconds: list[float], size: int) -> dict[str, float]:
    p50, p99 = np.quantile(seconds, [0.5, 0.99])
    images = size * len(seconds) / sum(seconds)
    return {
        "p50": round(float(p50), 6),
        "p99": round(float(p99), 6),
        "requests_per_second": round(len(seconds) / sum(seconds), 1),
        "images_per_second": round(images, 1),
        "n": len(seconds),
    }


def ask(address: str, images: Images) -> Any:
    """Return the answer of a served model."""
    body = {"inputs": images.tolist()}
    response = session.post(f"{address}/invocations", json=body, headers=HEADERS)
    if not response.ok:
        raise DigitsError(f"{address}: {response.text}")
    return response.json()["predictions"]


session = requests.Session()


@contextmanager
def serving(model: str) -> Iterator[str]:
    """Run `mlflow models serve`; the address, once it answers."""
    port = _free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", model]
    command += ["--env-manager", "local", "--port", str(port)]
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as log:
        started = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, env=dict(os.environ)
        )
        try:
            end = time.monotonic() + TIMEOUT
            while not _answers(address):
                if time.monotonic() > end or started.poll() is not None:
                    log.seek(0)
                    raise DigitsError(f"{' '.join(command)}: {log.read().decode()[-500:]}")
                time.sleep(0.5)
            yield address
        finally:
            if started.poll() is None:
                os.killpg(started.pid, signal.SIGTERM)
            started.wait()


def _answers(address: str) -> bool:
    try:
        return requests.get(f"{address}/ping", timeout=1).ok
    except requests.RequestException:
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


if __name__ == "__main__":
    try:
        main()
    except DigitsError as error:
        sys.exit(f"digits: {error}")
