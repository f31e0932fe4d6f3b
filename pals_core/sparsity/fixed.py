"""Masks that stay as they are."""

from __future__ import annotations

from collections.abc import Callable

from pals_core.sparsity.method import Decision, MaskChange, WithoutState


class FixedMasks(WithoutState):
    """Never changes a mask."""

    def decide(self, step: int, measure_loss: Callable[[], float]) -> Decision | None:  # noqa: ARG002
        return None

    def update(self, decision: Decision) -> MaskChange:
        raise ValueError(f"masks that are fixed have no update at step {decision.step}")

    def is_frozen(self, step: int) -> bool:  # noqa: ARG002
        return True
