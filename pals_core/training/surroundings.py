"""What, beside spec and table, decides the bytes of a checkpoint: device, threads, arithmetic, versions."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import version

import numpy as np
import torch
from pydantic import Field

from pals_core.checkpoint.header_part import HeaderPart
from pals_core.spec import Precision, Spec
from pals_core.training.arithmetic import Arithmetic, Products


class Surroundings(HeaderPart):
    """What has a say in how arithmetic is rounded, and the versions that a checkpoint names."""

    threads: int = Field(ge=1, le=65_536, description="CPU threads.")
    device: str = Field(description="cpu, or the GPU's name.")
    processor: str = Field(description="Digest of the CPU's model, instruction sets and cache sizes.")
    precision: Precision
    compiled: bool
    products: Products = Field(default=Products.TORCH, description="Whose fp32 products linear layers use.")
    micro_batches: int = Field(ge=1, description="Parts that each batch is computed in.")
    pals: str = Field(default="unnamed", description="Of this program; states from before it was named have none.")
    torch: str
    numpy: str
    python: str


def surroundings_of(device: torch.device, arithmetic: Arithmetic, micro_batches: int) -> Surroundings:
    """Return those of a training on `device` in this process."""
    return Surroundings(
        threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        processor=_processor(),
        precision=arithmetic.precision,
        compiled=arithmetic.compiled,
        products=arithmetic.products,
        micro_batches=micro_batches,
        **versions(),
    )


def versions() -> dict[str, str]:
    """Return the versions, by name, that a repetition bit for bit needs."""
    return {
        "numpy": np.__version__,
        "pals": version("pals"),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }


def differences(then: Surroundings, now: Surroundings) -> list[str]:
    """Return a warning for each thing that may make a resumed training end differently."""
    before, after = then.model_dump(mode="json"), now.model_dump(mode="json")
    return [
        f"resumed with {name} {after[name]} after {name} {before[name]}: the training may end differently from one "
        "that was never interrupted"
        for name in before
        if before[name] != after[name]
    ]


def repeats(spec: Spec, device: torch.device, micro_batches: int) -> bool:
    """Return whether whoever trains this spec in equal surroundings gets the same bytes, knowing the spec alone."""
    return micro_batches == 1 and (device.type == "cpu" or spec.training.deterministic)


def _processor() -> str:
    # How many cores there are has no say: the number of threads has.
    known = {name: value for name, value in torch.cpu.get_capabilities().items() if not name.startswith("num_")}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]
