"""Who may import whom, read from the sources: layers, torch, foreign packages, siblings.

And what the table is for: every preset is planned, and every report and figure module imported, with torch blocked.
"""

import ast
import re
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

from lib.rundir import ROOT

# Rooms of lib by layer; a module imports from its own layer and from those before it.
LAYERS = [
    {"registry", "config", "sanitize", "wrap", "schema", "files"},
    {"kconfig", "cache", "provenance", "optim", "prune", "data", "monitor", "executor"},
    {
        "spec",
        "matrix",
        "cli",
        "hyper",
        "batching",
        "rundir",
        "checkpoint",
        "overrides",
        "launch",
        "resolve",
        "compiling",
        "allocator",
        "peak",
        "ledger",
        "forecast",
        "ids",
        "records",
    },
    {
        "task",
        "language",
        "build",
        "fit",
        "world",
        "parallel",
        "inference",
        "footprint",
        "scores",
        "trainer",
        "record",
        "measure",
        "results",
        "costs",
        "remarks",
        "probe",
        "audit",
        "compile_probe",
    },
    {"main", "report", "terminal", "progress", "figure", "estimate", "describe", "runner", "fallback", "gputop"},
]
LAYER = {room: i for i, layer in enumerate(LAYERS) for room in layer}
# Rooms that know nothing of one another.
SIBLINGS = {"kconfig", "provenance", "optim", "prune", "data", "monitor", "executor"}
MODELS = sorted(p.parent.name for p in ROOT.glob("*/train.py"))
FILES = sorted(
    p.relative_to(ROOT).as_posix() for top in ("lib", "scripts", *MODELS) for p in (ROOT / top).rglob("*.py")
)
LIB = [f for f in FILES if f.startswith("lib/")]
# Where torch may stand: tensor code, the loop, the models, and a process of its own that nothing imports.
TORCH = ("lib/optim/kernel/", "lib/prune/kernel/", "lib/data/kernel/", "lib/executor/preload.py")
TORCH += ("lib/task.py", "lib/language.py", "lib/build.py", "lib/inference.py", "lib/trainer.py")
TORCH += ("lib/probe.py", "lib/compile_probe.py", "lib/world.py", "lib/parallel.py", "lib/fit.py")
TORCH += ("lib/footprint.py", "lib/scores.py")
TORCH += (
    "lib/checkpoint.py",
    "scripts/bench_core.py",
    "scripts/bench_models.py",
    "scripts/bench_reference.py",
    *(f"{m}/" for m in MODELS),
)
# Each foreign package and its one home. numpy is the exception: data sets, their joining in the task, figures, and the
# histograms of the selection.
FOREIGN = {
    "torch": TORCH,
    "kconfiglib": ("lib/kconfig.py",),
    "textual": ("lib/gputop/",),
    "rich": ("lib/gputop/", "lib/progress.py", "lib/terminal.py"),
    "plotext": ("lib/gputop/",),
    "menuconfig": ("lib/kconfig.py",),
    "matplotlib": ("lib/figure/",),
    "pydantic": ("lib/schema.py",),
    "annotated_types": ("lib/schema.py",),
    "pynvml": ("lib/monitor/",),
    "psutil": ("lib/monitor/", "scripts/bench_monitor.py"),
    "tqdm": ("lib/data/",),
    "sklearn": ("lib/data/",),
    "torchvision": ("lib/data/", "scripts/bench_core.py", "scripts/bench_reference.py", *(f"{m}/" for m in MODELS)),
    "tiktoken": ("lib/data/",),
    "datasets": ("lib/data/",),
    "PIL": ("lib/data/", "scripts/bench_reference.py"),
    "tiktoken_ext": ("lib/data/",),
    "numpy": ("scripts/bench_", "lib/data/", "lib/task.py", "lib/figure/", "lib/prune/kernel/"),
}


# A package that is installed under another name than it is imported by.
DISTRIBUTIONS = {
    "annotated_types": "annotated-types",
    "PIL": "pillow",
    "menuconfig": "kconfiglib",
    "pynvml": "nvidia-ml-py",
    "sklearn": "scikit-learn",
    "tiktoken_ext": "tiktoken",
}


