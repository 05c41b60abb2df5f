"""The matrix: which runs there are, what they are called, and a run's own config that gives that run again."""

import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib import kconfig, matrix
from lib.config import Config, InputError
from lib.matrix import check_distribution, expand, pin, plan
from lib.optim.base import OPTIMIZERS
from lib.prune.base import PRUNERS, PruningOptions
from lib.prune.importance import IMPORTANCE
from lib.rundir import OWN
from lib.spec import RunSpec, percent

AXES = ("OPTIMIZER", "PRUNING_METHOD", "ADAMWPRUNE_VARIANT", "ADAMWPRUNE_BASE", "LENET5_DATASET")


def config(axes: str = "adamw none", **symbols: str) -> Config:
    """A LeNet-5 matrix: names of optimizers, methods, variants and data sets, then symbols. base_x is a base."""
    lines = [("MODEL_LENET5", "y", "test")]
    words = axes.split()
    heads = {"OPTIMIZER": OPTIMIZERS, "PRUNING_METHOD": PRUNERS, "ADAMWPRUNE_VARIANT": IMPORTANCE}
    for word in words if {"mnist", "digits"} & set(words) else [*words, "digits"]:
        if word.startswith("base_"):
            head, word = "ADAMWPRUNE_BASE", word.removeprefix("base_")
        else:
            head = next((h for h, registry in heads.items() if word in registry), "LENET5_DATASET")
        lines.append((f"{head}_{word.upper()}", "y", "test"))
    return kconfig.apply(None, lines + [(n, v, "test") for n, v in symbols.items()])


def ids(*args, **kwargs) -> list[str]:
    return [s.id for s in expand(config(*args, **kwargs))]


def test_39_runs(lenet5):
    specs = expand(lenet5)
    assert len(specs) == 5 * (1 + 2 * 3) + (1 + 3) == 39
    assert len({s.id for s in specs}) == 39
    dense = [s for s in specs if s.pruning_method == "none"]
    assert len(dense) == 6
    assert {(s.target_sparsity, s.adamwprune_variant) for s in dense} == {(0.0, "")}
    assert [s.adamwprune_base for s in dense] == ["", "", "", "", "", "adamw"]


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_seeds_multiply(lenet5, seeds):
    assert len(expand(lenet5.replace({"SEEDS": str(seeds)}))) == 39 * seeds


def test_kconfigs_order_is_the_order_of_runs():
    """Whatever order the symbols are set in."""
    axes = "fisher adamwprune state bitter0 movement sgd none adamw"
    assert ids(axes, TARGET_SPARSITY="0.9,0.5", SEEDS="7,4")[:4] == [
        "lenet5_sgd_none_s7",
        "lenet5_sgd_none_s4",
        "lenet5_sgd_movement_90_s7",
        "lenet5_sgd_movement_90_s4",
    ]
    assert ids(axes, TARGET_SPARSITY="0.9,0.5")[-4:] == [
        "lenet5_adamwprune_bitter0_state_90",
        "lenet5_adamwprune_bitter0_state_50",
        "lenet5_adamwprune_fisher_state_90",
        "lenet5_adamwprune_fisher_state_50",
    ]


