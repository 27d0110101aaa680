"""What can be known of the labels before training: cheap out-of-fold probabilities."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from unswayed import auditing
from unswayed.auditing import Audit
from unswayed.experiment.arms import parse_arm
from unswayed.experiment.config import Config
from unswayed.experiment.run import build, train
from unswayed.experiment.task import Task
from unswayed.machine import Place
from unswayed.method import Method

MOST_COMPARED = 30_000  # rows up to which every row is compared with every other


def cheap_probabilities(config: Config, task: Task, place: Place) -> Tensor:
    """Probabilities of every training row by models that have not seen it, on the rows themselves: -> [N, K].

    Our choice: nearest neighbours (leave-one-out; up to 30,000 rows) and logistic regression (5 folds), of which the
    one is taken that better predicts the given labels. Both cost little beside training a network.
    """
    arms = ["logistic-regression"] if len(task.train) > MOST_COMPARED else ["knn", "logistic-regression"]
    found = [_judge(replace(config, arm=arm), task, place) for arm in arms]
    return max(found, key=lambda probs: float((probs.argmax(1) == task.train.given).float().mean()))


def _judge(config: Config, task: Task, place: Place) -> Tensor:
    method = build(config, parse_arm(config.arm), task)
    train(config, method, task, place)
    kept = method.dynamics
    if kept.probabilities.shape[1]:
        return (kept.probabilities / kept.seen.clamp_min(1)[:, None]).cpu()
    # too many to be kept: what is left over is spread evenly
    share = (kept.confidence / kept.seen.clamp_min(1)).cpu()[:, None]
    classes = len(task.dataset.classes)
    probs = ((1 - share) / (classes - 1)).expand(-1, classes).clone()
    return probs.scatter_(1, task.train.given[:, None], share)


def choose(task: Task, probs: Tensor) -> tuple[str, str]:
    """The arm that the estimated noise and the size of the data advise, and why, in a sentence: [N, K] -> words."""
    from unswayed.auditing.verdict import choose_method

    labels = task.train.given
    rate = auditing.audit(labels, probs=probs, classes=task.dataset.classes).noise.rate
    found: tuple[str, str] = choose_method(rate, len(labels), probs.shape[1], task.dataset.kind)
    return found


def look(task: Task, probs: Tensor, method: Method) -> Audit:
    """The audit of the training rows: out-of-fold probabilities [N, K], the rows themselves, and the training."""
    labels, x = task.train.given, task.train.x
    features = None
    if len(labels) <= MOST_COMPARED:
        features = x.rows(torch.arange(len(labels))).flatten(1).float()
    return auditing.audit(
        labels, probs=probs, features=features, dynamics=method.dynamics, classes=task.dataset.classes
    )
