"""The three lengths of a window, in time steps."""

from __future__ import annotations

from dataclasses import dataclass

from pals_core.errors import InvalidSpec, Problem
from pals_core.spec import DataSpec


@dataclass(frozen=True)
class WindowLengths:
    """Steps of history, how many of them seed the decoder, and steps to forecast."""

    input_len: int
    label_len: int
    horizon: int

    @property
    def decoder_len(self) -> int:
        return self.label_len + self.horizon


def window_lengths(data: DataSpec) -> WindowLengths:
    """Return the lengths of a resolved data spec.

    Raises InvalidSpec when `input_len` or `label_len` is still to be filled in, or the label outlasts the input.
    """
    if data.input_len is None or data.label_len is None:
        name = "input_len" if data.input_len is None else "label_len"
        message = f"{name} is not set; resolve the spec against its table first"
        raise InvalidSpec(message, (Problem(message, pointer=f"/data/{name}"),))
    if data.label_len > data.input_len:
        message = f"label_len {data.label_len} is longer than input_len {data.input_len}"
        raise InvalidSpec(message, (Problem(message, pointer="/data/label_len"),))
    return WindowLengths(data.input_len, data.label_len, data.horizon)