@pytest.mark.parametrize(
    ("axes", "symbols", "expected"),
    [
        ("sgd none", {}, ["lenet5_sgd_none"]),
        ("adamw movement", {"TARGET_SPARSITY": "0.7"}, ["lenet5_adamw_movement_70"]),
        ("adamwprune state bitter7", {"TARGET_SPARSITY": "0.9"}, ["lenet5_adamwprune_bitter7_state_90"]),
        ("adamwprune state", {"TARGET_SPARSITY": "0.9"}, ["lenet5_adamwprune_bitter7_state_90"]),
        ("adamwprune none base_adam", {}, ["lenet5_adamwprune_none"]),
        ("adamw magnitude", {"TARGET_SPARSITY": "0.995"}, ["lenet5_adamw_magnitude_99.5"]),
        ("adamw magnitude", {"TARGET_SPARSITY": "5e-1"}, ["lenet5_adamw_magnitude_50"]),
        (
            "adamw magnitude",
            {"TARGET_SPARSITY": ".07, 0.29"},
            ["lenet5_adamw_magnitude_7", "lenet5_adamw_magnitude_29"],
        ),
        ("sgd none", {"SEEDS": "2"}, ["lenet5_sgd_none_s0", "lenet5_sgd_none_s1"]),
        ("sgd none", {"SEEDS": "7,"}, ["lenet5_sgd_none"]),
        ("sgd none mnist digits", {}, ["lenet5_mnist_sgd_none", "lenet5_digits_sgd_none"]),
        (
            "sgd adamwprune none base_adam base_adamw",
            {},
            ["lenet5_sgd_none", "lenet5_adamwprune_adam_none", "lenet5_adamwprune_adamw_none"],
        ),
        (
            "adamwprune state base_adam base_adamwspam bitter5_away",
            {"TARGET_SPARSITY": "0.5", "SEEDS": "4,7"},
            [f"lenet5_adamwprune_{b}_bitter5_away_state_50_s{s}" for b in ("adam", "adamwspam") for s in (4, 7)],
        ),
    ],
)
def test_ids(axes, symbols, expected):
    assert ids(axes, **symbols) == expected


@given(st.integers(1, 9999).map(lambda n: n / 10000))
def test_percent_is_shortest_and_exact(share):
    text = percent(share)
    assert text == format(round(share * 10000) / 100, ".15g")


def test_variants_and_bases_multiply_state_alone():
    axes = "adamwprune none state base_adam base_adamw bitter0 bitter7 fisher"
    specs = expand(config(axes, TARGET_SPARSITY="0.5,0.9"))
    assert sum(s.pruning_method == "none" for s in specs) == 2
    assert sum(s.pruning_method == "state" for s in specs) == 2 * 3 * 2


@pytest.mark.parametrize(
    "value", ["0", "1", "1.5", "-0.1", "abc", "nan", "snan", "inf", "50%", "0.5;0.7", "0,5", "0.0"]
)
def test_a_sparsity_that_is_none(value):
    with pytest.raises(InputError, match="CONFIG_TARGET_SPARSITY=.* is no sparsity: give shares above 0 and below 1"):
        ids("adamw magnitude", TARGET_SPARSITY=value)


@pytest.mark.parametrize("value", ["1e-400", "0.99999999999999999999"])
def test_a_sparsity_that_rounds_to_none_or_all(value):
    with pytest.raises(InputError, match="above 0 and below 1"):
        ids("adamw magnitude", TARGET_SPARSITY=value)


@pytest.mark.parametrize(
    ("name", "value"), [("TARGET_SPARSITY", "0.5,0.7,0.50"), ("TARGET_SPARSITY", ".5,5e-1"), ("SEEDS", "4,7,4")]
)
def test_a_value_given_twice(name, value):
    symbols = {"TARGET_SPARSITY": "0.5"} | {name: value}
    with pytest.raises(InputError, match=f"CONFIG_{name}=.*given twice"):
        ids("adamw magnitude", **symbols)


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("1", [0]), ("3", [0, 1, 2]), ("4,7", [4, 7]), ("7,4", [7, 4]), ("4,", [4]), (" 4 , 7 ", [4, 7]), ("0,", [0])],
)
def test_seeds(text, seeds):
    assert [s.seed for s in expand(config(SEEDS=text))] == seeds


@pytest.mark.parametrize("text", ["", "0", "-1", ",", "abc", "1.5", "4,x", "-4,", "10001", "1 2", "4;7"])
def test_seeds_that_are_none(text):
    with pytest.raises(InputError, match=f"CONFIG_SEEDS={text!r}: give a count from 1 to 10000, .* or a list"):
        ids(SEEDS=text)


