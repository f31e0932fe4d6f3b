"""The dense baseline: masks that stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pals_core.sparsity.method import Decision, MaskChange


class DenseController:
    """Never changes a mask."""

    def decide(self, step: int, measure_loss: Callable[[], float]) -> Decision | None:  # noqa: ARG002
        return None

    def update(self, decision: Decision) -> MaskChange:
        raise ValueError(f"a dense network has no update at step {decision.step}")

    def is_frozen(self, step: int) -> bool:  # noqa: ARG002
        return True

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:
            raise ValueError(f"a dense method has no state, got {sorted(state)}")
