"""The processes that train one model together: one, or a torch.distributed group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

Value = TypeVar("Value")


@dataclass(frozen=True)
class ProcessGroup:
    """This process and its peers.

    Attributes:
        device: where this process computes.
        rank: its number, from 0.
        size: number of processes.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @classmethod
    def here(cls, device: str) -> ProcessGroup:
        """The group of this process, if torch.distributed is initialized; otherwise a group of one."""
        own = torch.device("cuda", torch.cuda.current_device()) if device == "cuda" else torch.device("cpu")
        if dist.is_available() and dist.is_initialized():
            return cls(own, dist.get_rank(), dist.get_world_size())
        return cls(own)

    @property
    def first(self) -> bool:
        """True for the process that writes results."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model, in DistributedDataParallel if the group has several processes."""
        return DistributedDataParallel(model) if self.size > 1 else model

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def maximum(self, tensor: Tensor) -> Tensor:
        """The elementwise maximum over all processes."""
        if self.size > 1:
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor

    def gather(self, value: Value) -> list[Value]:
        """The values of all processes, by rank."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values
