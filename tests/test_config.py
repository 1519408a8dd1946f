"""params.yaml: what is accepted, and the one line that refuses the rest."""

import time
from pathlib import Path

import pytest
from conftest import ROOT

from digits import DigitsError
from digits.core import config
from digits.core.schema import Model

PARAMS = (ROOT / "params.yaml").read_text(encoding="utf-8")


def refusal(tmp_path: Path, text: str) -> str:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DigitsError) as error:
        config.load(path)
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(f"{path}: ")


def test_the_committed_file_is_valid() -> None:
    params = config.load(ROOT / "params.yaml")
    assert {"v1", "v2", "v3"} <= set(params.models)
    assert params.data.validation == 0, "the report trained on all 60,000 images"


def test_layers_are_names_with_the_arguments_that_the_file_gives() -> None:
    layers = config.load(ROOT / "params.yaml").model("v2").layers
    assert [layer.name for layer in layers] == [
        "Conv2D",
        "MaxPooling2D",
        "Dropout",
        "Flatten",
        "Dense",
    ]
    assert layers[0].arguments == {"filters": 32, "kernel_size": 3, "activation": "relu"}
    assert layers[3].arguments == {}


def test_numbers_in_scientific_notation_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS.replace("learning_rate: 0.001", "learning_rate: 1e-3"))
    assert config.load(path).model("v1").optimizer.arguments == {"learning_rate": 0.001}


def test_a_new_version_is_one_more_block(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    block = PARAMS[PARAMS.index("  v1:") : PARAMS.index("  v2:")].replace("v1:", "vnew:")
    path.write_text(PARAMS + "\n" + block)
    assert config.load(path).model("vnew") == config.load(path).model("v1")


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        (
            "filters: 32, kernel_size: 3",
            "filters: many, kernel_size: 3",
            'models.v2.layers[0].Conv2D.filters: expected a positive integer, got "many"',
        ),
        ("- Conv2D:", "- Conv3D:", "models.v2.layers[0].Conv3D: unknown; expected one of"),
        ("pool_size", "poolsize", "poolsize: unknown; expected one of pool_size, strides, padding"),
        ("Adam:", "Adan:", "models.v1.optimizer.Adan: unknown; expected one of Adam, AdamW"),
        ("epochs: 15", "epochs: 0", "models.v1.epochs: expected a positive integer, got 0"),
        ("epochs: 15", "epochs: true", "models.v1.epochs: expected a positive integer, got true"),
        ("epochs: 15", "epoch: 15", "models.v1.epoch: unknown; expected one of"),
        ("    batch_size: 128\n", "", "models.v1.batch_size: missing"),
        (
            "units: classes,",
            "units: 11,",
            "layers[2].Dense.units: expected classes, or the number of",
        ),
        ("rate: 0.25", "rate: 1", "models.v2.layers[2].Dropout.rate: expected a number from 0"),
        ("rate: 0.25", "rate: .nan", "models.v2.layers[2].Dropout.rate: expected a number"),
        ("learning_rate: 0.001", "learning_rate: .inf", "expected a positive number"),
        (
            "kernel_size: 3",
            "kernel_size: 29",
            "models.v2.layers[0].Conv2D: expected a window that fits its 28×28 input, got [29, 29]",
        ),
        (
            "      - Flatten\n",
            "",
            "expected Flatten, GlobalAveragePooling2D or GlobalMaxPooling2D before the",
        ),
        ("validation: 0", "validation: -1", "data.validation: expected an integer of 0 or more"),
        ("seed: 2018", "seed: a", 'seed: expected an integer from 0 to 4294967295, got "a"'),
        ("seed: 2018", "seed: 4294967296", "seed: expected an integer from 0 to 4294967295"),
        ("seed: 2018", "seed: 1\nseed: 2", "line 4: not valid YAML: found duplicate key"),
        ("seed: 2018", "seed: [1", "not valid YAML"),
        ("seed: 2018", "seed: 2018-13-45", "not valid YAML: month must be in 1..12"),
        ("seed: 2018", "seed: " + "9" * 5000, "not valid YAML"),
        ("seed: 2018", "seed: &a [*a]", "seed: expected an integer from 0"),
        ("0.001", "9" * 400, "Adam.learning_rate: expected a positive number"),
        (
            "units: 128",
            "units: 1000000001",
            "Dense.units: expected at most 1,000,000, got 1000000001",
        ),
        (
            "- Flatten\n",
            "- Flatten\n      - GlobalAveragePooling2D\n",
            "layers[1].GlobalAveragePooling2D: expected a place where the image still has height",
        ),
        (
            "- Flatten\n",
            "- CenterCrop: {height: 28, width: 29}\n",
            "layers[0].CenterCrop.width: expected at most the input's 28, got 29",
        ),
        (
            "- Flatten\n",
            "- Add: {branches: [[{Conv2D: {filters: 2, kernel_size: 30}}], []]}\n",
            "layers[0].Add.branches[0][0].Conv2D: expected a window that fits its 28×28 input",
        ),
        (
            "- Flatten\n",
            "- Add: {branches: [[{Conv2D: {filters: 2, kernel_size: 3}}], []]}\n",
            "layers[0].Add: expected branches of the same output shape, got [[26, 26, 2], [28, 28",
        ),
        (
            "- Flatten\n",
            "- Concatenate: {branches: [[Flatten], []]}\n",
            "layers[0].Concatenate: expected branches of the same height and width",
        ),
        (
            "- Flatten\n",
            "- Add: {branches: [Flatten]}\n",
            "layers[0].Add.branches: expected two or more lists of layers, at most one of them",
        ),
        (
            "clean_epochs: 1}",
            "clean_epochs: 20}",
            "models.v4.augmentation.clean_epochs: expected at most 19 epochs, got 20",
        ),
        ("batch_size: 128", "batch_size: 128\n    precision: half", "expected one of float32"),
        ("models:", "modles:", "modles: unknown; expected one of seed, versions, tta, registry,"),
        (
            "versions: [v1",
            "versions: [v1, v9",
            "versions[1]: expected names that stand under `models`",
        ),
        (
            "versions: [v1",
            "versions: [v1, v1",
            'versions[1]: expected names that stand under `models`, each once, got "v1"',
        ),
        (
            "versions: [",
            "versions: [] # [",
            "versions: expected one or more of those under `models`",
        ),
        (
            "tta: {}",
            "tta: {v4: [{rotate: 5}]}",
            "tta.v4[0].rotate: unknown; expected one of rotation",
        ),
        (
            "epochs: 15",
            "schedule: {warmup: 15}\n    epochs: 15",
            "schedule.warmup: expected at most 14 epochs",
        ),
        ("epochs: 15", "augmentation: {rotation: -1}\n    epochs: 15", "expected a number of 0 or"),
        ("  v1:", "  ../v1:", "models: expected names of letters, digits"),
        ("layers:\n      - Flatten", "layers:\n      - [Flatten]", "expected one layer"),
        (
            "epochs: 15",
            "callbacks: [{EarlyStoping: {}}]\n    epochs: 15",
            "callbacks[0].EarlyStoping: unknown; expected one of EarlyStopping, ReduceLROnPlateau, "
            'ModelCheckpoint, CSVLogger, TensorBoard (did you mean "EarlyStopping"?)',
        ),
        (
            "epochs: 15",
            "callbacks: [{EarlyStopping: {patience: -1}}]\n    epochs: 15",
            "callbacks[0].EarlyStopping.patience: expected an integer of 0 or more, got -1",
        ),
        (
            "epochs: 15",
            "callbacks: [{EarlyStopping: {patients: 1}}]\n    epochs: 15",
            "callbacks[0].EarlyStopping.patients: unknown; expected one of monitor, min_delta, "
            "patience, mode, baseline, restore_best_weights, start_from_epoch (did you mean",
        ),
        (
            "epochs: 15",
            "callbacks: [EarlyStopping]\n    epochs: 15",
            "models.v1.callbacks[0].EarlyStopping.monitor: expected a metric of the training "
            'images, since data.validation is 0, got "val_loss"',
        ),
        (
            "epochs: 15",
            "schedule: {warmup: 1}\n    callbacks: [ReduceLROnPlateau]\n    epochs: 15",
            "schedule: expected no schedule beside ReduceLROnPlateau",
        ),
        ("metric: test_accuracy", "metric: accuracy", "registry.metric: expected one of test_accu"),
        ("name: mnist-digits", "name: a/b", 'registry.name: expected letters, digits, "-" and "_"'),
        (
            "minimum_improvement: 0.0005",
            "minimum_improvement: -1",
            "expected a number of 0 or more",
        ),
        ("dataset: data/", "dataset: ~/data/", "data.dataset: expected data/mnist.yaml or another"),
        ("dataset: data/", "dataset: https://data/", "data.dataset: expected data/mnist.yaml or"),
        ("classes: null", "classes: [a, b]", "data.classes: expected null or 10 names"),
    ],
)
def test_a_mistake_is_one_line_with_the_keys_path(
    good: str, bad: str, said: str, tmp_path: Path
) -> None:
    assert good in PARAMS
    assert said in refusal(tmp_path, PARAMS.replace(good, bad, 1))


