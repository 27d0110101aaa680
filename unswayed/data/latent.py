"""Frozen features of texts without a pre-trained network: latent semantic analysis. No label takes part."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from unswayed.data.columns import Column
from unswayed.errors import UnswayedError

AT_A_TIME = 4096


def latent_features(column: Column, *, width: int = 256, seed: int = 0) -> Tensor:
    """Weighted n-grams [2, L] -> the first `width` principal directions of their sparse rows, [N, width] float32.

    Latent semantic analysis (Deerwester et al. 1990) by a randomised singular value decomposition; fewer directions
    where there are fewer texts or n-grams. Raises UnswayedError for rows of another kind.

    >>> from unswayed.data.columns import TensorColumn
    >>> texts = torch.tensor([[[1.0, 2.0], [0.6, 0.8]], [[1.0, 2.0], [0.6, 0.8]], [[3.0, 0.0], [1.0, 0.0]]])
    >>> latent_features(TensorColumn(texts), width=2).abs().round()
    tensor([[1., 0.],
            [1., 0.],
            [0., 1.]])
    """
    from scipy.sparse import csr_matrix, vstack
    from sklearn.utils.extmath import randomized_svd

    if len(column.shape) != 2 or column.shape[0] != 2:
        raise UnswayedError("texts as weighted n-grams [2, L]", got=f"rows {list(column.shape)}")
    parts, grams = [], 1
    for at in torch.split(torch.arange(len(column)), AT_A_TIME):
        numbers, weights = column.rows(at).unbind(1)
        text, place = weights.nonzero().T
        parts.append((text.numpy(), numbers[text, place].long().numpy(), weights[text, place].numpy(), len(at)))
        grams = max(grams, int(numbers.max()) + 1)
    rows = vstack([csr_matrix((w, (t, n)), shape=(size, grams), dtype=np.float32) for t, n, w, size in parts])
    directions, lengths, _ = randomized_svd(rows, n_components=min(width, min(rows.shape)), random_state=seed)
    return torch.from_numpy(np.ascontiguousarray(directions * lengths, dtype=np.float32))
