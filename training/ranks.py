"""Where a training runs: the device, and the ranks of `torchrun` that share a step.

One process on a CPU needs none of it. With `torchrun` every rank reads its own clips, the gradients are averaged, and
what a statistic says of the batch (SIGReg) it says of all ranks' rows. One rank alone records, renders and writes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather

PATIENCE = timedelta(hours=12)  # the others wait while the first rank records and renders


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        device: what it computes on.
        rank: its number; 0 writes.
        count: how many there are.
    """

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def seeds(self, *seeds: int) -> list[int]:
        """Seeds of this rank's own dice; a single process has those that it would have had without ranks."""
        return [*seeds, self.rank] if self.count > 1 else list(seeds)

    def wait(self) -> None:
        """Go on when all are here."""
        if self.count > 1:
            dist.barrier()

    def average(self, parameters: Sequence[Tensor]) -> None:
        """Replace gradients by their mean over the ranks, in one message."""
        if self.count == 1:
            return
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(flat)
        flat /= self.count
        parts = torch.split(flat, [grad.numel() for grad in grads])
        for grad, part in zip(grads, parts, strict=True):
            grad.copy_(part.view_as(grad))

    def agree(self, model: nn.Module) -> None:
        """Make parameters and buffers those of the first rank."""
        if self.count > 1:
            for tensor in [*model.parameters(), *model.buffers()]:
                dist.broadcast(tensor.data, 0)


def join(device: str = "auto") -> Ranks:
    """Take part in what `torchrun` started; alone where it started nothing.

    Args:
        device: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1".

    Raises:
        ValueError: a GPU is asked for and there is none.
    """
    count, rank, local = (
        int(os.environ.get(name, default))
        for name, default in (("WORLD_SIZE", "1"), ("RANK", "0"), ("LOCAL_RANK", "0"))
    )
    gpu = torch.cuda.is_available()
    if device.startswith("cuda") and not gpu:
        raise ValueError(f"device {device!r}: this machine or this torch has no GPU; use --device cpu")
    chosen = torch.device(device if device != "auto" else "cuda" if gpu else "cpu")
    if chosen.type == "cuda" and count > 1:
        chosen = torch.device("cuda", local)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if count > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
    return Ranks(chosen, rank, count)


def gathered(rows: Tensor) -> Tensor:
    """All ranks' rows (equally many), through which gradients flow back to where they came from."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return rows
    return torch.cat(list(all_gather(rows.contiguous())))  # type: ignore[no-untyped-call]
