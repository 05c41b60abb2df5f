"""Time the core against torch's own: update, step, selection, mask update, compilation, share of a training step.

Everything is a ratio of arms that take turns in one process, on the shapes of GPT-2 124M, 70% of the matrices pruned.
25 turns at least, five where one takes over ten seconds, three of a compilation; the minimum decides, the median is
printed beside it. Prints a table, writes bench_results/core.json, and exits with 1 where a reach is missed.
"""

import argparse
import importlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lib  # noqa: E402

lib.let_threads_sleep()

import torch  # noqa: E402
from torch import nn  # noqa: E402

from lib import provenance  # noqa: E402
from lib.files import write_json  # noqa: E402
from lib.optim.base import Hyper, decay_groups  # noqa: E402
from lib.optim.kernel.adam import Adam  # noqa: E402
from lib.optim.kernel.spam import Spam  # noqa: E402
from lib.prune.base import PRUNERS  # noqa: E402
from lib.prune.importance import IMPORTANCE, State  # noqa: E402
from lib.prune.kernel.mask import CHUNK  # noqa: E402
from lib.prune.kernel.pruner import Plan, prunable  # noqa: E402
from lib.prune.kernel.select import find  # noqa: E402
from lib.prune.schedule import Schedule  # noqa: E402
from lib.rundir import ROOT  # noqa: E402
from lib.schema import SCHEMA  # noqa: E402

MIB = 1 << 20
SPARSITY = 0.7
BLOCK = [(768,), (768,), (2304, 768), (2304,), (768, 768), (768,), (768,), (768,), (3072, 768), (3072,), (768, 3072)]
SHAPES = [(50304, 768), (1024, 768), *[*BLOCK, (768,)] * 12, (768,), (768,)]
LATER = 1200  # a step on which SPAM clips and does not reset, for more turns than are taken


def turns(arms: dict[str, Callable], n: int, before: Callable = lambda: None) -> dict[str, list[float]]:
    """Seconds of each arm, in turn, n times after one that does not count; `before` each is not timed."""
    times: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(n + 1):
        for name, arm in arms.items():
            before()
            begun = time.perf_counter()
            arm()
            times[name].append(time.perf_counter() - begun)
    return {name: t[1:] for name, t in times.items()}


def row(measure: str, reference: str, times: dict, arm: str, base: str, reach: float) -> dict:
    a, b = times[arm], times[base]
    found = {"value": min(a) / min(b), "median": statistics.median(a) / statistics.median(b), "n": len(a)}
    return {"measure": measure, "reference": reference, **found, "s": min(a), "reference_s": min(b), "reach": reach}


class Tensors:
    """Weights, gradients and moments; `pruned` of the elements of each matrix are 0 with their moments."""

    def __init__(self, pruned: float):
        torch.manual_seed(0)
        self.params, self.state = [nn.Parameter(torch.randn(s) * 0.02) for s in SHAPES], {}
        for p in self.params:
            p.grad = torch.randn_like(p) * 1e-3
            m, v = p.grad * 0.1, p.grad.square()
            if p.ndim == 2 and pruned:
                gone = torch.rand_like(p) < pruned
                for t in (p.data, m, v):
                    t.masked_fill_(gone, 0)
            self.state[p] = {"exp_avg": m, "exp_avg_sq": v}

    def groups(self):
        return decay_groups(list(enumerate(self.params)), 0.1)

    def adam(self, held=False, **options) -> Adam:
        """Ours, on these tensors: several optimizers share them, so that memory holds all arms."""
        optimizer = Adam([{"params": [nn.Parameter(torch.zeros(2, 2))]}], Hyper(1e-3, 0.1), 1e-8, **options)
        optimizer.param_groups[0]["params"].clear()
        optimizer.state.clear()
        for group in self.groups():
            optimizer.add_param_group(group)
        del optimizer.param_groups[0]
        for group in optimizer.param_groups:
            group["step"] = LATER
        for p, s in self.state.items():
            optimizer.state[p] = {**s, **({"held": True} if held and p.ndim == 2 else {})}
        return optimizer

    def fused(self) -> torch.optim.AdamW:
        optimizer = torch.optim.AdamW(self.groups(), lr=1e-3, fused=True)
        for p, s in self.state.items():
            optimizer.state[p] = {"step": torch.tensor(float(LATER)), **s}
        return optimizer


