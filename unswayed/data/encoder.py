"""Frozen encoders: rows seen once by a model that others trained, kept as features for a small net."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unswayed.data.columns import TensorColumn
from unswayed.data.dataset import Dataset
from unswayed.data.store import cache_folder, content_key
from unswayed.errors import UnswayedError
from unswayed.writing import replacing

Encoder = Callable[[Any], Any]
Progress = Callable[[int, int], None]


def encode(
    rows: Sequence[Any] | Tensor, encoder: str | Encoder, *, batch: int = 64, progress: Progress | None = None
) -> Tensor:
    """Features of texts or images by a frozen encoder: N rows -> [N, d] float32 on the CPU, rows of a table.

    `encoder` is the name or folder of a sentence-transformers model (some of them take images of Pillow as well; needs
    `pip install 'unswayed[text]'`), or anything that maps a batch of rows to [B, d]: a module runs in evaluation
    mode, without gradients, on its own device. `progress(done, total)` is called after each batch. Raises
    UnswayedError where the encoder is missing, or its features are not finite numbers in the shape [B, d].

    >>> encode(["abc", "d"], lambda texts: torch.tensor([[len(text), 1.0] for text in texts]))
    tensor([[3., 1.],
            [1., 1.]])
    """
    if not len(rows):
        raise UnswayedError("at least one row to encode", got="none")
    if batch < 1:
        raise UnswayedError("a batch of 1 or more", got=batch)
    run = load_sentence_encoder(encoder) if isinstance(encoder, str) else encoder
    order = _by_length(rows)
    found: list[Tensor] = []
    with _frozen(run), torch.no_grad():
        for start in range(0, len(rows), batch):
            at = order[start : start + batch]
            found.append(_as_features(run(_pick(rows, at, run)), len(at)))
            if found[-1].shape[1] != found[0].shape[1]:
                came = f"{found[0].shape[1]} and then {found[-1].shape[1]}"
                raise UnswayedError("as many features for every batch", got=came, do="pool over the length of rows")
            if progress is not None:
                progress(start + len(at), len(rows))
    return torch.cat(found)[order.argsort()]


def load_sentence_encoder(name: str) -> Encoder:
    """A sentence-transformers model, by name or folder, as a function: texts -> [B, d]."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise UnswayedError(
            f"the package sentence-transformers for the encoder {name}",
            got=error,
            do="run pip install 'unswayed[text]'",
        ) from error
    try:
        model = SentenceTransformer(name)
    except (OSError, ValueError) as error:
        do = "give the folder of a downloaded model, or a name while the network is up"
        raise UnswayedError("a sentence-transformers model", got=f"{name}: {error}", do=do) from error
    return lambda texts: model.encode(list(texts), convert_to_tensor=True, show_progress_bar=False)


def encode_texts(
    dataset: Dataset,
    encoder: str,
    *,
    cache: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Dataset:
    """The same data set with the features of a frozen sentence encoder as its rows, scaled to mean 0 and deviation 1.

    The features are kept in the cache folder, because encoding takes long and depends on the texts alone; mean and
    deviation are those of the training rows. The names of the classes are encoded and scaled alike, for methods that
    ask how well a text and the name of its class agree. Raises for a data set of another kind than text.
    """
    if dataset.kind != "text":
        do = "leave out --encoder, or name the column of the texts with --input"
        raise UnswayedError("texts for a sentence encoder", got=f"rows of kind {dataset.kind}", do=do)
    parts = [part for part in (dataset.train, dataset.test) if part is not None]
    texts = [dataset.classes, *(part.source or () for part in parts)]
    names, *features = [_encoded(part, encoder, cache, progress) for part in texts]
    std, mean = torch.std_mean(features[0], 0)
    # An encoder may leave features all but constant: stretched to deviation 1 they would be nothing but rounding.
    names, *scaled = [(part - mean) * (std > 1e-6) / std.clamp_min(1e-6) for part in (names, *features)]
    train = replace(dataset.train, x=TensorColumn(scaled[0]))
    test = None if dataset.test is None else replace(dataset.test, x=TensorColumn(scaled[1]))
    note = f"texts encoded by {encoder} into {features[0].shape[1]} features"
    return replace(dataset, kind="table", train=train, test=test, notes=(*dataset.notes, note), names=names)


def _encoded(
    texts: Sequence[Any], encoder: str, cache: Path | None, progress: Callable[[str, int, int], None] | None
) -> Tensor:
    file = cache_folder(cache) / "encoded" / f"{content_key(encoder, list(texts))}.npy"
    if not file.exists():
        tell = None if progress is None else lambda done, total: progress("encoding texts", done, total)
        features = encode(texts, encoder, progress=tell).numpy()
        with replacing(file) as opened:
            np.save(opened, features, allow_pickle=False)
    return torch.from_numpy(np.load(file, allow_pickle=False))


@contextmanager
def _frozen(run: Encoder) -> Iterator[None]:
    """Evaluation mode for the time being, where the encoder is a module."""
    if not isinstance(run, nn.Module):
        yield
        return
    modes = [(module, module.training) for module in run.modules()]
    run.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _by_length(rows: Sequence[Any] | Tensor) -> Tensor:
    """Row numbers, short texts first: a batch is padded to its longest text, so texts of a length go together."""
    if isinstance(rows[0], str):
        return torch.tensor([len(text) for text in rows]).argsort(stable=True)
    return torch.arange(len(rows))


def _pick(rows: Sequence[Any] | Tensor, at: Tensor, run: Encoder) -> Any:
    """The rows numbered `at`; tensors go to where a module has its parameters."""
    if not isinstance(rows, Tensor):
        return [rows[i] for i in at.tolist()]
    part = rows[at.to(rows.device)]
    return part.to(next(run.parameters(), part).device) if isinstance(run, nn.Module) else part


def _as_features(found: Any, rows: int) -> Tensor:
    features = torch.from_numpy(found) if isinstance(found, np.ndarray) else found
    if not isinstance(features, Tensor) or features.dim() != 2 or len(features) != rows:
        came = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise UnswayedError(f"features [{rows}, d] from the encoder", got=came)
    features = features.detach().cpu().float()
    if not features.isfinite().all():
        raise UnswayedError("finite features from the encoder", got="NaN or infinity", do="use another precision")
    return features
