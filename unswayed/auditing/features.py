"""How badly a label fits what its row looks like: scores from features `[N, d]`, by nearest neighbours and prototypes.

Take features of a network that these labels did not teach (a frozen encoder), or of one stopped early.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from unswayed.auditing.confident import lowest
from unswayed.errors import UnswayedError
from unswayed.stats.confident import joint_counts
from unswayed.stats.neighbours import Neighbours, label_vote, neighbours, prototype_agreement, unit_chunks
from unswayed.stats.predictions import Array, Groups, Rows, as_array, check_labels

Index = Literal["auto", "exact", "approximate"]
Weight = Literal["equal", "similarity"]
How = Literal["rank", "vote"]

MOST_EXACT = 100_000  # rows that "auto" compares one with another; twice as many take four times as long
ENTRIES = 2**20  # votes held at a time


@torch.no_grad()
def find_neighbours(features: Rows, k: int, *, index: Index = "auto", probes: int = 32) -> Neighbours:
    """The `k` other rows of highest cosine: `[N, d]` -> `[N, k]` cosines and positions, nearest first.

    index   "exact": every row is compared with every other; "approximate": by faiss, whose inverted file sorts the rows
            into about 4 sqrt(N) cells, 39 or more rows each, of which the `probes` nearest are searched; "auto":
            approximate past 100,000 rows. The index holds a copy of the features; files are read in chunks.

    A row of zeros has a cosine of 0 with all. Raises UnswayedError for features of another shape or with numbers that
    are not finite, and where faiss is needed and missing.

    >>> find_neighbours(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 2.0]]), k=1).rows[:, 0].tolist()
    [1, 0, 1]
    """
    if index not in get_args(Index):
        raise UnswayedError(f"index is one of {', '.join(get_args(Index))}", got=repr(index))
    if probes < 1 or k < 1:
        raise UnswayedError("one neighbour and one probe or more", got=f"{k} and {probes}")
    check_features(features)
    if index == "exact" or (index == "auto" and len(features) <= MOST_EXACT):
        whole = features if isinstance(features, Tensor) else torch.from_numpy(np.array(features, dtype=np.float32))
        return neighbours(whole, k)
    return _approximate(features, min(k, len(features) - 1), probes)


def knn_disagreement(
    labels: Rows, features: Rows | Neighbours, *, k: int = 20, index: Index = "auto", weight: Weight = "equal"
) -> Tensor:
    """The share of the `k` nearest other rows whose label is another one: `[N]`, `[N, d]` -> `[N]` in [0, 1].

    `features` may be neighbours found before; the nearest k of them count. weight "similarity": neighbours count by
    their cosine (0 below 0), which also parts rows that "equal" ties; a row without any similar one gets .5 (our
    choice). `index`: see `find_neighbours`. Raises UnswayedError for labels that are no whole numbers from 0, one a
    row, and for features that do not fit.

    >>> near = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2]])
    >>> knn_disagreement(torch.tensor([0, 0, 1]), near, k=2)
    tensor([0.5000, 0.5000, 1.0000])
    """
    if weight not in get_args(Weight):
        raise UnswayedError(f"weight is one of {', '.join(get_args(Weight))}", got=repr(weight))
    near, y = _known(labels, features, k, index)
    found = torch.empty(len(y))
    for start in range(0, len(y), ENTRIES // 16):
        rows = slice(start, start + ENTRIES // 16)
        other = (y[near.rows[rows]] != y[rows, None]).float()
        if weight == "equal":
            found[rows] = other.mean(1)
        else:
            weights = near.similarity[rows].clamp_min(0)
            total = weights.sum(1)
            found[rows] = torch.where(total > 0, (other * weights).sum(1) / total.clamp_min(1e-12), 0.5)
    return found


def simifeat(
    labels: Rows, features: Rows | Neighbours, *, k: int = 10, how: How = "rank", index: Index = "auto"
) -> Tensor:
    """SimiFeat's doubt of a label by its neighbours' votes (arXiv 2110.06283): `[N]`, `[N, d]` -> `[N]` in [0, 1].

    how   "rank": one minus the cosine of the votes and the label, v_y / |v|; "vote": (1 + max v_k over other classes
          - v_y) / 2, above .5 where the vote is for another class.

    Neighbours vote by their cosine, as in the authors' program. Our choice: a row has no vote on itself (the program
    gives it the first), and the neighbours are those in one set of features (the program repeats with augmented
    inputs). `features`, `index` and errors: see `knn_disagreement`.

    >>> near = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> simifeat(torch.tensor([0, 0, 1, 1, 1]), near, k=2).round(decimals=3)
    tensor([0.2930, 0.2930, 1.0000, 0.0000, 0.0000])
    """
    if how not in get_args(How):
        raise UnswayedError("how is 'rank' or 'vote'", got=repr(how))
    near, y = _known(labels, features, k, index)
    classes, found = int(y.max()) + 1, torch.empty(len(y))
    size = max(1, ENTRIES // classes)
    for start in range(0, len(y), size):
        rows = slice(start, start + size)
        votes = label_vote(y, near.rows[rows], classes, near.similarity[rows].clamp_min(0))
        own = votes.gather(1, y[rows, None])
        if how == "rank":
            found[rows] = 1 - own[:, 0] / votes.norm(dim=1)
        else:
            found[rows] = (1 + votes.scatter(1, y[rows, None], 0).amax(1) - own[:, 0]) / 2
    return found


def simifeat_issues(
    labels: Rows, features: Rows | Neighbours, *, k: int = 10, how: How = "rank", index: Index = "auto"
) -> Tensor:
    """Which labels SimiFeat takes for wrong (arXiv 2110.06283): `[N]`, `[N, d]` -> `[N]` bool.

    how   "vote": where the neighbours vote for another class; "rank": of each class as many rows as it is thought to
          have wrong labels, those with the highest `simifeat` score. Our choice: that number comes from confident
          counts on the votes (the paper solves for it by higher-order consensus, arXiv 2102.05291), which is exact
          about what it counts, needs no optimiser and is the same every time; it holds the votes, `[N, K]` float32.
    """
    near, y = _known(labels, features, k, index)
    score = simifeat(y, near, k=k, how=how).numpy()
    if how == "vote":
        return torch.from_numpy(score > 0.5)
    classes = int(y.max()) + 1
    votes = label_vote(y, near.rows, classes, near.similarity.clamp_min(0))
    right = joint_counts(y, votes, calibrate=True).diagonal().tolist()
    groups, found = Groups(y.numpy(), classes), np.zeros(len(y), dtype=bool)
    for label, kept in enumerate(right):
        rows = groups.rows(label)
        found[rows] = lowest(-score[rows], len(rows) - kept)
    return torch.from_numpy(found)


def prototype_cosine(labels: Rows, features: Rows) -> Tensor:
    """(1 - t) / 2, t the agreement of a row with its label's prototype (OSA, arXiv 2410.01944): -> `[N]` in [0, 1].

    t = s - b: s the cosine with the mean direction of all other rows of that label, b the mean over all pairs of a row
    and a class. One pass to sum and one to compare, whatever N. Errors: see `knn_disagreement`.

    >>> x = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    >>> prototype_cosine(torch.tensor([0, 0, 1, 1]), x)
    tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    check_features(features)
    y = _read(labels, len(features))
    if isinstance(features, Tensor):
        y = y.to(features.device)
    return (0.5 - prototype_agreement(features, y, int(y.max()) + 1) / 2).clamp(0, 1).cpu()


