"""Sample selection and relabelling by nearest neighbours."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from unswayed.losses import cross_entropy
from unswayed.losses.base import number
from unswayed.method import Batch, Data, Info, MakeNet, Method, Stage
from unswayed.methods.semi import body_of, features_of, head_of, reads_ngrams
from unswayed.prediction import predict
from unswayed.stats.neighbours import label_vote, neighbours
from unswayed.stats.rows import register_rows
from unswayed.stats.semi import mixup, soft_labels


class SSR(Method):
    """Relabels what the network is sure of, keeps what neighbours confirm, learns it evenly (SSR+, arXiv 2111.11288).

    Before every epoch: a label becomes the predicted one where p > `theta_r`. The labels of the `k` nearest neighbours
    by cosine of the features vote, each class divided by its share; a row is kept where the vote for its label, over
    the largest vote, is at least `theta_s`. The loss: cross-entropy of MixUp on two strong views of kept rows, as many
    of every class, + `lambda_fc` times feature consistency over all rows: - cosine of a prediction from the strong
    view to the projection of the weak one, which has no gradient.

    - `theta_r` .9 (.8 at 90 % wrong labels), `theta_s` 1, `k` 200, `lambda_fc` 1 (0: SSR without the plus), `alpha` 4
    - `width` 256 and 128 of the two heads of that consistency
    - `itself` whether a row is among its own neighbours: in the authors' program it is. Our default is no, because its
      own label, wrong or not, always votes for itself, and among few neighbours that counts
    - published training: 300 epochs, SGD .02, weight decay 5e-4, batches of 128, cosine to a fiftieth; no warm-up

    Our choices: `k` is at most half of the mean class size, for small data; rows are judged as stored (program: in a
    weak view); both views of all rows go through the network at once (program: one after the other, each with batch
    statistics of its own); an epoch shows N kept rows, drawn evenly over the classes that have any, beside all N rows,
    as the program does by going round its balanced rows; where fewer than two rows would be kept, the two best stay.
    Tables and features whose views agree lose the consistency between views; MixUp and the selection remain.
    """

    agreement: Tensor

    def __init__(
        self,
        make_net: MakeNet,
        info: Info,
        *,
        theta_r: float = 0.9,
        theta_s: float = 1.0,
        k: int = 200,
        lambda_fc: float = 1.0,
        alpha: float = 4.0,
        width: int = 256,
        itself: bool = False,
    ) -> None:
        super().__init__(make_net, info)
        self.theta_r, self.theta_s = number("theta_r", theta_r, least=0), number("theta_s", theta_s, least=0, most=1)
        self.k, self.alpha = int(number("k", k, least=1)), number("alpha", alpha, least=0)
        self.lambda_fc, self.classes = number("lambda_fc", lambda_fc, least=0), info.classes
        self.itself = itself
        self.ngrams, hidden = reads_ngrams(self.net), int(number("width", width, least=2))
        if self.lambda_fc > 0:
            self.projection = two_layers(features_of(self.net), hidden, hidden // 2)
            self.prediction = two_layers(hidden // 2, hidden, hidden // 2)
        # The vote for the given label over the largest vote; -1: not judged yet.
        register_rows(self, "agreement", torch.full((info.samples,), -1.0))

    def plan(self, epochs: int) -> list[Stage]:
        """One stage an epoch: rows are judged between them."""
        views = ("weak", "strong", "strong")
        return [Stage("select and relabel", 1, self.learn, self.select, views=views)] * epochs

    def learn(self, kept: Batch, everything: Batch) -> Tensor:
        """MixUp on kept rows, and feature consistency on all."""
        target = soft_labels(kept.y, self.classes)
        x, target = mixup(torch.cat(kept.views[1:]), torch.cat([target, target]), self.alpha, ngrams=self.ngrams)
        fit = cross_entropy(self.net(x), target).mean()
        if self.lambda_fc == 0:
            with torch.no_grad():
                self.observe(self.net(everything.x), everything)
            return fit
        features = body_of(self.net)(torch.cat(everything.views[:2]))
        with torch.no_grad():
            self.observe(head_of(self.net)(features[: len(everything)]), everything)
        weak, strong = self.projection(features).chunk(2)
        apart = -cosine_similarity(self.prediction(strong).float(), weak.detach().float()).mean()
        return fit + self.lambda_fc * apart

    def select(self, data: Data) -> tuple[Data, Data]:
        """Rows whose label, perhaps a new one, the neighbours confirm, evenly drawn; and all rows."""
        features = predict(body_of(self.net), data.x)
        sure, predicted = predict(head_of(self.net), features).softmax(1).max(1)
        given = data.y if data.y.dim() == 1 else data.y.argmax(1)
        label = torch.where(sure > self.theta_r, predicted, given)
        k = max(1, min(self.k, len(data) // (2 * self.classes)))
        votes = balanced_vote(label, self._voters(features, k), self.classes)
        self.agreement[data.index] = votes.gather(1, given[:, None])[:, 0]
        confirmed = votes.gather(1, label[:, None])[:, 0]
        kept = confirmed >= self.theta_s
        kept[confirmed.topk(2).indices] |= kept.sum() < 2
        at = draw_evenly(label, kept, len(data), self.classes)
        return data.replace(y=label).rows(at), data

    def _voters(self, features: Tensor, k: int) -> Tensor:
        if not self.itself:
            return neighbours(features, k).rows
        own = torch.arange(len(features), device=features.device)[:, None]
        return own if k == 1 else torch.cat([own, neighbours(features, k - 1).rows], 1)

    def suspicion(self) -> Tensor | None:
        """One minus the neighbours' vote for the given label over their largest vote, [N]; .5 where never judged."""
        known = self.agreement >= 0
        return torch.where(known, 1 - self.agreement, 0.5) if bool(known.any()) else super().suspicion()


def balanced_vote(y: Tensor, index: Tensor, classes: int) -> Tensor:
    """Votes of the neighbours divided by the share of each class, over the largest of the row: -> `[N, K]` in [0, 1].

    >>> balanced_vote(torch.tensor([0, 0, 0, 1]), torch.tensor([[1, 3], [1, 2]]), classes=2)
    tensor([[0.3333, 1.0000],
            [1.0000, 0.0000]])
    """
    share = torch.bincount(y, minlength=classes).clamp_min(1) / len(y)
    votes = label_vote(y, index, classes) / share
    return votes / votes.amax(1, keepdim=True)


def draw_evenly(y: Tensor, among: Tensor, total: int, classes: int) -> Tensor:
    """`total` positions of rows that `among` `[N]` names, as many of every class that has any, at random.

    A class that is too small goes round again.
    """
    order = torch.randperm(len(y)).to(y.device)
    order = order[among[order]]
    order = order[y[order].argsort(stable=True)]
    counts = torch.bincount(y[order], minlength=classes)
    present = counts.nonzero()[:, 0]
    present = present[torch.randperm(len(present)).to(y.device)]  # or the first ones would get what remains
    turn = torch.arange(total, device=y.device)
    of = present[turn % len(present)]
    first = counts.cumsum(0) - counts
    return order[first[of] + (turn // len(present)) % counts[of]]


def two_layers(width: int, hidden: int, out: int) -> nn.Sequential:
    """Linear, batch normalisation, ReLU, linear: [B, width] -> [B, out]."""
    return nn.Sequential(
        nn.Linear(width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, out)
    )
