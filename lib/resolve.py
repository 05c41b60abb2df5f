"""What AUTO means on this machine, and what a run of several devices may not be: pure but for a look at the machine."""

import os
import shutil
from importlib.util import find_spec

from lib import hyper, kconfig, provenance
from lib.config import Config, InputError
from lib.data.base import DATASETS
from lib.matrix import pin
from lib.monitor.base import BACKENDS
from lib.optim.base import UpdateOptions
from lib.prune.base import PRUNERS, PruningOptions
from lib.spec import RunSpec

COMPILED_FROM = 5_000_000  # parameters, for UPDATE_AUTO: found with `make bench-core`
BF16 = {"amx_bf16"}  # what makes bf16 on a CPU faster; with avx512_bf16 alone all models are 1.4 times slower
SPREAD_FROM = 700_000_000  # parameters, for SHARDING_AUTO: with gradients and Adam's state 11 GiB, before activations
STEPS_FROM = 1_000  # of a run, for COMPILE_AUTO: compiling takes about a minute
COMPILER = os.environ.get("CXX", "g++")  # what torch.compile takes, too


def resolve(config: Config) -> Config:
    """Fix what must be equal for all runs of a directory, however often it is continued."""
    if config["NUM_THREADS"] == "0":
        config = config.replace({"NUM_THREADS": str(provenance.cores())})
    gpu = trains_on_gpu(config)
    if config.read(UpdateOptions).update == "auto" and (gpu or not shutil.which(COMPILER)):
        config = choose(config, "UPDATE", "eager")
    if config.read(hyper.Training).precision == "auto":
        native = bf16_on_gpu() if gpu else BF16 & set(provenance.cpu_units())
        config = choose(config, "PRECISION", "bf16" if native else "fp32")
    return config


def trains_on_gpu(config: Config) -> bool:
    device = config.read(hyper.Training).device
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return device == "cuda" or (device == "auto" and not hidden and BACKENDS["nvidia"].probe())


def bf16_on_gpu() -> bool:
    """Whether every NVIDIA GPU computes in bf16 itself: from compute capability 8.0 on. One that does not say is
    taken for new."""
    found = BACKENDS["nvidia"].devices() if BACKENDS["nvidia"].probe() else []
    return all(d.capability is None or d.capability >= 8 for d in found)


def choose(config: Config, name: str, member: str) -> Config:
    """`config` with this member of a choice."""
    return config.replace({f"{name}_{m.upper()}": "y" if m == member else "n" for m in config.members(name)})


def parameters(config: Config, spec: RunSpec) -> int:
    return int(config[f"{spec.model.upper()}_PARAMETERS"])


def pinned(config: Config, spec: RunSpec) -> Config:
    """The config of one run of a resolved matrix."""
    if config.read(UpdateOptions).update == "auto":
        large = parameters(config, spec) >= COMPILED_FROM
        config = choose(config, "UPDATE", "compiled" if large else "eager")
    if config.read(hyper.Training).compile == "auto":
        pays = trains_on_gpu(config) and find_spec("triton") and lengths(config, spec).steps >= STEPS_FROM
        config = choose(config, "COMPILE", "yes" if pays else "no")
    config = choose(config, "SHARDING", sharding(config, spec))
    batch = hyper.read_recipe(config, spec.model, spec.dataset).batch_size
    config = config.replace({f"{spec.model.upper()}_BATCH_SIZE": str(batch)})
    return kconfig.normalise(pin(config, spec))


def lengths(config: Config, spec: RunSpec) -> hyper.Length:
    training = config.read(hyper.Training)
    samples = DATASETS[spec.dataset].train_samples(training.full_train)
    return hyper.length(hyper.read_recipe(config, spec.model, spec.dataset), training.max_iters, samples)


def check_compiler(config: Config) -> None:
    """Raise InputError where something is to be compiled on a CPU and nothing compiles."""
    if shutil.which(COMPILER) or trains_on_gpu(config):
        return
    chosen = {"UPDATE": config.read(UpdateOptions).update, "COMPILE": config.read(hyper.Training).compile}
    for name, compiles, other in (("UPDATE", "compiled", "EAGER"), ("COMPILE", "yes", "NO")):
        if chosen[name] == compiles:
            raise InputError(
                f"{name}_{compiles.upper()} needs a C++ compiler, and {COMPILER} is not found: choose {name}_{other}"
            )


def check_devices(config: Config) -> None:
    """Raise InputError where a run is to have more GPUs than there are."""
    wanted = config.read(hyper.Training).ddp_num_gpus
    if wanted > 1 and trains_on_gpu(config):
        there = len(BACKENDS["nvidia"].devices()) if BACKENDS["nvidia"].probe() else 0
        if 0 < there < wanted:
            raise InputError(
                f"DDP_NUM_GPUS={wanted}, and this machine has {there} GPUs: choose at most {there}, or DEVICE_CPU"
            )


def check_sharding(config: Config, spec: RunSpec) -> None:
    """Raise InputError for a run that needs whole layers and is to have parts of them."""
    if sharding(config, spec) != "full":
        return
    if PRUNERS[spec.pruning_method].whole_layers:
        raise InputError(
            f"{spec.id}: PRUNING_METHOD_{spec.pruning_method.upper()} needs whole layers, and SHARDING spreads them "
            f"over DDP_NUM_GPUS={config['DDP_NUM_GPUS']} devices: choose SHARDING_NONE, or another method"
        )
    if config.read(PruningOptions).pruning_audit:
        raise InputError(f"{spec.id}: PRUNING_AUDIT needs whole layers: choose SHARDING_NONE")


def sharding(config: Config, spec: RunSpec) -> str:
    """ "full" or "none", for one run."""
    training = config.read(hyper.Training)
    if training.ddp_num_gpus == 1 or config.get(f"{spec.model.upper()}_SPREADS") != "y":
        return "none"
    if training.sharding == "auto":
        return "full" if parameters(config, spec) >= SPREAD_FROM else "none"
    return training.sharding
