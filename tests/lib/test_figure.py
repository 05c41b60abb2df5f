"""Figures from six recorded runs (tests/fixtures/figure_lenet5, made by make_figure_lenet5.py beside it): each is drawn
and fits its page, what cannot be drawn is skipped with a reason, nothing unlike shares a panel."""

import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from lib import kconfig, results
from lib.config import InputError
from lib.costs import MIB
from lib.figure import base, folder
from lib.figure.audit import cell
from lib.figure.base import FIGURES, Skip, families
from lib.figure.draw import DASHES, DOTTED, line_style, neutral
from lib.figure.folder import GraphFolder
from lib.figure.panel import arms, thinned
from lib.files import write_record
from lib.records import Inference
from lib.results import Results, Run

ROOT = Path(__file__).resolve().parent.parent.parent
FIXTURE = ROOT / "tests" / "fixtures" / "figure_lenet5"
IDS = [
    "lenet5_adamw_none",
    "lenet5_adamw_magnitude_50",
    "lenet5_adamw_magnitude_90",
    "lenet5_adamwprune_none",
    "lenet5_adamwprune_bitter7_state_50",
    "lenet5_adamwprune_bitter7_state_90",
]
KEYS = FIGURES.names()
# The files of a figure that draws several; another has one file, of its own name.
FAMILIES = {
    "model_comparison": ["adamw_model_comparison", "adamwprune_model_comparison"],
    "accuracy_evolution": ["adamw_accuracy_evolution", "adamwprune_accuracy_evolution"],
    "run": IDS,
}
MEMORY = [key for key in KEYS if "memory" in key and key != "memory_ledger"]  # that show memory as it was sampled


@pytest.fixture(scope="module")
def recorded() -> Results:
    return changed(results.load(FIXTURE), inferred)


class Drawn(dict):
    """key -> [(stem, Figure)], drawn when first asked for."""

    def __init__(self, found: Results):
        self.found = found

    def __missing__(self, key: str) -> list:
        self[key] = list(FIGURES[key](self.found))
        return self[key]


@pytest.fixture(scope="module")
def drawn(recorded) -> Drawn:
    return Drawn(recorded)


def inferred(r: Run) -> dict:
    """As if inference had been measured."""
    speeds = {b: 1e3 * b**0.8 for b in (1, 4, 16, 64)}
    speed = [Inference(batch=b, latency_ms=1.0, samples_per_s=s, memory_mib=None) for b, s in speeds.items()]
    return {"inference": speed, "inference_memory_mean": r.train_memory_mean - 20}


def changed(found: Results, change) -> Results:
    """The results with other records; `change` takes a run and gives the fields to set, or None to leave it out."""
    runs = ((r, change(r)) for r in found)
    return replace(found, runs=tuple(replace(r, **new) for r, new in runs if new is not None))


def copies(found: Results, *changes: dict) -> Results:
    """Every run once for each change."""
    return replace(found, runs=tuple(replace(r, **new) for r in found for new in changes))


def stems(key: str, found: Results) -> tuple[list[str], str]:
    """What a figure yields, and why it left something out."""
    names, generator = [], FIGURES[key](found)
    try:
        for stem, _ in generator:
            names.append(stem)
    except Skip as why:
        return names, str(why)
    return names, ""


def texts(fig) -> str:
    from matplotlib.text import Text

    return "\n".join(t.get_text() for t in fig.findobj(Text))


def set_epochs(found: Results, **values) -> Results:
    """The results with these values in every epoch."""
    return changed(found, lambda r: {"evaluations": tuple(replace(e, **values) for e in r.evaluations)})


def test_graphs_in_kconfig_are_figures():
    symbols = [s.name for s in kconfig.tree().unique_defined_syms if s.name.startswith("GRAPH_")]
    assert sorted(s.removeprefix("GRAPH_").lower() for s in symbols) == FIGURES.names()


@pytest.mark.parametrize("key", KEYS)
def test_files_of_a_figure(drawn, key):
    assert [stem for stem, _ in drawn[key]] == FAMILIES.get(key, [key])


