"""Networks trained on the real data, asked about pictures and by a real browser."""

import csv
import io
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import ROOT, digits, environment, run
from PIL import Image

import generated
from digits.core import dataset, models
from digits.handwriting import segmentation

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

# Strokes by hand: places in percent of the paper, strokes parted by "/".
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
    project = tmp_path_factory.mktemp("page")
    for name in ("src", "metrics/report-2018.json", "dvc.yaml"):
        source, target = ROOT / name, project / name
        target.parent.mkdir(exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    params = (ROOT / "params.yaml").read_text().replace("epochs: 15", "epochs: 2")
    (project / "params.yaml").write_text(params)
    for made in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"]):
        assert run(project, *made).returncode == 0
    for stages in (["fetch"], ["--single-item", "train@v1"], ["--single-item", "train@v2"]):
        done = run(project, "dvc", "repro", *stages)
        assert done.returncode == 0, done.stdout + done.stderr
    return project


@pytest.mark.network
def test_generated_pictures_lose_little_against_plain_digits(project: Path) -> None:
    mnist = dataset.load(project / "data/mnist.npz")
    chosen = np.random.default_rng(1).permutation(len(mnist.x_test))[:200]
    random = np.random.default_rng(2)
    pictures = [generated.picture(mnist.x_test[i], random) for i in chosen]
    folder = project / "generated"
    folder.mkdir()
    for number, picture in enumerate(pictures):
        kind = ("png", "jpg", "webp", "tiff", "bmp")[number % 5]
        Image.fromarray(picture).save(folder / f"{number:03}.{kind}")
    done = digits(project, "predict", "--version", "2", "--csv", "generated")
    assert done.returncode == 0, done.stderr
    read = [row["label"] for row in csv.DictReader(io.StringIO(done.stdout))]
    labels = mnist.y_test[chosen]
    right = sum(label == str(true) for label, true in zip(read, labels, strict=True))
    network = models.load(project / "data/models/v2.keras")
    plain = models.predict(network, dataset.pixels(mnist.x_test[chosen])).argmax(axis=1)
    assert right >= int((plain == labels).sum()) - 4


@pytest.mark.network
def test_digits_on_a_page_are_found_one_by_one(project: Path) -> None:
    mnist = dataset.load(project / "data/mnist.npz")
    random = np.random.default_rng(3)
    chosen = random.permutation(len(mnist.x_train))[:200].reshape(50, 4)
    parted = [
        len(segmentation.digits(generated.page(mnist.x_train[i], random) / np.float32(255))) == 4
        for i in chosen
    ]
    assert sum(parted) >= 48


@pytest.fixture(scope="module")
def address(project: Path) -> Iterator[str]:
    """The page of the two networks."""
    command = [sys.executable, "-m", "digits", "draw", "--port", "0", "--no-browser"]
    with subprocess.Popen(
        command,
        cwd=project,
        env=environment(PYTHONPATH="src"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as started:
        assert started.stdout is not None
        line = started.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), line + started.stdout.read()
        yield line.split()[0]
        started.send_signal(signal.SIGTERM)  # SIGINT is ignored where tests run in the background
        try:
            assert started.wait(20) == 0
        finally:
            started.kill()


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
        opened.get(address)
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
        for number, place in enumerate(stroke.split()):
            x, y = (int(share) / 100 - 0.5 for share in place.split(","))
            actions.pointer_action.move_to(canvas, int(x * width), int(y * height))
            if number == 0:
                actions.pointer_action.pointer_down()
        actions.pointer_action.pointer_up()
    actions.perform()


def press(browser: "Chrome", *keys: str) -> None:
    from selenium.webdriver.common.by import By

    browser.find_element(By.ID, "canvas").send_keys(*keys)


def answers(browser: "Chrome", said: str = ": ") -> dict[str, int]:
    """What each network says, once the page says so."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    def settled(opened: "Chrome") -> bool:
        return bool(opened.execute_script("return !asking && !changed")) and (
            said in opened.find_element(By.ID, "said").text
        )

    WebDriverWait(browser, 20).until(settled)
    networks = browser.find_elements(By.CLASS_NAME, "network")
    labels = {
        n.get_attribute("data-version"): n.find_element(By.CLASS_NAME, "label") for n in networks
    }
    return {str(v): int(label.text) for v, label in labels.items() if label.text.isdigit()}


def clear(browser: "Chrome") -> None:
    from selenium.webdriver.common.by import By

    browser.find_element(By.ID, "clear").click()
    assert answers(browser, "Nothing drawn yet.") == {}


@pytest.mark.browser
@pytest.mark.parametrize("kind", ["mouse", "touch"])
def test_digits_that_are_drawn_are_read(browser: "Chrome", kind: str) -> None:
    read = {}
    for digit in STROKES:
        clear(browser)
        draw(browser, digit, kind)
        read[digit] = answers(browser)["v2"]
    assert sum(digit == said for digit, said in read.items()) >= 9, read


@pytest.mark.browser
def test_it_can_be_drawn_on_by_keyboard(browser: "Chrome") -> None:
    from selenium.webdriver.common.keys import Keys

    clear(browser)
    press(browser, " ", *[Keys.ARROW_DOWN] * 20, " ")
    assert answers(browser)["v2"] == 1
    press(browser, "u")
    assert answers(browser, "Nothing drawn yet.") == {}


@pytest.mark.browser
def test_it_states_each_model(browser: "Chrome") -> None:
    from selenium.webdriver.common.by import By

    titles = [title.text for title in browser.find_elements(By.TAG_NAME, "h2")]
    assert [title.split()[0] for title in titles] == ["v1", "v2"]
    assert [bar.text for bar in browser.find_elements(By.CLASS_NAME, "about")] == ["not scored"] * 2
    errors = [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    assert errors == []
