"""Reads tens of thousands of damaged and forged checkpoint files: each is to forecast, or to be refused in one line.

    make fuzz-checkpoints

The originals are small trainings of several forecasters, in every precision. A crash, another error than
InvalidCheckpoint, a file that takes longer than a few seconds or more memory than a small multiple of it would end the
run and is kept. More than half of the files have a digest that is right.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import torch

from benchmarks.checkpoint_mutations import Files, outcome
from benchmarks.command import run_command
from benchmarks.machine import provenance
from pals_core import train
from pals_core.checkpoint.file import read_checkpoint, write_checkpoint
from pals_core.checkpoint.header import StoredPrecision
from pals_core.checkpoint.tensor_file import replacing
from pals_core.training.conversion import in_precision

SMALL = {"d_model": 16, "d_ff": 32, "heads": 2, "encoder_layers": 1}
MODELS: tuple[dict[str, Any], ...] = (
    {"name": "nstransformer", **SMALL}, {"name": "fedformer", "modes": 3, **SMALL}, {"name": "informer", **SMALL},
    {"name": "patchtst", "patch_len": 4, "stride": 2, **SMALL}, {"name": "dlinear", "moving_avg": 5},
)  # fmt: skip
MOST_SECONDS = 10
MOST_BYTES = 256 * 2**20


def originals(folder: Path) -> list[bytes]:
    """Train one small checkpoint of each model; return them in every precision."""
    noise = np.random.default_rng(7).normal(size=(260, 3))
    times = pd.date_range("2021-03-01", periods=260, freq="D", name="date")
    table = pd.DataFrame(noise, index=times, columns=["calm", "rising", "noise"])
    files = []
    for number, model in enumerate(MODELS):
        spec = {
            "data": {"input_len": 12, "label_len": 6, "horizon": 4},
            "model": model,
            "method": {"name": "pals", "update_interval": 2, "prune_rate_factor": 1.5},
            "training": {"epochs": 1, "device": "cpu", "precision": "fp32"},
        }
        checkpoint = read_checkpoint(train(spec, table, folder / str(number)).path)
        for precision in StoredPrecision:
            path = folder / f"{number}.{precision}"
            write_checkpoint(path, in_precision(checkpoint, precision))
            files.append(path.read_bytes())
    return files


def _too_long(_number: int, _frame: FrameType | None) -> NoReturn:
    raise AssertionError(f"reading takes longer than {MOST_SECONDS} s")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def fuzz(files: Files, count: int, folder: Path) -> dict[str, Any]:
    """Read `count` files; return what became of each kind, the slowest and the growth of memory."""
    signal.signal(signal.SIGALRM, _too_long)
    outcomes: dict[str, Counter[str]] = {}
    slowest, before, began = 0.0, 0, time.monotonic()
    for number in range(count):
        name, content = files.draw()
        started = time.monotonic()
        signal.alarm(MOST_SECONDS)
        try:
            result = outcome(content, folder / "file")
        except BaseException:
            kept = Path(tempfile.gettempdir()) / f"fault-{number}.pals.safetensors"
            kept.write_bytes(content)
            print(f"mutation {number} ({name}) is a fault of the reader; the file is {kept}", file=sys.stderr)
            raise
        finally:
            signal.alarm(0)
        slowest = max(slowest, time.monotonic() - started)
        outcomes.setdefault(name, Counter())[result] += 1
        if number == 200:  # by then everything has been imported
            before = _peak()
        elif before and _peak() - before > MOST_BYTES:
            raise AssertionError(f"mutation {number} ({name}): memory grew by {_peak() - before} bytes")
    return {
        "mutations": count,
        "refused": sum(counter["refused"] for counter in outcomes.values()),
        "loaded": sum(counter["loaded"] for counter in outcomes.values()),
        "by_kind": {name: dict(sorted(outcomes[name].items())) for name in sorted(outcomes)},
        "peak_growth_mib": round((_peak() - before) / 2**20, 1),
        "slowest_seconds": round(slowest, 2),
        "seconds": round(time.monotonic() - began),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/fuzz_checkpoints.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        files = originals(Path(folder))
        found = fuzz(Files(files, arguments.seed), arguments.mutations, Path(folder))
    report = provenance() | {"seed": arguments.seed, "originals": len(files)} | found
    with replacing(arguments.output) as part:
        part.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    run_command(main)