@pytest.mark.parametrize(
    ("axes", "symbols", "says"),
    [
        ("none", {}, "axis OPTIMIZER is empty: set at least one of OPTIMIZER_SGD, OPTIMIZER_ADAM,"),
        ("adamw", {}, "axis PRUNING_METHOD is empty: set at least one of PRUNING_METHOD_NONE,"),
        ("adamw magnitude", {}, "TARGET_SPARSITY is empty, and magnitude needs it"),
        ("adamw magnitude", {"TARGET_SPARSITY": " , "}, "TARGET_SPARSITY is empty"),
        (
            "adamw none",
            {"TARGET_SPARSITY": "0.5"},
            "CONFIG_TARGET_SPARSITY='0.5' ends in no run: the only method is none",
        ),
        (
            "adamw none state",
            {"TARGET_SPARSITY": "0.5"},
            "PRUNING_METHOD_STATE ends in no run: adamw x state: state pairs only with adamwprune",
        ),
        (
            "adamwprune none movement",
            {"TARGET_SPARSITY": "0.5"},
            "PRUNING_METHOD_MOVEMENT ends in no run: adamwprune x movement: adamwprune pairs only with none and state",
        ),
        (
            "adamw adamwprune magnitude",
            {"TARGET_SPARSITY": "0.5"},
            "OPTIMIZER_ADAMWPRUNE ends in no run: adamwprune x magnitude:",
        ),
        (
            "adamwprune state bitter4 bitter7",
            {"TARGET_SPARSITY": "0.5", "PRUNING_DISTRIBUTION_UNIFORM": "y"},
            "ADAMWPRUNE_VARIANT_BITTER4 ends in no run: bitter4 x uniform: it takes depth as its distribution",
        ),
        (
            "adamwprune state bitter4",
            {"TARGET_SPARSITY": "0.5", "PRUNING_DISTRIBUTION_ERK": "y"},
            "ends in no run: bitter4 x erk",
        ),
        (
            "adamw none rigl",
            {"TARGET_SPARSITY": "0.5", "PRUNING_DISTRIBUTION_NM": "y"},
            "PRUNING_METHOD_RIGL ends in no run: rigl x nm: it takes",
        ),
    ],
)
def test_axes_that_end_in_no_run(axes, symbols, says):
    with pytest.raises(InputError) as e:
        ids(axes, **symbols)
    assert says in str(e.value)


def test_a_base_that_nothing_uses():
    """Kconfig hides the bases of a matrix without adamwprune; the matrix does not rely on it."""
    c = config("adamw adamwprune none base_adam")
    with pytest.raises(InputError, match="ADAMWPRUNE_BASE_ADAM ends in no run: nothing that is set uses it"):
        expand(c.replace({"OPTIMIZER_ADAMWPRUNE": "n"}))


@pytest.mark.parametrize("axis", ["MODEL", "LENET5_DATASET"])
def test_empty_axes_of_the_model(axis):
    c = config()
    with pytest.raises(InputError, match=f"axis {axis} is empty: set at least one of {axis}_"):
        expand(c.replace({n: "n" for n in c if n.startswith(axis + "_")}))


def test_impossible_pairs_are_left_out_with_the_reason(lenet5):
    assert plan(lenet5).left_out == (
        *(f"{o} x state: state pairs only with adamwprune" for o in ("sgd", "adam", "adamw", "adamwadv", "adamwspam")),
        "adamwprune x magnitude: adamwprune pairs only with none and state",
        "adamwprune x movement: adamwprune pairs only with none and state",
    )


def test_a_method_that_reads_what_is_not_kept(monkeypatch):
    picky = dataclasses.replace(PRUNERS["movement"], needs=frozenset({"exp_avg", "exp_avg_sq"}))
    monkeypatch.setitem(PRUNERS._records, "movement", picky)
    made = plan(config("sgd adam none movement", TARGET_SPARSITY="0.5"))
    assert made.left_out == (
        "sgd x movement: movement reads exp_avg, exp_avg_sq, and sgd keeps nothing that a score can read",
    )
    assert [s.id for s in made.specs] == ["lenet5_sgd_none", "lenet5_adam_none", "lenet5_adam_movement_50"]


