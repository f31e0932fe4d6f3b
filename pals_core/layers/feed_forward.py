"""The feed-forward pair of a transformer layer."""

from __future__ import annotations

from torch import Tensor, nn

from pals_core.layers.dropout import Dropout


class FeedForward(nn.Module):
    """Linear D → d_ff, exact gelu, dropout, Linear d_ff → D, dropout: [..., D] to [..., D].

    Published as a pair of 1×1 convolutions over time, which are these linear layers.
    """

    def __init__(self, d_model: int, d_ff: int, dropout: float, *, bias: bool = True) -> None:
        super().__init__()
        self.expand = nn.Linear(d_model, d_ff, bias=bias)
        self.contract = nn.Linear(d_ff, d_model, bias=bias)
        self.activation = nn.GELU()
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.contract(self.dropout(self.activation(self.expand(x)))))  # type: ignore[no-any-return]
