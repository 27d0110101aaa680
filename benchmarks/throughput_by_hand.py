"""What throughput.py compares with: a plain training loop as one writes it by hand, with a DataLoader."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

MEAN, STD = torch.tensor([0.491, 0.482, 0.447])[:, None, None], torch.tensor([0.247, 0.243, 0.262])[:, None, None]
Clock = Callable[[], float]


class Pictures(Dataset[tuple[Tensor, int]]):
    """Pictures [3, H, W] one by one: to floats, a random crop from a frame of 4, a random flip, normalised."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y.tolist()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        image = F.pad(self.x[i].float() / 255, (4, 4, 4, 4))
        top, left = torch.randint(0, 9, (2,)).tolist()
        image = image[:, top : top + self.x.shape[2], left : left + self.x.shape[3]]
        if torch.rand(()) < 0.5:
            image = image.flip(2)
        return (image - MEAN) / STD, self.y[i]


@dataclass(frozen=True)
class ByHand:
    """How the loop is written."""

    precision: str = "fp32"
    channels_last: bool = False
    workers: int = 0
    device: str = "cpu"
    loader: bool = True  # False: the same rows ready in memory, not augmented; what remains is the network

    def epochs(
        self, net: nn.Module, x: Tensor, y: Tensor, *, epochs: int, batch: int, clock: Clock = time.perf_counter
    ) -> list[float]:
        """Train the network and tell the seconds of each epoch."""
        device, cuda = torch.device(self.device), self.device.startswith("cuda")
        net = net.to(device).train()
        if self.channels_last:
            net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        loader = self._loader(x, y, batch, cuda)
        seconds = []
        for _ in range(epochs):
            start, total = clock(), torch.zeros((), device=device)
            for images, labels in loader:
                images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
                if self.channels_last:
                    images = images.to(memory_format=torch.channels_last)
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
                    loss = F.cross_entropy(net(images), labels)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += loss.detach()
            float(total)
            seconds.append(clock() - start)
        return seconds

    def _loader(self, x: Tensor, y: Tensor, batch: int, cuda: bool) -> DataLoader[tuple[Tensor, ...]]:
        if not self.loader:
            ready = (x.float() / 255 - MEAN) / STD
            rows = TensorDataset(ready, y)
            return [rows[i : i + batch] for i in range(0, len(rows), batch)]  # type: ignore[return-value]
        more = {"persistent_workers": True, "prefetch_factor": 4} if self.workers else {}
        return DataLoader(Pictures(x, y), batch, shuffle=True, num_workers=self.workers, pin_memory=cuda, **more)  # type: ignore[arg-type, return-value]
