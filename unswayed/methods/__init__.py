"""Ways of training, by name; `methods.add("mine", MyMethod)` registers your own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unswayed.registry import Registry, check_settings, keyword_settings

if TYPE_CHECKING:
    from unswayed.method import Info, MakeNet, Method

methods: Registry[type[Method]] = Registry("method")
methods.lazy("plain", "unswayed.methods.plain:Plain")
methods.lazy("logistic-regression", "unswayed.methods.bars:LogisticRegression")
methods.lazy("knn", "unswayed.methods.bars:NearestNeighbours")
methods.lazy("tuned", "unswayed.methods.tuned:Tuned")
methods.lazy("co-teaching", "unswayed.methods.co_teaching:CoTeaching")
methods.lazy("co-teaching+", "unswayed.methods.co_teaching:CoTeachingPlus")
methods.lazy("jocor", "unswayed.methods.jocor:JoCoR")
methods.lazy("correction", "unswayed.methods.correction:Correction")
methods.lazy("early-stopping", "unswayed.methods.early_stopping:EarlyStopping")
methods.lazy("reweighting", "unswayed.methods.reweighting:Reweighting")
methods.lazy("bilevel", "unswayed.methods.bilevel:Bilevel")
methods.lazy("cores-sieve", "unswayed.methods.cores:CORES")
methods.lazy("sop+", "unswayed.methods.sop_plus:SOPPlus")
methods.lazy("elr+", "unswayed.methods.elr_plus:ELRPlus")
methods.lazy("dividemix", "unswayed.methods.dividemix:DivideMix")
methods.lazy("mixup", "unswayed.methods.mixup:MixUp")
methods.lazy("unicon", "unswayed.methods.unicon:UNICON")
methods.lazy("pes", "unswayed.methods.pes:PES")
methods.lazy("disc", "unswayed.methods.disc:DISC")
methods.lazy("promix", "unswayed.methods.promix:ProMix")
methods.lazy("ido", "unswayed.methods.ido:IDO")
methods.lazy("osa", "unswayed.methods.osa:OSA")
methods.lazy("ssr", "unswayed.methods.ssr:SSR")
methods.lazy("sed", "unswayed.methods.sed:SED")
methods.lazy("turn", "unswayed.methods.turn:TURN")
methods.lazy("lccn", "unswayed.methods.lccn:LCCN")
methods.lazy("dividemix-lccn", "unswayed.methods.lccn:LCCNDivideMix")
methods.lazy("nmtune", "unswayed.methods.nmtune:NMTune")
methods.lazy("lnsr", "unswayed.methods.lnsr:LNSR")

add, get, names = methods.add, methods.get, methods.names


def settings_of(name: str) -> dict[str, Any]:
    """The settings of the method called `name` with their defaults."""
    return keyword_settings(get(name))


def create(name: str, make_net: MakeNet, info: Info, **settings: Any) -> Method:
    """The method called `name` for a task; a setting that it does not have raises."""
    check_settings(settings, settings_of(name), f"the method {name}")
    return get(name)(make_net, info, **settings)
