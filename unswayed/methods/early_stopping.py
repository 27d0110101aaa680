"""Stop where the given labels of held-out rows are predicted best."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from unswayed import losses
from unswayed.errors import UnswayedError
from unswayed.method import Batch, Data, Info, MakeNet, Method, Stage
from unswayed.methods.held_out import HeldOut


class EarlyStopping(Method):
    """One network, stopped by noisy validation labels: wrong labels are learnt last. The control of other selections.

    The share `hold_out` of the rows is never trained on. After every epoch the network predicts their GIVEN labels; the
    best network is the result. With `patience` training ends that many epochs after the best one; the learning rate
    still follows the whole plan. Wrong labels among the held-out rows lower all scores, but hardly their order. This is
    the noisy best teacher of arXiv 2012.04193, whose program holds out a tenth on CIFAR; our choice: a fifth, because
    smaller data judge less surely. Its student, trained anew on the teacher's predictions, is not here. `tuned` tries
    several weight decays beside; here `loss` may be any.
    """

    def __init__(
        self,
        make_net: MakeNet,
        info: Info,
        *,
        hold_out: float = 0.2,
        patience: int | None = None,
        loss: str = "ce",
        loss_settings: Mapping[str, Any] | None = None,
    ) -> None:
        if patience is not None and (not isinstance(patience, int) or isinstance(patience, bool) or patience < 1):
            raise UnswayedError("patience is 1 epoch or more, or none", got=repr(patience))
        super().__init__(make_net, info)
        self.held_out, self.patience = HeldOut(self.net, info.samples, hold_out), patience
        settings = {"classes": info.classes, "samples": info.samples, **(loss_settings or {})}
        self.criterion = losses.tailored(loss, **settings)

    def loss(self, batch: Batch) -> Tensor:
        """The loss of one batch plus, where the loss has one, its penalty on the network's parameters."""
        logits = self.net(batch.x)
        self.observe(logits, batch)
        loss: Tensor = self.criterion(logits, batch.y, batch.index, batch.weight)
        return loss + self.criterion.penalty(self.net.parameters())

    def plan(self, epochs: int) -> list[Stage]:
        """Epoch by epoch, because the network is judged between two of them."""
        plan = [Stage("train", 1, self.loss, partial(self._continue, epoch)) for epoch in range(epochs)]
        return [*plan, Stage("take the best", 0, self.loss, partial(self._finish, epochs))]

    def _continue(self, epoch: int, data: Data) -> Data | None:
        rest = self.held_out.rest(data)
        if self._over(epoch - 1):
            return None
        if epoch > 0:
            self.held_out.judge(self.net, data, self.dynamics, 0, epoch)
        return None if self._over(epoch) else rest

    def _finish(self, epochs: int, data: Data) -> None:
        if not self._over(epochs - 1):
            self.held_out.judge(self.net, data, self.dynamics, 0, epochs)
        self.held_out.net.put_back(self.net)

    def _over(self, epoch: int) -> bool:
        best = int(self.held_out.best[2])
        return self.patience is not None and best > 0 and epoch - best >= self.patience

    def chosen(self) -> dict[str, float]:
        """The number of epochs that the noisy validation labels favoured, and their accuracy."""
        score, _, epochs = self.held_out.best.tolist()
        return {"epochs": epochs, "validation_accuracy": score}
