"""The forms of the head that the study compares: masks, and the controls that a mask has to beat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from unswayed import heads, nets


@dataclass(frozen=True)
class Form:
    """A head on top of the body, or a change of the body or recipe in its place."""

    name: str
    head: str = "linear"
    rule: dict[str, Any] = field(default_factory=dict)
    dropout: float = 0.0  # of the features, before an ordinary head
    width: float = 1.0  # of the last layer before the head, as a share
    tune: bool = False  # choose the weight decay on noisy validation labels
    control: str | None = None  # the random mask that this form is compared with
    everywhere: bool = False  # the same mask on all linear layers of the body as well

    def build(self, in_features: int, classes: int, kan: bool = False) -> nn.Module:
        """The head, [B, in_features] -> [B, classes]."""
        name = {"linear": "kan", "edge-masked": "edge-masked-kan"}[self.head] if kan else self.head
        head = heads.create(name, in_features, classes, **self.rule)
        return nn.Sequential(nn.Dropout(self.dropout), head) if self.dropout else head

    def join(self, body: nets.Body, classes: int, kan: bool = False) -> nets.Net:
        """The network: `body` with this head, and with masked layers where the form says so."""
        net = nets.Net(body, self.build(body.features, classes, kan))
        if self.everywhere:
            layers = [name for name, layer in body.named_modules() if isinstance(layer, nn.Linear)]
            heads.mask_edges(body, layers, **self.rule)
        return net


def masked(name: str, *, control: str | None = None, everywhere: bool = False, **rule: Any) -> Form:
    """A form that masks."""
    return Form(name, head="edge-masked", rule=rule, control=control, everywhere=everywhere)


CORE = [
    Form("none"),
    masked("std", control="random"),  # as published: the best fifth by std, renewed every 10 steps
    masked("random", score="random"),
    masked("drawn", control="random every step", draw=True, every=1),
    masked("random every step", score="random", every=1),
    masked("agreement", control="random gradient", score="agreement", path="gradient", every=1),
    masked("random gradient", score="random", path="gradient", every=1),
    masked("drawn .5", control="random .5", draw=True, every=1, keep=0.5),
    masked("random .5", score="random", every=1, keep=0.5),
    Form("dropout .8", dropout=0.8),
    Form("dropout .5", dropout=0.5),
    Form("width .2", width=0.2),
    Form("tuned", tune=True),
]
MORE = [
    masked("obd", control="random", score="obd"),
    masked("mean abs", control="random", score="mean_abs"),
    masked("weight", control="random", score="weight"),
    masked("std rescaled", control="random rescaled", rescale=True),
    masked("random rescaled", score="random", rescale=True),
    masked("std at test", control="random at test", at_test=True),
    masked("random at test", score="random", at_test=True),
    masked("random once", score="random", every=10**9),  # a head that is merely smaller
    masked("std .05", control="random .05 every 10", keep=0.05),
    masked("random .05 every 10", score="random", keep=0.05),
    masked("std .5", control="random .5 every 10", keep=0.5),
    masked("random .5 every 10", score="random", keep=0.5),
    masked("drawn .05", control="random .05", draw=True, every=1, keep=0.05),
    masked("random .05", score="random", every=1, keep=0.05),
    masked("drawn warm", control="random every step", draw=True, every=1, temperature=3.0),
    masked("std by input", control="random by input", scope="input"),
    masked("random by input", score="random", scope="input"),
    masked("coins", control=None, score="random", per="sample", every=1),  # DropConnect
    masked("std everywhere", control="random everywhere", everywhere=True),
    masked("random everywhere", everywhere=True, score="random"),
    masked("std .5 everywhere", control="random .5 everywhere", everywhere=True, keep=0.5),
    masked("random .5 everywhere", everywhere=True, score="random", keep=0.5),
    masked("drawn coins", control="coins", draw=True, per="sample", every=1),
]

FORMS: dict[str, Form] = {form.name: form for form in [*CORE, *MORE]}
Make = Callable[[], nn.Module]
