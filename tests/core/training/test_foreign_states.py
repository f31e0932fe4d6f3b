"""A state file that is not of this training, or is damaged, is refused with one clear error."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pals_core.checkpoint.container import STATE_KEY
from pals_core.checkpoint.tensor_file import open_tensors, write_tensors
from pals_core.data.table import Table
from pals_core.errors import InvalidCheckpoint
from pals_core.spec import DeviceChoice, Spec
from pals_core.training.events import StateSaved
from pals_core.training.trainer import Trainer

MakeSpec = Callable[..., Spec]


@pytest.fixture(scope="module")
def state_bytes(short: Table, make_spec: MakeSpec, tmp_path_factory: pytest.TempPathFactory) -> tuple[Spec, bytes]:
    folder = tmp_path_factory.mktemp("states")
    spec = make_spec(model="dlinear", training={"epochs": 2, "batch_size": 20})
    for event in Trainer(spec, short, folder).run():
        if isinstance(event, StateSaved):
            return spec, Path(event.path).read_bytes()
    raise AssertionError("no state was saved")


def opened(state: Path) -> tuple[Path, str, dict[str, Tensor]]:
    with open_tensors(state, STATE_KEY) as file:
        return state, file.text, file.read_all()


@pytest.mark.parametrize(
    ("training", "places"),
    [
        ({"seed": 4}, "/training/seed"),
        ({"epochs": 3, "device": DeviceChoice.AUTO}, "/training/epochs, /training/device"),
    ],
)
def test_a_state_of_another_spec_is_refused(
    short: Table,
    state_bytes: tuple[Spec, bytes],
    write: Callable[..., Path],
    tmp_path: Path,
    training: dict[str, Any],
    places: str,
) -> None:
    spec, content = state_bytes
    other = spec.model_copy(update={"training": spec.training.model_copy(update=training)})
    state = write(content, "state.safetensors")
    with pytest.raises(InvalidCheckpoint, match=f"another spec, in {places}$"):
        next(Trainer(other, short, tmp_path, resume_from=state).run())


def test_a_state_of_another_table_is_refused(
    short: Table, state_bytes: tuple[Spec, bytes], write: Callable[..., Path], tmp_path: Path
) -> None:
    spec, content = state_bytes
    other = Table(short.times, short.values.copy(), short.columns, short.frequency)
    other.values[0, 0] += 1e-9
    with pytest.raises(InvalidCheckpoint, match="another table"):
        next(Trainer(spec, other, tmp_path, resume_from=write(content, "state.safetensors")).run())


def test_a_torn_or_flipped_file_is_refused(
    short: Table, state_bytes: tuple[Spec, bytes], write: Callable[..., Path], tmp_path: Path
) -> None:
    spec, content = state_bytes
    choose = random.Random(1)
    damaged = [content[: choose.randrange(len(content))] for _ in range(15)]
    for _ in range(40):
        flipped = bytearray(content)
        flipped[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
        damaged.append(bytes(flipped))
    for bad in damaged:
        with pytest.raises(InvalidCheckpoint):
            next(Trainer(spec, short, tmp_path, resume_from=write(bad, "state.safetensors")).run())


def test_a_checkpoint_is_no_state(
    short: Table, state_bytes: tuple[Spec, bytes], best_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidCheckpoint, match="holds a checkpoint; what is needed here is the state"):
        next(Trainer(state_bytes[0], short, tmp_path, resume_from=best_checkpoint).run())


def test_a_state_of_another_network_is_refused_although_its_digest_is_right(
    short: Table, state_bytes: tuple[Spec, bytes], write: Callable[..., Path], tmp_path: Path
) -> None:
    spec, content = state_bytes
    state, text, tensors = opened(write(content, "state.safetensors"))
    del tensors["weight/trend.bias"]
    write_tensors(state, STATE_KEY, text, tensors)
    with pytest.raises(InvalidCheckpoint, match="does not fit"):
        next(Trainer(spec, short, tmp_path, resume_from=state).run())
    save_file(tensors, state, metadata={STATE_KEY: text})
    with pytest.raises(InvalidCheckpoint, match="no digest"):
        next(Trainer(spec, short, tmp_path, resume_from=state).run())


PLAIN: dict[str, tuple[list[str], Any]] = {
    "a step of text": (["step"], "12"),
    "no step": (["step"], None),
    "a step before the first": (["step"], -1),
    "a step that its epochs have not": (["step"], 10**9),
    "a density of text": (["density_sum"], "x"),
    "a loss of text": (["best", "loss"], "x"),
    "a best epoch to come": (["best", "epoch"], 2),
    "patience of text": (["stopping", "without"], "x"),
    "a sum of text": (["losses", "sum"], "x"),
    "fewer losses than none": (["losses", "steps"], -5),
    "PALS's loss of text": (["method", "best", "loss"], "x"),
    "a count of text": (["moves", "shrink"], "x"),
    "no epochs": (["epochs"], []),
    "no best epoch": (["best", "epoch"], 0),
    "an epoch of another number": (["epochs", 0, "epoch"], 2),
    "an epoch that ended elsewhere": (["epochs", 0, "step"], 999),
    "more density than steps": (["density_sum"], 1e300),
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_forged_description_is_refused(
    name: str, short: Table, state_bytes: tuple[Spec, bytes], write: Callable[..., Path], tmp_path: Path
) -> None:
    spec, content = state_bytes
    state, text, tensors = opened(write(content, "state.safetensors"))
    described = json.loads(text)
    (*path, last), value = PLAIN[name]
    place = described["plain"]
    for key in path:
        place = place[key]
    place[last] = value
    write_tensors(state, STATE_KEY, json.dumps(described), tensors)
    with pytest.raises(InvalidCheckpoint):
        list(Trainer(spec, short, tmp_path, resume_from=state).run())


FORGERIES: dict[str, Callable[[str, Tensor], Tensor | None]] = {
    "moments of one element": lambda name, moment: moment[:1] if name.endswith("bias/exp_avg") else moment,
    "moments twice as long": lambda name, moment: moment.repeat(2) if name.endswith("bias/exp_avg") else moment,
    "whole moments": lambda name, moment: moment.int() if name.endswith("weight/exp_avg") else moment,
    "a moment missing": lambda name, moment: None if name.endswith("exp_avg_sq") else moment,
    "no moments": lambda name, moment: None,
    "steps of several": lambda name, moment: moment.repeat(3) if name.endswith("/step") else moment,
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_moments_are_refused(
    name: str, short: Table, state_bytes: tuple[Spec, bytes], write: Callable[..., Path], tmp_path: Path
) -> None:
    spec, content = state_bytes
    state, text, tensors = opened(write(content, "state.safetensors"))
    forged = {
        key: FORGERIES[name](key, value) if key.startswith("optimizer/") else value for key, value in tensors.items()
    }
    write_tensors(state, STATE_KEY, text, {key: value.clone() for key, value in forged.items() if value is not None})
    with pytest.raises(InvalidCheckpoint, match="does not fit"):
        next(Trainer(spec, short, tmp_path, resume_from=state).run())


@pytest.mark.parametrize("threads", [3, 2**40])
def test_a_refused_state_leaves_the_threads_alone(
    threads: int, short: Table, state_bytes: tuple[Spec, bytes], write: Callable[..., Path], tmp_path: Path
) -> None:
    spec, content = state_bytes
    state, text, tensors = opened(write(content, "state.safetensors"))
    described = json.loads(text)
    described["surroundings"]["threads"] = threads
    del tensors["weight/trend.bias"]
    write_tensors(state, STATE_KEY, json.dumps(described), tensors)
    before = torch.get_num_threads()
    with pytest.raises(InvalidCheckpoint):
        next(Trainer(spec, short, tmp_path, resume_from=state).run())
    assert torch.get_num_threads() == before


def test_a_missing_state_is_a_missing_file(short: Table, state_bytes: tuple[Spec, bytes], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        next(Trainer(state_bytes[0], short, tmp_path, resume_from=tmp_path / "state.safetensors").run())


def test_states_of_another_training_in_the_folder_are_left_alone(
    short: Table, make_spec: MakeSpec, tmp_path: Path
) -> None:
    first = make_spec(model="dlinear", training={"epochs": 3, "batch_size": 20})
    foreign = []
    for event in Trainer(first, short, tmp_path).run():
        if isinstance(event, StateSaved):
            foreign.append(Path(event.path))
            if len(foreign) == 2:
                break
    (tmp_path / "state-999999999.safetensors").write_bytes(b"nobody knows what this is")

    second = make_spec(model="dlinear", training={"epochs": 3, "batch_size": 14})
    own = [Path(event.path) for event in Trainer(second, short, tmp_path).run() if isinstance(event, StateSaved)]

    assert len(own) == 3
    assert not set(own).intersection(foreign)
    left = {path.name for path in tmp_path.glob("state-*")}
    assert left == {path.name for path in foreign} | {"state-999999999.safetensors"}
    # Its own, of a first attempt that nobody went on with, are removed.
    list(Trainer(first, short, tmp_path).run())
    assert {path.name for path in tmp_path.glob("state-*")} == {"state-999999999.safetensors"}


def test_of_another_trainings_states_one_that_is_replaced_is_removed_in_the_end(
    short: Table, make_spec: MakeSpec, tmp_path: Path
) -> None:
    first, second = (
        make_spec(model="dlinear", training={"epochs": 3, "batch_size": 20, "seed": seed}) for seed in (1, 2)
    )
    states = (event for event in Trainer(first, short, tmp_path).run() if isinstance(event, StateSaved))
    next(states), next(states)
    assert len(list(tmp_path.glob("state-*"))) == 2

    list(Trainer(second, short, tmp_path).run())

    assert not list(tmp_path.glob("state-*"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"threads": 0},
        {"micro_batches": 0},
        {"micro_batches": -1},
        {"state_interval_seconds": -1},
        {"state_interval_seconds": math.nan},
        {"dataset_sha256": "5e"},
    ],
    ids=str,
)
def test_wrong_arguments_are_said_before_anything_is_trained(
    short: Table, make_spec: MakeSpec, tmp_path: Path, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Trainer(make_spec(), short, tmp_path, **wrong)
