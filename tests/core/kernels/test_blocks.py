"""Encoder and decoder layers that compute in bfloat16 within a network in single precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pals_core.kernels.blocks import InBFloat16, blocks_of
from pals_core.layers.attention import Destationarisation
from pals_core.layers.prob_sparse import ProbSparseAttention
from pals_core.layers.stacks import Decoder, Encoder, LayerSizes

SIZES = LayerSizes(d_model=16, d_ff=32, heads=2, dropout=0.0)


class ReturnsWhatItIsGiven(nn.Module):
    """A linear layer that keeps the type of its input, and the types it has seen."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear, self.seen = linear, set[torch.dtype]()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add(x.dtype)
        return self.linear(x.float()).to(x.dtype)  # type: ignore[no-any-return]


def kept_types(stack: nn.Module) -> list[ReturnsWhatItIsGiven]:
    """Replace every linear layer."""
    replaced = []
    for module in list(stack.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                replaced.append(ReturnsWhatItIsGiven(child))
                setattr(module, name, replaced[-1])
    return replaced


@torch.inference_mode()
def test_blocks_work_on_bfloat16_between_single_precision() -> None:
    generator = torch.Generator().manual_seed(1)
    encoder, decoder = Encoder(2, SIZES).eval(), Decoder(2, SIZES).eval()
    linears = [*kept_types(encoder), *kept_types(decoder)]
    x, y = torch.randn(3, 6, 16, generator=generator), torch.randn(3, 5, 16, generator=generator)
    told = Destationarisation(tau=torch.full((3,), 1.5), delta=torch.randn(3, 6, generator=generator))

    def forecast() -> Tensor:
        return decoder(y, encoder(x, told), 2, told)  # type: ignore[no-any-return]

    expected = forecast()
    assert {dtype for linear in linears for dtype in linear.seen} == {torch.float32}

    in_bfloat16 = [InBFloat16(blocks_of(stack)) for stack in (encoder, decoder)]
    for each in in_bfloat16:
        each.start()
    for linear in linears:
        linear.seen.clear()
    rounded = forecast()
    assert {dtype for linear in linears for dtype in linear.seen} == {torch.bfloat16}
    assert rounded.dtype == torch.float32
    assert 0 < float((rounded - expected).abs().max()) < 0.1

    for each in in_bfloat16:
        each.stop()
    assert torch.equal(forecast(), expected)


def test_only_layers_of_plain_attention_are_blocks() -> None:
    plain = Decoder(2, SIZES)
    generator = torch.Generator().manual_seed(1)

    def ranking() -> nn.Module:
        return ProbSparseAttention(16, 2, query_len=5, key_len=6, factor=3, generator=generator)

    assert list(blocks_of(Encoder(2, SIZES))) == ["layers.0", "layers.1"]
    assert list(blocks_of(plain)) == ["layers.0", "layers.1"]
    assert not blocks_of(Decoder(2, SIZES, cross_attention=ranking))
    assert not blocks_of(plain.layers[0].feed_forward)