def updates(n: int) -> Iterator[dict]:
    """The update alone, and whole steps."""
    sparse, dense = Tensors(SPARSITY), Tensors(0)
    fused, plain, clipped = dense.fused(), dense.adam(compiled=True), sparse.adam(held=True, compiled=True)
    one_pass, eager = sparse.adam(held=True, compiled=True), sparse.adam(held=True)
    spam = dense.adam(compiled=True, spam=Spam())
    for group in clipped.param_groups:
        group["clip_norm"] = 1.0

    def update(optimizer):
        for group in optimizer.param_groups:
            group["step"] += 1
            optimizer.mask_gradients(optimizer.masked_beforehand(group["params"]))
            optimizer.update(group, group["params"], None)

    def torchs():
        nn.utils.clip_grad_norm_(dense.params, 1.0)
        fused.step()

    with torch.no_grad():
        arms = {
            "fused": fused.step,
            "one_pass": lambda: update(one_pass),
            "plain": lambda: update(plain),
            "eager": lambda: update(eager),
        }
        times = turns(arms, 3 * n)  # arms this alike need more turns to meet a quiet moment each
        yield row("update, pruned, compiled", "torch fused AdamW", times, "one_pass", "fused", 1.08)
        yield row("update, pruned, compiled", "the same without mask", times, "one_pass", "plain", 1.05)
        yield row("update, pruned, eager", "torch fused AdamW", times, "eager", "fused", 2.4)
        times = turns({"torch": torchs, "ours": clipped.step, "fused": fused.step, "spam": spam.step}, 3 * n)
        yield row("step(): check, norm, clip, update", "clip_grad_norm_ + fused", times, "ours", "torch", 1.0)
        yield row("adamwspam step(), compiled", "torch fused AdamW", times, "spam", "fused", 1.3)


def selections(n: int) -> Iterator[dict]:
    """The k-th score of 124M that are given."""
    torch.manual_seed(0)
    scores = [torch.rand(s) for s in SHAPES]
    k = round(SPARSITY * sum(s.numel() for s in scores))
    found = []

    def chunks(stride):
        return (c[::stride] for s in scores for c in s.view(-1).split(CHUNK))

    def ours():
        found.append(find(chunks, k, sum(s.numel() for s in scores)).threshold)

    def reference():
        found.append(torch.cat([s.view(-1) for s in scores]).kthvalue(k).values.item())

    times = turns({"ours": ours, "reference": reference}, n)
    assert len(set(found)) == 1, f"the thresholds differ: {set(found)}"
    yield row("exact selection on given scores, 124M", "concatenate + kthvalue", times, "ours", "reference", 0.12)


def mask_updates(n: int) -> Iterator[dict]:
    """A whole event of bitter7 from half of the weights to 70%, and what it holds beside the model."""
    tensors = Tensors(0.5)
    optimizer = tensors.adam()
    weights = [(str(i), p) for i, p in enumerate(tensors.params) if p.ndim == 2]
    count = held_bytes(optimizer)
    pruner = PRUNERS["state"].build(weights, Plan(Schedule(((1 << 40, SPARSITY),), 0, 1 << 40, 1)))
    pruner.attach(optimizer)
    for _, p in weights:
        optimizer.hold(p)
    extra = held_bytes(optimizer) + held_bytes(pruner, skip=(optimizer, weights)) - count
    masks = [optimizer.pruned(p) for _, p in weights]
    backup = [[t.detach().clone() for t in (p, *tensors.state[p].values())] for _, p in weights]
    of = [[p.detach(), *tensors.state[p].values()] for _, p in weights]
    score = IMPORTANCE["bitter7"].score

    def restore():
        for here, there in zip(of, backup, strict=True):
            torch._foreach_copy_(here, there)

    @torch.no_grad()
    def reference():
        scores = [
            score(w, State(m, v)).masked_fill(gone, -torch.inf)
            for (w, m, v), gone in zip(of, masks, strict=True)
        ]  # fmt: skip
        flat = torch.cat([s.view(-1) for s in scores])
        least = flat.kthvalue(round(SPARSITY * len(flat))).values
        for ts, s in zip(of, scores, strict=True):
            gone = s <= least
            for t in ts:
                t.masked_fill_(gone, 0)

    @torch.no_grad()
    def ours():
        pruner.event(SPARSITY)

    times = turns({"ours": ours, "reference": reference}, min(n, 5), restore)  # a turn takes 15 s
    yield row("mask update: score, select, apply", "the same with kthvalue", times, "ours", "reference", 0.25)
    yield {"measure": "state pruning, bytes a weight kept", "reference": "", "value": extra / pruner.total, "reach": 0}
    restore()
    before = resident(reset=True)
    ours()
    yield {
        "measure": "workspace of a mask update, MiB",
        "reference": f"16 + {4 * CHUNK / MIB:g} a chunk",
        "value": (resident(peak=True) - before) / MIB,
        "reach": 16 + 4 * CHUNK / MIB,
    }


def held_bytes(thing, skip=(), seen=None) -> int:
    """Bytes of all tensors that an object holds, each storage once."""
    seen = {id(s) for s in skip} if seen is None else seen
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        storage = thing.untyped_storage()
        new = storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        return storage.nbytes() * new
    parts = thing.values() if isinstance(thing, dict) else thing if isinstance(thing, list | tuple) else ()
    if hasattr(thing, "__dict__"):
        parts = vars(thing).values()
    return sum(held_bytes(p, (), seen) for p in parts)