def test_every_family_is_of_a_figure():
    assert FAMILIES.keys() <= set(KEYS)


def test_everything_selected_is_written(recorded, tmp_path):
    root = tmp_path / "results"
    shutil.copytree(FIXTURE, root)
    GraphFolder(root / "graphs").save(Figure(), "stale")
    (root / "graphs" / "mine.png").write_bytes(b"")
    some = {f"GRAPH_{k.upper()}": "y" if k in ("gpu_memory_timeline", "accuracy_evolution") else "n" for k in KEYS}
    found = replace(recorded, root=root, config=recorded.config.replace(some))
    files, skipped = base.render_all(found)
    assert [f.stem for f in files] == ["gpu_memory_timeline", *FAMILIES["accuracy_evolution"]]
    assert skipped == []
    kept = ["mine.png", "written.json"]
    assert sorted(p.name for p in (root / "graphs").iterdir()) == sorted([f.name for f in files] + kept)
    for file in files:
        data = file.read_bytes()
        assert data.startswith(b"\x89PNG") and len(data) > 10_000


class Pictured:
    """A figure that is drawn at once; `then` is done when it is."""

    def __init__(self, then=lambda: None):
        self.then = then

    def savefig(self, file, **_):
        file.write(b"picture")
        self.then()


def test_a_report_that_is_killed_leaves_nothing_that_is_not_of_this_program(tmp_path):
    """Whenever it is killed: while it draws, or between two pictures."""

    def killed():
        raise KeyboardInterrupt

    GraphFolder(tmp_path).save(Pictured(), "a")
    (tmp_path / ".b.png.1.part").write_bytes(b"half of one")
    with pytest.raises(KeyboardInterrupt):
        GraphFolder(tmp_path, keep=True).save(Pictured(killed), "a")
    for before in (True, False):  # the record of it is written
        GraphFolder(tmp_path, keep=True).save(Pictured(), "a")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(folder, "write_record", lambda *it, b=before: (b or write_record(*it), killed()))
            with pytest.raises(KeyboardInterrupt):
                GraphFolder(tmp_path, keep=True).save(Pictured(), "a")
    made = GraphFolder(tmp_path)
    for stem in "ab":
        made.save(Pictured(), stem)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png", "written.json"]
    (tmp_path / "b.png").write_bytes(b"mine")
    with pytest.raises(InputError, match="b.png is not of this program"):
        GraphFolder(tmp_path).save(Pictured(), "b")


@pytest.mark.parametrize("call", ["unlink", "replace", "open"])
def test_a_folder_that_cannot_be_written_is_an_input_error(tmp_path, monkeypatch, call):
    GraphFolder(tmp_path).save(Pictured(), "a")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, call, refuse)
    with pytest.raises(InputError, match=r"cannot write .*: Permission denied"):
        GraphFolder(tmp_path, keep=True).save(Pictured(), "a")
        GraphFolder(tmp_path).save(Pictured(), "a")


def test_a_foreign_picture_costs_no_other_of_its_kind(recorded, tmp_path, monkeypatch):
    (tmp_path / "graphs").mkdir()
    (tmp_path / "graphs" / "b.png").write_bytes(b"mine")
    monkeypatch.setattr(base, "selected", lambda _: ["accuracy_evolution"])
    monkeypatch.setitem(FIGURES._records, "accuracy_evolution", lambda _: [(s, Pictured()) for s in "abc"])
    files, [(stem, why)] = base.render_all(replace(recorded, root=tmp_path))
    assert ([f.stem for f in files], stem) == (["a", "c"], "b")
    assert "is not of this program" in why


@pytest.mark.parametrize("key", KEYS)
def test_a_figure_fits_its_page(drawn, key):
    fits(*drawn[key][-1])