@pytest.mark.parametrize("text", ["", "[]", "5", "a: b: c", "\x00"])
def test_what_is_not_a_parameter_file_is_refused(text: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, text)


def test_aliases_that_stand_for_billions_are_refused_at_once(tmp_path: Path) -> None:
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    bomb = "\n".join(["a0: &a0 [x]", *levels])
    start = time.monotonic()
    assert "expected at most 100,000 values" in refusal(tmp_path, f"{PARAMS}\n{bomb}\n")
    assert time.monotonic() - start < 2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DigitsError, match=r"nowhere\.yaml: cannot be read: No such file"):
        config.load(tmp_path / "nowhere.yaml")


def test_an_unknown_version_is_refused_with_those_there_are() -> None:
    with pytest.raises(DigitsError, match="'v9': expected one of v1, v2, v3"):
        config.load(ROOT / "params.yaml").model("v9")


def test_changes_take_the_place_of_the_files_values() -> None:
    rate = ("models", "v2", "optimizer", "*", "learning_rate")
    params = config.load(ROOT / "params.yaml", {rate: "5e-4", ("seed",): "7"})
    assert params.model("v2").optimizer.arguments == {"learning_rate": 0.0005}
    assert params.seed == 7
    with pytest.raises(
        DigitsError, match=r'Adam\.learning_rate: expected a positive number, got "x'
    ):
        config.load(ROOT / "params.yaml", {rate: "x"})


def test_branches_are_written_as_they_are_read() -> None:
    branches = {"branches": [[{"Dense": {"units": 2}}, {"Add": {"branches": [["ReLU"], []]}}], []]}
    layers = [
        "Flatten",
        {"Concatenate": branches},
        {"Dense": {"units": 10, "activation": "softmax"}},
    ]
    raw = config.read(ROOT / "params.yaml")["models"]["v1"] | {"layers": layers}
    written = Model.model_validate(raw).model_dump(exclude_unset=True)["layers"][1]
    inner = written["Concatenate"]["branches"][0][1]
    assert inner == {"Add": {"branches": [[{"ReLU": {}}], []]}}
    assert Model.model_validate(raw | {"layers": [*layers[:1], written, *layers[2:]]}).layers