@pytest.mark.parametrize("given", ["0.667", "0.66667", "0.6666666666666667"])
def test_three_digits_name_a_pattern(given):
    nm = {"PRUNING_DISTRIBUTION_NM": "y", "PRUNING_NM": "1:3"}
    (spec,) = expand(config("adamw magnitude", TARGET_SPARSITY=given, **nm))
    assert (spec.target_sparsity, spec.id) == (1 - 1 / 3, "lenet5_adamw_magnitude_66.6667")
    check_distribution(spec, config("adamw magnitude", **nm).read(PruningOptions))


@pytest.mark.parametrize("given", ["0.66", "0.5"])
def test_another_sparsity_than_the_patterns(given):
    nm = {"PRUNING_DISTRIBUTION_NM": "y", "PRUNING_NM": "1:3"}
    (spec,) = expand(config("adamw magnitude", TARGET_SPARSITY=given, **nm))
    with pytest.raises(InputError, match="with PRUNING_NM=1:3 is sparsity 0.6667 and no other"):
        check_distribution(spec, config("adamw magnitude", **nm).read(PruningOptions))


def test_bitter4_takes_the_place_of_global():
    assert ids("adamwprune state bitter4", TARGET_SPARSITY="0.5") == ["lenet5_adamwprune_bitter4_state_50"]


def test_defaults_are_said_and_pinned():
    c = config("adamwprune none state", TARGET_SPARSITY="0.5")
    made = plan(c)
    assert made.notes == (
        "no ADAMWPRUNE_BASE_* is set: adamw is taken",
        "no ADAMWPRUNE_VARIANT_* is set: bitter7 is taken",
    )
    dense, state = (pin(c, s) for s in made.specs)
    assert (dense.on("ADAMWPRUNE_BASE"), dense.on("ADAMWPRUNE_VARIANT")) == (["adamw"], [])
    assert (state.on("ADAMWPRUNE_BASE"), state.on("ADAMWPRUNE_VARIANT")) == (["adamw"], ["bitter7"])
    assert plan(state).notes == ()


@pytest.mark.parametrize("axes", ["adamw none", "adamwprune none base_adamw"])
def test_no_note_where_no_default_is_taken(axes):
    assert plan(config(axes)).notes == ()


@pytest.mark.parametrize("given", ["x", "a_b.c-1", "_", "0"])
def test_run_id_names_a_matrix_of_one(given):
    assert ids(RUN_ID=given) == [given]


@pytest.mark.parametrize("given", ["X", "a b", "a/b", "..", ".hidden", "ä", "a\\b", "$(touch x)", *OWN])
def test_run_ids_that_are_refused(given):
    with pytest.raises(InputError, match="CONFIG_RUN_ID="):
        ids(RUN_ID=given)


def test_run_id_in_a_matrix_of_several():
    with pytest.raises(InputError, match="CONFIG_RUN_ID='x' names one run, and this matrix has 2"):
        ids("sgd adam none", RUN_ID="x")


def test_pin_narrows_every_axis(lenet5):
    spec = next(s for s in expand(lenet5) if s.id == "lenet5_adam_movement_70")
    c = pin(lenet5, spec)
    assert {a: c.on(a) for a in AXES} == {
        "OPTIMIZER": ["adam"],
        "PRUNING_METHOD": ["movement"],
        "ADAMWPRUNE_VARIANT": [],
        "ADAMWPRUNE_BASE": [],
        "LENET5_DATASET": ["mnist"],
    }
    assert (c["TARGET_SPARSITY"], c["SEEDS"], c["RUN_ID"]) == ("0.7", "0,", spec.id)


def test_pin_keeps_the_id_that_the_matrix_gave():
    """On its own the run would be called otherwise: nothing varies there."""
    c = config("adamwprune none mnist digits base_adam base_adamw", SEEDS="2")
    spec = expand(c)[-1]
    assert spec.id == "lenet5_digits_adamwprune_adamw_none_s1"
    assert expand(pin(c, spec)) == [spec]
    assert [s.id for s in expand(pin(c, spec).replace({"RUN_ID": ""}))] == ["lenet5_adamwprune_none"]