def resident(peak=False, reset=False) -> int:
    """Bytes of this process in memory, now or at most since the last reset; Linux alone counts the latter."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    field = "VmHWM" if peak else "VmRSS"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


COMPILE = """
import sys, time
import torch, torch._inductor.compile_fx
sys.path.insert(0, {root!r})
from scripts.bench_core import Tensors
import lib.optim.kernel.onepass
t = Tensors(0.7)
begun = time.perf_counter()
o = t.adam(held=True, compiled=True)
o.step()
first = time.perf_counter() - begun
begun = time.perf_counter()
o.step()
print("seconds", first - (time.perf_counter() - begun))
"""


def compilations(n: int) -> Iterator[dict]:
    """What a fresh process pays for its kernels with an empty cache, and with the one that another left."""
    cold, warm = [], []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as cache:
            for times, again in ((cold, 1), (warm, 3)):
                for _ in range(again):
                    env = lib.child_environment(TORCHINDUCTOR_CACHE_DIR=cache)
                    command = [sys.executable, "-c", COMPILE.format(root=str(ROOT))]
                    out = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
                    times.append(float(out.split("seconds")[1]))
    times = {"warm": warm, "cold": cold}
    yield row("compile time, second run of a matrix", "the first run's", times, "warm", "cold", 0.15)


class TinyGPT(nn.Module):
    """The size of gpt2-tiny: 4 layers, 4 heads, width 128, context 256, bytes."""

    def __init__(self):
        super().__init__()
        self.embed, self.place = nn.Embedding(256, 128), nn.Embedding(256, 128)
        layer = nn.TransformerEncoderLayer(128, 4, 512, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = nn.Linear(128, 256, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        h = self.embed(x) + self.place(torch.arange(x.shape[1]))
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.head(self.blocks(h, mask, is_causal=True)).transpose(1, 2)


def resnet18() -> nn.Module:
    from torchvision.models import resnet18 as imagenet

    model = imagenet(num_classes=10)
    model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return model


def shares(n: int) -> Iterator[dict]:
    """An event's part of 50 training steps and the event."""
    torch.manual_seed(0)
    lenet5 = importlib.import_module("lenet5.model").LeNet5()
    cases = {
        "lenet5, batch 512": (lenet5, torch.rand(512, 1, 32, 32), torch.randint(10, (512,)), n),
        "resnet18, batch 128": (resnet18(), torch.rand(128, 3, 32, 32), torch.randint(10, (128,)), 5),
        "gpt2 tiny, 16 x 256": (TinyGPT(), *(torch.randint(256, (16, 256)) for _ in range(2)), n),
    }
    for name, (model, x, y, turns_) in cases.items():
        optimizer = Adam(decay_groups(model.named_parameters(), 0.1), Hyper(1e-3, 0.1), 1e-8)
        pruner = PRUNERS["state"].build(prunable(model), Plan(Schedule(((1 << 40, SPARSITY),), 0, 1 << 40, 1)))
        pruner.attach(optimizer)

        def step(model=model, x=x, y=y, optimizer=optimizer):
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()

        step()
        with torch.no_grad():
            pruner.event(0.65)
        times = turns({"step": step, "event": torch.no_grad()(lambda p=pruner: p.event(SPARSITY))}, turns_)
        event, steps = min(times["event"]), 50 * min(times["step"])
        yield {
            "measure": f"share of time on pruning, {name}",
            "reference": "50 steps and an event" + (" (extrapolated from 5)" if turns_ == 5 else ""),
            "value": event / (steps + event),
            "n": turns_,
            "s": event,
            "reference_s": steps,
            "reach": 0.02,
        }


PARTS = {f.__name__: f for f in (updates, selections, mask_updates, compilations, shares)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=25)
    parser.add_argument("--only", choices=PARTS, action="append", help="some parts of the bench")
    parser.add_argument("--threads", type=int, default=provenance.cores())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{provenance.cpu_name()}, {args.threads} threads, commit {(provenance.collect().commit or '?')[:12]}")
    print(f"{'measure':<44} {'reference':<28} {'min':>7} {'median':>7} {'n':>3} {'reach':>8}")
    rows = []
    for name in args.only or PARTS:
        for r in PARTS[name](args.repetitions):
            rows.append(r)
            median = f"{r['median']:7.3f}" if "median" in r else " " * 7
            kept = "" if r["value"] <= r["reach"] else "  missed"
            print(
                f"{r['measure']:<44} {r['reference']:<28} {r['value']:7.3f} {median} {r.get('n', 1):3d} "
                f"{'<= ' + format(r['reach'], 'g'):>8}{kept}",
                flush=True,
            )
    out = ROOT / "bench_results"
    out.mkdir(exist_ok=True)
    write_json(
        out / "core.json", {"schema": SCHEMA, "provenance": provenance.collect(), "threads": args.threads, "rows": rows}
    )
    print(f"written: {out / 'core.json'}")
    return int(any(r["value"] > r["reach"] for r in rows))


if __name__ == "__main__":
    sys.exit(main())
