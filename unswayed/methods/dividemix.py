"""DivideMix: rows whose loss is high lose their labels, and semi-supervised learning goes on from there."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from unswayed.losses.base import number
from unswayed.method import Data, Info, MakeNet
from unswayed.methods.semi import CoDivided, row_losses
from unswayed.stats.mixtures import gaussian_mixture
from unswayed.stats.semi import keep_both


class DivideMix(CoDivided):
    """Two networks tell each other, by a mixture on their losses, which labels to drop (DivideMix, arXiv 2002.07394).

    After a warm-up, the losses of all rows under each network are fitted by two Gaussians before every epoch; rows
    that the one finds clean with probability above `threshold` are labelled rows of the other, the rest lose their
    label. Labels are then refined (co-refinement), guessed by both networks on two views (co-guessing), sharpened and
    learnt by MixMatch, with a penalty for predicting one class too often.

    Settings, as the authors published them for CIFAR-10:

    - `threshold` .5 (.6 for 90 % symmetric noise)
    - `warmup` 10 of 300 epochs (30 for CIFAR-100), at most a third of the epochs here
    - `temperature` .5 and `alpha` 4, of sharpening and of MixUp
    - `lambda_u` 25 (of 0, 25, 50 and 150, chosen by noise rate and type: 25 at 50 % and more of symmetric noise, 0 at
      20 % and for asymmetric noise, 50 and more for CIFAR-100 and 90 %), which no method can know
    - `ramp` 16 of 300 epochs, over which `lambda_u` rises from 0 after the warm-up; at most a third of the epochs here,
      since in their proportion it would last a fraction of an epoch, and a sudden large weight lets a class vanish
    - `confidence_penalty` in the warm-up: the authors use it for asymmetric noise only
    - SGD .02, weight decay 5e-4, batches of 64 labelled and 64 unlabelled rows (`--batch 64` here: each part has one)

    Where paper and code differ: the squared error of guessed labels is a sum over classes in the paper and a mean in
    the code, for which `lambda_u` is given (`consistency="mean"`, the default; "sum"). The code ends with the sum of
    the networks' logits (`ensemble="logits"`); the default is their mean prediction ("probabilities"), because logits
    of two networks have no common scale; "first" is the first network alone. For 90 % wrong labels the authors average
    losses over 5 epochs; not here, since the rate is unknown.

    Our choices: an epoch shows a network as many rows as there are, half of them labelled, half not, drawn anew each
    time (`epoch="together"`), so that it costs the same however the rows are split, and is not over at once where few
    are trusted; "labelled", the code's, shows labelled rows once, and "all" the longer part. A part that would be
    (nearly) empty is filled up from the doubtful rows of the other. A network looks at both views of both parts in one
    pass (the code: four, each with batch-norm statistics of its own). Views of tables and features are alike unless
    they are augmented; then each row is looked at once, and co-guessing averages over the networks only. Texts as
    n-grams are mixed exactly, as the sparse vectors that they are.
    """

    # 25 is for symmetric noise of 10 classes; with the contract's pair noise one class may swallow another.
    test_settings: ClassVar[dict[str, Any]] = {"lambda_u": 5.0}

    def __init__(self, make_net: MakeNet, info: Info, *, threshold: float = 0.5, **settings: Any) -> None:
        super().__init__(make_net, info, **settings)
        self.threshold = number("threshold", threshold, above=0, below=1)

    def divide(self, turn: int, data: Data) -> tuple[Data, Data]:
        """What the other network holds to be clean, and the rest; both networks judge before the first one learns."""
        if turn == 0:
            for judge in (0, 1):
                self.clean[data.index, judge] = self.judge(judge, data)
        clean = self.clean[data.index, 1 - turn]
        labelled = keep_both(clean > self.threshold, clean)
        return data.replace(weight=clean).rows(labelled), data.rows(~labelled)

    def judge(self, judge: int, data: Data) -> Tensor:
        """How probably each given label is right, by this network's losses, [N]."""
        return clean_probability(row_losses(self.both()[judge], data))


def clean_probability(losses: Tensor) -> Tensor:
    """How probably each loss is of the lower of two Gaussians, as DivideMix fits them: `[N]` -> `[N]` in [0, 1].

    The floor of the variances (5e-4) and the 10 rounds are the authors'; losses scaled to 0..1, likewise theirs, give
    the same, because the floor is in units of their range.
    """
    return gaussian_mixture(losses, rounds=10, floor=5e-4).posterior(losses)
