"""The contracts, shipped: what our tests run over ours, `check_method(YourMethod)` runs over yours.

`METHOD`, `LOSS`, `HEAD` and `NOISE` list the single checks, for `pytest.mark.parametrize`.
"""

from __future__ import annotations

from unswayed.checks.heads import HEAD, check_head
from unswayed.checks.losses import LOSS, check_loss
from unswayed.checks.methods import METHOD, check_method
from unswayed.checks.noise import NOISE, check_noise

__all__ = ["HEAD", "LOSS", "METHOD", "NOISE", "check_head", "check_loss", "check_method", "check_noise"]
