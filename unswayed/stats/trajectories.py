"""Training dynamics in full: margins, losses, forgetting, and when each label was learned."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from unswayed.stats.dynamics import Dynamics
from unswayed.stats.rows import register_rows


class Trajectories(Dynamics):
    """What `Dynamics` counts, and what tells more of every sample than that: 28 bytes a sample.

    One call serves any loop: `dynamics.update(logits, y, ids)`, once for each prediction made in training. The scores
    are in `unswayed.auditing.trajectories`. All state is in row buffers of `samples` rows, beside those of `Dynamics`:

    margin     the sum of the label's logit minus the largest other one (AUM, arXiv 2001.10528)
    loss       the sum of -log p_y; square: the sum of p_y squared (variability, arXiv 2009.10795)
    right      1 where the last prediction was right
    forgotten  how often a right prediction was followed by a wrong one (arXiv 1812.05159)
    first      the number, from 1, of the first right prediction; 0 for none yet
    unlearned  the number of the last wrong prediction; 0 for none
    curves     with `epochs`, p_y of the first so many predictions in half precision, NaN where there was none [N, E]

    A sample that occurs twice in one call (in two views, say) is counted in that order for all that adds up, but as
    one step of learning: give its views one after the other where that matters.

    >>> dynamics = Trajectories(samples=2, classes=2)
    >>> for logits in ([[2.0, 0.0], [0.0, 1.0]], [[0.0, 2.0], [0.0, 1.0]]):
    ...     dynamics.update(torch.tensor(logits), torch.tensor([0, 1]), torch.tensor([0, 1]))
    >>> dynamics.forgotten.tolist(), dynamics.margin.tolist()
    ([1, 0], [0.0, 2.0])
    """

    margin: Tensor
    loss: Tensor
    square: Tensor
    right: Tensor
    forgotten: Tensor
    first: Tensor
    unlearned: Tensor
    curves: Tensor

    def __init__(self, samples: int, classes: int, *, epochs: int = 0) -> None:
        super().__init__(samples, classes)
        for name in ("margin", "loss", "square"):
            register_rows(self, name, torch.zeros(samples))
        for name in ("right", "forgotten", "first", "unlearned"):
            register_rows(self, name, torch.zeros(samples, dtype=torch.int32))
        register_rows(self, "curves", torch.zeros(samples, epochs, dtype=torch.float16))

    @torch.no_grad()
    def update(self, logits: Tensor, y: Tensor, ids: Tensor) -> None:
        """Count one prediction a sample: logits [B, K], labels [B] or [B, K] (their likeliest class), numbers [B]."""
        super().update(logits, y, ids)
        y = y if y.dim() == 1 else y.argmax(1)
        wide = logits.detach().float()
        own = wide.gather(1, y[:, None])[:, 0]
        self.margin.index_add_(0, ids, own - wide.scatter(1, y[:, None], -torch.inf).amax(1))
        loss = cross_entropy(wide, y, reduction="none")
        self.loss.index_add_(0, ids, loss)
        p = (-loss).exp()
        self.square.index_add_(0, ids, p.square())
        seen, before, first = self.seen[ids], self.right[ids], self.first[ids]
        right = (wide.argmax(1) == y).to(torch.int32)
        self.forgotten[ids] += before * (1 - right)
        self.first[ids] = torch.where((first == 0) & (right == 1), seen, first)
        self.unlearned[ids] = torch.where(right == 0, seen, self.unlearned[ids])
        self.right[ids] = right
        if self.curves.shape[1]:
            kept = seen <= self.curves.shape[1]
            self.curves[ids[kept], seen[kept].long() - 1] = p[kept].half()

    def curve(self) -> Tensor:
        """The probability of the given label, prediction by prediction, [N, E] float16; NaN where there was none."""
        at = torch.arange(1, self.curves.shape[1] + 1, device=self.curves.device)
        return self.curves.masked_fill(at > self.seen[:, None], torch.nan)
