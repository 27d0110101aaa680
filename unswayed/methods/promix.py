"""ProMix: use as many clean samples as can be found, and keep doubtful ones away from the head that chooses them."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from unswayed.losses import cross_entropy
from unswayed.losses.base import number
from unswayed.method import Batch, Data, Info, MakeNet, Method, Stage
from unswayed.methods.pair import mean_of_two
from unswayed.methods.semi import body_of, head_of, reads_ngrams, row_losses, twice, warm_up_epochs
from unswayed.stats.rows import register_rows
from unswayed.stats.semi import (
    can_mix,
    draw_share,
    mean_over,
    mix,
    negative_entropy,
    partners,
    ramp_up,
    sharpen,
    smallest_of_class,
    soft_labels,
)


class ProMix(Method):
    """Two networks that find ever more samples to trust, each with a second head for the doubtful (arXiv 2207.10276).

    Each network, on its own: trusts, per class, the `share` N / K samples of smallest loss (before every epoch), and
    those whose given label it predicts with p > `tau` (in every batch). In the last `guessing` of training, where
    fewer than `enough` of a batch are trusted, also the most confident samples on which both networks agree with
    p > `tau`, under the predicted label. Trusted samples are learnt on a weak view, a strong view and by MixUp, by the
    head and by a second one. Doubtful samples are learnt by the second head alone (and by the body), under sharpened
    guesses of the first. Against growing bias, logits are shifted by `debias` * log of the running mean prediction
    (apart for trusted and doubtful samples), and the guesses by -`debias_guess` times it.

    Settings, the authors' for CIFAR-10:

    - `share` .5 (.7 at 20 % wrong labels), `tau` .99 (CIFAR-100: .95), `guessing` 250 of 600 epochs, `enough` .9
    - `warmup` 10 of 600 epochs (30 for CIFAR-100), at most a third of the epochs here; `ramp` the first 50 of 600 (here
      at most a half), in which the strong view and MixUp gain weight 1, so that the warm-up of a short run does not use
      it up; `confidence_penalty` in the warm-up: for asymmetric noise only
    - `alpha` 4, `temperature` .5, `debias` and `debias_guess` .8 (CIFAR-100: .5), `bias_momentum` .9999
    - `doubt` .1, weight of the doubtful samples, which rises over twice the ramp. The code then drops it to 0
      (`keep_doubt=False`, the default because the published figures come from it); the paper keeps it
    - SGD .05, weight decay 5e-4, cosine, batches of 256

    Our choices: both heads share one MixUp of a batch (the code draws two, at twice the cost), and FMix, which cuts
    pictures along random masks, is left out, because other rows have no shape to cut. The second head is of the kind
    that `make_net` makes (the code: a linear layer). The networks warm up in orders of their own (the code: in one), so
    that they differ. Evaluation by the first heads' mean probability; the code: mean logits. Tables and features whose
    views agree learn the trusted samples twice.
    """

    selected: Tensor
    trusted_mean: Tensor
    doubted_mean: Tensor

    def __init__(
        self,
        make_net: MakeNet,
        info: Info,
        *,
        share: float = 0.5,
        tau: float = 0.99,
        guessing: float = 250 / 600,
        enough: float = 0.9,
        warmup: int = 10,
        ramp: int = 50,
        alpha: float = 4.0,
        temperature: float = 0.5,
        debias: float = 0.8,
        debias_guess: float = 0.8,
        bias_momentum: float = 0.9999,
        doubt: float = 0.1,
        keep_doubt: bool = False,
        confidence_penalty: bool = False,
    ) -> None:
        super().__init__(make_net, info)
        self.peer, self.classes, self.ngrams = make_net(), info.classes, reads_ngrams(self.net)
        self.second, self.peer_second = head_of(make_net()), head_of(make_net())
        self.share, self.enough = number("share", share, above=0, most=1), number("enough", enough, least=0, most=1)
        self.tau, self.guessing = number("tau", tau, least=0, below=1), number("guessing", guessing, least=0, most=1)
        self.warmup, self.ramp = int(number("warmup", warmup, least=1)), number("ramp", ramp, least=0)
        self.alpha, self.temperature = number("alpha", alpha, least=0), number("temperature", temperature, above=0)
        self.debias, self.debias_guess = number("debias", debias), number("debias_guess", debias_guess)
        self.bias_momentum = number("bias_momentum", bias_momentum, least=0, most=1)
        self.doubt, self.keep_doubt = number("doubt", doubt, least=0), keep_doubt
        self.confidence_penalty = confidence_penalty
        register_rows(self, "selected", torch.zeros(info.samples, 2, dtype=torch.int8))
        uniform = torch.full((2, info.classes), 1 / info.classes)  # the mean prediction of each network
        self.register_buffer("trusted_mean", uniform)
        self.register_buffer("doubted_mean", uniform.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Rows [B, ...] -> the logarithm of the two networks' mean probabilities, [B, K]."""
        return mean_of_two(self.net(x), self.peer(x))

    def plan(self, epochs: int) -> list[Stage]:
        """A warm-up, then one stage an epoch, since samples are chosen between epochs."""
        warm, views = warm_up_epochs(epochs, self.warmup), ("weak", "strong")
        # As in the code, the clock of the ramps starts with training and not after the warm-up.
        loss = partial(self.learn, min(self.ramp / epochs, 0.5))
        later = Stage("trusted and doubtful", 1, loss, self.select, views=views)
        return [Stage("warm-up", warm, self.warm_up, twice), *[later] * (epochs - warm)]

    def both(self) -> tuple[tuple[nn.Module, nn.Module], tuple[nn.Module, nn.Module]]:
        """Each network and its second head."""
        return (self.net, self.second), (self.peer, self.peer_second)

    def warm_up(self, first: Batch, second: Batch) -> Tensor:
        """The cross-entropy of each network on a batch of its own."""
        total = torch.zeros((), device=first.x.device)
        for (net, _), batch in zip(self.both(), (first, second), strict=True):
            logits = net(batch.x)
            self.observe(logits, batch)
            total = total + cross_entropy(logits, batch.y).mean()
            if self.confidence_penalty:
                total = total + negative_entropy(logits)
        return total

    def select(self, data: Data) -> Data:
        """Mark each network's samples of smallest loss, per class."""
        most = math.ceil(self.share * len(data) / self.classes)
        for side, (net, _) in enumerate(self.both()):
            chosen = smallest_of_class(row_losses(net, data), data.y, self.classes, most)
            self.selected[data.index, side] = chosen.to(torch.int8)
        return data

    def learn(self, ramp: float, batch: Batch) -> Tensor:
        """The sum of both networks' losses; `ramp` is the share of training over which weights rise."""
        weak, strong = batch.views
        given = soft_labels(batch.y, self.classes)
        features = [body_of(net)(torch.cat([weak, strong])) for net, _ in self.both()]
        logits = [head_of(net)(f) for (net, _), f in zip(self.both(), features, strict=True)]
        p = [one.detach()[: len(batch)].float().softmax(1) for one in logits]
        self.observe(mean_of_two(p[0].log(), p[1].log()), batch)
        guessed = self.agreed(p, batch.progress)
        total = torch.zeros((), device=weak.device)
        for side in (0, 1):
            labels = choose(
                given, p[side], self.selected[batch.index, side] > 0, guessed,
                tau=self.tau, enough=self.enough, bias=self.debias_guess * self.trusted_mean[side].log(),
            )  # fmt: skip
            guess = shift(logits[side].detach()[: len(batch)], -self.debias_guess * self.doubted_mean[side].log())
            target = sharpen(guess.softmax(1), self.temperature)
            total = total + self.side_loss(side, ramp, batch, features[side], logits[side], labels, target)
            self._follow(side, p[side], labels.trusted)
        return total

    def agreed(self, p: list[Tensor], progress: float) -> Tensor:
        """How sure both networks are of the class that they agree on, [B]; 0 where it does not count."""
        first, second = (one.max(1) for one in p)
        sure = (first.indices == second.indices) & (first.values > self.tau) & (second.values > self.tau)
        late = float(progress > 1 - self.guessing)
        return torch.where(sure, (first.values + second.values) / 2, 0.0) * late

    def side_loss(
        self, side: int, ramp: float, batch: Batch, features: Tensor, logits: Tensor, labels: Labels, guess: Tensor
    ) -> Tensor:
        """One network's loss: both heads on trusted samples, the second on doubtful ones too."""
        net, second = self.both()[side]
        rise = ramp_up(batch.progress, 0.0, ramp)
        doubt = self.doubt * ramp_up(batch.progress, 0.0, 2 * ramp)
        if batch.progress >= 2 * ramp and not self.keep_doubt:
            doubt = 0.0
        trusted_bias = self.debias * self.trusted_mean[side].log()
        mixed, targets = self.mixed(batch, labels)
        again = body_of(net)(mixed) if mixed is not None else None
        total = torch.zeros((), device=logits.device)
        for head, said in ((head_of(net), logits), (second, second(features))):
            weak, strong = (cross_entropy(part, labels.target) for part in shift(said, trusted_bias).chunk(2))
            total = total + mean_over(weak + rise * strong, labels.trusted)
            if again is not None:
                total = total + rise * mean_over(
                    cross_entropy(shift(head(again), trusted_bias), targets), labels.trusted
                )
        doubted_bias = self.debias * self.doubted_mean[side].log()
        weak, strong = (cross_entropy(part, guess) for part in shift(said, doubted_bias).chunk(2))
        return total + doubt * mean_over(weak + rise * strong, ~labels.trusted)

    def mixed(self, batch: Batch, labels: Labels) -> tuple[Tensor | None, Tensor]:
        """Every row mixed with a trusted one, and its label; no rows where they cannot be mixed."""
        if not can_mix(batch.x, self.ngrams):
            return None, labels.target
        share, other = draw_share(self.alpha), partners(labels.trusted)
        rows = mix(batch.x, batch.x[other], share, ngrams=self.ngrams)
        return rows, torch.lerp(labels.target[other], labels.target, share)

    @torch.no_grad()
    def _follow(self, side: int, p: Tensor, trusted: Tensor) -> None:
        for running, part in ((self.trusted_mean, trusted), (self.doubted_mean, ~trusted)):
            mean = (p * part[:, None]).sum(0) / part.sum().clamp_min(1)
            now = torch.lerp(mean, running[side], self.bias_momentum)
            running[side] = torch.where(part.any(), now, running[side])


