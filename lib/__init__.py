"""The library, in layers; a lower one never imports a higher one.

L0  config, registry, kconfig: values, names, and the only importer of kconfiglib
L1  optim, prune, data, monitor, executor: records of what can be chosen; packages that never import each other
L2  spec, matrix, overrides, cli, hyper, rundir, provenance, checkpoint: from a configuration to runs and their files
L3  task, trainer, results: training, and what was written
L4  figure, report, progress, runner, main: what a person calls
L5  the model folders and scripts, which import this library and are never imported by it

docs/architecture.md says why.
"""

import sys


def missing(error: ModuleNotFoundError) -> str:
    """What to say when a package is not installed; needs the standard library alone."""
    return (
        f"error: the package {error.name} is missing in {sys.executable}. `make venv` makes an environment with all "
        f"that is needed, and `make` uses it where no other one is active; or install into this one: "
        f"{sys.executable} -m pip install -e '.[dev]'"
    )