@pytest.mark.parametrize("key", ["training_memory_comparison", "gpu_memory_timeline", "memory_vs_accuracy_scatter"])
def test_many_runs_fit_a_page(recorded, key):
    """Six optimizers, two seeds, and long names."""
    many = copies(recorded.where(optimizer="adamw"), *({"optimizer": o} for o in recorded.order("optimizer")[:5]))
    state = recorded.where(optimizer="adamwprune")
    bases = copies(state, *({"adamwprune_base": b} for b in recorded.order("adamwprune_base")))
    both = replace(recorded, runs=many.runs + bases.runs)
    fits(*next(FIGURES[key](copies(both, {}, {"seed": 1}))))


def fits(stem: str, fig) -> None:
    """No panel is empty, none reaches over the page, over another, over the legends or the small print."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(fig).draw()
    renderer = fig.canvas.get_renderer()
    panels = [ax.get_tightbbox(renderer) for ax in fig.axes]
    around = [a.get_window_extent(renderer) for a in (*fig.texts, *fig.legends)]
    for i, (ax, box) in enumerate(zip(fig.axes, panels, strict=True)):
        name = f"{stem}: panel {i}, {ax.get_title(loc='left')!r},"
        assert ax.lines or ax.collections or ax.patches or ax.texts, f"{name} is empty"
        assert ax.get_title(loc="left") or len(fig.axes) == 1, f"{name} has no title"
        assert box.x0 >= 0 and box.x1 <= fig.bbox.x1, f"{name} is cut off"
        assert not any(overlap(box, other) for other in around), f"{name} runs into the page's own text"
        assert not any(overlap(box, other) for other in panels[:i]), f"{name} runs into another"
    for i, box in enumerate(around):
        assert box.x0 >= 0 and box.x1 <= fig.bbox.x1 and box.y0 >= 0 and box.y1 <= fig.bbox.y1
        assert not any(overlap(box, other) for other in around[:i]), f"{stem}: text runs into text"


def overlap(a, b, slack: float = 3) -> bool:
    """Whether two boxes share more than `slack` pixels."""
    return min(a.x1, b.x1) - max(a.x0, b.x0) > slack and min(a.y1, b.y1) - max(a.y0, b.y0) > slack


@pytest.mark.parametrize("key", MEMORY)
def test_memory_says_where_it_was_read(drawn, key):
    """On a CPU the tensors, and the process beside them; over time, and in inference, the process alone."""
    text = texts(drawn[key][0][1])
    assert ("tensors of training, MiB" in text) == (key not in ("gpu_memory_timeline", "training_inference_memory"))
    assert ("host process RSS, MiB" in text) == (key != "memory_vs_accuracy_scatter")


NVIDIA = "NVIDIA process memory"


def on_gpu(r: Run) -> dict:
    """As if a GPU's driver had reported the memory."""
    return {"memory_source": NVIDIA, "compared_source": NVIDIA, "compared_memory": r.train_memory_mean}


def test_on_a_gpu_memory_is_the_processs(recorded):
    _, fig = next(FIGURES["memory_vs_accuracy_scatter"](changed(recorded, on_gpu)))
    assert f"{NVIDIA}, MiB, mean over training" in texts(fig)


def test_the_foot_says_under_what_conditions(drawn, recorded):
    text = texts(drawn["gpu_memory_comparison"][0][1])
    commit = recorded.provenance.commit[:7]
    assert f"lenet5 on digits; n = 1 seed (0); 360 steps of 64 samples; CPU; commit {commit}." in text.replace(
        "\n", " "
    )
    dirty = changed(recorded, lambda r: {"provenance": replace(r.provenance, dirty="abc")})
    assert f"commit {commit} with local changes" in next(families(dirty)).foot()


def test_the_ledger_stacks_what_was_measured(drawn, recorded):
    """The bars of a row end where the tensors do, and the stroke of the prediction is there too."""
    _, fig = drawn["memory_ledger"][0]
    for r, row in zip(recorded, sorted({p.get_y() for p in fig.axes[0].patches}), strict=True):
        bars = [p for p in fig.axes[0].patches if p.get_y() == row]
        tensors = r.ledger.tensors()
        assert sum(p.get_width() for p in bars) * MIB == pytest.approx(sum(tensors.values()) - tensors["data"])
    assert all(len(set(line.get_xdata())) == 1 for line in fig.axes[0].lines)
    assert "3.00 | 43%" in texts(fig)
    without = changed(recorded, lambda r: {"memory_multiple": None})
    assert stems("memory_ledger", without) == ([], "no run has a memory ledger")


