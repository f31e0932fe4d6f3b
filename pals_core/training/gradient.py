"""The gradient of one optimiser step."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from pals_core.data.windows import Batch
from pals_core.training.forward import ForwardPass
from pals_core.training.loss import training_loss


def backpropagate(forward: ForwardPass, batch: Batch, parts: int) -> Tensor:
    """Add the gradient of a batch's training loss to that of the parameters; return the loss.

    In several `parts`, one after the other, it takes as much less memory. The sum is that of the whole batch but for
    rounding, dropout, and what some networks compute over a batch (normalisation, Autoformer's delays).
    """
    if parts == 1:
        loss = training_loss(forward(batch), batch)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss
    total, of_all = batch.target.new_zeros(()), _targets(batch)
    for part in _split(batch, parts):
        # A part in which nothing is known has no loss, and adds none.
        if count := _targets(part):
            loss = training_loss(forward(part), part) * (count / of_all)
            loss.backward()  # type: ignore[no-untyped-call]
            total = total + loss.detach()
    return total


def _targets(batch: Batch) -> int:
    return batch.target.numel() if batch.known is None else int(batch.known.sum())


def _split(batch: Batch, parts: int) -> Iterator[Batch]:
    size = -(-len(batch.target) // parts)
    for start in range(0, len(batch.target), size):
        rows = slice(start, start + size)
        yield Batch(
            x_enc=batch.x_enc[rows],
            x_mark_enc=batch.x_mark_enc[rows],
            x_dec=batch.x_dec[rows],
            x_mark_dec=batch.x_mark_dec[rows],
            target=batch.target[rows],
            known=None if batch.known is None else batch.known[rows],
        )
