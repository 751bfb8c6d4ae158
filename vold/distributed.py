"""The processes (ranks) of one training run: the number of this one, its share of the data, and sums over all.

Several processes are started by ``bench.matrix.ranks`` or by torchrun, which number them in the environment. They
communicate over gloo on CPUs and NCCL on GPUs. With a single process, every operation here is trivial.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
RENDEZVOUS = "VOLD_RENDEZVOUS"
"""Environment variable with the URL where the ranks meet. Without it they use MASTER_ADDR and MASTER_PORT."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process is number ``rank`` of ``world``. device: where the backend expects tensors."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files and reports progress."""
        return self.rank == 0

    def share(self, items: Sequence[T], name: str) -> Sequence[T]:
        """This rank's block of a sequence that is the same on all ranks. Block sizes differ by at most one item.

        Raises ValueError naming ``name`` if there are fewer items than ranks.
        """
        if len(items) < self.world:
            raise ValueError(f"{name} is {len(items)}, fewer than the {self.world} processes that share them")
        return items[self.rank * len(items) // self.world : (self.rank + 1) * len(items) // self.world]

    def gather(self, values: Tensor) -> Tensor:
        """The concatenation of all ranks' tensors [N_rank, ...] in the order of the ranks, the same on every rank."""
        if self.world == 1:
            return values
        sizes = self._sizes(len(values))
        padded = torch.zeros(max(sizes), *values.shape[1:], dtype=values.dtype, device=self.device)
        padded[: len(values)] = values.detach()
        # Backends cannot send booleans, so they are sent as bytes.
        sent = padded.view(torch.uint8) if values.dtype == torch.bool else padded
        received = [torch.empty_like(sent) for _ in sizes]
        torch.distributed.all_gather(received, sent)
        parts = [part[:size].view(values.dtype) for part, size in zip(received, sizes, strict=True)]
        return torch.cat(parts).to(values.device)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over ranks, added in the order of the ranks. It has the same bytes on every rank and in every run."""
        return self.gather(values[None]).sum(dim=0)

    def max(self, value: int) -> int:
        """The largest value of all ranks."""
        return max(self._sizes(value))

    def span(self, count: int) -> slice:
        """The slice of this rank's ``count`` items in the concatenation over all ranks."""
        before = sum(self._sizes(count)[: self.rank])
        return slice(before, before + count)

    def _sizes(self, count: int) -> list[int]:
        """The ``count`` of every rank."""
        if self.world == 1:
            return [count]
        counts = [torch.zeros(1, dtype=torch.long, device=self.device) for _ in range(self.world)]
        torch.distributed.all_gather(counts, torch.tensor([count], device=self.device))
        return [int(count) for count in counts]

    def barrier(self) -> None:
        """Wait until every rank has called this."""
        if self.world > 1:
            torch.distributed.barrier()


ALONE = Ranks()


def local_rank() -> int:
    """The number of this process on its machine, which is also the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def join(device: torch.device, always: bool = False) -> Ranks:
    """Connect to the other processes that the environment announces.

    always: whether to create a process group even for a single process. Raises ValueError if the environment announces
    several processes but not where they meet.
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
        url = os.environ.get(RENDEZVOUS, "env://")
        if url == "env://" and "MASTER_ADDR" not in os.environ:
            raise ValueError(
                f"WORLD_SIZE is {world}, but neither MASTER_ADDR nor {RENDEZVOUS} is set; start the processes with "
                "--processes or torchrun"
            )
        torch.distributed.init_process_group(backend, init_method=url, rank=rank, world_size=world)
    return Ranks(rank, world, device)
