"""Where a benchmark ran: what its figures must be read with."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pals_core.heap import LARGE_PAGES
from pals_core.openmp import BRIEFLY_SPINNING

TELLING_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8")


ROOT = Path(__file__).parents[1]


def provenance() -> dict[str, Any]:
    """Date, commit (`-dirty` with changes of what runs that are not in it) and machine."""
    commit = _git("describe", "--always", "--exclude=*")
    # What an earlier benchmark has written is no such change.
    changes = _git(
        "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)benchmarks/results", ":(exclude)docs"
    )
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": f"{commit}-dirty" if commit and changes else commit or None,
        "machine": machine(),
    }


def _git(*arguments: str) -> str:
    said = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return said.stdout.strip()


def machine() -> dict[str, Any]:
    """Processor, its vector units, cores, GPU, system and the versions that do the arithmetic."""
    model, flags = platform.processor() or platform.machine(), ""
    if (info := Path("/proc/cpuinfo")).exists():
        facts = dict(line.split(":", 1) for line in info.read_text().split("\n\n")[0].splitlines() if ":" in line)
        facts = {key.strip(): value.strip() for key, value in facts.items()}
        model, flags = facts.get("model name", model), facts.get("flags", "")
    return {
        "processor": model,
        "vector_units": [flag for flag in TELLING_FLAGS if flag in flags.split()],
        "torch_kernels": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "openmp": {name: os.environ.get(name) for name in BRIEFLY_SPINNING},
        "heap": {name: os.environ.get(name) for name in LARGE_PAGES},
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "pandas": pd.__version__,
    }
