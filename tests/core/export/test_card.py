"""A model card says what the checkpoint says, in Markdown that names cannot break."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from pals_core.checkpoint.file import read_checkpoint
from pals_core.compaction.compact import Part, compact
from pals_core.data.table import Table
from pals_core.errors import ExportFailed
from pals_core.evaluation.document import Evaluation
from pals_core.export.card import model_card
from pals_core.export.card_pictures import draw_density
from pals_core.figures import ACCENT, INK, SECOND
from pals_core.spec import Spec
from tests.core.training.small_training import MODEL_NAMES

CheckpointOf = Callable[..., Path]
HORIZON = 4


def errors_of(first: float, steps: int) -> dict[str, Any]:
    numbers = [first + 0.1 * step for step in range(steps)]
    by_step = {"mse": numbers, "mae": [*numbers[:-1], None], "rmse": numbers, "smape": numbers}
    overall, by_column = dict.fromkeys(by_step, first), {kind: [first] for kind in by_step}
    kinds = {"overall": overall, "by_step": by_step, "by_column": by_column}
    figures = {kind: {"scaled": numbers, "original": numbers, "mase": None} for kind, numbers in kinds.items()}
    return figures | {"by_column_and_step": None}


def evaluation(steps: int = HORIZON, **changes: Any) -> dict[str, Any]:
    """An evaluation's document; that of the forecaster and the naive forecast are told apart by their errors."""
    return {
        "columns": ["calm"], "frequency": "D", "horizon": steps, "windows": 9, "stride": 1,
        "first_step": "2020-01-01T00:00:00", "last_step": "2020-01-12T00:00:00", "season": 7,
        "forecaster": errors_of(0.1, steps), "naive": errors_of(0.4, steps),
        "calibration_residuals": None, "intervals": [], "samples": [],
    } | changes  # fmt: skip


