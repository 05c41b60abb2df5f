"""How fast a trained network answers: latency and throughput by batch size, and what it takes of memory."""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lib.records import Inference

BATCHES = (1, 4, 16, 64, 256)
REPEATS = 10  # of each batch, at least
SECONDS = 1.0  # for each batch, about
MIB = 1024 * 1024


@torch.inference_mode()
def measure(model: nn.Module, example: Callable[[int], Tensor], device: torch.device, leaders=bool) -> list[Inference]:
    """Measure each batch size: the median over REPEATS and more of one call.

    example(n) gives n inputs. leaders(yes): what the first of several processes says, so that all call as often.
    memory_mib is the allocator's peak on a GPU, with the weights; null on a CPU, where a process is all that can be
    measured. A batch that does not fit is left out, and so are larger ones.
    """
    training = model.training
    model.eval()
    found = []
    for batch in BATCHES:
        try:
            found.append(one(model, example(batch), device, leaders))
        except torch.OutOfMemoryError:
            break
    model.train(training)
    return found


def one(model: nn.Module, x: Tensor, device: torch.device, leaders: Callable[[bool], bool]) -> Inference:
    gpu = device.type == "cuda"
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    model(x)  # what is made at first use is not part of it
    times: list[float] = []
    while leaders(len(times) < REPEATS or (sum(times) < SECONDS and len(times) < 100 * REPEATS)):
        begun = time.perf_counter()
        model(x)
        if gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    latency = statistics.median(times)
    memory = torch.cuda.max_memory_allocated() / MIB if gpu else None
    return Inference(batch=len(x), latency_ms=1e3 * latency, samples_per_s=len(x) / latency, memory_mib=memory)
