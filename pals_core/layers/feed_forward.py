"""The feed-forward pair of a transformer layer."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from pals_core.layers.dropout import Dropout


class FeedForward(nn.Module):
    """x + dropout(Linear(dropout(gelu(Linear(x))))), D → d_ff → D with the exact gelu: [..., D] to [..., D].

    Published as a pair of 1×1 convolutions over time, which are these linear layers.
    """

    def __init__(self, d_model: int, d_ff: int, dropout: float, *, bias: bool = True) -> None:
        super().__init__()
        self.expand = nn.Linear(d_model, d_ff, bias=bias)
        self.contract = nn.Linear(d_ff, d_model, bias=bias)
        self.activation = nn.GELU()
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.expand(x)
        if not self.training:
            return x + self.contract(self.activation(hidden))  # type: ignore[no-any-return]
        # What dropout multiplies the wide layer by is left to the sum, which is narrow: bias/factor · factor is bias.
        hidden, factor = self.dropout.of_gelu(hidden)
        bias = None if self.contract.bias is None else self.contract.bias / factor
        return self.dropout.added(x, F.linear(hidden, self.contract.weight, bias), factor)
