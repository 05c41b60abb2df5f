"""Kconfig is written by hand and so is Python: what one says, the other does.

Axis members are registry names, settings are dataclass fields with equal defaults, and nothing stands in Kconfig that
nobody reads.
"""

import ast
import dataclasses

import kconfiglib
import pytest

from lib import kconfig
from lib.config import Steps, convert
from lib.data.base import DATASETS
from lib.executor.base import EXECUTORS, ExecutorOptions
from lib.hyper import Recipe, Training
from lib.monitor.client import MonitorOptions
from lib.optim.base import OPTIMIZERS
from lib.prune.base import PRUNERS, PruningOptions
from lib.prune.distribution import DISTRIBUTIONS
from lib.prune.importance import IMPORTANCE
from lib.prune.schedule import SHAPES
from lib.rundir import ROOT


def label(value) -> str | None:
    """A parameter in a test's name."""
    return getattr(value, "__name__", getattr(value, "name", value))


def recipe_fields(model: str) -> list[dataclasses.Field]:
    """The settings of a recipe that a model has: those in its own Kconfig."""
    written = (ROOT / model / "Kconfig").read_text()
    return [f for f in dataclasses.fields(Recipe) if f"{model}_{f.name}".upper() in written]


MODELS = sorted(p.parent.name for p in ROOT.glob("*/train.py"))
OPTIONS = [o for name in OPTIMIZERS for o in OPTIMIZERS[name].options]
SETTINGS = list(dict.fromkeys([Training, PruningOptions, MonitorOptions, ExecutorOptions, *OPTIONS]))
# (prefix in Kconfig, class, field), and the same for the recipe of every model.
FIELDS = [("", cls, f) for cls in SETTINGS for f in dataclasses.fields(cls)]
FIELDS += [(f"{m}_", Recipe, f) for m in MODELS for f in recipe_fields(m)]
# What keeps state that a score can read can be a base.
BASES = [name for name in OPTIMIZERS if OPTIMIZERS[name].keeps and not OPTIMIZERS[name].has_base]
AXES = {
    "MODEL": MODELS,
    "OPTIMIZER": OPTIMIZERS.names(),
    "PRUNING_METHOD": PRUNERS.names(),
    "ADAMWPRUNE_VARIANT": IMPORTANCE.names(),
    "ADAMWPRUNE_BASE": BASES,
}
CHOICES = {
    "EXECUTOR": EXECUTORS.names(),
    "PRUNING_SCHEDULE": SHAPES,
    "PRUNING_DISTRIBUTION": DISTRIBUTIONS,
    "DEVICE": ["auto", "cpu", "cuda"],
    "UPDATE": ["auto", "eager", "compiled"],
    "PRECISION": ["auto", "fp32", "bf16"],
    "COMPILE": ["auto", "yes", "no"],
    "SHARDING": ["auto", "none", "full"],
    **{f"{m.upper()}_LR_SCHEDULE": ["cosine", "constant"] for m in MODELS},
    **{f"{m.upper()}_STEM": ["auto", "cifar", "imagenet"] for m in MODELS if m.startswith("resnet")},
    "GPT2_SIZE": ["tiny", "124m", "350m", "774m", "1558m"],
    "GPT2_TOKENIZER": ["auto", "bpe", "bytes"],
}
KIND = {int: kconfiglib.INT, bool: kconfiglib.BOOL}  # every other field is a string


def parse(folder, monkeypatch) -> kconfiglib.Kconfig:
    for name, value in {"srctree": str(folder), "CONFIG_": "CONFIG_", "KCONFIG_WARN_UNDEF": "y"}.items():
        monkeypatch.setenv(name, value)
    return kconfiglib.Kconfig("Kconfig", warn=True, warn_to_stderr=False)


@pytest.fixture(scope="module")
def tree():
    with pytest.MonkeyPatch.context() as monkeypatch:
        return parse(ROOT, monkeypatch)


def members(tree, axis: str) -> list[kconfiglib.Symbol]:
    head = axis + "_"
    return [s for s in tree.unique_defined_syms if s.name.startswith(head) and s.orig_type == kconfiglib.BOOL]


def names(tree, axis: str) -> list[str]:
    return sorted(s.name[len(axis) + 1 :].lower() for s in members(tree, axis))


def unconditional(item, tree):
    """The default without a condition of its own, or None."""
    found = [value for value, condition, *_ in item.orig_defaults if condition is tree.y]
    return found[-1] if found else None


def default_text(symbol, tree) -> str:
    value = unconditional(symbol, tree)
    return value.name if value is not None else "n" if symbol.orig_type == kconfiglib.BOOL else ""


def test_no_warnings(tree):
    """Among them: undefined references, and defaults or ranges that do not fit their type."""
    assert tree.warnings == []


