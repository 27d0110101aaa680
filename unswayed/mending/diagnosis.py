"""Which rows look clean, and which neurons the others have spoilt; without a true label."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn
from torch.nn import functional as F

from unswayed.data.columns import Column, TensorColumn
from unswayed.errors import UnswayedError
from unswayed.mending.anatomy import Anatomy, activations, device_of, dissect, head_of
from unswayed.prediction import evaluating
from unswayed.stats.attribution import attribution, label_attribution, sensitivity

Evidence = Literal["label", "prediction", "loss"]
EVIDENCE = ("label", "prediction", "loss")
PUBLISHED: dict[str, Any] = {  # settings of `diagnose` as we read the paper
    "evidence": "prediction",
    "log": False,
    "by_class": False,
    "dimensions": 10**6,
    "covariance": "diag",
    "scaled": False,
}
SMALLEST_GROUP = 20  # rows of a class that a mixture of its own needs
SMALLEST_SHARE = 0.1  # of every class's rows stay in the clean part, come what may


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a trained network: the rows that look clean, and the neurons in order of suspicion."""

    layer: str
    clean: Tensor  # [N] bool
    probability: Tensor  # [N] of being clean, in [0, 1]
    coefficient: Tensor  # [d] float64: least-squares weight of each neuron in telling the noisy part
    order: Tensor  # [d] neurons, the most sensitive first
    seconds: float
    notes: tuple[str, ...] = ()

    def worst(self, share: float) -> Tensor:
        """The most sensitive `share` of the neurons, rounded: [M]; at least one unless share is 0, and never all."""
        if not 0 <= share < 1:
            raise UnswayedError("share is a share of the neurons in [0, 1)", got=share, do="for example 40/256")
        if share == 0 or len(self.order) < 2:
            return self.order[:0]
        return self.order[: min(max(1, round(share * len(self.order))), len(self.order) - 1)]


@torch.no_grad()
def diagnose(
    model: nn.Module,
    x: Column | Tensor,
    y: Tensor,
    *,
    layer: str | None = None,
    evidence: Evidence = "loss",
    log: bool = True,
    by_class: bool = True,
    dimensions: int = 8,
    covariance: Literal["full", "diag"] = "full",
    scaled: bool = True,
    seed: int = 0,
    size: int = 512,
) -> Diagnosis:
    """Part the rows [N, ...] with given labels [N] in two, and rank the neurons of `layer` (see `dissect`).

    evidence    "loss": the loss at the given label, for wrong labels; "prediction": the published attribution, for
                corrupted inputs; "label": the attribution of that loss, which sees something of both.
    log         takes the logarithm of attributions. Our choice: they are products, with tails that no Gaussian fits.
    by_class, dimensions, covariance   see `find_clean`.
    scaled      rank neurons by |coefficient| times the neuron's standard deviation; False: by |coefficient|, as
                published, which favours neurons that hardly ever speak. Our choice: scaled, because pruning a neuron
                that says nothing changes nothing.
    The membership that the neurons are fitted to is one number a row: whether it is in the noisy part. `PUBLISHED` has
    the settings of the paper as we read it: the attribution, one mixture over all rows and all neurons, diagonal
    because hundreds of dimensions have no other, nothing logarithmic, neurons by |coefficient|.
    """
    if evidence not in EVIDENCE:
        raise UnswayedError(f"evidence is one of {', '.join(EVIDENCE)}", got=repr(evidence))
    column = TensorColumn(x) if isinstance(x, Tensor) else x
    if y.dim() != 1 or y.is_floating_point() or len(y) != len(column) or len(y) < 4:
        raise UnswayedError("4 rows or more with one class number each", got=f"{len(column)} and {list(y.shape)}")
    clock, device, y = time.perf_counter(), device_of(model), y.cpu()
    with evaluating(model):
        anatomy = dissect(model, layer, column.rows(torch.arange(min(8, len(column)))).to(device))
        z, loss, signs = _examine(model, anatomy, column, y, evidence, size)
    if log and evidence != "loss":
        signs = (signs + 1e-3 * signs[torch.isfinite(signs)].mean()).log()
    clean, probability, notes = find_clean(
        signs, loss, y, by_class=by_class, dimensions=dimensions, covariance=covariance, seed=seed
    )
    z = z.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    coefficient = sensitivity(z, (~clean).double())
    weight = coefficient.abs() * (z.double().std(0, correction=0) if scaled else 1)
    order = weight.argsort(descending=True, stable=True)
    return Diagnosis(anatomy.name, clean, probability, coefficient, order, time.perf_counter() - clock, notes)


