"""A fitted classifier as an ONNX file that any runtime reads, compared with what the classifier itself says."""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unswayed.errors import UnswayedError
from unswayed.estimator.network import Probabilities
from unswayed.estimator.rows import Rows
from unswayed.methods.bars import NearestNeighbours
from unswayed.version import __version__
from unswayed.writing import replacing

INPUT, OUTPUT = "rows", "probabilities"
FARTHEST = 1e-4  # a difference of probabilities that single precision does not explain


def write_onnx(path: Path, rows: Rows, method: nn.Module, classes: list[str]) -> float:
    """Write rows -> probabilities as ONNX and run it: returns the largest difference from our own probabilities.

    Raises UnswayedError where a difference is above 1e-4, where a method cannot be exported, and without the extra
    `onnx`. Nothing is written then.
    """
    runtime = _runtime()
    if isinstance(method, NearestNeighbours):
        do = "save() keeps it; or take a method that ends in a network"
        raise UnswayedError("a classifier that ONNX can express", got="knn, whose model is the training rows", do=do)
    whole = Probabilities(copy.deepcopy(rows), copy.deepcopy(method).float()).eval()
    model = _convert(whole, _probes(rows, 3))
    for name, value in (("classes", json.dumps(classes)), ("made_by", f"unswayed {__version__}")):
        entry = model.metadata_props.add()
        entry.key, entry.value = name, value
    content = model.SerializeToString()
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    worst = max(_difference(session, rows, method, _probes(rows, count)) for count in (1, 2, 64))
    if not worst <= FARTHEST:
        do = "predict with the classifier itself, or try another head or net"
        raise UnswayedError(f"an ONNX file that agrees to {FARTHEST:g}", got=f"a difference of {worst:.2g}", do=do)
    with replacing(path) as file:
        file.write(content)
    return worst


def _runtime() -> Any:
    try:
        import onnx  # noqa: F401 - torch asks for it and for onnxscript
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        do = "pip install 'unswayed[onnx]'"
        raise UnswayedError("onnx, onnxscript and onnxruntime for ONNX files", got=error, do=do) from error
    return onnxruntime


def _convert(whole: nn.Module, example: Tensor) -> Any:
    with _quiet():
        try:
            shapes = ({0: torch.export.Dim("batch", min=1)},)
            program = torch.export.export(whole, (example,), dynamic_shapes=shapes, strict=False)
            made = torch.onnx.export(program, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], verbose=False)
        except Exception as error:  # the exporters have errors of many kinds
            do = "save() keeps every method; for ONNX try another method, head or net"
            raise UnswayedError("a classifier that ONNX can express", got=_reason(error), do=do) from error
    assert made is not None
    return made.model_proto


def _reason(error: BaseException) -> str:
    """The first line of what went wrong first."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def _probes(rows: Rows, count: int) -> Tensor:
    """Rows as they might come, drawn by a fixed seed: [count, *shape], single precision or bytes."""
    draw = torch.Generator().manual_seed(count)
    if rows.kind == "table":
        return (rows.mean + rows.std * torch.randn(count, *rows.shape, generator=draw, dtype=torch.float64)).float()
    if rows.whole:
        return torch.randint(0, 256, (count, *rows.shape), generator=draw, dtype=torch.uint8)
    return torch.rand(count, *rows.shape, generator=draw) * (1 if rows.fractions else 255)


def _difference(session: Any, rows: Rows, method: nn.Module, x: Tensor) -> float:
    found = session.run([OUTPUT], {INPUT: x.numpy()})[0]
    with torch.no_grad():
        ours = method(rows(x)).double().softmax(1).numpy()
    if found.shape != ours.shape:
        return float("inf")
    return float(np.abs(found - ours).max())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters log and warn of their own steps."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