class Labels(NamedTuple):
    """What one network makes of a batch."""

    target: Tensor  # [B, K]: the given label, or the predicted one where the given one is not trusted
    trusted: Tensor  # [B] bool


def shift(logits: Tensor, bias: Tensor) -> Tensor:
    """Logits moved by a bias of every class: [B, K], [K] -> [B, K] in single precision."""
    return logits.float() + bias


@torch.no_grad()
def choose(
    given: Tensor, p: Tensor, selected: Tensor, guessed: Tensor, *, tau: float, enough: float, bias: Tensor
) -> Labels:
    """Whom to trust in a batch, and under which label: given labels `[B, K]`, predictions `[B, K]` -> Labels.

    `selected` [B] are those of small loss; p > `tau` of the given label joins them. Where fewer than `enough` of the
    batch are trusted, the surest of those with `guessed` [B] above 0 fill up to it. `bias` [K] leaves the predicted
    label.
    """
    kept = selected | ((p * given).sum(1) > tau)
    predicted = one_hot((p.log() - bias).argmax(1), p.shape[1]).to(given.dtype)
    room = int(enough * len(p)) - kept.sum()
    score = guessed.masked_fill(kept, 0)
    rank = score.argsort(descending=True, stable=True).argsort()
    joining = (score > 0) & (rank < room)
    return Labels(torch.where(kept[:, None], given, predicted), kept | joining)
