"""The page of a benchmark of forecasts, written from its results alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from benchmarks.speed_job import Spread


def markdown(report: Mapping[str, Any]) -> str:
    """Return a table for each model and batch size."""
    machine = report["machine"]
    waiting = ", ".join(f"{name} {value or 'not set'}" for name, value in machine["openmp"].items())
    lines = [
        "# Speed of forecasts",
        "",
        f"{report['date']}, {report['commit']}: {machine['processor']} ({', '.join(machine['vector_units'])}), "
        f"{machine['cores']} cores, GPU {machine['gpu'] or 'none'}, torch {machine['torch']}, Python "
        f"{machine['python']}, {waiting}. Illness 36 → 24, "
        f"{report['epochs']} epochs; sparse by gradual magnitude pruning. Medians of {report['rounds']} rounds, with "
        "the lowest and the highest in brackets; × is how many times as fast as the dense network in PyTorch's fp32 "
        "in the same round. Rows at sparsity 0 are the dense twin: what the kernels alone bring, without any "
        "sparsity. MB are weights in memory; the MSE is that of the test part, its change that of the kernels alone.",
    ]
    for case in report["cases"]:
        lines += [
            "",
            f"## {case['model']}, batch {case['batch']}",
            "",
            "| sparsity | kernels | ms a batch | × | windows/s | MB | test MSE | change | layers by kernel |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        lines += [_row(contender) for contender in case["contenders"]]
    return "\n".join(lines) + "\n"


def _row(row: Mapping[str, Any]) -> str:
    kernels = Counter(layer["kernel"] for layer in row.get("layers", ()))
    cells = (
        f"{row['sparsity']:.2f}",
        row["kernels"],
        str(Spread(**row["milliseconds"])),
        str(Spread(**row["times_as_fast"])),
        f"{row['windows_per_second']:.0f}",
        f"{row['weight_bytes'] / 1e6:.3g}",
        f"{row['mse']:.3f}",
        f"{row['mse_change']:+.3%}",
        ", ".join(f"{count} {kernel}" for kernel, count in kernels.most_common())
        + (f"; {wholly} blocks wholly bf16" if (wholly := len(row.get("bfloat16_blocks", ()))) else ""),
    )
    return f"| {' | '.join(cells)} |"
