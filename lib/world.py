"""The processes that train one run together: one, or as many as DDP_NUM_GPUS says, started by torchrun.

All have the same config, draw the same random numbers and take an equal part of each batch. Gradients are averaged, so
weights, optimizer state and masks come out the same in each. The first process is the leader: it alone writes files.
"""

import os
import signal
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from lib import build
from lib.config import InputError
from lib.data.base import Share
from lib.hyper import Training
from lib.launch import follow, started


@dataclass(frozen=True)
class World:
    """device: this process's own. share: its part of the data."""

    device: torch.device
    share: Share = field(default_factory=Share)

    @property
    def size(self) -> int:
        return self.share.size

    @property
    def leader(self) -> bool:
        return self.share.rank == 0

    def add(self, t: Tensor) -> Tensor:
        """The sum over all processes, in the place of `t`."""
        if self.size > 1:
            dist.all_reduce(t)
        return t

    def mean(self, t: Tensor) -> Tensor:
        return self.add(t) / self.size

    def leaders(self, yes: bool) -> bool:
        """What the leader says, where clocks decide."""
        if self.size == 1:
            return yes
        said = torch.tensor(yes)
        dist.broadcast(said, 0)
        return bool(said)

    def least(self, value: float) -> float:
        """The least of what the processes bring."""
        if self.size == 1:
            return value
        found = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(found, dist.ReduceOp.MIN)
        return float(found)

    def wait(self) -> None:
        if self.size > 1:
            dist.all_reduce(torch.zeros(()))  # on the CPU: dist.barrier would take a GPU's queue

    def pids(self) -> list[int]:
        """Of all processes, the leader's first."""
        if self.size == 1:
            return [os.getpid()]
        found = [torch.zeros((), dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(found, torch.tensor(os.getpid()))
        return [int(pid) for pid in found]

    def same(self, what: str, digest: bytes) -> None:
        """Raise RuntimeError unless all processes bring the same digest: if not, what they train is not one run."""
        if self.size == 1:
            return
        mine = torch.frombuffer(bytearray(digest), dtype=torch.uint8)
        found = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(found, mine)
        odd = [i for i, other in enumerate(found) if not torch.equal(other, found[0])]
        if odd:
            raise RuntimeError(f"{what} of process {odd[0]} differ from those of the leader")

    def leave(self) -> None:
        """Take part no longer. Waits for what is under way, so only a process that has finished may leave: one that has
        failed ends (launch.end_process), which the others notice at once."""
        if self.size > 1:
            dist.destroy_process_group()


def join(training: Training) -> World:
    """This process's place. Raises InputError where the number of processes or of GPUs is not what the config says."""
    wanted, count = training.ddp_num_gpus, started()
    if count != wanted:
        raise InputError(f"DDP_NUM_GPUS={wanted}, and torchrun has started {count}: give --nproc-per-node={wanted}")
    if wanted > 1 and int(os.environ.get("WORLD_SIZE", wanted)) != wanted:
        raise InputError(f"DDP_NUM_GPUS={wanted}: torchrun has started processes on several nodes, and a run is on one")
    device = build.device(training.device)
    if wanted == 1:
        return World(device)
    rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    if device.type == "cuda":
        if torch.cuda.device_count() < wanted:
            raise InputError(f"DDP_NUM_GPUS={wanted}, and torch finds {torch.cuda.device_count()} GPUs here")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    follow(signal.SIGKILL)
    # Counts and digests are on the CPU, and gloo takes those; gradients go from GPU to GPU.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    return World(device, Share(rank, wanted))
