"""Checkpoints: written whole or not at all, with everything that a run needs to go on."""

from pathlib import Path


def save(path: Path, state: dict) -> None:
    import torch

    part = path.with_name(f".{path.name}.part")
    torch.save(state, part)
    part.replace(path)


def load(path: Path, device="cpu") -> dict:
    import torch

    return torch.load(path, map_location=device, weights_only=True)
