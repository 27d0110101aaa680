"""The bars that any method on frozen features has to clear: logistic regression and nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unswayed import nets
from unswayed.data.columns import Column
from unswayed.errors import UnswayedError
from unswayed.losses.base import number
from unswayed.machine import Place
from unswayed.method import Data, Info, MakeNet, Method, Stage
from unswayed.prediction import predict
from unswayed.stats.neighbours import label_vote, nearest, neighbours, unit_rows

MOST_BYTES = 8 * 2**30  # of rows that are fitted as a whole
STRENGTHS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 3e-4, 1e-4, 1e-5)
SIZES = (1, 3, 5, 10, 20, 50, 100, 200)  # the numbers of neighbours that `knn` chooses from


class Fitted(nn.Module):
    """Tensors whose shapes and types are known only once they are fitted; a state dict brings its own."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names
        for name in names:
            self.register_buffer(name, torch.zeros(0))

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        for name in self.names:
            if (stored := state.get(prefix + name)) is not None:
                setattr(self, name, torch.empty_like(stored, device=self.get_buffer(name).device))
        super()._load_from_state_dict(state, prefix, *rest)


class Weights(Fitted):
    """What `scores` takes."""

    weight: Tensor  # [K, d]
    bias: Tensor  # [K]


class Known(Fitted):
    """Training rows as unit vectors, and their labels."""

    unit: Tensor  # [N, d]
    y: Tensor  # [N] or [N, K]


