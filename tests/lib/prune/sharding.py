"""One event on weights whose rows are with several processes: what test_sharded.py compares."""

import torch
from prune_kit import attach, events, optimizer_for, prune
from torch import nn

PLANS = {
    "global": {},
    "uniform": {"distribution": "uniform"},
    "erk": {"distribution": "erk"},
    "floor": {"floor": 0.2},
    "nm": {"distribution": "nm", "pattern": (2, 4)},
    "ties": {"method": "magnitude"},
    "ties_uniform": {"method": "magnitude", "distribution": "uniform"},
    "ties_floor": {"method": "magnitude", "floor": 0.2},
    "rms": {"variant": "bitter2"},
    "depth": {"variant": "bitter4"},
}


def weights_and_moments(name):
    """Of three layers; the first is small, so that a floor binds; in `ties` there are five values in all."""
    g = torch.Generator().manual_seed(7)
    shapes = [(8, 12), (6, 8, 3, 3), (10, 4)]
    found = []
    for i, shape in enumerate(shapes):
        w, m, v = (torch.randn(shape, generator=g) for _ in range(3))
        w = (w * 2).round().clamp(-4, 4) + 0.25 if "ties" in name else w * (0.01 if i == 0 else 1)
        found.append((w, m, v.abs() + 0.1))
    return found


def mask_of_event(build, name, rank=0, world=1, group=None):
    """Two events, as JSON has it: what is pruned of this process's rows, layer by layer, and what was recorded."""
    plan = dict(PLANS[name])
    method = plan.pop("method", "state")
    mine = []
    for tensors in weights_and_moments(name):
        n = len(tensors[0])
        cut = [0, n // 2 - 1, n] if world == 2 else [0, n]  # not the same number of rows each
        mine.append([t[cut[rank] : cut[rank + 1]].clone() for t in tensors])
    layers = [nn.Linear(1, 1), nn.Conv2d(1, 1, 1), nn.Linear(1, 1)]
    for layer, (w, _, _) in zip(layers, mine, strict=True):
        layer.weight = nn.Parameter(w)
    model = nn.Sequential(*layers)
    optimizer = build(optimizer_for(method), model)
    for layer, (_, m, v) in zip(layers, mine, strict=True):
        optimizer.state[layer.weight]["exp_avg"].copy_(m)
        optimizer.state[layer.weight]["exp_avg_sq"].copy_(v)
    optimizer.param_groups[0]["step"] = 1
    if group is not None:
        plan["group"] = group
    pruner, rows = attach(method, model, optimizer, events((8, 0.3), (9, 0.5)), **plan)
    prune(pruner, 0.3)
    prune(pruner, 0.5)
    told = [{k: r[k] for k in ("pruned", "prunable", "newly_pruned", "ties", "layers", "threshold")} for r in rows]
    return {"gone": [(~k).int().tolist() for k in pruner.keep.values()], "told": told}
