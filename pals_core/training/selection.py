"""Which epoch is the best, and when to stop: rules on plain numbers, free of torch."""

from __future__ import annotations

import math


class BestEpoch:
    """The epoch of lowest validation loss among those sparse enough; among all while none is.

    An epoch is sparse enough at S ≥ `min_sparsity` (0 for a dense training, so that any epoch is). The first such epoch
    replaces a denser one whatever its loss.
    """

    def __init__(self, min_sparsity: float) -> None:
        self.min_sparsity = min_sparsity
        self.epoch = 0
        self.reached_min_sparsity = False
        self._loss = math.inf

    def offer(self, epoch: int, loss: float, sparsity: float) -> bool:
        """Return whether `epoch` is the best so far."""
        sparse_enough = sparsity >= self.min_sparsity
        better = loss < self._loss if sparse_enough == self.reached_min_sparsity else sparse_enough
        if better:
            self.epoch, self._loss, self.reached_min_sparsity = epoch, loss, sparse_enough
        return better


class EarlyStopping:
    """Stops after `patience` epochs without a lower validation loss.

    As published, it looks at the validation loss of every epoch, whatever its sparsity, and so does not wait for the
    masks: an epoch may be the lowest here and yet too dense to be the best.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self._lowest = math.inf
        self._without = 0

    def should_stop(self, loss: float) -> bool:
        """Take one epoch's validation loss into account; return whether to stop after it."""
        if loss < self._lowest:
            self._lowest, self._without = loss, 0
        else:
            self._without += 1
        return self._without >= self.patience
