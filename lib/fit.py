"""When a GPU is too small for a run: how many samples at a time would fit, found by trying one and two."""

import dataclasses
from collections.abc import Callable

import torch

GIB = 2**30
SPARE = 0.9  # of what is free: memory is handed out in blocks, and some are lost


def samples_that_fit(peak: Callable[[int], int], free: int) -> int:
    """peak(n): bytes that n samples take on top of what is there before. What they take grows with n, in a line."""
    try:
        one = peak(1)
        each = max(1, peak(2) - one)
    except torch.OutOfMemoryError:
        return 0
    return max(1, 1 + int((SPARE * free - one) // each)) if one <= free else 0


def too_small(run) -> str:
    """What to say of a run, a Trainer, that has run out of memory in training."""
    recipe, model = run.recipe, run.spec.model.upper()
    at_once = recipe.micro_batch or recipe.batch_size // run.world.size
    said = f"{gpu(run)} is too small for {at_once} samples of {run.spec.model} at a time"
    if run.world.size > 1:  # to try is to exchange gradients, and the others may not be here
        return f"{said}: lower {model}_MICRO_BATCH, with HYPER_PARAM_AUTO=n"
    run.optimizer.zero_grad(set_to_none=True)
    fits = samples_that_fit(lambda n: peak(run, n), free(run.device))
    if not fits:
        return f"{said}, and not even one fits: take a smaller model, or a GPU with more memory"
    return f"{said}: about {fits} would fit. Set {model}_MICRO_BATCH={fits} and HYPER_PARAM_AUTO=n; the batch stays"


def too_small_to_evaluate(run) -> str:
    size, model = run.recipe.eval_batch_size, run.spec.model.upper()
    return f"{gpu(run)} is too small to evaluate {size} samples at a time: lower {model}_EVAL_BATCH_SIZE"


def gpu(run) -> str:
    return f"{run.device_name} ({total(run.device) / GIB:.1f} GiB)"


def peak(run, n: int) -> int:
    """Bytes that the gradients of n samples take at most."""
    recipe = dataclasses.replace(run.recipe, batch_size=n, micro_batch=0)
    batch = next(iter(run.task.batches(run.data, recipe, torch.Generator())))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run.gradients(batch)
    run.optimizer.zero_grad(set_to_none=True)
    return torch.cuda.max_memory_allocated() - before


def free(device: torch.device) -> int:
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0]


def total(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).total_memory
