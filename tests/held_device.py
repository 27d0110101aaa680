"""A pretended accelerator: its numbers lie in memory, and whoever makes the host wait for them is caught.

Tensors on it say that their device is "meta", so that code takes the ways it takes on a GPU. Whatever a GPU's host
would wait for raises `WaitedError` while `watched()`: a number read from the device, a shape that depends on numbers
(nonzero, masks as indices, unique), a copy back, and a copy there out of memory that is not pinned without
`non_blocking`. This is what torch.cuda.set_sync_debug_mode finds on a real one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

HERE = torch.device("meta")
aten = torch.ops.aten
WAITS = {
    aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten._unique2.default,
    aten.unique_dim.default, aten.unique_consecutive.default, aten.is_nonzero.default, aten.equal.default,
    aten.bincount.default, aten.repeat_interleave.Tensor,
}  # fmt: skip
INDEXING = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default}
watching = False


class WaitedError(AssertionError):
    """The host waited for the device."""


class Held(Tensor):
    """A tensor on the pretended device."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Held:
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            requires_grad=inner.requires_grad, device=HERE,
        )  # fmt: skip
        made.inner = inner
        return made  # type: ignore[no-any-return]

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Held({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(call, args, kwargs or {})


def run(call: Any, args: Any, kwargs: Any) -> Any:
    """The operation on what lies in memory; its results are where the arguments were, or where they are asked for."""
    held = any(isinstance(value, Held) for value in tree_leaves((args, kwargs)))
    target = None if kwargs.get("device") is None else torch.device(kwargs["device"])
    if watching:
        check(call, args, kwargs, target, held)
    inner = kwargs if target is None else {**kwargs, "device": torch.device("cpu")}
    made = call(*tree_map_only(Held, lambda h: h.inner, args), **tree_map_only(Held, lambda h: h.inner, inner))
    if not (held if target is None else target == HERE):
        return made
    wrapped = tree_map_only(Tensor, Held, made)
    return return_and_correct_aliasing(call, args, kwargs, wrapped) if held else wrapped


def check(call: Any, args: Any, kwargs: Any, target: torch.device | None, held: bool) -> None:
    """Raise for what a GPU's host would wait for."""
    if held and call in WAITS:
        raise WaitedError(f"{call} reads numbers of the device")
    masks = call in INDEXING and any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1])
    if held and masks:
        raise WaitedError(f"{call} by a mask")
    if call is aten.copy_.default:
        check_copy(args[1], args[0].device, len(args) > 2 and args[2])
    elif call is aten._to_copy.default and target is not None:
        check_copy(args[0], target, kwargs.get("non_blocking", False))


def check_copy(source: Tensor, target: torch.device, non_blocking: bool) -> None:
    if isinstance(source, Held) and target != HERE:
        raise WaitedError("a copy back from the device")
    if not isinstance(source, Held) and target == HERE and not non_blocking:
        raise WaitedError("a copy to the device that waits")


class Device(TorchDispatchMode):
    """Makes what is asked for on the pretended device."""

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(call, args, kwargs or {})


class Literals(TorchFunctionMode):
    """Catches numbers written in the program that are copied to the device: torch.tensor(2.0, device=...)."""

    def __torch_function__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if call is Tensor.tolist and isinstance(args[0], Held):
            return args[0].cpu().tolist()
        target = None if kwargs.get("device") is None else torch.device(kwargs["device"])
        if call in (torch.tensor, torch.as_tensor, torch.asarray) and target == HERE:
            if watching and not isinstance(args[0], Held):
                raise WaitedError(f"{call.__name__} copies a number to the device")
            return torch.as_tensor(args[0], dtype=kwargs.get("dtype")).to(HERE)
        if call is Tensor.new_tensor and isinstance(args[0], Held):
            if watching:
                raise WaitedError("new_tensor copies a number to the device")
            return torch.tensor(args[1], dtype=kwargs.get("dtype", args[0].dtype)).to(HERE)
        return call(*args, **kwargs)


@contextlib.contextmanager
def pretended() -> Iterator[None]:
    """The device is there."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # a parameter cannot become a Held one in place
    names = ("autocast", "is_autocast_enabled", "get_autocast_dtype")  # they know no precision of this device
    known = {name: getattr(torch, name) for name in names}

    def of_the_processor(call: Any) -> Any:
        return lambda kind, *args, **kwargs: call("cpu" if kind == "meta" else kind, *args, **kwargs)

    try:
        with contextlib.ExitStack() as patched:
            for name in names:
                patched.enter_context(mock.patch.object(torch, name, of_the_processor(known[name])))
            patched.enter_context(Literals())
            patched.enter_context(Device())
            yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Who waits is caught."""
    global watching
    before, watching = watching, True
    try:
        yield
    finally:
        watching = before


@contextlib.contextmanager
def unwatched() -> Iterator[None]:
    """Waiting is allowed: a declared place."""
    global watching
    before, watching = watching, False
    try:
        yield
    finally:
        watching = before
