"""UNICON: as many labelled rows of every class, and features that the unlabelled rows teach by contrast."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from unswayed.errors import UnswayedError
from unswayed.losses.base import number
from unswayed.method import Batch, Data, Info, MakeNet
from unswayed.methods.semi import CoDivided, body_of, features_of, row_probabilities
from unswayed.stats.contrast import contrastive_loss
from unswayed.stats.semi import jensen_shannon, keep_both, smallest_of_class, soft_labels

Unit = Literal["bits", "nats"]


class UNICON(CoDivided):
    """DivideMix's two networks, with a class-balanced split and a contrastive loss (UNICON, arXiv 2203.14542).

    Before each network's turn, d = Jensen-Shannon divergence of the networks' mean prediction from the label. The
    share R of rows with d below a cutoff says how many labels to keep: R N / K of every class, those of smallest d.
    The cutoff is the mean of d, or above `high`, mean - (mean - min) / `tau`. Labels are refined and guessed on two
    weak views and learnt by MixMatch on two strong ones; `lambda_c` times a contrastive loss (SimCLR) of the features,
    projected by a linear layer and batch norm as in the authors' program, goes over the unlabelled rows.

    Settings, the authors' for CIFAR:

    - `high` .7 and `tau` 5, `lambda_u` 30, `lambda_c` .025, `temperature` .5, `alpha` 4, `projection` 128
    - `contrast_temperature` .05 (the code's)
    - `warmup` 10 of 350 epochs (30 for CIFAR-100) and `ramp` 16, each at most a third of the epochs here
    - `confidence_penalty` in the warm-up: for asymmetric noise only
    - SGD .02, weight decay 5e-4, batches of 64 and 64

    Where paper and code differ: the paper's d lies in 0..1 ("bits", the default, because `high` is meant for it); the
    code computes "nats", which end at .69, so that `high` never acts. As the code has it, a kept label counts fully
    where d < .5 and by 1 - d elsewhere.

    Our choices: both networks judge in evaluation mode (in the code the one that has just learnt still is in training
    mode when the other's rows are chosen). Parts have batches of one size, as in DivideMix (the code: labelled rows
    once, beside 1 / (2 R) as many unlabelled ones). Where a part would be (nearly) empty it is filled
    from the other; a class with fewer rows than its share gives all. Strong views of tables and features are what the
    augmentation makes of them; without one, the views of a row agree and the contrastive loss only pushes rows apart.
    """

    test_settings: ClassVar[dict[str, Any]] = {"lambda_u": 5.0}  # as in DivideMix
    views = ("weak", "weak", "strong", "strong")

    def __init__(
        self,
        make_net: MakeNet,
        info: Info,
        *,
        high: float = 0.7,
        tau: float = 5.0,
        unit: Unit = "bits",
        lambda_c: float = 0.025,
        contrast_temperature: float = 0.05,
        projection: int = 128,
        lambda_u: float = 30.0,
        **settings: Any,
    ) -> None:
        if unit not in get_args(Unit):
            raise UnswayedError("unit is 'bits' or 'nats'", got=repr(unit))
        super().__init__(make_net, info, lambda_u=lambda_u, **settings)
        self.high, self.tau = number("high", high, least=0), number("tau", tau, least=1)
        self.unit = 1.0 if unit == "bits" else float(torch.log(torch.tensor(2.0)))
        self.lambda_c = number("lambda_c", lambda_c, least=0)
        self.contrast_temperature = number("contrast_temperature", contrast_temperature, above=0)
        width = int(number("projection", projection, least=1))
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Linear(features_of(net), width, bias=False), nn.BatchNorm1d(width)) for net in self.both()
        )

    def learner(self, turn: int) -> nn.Module:
        """The network and its projection."""
        return nn.ModuleList([self.both()[turn], self.projections[turn]])

    def divide(self, turn: int, data: Data) -> tuple[Data, Data]:
        """The same number of rows of every class, as far as they go, and the rest."""
        p = (row_probabilities(self.net, data) + row_probabilities(self.peer, data)) / 2
        distance = jensen_shannon(p, soft_labels(data.y, self.classes)) * self.unit
        self.clean[data.index, turn] = 1 - distance
        share = kept_share(distance, self.high, self.tau)
        chosen = smallest_of_class(distance, data.y, self.classes, int(share * len(data) / self.classes))
        labelled = keep_both(chosen, -distance)
        trust = torch.where(distance < 0.5, 1.0, 1 - distance)
        return data.replace(weight=trust).rows(labelled), data.rows(~labelled)

    def extra(self, turn: int, labelled: Batch, unlabelled: Batch) -> Tensor | float:
        """The contrastive loss of the unlabelled rows' strong views."""
        if self.lambda_c == 0:
            return 0.0
        features = body_of(self.both()[turn])(torch.cat(unlabelled.views[-2:]))
        first, second = self.projections[turn](features).chunk(2)
        return self.lambda_c * contrastive_loss(first, second, temperature=self.contrast_temperature)


def kept_share(distance: Tensor, high: float, tau: float) -> float:
    """The share of rows below the cutoff: [N] -> in [0, 1].

    >>> kept_share(torch.tensor([0.1, 0.2, 0.9]), high=0.7, tau=5.0)  # the mean is .4
    0.6666666865348816
    """
    mean = distance.mean()
    cutoff = torch.where(mean > high, mean - (mean - distance.min()) / tau, mean)
    return float((distance < cutoff).float().mean())