def test_an_undefined_reference_would_be_a_warning(tmp_path, monkeypatch):
    (tmp_path / "Kconfig").write_text('config A\n\tbool "a"\n\tdepends on NOWHERE\n')
    assert "undefined symbol NOWHERE" in parse(tmp_path, monkeypatch).warnings[0]


@pytest.mark.parametrize("axis", AXES | CHOICES)
def test_members_are_the_registry(tree, axis):
    assert names(tree, axis) == sorted((AXES | CHOICES)[axis])


@pytest.mark.parametrize("model", MODELS)
def test_data_sets_of_a_model_are_registered(tree, model):
    found = names(tree, f"{model.upper()}_DATASET")
    assert found
    assert set(found) <= set(DATASETS)


def test_every_data_set_is_taken_by_a_model(tree):
    assert set(DATASETS) == {name for m in MODELS for name in names(tree, f"{m.upper()}_DATASET")}


def test_choices_are_choices(tree):
    """A single member is in force, and each choice has a prompt of its own."""
    for choice in CHOICES:
        owners = {s.choice for s in members(tree, choice)}
        assert len(owners) == 1
        assert None not in owners


@pytest.mark.parametrize("axis", [*AXES, *(f"{m.upper()}_DATASET" for m in MODELS)])
def test_no_axis_member_has_a_default(tree, axis):
    """A preset would inherit runs that nobody asked for."""
    for symbol in members(tree, axis):
        assert (symbol.defaults, symbol.selects, symbol.implies, symbol.choice) == ([], [], [], None), symbol.name
        assert symbol.rev_dep is symbol.weak_rev_dep is tree.n, f"{symbol.name} is selected or implied"


@pytest.mark.parametrize(("prefix", "cls", "field"), FIELDS, ids=label)
def test_a_setting_is_a_symbol_with_the_same_default(tree, prefix, cls, field):
    name = (prefix + field.name).upper()
    if field.metadata.get("choice"):
        found = unconditional(members(tree, name)[0].choice, tree).name[len(name) + 1 :].lower()
    else:
        symbol = tree.syms.get(name)
        assert symbol is not None, f"{cls.__name__}.{field.name} has no symbol {name}"
        assert symbol.nodes, name
        assert symbol.orig_type == KIND.get(field.type, kconfiglib.STRING), name
        found = convert(default_text(symbol, tree), field)
    # There is one Recipe for all models: LeNet-5's defaults are its own, the other models' are Kconfig's.
    if prefix in ("", "lenet5_"):
        assert found == field.default, name


@pytest.mark.parametrize(("prefix", "cls", "field"), [f for f in FIELDS if f[2].type is int], ids=label)
def test_whole_numbers_have_one_lower_bound(tree, prefix, cls, field):
    [(low, high, condition)] = tree.syms[(prefix + field.name).upper()].orig_ranges
    assert condition is tree.y
    assert int(low.name) == field.metadata["low"]
    assert int(high.name) >= (field.metadata["high"] or 0)


def test_no_symbol_that_nobody_reads(tree):
    read = {(prefix + f.name).upper() for prefix, _, f in FIELDS}
    read |= {s.name for axis in AXES | CHOICES for s in members(tree, axis)}
    read |= {s.name for m in MODELS for s in members(tree, f"{m.upper()}_DATASET")}
    read |= {s.name for s in members(tree, "GRAPH")}  # lib/figure
    read |= {"TARGET_SPARSITY"}  # lib/matrix.py
    facts = ["MFLOP", "PARAMETERS", "PRUNABLE", "SPREADS", "BATCH", *(f"BATCH_{d.upper()}" for d in DATASETS)]
    read |= {f"{m.upper()}_{fact}" for m in MODELS for fact in facts}  # lib/estimate.py, lib/resolve.py, lib/hyper.py
    assert {s.name for s in tree.unique_defined_syms} - read == set()


def test_every_recipe_setting_is_some_models():
    found = {f.name for m in MODELS for f in recipe_fields(m)}
    assert found == {f.name for f in dataclasses.fields(Recipe)}


def test_no_setting_that_nobody_reads():
    """Each field is taken as an attribute somewhere, or its symbol by name."""
    sources = [
        *ROOT.glob("lib/**/*.py"),
        *ROOT.glob("scripts/*.py"),
        *(p for m in MODELS for p in ROOT.glob(f"{m}/*.py")),
    ]
    nodes = [node for path in sources for node in ast.walk(ast.parse(path.read_text()))]
    taken = {n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Load)}
    taken |= {
        n.value.lower() for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str) and n.value.isupper()
    }
    assert {f.name for _, _, f in FIELDS} - taken == set()