@pytest.mark.parametrize("key", KEYS)
def test_without_a_finished_run(recorded, key):
    assert stems(key, changed(recorded, lambda r: {"status": "failed"})) == ([], "no run has finished")
    assert stems(key, replace(recorded, runs=())) == ([], "no run has finished")


@pytest.mark.parametrize("key", MEMORY)
def test_without_memory(recorded, key):
    names = "train_memory_mean train_memory_max memory_source compared_memory compared_source efficiency_per_100mib"
    none = dict.fromkeys(names.split())
    names, why = stems(key, changed(recorded, lambda r: none))
    assert names == [] and why == "no memory was recorded over the training phase of any run"
    if key == MEMORY[0]:
        _, fig = next(FIGURES["model_comparison"](changed(recorded, lambda r: none)))
        assert "Memory is not shown" in texts(fig) and "MiB" not in texts(fig)


def test_without_test_accuracy(recorded):
    none = {"test_accuracy_last": None, "efficiency_per_100mib": None}
    found = changed(recorded, lambda r: none)
    assert stems("memory_vs_accuracy_scatter", found) == ([], "no run has a test accuracy")
    assert stems("gpu_memory_comparison", found) == (["gpu_memory_comparison"], "")
    assert stems("run", found.where(id=IDS[1])) == ([IDS[1]], "")
    assert stems("model_comparison", found.where(optimizer="adamw")) == (["adamw_model_comparison"], "")


def test_without_validation(recorded):
    """Trained on everything: accuracy over epochs is that on test data, and without that there is none."""
    recorded = set_epochs(recorded, validation_accuracy=None, validation_loss=None)
    names, why = stems("accuracy_evolution", recorded)
    assert names == [] and why.startswith("adamw_accuracy_evolution, ") and "nothing was evaluated" in why
    assert stems("run", recorded.where(id=IDS[1])) == ([IDS[1]], "")
    untested = changed(recorded.where(id=IDS[1]), lambda r: {"test_accuracy_last": None})
    assert "no accuracy was recorded" in texts(next(FIGURES["run"](untested))[1])
    _, fig = next(FIGURES["model_comparison"](recorded))
    assert "Training loss" in texts(fig) and "Validation" not in texts(fig)
    _, fig = next(FIGURES["accuracy_evolution"](set_epochs(recorded, test_accuracy=97.0)))
    assert "test accuracy over training" in texts(fig)


def test_what_failed_is_left_out_and_named(recorded):
    found = changed(recorded, lambda r: {"status": "failed" if r.id == IDS[1] else "done"})
    found = replace(found, missing=("lenet5_adamw_movement_50",))
    fig = dict(FIGURES["gpu_memory_comparison"](found))["gpu_memory_comparison"]
    assert f"left out, failed: {IDS[1]}; 1 planned runs not run" in texts(fig).replace("\n", " ")
    assert "adamw magnitude 50%" not in texts(fig)
    found = changed(recorded, lambda r: {"status": "failed" if r.optimizer == "adamw" else "done"})
    assert stems("model_comparison", found) == (["adamwprune_model_comparison"], "adamw: no run has finished")


def test_data_sets_are_never_mixed(recorded):
    found = copies(recorded, {}, {"dataset": "mnist"})
    suffixes = ["_lenet5_digits", "_lenet5_mnist"]
    assert stems("gpu_memory_comparison", found)[0] == [f"gpu_memory_comparison{s}" for s in suffixes]
    assert stems("accuracy_evolution", found)[0] == [s + x for x in suffixes for s in FAMILIES["accuracy_evolution"]]
    failed = changed(found, lambda r: {"status": "failed"} if r.dataset == "mnist" else {})
    names, why = stems("gpu_memory_comparison", failed)
    assert names == ["gpu_memory_comparison_lenet5_digits"] and why == "lenet5 on mnist: no run has finished"


