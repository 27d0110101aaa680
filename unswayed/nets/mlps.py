"""Bodies of linear layers, or of none: for tables and frozen features, and for texts given as weighted n-grams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unswayed.errors import UnswayedError
from unswayed.nets.net import Body, initialise, read_widths
from unswayed.nets.normalise import Normalize, Stats


def identity(kind: str, shape: tuple[int, ...], stats: Stats | None = None) -> Body:
    """The rows themselves, standardised and flattened, so that the head is a probe of them: [B, *shape] -> [B, d].

    It has no parameters. On frozen features a linear head is then multinomial logistic regression.
    """
    if kind == "text":
        do = "choose the body text-mlp, or encode the texts as features (--encoder, --features)"
        raise UnswayedError("table, image or audio rows for the body identity", got="n-grams of texts", do=do)
    return Body(torch.Size(shape).numel(), normalise=Normalize(stats), flatten=nn.Flatten())


def mlp(
    kind: str,
    shape: tuple[int, ...],
    stats: Stats | None = None,
    *,
    widths: int | str | Sequence[int] = (256, 128),
    dropout: float = 0.0,
) -> Body:
    """Linear layers with batch norm and ReLU; images and sounds are flattened: [B, *shape] -> [B, widths[-1]]."""
    if kind == "text":
        raise UnswayedError("table, image or audio rows for the body mlp", got="text", do="choose the body text-mlp")
    chain = read_widths(widths)
    layers = nn.Sequential(*_layers(torch.Size(shape).numel(), chain, dropout))
    return initialise(Body(chain[-1], normalise=Normalize(stats), flatten=nn.Flatten(), layers=layers))


def text_mlp(
    kind: str,
    shape: tuple[int, ...],
    stats: Stats | None = None,
    *,
    buckets: int = 2**15,
    width: int = 64,
    widths: int | str | Sequence[int] = (64,),
    dropout: float = 0.3,
) -> Body:
    """Weighted n-grams [B, 2, L] summed by a table of `buckets` x `width`, then an MLP: -> [B, widths[-1]].

    The sum is exactly a sparse TF-IDF row times a dense matrix. `stats` take no part: rows are already scaled.
    """
    if kind != "text" or len(shape) != 2 or shape[0] != 2:
        came = f"{kind} rows {list(shape)}"
        raise UnswayedError("text rows [2, L] (n-gram numbers and weights)", got=came, do="choose another body")
    norm = nn.Sequential(nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout))
    chain = read_widths(widths)
    layers = nn.Sequential(*_layers(width, chain, dropout))
    return initialise(Body(chain[-1], bag=Bag(buckets, width), norm=norm, layers=layers))


class Bag(nn.Module):
    """Sum of embeddings by weight: rows [B, 2, L] of n-gram numbers (0 = padding) and weights -> [B, width].

    Numbers beyond the table are folded into it, as a smaller hash would have done, so any table serves any text.

    >>> bag = Bag(buckets=3, width=1)
    >>> _ = bag.weight.data.copy_(torch.tensor([[9.0], [1.0], [10.0]]))
    >>> bag(torch.tensor([[[1.0, 2.0, 0.0], [0.5, 0.25, 1.0]]]))  # the third place is padding, whatever its weight
    tensor([[3.]], grad_fn=<EmbeddingBagBackward0>)
    """

    def __init__(self, buckets: int, width: int) -> None:
        super().__init__()
        if buckets < 2:
            raise UnswayedError("at least 2 buckets (number 0 is padding)", got=buckets)
        # A norm follows, so the size of the start only sets how far one step turns an embedding, and each sees few
        # steps an epoch: 0.02 instead of 0.1 gained 3 points on news in five epochs of SGD.
        self.weight = nn.Parameter(torch.randn(buckets, width) * 0.02)

    def forward(self, rows: Tensor) -> Tensor:
        """[B, 2, L] -> [B, width]."""
        numbers, weights = rows[:, 0].long(), rows[:, 1].to(self.weight.dtype)
        slots = torch.where(numbers > 0, (numbers - 1) % (len(self.weight) - 1) + 1, 0)
        return F.embedding_bag(slots, self.weight, mode="sum", per_sample_weights=weights.contiguous(), padding_idx=0)


def _layers(inputs: int, widths: Sequence[int], dropout: float) -> Iterator[nn.Module]:
    for before, after in pairwise((inputs, *widths)):
        yield nn.Linear(before, after)
        yield nn.BatchNorm1d(after)
        yield nn.ReLU()
        yield nn.Dropout(dropout)
