"""Frozen encoders: rows seen once by a model that others trained, kept as features for a small net."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor, nn

from unswayed.data.columns import Column
from unswayed.data.dataset import Dataset
from unswayed.data.features import with_rows
from unswayed.data.patches import patch_features
from unswayed.data.store import cache_folder, content_key
from unswayed.errors import UnswayedError
from unswayed.writing import explain, replacing

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


def encode_data(
    dataset: Dataset,
    encoder: str | Encoder,
    *,
    cache: str | Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Dataset:
    """The same data set with the features of a frozen encoder as its rows, scaled to mean 0 and deviation 1.

    `encoder` is "patches" (pictures and sounds: k-means on patches, without any download, see `patch_features`), the
    name or folder of a sentence-transformers model (texts, and pictures where the model takes them), or anything that
    maps a batch of texts, or of stored rows [B, ...], to [B, d]. Mean and deviation are those of the training rows.
    Features of a named encoder are kept in the cache folder, because encoding takes long and depends on the rows alone.
    Where it encodes texts, the names of the classes are encoded and scaled alike, for methods that ask how well a text
    and the name of its class agree.
    """
    known, names = [part for part in (dataset.train, dataset.test) if part is not None], None
    if encoder == "patches":
        features, what = _patch_features(dataset, cache, progress), "rows"
    elif not isinstance(encoder, str):
        tell = None if progress is None else lambda done, total: progress("encoding rows", done, total)
        rows = [part.source or () if dataset.kind == "text" else Stored(part.x) for part in known]
        features, what = [encode(part, encoder, progress=tell) for part in rows], "rows"
    elif dataset.kind in ("text", "image"):
        what = "texts" if dataset.kind == "text" else "pictures"
        seen = [part.source or () if dataset.kind == "text" else Pictures(part.x) for part in known]
        marks = [
            list(rows) if dataset.kind == "text" else fingerprint(part.x)
            for rows, part in zip(seen, known, strict=True)
        ]
        features = [
            _encoded(rows, mark, encoder, what, cache, progress) for rows, mark in zip(seen, marks, strict=True)
        ]
        if dataset.kind == "text":
            names = _encoded(dataset.classes, list(dataset.classes), encoder, "names of classes", cache, progress)
    else:
        do = "leave out --encoder, use --encoder patches for sounds, or name the column of the texts with --input"
        raise UnswayedError("texts or pictures for a named encoder", got=f"rows of kind {dataset.kind}", do=do)
    name = encoder if isinstance(encoder, str) else getattr(encoder, "__name__", type(encoder).__name__)
    return with_rows(dataset, features, f"{what} encoded by {name} into {features[0].shape[1]} features", names=names)


encode_texts = encode_data  # its name while it was for texts alone


class Stored(Sequence[Tensor]):
    """The stored rows of a column, one by one."""

    def __init__(self, column: Column) -> None:
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, i: Any) -> Any:
        return self.column.rows(torch.tensor([i]))[0]


class Pictures(Stored):
    """The same as pictures of Pillow, in colour, as models for pictures take them."""

    def __getitem__(self, i: Any) -> Any:
        pixels = super().__getitem__(i)
        return Image.fromarray(pixels.expand(3, -1, -1).permute(1, 2, 0).cpu().numpy())


def _patch_features(dataset: Dataset, cache: str | Path | None, progress: Any) -> list[Tensor]:
    if dataset.kind not in ("image", "audio"):
        do = "name a sentence encoder" if dataset.kind == "text" else "leave out --encoder: a table needs none"
        raise UnswayedError("pictures or sounds for --encoder patches", got=f"{dataset.kind} rows", do=do)
    parts = [part.x for part in (dataset.train, dataset.test) if part is not None]
    folder, key = cache_folder(cache) / "encoded", content_key("patches", 1, *map(fingerprint, parts))
    places = [folder / f"{key}-{number}.npy" for number in range(len(parts))]
    if not all(place.exists() for place in places):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f"{key}.lock"):  # of several processes one encodes, and the others wait for it
                _keep_patches(parts, places, progress)
        except OSError as error:
            raise explain(error, folder) from error
    return [torch.from_numpy(np.load(place, allow_pickle=False)) for place in places]


def _keep_patches(parts: list[Column], places: list[Path], progress: Any) -> None:
    if not all(place.exists() for place in places):
        tell = None if progress is None else lambda done, total: progress("encoding patches", done, total)
        for place, features in zip(places, patch_features(*parts, tell=tell), strict=False):
            if features is not None:
                _keep(features, place)


def fingerprint(column: Column) -> str:
    """A fingerprint of all rows."""
    parts = torch.split(torch.arange(len(column)), 1000)
    return content_key(column.shape, *(content_key(column.rows(at).cpu().numpy()) for at in parts))


def _encoded(
    rows: Sequence[Any], mark: object, encoder: str, what: str, cache: str | Path | None, progress: Any
) -> Tensor:
    file = cache_folder(cache) / "encoded" / f"{content_key(encoder, mark)}.npy"
    if not file.exists():
        tell = None if progress is None else lambda done, total: progress(f"encoding {what}", done, total)
        _keep(encode(rows, encoder, progress=tell), file)
    return torch.from_numpy(np.load(file, allow_pickle=False))


def _keep(features: Tensor, file: Path) -> None:
    with replacing(file) as opened:
        np.save(opened, features.numpy(), allow_pickle=False)


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
    if isinstance(rows, Stored) and not isinstance(rows, Pictures):
        rows, at = rows.column.rows(at), torch.arange(len(at))
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