def test_memory_sources_are_never_mixed(recorded):
    found = changed(recorded, lambda r: on_gpu(r) if r.id == IDS[0] else {})
    suffixes = ["_nvidia_process_memory", "_tensors_of_training"]
    assert stems("memory_vs_accuracy_scatter", found)[0] == [f"memory_vs_accuracy_scatter{s}" for s in suffixes]
    _, fig = next(FIGURES["memory_vs_accuracy_scatter"](found))
    assert "left out, memory from tensors of training" in texts(fig) and f"{NVIDIA}, MiB" in texts(fig)
    _, fig = next(FIGURES["model_comparison"](found))
    assert "Memory is not shown" in texts(fig)


def test_seeds_are_one_setting(recorded):
    found = copies(recorded, {}, {"seed": 1, "test_accuracy_last": 90.0})
    family = next(families(found))
    assert len(family.settings) == len(IDS)
    first = family.settings[0]
    assert first.mean("test_accuracy_last") == (recorded.runs[0].test_accuracy_last + 90.0) / 2
    for key in (k for k in KEYS if k not in ("run", "audit_overlap")):
        _, fig = next(FIGURES[key](found))
        assert "n = 2 seeds (0, 1)" in texts(fig)


def test_other_budgets_are_marked(recorded):
    family = next(families(changed(recorded, lambda r: {"steps": 100} if r.id == IDS[1] else {})))
    assert family.odd == {IDS[1]}
    assert "360 steps of 64 or 100 steps of 64 samples" in family.foot() and "* Of other steps" in family.foot()
    family = next(families(changed(recorded, lambda r: {"achieved_sparsity": 0.4} if r.id == IDS[2] else {})))
    assert family.odd == {IDS[2]}
    assert not next(families(recorded)).odd


def test_colours_mean_the_same_everywhere(recorded):
    family = next(families(recorded))
    hues = family.hues("optimizer")
    for optimizer, hue in hues.items():
        assert hue == base.colour(recorded, "optimizer", optimizer)
        assert family.of(optimizer=optimizer).hues("optimizer") == {optimizer: hue}
    assert len(set(base.PALETTE[: len(recorded.order("optimizer"))]) | set(hues.values())) == 6
    methods = [base.colour(recorded, "pruning_method", m) for m in recorded.order("pruning_method")]
    assert not set(methods) & {base.colour(recorded, "optimizer", o) for o in recorded.order("optimizer")}


def test_lines_are_those_of_their_legend(drawn, recorded):
    """A sparsity's line has the colour of its entry. Dense runs alone are dotted."""
    fig = dict(drawn["accuracy_evolution"])["adamw_accuracy_evolution"]
    entries = {h.get_label(): h.get_color() for h in fig.legends[0].legend_handles}
    assert list(entries) == ["dense", "50%", "90%"]
    assert {line.get_color() for ax in fig.axes for line in ax.lines} == set(entries.values())
    family = next(families(recorded))
    assert [line_style(family, r, "#332288")["linestyle"] for r in recorded] == [DOTTED, DASHES[1], DASHES[0]] * 2


def test_a_grey_is_as_dark_as_the_hues_it_stands_for():
    assert neutral(["#332288", "#332288"]) == "#332288"
    assert neutral(["#000000", "#ffffff"]) == "#808080"
    assert DOTTED not in DASHES


def test_variants_are_told_apart(recorded):
    changes = [{"adamwprune_variant": f"bitter{i}"} for i in range(10)]
    state = copies(recorded.where(pruning_method="state"), *changes)
    family = next(families(state))
    assert max(Counter(family.hues("optimizer").values()).values()) == 1
    assert sorted(family.hues("optimizer").values()) == sorted(family.hues("pruning_method").values())
    assert list(arms(family))[:2] == ["adamwprune bitter0 state", "adamwprune bitter1 state"]
    for key in ("accuracy_evolution", "model_comparison", "gpu_memory_timeline"):
        assert stems(key, state)[1] == ""