def check_features(features: Rows) -> None:
    """Raise UnswayedError for what is not two rows or more of finite floating point numbers `[N, d]`."""
    array = features if isinstance(features, Tensor) else as_array(features)
    shaped = array.ndim == 2 and len(array) > 1 and array.shape[1] > 0
    floating = array.is_floating_point() if isinstance(array, Tensor) else array.dtype.kind == "f"
    if not (shaped and floating):
        got = f"{array.dtype} of shape {list(array.shape)}"
        raise UnswayedError("features of two rows or more, floating point numbers [N, d]", got=got)
    size = max(1, ENTRIES // array.shape[1])
    for start in range(0, len(array), size):
        part: Any = array[start : start + size]
        good = part.isfinite().all(1) if isinstance(part, Tensor) else np.isfinite(part).all(1)
        if not bool(good.all()):
            row = start + int((~good).nonzero()[0][0])
            raise UnswayedError("features are finite", got=f"NaN or infinity in row {row}", do="leave such rows out")


def _known(labels: Rows, features: Rows | Neighbours, k: int, index: Index) -> tuple[Neighbours, Tensor]:
    """The k nearest neighbours of every row, and the labels."""
    rows = len(features.rows if isinstance(features, Neighbours) else features)
    y = _read(labels, rows)
    if isinstance(features, Neighbours):
        return Neighbours(features.similarity[:, :k].cpu(), features.rows[:, :k].cpu()), y
    near = find_neighbours(features, k, index=index)
    return Neighbours(near.similarity.cpu(), near.rows.cpu()), y


def _read(labels: Rows, rows: int) -> Tensor:
    return torch.from_numpy(check_labels(labels, rows, rows).astype(np.int64))  # more classes than rows are no classes


def _approximate(features: Rows, k: int, probes: int) -> Neighbours:
    """By an inverted file over the directions of all rows."""
    try:
        import faiss
    except ImportError as error:
        do = "pip install 'unswayed[index]', or index='exact' (which takes the square of the rows)"
        raise UnswayedError(f"faiss, to find neighbours among {len(features)} rows", got="none", do=do) from error
    many, width = features.shape
    cells = max(1, min(round(4 * many**0.5), many // 39))  # faiss wants 39 rows a cell to learn it by
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.spherical = True
    picked = np.sort(np.random.default_rng(0).choice(many, min(many, 40 * cells), replace=False))
    sample = features[torch.from_numpy(picked)] if isinstance(features, Tensor) else as_array(features)[picked]
    index.train(np.concatenate([unit.cpu().numpy() for _, unit in unit_chunks(sample)]))
    for _, unit in unit_chunks(features):
        index.add(unit.cpu().numpy())
    similarity, rows = torch.empty(many, k), torch.empty(many, k, dtype=torch.int64)
    for at, unit in unit_chunks(features):
        cosine, found = _search(index, unit.cpu().numpy(), k + 1, min(probes, cells), cells)
        here = np.arange(at.start, at.stop)[:, None]
        itself = found == here
        itself[~itself.any(1), -1] = True  # a row that did not find itself, among its doubles, leaves its last
        similarity[at] = torch.from_numpy(cosine[~itself].reshape(-1, k))
        rows[at] = torch.from_numpy(found[~itself].reshape(-1, k))
    return Neighbours(similarity, rows)


def _search(index: Any, unit: Array, k: int, probes: int, cells: int) -> tuple[Array, Array]:
    """The k nearest in the nearest cells; in all of them for a row that finds too few there."""
    index.nprobe = probes
    cosine, rows = index.search(unit, k)
    short = np.flatnonzero(rows[:, -1] < 0)
    if len(short):
        index.nprobe = cells
        cosine[short], rows[short] = index.search(unit[short], k)
    return cosine, rows
