"""What the tensors of a run take, by class and by phase, and what the allocator holds for them: the measured side of
lib/ledger.py.

Every storage counts once. Tensors are looked at when a phase is entered for the first time, in training after the
second backward pass, when the optimizer has all of its state. Activations are what autograd saves for that pass.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lib.prune.base import PRUNERS
from lib.records import Memory

AFTER = 2  # steps


class Footprint:
    """Of one process of a run; `run` is its Trainer.

    phases: name -> {"tensors": {class: bytes}} and, on a GPU, the phase's peaks "allocated" and "reserved", bytes.
    activations: bytes saved for one backward pass (of one micro-batch); None where a compiler decides what is saved.
    """

    def __init__(self, run):
        self.run, self.phases, self.activations, self.phase = run, {}, None, None
        self.gpu = run.device.type == "cuda"

    def enter(self, phase: str) -> None:
        """A phase begins, so that the one before is over."""
        self.close()
        self.phase = phase
        found = self.phases.setdefault(phase, {})
        if "tensors" not in found and phase != "train":
            found["tensors"] = self.tensors()

    def close(self) -> None:
        """Write down the peaks of the phase that is over."""
        if self.gpu and self.phase:
            found = self.phases[self.phase]
            for name, value in (
                ("allocated", torch.cuda.max_memory_allocated()),
                ("reserved", torch.cuda.max_memory_reserved()),
            ):
                found[name] = max(found.get(name, 0), value)
            torch.cuda.reset_peak_memory_stats()

    def stepping(self) -> None:
        """Between a backward pass and the update."""
        if self.wanted():
            self.phases.setdefault("train", {})["tensors"] = self.tensors()

    def wanted(self) -> bool:
        """Whether this step of training is the one to look at: the second, or the only one."""
        return self.run.step == min(AFTER, self.run.length.steps)

    def tensors(self) -> dict[str, int]:
        """Class -> bytes of its storages."""
        seen: set[int] = set()
        found = {name: sum(sizes(tensors, seen)) for name, tensors in self.classes()}
        return {name: size for name, size in found.items() if size}

    def classes(self) -> Iterator[tuple[str, list[Tensor]]]:
        run = self.run
        weights = [p for _, p in run.parallel.parameters()]
        yield "weights", weights
        yield "gradients", [p.grad for p in weights if p.grad is not None]
        yield "buffers", list(run.model.buffers())
        if run.optimizer is not None:
            states = list(run.optimizer.state.values())
            for name in dict.fromkeys(n for s in states for n, v in s.items() if torch.is_tensor(v)):
                yield name, [s[name] for s in states if name in s]
        if run.pruner is not None:
            yield "masks", list(getattr(run.pruner.mask, "keep", {}).values())
            for name in PRUNERS[run.spec.pruning_method].holds:
                yield name, list(getattr(run.pruner, name).values())
        yield "data", list(resident(run.data))

    def watching(self, loss: Callable) -> Callable:
        """`loss`, which once, at the step that is looked at, counts what it saves for its backward pass."""

        def watched(*args):
            if self.activations is not None or not self.wanted():
                return loss(*args)
            seen = {p.untyped_storage().data_ptr() for p in self.run.model.parameters()}
            saved = []

            def pack(t: Tensor) -> Tensor:
                saved.extend(sizes([t], seen))
                return t

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
                found = loss(*args)
            self.activations = sum(saved)
            return found

        return watched

    def report(self) -> dict:
        """The measured fields of a Ledger."""
        self.close()
        return {"phases": {k: Memory(**v) for k, v in self.phases.items()}, "activations": self.activations}


def sizes(tensors: list[Tensor], seen: set[int]) -> Iterator[int]:
    """Bytes of the storages that are not `seen` yet."""
    for t in tensors:
        local = t.to_local() if hasattr(t, "to_local") else t
        storage = local.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            yield storage.nbytes()


def resident(data) -> Iterator[Tensor]:
    """The tensors of a data set's splits."""
    for split in filter(None, (data.train, data.validation, data.test)):
        yield from filter(torch.is_tensor, vars(split).values())