def test_arms_hold_their_dense_run(recorded):
    found = {name: [s.r.id for s in settings] for name, settings in arms(next(families(recorded))).items()}
    assert found == {"adamw magnitude": IDS[:3], "adamwprune bitter7 state": IDS[3:]}
    alone = arms(next(families(recorded.where(pruning_method="none"))))
    assert list(alone) == ["adamw none", "adamwprune none"]


def test_a_single_run_is_drawn_without_panels_it_cannot_fill(recorded):
    one = recorded.where(id=IDS[0])
    for key in KEYS:
        names, why = stems(key, one)
        assert names and not why
    _, fig = next(FIGURES["training_memory_comparison"](one))
    assert len(fig.axes) == 5


def test_thinning_keeps_the_peak():
    samples = [(float(t), 100.0 + (t == 777)) for t in range(5000)]
    times, mib = thinned(samples)
    assert len(times) <= 600 and max(mib) == 101.0 and 777.0 in times


def test_names_are_those_of_run_ids(recorded):
    family = next(families(recorded))
    for r in recorded:
        assert "lenet5_" + re.sub("[ %]+", "_", family.name(r)).strip("_") == r.id


def test_the_audit_is_drawn_of_the_state_with_the_most_live_weights(recorded, drawn):
    [(_, fig)] = drawn["audit_overlap"]
    text = texts(fig).replace("\n", " ")
    assert f"What the scores would prune: {IDS[0]}, step 360" in text
    assert "61470 live weights of 61470; bitter4 by its own distribution" in text and "has 1 more state." in text
    headings = [ax.get_title(loc="left") for ax in fig.axes]
    assert headings[:2] == ["Kept sets at 50%: Jaccard", "Kept sets at 90%: Jaccard"]
    assert headings[2:] == ["All weights: Spearman's rank correlation"]
    for ax in fig.axes:
        names = [label.get_text() for label in ax.get_yticklabels()]
        assert names == [label.get_text() for label in ax.get_xticklabels()] and len(names) == 13
        cells = {t.get_position(): t.get_text() for t in ax.texts}
        assert cells[names.index("bitter3"), names.index("bitter8")] == cells[0, 0] == "="
        assert all(cells[j, i] == cells[i, j] for i, j in cells)
    [[_, other]] = FIGURES["audit_overlap"](recorded.where(id=IDS[2]))
    assert f"{IDS[2]}, step 360" in texts(other) and "6147 live weights of 61470" in texts(other)


def test_an_audit_that_is_not_there_or_of_other_runs(recorded, tmp_path):
    assert stems("audit_overlap", replace(recorded, root=tmp_path)) == ([], "no audit.json: run `make audit`")
    names, why = stems("audit_overlap", recorded.where(id=IDS[1]))
    assert (names, why) == ([], "audit.json is of runs that are not here: run `make audit`")


@pytest.mark.parametrize(
    ("value", "text"),
    [(1, "="), (0.99996, ".99"), (0.5, ".50"), (0.0, ".00"), (-0.305, "-.30"), (-1, "-1"), (None, "-")],
)
def test_digits_of_a_heat_map_are_cut(value, text):
    assert cell(value) == text


def test_figures_are_registered_without_torch_and_matplotlib():
    code = (
        "import sys; sys.modules.update(torch=None, matplotlib=None, numpy=None)\n"
        "from lib.figure.base import FIGURES\n"
        "print(*FIGURES.names())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == KEYS


def test_a_run_within_its_first_epoch_fills_its_panels(recorded):
    r = next(x for x in recorded if x.events)
    steps = max(e.step for e in r.evaluations)
    r = replace(r, start=replace(r.start, steps_per_epoch=10 * steps))
    found = replace(recorded, runs=(r,), missing=())
    ((_, fig),) = FIGURES["run"](found)
    assert fig.axes[0].get_xlim() == pytest.approx((0, 0.102))