class Rows(nn.Module):
    """Stored rows as vectors: standardised and flattened [B, d]; n-grams of texts [B, 2, L] as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.normalise = nets.Normalize()

    def measure(self, column: Column) -> None:
        """Take mean and deviation of the training rows: one pair a feature, or one a channel of images and sounds."""
        size = 4 * len(column) * torch.Size(column.shape).numel()
        if size > MOST_BYTES:
            do = "train on features (--encoder, --features), smaller images (--size) or fewer rows (--limit)"
            raise UnswayedError(f"rows of at most {MOST_BYTES >> 30} GiB", got=f"{size / 2**30:.1f} GiB", do=do)
        if not is_ngrams(column.shape):
            self.normalise = nets.Normalize(nets.measure(column, "table" if len(column.shape) == 1 else "image"))

    def forward(self, x: Tensor) -> Tensor:
        """[B, *shape] -> [B, d] or [B, 2, L]."""
        if is_ngrams(x.shape[1:]):
            return x.float()
        rows: Tensor = self.normalise(x)
        return rows.flatten(1)


class LogisticRegression(Method):
    """Multinomial logistic regression on the rows themselves, by L-BFGS: a control, no paper for label noise.

    Neither body nor head takes part, nor the settings of the loop: rows are standardised, images and sounds flattened,
    texts are sparse rows of weighted n-grams. The objective is mean cross-entropy + `strength` / 2 * |W|^2 (the bias is
    free); scikit-learn's C is 1 / (N strength). Rows are dealt into `folds`. Of several strengths (1 to 1e-5) it takes
    the one after which the GIVEN labels of the first fold are predicted best, found from the strongest down until two
    in a row are worse. Every row is then judged by a model of the other folds, which makes `suspicion` one minus
    the out-of-fold probability of the given label, and the last model is fitted on all rows.
    """

    test_settings: ClassVar[dict[str, Any]] = {"strength": (0.1, 0.01), "folds": 2}

    choice: Tensor

    def __init__(
        self, make_net: MakeNet, info: Info, *, strength: float | Sequence[float] = STRENGTHS, folds: int = 5
    ) -> None:
        super().__init__(make_net, info)
        self.net = nn.Identity()
        several = (strength,) if isinstance(strength, int | float | str) else strength
        self.strengths = sorted((number("strength", value, least=0) for value in several), reverse=True)
        if not self.strengths:
            raise UnswayedError("one strength or more", got="none")
        self.folds, self.classes = int(number("folds", folds, least=2)), info.classes
        self.rows, self.linear = Rows(), Weights("weight", "bias")
        self.register_buffer("choice", torch.zeros(2))  # strength, accuracy on the first fold

    def plan(self, epochs: int) -> list[Stage]:
        """One look at the data; nothing is left for the loop to train."""
        return [Stage("fit", 1, self.loss, self.fit)]

    def fit(self, data: Data) -> None:
        """Choose the strength, judge every row by the others, and fit all rows."""
        self.rows.measure(data.x)
        rows = predict(self.rows, data.x, size=4096, place=Place(data.y.device))
        axes = principal_axes(rows)
        rows = rows if axes is None else rows @ axes
        fold = (torch.randperm(len(data)) % min(self.folds, len(data))).to(data.y.device)
        strength = self._choose(rows, data, fold == 0)
        for part in range(int(fold.max()) + 1):
            held = fold == part
            linear = fit_logistic(rows, data.y, data.weight * ~held, self.classes, strength)
            self.dynamics.update(scores(rows[held], *linear), data.y[held], data.index[held])
        weight, self.linear.bias = fit_logistic(rows, data.y, data.weight, self.classes, strength, start=linear)
        self.linear.weight = weight if axes is None else weight @ axes.T

    def _choose(self, rows: Tensor, data: Data, held: Tensor) -> float:
        labels = data.y if data.y.dim() == 1 else data.y.argmax(1)
        best, worse, linear = (-1.0, 0.0), 0, None
        for strength in self.strengths:
            linear = fit_logistic(rows, data.y, data.weight * ~held, self.classes, strength, start=linear)
            right = float((scores(rows[held], *linear).argmax(1) == labels[held]).float().mean())
            worse = worse + 1 if right < best[0] else 0  # the strongest may all name the largest class: go on
            best = max(best, (right, strength), key=lambda found: found[0])
            if worse == 2:
                break
        self.choice.copy_(torch.tensor([best[1], best[0]]))
        return best[1]

    def forward(self, x: Tensor) -> Tensor:
        """Stored rows [B, *shape] -> logits [B, K]."""
        if not self.linear.weight.numel():
            raise UnswayedError("a fitted logistic regression", got="one that has seen no data", do="call fit first")
        return scores(self.rows(x), self.linear.weight, self.linear.bias)

    def chosen(self) -> dict[str, float]:
        """The strength that the given labels of the first fold favoured, and how well these were predicted."""
        strength, right = self.choice.tolist()
        return {"strength": strength, "validation_accuracy": right}


class NearestNeighbours(Method):
    """A vote of the nearest training rows by cosine: a control, no paper for label noise.

    Neither body nor head takes part, nor the settings of the loop: rows are standardised, images and sounds flattened.
    A class has the probability (votes + 1 / K) / (k + 1): with one uniform vote more none is impossible. `k` none: the
    one of 1, 3, 5, 10, 20, 50, 100, 200 with which the other rows predict the GIVEN labels best (leave-one-out; of
    equals the largest). `suspicion` is one minus the leave-one-out probability of the given label. The training rows
    are part of the model, and N^2 d multiplications its cost. Texts need an encoder.
    """

    choice: Tensor

    def __init__(self, make_net: MakeNet, info: Info, *, k: int | None = None) -> None:
        super().__init__(make_net, info)
        self.net = nn.Identity()
        self.sizes = SIZES if k is None else (int(number("k", k, least=1)),)
        self.classes = info.classes
        self.rows, self.known = Rows(), Known("unit", "y")
        self.register_buffer("choice", torch.zeros(2))  # k, leave-one-out accuracy

    def plan(self, epochs: int) -> list[Stage]:
        """One look at the data; nothing is left for the loop to train."""
        return [Stage("fit", 1, self.loss, self.fit)]

    def fit(self, data: Data) -> None:
        """Keep the rows, and choose k by leaving each one out."""
        if is_ngrams(data.x.shape):
            raise UnswayedError("rows of numbers for knn", got="n-grams of texts", do="encode them: --encoder NAME")
        self.rows.measure(data.x)
        self.known.unit = unit_rows(predict(self.rows, data.x, size=4096, place=Place(data.y.device)))
        self.known.y = data.y.clone()
        labels = data.y if data.y.dim() == 1 else data.y.argmax(1)
        near = neighbours(self.known.unit, max(self.sizes)).rows
        best = (-1.0, 0)
        for k in sorted({min(k, near.shape[1]) for k in self.sizes}):
            right = float((self._vote(near[:, :k]).argmax(1) == labels).float().mean())
            best = max((right, k), best)
        self.choice.copy_(torch.tensor([best[1], best[0]]))
        self.dynamics.update(self._vote(near[:, : best[1]]), data.y, data.index)

    def _vote(self, near: Tensor) -> Tensor:
        k = near.shape[1]
        share = label_vote(self.known.y, near, self.classes)
        return ((share * k + 1 / self.classes) / (k + 1)).log()

    def forward(self, x: Tensor) -> Tensor:
        """Stored rows [B, *shape] -> log-probabilities [B, K]."""
        if not self.known.unit.numel():
            raise UnswayedError("nearest neighbours that were fitted", got="no training rows", do="call fit first")
        return self._vote(nearest(self.rows(x), self.known.unit, int(self.choice[0])).rows)

    def chosen(self) -> dict[str, float]:
        """The number of neighbours, and how well they predict the given labels of rows left out."""
        k, right = self.choice.tolist()
        return {"k": k, "leave_one_out_accuracy": right}


def is_ngrams(shape: Sequence[int]) -> bool:
    """Whether rows of this shape are weighted n-grams of texts: numbers and weights, [2, L].

    >>> is_ngrams((2, 500)), is_ngrams((2,)), is_ngrams((1, 28, 28))
    (True, False, False)
    """
    return len(shape) == 2 and shape[0] == 2


def principal_axes(rows: Tensor, *, most: int = 2048) -> Tensor | None:
    """Axes along which rows [N, d] are uncorrelated, [d, d]; None for n-grams, and beyond `most` columns (too dear)."""
    if rows.dim() != 2 or rows.shape[1] > most:
        return None
    axes: Tensor = torch.linalg.eigh(rows.T @ rows / len(rows)).eigenvectors
    return axes


def scores(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Logits: rows [N, d] or n-grams [N, 2, L], weight [K, d], bias [K] -> [N, K]. Unknown n-grams count nothing."""
    if rows.dim() == 2:
        return F.linear(rows, weight, bias)
    numbers = rows[:, 0].long()
    slots = torch.where(numbers < weight.shape[1], numbers, 0)
    given = rows[:, 1].to(weight.dtype).contiguous()
    table = weight.T.contiguous()
    return F.embedding_bag(slots, table, mode="sum", per_sample_weights=given, padding_idx=0) + bias


