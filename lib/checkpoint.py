"""Checkpoints: written whole or not at all, with everything that a run needs to go on."""

import hashlib
from pathlib import Path


def save(path: Path, state: dict) -> None:
    import torch

    part = path.with_name(f".{path.name}.part")
    torch.save(state, part)
    part.replace(path)


def load(path: Path) -> dict:
    """On the CPU, and mapped: what is not used of a file is never read."""
    import torch

    return torch.load(path, map_location="cpu", mmap=True, weights_only=True)


class Checkpoints:
    """Those of a run that may have several processes: whole tensors, written by the leader, read by all."""

    def __init__(self, world, parallel):
        self.world, self.parallel = world, parallel

    def save_model(self, path: Path, **facts) -> None:
        self._save(path, {"model": self.parallel.model_state(), **facts})

    def save_all(self, path: Path, optimizer, pruner, **facts) -> None:
        state = {
            "model": self.parallel.model_state(),
            "optimizer": self.parallel.optimizer_state(optimizer),
            "pruner": self.parallel.pruner_state(pruner) if pruner else {},
        }
        self._save(path, state | facts)

    def _save(self, path: Path, state: dict) -> None:
        if self.world.leader:
            save(path, state)
        self.world.wait()

    def load_model(self, path: Path) -> None:
        self.parallel.load_model(load(path)["model"])

    def agree(self, step: int) -> None:
        """Raise RuntimeError unless replicas are still one model: each moves and prunes its weights on its own."""
        if self.world.size > 1 and self.parallel.replicated:
            digest = hashlib.sha256()
            for _, p in self.parallel.parameters():
                digest.update(p.detach().double().sum().cpu().numpy().tobytes())
            self.world.same(f"weights after step {step}", digest.digest())