def test_pin_forgets_where_the_matrix_was_written(quickstart):
    """Else a run's own config could not be run again: its results directory is there already."""
    c = quickstart.replace({"RESULTS": "somewhere"})
    assert pin(c, expand(c)[0])["RESULTS"] == ""


def test_expand_leaves_the_config(lenet5):
    before = dict(lenet5)
    pin(lenet5, expand(lenet5)[3])
    assert dict(lenet5) == before


def test_a_config_that_no_kconfig_made():
    """The files of a results directory are read without Kconfig, by an older or newer program."""
    lines = "MODEL_LENET5 LENET5_DATASET_DIGITS OPTIMIZER_SGD PRUNING_METHOD_NONE".split()
    c = Config(dict.fromkeys(lines, "y"), dict.fromkeys(lines, "bool"))
    assert expand(c) == [RunSpec("lenet5", "digits", "sgd", "none", id="lenet5_sgd_none")]


def subset(names, least: int = 0) -> st.SearchStrategy:
    return st.lists(st.sampled_from(sorted(names)), unique=True, min_size=least, max_size=4)


seed_lists = st.lists(st.integers(0, 2**31), unique=True, min_size=1, max_size=3).map(lambda s: f"{str(s)[1:-1]},")


@st.composite
def matrices(draw) -> tuple[str, dict[str, str]]:
    """Axes and symbols of which Kconfig hides none; whether they give runs is for the matrix to say."""
    optimizers, methods = draw(subset(OPTIMIZERS, least=1)), draw(subset(PRUNERS, least=1))
    axes = [*optimizers, *methods, *draw(subset(["mnist", "digits"]))]
    if "adamwprune" in optimizers:
        axes += draw(subset(["base_adam", "base_adamw", "base_adamwadv", "base_adamwspam"]))
        axes += draw(subset(IMPORTANCE)) if "state" in methods else []
    shares = st.lists(st.floats(1e-9, 1, exclude_max=True), unique_by=percent, min_size=1, max_size=3)
    symbols = {f"PRUNING_DISTRIBUTION_{draw(st.sampled_from(['GLOBAL', 'GLOBAL', 'UNIFORM', 'ERK']))}": "y"}
    symbols["SEEDS"] = draw(st.integers(1, 3).map(str) | seed_lists)
    if methods != ["none"]:
        symbols["TARGET_SPARSITY"] = ",".join(map(repr, draw(shares)))
    return " ".join(axes), symbols


@settings(suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow], max_examples=150)
@given(matrices())
def test_any_matrix_has_unique_ids_and_runs_that_come_back(chosen):
    """Whatever is set: an InputError that names a member without runs, or runs that their own configs give again."""
    axes, symbols = chosen
    c = config(axes, **symbols)
    try:
        specs = expand(c)
    except InputError as e:
        assert "ends in no run: " in str(e)
        return
    assert specs
    assert len({s.id for s in specs}) == len(specs)
    assert len({dataclasses.replace(s, id="") for s in specs}) == len(specs)
    for s in specs[:: max(1, len(specs) // 5)]:
        assert matrix.RUN_ID.fullmatch(s.id)
        assert expand(pin(c, s)) == [s]
        assert expand(kconfig.normalise(pin(c, s))) == [s]


def test_what_is_missing_is_said_of_every_axis_with_the_line_that_mends_it():
    found = matrix.missing(kconfig.apply(None, [("MODEL_LENET5", "y", "t"), ("MODEL_GPT2", "y", "t")]))
    assert [line.split()[2] for line in found] == ["LENET5_DATASET", "GPT2_DATASET", "OPTIMIZER", "PRUNING_METHOD"]
    assert "CONFIG_LENET5_DATASET_MNIST=y in .config" in found[0]
    assert "CONFIG_MODEL_LENET5=y in .config" in matrix.missing(kconfig.apply(None, []))[0]


def test_what_a_plan_would_refuse_is_missing_too(lenet5):
    assert matrix.missing(lenet5) == []
    assert "TARGET_SPARSITY is empty" in matrix.missing(lenet5.replace({"TARGET_SPARSITY": ""}))[0]