def test_every_prompt_has_help(tree):
    for node in tree.node_iter():
        if node.prompt and isinstance(node.item, kconfiglib.Symbol | kconfiglib.Choice):
            assert (node.help or "").strip(), f"{node.filename}:{node.linenr}: {node.prompt[0]}"


def menu_line(node: kconfiglib.MenuNode) -> str:
    """How menuconfig shows an entry at its widest: indented, with its default, "(NEW)" or a choice's longest member."""
    indent, parent, item = 0, node.parent, node.item
    while not parent.is_menuconfig:
        indent, parent = indent + 4, parent.parent
    text, value = node.prompt[0], ""
    if item == kconfiglib.COMMENT:
        text = f"*** {text} ***"
    elif isinstance(item, kconfiglib.Choice):
        text += f" ({max((s.nodes[0].prompt[0] for s in item.syms), key=len)})"
    elif isinstance(item, kconfiglib.Symbol):
        defaults = [value.name for value, *_ in item.orig_defaults] or [""]
        value = "[*]" if item.orig_type == kconfiglib.BOOL else f"({max(defaults, key=len)})"
        text += " (NEW)"
    return f"{value:{3 + indent}} {text}" + ("  --->" if node.is_menuconfig else "")


def test_every_entry_of_the_menu_fits_80_columns(tree):
    lines = [menu_line(node) for node in tree.node_iter() if node.prompt]
    assert len(lines) > 200
    assert [line for line in lines if len(line) > 80] == []


@pytest.mark.parametrize(
    "words",
    (
        "gradient accumulation|mixed precision|iterations|workers|scheduler|checkpoint|dropout|micro-batch|batch size|"
        "learning rate|weight decay|warm-up|gradient clipping|data augmentation|early stopping|patience|ddp|"
        "fsdp|torch.compile|autocast|context length|sequence length|label smoothing|seeds|sparsities|optimizer_name"
    ).split("|"),
)
def test_search_finds_the_fields_words(tree, words):
    """menuconfig's `/` looks for every word in the name or the prompt of symbols and choices, and in the prompts of
    menus and comments."""
    texts = (f"{getattr(n.item, 'name', '') or ''} {n.prompt[0]}".lower() for n in tree.node_iter() if n.prompt)
    assert any(all(word in text for word in words.split()) for text in texts)


@pytest.mark.parametrize("axis", ["OPTIMIZER", "PRUNING_METHOD", *(f"{m.upper()}_DATASET" for m in MODELS)])
def test_the_menu_says_that_an_axis_is_empty(axis):
    """By a comment that is gone as soon as any member is set, whichever; a model's, only while the model is on."""
    kconf = kconfig.tree()
    kconf.unset_values()
    model = axis.removesuffix("_DATASET")
    symbols = members(kconf, axis)
    [comment] = [c for c in kconf.comments if c.prompt[0].startswith("missing:") and says(c, symbols[0])]
    if model != axis:
        assert not kconfiglib.expr_value(comment.prompt[1])
        kconf.syms[f"MODEL_{model}"].set_value(2)
    for symbol in symbols:
        assert kconfiglib.expr_value(comment.prompt[1]) == 2
        symbol.set_value(2)
        assert kconfiglib.expr_value(comment.prompt[1]) == 0, symbol.name
        symbol.set_value(0)


def says(comment: kconfiglib.MenuNode, symbol: kconfiglib.Symbol) -> bool:
    return symbol in kconfiglib.expr_items(comment.prompt[1])


def test_a_symbol_without_a_prompt_says_why(tree):
    for node in tree.node_iter():
        if not node.prompt and isinstance(node.item, kconfiglib.Symbol):
            assert "No prompt" in (node.help or ""), node.item.name


def test_no_symbol_is_defined_twice(tree):
    """A second definition could change the first one's default or dependencies far from where it is read."""
    assert [s.name for s in tree.unique_defined_syms if len(s.nodes) > 1] == []


def test_every_kconfig_is_sourced(tree):
    written = {
        str(p.relative_to(ROOT)) for p in [*ROOT.glob("*/Kconfig"), *ROOT.glob("lib/*/Kconfig"), ROOT / "Kconfig"]
    }
    assert set(tree.kconfig_filenames) == written


def test_graphs_default_to_y(tree):
    assert [s.name for s in members(tree, "GRAPH") if default_text(s, tree) != "y"] == []


def test_lengths_are_read_as_steps():
    """A length that is not one would not shrink with its run."""
    lengths = {f.name for _, _, f in FIELDS if f.type is Steps}
    assert lengths == {"lr_warmup", "pruning_warmup", "pruning_ramp_end", "pruning_frequency"}


def test_the_menu_begins_with_an_entry(tree):
    """menuconfig's cursor starts there, and on a comment Enter does nothing."""
    assert tree.top_node.list.is_menuconfig
