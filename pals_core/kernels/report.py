"""What was measured of a network's linear layers, and chosen for them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

import pandas as pd

from pals_core.kernels.linear import Kernel


@dataclass(frozen=True)
class LayerKernel:
    """One linear layer; microseconds are the best of the runs."""

    layer: str
    inputs: int
    outputs: int
    rows: int  # that it was measured with
    density: float
    kernel: Kernel
    dense_microseconds: float  # of PyTorch's product in fp32
    microseconds: float
    max_error: float  # largest change of an output, as a share of the largest output
    bytes: int  # of its weights


@dataclass(frozen=True)
class KernelReport:
    """What was chosen for one batch size on this machine.

    A network that is not faster as a whole keeps PyTorch's products everywhere. Layers of less than 4096 weights are
    not measured and keep them too.
    """

    batch_size: int
    layers: tuple[LayerKernel, ...]
    dense_microseconds: float  # of one batch through the dense network
    microseconds: float
    squared_change: float  # mean over the forecasts of that batch, in scaled units
    bfloat16_blocks: tuple[str, ...] = ()  # encoder and decoder layers that compute wholly in bfloat16

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each layer that was measured."""
        columns = [field.name for field in fields(LayerKernel)]
        return pd.DataFrame([asdict(layer) for layer in self.layers], columns=columns).set_index("layer")
