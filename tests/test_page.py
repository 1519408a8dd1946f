"""The page to draw on is a folder of files, and a server shows it; without a browser."""

import json
import re
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
from conftest import TINY_PARAMS

from digits import DigitsError
from digits.core import models
from digits.core.schema import Params
from digits.handwriting import page
from digits.serving import export as export_module
from digits.serving.export import export

FILES = {"index.html", "draw.css", "draw.js", "ink.js", "network.js", "networks.json", "v1.bin"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of one network."""
    written = tmp_path_factory.mktemp("page") / "site"
    network = models.build(Params.model_validate(TINY_PARAMS).model("v1"), 1)
    page.write(written, {"v1": ("97.88 % right", export(network))})
    return written


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """Serve the page to this machine and to whoever reaches it as drawing.example."""
    with page.listen(folder, "127.0.0.1", 0) as server:
        server.RequestHandlerClass.keywords["host"] = "drawing.example"  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield page.url(server)
        server.shutdown()
        thread.join()


def test_the_page_is_a_folder_of_files(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == FILES


def test_the_networks_are_written_with_their_nodes_and_constants(folder: Path) -> None:
    (described,) = json.loads((folder / "networks.json").read_text())
    assert (described["version"], described["about"]) == ("v1", "97.88 % right")
    kernel = models.build(Params.model_validate(TINY_PARAMS).model("v1"), 1).get_weights()[0]
    content = (folder / described["file"]).read_bytes()
    constants = [
        np.frombuffer(content, np.float32, int(np.prod(c["shape"])), c["offset"])
        for c in described["constants"].values()
        if c["shape"] == list(kernel.shape)
    ]
    assert any((constant == kernel.ravel()).all() for constant in constants)
    assert described["nodes"][-1]["output"] == "label"


def test_every_operation_that_is_exported_is_one_of_the_browser() -> None:
    source = Path(export_module.__file__ or "").read_text()
    operations = {"Conv", "MaxPool", "AveragePool", *export_module.ACTIVATIONS.values()}
    for pair in re.findall(r'graph\.add\(\s*"(\w+)"|_reduce\("(\w+)"\)', source):
        operations |= set(pair)
    script = (page.STATIC / "network.js").read_text()
    assert [name for name in operations - {""} if f"  {name}:" not in script] == []


@pytest.mark.parametrize(
    ("name", "media_type"),
    [("", "text/html"), ("draw.css", "text/css"), ("draw.js", "text/javascript")],
)
def test_the_page_is_served(address: str, name: str, media_type: str) -> None:
    response = requests.get(f"{address}{name}", timeout=10)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == media_type
    assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]


@pytest.mark.parametrize("name", ["page.py", "..%2fpage.py", "../site/none.js", "none.js", "x/"])
def test_nothing_else_is_served(address: str, name: str) -> None:
    connection = HTTPConnection(urlsplit(address).netloc, timeout=10)
    connection.request("GET", f"/{name}")  # `requests` would leave out the dots.
    assert connection.getresponse().status == 404
    connection.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example:8000"}, 403),
        ({"Host": "["}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "127.0.0.1:8000", "Origin": "http://127.0.0.1:8000"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "drawing.example"}, 200),
    ],
)
def test_pages_of_other_sites_are_refused(
    address: str, headers: dict[str, Any], status: int
) -> None:
    response = requests.get(f"{address}networks.json", headers=headers, timeout=10)
    assert response.status_code == status


def test_a_port_in_use_is_an_error_in_one_line(tmp_path: Path) -> None:
    with page.listen(tmp_path, "127.0.0.1", 0) as server:
        port = server.server_address[1]
        assert page.url(server) == f"http://127.0.0.1:{port}/"
        with pytest.raises(DigitsError, match=f"127.0.0.1:{port}: cannot listen there: Address al"):
            page.listen(tmp_path, "127.0.0.1", port)
