"""Networks trained on the real data predict from pictures, and from drawings in a browser."""

import base64
import csv
import io
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import ROOT, digits, environment
from PIL import Image

import generated
from digits.core import config, dataset, models
from digits.core.evaluation import evaluate_model
from digits.core.training import train_model
from digits.handwriting import pictures, segmentation
from digits.ingest.fetch import fetch_for
from digits.serving.classifier import ImageClassifier
from digits.serving.export import export

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

# Strokes drawn by hand: points in percent of the canvas; "/" separates strokes.
STROKES = {
    0: "50,20 35,30 30,50 35,70 50,80 65,70 70,50 65,30 50,20",
    1: "52,20 50,50 48,80",
    2: "32,32 42,20 60,22 66,36 55,52 32,78 50,76 70,78",
    3: "34,24 52,18 64,30 50,46 66,60 56,78 34,76",
    4: "38,20 32,50 66,50 / 64,22 60,82",
    5: "66,22 40,22 36,46 56,44 66,60 54,78 34,76",
    6: "58,18 42,36 36,60 44,78 60,76 64,62 52,54 38,64",
    7: "32,24 50,22 68,24 56,50 46,80",
    8: "62,26 48,20 38,32 52,48 64,64 50,80 38,66 50,48 62,32 62,26",
    9: "62,30 50,20 38,30 44,46 60,42 62,30 60,55 54,82",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose v1 and v2 have been trained for two epochs each."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copy(ROOT / "params.yaml", folder)
    epochs: dict[tuple[str, ...], str] = {("models", v, "epochs"): "2" for v in ("v1", "v2")}
    params = config.load(folder / "params.yaml", epochs)
    mnist = fetch_for(params.data, print)
    dataset.save(mnist, folder / "data/mnist.npz")
    for version in ("v1", "v2"):
        result = train_model(version, params, mnist, seed=params.seed)
        models.save(result.network, folder / f"data/models/{version}.keras")
    return folder


@pytest.mark.network
def test_generated_pictures_lose_little_against_plain_digits(project: Path) -> None:
    mnist = dataset.load(project / "data/mnist.npz")
    indices = np.random.default_rng(1).permutation(len(mnist.x_test))[:200]
    images, labels = mnist.x_test[indices], mnist.y_test[indices]
    random = np.random.default_rng(2)
    folder = project / "generated"
    folder.mkdir()
    for number, image in enumerate(images):
        suffix = ("png", "jpg", "webp", "tiff", "bmp")[number % 5]
        picture = Image.fromarray(generated.picture(image, random))
        picture.save(folder / f"{number:03}.{suffix}")
    done = digits(project, "predict", "--version", "2", "--csv", "generated")
    assert done.returncode == 0, done.stderr
    predicted = [row["label"] for row in csv.DictReader(io.StringIO(done.stdout))]
    right = sum(label == str(true) for label, true in zip(predicted, labels, strict=True))
    network = models.load(project / "data/models/v2.keras")
    plain = evaluate_model([network], images, labels)
    assert right >= len(labels) - plain.scores["errors"] - 4


@pytest.mark.network
def test_digits_on_a_page_are_cropped_one_by_one(project: Path) -> None:
    mnist = dataset.load(project / "data/mnist.npz")
    random = np.random.default_rng(3)
    rows = random.permutation(len(mnist.x_train))[:200].reshape(50, 4)
    pages = [generated.page(mnist.x_train[row], random) / np.float32(255) for row in rows]
    assert sum(len(segmentation.digits(page)) == 4 for page in pages) >= 48


@pytest.fixture(scope="module")
def address(project: Path) -> Iterator[str]:
    """Serve the page of the two networks; its address."""
    command = [sys.executable, "-m", "digits", "draw", "--port", "0", "--no-browser"]
    with subprocess.Popen(
        command,
        cwd=project,
        env=environment(PYTHONPATH=str(ROOT / "src")),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as started:
        assert started.stdout is not None
        line = started.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), line + started.stdout.read()
        yield line.split()[0]
        started.send_signal(signal.SIGTERM)  # A background job ignores SIGINT.
        try:
            assert started.wait(20) == 0
        finally:
            started.kill()


def show(browser: "Chrome", address: str) -> None:
    """Open the page, and wait for its networks."""
    from selenium.webdriver.support.wait import WebDriverWait

    browser.get(address)
    count = "return Object.keys(networks).length"
    WebDriverWait(browser, 20).until(lambda opened: opened.execute_script(count) == 2)


@pytest.fixture(scope="module")
def browser(address: str) -> Iterator["Chrome"]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs chromium and chromedriver, of Debian's chromium and chromium-driver")
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = chromium
    for argument in (
        *("headless", "no-sandbox", "disable-gpu", "no-first-run", "window-size=1280,760"),
        *("disable-background-networking", "disable-component-update", "disable-sync"),
    ):
        options.add_argument(f"--{argument}")
    with Chrome(options, Service(driver)) as opened:
        show(opened, address)
        yield opened


def draw(browser: "Chrome", digit: int, kind: str = "mouse") -> None:
    from selenium.webdriver.common.actions.action_builder import ActionBuilder
    from selenium.webdriver.common.actions.pointer_input import PointerInput
    from selenium.webdriver.common.by import By

    canvas = browser.find_element(By.ID, "canvas")
    pointer = PointerInput(kind, kind)
    actions = ActionBuilder(browser, mouse=pointer, duration=20)
    width, height = canvas.rect["width"], canvas.rect["height"]
    for stroke in STROKES[digit].split(" / "):
        for number, point in enumerate(stroke.split()):
            x, y = (int(percent) / 100 - 0.5 for percent in point.split(","))
            actions.pointer_action.move_to(canvas, int(x * width), int(y * height))
            if number == 0:
                actions.pointer_action.pointer_down()
        actions.pointer_action.pointer_up()
    actions.perform()


def press(browser: "Chrome", *keys: str) -> None:
    from selenium.webdriver.common.by import By

    browser.find_element(By.ID, "canvas").send_keys(*keys)


def shown_labels(browser: "Chrome", summary: str = ": ") -> dict[str, int]:
    """Return the digit that each network predicts, once the summary contains a text."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    def settled(opened: "Chrome") -> bool:
        return bool(opened.execute_script("return !asking && !changed")) and (
            summary in opened.find_element(By.ID, "summary").text
        )

    WebDriverWait(browser, 20).until(settled)
    networks = browser.find_elements(By.CLASS_NAME, "network")
    texts = {
        str(network.get_attribute("data-version")): network.find_element(
            By.CLASS_NAME, "label"
        ).text
        for network in networks
    }
    return {version: int(text) for version, text in texts.items() if text.isdigit()}


def clear(browser: "Chrome") -> None:
    from selenium.webdriver.common.by import By

    browser.find_element(By.ID, "clear").click()
    assert shown_labels(browser, "Nothing drawn yet.") == {}


@pytest.mark.browser
@pytest.mark.parametrize("kind", ["mouse", "touch"])
def test_drawn_digits_are_recognised(browser: "Chrome", kind: str) -> None:
    predicted = {}
    for digit in STROKES:
        clear(browser)
        draw(browser, digit, kind)
        predicted[digit] = shown_labels(browser)["v2"]
    assert sum(digit == label for digit, label in predicted.items()) >= 9, predicted


@pytest.mark.browser
def test_it_can_be_drawn_on_by_keyboard(browser: "Chrome") -> None:
    from selenium.webdriver.common.keys import Keys

    clear(browser)
    press(browser, " ", *[Keys.ARROW_DOWN] * 20, " ")
    assert shown_labels(browser)["v2"] == 1
    press(browser, "u")
    assert shown_labels(browser, "Nothing drawn yet.") == {}


@pytest.mark.browser
def test_it_states_each_model(browser: "Chrome") -> None:
    from selenium.webdriver.common.by import By

    titles = [title.text for title in browser.find_elements(By.TAG_NAME, "h2")]
    assert [title.split()[0] for title in titles] == ["v1", "v2"]
    assert [bar.text for bar in browser.find_elements(By.CLASS_NAME, "about")] == ["not scored"] * 2
    errors = [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    assert errors == []


DRAWN = """
return arguments[0].map((drawn) => {
  strokes = drawn;
  paint(false);
  const image = digit(context.getImageData(0, 0, canvas.width, canvas.height));
  const answers = {};
  for (const name in networks) answers[name] = classify(networks[name], image);
  return [image, answers, canvas.toDataURL()];
});
"""


def shaken(digit: int, random: np.random.Generator) -> list[list[list[float]]]:
    """The strokes of a digit in pixels of the canvas, turned, scaled and with trembling lines."""
    angle, scale = random.uniform(-0.3, 0.3), 2.8 * random.uniform(0.5, 1.1)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    strokes = []
    for stroke in STROKES[digit].split(" / "):
        points = np.array([point.split(",") for point in stroke.split()], float) - 50
        strokes.append(((points + random.normal(0, 2, points.shape)) @ turn + 140).tolist())
    return strokes


@pytest.mark.browser
def test_500_drawings_have_the_pixels_and_answers_of_python(
    browser: "Chrome", project: Path
) -> None:
    random = np.random.default_rng(4)
    classifiers = {
        v: ImageClassifier(export(models.load(project / f"data/models/{v}.keras")))
        for v in ("v1", "v2")
    }
    equal = 0
    for number in range(0, 500, 50):
        drawings = [shaken(digit % 10, random) for digit in range(number, number + 50)]
        for pixels, answers, url in browser.execute_script(DRAWN, drawings):
            png = base64.b64decode(url.partition(",")[2])
            picture = pictures.decode(png, "the drawing")
            (crop,) = segmentation.digits(picture, split=False)
            difference = np.abs(crop.image.ravel().astype(int) - pixels)
            assert difference.max() <= 1, "of 255"
            equal += not difference.any()
            for version, classifier in classifiers.items():
                expected = classifier.predict(crop.image[np.newaxis])
                assert np.argmax(answers[version]) == expected["label"][0]
                tolerance = 1e-5 if not difference.any() else 1e-2
                np.testing.assert_allclose(
                    answers[version], expected["probabilities"][0], atol=tolerance
                )
    assert equal >= 450


@pytest.mark.browser
def test_the_exported_folder_works_on_any_web_server(
    browser: "Chrome", project: Path, tmp_path: Path
) -> None:
    arguments = ["draw", "--export", str(tmp_path / "site")]
    done = digits(project, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    before = browser.current_url
    server = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "site"))
    with ThreadingHTTPServer(("127.0.0.1", 0), server) as shown:
        threading.Thread(target=shown.serve_forever).start()
        show(browser, f"http://127.0.0.1:{shown.server_address[1]}/")
        draw(browser, 1)
        assert shown_labels(browser)["v2"] == 1
        show(browser, before)
        shown.shutdown()
