"""Which trainings the accuracy grid consists of, and in which order.

A case is a series, a horizon and a forecaster; a cell is one training of a case with a method and a seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

METHODS = ("dense", "pals", "granet")


@dataclass(frozen=True)
class Series:
    """A series and how the grid cuts it; `projector_hidden` are NSTransformer's sizes, its default for others."""

    name: str
    file: str
    data: Mapping[str, Any]
    horizons: tuple[int, ...]
    update_interval: int
    projector_hidden: Mapping[int, tuple[int, int]] = field(default_factory=dict)


SERIES = {
    "illness": Series(
        name="illness",
        file="national_illness.csv",
        data={"input_len": 36, "label_len": 18},
        horizons=(24, 36, 48, 60),
        update_interval=5,
        projector_hidden={24: (32, 32), 36: (32, 32), 48: (16, 16), 60: (8, 8)},  # arXiv 2305.18382's program
    ),
    "etth1": Series(
        name="etth1",
        file="ETTh1.csv",
        data={"input_len": 96, "label_len": 48, "split": {"train": 8640, "validation": 2880, "test": 2880}},
        horizons=(96,),
        update_interval=20,
    ),
}


@dataclass(frozen=True)
class Contender:
    """A forecaster under the name it has in the tables; a `reduced` one is trained at less than its full size."""

    label: str
    model: Mapping[str, Any]
    reduced: bool = False
    methods: tuple[str, ...] = METHODS

    @property
    def published_axes(self) -> bool:
        """Whether it is a second version of a forecaster, with the axes in the published program's order."""
        return "published_axis_order" in self.model


_PUBLISHED_AXES: dict[str, Any] = {"published_axis_order": True}
CONTENDERS = {
    contender.label: contender
    for contender in (
        Contender("nstransformer", {"name": "nstransformer"}),
        Contender("dlinear", {"name": "dlinear"}),
        Contender("transformer", {"name": "transformer"}, reduced=True),
        Contender("informer", {"name": "informer"}, reduced=True),
        Contender("informer-published-axes", {"name": "informer"} | _PUBLISHED_AXES, True, ("dense", "pals")),
        Contender("autoformer", {"name": "autoformer"}, reduced=True),
        Contender("fedformer", {"name": "fedformer"}, reduced=True),
        Contender("fedformer-published-axes", {"name": "fedformer"} | _PUBLISHED_AXES, True, ("dense", "pals")),
    )
}


@dataclass(frozen=True)
class Case:
    """`width` is the d_model of a reduced forecaster, whose d_ff is four times as wide."""

    series: Series
    horizon: int
    contender: Contender
    width: int

    @property
    def model(self) -> dict[str, Any]:
        model = dict(self.contender.model)
        if self.contender.reduced:
            model |= {"d_model": self.width, "d_ff": 4 * self.width}
        if model["name"] == "nstransformer" and self.horizon in self.series.projector_hidden:
            model["projector_hidden"] = list(self.series.projector_hidden[self.horizon])
        return model


@dataclass(frozen=True)
class Cell:
    case: Case
    method: str
    seed: int

    @property
    def key(self) -> dict[str, Any]:
        """What tells this cell from every other one in a result file."""
        return {
            "horizon": self.case.horizon,
            "model": self.case.contender.label,
            "method": self.method,
            "seed": self.seed,
        }

    @property
    def needs(self) -> Cell | None:
        """The cell whose sparsity is this one's target."""
        return Cell(self.case, "pals", self.seed) if self.method == "granet" else None

    def spec(self, target: float | None, training: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of the training's spec; `target` is the sparsity that the needed cell reached."""
        method: dict[str, Any] = {"name": self.method}
        if self.method != "dense":
            method["update_interval"] = self.case.series.update_interval
        if self.method == "pals":
            method |= {"prune_rate_factor": 1.1, "loss_tolerance": 1.1}
        if self.needs is not None:
            method["sparsity"] = target
        return {
            "data": {**self.case.series.data, "horizon": self.case.horizon},
            "model": self.case.model,
            "method": method,
            "training": {**training, "seed": self.seed},
        }


def cells(
    series: Series,
    *,
    horizons: Sequence[int],
    models: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
    width: int,
) -> Iterator[Cell]:
    """Yield the chosen cells case by case, so that whatever is finished can be compared."""
    for horizon in horizons:
        for label in models:
            case = Case(series, horizon, CONTENDERS[label], width)
            for seed in seeds:
                for method in METHODS:
                    if method in methods and method in case.contender.methods:
                        yield Cell(case, method, seed)
