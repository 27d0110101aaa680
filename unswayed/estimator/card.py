"""A model card: what is known of a fitted classifier, as Markdown with the metadata that Hugging Face reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unswayed.version import __version__
from unswayed.writing import write_text

MOST_CLASSES = 20  # that are listed, and whose noise matrix is shown

_HEAD = """---
library_name: unswayed
pipeline_tag: {task}
tags:
- unswayed
- noisy-labels
- {task}
---

# {name}

A classifier of {kind} into {classes} classes, trained by unswayed on labels of which some may be wrong.
"""

_USE = """## Use

```python
from unswayed import RobustClassifier

classifier = RobustClassifier.load("FILE")  # as written by classifier.save("FILE")
classifier.predict_proba(X)  # X of shape {shape}
```

Intended: to predict one of the classes above for rows of the same kind and origin as the training rows, and to find
training labels that a person should look at.

## Limits

- Every row gets one of these classes, also one that is unlike all training rows.
- No test on clean labels is part of this card: none was made when the classifier was fitted.
- The probabilities were not calibrated on clean labels.
- Estimates of wrong labels come from the noisy data alone; noise that depends on the row can mislead them.
- Nobody has checked here whether the classifier treats groups of people alike.
"""


def write_card(path: Path, fitted: Any, name: str, data: str | None) -> None:
    """Write the card of a fitted `RobustClassifier`."""
    image = fitted._rows.kind == "image"
    head = _HEAD.format(
        task="image-classification" if image else "tabular-classification",
        name=_line(name),
        kind="images" if image else "rows of a table",
        classes=len(fitted.classes_),
    )
    shape = f"[N, {', '.join(map(str, fitted._rows.shape))}]"
    parts = [head, _data(fitted, shape, data), _training(fitted), _noise(fitted), _USE.format(shape=shape)]
    versions = ", ".join(f"{name} {version}" for name, version in fitted._versions.items())
    parts.append(f"## Versions\n\nFitted with {versions}. This card was written by unswayed {__version__}.\n")
    write_text(path, "\n".join(parts))


def _data(fitted: Any, shape: str, data: str | None) -> str:
    origin = _line(data) if data else "Where the data come from was not said."
    lines = [f"## Data\n\n{origin}\n", f"{len(fitted.suspicion_)} training rows of shape {shape}."]
    names = getattr(fitted, "feature_names_in_", None)
    if names is not None:
        lines.append(f"Columns: {_listed(names)}.")
    counts = zip(fitted.classes_.tolist(), fitted.class_count_.tolist(), strict=True)
    lines.append("Given labels: " + _listed(f"{name} ({count} rows)" for name, count in counts) + ".\n")
    return "\n".join(lines)


def _training(fitted: Any) -> str:
    settings = asdict(fitted._run.training(fitted._rows.kind, len(fitted.suspicion_)))
    settings.pop("save_seconds")
    rows = [("method", fitted.method_), *settings.items(), *((f"chosen: {k}", v) for k, v in fitted.chosen_.items())]
    return f"""## Training

Trained as `{fitted.method_}`: {_line(fitted.reason_)}

{_table(("setting", "value"), rows)}
Accuracy on the training rows against their given labels: {fitted.training_accuracy_:.1%}. This is no estimate of the
accuracy on new rows: these rows were learned from, and some of their labels may be wrong.
"""


def _noise(fitted: Any) -> str:
    low_high = fitted.noise_interval_
    span = (
        f" (95 % interval {low_high[0]:.1%} to {low_high[1]:.1%})" if low_high else " (no interval: no audit was made)"
    )
    source = (
        "an audit in which every row is judged by the others" if low_high else "the method's own beliefs in training"
    )
    lines = ["## Wrong labels\n"]
    lines.append(f"Estimated share of wrong training labels: {fitted.noise_rate_:.1%}{span}, by {source}.")
    if low_high:  # without an audit, suspicion has no unit
        lines.append(f"{int((fitted.suspicion_ > 0.5).sum())} labels are more probably wrong than right.")
    lines.append("")
    if len(fitted.classes_) <= MOST_CLASSES:
        names = [str(name) for name in fitted.classes_.tolist()]
        rows = [
            (name, *(f"{value:.3f}" for value in row))
            for name, row in zip(names, fitted.noise_matrix_.tolist(), strict=True)
        ]
        lines += ["Estimated probability of each given label (column) for each true class (row):\n"]
        lines += [_table(("true class", *names), rows)]
    return "\n".join(lines)


def _table(head: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(_cell(value) for value in line) + " |\n" for line in lines)


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _listed(values: Iterable[Any]) -> str:
    values = [_line(value) for value in values]
    more = f" and {len(values) - MOST_CLASSES} more" if len(values) > MOST_CLASSES else ""
    return ", ".join(values[:MOST_CLASSES]) + more


def _line(value: Any) -> str:
    """One line of text that cannot start a heading, a list or a second document."""
    text = " ".join(str(value).split())
    return text if text[:1] not in "#->*+=`" else f"\\{text}"
