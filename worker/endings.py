"""What the end of a training process means for its job."""

from __future__ import annotations

import signal

from jobstore.leases import Lease
from jobstore.lifecycle import StatusReason
from pals_core.errors import ErrorCode
from pals_core.training.events import Finished
from worker.protocol import EXIT_LEASE_ENDED, EXIT_ORPHANED

STOPPED_ITSELF = {
    EXIT_LEASE_ENDED: "stopped because its lease was not renewed in time",
    EXIT_ORPHANED: "stopped because its supervisor was gone",
}
REASONS = {
    ErrorCode.INVALID_TABLE: StatusReason.USER_ERROR,
    ErrorCode.INVALID_SPEC: StatusReason.USER_ERROR,
    ErrorCode.DIVERGED: StatusReason.USER_ERROR,
    ErrorCode.NOT_DETERMINISTIC: StatusReason.USER_ERROR,
    ErrorCode.OUT_OF_MEMORY: StatusReason.OUT_OF_MEMORY,
}


def success(finished: Finished) -> str:
    """What a training that went through says to a person."""
    result = finished.result
    early = ", stopped early" if finished.stopped_early else ""
    return f"succeeded{early}: test MSE {result.metrics.mse:.4g} at sparsity {result.sparsity:.3f}"


def cause_of_death(code: int) -> str:
    """What an exit status that is a loss, not a failure, says to a person."""
    if code in STOPPED_ITSELF:
        return STOPPED_ITSELF[code]
    hint = "; often the system's answer to a lack of memory" if -code == signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-code).name}{hint}"


def may_fit_in_parts(lease: Lease, code: ErrorCode) -> bool:
    """Out of memory for the first time: half of each batch at a time may do."""
    divisible = lease.spec["training"]["batch_size"] > 1
    return code is ErrorCode.OUT_OF_MEMORY and lease.micro_batches == 1 and divisible
