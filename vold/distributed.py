"""The processes of one training run: which of them this is, what is its share, and how they add up.

Everything is trivial for one process. Several are started by ``bench.matrix.ranks`` or by torchrun, which say in the
environment who is who; they talk over gloo on CPUs and NCCL on GPUs.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
RENDEZVOUS = "VOLD_RENDEZVOUS"
"""Environment variable with the URL where the ranks meet; without it MASTER_ADDR and MASTER_PORT say where."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process is ``rank`` of ``world``; ``device`` is where the backend takes tensors."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files and tells the progress."""
        return self.rank == 0

    def share(self, items: Sequence[T], what: str) -> Sequence[T]:
        """This rank's block of what all ranks hold alike; blocks differ by at most one item.

        Raises ValueError naming ``what`` when there are fewer items than ranks.
        """
        if len(items) < self.world:
            raise ValueError(f"{what} is {len(items)}, fewer than the {self.world} processes that share them")
        return items[self.rank * len(items) // self.world : (self.rank + 1) * len(items) // self.world]

    def gather(self, values: Tensor) -> Tensor:
        """The ranks' tensors [N_rank, ...] laid end to end in the order of the ranks; every rank gets the same."""
        if self.world == 1:
            return values
        sizes = self._sizes(len(values))
        padded = torch.zeros(max(sizes), *values.shape[1:], dtype=values.dtype, device=self.device)
        padded[: len(values)] = values.detach()
        # Backends know no boolean; bytes carry it.
        sent = padded.view(torch.uint8) if values.dtype == torch.bool else padded
        received = [torch.empty_like(sent) for _ in sizes]
        torch.distributed.all_gather(received, sent)
        parts = [part[:size].view(values.dtype) for part, size in zip(received, sizes, strict=True)]
        return torch.cat(parts).to(values.device)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over ranks, added in their order: the same bytes on every rank and in every run."""
        return self.gather(values[None]).sum(dim=0)

    def max(self, value: int) -> int:
        """The largest of the ranks' numbers."""
        return max(self._sizes(value))

    def span(self, count: int) -> slice:
        """Where ``count`` items of this rank lie among those of all ranks laid end to end."""
        before = sum(self._sizes(count)[: self.rank])
        return slice(before, before + count)

    def _sizes(self, count: int) -> list[int]:
        """Every rank's ``count``."""
        if self.world == 1:
            return [count]
        counts = [torch.zeros(1, dtype=torch.long, device=self.device) for _ in range(self.world)]
        torch.distributed.all_gather(counts, torch.tensor([count], device=self.device))
        return [int(count) for count in counts]

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.world > 1:
            torch.distributed.barrier()


ALONE = Ranks()


def local_rank() -> int:
    """The number of this process on its machine, which is also that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def join(device: torch.device, always: bool = False) -> Ranks:
    """Meet the other processes named by the environment; alone, a group is made only if ``always``.

    Raises ValueError when the environment names several processes but not where they meet.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 and not always:
        return ALONE
    if not torch.distributed.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        if world == 1:
            store = torch.distributed.HashStore()  # type: ignore[reportPrivateImportUsage]
            torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
            return ALONE
        where = os.environ.get(RENDEZVOUS, "env://")
        if where == "env://" and "MASTER_ADDR" not in os.environ:
            raise ValueError(f"WORLD_SIZE is {world}, but neither MASTER_ADDR nor {RENDEZVOUS} says where to meet")
        torch.distributed.init_process_group(backend, init_method=where, rank=rank, world_size=world)
    return Ranks(rank, world, device)