def _examine(
    model: nn.Module, anatomy: Anatomy, column: Column, y: Tensor, evidence: Evidence, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Activations [N, d], losses at the given labels [N] and the evidence [N, d or 1], on the processor."""
    device, parts = device_of(model), []
    frozen = [p for p in model.parameters() if p.requires_grad]
    for p in frozen:  # so that only what lies behind the neurons is differentiated
        p.requires_grad_(False)
    try:
        for at in torch.split(torch.arange(len(y)), size):
            rows, labels = column.rows(at).to(device), y[at].to(device)
            z, logits = activations(model, anatomy, rows)
            loss = F.cross_entropy(logits.float(), labels, reduction="none")
            parts.append(
                (z.float().cpu(), loss.cpu(), _signs(z, head_of(model, anatomy, rows), labels, loss, evidence))
            )
    finally:
        for p in frozen:
            p.requires_grad_(True)
    z, loss, signs = (torch.cat(part) for part in zip(*parts, strict=True))
    return z, loss, signs


def _signs(z: Tensor, head: Callable[[Tensor], Tensor], y: Tensor, loss: Tensor, evidence: Evidence) -> Tensor:
    if evidence == "loss":
        return loss[:, None].cpu()
    found = attribution(z, head) if evidence == "prediction" else label_attribution(z, head, y)
    return found.float().cpu()


def find_clean(
    signs: Tensor,
    loss: Tensor,
    y: Tensor,
    *,
    by_class: bool = True,
    dimensions: int = 8,
    covariance: Literal["full", "diag"] = "full",
    seed: int = 0,
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """The rows that look clean: evidence [N, d], losses [N], labels [N] -> chosen [N] bool, probability [N], notes.

    Standardised evidence, two Gaussians (arXiv 2506.11615); the clean one is that with the lower mean loss at the given
    label, so no truth is needed. Our choices: the first `dimensions` principal components, because Gaussians in
    hundreds of dimensions are sure of everything; a mixture of its own for every given class of 20 rows or more
    (`by_class`), because over all rows the two clearest groups are groups of classes; every class keeps at least a
    tenth of its rows, the likeliest clean ones, because a network must not unlearn a class. Rows with evidence that is
    not finite are noisy.
    """
    probability, notes = torch.zeros(len(y), dtype=torch.float64), []
    fit = torch.isfinite(signs).all(1) & torch.isfinite(loss)
    if not bool(fit.any()):
        raise UnswayedError("a network whose outputs are finite", got="NaN or infinity on every row")
    whole = fit.nonzero()[:, 0]
    groups = [(fit & (y == label)).nonzero()[:, 0] for label in torch.unique(y)] if by_class else []
    groups = [at for at in groups if len(at) >= SMALLEST_GROUP]
    if sum(map(len, groups)) < len(whole):  # classes of a few rows are judged beside all others
        groups = [whole, *groups]
    for at in groups:
        probability[at] = _clean_probability(signs[at], loss[at], dimensions, covariance, seed)
    clean = probability > 0.5
    kept = _keep_every_class(clean, probability, loss.nan_to_num(nan=torch.inf), y)
    if added := int((kept & ~clean).sum()):
        notes.append(f"{added} rows that look noisy stay in the clean part, so that no class vanishes from it")
    if bool(kept.all()):
        notes.append("all rows look clean")
    return kept, probability, tuple(notes)


def _clean_probability(signs: Tensor, loss: Tensor, dimensions: int, covariance: str, seed: int) -> Tensor:
    """[N, d], [N] -> [N] in [0, 1]; rows that are all alike are clean."""
    values = _principal(_standardise(signs.double()), dimensions)
    if values.shape[1] == 0 or len(values) < 4 or len(torch.unique(values, dim=0)) < 2:
        return torch.ones(len(values), dtype=torch.float64)
    mixture = GaussianMixture(2, covariance_type=covariance, random_state=seed, reg_covar=1e-4, max_iter=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the best so far is good enough
        mixture.fit(values.numpy())
    member = torch.from_numpy(mixture.predict_proba(values.numpy()))
    mean = (member * loss.double()[:, None]).sum(0) / member.sum(0).clamp_min(1e-12)
    clean: Tensor = member[:, int(mean.argmin())]
    return clean


def _standardise(values: Tensor) -> Tensor:
    """Mean 0 and deviation 1 a column; constant columns are left out."""
    spread = values.std(0, correction=0)
    kept = spread > 1e-9 * values.abs().amax(0).clamp_min(1e-30)
    return (values[:, kept] - values[:, kept].mean(0)) / spread[kept]


def _principal(values: Tensor, dimensions: int) -> Tensor:
    """The first principal components of centred values, [N, d] -> [N, at most dimensions]."""
    if values.shape[1] <= dimensions:
        return values
    _, axes = torch.linalg.eigh(values.T @ values)
    principal: Tensor = values @ axes[:, -dimensions:].flip(1)
    return principal


def _keep_every_class(clean: Tensor, probability: Tensor, loss: Tensor, y: Tensor) -> Tensor:
    kept = clean.clone()
    for label in torch.unique(y):
        at = (y == label).nonzero()[:, 0]
        least = max(1, round(SMALLEST_SHARE * len(at)))
        if int(kept[at].sum()) < least:
            likely = loss[at].argsort(stable=True)
            likely = likely[probability[at][likely].argsort(descending=True, stable=True)]
            kept[at[likely[:least]]] = True
    return kept
