"""The library, in layers; a lower one never imports a higher one.

L0  config, registry, sanitize, wrap, schema, files, kconfig, cache, provenance: values, names, text that is fit to
    be shown, typed records and files of them, what was measured once, where a run came from
L1  optim, prune, data, monitor, executor: records of what can be chosen; packages that never import each other
L2  spec, matrix, overrides, cli, hyper, batching, allocator, compiling, resolve, rundir, records, checkpoint, launch,
    peak, ledger, forecast, ids: from a configuration to runs and their files
L3  task, language, build, world, parallel, fit, footprint, scores, probe, trainer, inference, record, measure,
    results, costs, remarks, audit: training, and what was written
L4  figure, gputop, report, terminal, progress, estimate, describe, fallback, runner, main: what a person calls
L5  the model folders and scripts, which import this library and are never imported by it

docs/architecture.md says why.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # of the checkout: Kconfig, defconfigs, the models, the results


WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}  # read by OpenMP when torch is loaded, and never again


def let_threads_sleep() -> None:
    """Have torch's threads sleep while they wait for one another, unless the user's environment says otherwise.

    Only before torch is loaded, and only by what starts a process: a program that imports this library decides for
    itself. OpenMP's threads spin by default, which beside any other busy process costs a step of LeNet-5 on two cores
    548 ms where it is 64 (33 and 35 alone).
    """
    os.environ.update(WAITING | os.environ)


def child_environment(**more: str) -> dict[str, str]:
    """Return the environment of a process that this program starts: this one's, sleeping threads, and `more`."""
    return {**WAITING, **os.environ, **more}


def missing(error: ModuleNotFoundError) -> int:
    """Say what to do where a package is not installed, and the exit status; needs the standard library alone."""
    print(
        f"error: the package {error.name} is missing in {sys.executable}. `make venv` makes an environment with all "
        f"that is needed, and `make` uses it where no other one is active; or install into this one: "
        f"{sys.executable} -m pip install -e '.[dev]'",
        file=sys.stderr,
    )
    return 2


def call(main) -> None:
    """Run a script's main and exit with its status: 2 for bad input, with the message alone; 130 for an interrupt."""
    from lib.config import InputError
    from lib.sanitize import printable_text
    from lib.wrap import print_lines

    try:
        code = main()
        sys.stdout.flush()
    except InputError as e:
        print_lines(printable_text(f"error: {e}"), sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # the reader has seen enough; the flush at exit must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 0
    sys.exit(code)
