"""The promise of docs/adding.md: one file and one Kconfig entry each, and the newcomer runs in a matrix and is tested
by the tests that are there."""

import json
import shutil
import sys

import pytest
from house import NO_GRAPHS

from lib.rundir import ROOT

FILES = {
    "lib/optim/signsgd.py": """
from dataclasses import dataclass
from lib.config import number
from lib.optim.base import OPTIMIZERS, Optim

@dataclass(frozen=True)
class SignOptions:
    signsgd_scale: float = number(1.0, above=0)

def build(groups, hyper, read, base=""):
    from lib.optim.kernel.base import Base

    class SignSGD(Base):
        def update(self, group, params, clip):
            for p in params:
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(group["lr"] * group["scale"] * p.grad.sign())

    return SignSGD(groups, {"lr": hyper.lr, "weight_decay": 0.0, "scale": read(SignOptions).signsgd_scale})

OPTIMIZERS.add(
    "signsgd", Optim("signsgd", build, (SignOptions,), keeps=frozenset(), state=lambda read, base: {})
)
""",
    "lib/optim/adamwagain.py": """
from lib.optim.base import OPTIMIZERS, AdamOptions, Optim

def build(groups, hyper, read, base="", amsgrad=False):
    from lib.optim.kernel.adam import Adam
    return Adam(groups, hyper, eps=read(AdamOptions).adam_eps, amsgrad=amsgrad)

OPTIMIZERS.add("adamwagain", Optim("adamwagain", build, (AdamOptions,)))
""",
    "lib/prune/weakest.py": """
from lib.prune.importance import importance

@importance("weakest", {"exp_avg_sq"})
def weakest(w, s):
    return w.abs() * s.exp_avg_sq
""",
    "lib/prune/farthest.py": """
from lib.prune.base import PRUNERS, Method

def build(weights, plan):
    from lib.prune.kernel.pruner import Pruner

    class Farthest(Pruner):
        def __init__(self, weights, plan):
            super().__init__(weights, plan)
            self.first = {n: p.detach().clone() for n, p in self.weights}

        def score(self, name, p, rows):
            return -(p.detach()[rows] - self.first[name][rows]).float().abs()

        def state_dict(self):
            return {**super().state_dict(), "first": self.first}

        def load_state_dict(self, state):
            super().load_state_dict(state)
            self.first = {n: v.clone() for n, v in state["first"].items()}

    return Farthest(weights, plan)

PRUNERS.add("farthest", Method("farthest", build, holds={"first": 4}))
""",
    "lib/data/noise.py": """
from lib.data.base import DATASETS, Dataset, Images, pixels

def load(data_dir):
    import numpy as np
    r = np.random.RandomState(0)
    def split(n):
        return r.randint(0, 256, (n, 1, 32, 32)).astype(np.uint8), r.randint(0, 10, n)
    train, validation, test = split(256), split(64), split(64)
    return Images(train, validation, test, *pixels(train[0], (train, validation, test)))

DATASETS.add("noise", Dataset("noise", "noise", 10, {"train": 256, "validation": 64, "test": 64}, load))
""",
    "lib/figure/headcount.py": """
from lib.figure.base import families, figure
from lib.figure.draw import page

@figure("headcount")
def headcount(results):
    for family in families(results):
        fig = page(6, 3, "Finished runs", family.foot())
        fig.subplots().bar(["runs"], [len(family.results)])
        yield f"headcount{family.suffix}", fig
""",
}
# Kconfig file -> line before which an entry stands (a member of an axis beside the others; "" is the end) -> entry
ENTRIES = {
    "lib/optim/Kconfig": {
        'menu "sgd"': 'config OPTIMIZER_SIGNSGD\n\tbool "signsgd"\n\thelp\n\t  Sign.\n\n'
        'config OPTIMIZER_ADAMWAGAIN\n\tbool "adamwagain"\n\thelp\n\t  AdamW.\n',
        "": 'config SIGNSGD_SCALE\n\tstring "Scale"\n\tdefault "1.0"\n\thelp\n\t  Scale.\n\n'
        'config ADAMWPRUNE_BASE_ADAMWAGAIN\n\tbool "base adamwagain"\n\tdepends on OPTIMIZER_ADAMWPRUNE\n'
        "\thelp\n\t  AdamW.\n",
    },
    "lib/prune/Kconfig": {
        "config TARGET_SPARSITY": 'config PRUNING_METHOD_FARTHEST\n\tbool "farthest"\n\thelp\n\t  The farthest go.\n',
        "": 'config ADAMWPRUNE_VARIANT_WEAKEST\n\tbool "weakest"\n\thelp\n\t  A score.\n',
    },
    "lenet5/Kconfig": {
        "endmenu": 'config LENET5_DATASET_NOISE\n\tbool "noise"\n\thelp\n\t  Noise.\n',
    },
    "lib/figure/Kconfig": {
        "": 'config GRAPH_HEADCOUNT\n\tbool "headcount"\n\tdefault y\n\thelp\n\t  How many runs.\n',
    },
}
TESTS = [
    "tests/test_kconfig_tree.py",
    "tests/lib/test_figure.py",
    "tests/lib/test_ledger.py",
    "tests/lib/test_data.py",
    "tests/lib/optim/test_optim_step.py",
    "tests/lib/prune/test_importance.py",
    "tests/lib/prune/test_pruner_memory.py",
]
CONFIG = """CONFIG_MODEL_LENET5=y
CONFIG_LENET5_DATASET_NOISE=y
CONFIG_LENET5_BATCH_SIZE=64
CONFIG_MAX_ITERS=8
CONFIG_NUM_THREADS=1
CONFIG_OPTIMIZER_SIGNSGD=y
CONFIG_OPTIMIZER_ADAMWPRUNE=y
CONFIG_ADAMWPRUNE_BASE_ADAMWAGAIN=y
CONFIG_PRUNING_METHOD_FARTHEST=y
CONFIG_PRUNING_METHOD_STATE=y
CONFIG_TARGET_SPARSITY="0.5"
CONFIG_ADAMWPRUNE_VARIANT_WEAKEST=y
# CONFIG_MONITOR is not set
"""


