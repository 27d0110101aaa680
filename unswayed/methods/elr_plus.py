"""Early-learning regularisation by two networks, each held to what the other's teacher says."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from unswayed.losses import elr
from unswayed.losses.base import number
from unswayed.method import Batch, Info, MakeNet, Method
from unswayed.methods.pair import mean_of_two
from unswayed.methods.semi import reads_ngrams
from unswayed.stats.rows import register_rows
from unswayed.stats.semi import mixup, soft_labels
from unswayed.stats.teacher import Teacher

FEW = 31  # up to so many classes the settings for CIFAR-10 hold, as for the losses


class ELRPlus(Method):
    """ELR with two networks, averaged weights as teachers, and MixUp (ELR+, arXiv 2007.00151).

    Each network learns CE + lam log(1 - <p, t>) on mixed rows; t is the running mean of what the OTHER network's
    teacher (an exponential moving average of its weights) says of each unmixed row, mixed like the rows.

    lam          published 3 for CIFAR-10 and 7 for CIFAR-100; None: by the number of classes, to 31 the former.
    momentum     the share of the old t kept, published .7 and .9; None likewise.
    mixup        alpha of MixUp's Beta distribution, published 1; 0: none.
    average      the teachers' momentum, published .997, which rises to it over `ramp` of training as exp(-5 (1 - s)^2)
                 does; published 40000 steps of 78200, about half.
    weigh        multiply the mixed label by t and scale it to sum one, as the authors' program does for 100 classes
                 and the paper does not say; None: for more than 31 classes, as the program.
    lam_ramp     the share of training over which lam rises likewise; in the program 40000 steps of 97750 for CIFAR-100,
                 which the paper does not tell; 0, the default: at once, as for CIFAR-10.

    Published with SGD .02, momentum .9, weight decay 5e-4, batch 128, 200 epochs (250 for CIFAR-100), divided by 10
    after 150 (200); for asymmetric noise of CIFAR-10 with lam 1 and momentum .9.

    Our choices: teachers are in evaluation mode and average batch-norm statistics as well; the program leaves them in
    training mode, where they see statistics of the batch, so that what a teacher says of a row depends on its
    neighbours. Both networks learn in one step from one batch (the program: an epoch each in turn). Evaluation is the
    mean of the networks' probabilities, as for all pairs here; the program's, of their logits.
    """

    target: Tensor
    peer_target: Tensor

    def __init__(
        self,
        make_net: MakeNet,
        info: Info,
        *,
        lam: float | None = None,
        momentum: float | None = None,
        mixup: float = 1.0,
        average: float = 0.997,
        ramp: float = 0.5,
        lam_ramp: float = 0.0,
        weigh: bool | None = None,
    ) -> None:
        super().__init__(make_net, info)
        few = info.classes <= FEW
        self.lam = number("lam", (3.0 if few else 7.0) if lam is None else lam, least=0)
        self.momentum = number("momentum", (0.7 if few else 0.9) if momentum is None else momentum, least=0, below=1)
        self.mixup, self.average = number("mixup", mixup, least=0), number("average", average, least=0, below=1)
        self.ramp, self.lam_ramp = number("ramp", ramp, least=0, most=1), number("lam_ramp", lam_ramp, least=0, most=1)
        self.weigh = not few if weigh is None else weigh
        self.peer = make_net()
        self.teacher, self.peer_teacher = Teacher(self.net), Teacher(self.peer)
        self.ngrams = reads_ngrams(self.net)
        register_rows(self, "target", torch.zeros(info.samples, info.classes))
        register_rows(self, "peer_target", torch.zeros(info.samples, info.classes))

    def forward(self, x: Tensor) -> Tensor:
        """Rows [B, ...] -> the logarithm of the two networks' mean probabilities, [B, K]."""
        return mean_of_two(self.net(x), self.peer(x))

    def loss(self, batch: Batch) -> Tensor:
        """The sum of both networks' losses; renews teachers and targets on the way."""
        average = self.average * ramp(batch.progress, self.ramp)
        self.teacher.update(self.net, average)
        self.peer_teacher.update(self.peer, average)
        with torch.no_grad():
            seen, peer_seen = self.teacher(batch.x), self.peer_teacher(batch.x)
        self.observe((seen + peer_seen) / 2, batch)
        target = self._renew(self.target, peer_seen, batch)
        peer_target = self._renew(self.peer_target, seen, batch)
        return self._one(self.net, target, batch) + self._one(self.peer, peer_target, batch)

    def _renew(self, rows: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        rows[batch.index] = torch.lerp(logits.float().softmax(1), rows[batch.index], self.momentum)
        return rows[batch.index]

    def _one(self, net: nn.Module, target: Tensor, batch: Batch) -> Tensor:
        classes = target.shape[1]
        both = torch.cat([soft_labels(batch.y, classes), target], 1)
        x, both = mixup(batch.x, both, self.mixup, ngrams=self.ngrams)
        label, target = both[:, :classes], both[:, classes:]
        if self.weigh:
            label = label * target
            label = label / label.sum(1, keepdim=True).clamp(min=torch.finfo(label.dtype).tiny)
        lam = self.lam * ramp(batch.progress, self.lam_ramp)
        return (elr(net(x), label, target, lam=lam) * batch.weight).mean()


def ramp(progress: float, length: float) -> float:
    """exp(-5 (1 - s)^2), s rising from 0 to 1 over `length` of training.

    >>> ramp(0.0, 0.5), ramp(0.5, 0.5), ramp(0.0, 0.0)
    (0.006737946999085467, 1.0, 1.0)
    """
    share = min(1.0, progress / length) if length else 1.0
    return math.exp(-5 * (1 - share) ** 2)