def rows(text: str, first: str) -> list[list[str]]:
    """The cells of the table whose header begins with `first`."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first} |"))
    body = lines[start + 2 :]
    count = next((number for number, line in enumerate(body) if not line.startswith("|")), len(body))
    return [re.split(r"(?<!\\) \| ", line[2:-2]) for line in body[:count]]


def share_of(path: Path, colour: str) -> float:
    """The share of pixels of just this colour."""
    pixels = np.asarray(imread(path))[:, :, :3]
    return float((np.abs(pixels - np.array(to_rgb(colour))).max(axis=2) < 0.02).mean())


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_a_card_has_the_figures_of_its_checkpoint(name: str, checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    path = checkpoint_of(name)
    header = read_checkpoint(path).header
    page = model_card(path, tmp_path / "card")
    text = page.read_text(encoding="utf-8")

    assert page == tmp_path / "card" / "README.md"
    assert {file.name for file in page.parent.iterdir()} == {"README.md", "density.png"}
    assert text.startswith(f"# {name}: 3 columns, {HORIZON} steps ahead\n")
    layers = rows(text, "weights")
    assert [cells[0].strip("`") for cells in layers] == list(header.layers)
    for cells, layer in zip(layers, header.layers.values(), strict=True):
        assert cells[1] == " × ".join(map(str, layer.shape))
        numbers = [int(cells[place].replace(",", "")) for place in (2, 4, 5, 6)]
        assert numbers == [layer.active, layer.flops_dense, layer.flops_sparse, layer.bytes]
    assert f"{header.flops_dense:,} FLOPs dense, {header.flops_sparse:,} sparse" in text
    assert f"{path.stat().st_size:,} of the file" in text
    assert header.metrics is not None
    assert f"| {header.metrics.original.mse:.6g} | {header.metrics.original.mae:.6g} |" in text
    [spec] = re.findall(r"```json\n(.+?)\n```", text, re.DOTALL)
    assert Spec.model_validate(json.loads(spec)) == header.spec
    assert f"torch {header.library_versions['torch']}" in text


def test_what_could_be_removed_is_said_zero_included(checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    path = checkpoint_of("transformer")
    report = compact(read_checkpoint(path)).report
    text = model_card(path, tmp_path).read_text()
    removable = f"{report.removed(Part.NEURONS)} of {report.of(Part.NEURONS)} neurons and 0 of 8 heads"
    assert f"removable without changing a forecast: {removable} (" in text
    assert "no feed-forward neurons or attention heads" in model_card(checkpoint_of("dlinear"), tmp_path).read_text()


def test_the_program_on_a_card_forecasts(
    checkpoint_of: CheckpointOf, tmp_path: Path, series: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = checkpoint_of("nlinear")
    [program] = re.findall(r"```python\n(.+?)\n```", model_card(path, tmp_path).read_text(), re.DOTALL)
    monkeypatch.chdir(path.parent)
    names: dict[str, Any] = {"recent": series}
    exec(program, names)
    assert len(names["forecaster"].forecast().timestamps) == HORIZON


@pytest.mark.parametrize("given", ["fields", "file", "evaluation"])
def test_with_an_evaluation_errors_are_drawn_by_horizon_step(
    given: str, checkpoint_of: CheckpointOf, tmp_path: Path
) -> None:
    path, document = checkpoint_of("nlinear"), tmp_path / "evaluation.json"
    document.write_text(json.dumps(evaluation()))
    ways = {"fields": evaluation(), "file": document, "evaluation": Evaluation.model_validate(evaluation())}
    page = model_card(path, tmp_path / "card", evaluation=ways[given])
    assert "(errors.png)" in page.read_text()
    picture = page.parent / "errors.png"
    assert imread(picture).shape[:2] == (930, 1500)
    assert share_of(picture, ACCENT) > 0.0005
    assert share_of(picture, INK) > 0.0005  # the seasonal naive forecast's line and the words
    # Lines of one and the same errors lie on each other, and the later one is seen.
    model_card(path, tmp_path / "card", evaluation=evaluation(naive=errors_of(0.1, HORIZON)))
    assert share_of(picture, ACCENT) < 0.0005
    assert "errors.png" not in model_card(path, tmp_path / "card").read_text()
    assert not picture.exists()


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({}, "/columns: Field required"),
        (evaluation(naive=errors_of(0.4, 3)), "has not a number for each horizon step or column"),
        (evaluation(steps=5), "is of 5 horizon steps and the checkpoint of 4"),
        (evaluation(forecaster=errors_of(0.1, HORIZON) | {"overall": "none"}), "/forecaster/overall"),
    ],
    ids=["empty", "uneven", "another horizon", "no number"],
)
def test_a_document_that_is_no_evaluation_of_the_checkpoint_is_refused(
    document: dict[str, Any], complaint: str, checkpoint_of: CheckpointOf, tmp_path: Path
) -> None:
    with pytest.raises(ExportFailed, match=re.escape(complaint)):
        model_card(checkpoint_of("nlinear"), tmp_path / "card", evaluation=document)
    assert not (tmp_path / "card").exists()


def test_a_bar_is_as_long_as_the_share_that_is_on(checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    header = read_checkpoint(checkpoint_of("transformer")).header
    shares = np.linspace(0.1, 1, len(header.layers))
    layers = {
        name: layer.model_copy(update={"active": round(share * layer.weights)})
        for share, (name, layer) in zip(shares, header.layers.items(), strict=True)
    }
    draw_density(tmp_path / "density.png", header.model_copy(update={"layers": layers}))
    pixels = np.asarray(imread(tmp_path / "density.png"))[:, :, :3]
    filled = (np.abs(pixels - np.array(to_rgb(SECOND))).max(axis=2) < 0.02).sum(axis=1)
    # Rows of pixels within a bar come in runs, one for each layer.
    starts = np.flatnonzero((filled[1:] > 50) & (filled[:-1] <= 50)) + 1
    assert len(starts) == len(layers)
    lengths = [int(np.median(filled[start + 5 : start + 15])) for start in starts]
    assert np.corrcoef(lengths, [1 - layer.sparsity for layer in layers.values()])[0, 1] > 0.99


def test_names_from_the_data_cannot_break_the_page(checkpoint_of: CheckpointOf, series: Table, tmp_path: Path) -> None:
    names = ("a | b", "`x` <script>", "two\nlines [link](http://x) ```")
    table = Table(series.times, series.values, names, series.frequency)
    text = model_card(checkpoint_of("nlinear", table=table), tmp_path).read_text()
    [line] = [line for line in text.splitlines() if line.startswith("| columns |")]
    assert line == r"| columns | a \| b, \`x\` \<script\>, two lines \[link\](http://x) \`\`\` |"
    fences = re.findall(r"^(`{3,})json\n(.+?)\n\1$", text, re.DOTALL | re.MULTILINE)
    assert len(fences) == 1
    assert Spec.model_validate(json.loads(fences[0][1])).data.targets == names


def test_pooled_series_and_known_futures_are_named(checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    pooled = model_card(checkpoint_of("dlinear", data={"series": "pooled"}), tmp_path).read_text()
    assert "| pooled series | calm, rising, noise |" in pooled
    future = model_card(checkpoint_of("transformer", data={"known_future": ["rising"]}), tmp_path).read_text()
    assert "| known-future columns | rising |" in future
    assert "forecaster.forecast(recent, future)" in future


def test_many_columns_are_not_all_listed(checkpoint_of: CheckpointOf, series: Table, tmp_path: Path) -> None:
    names = tuple(f"c{place}" for place in range(25))
    table = Table(series.times, np.tile(series.values, 9)[:, :25].copy(), names, series.frequency)
    text = model_card(checkpoint_of("nlinear", table=table), tmp_path).read_text()
    assert "c18, c19 and 5 others |" in text


def test_a_card_depends_on_its_checkpoint_alone(checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    path = checkpoint_of("patchtst")
    first, second = (model_card(str(path), tmp_path / name).parent for name in ("first", "second"))
    for name in ("README.md", "density.png"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert str(tmp_path) not in (first / "README.md").read_text()