@pytest.fixture
def extended(repo):
    """A copy of the program with one newcomer of each kind."""
    for name, text in FILES.items():
        (repo.path / name).write_text('"""A newcomer."""\n' + text)
    for name, entries in ENTRIES.items():
        path = repo.path / name
        for before, entry in entries.items():
            head, line, tail = path.read_text().partition(f"{before}\n") if before else (path.read_text(), "", "")
            assert line or not before, before
            path.write_text(f"{head}\n{entry}\n{line}{tail}")
    repo.config.write_text(CONFIG + NO_GRAPHS)  # but for the newcomer's
    return repo


def test_newcomers_of_every_kind_run_in_a_matrix_and_have_flags(extended):
    done = extended.script("scripts/matrix.py", "run", OVERRIDE_RESULTS="out")
    assert done.returncode == 0, done.stdout + done.stderr
    out = extended.path / "out"
    runs = json.loads((out / "all_results.json").read_text())["runs"]
    assert [r["id"] for r in runs] == ["lenet5_adamwprune_weakest_state_50", "lenet5_signsgd_farthest_50"]
    assert all(r["status"] == "done" and r["achieved_sparsity"] == 0.5 for r in runs)
    assert (out / "graphs" / "headcount.png").stat().st_size > 1000
    text = extended.script("lenet5/train.py", "--help").stdout
    assert all(word in text for word in ("--signsgd-scale", "farthest", "weakest", "noise"))


BATCHES = """
import sys
sys.path.insert(0, ".")
from lib import kconfig, resolve
from lib.matrix import expand
config = resolve.resolve(kconfig.load(".config"))
for spec in expand(config):
    pinned = resolve.pinned(config, spec)
    again = kconfig.apply(None, [(n, v, "t") for n, v in pinned.items() if kconfig.prompt(n)])
    assert (dict(again), expand(again)) == (dict(pinned), [spec])
    print(spec.dataset, pinned["LENET5_BATCH_SIZE"], resolve.lengths(pinned, spec).steps)
"""


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("", ["mnist 512 1070", "digits 64 180", "noise 512 10"]),
        ("CONFIG_LENET5_BATCH_SIZE=0\n", ["mnist 512 1070", "digits 64 180", "noise 512 10"]),
        ("CONFIG_LENET5_BATCH_SIZE=512\n", ["mnist 512 1070", "digits 512 20", "noise 512 10"]),
    ],
)
def test_each_data_set_of_a_matrix_has_its_own_batch(extended, lines, found):
    """A newcomer's is the model's, beside whichever others; one that is set is everybody's."""
    axes = "MODEL_LENET5 LENET5_DATASET_MNIST LENET5_DATASET_DIGITS LENET5_DATASET_NOISE OPTIMIZER_ADAMW"
    on = "".join(f"CONFIG_{name}=y\n" for name in [*axes.split(), "PRUNING_METHOD_NONE"])
    extended.config.write_text(on + lines)
    done = extended.script("-c", BATCHES)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == found


def test_newcomers_are_tested_by_the_tests_that_are_there(extended):
    """Kconfig and registries agree about them, their bytes are the declared ones, their formulas and figures hold."""
    shutil.copytree(ROOT / "tests", extended.path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    names = ["signsgd", "adamwagain", "farthest", "weakest", "noise", "headcount"]
    done = extended.run(
        *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "not slow", *TESTS),
        *("-k", f"test_kconfig_tree or {' or '.join(names)}", "-rA"),
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert [n for n in names if f"[{n}" not in done.stdout and f"-{n}" not in done.stdout] == []
