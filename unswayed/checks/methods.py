"""The contract that every method keeps. `check_method(YourMethod)` runs it all on toy data in seconds."""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from unswayed import heads
from unswayed.checkpoint import read_state
from unswayed.engine import Outcome, Record, evaluating, fit, predict
from unswayed.errors import UnswayedError
from unswayed.machine import Place
from unswayed.method import Data, Info, Method

MethodClass = type[Method]


class _FirstLayer(nn.Linear):
    """Reads rows of any number type, as the bodies of `unswayed.nets` do."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


class ToyNet(nn.Module):
    """Six numbers of any type -> 32 features -> logits, through any head."""

    def __init__(self, classes: int = 3, head: str = "linear") -> None:
        super().__init__()
        self.body = nn.Sequential(_FirstLayer(6, 32), nn.ReLU())
        self.head = heads.create(head, 32, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 6] -> [B, K]."""
        logits: Tensor = self.head(self.body(x))
        return logits


def toy(rows: int = 480, classes: int = 3, noise: float = 0.3) -> tuple[Data, Tensor, Tensor]:
    """Gaussian clouds with pair noise: the data with given labels, the true labels [N], which are wrong [N]."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(classes, (rows,), generator=generator)
    centres = torch.eye(max(classes, 6))[:classes, :6] * 4
    x = centres[truth] + torch.randn(rows, 6, generator=generator)
    wrong = torch.rand(rows, generator=generator) < noise
    return Data.of(x, torch.where(wrong, (truth + 1) % classes, truth)), truth, wrong


def make(method: MethodClass, samples: int = 480, classes: int = 3, head: str = "linear") -> Method:
    """A small instance of `method`, always from the same seed."""
    torch.manual_seed(0)
    return method(partial(ToyNet, classes, head), Info(samples, classes), **method.test_settings)


def train(method: Method, data: Data, epochs: int = 6, **settings: Any) -> Outcome:
    """Fit on the toy data."""
    return fit(method, data, epochs=epochs, batch=32, lr=0.1, **settings)


def bits(method: Method) -> dict[str, Tensor]:
    """A copy of all state."""
    return {name: value.clone() for name, value in method.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two states are equal to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def auroc(score: Tensor, positive: Tensor) -> float:
    """The probability that a positive row scores above a negative one, ties counted half."""
    above = (score[positive][:, None] > score[~positive][None]).double().mean()
    equal = (score[positive][:, None] == score[~positive][None]).double().mean()
    return float(above + equal / 2)


def check_settings_are_keywords(method: MethodClass) -> None:
    """Settings are keyword-only and all have defaults; `**settings` stands for those of the parent."""
    parameters = list(inspect.signature(method.__init__).parameters.values())[3:]
    for p in (p for p in parameters if p.kind is not p.VAR_KEYWORD):
        assert p.kind is p.KEYWORD_ONLY, f"setting {p.name} is not keyword-only"
        assert p.default is not p.empty, f"setting {p.name} has no default"


def check_docstring_names_source(method: MethodClass) -> None:
    """The docstring has a first line, and names its paper or says that there is none."""
    text = inspect.cleandoc(method.__doc__ or "")
    assert text.split("\n")[0].endswith("."), "the first line is not a sentence"
    assert re.search(r"arXiv \d{4}\.\d{4,5}|doi|control|No paper", text), "no source named"


def check_plan_is_pure(method: MethodClass) -> None:
    """Asking for the plan twice gives the same plan, changes nothing, and fits the budget."""
    made = make(method)
    before = bits(made)
    first, second = made.plan(6), made.plan(6)
    assert [(s.name, s.epochs) for s in first] == [(s.name, s.epochs) for s in second], "two plans differ"
    assert same(before, bits(made)), "the plan changed the method's state"
    longest = max(1.0, method.budget) * 2 * 6
    assert 0 < sum(s.epochs for s in first) <= longest, "the plan does not fit the epochs asked for"


def check_same_seed_same_bits(method: MethodClass) -> None:
    """Two runs with one seed agree to the bit; the state of other random numbers does not matter."""
    data, *_ = toy()
    first, second = make(method), make(method)
    train(first, data)
    torch.manual_seed(99)
    train(second, data)
    assert same(bits(first), bits(second)), "two runs with one seed differ"


def check_resume_is_exact(method: MethodClass) -> None:
    """Stopped in one of up to eight epochs and taken up again before its last step, a run ends in the same bits."""
    data, *_ = toy(240)
    whole = make(method, 240)
    records = train(whole, data, epochs=4).records

    class Killed(Exception):  # noqa: N818 - not an error
        pass

    for cut in sorted({len(records) * part // 8 for part in range(8)}):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "checkpoint.safetensors"

            def kill(record: Record, seen: list[Record], cut: int = cut) -> None:
                seen.append(record)
                if len(seen) > cut:
                    raise Killed

            try:
                stop = partial(kill, seen=[])
                train(make(method, 240), data, epochs=4, checkpoint=file, save_seconds=0.0, watch=[stop])
            except Killed:
                pass
            torch.manual_seed(5)
            again = make(method, 240)
            train(again, data, epochs=4, checkpoint=file, save_seconds=0.0, resume=True)
            assert same(bits(whole), bits(again)), f"differs when resumed in epoch {cut + 1}"


def check_evidence_follows_sample(method: MethodClass) -> None:
    """Rows stored in another order, the suspicion still lands on the wrong labels."""
    data, _, wrong = toy()
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(3))
    for rows in (data, data.rows(order)):
        made = make(method)
        train(made, rows, epochs=8)
        suspicion = made.suspicion()
        if suspicion is None:
            return
        assert suspicion.shape == (len(data),), "suspicion is not [N]"
        assert auroc(suspicion, wrong) > 0.7, "suspicion does not single out wrong labels"


def check_inputs_untouched(method: MethodClass) -> None:
    """Training changes neither rows nor labels."""
    data, *_ = toy()
    x, y, index = data.x.rows(data.index).clone(), data.y.clone(), data.index.clone()
    train(make(method), data)
    assert torch.equal(x, data.x.rows(data.index)), "training changed the rows"
    assert torch.equal(y, data.y), "training changed the labels"
    assert torch.equal(index, data.index), "training changed the sample numbers"


def check_evaluation_is_pure(method: MethodClass) -> None:
    """Evaluation gives [B, K] logits and changes no state."""
    data, *_ = toy()
    made = make(method)
    train(made, data, epochs=2)
    before = bits(made)
    assert predict(made, data.x).shape == (len(data), 3), "forward does not give [B, K]"
    made.suspicion()
    assert same(before, bits(made)), "evaluation changed the state"


def check_gradients_reach_everything(method: MethodClass) -> None:
    """Every parameter that some stage trains moves during training."""
    data, *_ = toy()
    made = make(method)
    before = {name: p.detach().clone() for name, p in made.named_parameters()}
    train(made, data, epochs=4, weight_decay=0.0)
    still = [name for name, p in made.named_parameters() if torch.equal(before[name], p)]
    assert not still, f"no gradient ever reached {', '.join(still)}"


def check_learns(method: MethodClass) -> None:
    """On the toy set: well above chance, and not 10 points below the same network under plain cross-entropy."""
    data, truth, _ = toy()
    made = make(method)
    train(made, data, epochs=10)
    reached = float((predict(made, data.x).argmax(1) == truth).float().mean())
    plain = _plain_accuracy(data, truth)
    assert reached > 0.6, f"reaches only {reached:.2f} on three clouds"
    assert reached >= plain - 0.1, f"reaches {reached:.2f}, plain cross-entropy {plain:.2f}"


def _plain_accuracy(data: Data, truth: Tensor) -> float:
    class Control(Method):
        def loss(self, batch: Any) -> Tensor:
            return nn.functional.cross_entropy(self.net(batch.x), batch.y)

    made = make(Control)
    train(made, data, epochs=10)
    return float((predict(made, data.x).argmax(1) == truth).float().mean())


def check_any_head(method: MethodClass) -> None:
    """An edge-masked head needs nothing from the method."""
    data, *_ = toy()
    made = make(method, head="edge-masked")
    assert _finite(train(made, data, epochs=2), made, data)


def check_hard_data(method: MethodClass) -> None:
    """Two classes, a class that never occurs, a dozen rows, one dominating class: finite losses and logits."""
    for rows, classes, labels in ((64, 2, None), (12, 3, [0, 1] * 6), (64, 3, [0] * 60 + [1, 1, 2, 2])):
        data, *_ = toy(rows, classes)
        if labels is not None:
            data = data.replace(y=torch.tensor(labels))
        made = make(method, rows, classes)
        assert _finite(train(made, data, epochs=3), made, data), f"not finite with {rows} rows of {classes} classes"


def check_half_precision(method: MethodClass) -> None:
    """Trains under bfloat16 autocast, and on every accelerator that is there."""
    places = [Place(torch.device("cpu"), "bf16")]
    places += [Place(torch.device("cuda"), p) for p in ("fp32", "bf16", "fp16")] if torch.cuda.is_available() else []
    for place in places:
        data, *_ = toy(120)
        made = make(method, 120)
        assert _finite(train(made, data, epochs=2, place=place), made, data), f"not finite at {place}"


def check_half_rows(method: MethodClass) -> None:
    """Rows stored as float16, as frozen features often are, train like any."""
    data, *_ = toy(64)
    halves = data.replace(x=data.x.rows(data.index).half())
    made = make(method, 64)
    assert _finite(train(made, halves, epochs=2), made, halves), "not finite on rows of float16"


def check_few_rows(method: MethodClass) -> None:
    """Four rows in all are enough to train on, and their numbers need not begin at 0."""
    data, *_ = toy(12)
    data = data.rows(torch.arange(4, 8))
    made = make(method, 12)
    assert _finite(train(made, data, epochs=2), made, data), "not finite with 4 rows"


def check_one_class(method: MethodClass) -> None:
    """Every row has the same label."""
    data, *_ = toy(64)
    data = data.replace(y=torch.ones_like(data.y))
    made = make(method, 64)
    assert _finite(train(made, data, epochs=3), made, data), "not finite with one class in the labels"


def check_clean_labels(method: MethodClass) -> None:
    """No label is wrong and the rows of a class are alike, so that nothing is left for a noisy part."""
    _, truth, _ = toy(64)
    data = Data.of(torch.eye(6)[truth] * 4, truth)
    made = make(method, 64)
    assert _finite(train(made, data, epochs=6), made, data), "not finite with clean labels"
    reached = float((predict(made, data.x).argmax(1) == truth).float().mean())
    assert reached > 0.6, f"reaches only {reached:.2f} where all labels are right"


def check_pure_noise(method: MethodClass) -> None:
    """Labels drawn by chance, and rows that are all alike: nothing singles out a clean part."""
    data, *_ = toy(64)
    y = torch.randint(3, (64,), generator=torch.Generator().manual_seed(1))
    for x in (data.x.rows(data.index), torch.ones(64, 6)):
        noise = Data.of(x, y)
        made = make(method, 64)
        assert _finite(train(made, noise, epochs=3), made, noise), "not finite where labels are pure noise"


def check_many_classes(method: MethodClass) -> None:
    """A thousand classes, half of them without a row: finite, and no tensor beyond rows x classes or classes^2."""
    data, *_ = toy(512, 1000)
    made = make(method, 512, 1000)
    with _Largest() as largest:  # type: ignore[no-untyped-call]
        outcome = train(made, data, epochs=2)
    assert _finite(outcome, made, data), "not finite with 1000 classes"
    assert largest.numbers <= 4 * 1000 * 1000, f"a tensor of {largest.numbers:,} numbers for 512 rows, 1000 classes"


class _Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers how many numbers the largest tensor held that was made meanwhile."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        # What `expand` gives counts by its storage: it takes no memory.
        if isinstance(made, Tensor):
            self.numbers = max(self.numbers, made.untyped_storage().nbytes() // made.element_size())
        return made


def check_not_finite(method: MethodClass) -> None:
    """A NaN that appears on the way ends the run with an error, or does no harm; what was saved is sound.

    From the saved state, a healthy run goes on to the bits that it would have had without the accident.
    """
    data, *_ = toy(64)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "checkpoint.safetensors"
        healthy, shown = make(method, 64), _Spoil(at=0)
        train(healthy, data, epochs=3, augment=dict.fromkeys(_VIEWS, shown))
        made, spoilt = make(method, 64), _Spoil(at=max(2, shown.calls * 2 // 3))
        spoil = dict.fromkeys(_VIEWS, spoilt)
        try:
            outcome = train(made, data, epochs=3, augment=spoil, checkpoint=file, save_seconds=0.0)
        except UnswayedError:
            saved, _ = read_state(file)
            broken = [name for name, value in saved.items() if value.is_floating_point() and value.isnan().any()]
            assert not broken, f"a NaN was saved in {', '.join(broken)}"
            again = make(method, 64)
            mended = dict.fromkeys(_VIEWS, _Spoil(at=0))
            train(again, data, epochs=3, augment=mended, checkpoint=file, save_seconds=0.0, resume=True)
            assert same(bits(healthy), bits(again)), "taken up from the last checkpoint it ends elsewhere"
        else:
            assert _finite(outcome, made, data), "a NaN in one row stayed in the method, and nothing was said"


_VIEWS = ("stored", "weak", "strong")


class _Spoil:
    """Shows rows as they are, but one number of the batch as NaN in call number `at`, from 1; 0: never."""

    def __init__(self, at: int) -> None:
        self.at, self.calls = at, 0

    def draw(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Nothing to draw."""
        return {}

    def apply(self, x: Tensor, params: Any) -> Tensor:
        """[B, ...] -> [B, ...]."""
        self.calls += 1
        if self.calls != self.at:
            return x
        x = x.clone()
        x[0, 0] = torch.nan
        return x


def _finite(outcome: Outcome, method: Method, data: Data) -> bool:
    with evaluating(method):
        logits, suspicion = predict(method, data.x), method.suspicion()
    finite = bool(logits.isfinite().all()) and all(r.loss == r.loss for r in outcome.records)
    return finite and (suspicion is None or bool(suspicion.isfinite().all()))


Check = Callable[[MethodClass], None]
METHOD: list[Check] = [value for name, value in list(globals().items()) if name.startswith("check_")]


def check_method(method: MethodClass) -> None:
    """Run the whole contract on a method class; the first broken rule raises an AssertionError that names it."""
    for check in METHOD:
        if check.__name__ in method.skip_checks:
            continue
        try:
            check(method)
        except Exception as error:
            raise AssertionError(f"{method.__name__} breaks {check.__name__}: {error}") from error
