"""What each process of test_distributed.py runs: `torchrun world_worker.py CASE`; the leader prints one JSON line.

`torchrun world_worker.py fails RANK DIR` trains the run of a directory as a train.py does, but that process raises in
its third step, while the other waits for its gradients.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch  # noqa: E402
from torch import nn  # noqa: E402

from lib.hyper import Training  # noqa: E402
from lib.parallel import synchronised  # noqa: E402
from lib.world import join  # noqa: E402


def batchnorm(world):
    """Three steps of BatchNorm on this process's rows, and on all rows alone: the largest difference of each result."""
    torch.manual_seed(0)
    x, target = torch.randn(12, 5, 4, 4) * 3 + 7, torch.randn(12, 5, 4, 4)
    one, many = (nn.Sequential(nn.Conv2d(5, 5, 1), nn.BatchNorm2d(5)) for _ in range(2))
    many.load_state_dict(one.state_dict())
    whole = nn.parallel.DistributedDataParallel(synchronised(many, torch.device("cpu")))
    rows, found = world.share.rows(12), {}
    for _ in range(3):
        for model, at in ((one, slice(None)), (whole, rows)):
            out = model(x[at])
            (out - target[at]).square().mean().backward()
            found["out"] = out.detach() if model is one else (found["out"][rows] - out.detach()).abs().max().item()
    for (name, a), (_, b) in zip(one.named_parameters(), many.named_parameters(), strict=True):
        found[name] = (a.grad - b.grad).abs().max().item()
    for (name, a), (_, b) in zip(one.named_buffers(), many.named_buffers(), strict=True):
        found[name] = (a - b).abs().max().item()
    return found


def resnet(world):
    """Three steps of ResNet-18 in 64 bits, so that what differs is not rounding: the largest difference of a weight,
    and how far the weights have moved."""
    from resnet18.model import network

    torch.manual_seed(0)
    x, y = torch.randn(8, 3, 32, 32, dtype=torch.float64), torch.arange(8) % 4
    one, many = (network(4, "cifar").double() for _ in range(2))
    many.load_state_dict(one.state_dict())
    start = [p.detach().clone() for p in one.parameters()]
    whole = nn.parallel.DistributedDataParallel(synchronised(many, torch.device("cpu")))
    for model, at in ((one, slice(None)), (whole, world.share.rows(8))):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[at]), y[at]).backward()
            optimizer.step()
    pairs = [(a.detach(), b.detach()) for a, b in zip(one.parameters(), many.parameters(), strict=True)]
    return {
        "apart": max((a - b).abs().max().item() for a, b in pairs),
        "moved": max((a - b).abs().max().item() for (a, _), b in zip(pairs, start, strict=True)),
    }


def differ(world):
    """One process has other weights: all have to notice."""
    world.same("weights", hashlib.sha256(b"all").digest())
    try:
        world.same("weights", hashlib.sha256(bytes([world.share.rank])).digest())
    except RuntimeError as e:
        noticed = str(e)
    counted = world.add(torch.tensor(int(bool(noticed))))
    return {"noticed": noticed, "by": int(counted), "leads": world.leaders(world.leader), "pids": len({*world.pids()})}


def fails(rank, path):
    """The exit status of a train.py whose process `rank` raises."""
    from train_kit import Like

    from lib.main import main

    class Broken(Like):
        steps = 0

        def loss(self, *given):
            self.steps += 1
            if self.steps == 3 and os.environ["RANK"] == rank:
                raise RuntimeError(f"process {rank} is broken")
            return self.task.loss(*given)

    return main("lenet5", Broken, ["--run", path])


if __name__ == "__main__":
    if sys.argv[1] == "fails":
        sys.exit(fails(*sys.argv[2:]))
    here = join(Training(ddp_num_gpus=2, device="cpu"))
    result = {"batchnorm": batchnorm, "resnet": resnet, "differ": differ}[sys.argv[1]](here)
    if here.leader:
        print(json.dumps(result), flush=True)
    here.leave()
