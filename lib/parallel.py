"""How a model trains: alone, as one of several replicas (DDP), or with its weights spread over the processes (FSDP2).

Each kind says which tensors the optimizer and the pruner see, what is called to train, and how whole tensors are had
for a checkpoint.
"""

import contextlib
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lib.prune.kernel.pruner import prunable
from lib.prune.kernel.select import Alone as OneGroup
from lib.prune.kernel.select import Group
from lib.world import World


class Single:
    """The model as it is. network: what is called to train. group: the processes that share weights.
    replicated: whether each process has them all."""

    group = OneGroup()
    replicated = True

    def __init__(self, model: nn.Module, compiled: bool = False):
        self.model = self.network = model
        self.compiles = compiled

    def compiled(self, loss: Callable) -> Callable:
        """The loss of a batch, with the network in it, compiled as one where that is wanted: a compiler that sees both
        need not keep all logits in 32 bits, and with DDP exchanges gradients while others are computed."""
        return torch.compile(loss) if self.compiles else loss

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        """What the optimizer moves."""
        return list(self.model.named_parameters())

    def prunable(self) -> list[tuple[str, nn.Parameter]]:
        return prunable(self.model)

    def quiet(self, last: bool):
        """A context for one go of several of a batch: gradients need not be exchanged before the last."""
        return contextlib.nullcontext()

    def collect(self) -> None:
        """After the last go: the gradients are where the optimizer looks for them."""

    def model_state(self) -> dict:
        return self.model.state_dict()

    def load_model(self, state: dict) -> None:
        self.model.load_state_dict(state)

    def optimizer_state(self, optimizer) -> dict:
        """Its state_dict, with whole tensors."""
        return optimizer.state_dict()

    def pruner_state(self, pruner) -> dict:
        return pruner.state_dict()


class Replicas(Single):
    """DistributedDataParallel: each process has the whole model. BatchNorm sees the whole batch."""

    def __init__(self, model: nn.Module, world: World, compiled: bool = False):
        super().__init__(synchronised(model, world.device), compiled)
        ids = [world.device] if world.device.type == "cuda" else None
        self.network = nn.parallel.DistributedDataParallel(self.model, device_ids=ids, gradient_as_bucket_view=True)

    def quiet(self, last):
        return contextlib.nullcontext() if last else self.network.no_sync()


class Shards(Single):
    """FSDP2: each process has consecutive rows of every tensor and of its optimizer state; a block's weights are
    brought together for its turn. They travel in 32 bits, so that the arithmetic is that of one device.

    The optimizer and the pruner see the local rows as plain tensors that share memory with FSDP's.
    """

    def __init__(self, model: nn.Module, blocks: list[nn.Module], world: World, compiled: bool = False):
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self.group, self.replicated = Group(), False
        mesh = init_device_mesh(world.device.type, (world.size,))
        for block in blocks:
            if compiled:  # each on its own: what brings its weights together is between them
                block.compile()
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        super().__init__(model)
        self.spread = dict(model.named_parameters())
        self.local = {name: nn.Parameter(p.to_local()) for name, p in self.spread.items()}

    def parameters(self):
        return list(self.local.items())

    def prunable(self):
        return [(name, self.local[name]) for name, _ in prunable(self.model)]

    def quiet(self, last):
        self.model.set_requires_gradient_sync(last)
        return contextlib.nullcontext()

    def collect(self):
        for name, p in self.spread.items():
            self.local[name].grad = None if p.grad is None else p.grad.to_local()
            p.grad = None

    def model_state(self):
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        return get_model_state_dict(self.model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))

    def load_model(self, state):
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

        set_model_state_dict(self.model, state, options=StateDictOptions(full_state_dict=True))

    def optimizer_state(self, optimizer):
        names = {p: name for name, p in self.local.items()}
        order = [names[p] for group in optimizer.param_groups for p in group["params"]]
        state = optimizer.state_dict()
        whole = {i: {k: self.full(order[i], v) for k, v in s.items()} for i, s in state["state"].items()}
        return {**state, "state": whole}

    def pruner_state(self, pruner):
        """What it keeps of each weight is in dicts by the weight's name."""
        state = pruner.state_dict()
        return {k: {n: self.full(n, t) for n, t in v.items()} if isinstance(v, dict) else v for k, v in state.items()}

    def full(self, name: str, rows):
        """The whole of a tensor of which each process has the rows that it has of this weight; on the CPU. What is no
        such tensor, as it is."""
        from torch.distributed.tensor import DTensor

        if not torch.is_tensor(rows) or rows.shape != self.local[name].shape:
            return rows
        p, boolean = self.spread[name], rows.dtype == torch.bool
        rows = rows.detach().to(torch.uint8) if boolean else rows.detach()
        spread = DTensor.from_local(
            rows, p.device_mesh, p.placements, run_check=False, shape=p.shape, stride=p.stride()
        )
        found = spread.full_tensor().cpu()
        return found.bool() if boolean else found


def make(model: nn.Module, world: World, blocks: list[nn.Module], compiled: bool) -> Single:
    """The kind that fits: blocks, where there are any, ask for sharding."""
    if world.size == 1:
        return Single(model, compiled)
    return Shards(model, blocks, world, compiled) if blocks else Replicas(model, world, compiled)


def synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    """Its BatchNorm layers over the batches of all processes: torch's own, which wants a GPU, or the one below."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm
    return model


class SyncBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d whose mean and variance are of equal batches in all processes (Ioffe and Szegedy 2015, algorithm 1).
    For a CPU, which torch's own refuses."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        size, n = dist.get_world_size(), x.numel() // x.shape[1]
        var, mean = torch.var_mean(x.to(self.weight.dtype), (0, 2, 3), correction=0)
        whole = Summed.apply(mean) / size
        var = Summed.apply(var + (mean - whole).square()) / size
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(whole, self.momentum)
            self.running_var.lerp_(var * (n * size / (n * size - 1)), self.momentum)
        scale = self.weight * (var + self.eps).rsqrt()
        shift = self.bias - whole * scale
        return (x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)).to(x.dtype)


class Summed(torch.autograd.Function):
    """The sum over all processes, forwards and backwards."""

    @staticmethod
    def forward(ctx, t):
        t = t.clone()
        dist.all_reduce(t)
        return t

    @staticmethod
    def backward(ctx, grad):
        grad = grad.clone()
        dist.all_reduce(grad)
        return grad
