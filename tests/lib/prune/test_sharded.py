"""Several processes: data parallel ones agree on every mask by themselves; those that share the rows of each weight
choose together what one process with all rows would."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from house import PATIENCE_S
from sharding import PLANS, mask_of_event

from lib.prune.kernel.select import Alone, Group

WORKER = Path(__file__).parent / "sharded_worker.py"


class Threads(Alone):
    """Processes of a group, as threads of this one."""

    def __init__(self, rank, shared, barrier):
        self.rank, self.shared, self.barrier = rank, shared, barrier

    def gather(self, counts):
        self.barrier.wait(60)
        self.shared[self.rank] = counts.clone()
        self.barrier.wait(60)
        return [self.shared[r] for r in sorted(self.shared)]

    def sum(self, counts):
        return torch.stack(self.gather(counts)).sum(0)


def by_threads(build, name, world=2):
    shared, barrier, found = {}, threading.Barrier(world), {}

    def one(rank):
        try:
            found[rank] = mask_of_event(build, name, rank, world, Threads(rank, shared, barrier))
        except Exception:
            barrier.abort()
            raise

    threads = [threading.Thread(target=one, args=(r,)) for r in range(world)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return [found[r] for r in range(world)]


def agree(whole, parts):
    """Their rows one after the other are those of one process, and so is what each of them records."""
    assert [sum((p["gone"][i] for p in parts), []) for i in range(len(whole["gone"]))] == whole["gone"]
    assert all(p["told"] == whole["told"] for p in parts)
    assert 0 < whole["told"][0]["pruned"] < whole["told"][1]["pruned"]


@pytest.mark.parametrize("name", PLANS)
def test_rows_with_two_are_as_with_one(build, name):
    whole, parts = mask_of_event(build, name), by_threads(build, name)
    agree(whole, parts)
    if name.startswith("ties"):
        assert whole["told"][1]["ties"] > 20
    if name == "floor":
        assert max(whole["told"][1]["layers"].values()) == pytest.approx(0.8, abs=0.01), "it binds"


def processes(case, tmp_path):
    argv = [sys.executable, str(WORKER), case]
    running = [
        subprocess.Popen(
            [*argv, str(rank), str(tmp_path / "store")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]
    try:
        done = [p.communicate(timeout=PATIENCE_S) for p in running]
    finally:
        for p in running:
            p.kill()
    assert all(p.returncode == 0 for p in running), "\n".join(err for _, err in done)
    return [json.loads(out.splitlines()[-1]) for out, _ in done]


def test_a_group_of_one_process_is_as_none(build, tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        found = mask_of_event(build, "ties", group=Group())
    finally:
        torch.distributed.destroy_process_group()
    agree(mask_of_event(build, "ties"), [found])


@pytest.mark.slow
def test_rows_with_two_processes_of_torch_distributed(build, tmp_path):
    found = processes("rows", tmp_path)
    for name in found[0]:
        agree(json.loads(json.dumps(mask_of_event(build, name))), [f[name] for f in found])


@pytest.mark.slow
def test_data_parallel_masks_are_the_same_after_every_event(tmp_path):
    a, b = processes("data", tmp_path)
    assert a == b and len(a) == 5
    for method, told in a.items():
        assert len(set(told["masks"])) >= 5, method
        assert told["pruned"] == round(0.8 * 534)