@torch.enable_grad()
def fit_logistic(
    rows: Tensor,
    y: Tensor,
    share: Tensor,
    classes: int,
    strength: float,
    *,
    start: tuple[Tensor, Tensor] | None = None,
    rounds: int = 200,
) -> tuple[Tensor, Tensor]:
    """Minimise mean cross-entropy + strength / 2 * |weight|^2: rows, labels [N] (or [N, K]) -> weight, bias.

    Rows count by `share` [N]; `start` may be the solution of a like problem: the optimum is one (for strength > 0).
    """
    width = rows.shape[1] if rows.dim() == 2 else int(rows[:, 0].max()) + 1
    weight, bias = start or (rows.new_zeros(classes, width), rows.new_zeros(classes))
    share = share / share.sum()
    # Columns scaled by the curvature that uniform predictions have there: where they are uncorrelated, as along the
    # principal axes, L-BFGS then needs a fifth of the rounds.
    curvature = share @ rows.square() / classes if rows.dim() == 2 else rows.new_ones(width)
    scale = (curvature + strength).clamp_min(1e-6).rsqrt()
    scaled, bias = (weight / scale).requires_grad_(), bias.clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [scaled, bias], max_iter=rounds, tolerance_grad=1e-5, tolerance_change=1e-8, line_search_fn="strong_wolfe"
    )

    def step() -> Tensor:
        optimiser.zero_grad()
        weight = scaled * scale
        loss = share @ F.cross_entropy(scores(rows, weight, bias), y, reduction="none")
        loss = loss + strength / 2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(step)  # type: ignore[no-untyped-call]
    return (scaled * scale).detach(), bias.detach()
