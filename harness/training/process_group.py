"""The processes that train one model together: one, or a torch.distributed group."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class ProcessGroup:
    """This process and its peers.

    Attributes:
        device: where this process computes.
        rank: its number.
        size: how many there are.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @classmethod
    def here(cls, device: str) -> ProcessGroup:
        """The group this process belongs to, if torch.distributed is initialized; otherwise it alone."""
        place = torch.device("cuda", torch.cuda.current_device()) if device == "cuda" else torch.device("cpu")
        if dist.is_available() and dist.is_initialized():
            return cls(place, dist.get_rank(), dist.get_world_size())
        return cls(place)

    @property
    def first(self) -> bool:
        """Whether this process reports and writes."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model, as DistributedDataParallel where there are peers."""
        return DistributedDataParallel(model) if self.size > 1 else model

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all workers."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def maximum(self, tensor: Tensor) -> Tensor:
        """The largest value over all workers, element by element."""
        if self.size > 1:
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor
