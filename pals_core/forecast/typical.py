"""Inputs like those a trained network will be given, to measure it with.

Shapes: B batch, G groups of columns, L input steps, C columns.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from pals_core.checkpoint.file import Checkpoint
from pals_core.data.lengths import window_lengths
from pals_core.data.windows import inference_batch
from pals_core.forecast.recent import ends_of_training

# Of the noise that tells repeated windows apart, in scaled units.
_STD = 0.1


def typical_inputs(checkpoint: Checkpoint, batch_size: int) -> list[Tensor]:
    """Return a network's four inputs for B windows: the ends of the training's series, repeated with noise.

    Known-future columns, of which a checkpoint knows none ahead, and missing values are at their mean. The same
    checkpoint always gives the same ones.
    """
    header, lengths = checkpoint.header, window_lengths(checkpoint.header.spec.data)
    groups = ends_of_training(header, checkpoint.series_ends, None)
    ends = [np.nan_to_num(group.scaler.scale(group.end.values[:, : len(group.targets)])) for group in groups]
    values = np.stack([ends[place % len(ends)] for place in range(batch_size)])
    values[len(ends) :] += np.random.default_rng(0).normal(scale=_STD, size=values[len(ends) :].shape)
    known_future = np.zeros((batch_size, lengths.input_len + lengths.horizon, len(header.spec.data.known_future)))
    batch = inference_batch(values, groups[0].end.times, header.frequency, lengths, known_future)
    return [batch.x_enc, batch.x_mark_enc, batch.x_dec, batch.x_mark_dec]
