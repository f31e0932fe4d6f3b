"""One timed run, in a process of its own, so that its peak memory is its own: reads a request, prints what it measured.

Started by `benchmarks.train_speed`; a request and an answer are one line of JSON each.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.part_times import PartTimes, outermost_calls_timed, parts_of_the_trainer
from benchmarks.reference_loop import ReferenceLoop
from benchmarks.speed_cases import CASES, shortened
from pals_core.data.frequency import calendar_feature_names
from pals_core.data.table import Table, read_table
from pals_core.data.windows import make_windows
from pals_core.models.registry import build_forecaster
from pals_core.spec import Spec
from pals_core.training.events import Finished, MaskUpdate, Started
from pals_core.training.products import has_onednn, linear_by_onednn
from pals_core.training.trainer import Trainer

MATRIX = 2048
PRODUCTS = 5


def ours(spec: Spec, table: Table, folder: Path, device: str, threads: int | None) -> dict[str, Any]:
    """Train with pals_core's trainer as the service does; return the seconds of each call by part.

    A state is written at every epoch's end, to be timed; the service writes one where the last is not too young.
    """
    times = PartTimes(device)
    update_steps: list[int] = []
    sparsity = 0.0
    began = ended = 0.0
    steps, precision = 0, ""
    with outermost_calls_timed(times, parts_of_the_trainer()):
        for event in Trainer(spec, table, folder, device=device, threads=threads).run():
            if isinstance(event, Started):
                began, steps, precision = times.now(), event.total_steps, event.precision
                times.seconds.clear()
            elif isinstance(event, MaskUpdate):
                update_steps.append(event.step)
                sparsity = event.sparsity
            elif isinstance(event, Finished):
                ended = times.now()
    calls = dict(times.seconds)
    # A method is asked at every step and measures at some; the last evaluation is that of the test part.
    calls["decision"] = [calls["decision"][step - 1] for step in update_steps]
    calls["evaluation"], calls["test evaluation"] = calls["evaluation"][:-1], calls["evaluation"][-1:]
    return {"steps": steps, "seconds": ended - began, "sparsity": sparsity, "precision": precision, "calls": calls}


def reference(spec: Spec, table: Table, folder: Path, device: str) -> dict[str, Any]:
    """Train with the reference loop; return the same."""
    loop = ReferenceLoop(spec, table, device)
    trained = loop.run(folder)
    return {
        "steps": len(trained.losses),
        "seconds": trained.seconds,
        "sparsity": trained.sparsities[-1] if trained.sparsities else 0.0,
        "calls": dict(loop.times.seconds),
    }


def floor(spec: Spec, table: Table, device: str) -> dict[str, Any]:
    """Count the multiplications and additions of one step's products, and time a large fp32 product.

    The product is PyTorch's or oneDNN's, whichever is faster here.
    """
    torch.manual_seed(0)
    windows = make_windows(table, spec.data, device)
    features = len(calendar_feature_names(windows.frequency))
    model = build_forecaster(spec, len(windows.columns), features).to(device)
    batch = windows.train.batch(torch.arange(spec.training.batch_size, device=device))
    counter = FlopCounterMode(display=False)
    with counter:
        forecast = model(batch.x_enc, batch.x_mark_enc, batch.x_dec, batch.x_mark_dec)
        nn.functional.mse_loss(forecast, batch.target).backward()  # type: ignore[no-untyped-call]
    times = PartTimes(device)
    left, right = (torch.randn(MATRIX, MATRIX, device=device) for _ in range(2))
    for _ in range(PRODUCTS + 1):
        with times.timed("product"):
            torch.mm(left, right)
        if left.device.type == "cpu" and has_onednn():
            with times.timed("product"):
                linear_by_onednn(left, right.t(), None)
    fastest = min(times.of("product"))
    return {
        "flops_per_step": counter.get_total_flops(),
        "weights": sum(parameter.numel() for parameter in model.parameters()),
        "gflops_per_second": 2 * MATRIX**3 / fastest / 1e9,
    }


def peak_bytes() -> int:
    """Return the largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Do what a request asks for.

    Its fields: `loop` (`ours`, `reference` or `floor`), `case`, `series`, `method`, `steps`, `training`, `device` and
    `threads`.
    """
    if request["threads"] is not None:
        torch.set_num_threads(request["threads"])
    case = CASES[request["case"]]
    table = read_table(Path(request["series"]) / case.file)
    spec = shortened(case.spec(table, request["method"], request["training"]), table, request["steps"])
    gc.collect()
    before = peak_bytes()
    with tempfile.TemporaryDirectory() as folder:
        if request["loop"] == "ours":
            measured = ours(spec, table, Path(folder), request["device"], request["threads"])
        elif request["loop"] == "reference":
            measured = reference(spec, table, Path(folder), request["device"])
        else:
            measured = floor(spec, table, request["device"])
    return measured | {
        "epochs": spec.training.epochs,
        "threads": torch.get_num_threads(),
        "peak_bytes_before": before,
        "peak_bytes": peak_bytes(),
        "ended_at": round(time.time()),
    }


if __name__ == "__main__":
    print(json.dumps(answer(json.loads(sys.stdin.readline()))))
