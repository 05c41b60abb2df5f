"""What each process of test_sharded.py runs: `python sharded_worker.py CASE RANK STORE`; it prints one JSON line."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from conftest import make  # noqa: E402
from prune_kit import attach, digest, network, optimizer_for  # noqa: E402
from sharding import mask_of_event  # noqa: E402
from torch import nn  # noqa: E402

from lib.prune.base import PRUNERS, PruningOptions  # noqa: E402
from lib.prune.kernel.select import Group  # noqa: E402
from lib.prune.schedule import schedule  # noqa: E402


def data_parallel(method, rank):
    """30 steps of DistributedDataParallel on data of its own: the mask after every event, and the last weights."""
    torch.manual_seed(0)
    model = network()
    whole = nn.parallel.DistributedDataParallel(model)
    optimizer = make(optimizer_for(method), model)
    when = schedule(PruningOptions(), 0.8, 30, own=PRUNERS[method].schedule)
    pruner, rows = attach(method, model, optimizer, when, seed=3)
    g, found = torch.Generator().manual_seed(100 + rank), []
    for _ in range(30):
        x, y = torch.randn(8, 4, 5, 5, generator=g), torch.randint(3, (8,), generator=g)
        optimizer.zero_grad()
        nn.functional.cross_entropy(whole(x), y).backward()
        before = len(rows)
        optimizer.step()
        if len(rows) > before:
            found.append(digest(pruner))
    sums = [float(p.detach().double().sum()) for p in model.parameters()]
    return {"masks": found, "recorded": [r["mask"] for r in rows], "weights": sums, "pruned": rows[-1]["pruned"]}


def main():
    case, rank, store = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    if case == "rows":
        found = {name: mask_of_event(make, name, rank, 2, Group()) for name in ("global", "uniform", "floor", "ties")}
    else:
        found = {method: data_parallel(method, rank) for method in ("state", "magnitude", "movement", "rigl", "set")}
    print(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
