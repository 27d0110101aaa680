"""Two networks held to agree, which choose samples together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unswayed.losses.base import number
from unswayed.method import Batch, Info, MakeNet
from unswayed.methods.pair import Pair, choose_smallest


class JoCoR(Pair):
    """Two networks learn from the samples on which their joint loss is smallest (JoCoR, arXiv 2003.02752).

    Joint loss of a sample: (1 - agree) (CE_1 + CE_2) + agree (KL(p_1 | p_2) + KL(p_2 | p_1)).

    agree    lambda. Published: .9 for CIFAR-10 and .85 for CIFAR-100 at up to 50 % noise, .65 for CIFAR-10 at 80 % (.1
             where the program is told nothing); the authors expect the best between .5 and .9, and another one for
             another network. Our choice: .65, because in short runs more of it holds the networks back before they know
             the classes (seen on digits only).
    rescale  divide the joint loss by 1 - agree, which leaves the choice of samples as it is. The authors' Adam does not
             feel a loss's scale, SGD does; so it is on, our choice.
    forget   the share left out, the true noise rate in the paper (half of it where noise is asymmetric); our choice, as
             in Co-teaching, is .3. It rises from 0 over `ramp` of training, published 10 of 200 epochs (.05); ours is
             Co-teaching's .1.

    Published with Adam 1e-3, falling linearly to 0 from epoch 80 on (CIFAR-100: 100), first moment .9 and then .1,
    batch 128, 200 epochs, for both networks together. Paper and program agree, but for the program's cut of the number
    kept to the whole number below where we round. Evaluation: the program averages both networks over the last ten
    epochs; our choice, as in Co-teaching, is the mean of their probabilities after the last.
    """

    def __init__(
        self,
        make_net: MakeNet,
        info: Info,
        *,
        agree: float = 0.65,
        rescale: bool = True,
        forget: float = 0.3,
        ramp: float = 0.1,
        ensemble: bool = True,
        loss: str = "ce",
        loss_settings: Mapping[str, Any] | None = None,
    ) -> None:
        pair: dict[str, Any] = {"forget": forget, "ramp": ramp, "ensemble": ensemble}
        super().__init__(make_net, info, **pair, loss=loss, loss_settings=loss_settings)
        self.agree = number("agree", agree, least=0, below=1)
        self.rescale = rescale

    def loss(self, batch: Batch) -> Tensor:
        """The mean joint loss of the samples for which it is smallest."""
        logits, peer_logits = self.net(batch.x), self.peer(batch.x)
        self.observe((logits.detach() + peer_logits.detach()) / 2, batch)
        given = self.criterion.per_sample(logits, batch.y, batch.index)
        given = given + self.peer_criterion.per_sample(peer_logits, batch.y, batch.index)
        joint = (1 - self.agree) * given + self.agree * disagreement(logits, peer_logits)
        joint = joint / (1 - self.agree) if self.rescale else joint
        chosen = choose_smallest(joint, joint, self.kept(len(batch), batch.progress))
        return chosen.mean() + self.extras(logits, peer_logits)


def disagreement(logits: Tensor, peer_logits: Tensor) -> Tensor:
    """KL(p | q) + KL(q | p) of two predictions: [B, K], [B, K] -> [B]."""
    log_p, log_q = logits.float().log_softmax(1), peer_logits.float().log_softmax(1)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(1)