@cache
def imports(file: str) -> frozenset[tuple[str, bool]]:
    """(full name, whether it is imported with the module) of everything that a file imports, names included."""
    tree = ast.parse((ROOT / file).read_text(), file)
    late = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.Lambda) for n in ast.walk(f)}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {(a.name, id(node) not in late) for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute"
            found |= {(f"{node.module}.{a.name}", id(node) not in late) for a in node.names}
    return frozenset(found)


def rooms(file: str) -> set[str]:
    """The rooms of lib that a file imports from, at any time."""
    return {name.split(".")[1] for name, _ in imports(file) if name.startswith("lib.")}


def room(file: str) -> str:
    return Path(file).parts[1].removesuffix(".py")


def foreign(file: str) -> set[str]:
    heads = {name.split(".")[0] for name, _ in imports(file)}
    return heads - sys.stdlib_module_names - {"lib", "scripts", *MODELS}


def test_every_room_has_a_layer():
    assert {room(f) for f in LIB} - {"__init__"} == set(LAYER)


@pytest.mark.parametrize("file", LIB)
def test_layers(file):
    own = LAYER.get(room(file), 0)
    above = {r for r in rooms(file) if LAYER.get(r, 0) > own}
    assert not above, f"{file} (layer {own}) imports {above}"


def test_the_ground_is_the_standard_library():
    assert {f: foreign(f) for f in ("lib/registry.py", "lib/config.py") if foreign(f)} == {}
    assert rooms("lib/config.py") == set()
    assert rooms("lib/registry.py") == {"config"}


@pytest.mark.parametrize("file", [f for f in LIB if room(f) in SIBLINGS])
def test_siblings_do_not_know_one_another(file):
    assert rooms(file) & SIBLINGS <= {room(file)}


@pytest.mark.parametrize("file", LIB)
def test_lib_imports_no_model_and_no_script(file):
    heads = {name.split(".")[0] for name, _ in imports(file)}
    assert not heads & {"scripts", "tests", "conftest", *MODELS}


@pytest.mark.parametrize("file", [f for f in FILES if not f.startswith("lib/")])
def test_models_and_scripts_import_lib_and_themselves(file):
    top = Path(file).parts[0]
    heads = {name.split(".")[0] for name, _ in imports(file)}
    assert not heads & ({"scripts", "tests", *MODELS} - {top})


@pytest.mark.parametrize("file", FILES)
def test_foreign_packages_stay_at_home(file):
    strays = {p for p in foreign(file) if p in FOREIGN and not file.startswith(FOREIGN[p])}
    assert not strays, f"{file} imports {strays}: {[FOREIGN[p] for p in strays]}"
    assert foreign(file) <= set(FOREIGN), f"{file}: give {foreign(file) - set(FOREIGN)} a home in this test"


def declared(*extras: str) -> set[str]:
    """What pyproject.toml has installed, with these extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + [line for e in extras for line in project["optional-dependencies"][e]]
    return {re.match(r"[\w.-]+", line)[0] for line in lines}


def installed_as(packages: set[str]) -> set[str]:
    return {DISTRIBUTIONS.get(p, p) for p in packages}


def test_what_is_imported_is_declared_and_nothing_else():
    """What comes with another package may not come with its next version."""
    found_by_name = {"sklearn"}  # lib/data/digits.py reads a file of it, without its import of a second
    assert installed_as({p for f in FILES for p in foreign(f)} | found_by_name) == declared("text")


def test_what_the_tests_import_is_declared():
    """The extra `dev` has tools besides: pytest-xdist and ruff."""
    files = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "tests").rglob("*.py"))
    own = {Path(f).stem for f in files} | {"tests"}
    assert installed_as({p for f in files for p in foreign(f)} - own) <= declared("dev")


@pytest.mark.parametrize("package", sorted(set(FOREIGN) - {"torch"}))
def test_foreign_packages_have_one_home(package):
    """But for numpy, and what draws on terminals; so a package can be exchanged in one place."""
    homes = {"/".join(Path(f).parts[:2]) for f in LIB if package in foreign(f)}
    assert len(homes) <= {"numpy": 3, "rich": 3}.get(package, 1), homes


@pytest.mark.parametrize("file", [f for f in LIB if not f.startswith(TORCH) or f == "lib/checkpoint.py"])
def test_torch_is_not_imported_with_a_module_that_plans_or_reports(file):
    assert not {name for name, at_once in imports(file) if at_once and name.split(".")[0] in ("torch", "torchvision")}


@pytest.mark.parametrize("file", [f for f in LIB if not f.startswith(TORCH)])
def test_tensor_code_is_imported_late(file):
    """Not through a kernel package either."""
    assert not {name for name, at_once in imports(file) if at_once and ".kernel" in name}


@pytest.mark.parametrize("process", ["lib.executor.preload", "lib.compile_probe"])
def test_nothing_imports_a_process_of_its_own(process):
    assert [f for f in FILES if any(name.startswith(process) for name, _ in imports(f))] == []


def test_the_compiler_of_torch_is_touched_in_one_file():
    """Its private interfaces change from version to version; a probe and this file's tests say first."""
    private = re.compile(r"torch[.](_dynamo|_inductor)")
    found = [f for f in LIB if private.search((ROOT / f).read_text())]
    assert found == ["lib/optim/kernel/inductor.py", "lib/runner.py"]  # the latter names what to import beforehand


BLOCKED = """
import importlib, pathlib, sys, time

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "triton"):
            raise ImportError(f"{name} was imported")

sys.meta_path.insert(0, Block())
sys.path.insert(0, ".")
begun = time.perf_counter()
from lib import kconfig, runner
from lib.describe import describe
for path in sorted(pathlib.Path("defconfigs").iterdir()):
    config = kconfig.load(path)
    plan = runner.check(config)
    text = "\\n".join(describe(config, plan))
    assert all(s.id in text for s in plan.specs)
    print(f"{time.perf_counter() - begun:.3f} s  {path.name}: {len(plan.specs)} runs")
for name in sys.argv[1:]:
    importlib.import_module(name)
assert "torch" not in sys.modules
print("torch-free")
"""


def test_every_preset_is_planned_without_torch(repo):
    """And every module that is not tensor code can be imported. In-process times are printed (pytest -s)."""
    names = [
        f.removesuffix(".py").replace("/", ".") for f in LIB if not f.startswith(TORCH) or f == "lib/checkpoint.py"
    ]
    names = [n.removesuffix(".__init__") for n in names]
    done = repo.script("-c", BLOCKED, *names)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" runs") == len(list((ROOT / "defconfigs").iterdir()))
    assert done.stdout.endswith("torch-free\n")
