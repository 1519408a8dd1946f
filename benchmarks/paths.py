"""The files that the benchmarks read and write in a project that `make` has brought up to date."""

from pathlib import Path

PARAMS = Path("params.yaml")
DATA = Path("data/mnist.npz")
REFERENCE = Path("metrics/report-2018.json")
MODELS = Path("data/models")
ONNX = Path("data/onnx")
PICTURE = Path("docs/handwriting/four.jpg")
UCI = Path("data/uci.npz")
RESULTS = Path("benchmarks/results")
