"""Does a suspicion of .8 mean that 80 % of such labels are wrong? To be asked only where the truth is known."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from unswayed.errors import UnswayedError


class Reliability(NamedTuple):
    """A reliability diagram: bins of equal width, and how far what is said lies from what is so."""

    said: Tensor  # [B] mean suspicion; NaN in empty bins
    so: Tensor  # [B] share of labels that are wrong
    rows: Tensor  # [B] int64
    error: float  # expected calibration error: the mean distance of the two, weighted by rows

    def as_json(self) -> list[dict[str, Any]]:
        """The bins that have rows."""
        bins = zip(self.said.tolist(), self.so.tolist(), self.rows.tolist(), strict=True)
        return [{"said": round(said, 4), "so": round(so, 4), "rows": rows} for said, so, rows in bins if rows]

    def lines(self) -> str:
        """The diagram in words, a bin a line."""
        lines = [f"said {one['said']:.2f}  so {one['so']:.2f}  rows {one['rows']}" for one in self.as_json()]
        return "\n".join([*lines, f"expected calibration error {self.error:.4f}"])


def reliability(suspicion: Tensor, wrong: Tensor, *, bins: int = 15) -> Reliability:
    """The diagram of suspicions [N] against what is wrong [N] bool, in `bins` bins (arXiv 1706.04599).

    >>> found = reliability(torch.tensor([0.1, 0.1, 0.9, 0.9]), torch.tensor([False, False, True, False]), bins=2)
    >>> round(found.error, 4)
    0.25
    """
    if suspicion.shape != wrong.shape or suspicion.dim() != 1 or not len(wrong):
        raise UnswayedError("suspicions [N] and what is wrong [N]", got=f"{list(suspicion.shape)}, {list(wrong.shape)}")
    place = (suspicion.double() * bins).long().clamp(0, bins - 1)
    rows = torch.bincount(place, minlength=bins)
    said, so = (torch.bincount(place, weights=each.double(), minlength=bins) / rows for each in (suspicion, wrong))
    error = float(((said - so).abs().nan_to_num() * rows).sum() / len(wrong))
    return Reliability(said, so, rows, error)
