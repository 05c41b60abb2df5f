"""The audit of a results directory: from checkpoints to audit.json, and what the report says of it."""

import pytest
import results_kit
import torch

from lib import audit, checkpoint, kconfig, report, results, rundir
from lib.config import InputError
from lib.files import read_record, write_record
from lib.hyper import Recipe
from lib.optim.base import OPTIMIZERS, Hyper, decay_groups
from lib.prune.importance import IMPORTANCE
from lib.prune.kernel.pruner import prunable
from lib.records import Audit, RunScores, ScoresAt
from lib.remarks import remarks
from lib.rundir import ROOT

DENSE, PRUNED = "lenet5_adamw_none", "lenet5_adamwprune_bitter7_state_70"


@pytest.fixture(autouse=True)
def quiet(one_thread):
    pass


@pytest.fixture
def root(tmp_path, quickstart):
    """A results directory of the quickstart in which nothing has run."""
    return results_kit.make_root(tmp_path / "results", quickstart)


def task(model):
    from lenet5.model import LeNet5
    from lib.task import Classification

    assert model == "lenet5"
    return Classification("lenet5", LeNet5)


def finish(root, name, optimizer="adamw", steps=3, gone=0.0):
    """What a finished run leaves, from a few steps on noise; the share `gone` of every prunable weight is pruned."""
    run = rundir.RunDir(root / name)
    torch.manual_seed(len(name))
    model = task("lenet5").model("digits", Recipe())
    groups = decay_groups(model.named_parameters(), 0.01)
    optim = OPTIMIZERS[optimizer].build(groups, Hyper(1e-3, 0.01), lambda cls: cls(), "")
    for _ in range(steps):
        model(torch.randn(16, 1, 32, 32)).square().mean().backward()
        optim.step()
        optim.zero_grad()
    for _, p in prunable(model):
        dead = torch.rand(p.shape) < gone
        for t in (p.data, *(optim.state[p][k] for k in ("exp_avg", "exp_avg_sq") if k in optim.state[p])):
            t.masked_fill_(dead, 0)
    checkpoint.save(run.last, {"model": model.state_dict(), "optimizer": optim.state_dict()})
    results_kit.finish(
        root, name, monitor=None, prunable_parameters=61470, achieved_sparsity=0.0, model_parameters=61750
    )
    return model, optim


def audited(root, quiet=lambda line: None):
    return audit.audit(results.load(root), task, quiet)


def test_a_checkpoint_gives_every_weight_its_own_moments(root):
    model, optim = finish(root, DENSE)
    group, found = audit.moments(rundir.RunDir(root / DENSE).last, task("lenet5").model("digits", Recipe()))
    assert (group["step"], group["beta1"]) == (3, 0.9)
    assert [row[0] for row in found] == [name for name, _ in prunable(model)]
    for (_, w, m, v), (_, p) in zip(found, prunable(model), strict=True):
        assert torch.equal(w, p) and torch.equal(m, optim.state[p]["exp_avg"])
        assert torch.equal(v, optim.state[p]["exp_avg_sq"])


def test_the_record(root):
    finish(root, DENSE)
    finish(root, PRUNED, gone=0.7)
    said = []
    record = audited(root, said.append)
    assert [s.run for s in record.states] == [DENSE, PRUNED]
    assert record.sparsities == [0.5, 0.7, 0.9]
    assert record.provenance.commit == record.commit
    assert sorted(record.scores) == IMPORTANCE.names()
    here = kconfig.load(ROOT / "defconfigs" / "lenet5-adamwprune").members("ADAMWPRUNE_VARIANT")
    assert record.scores == here != sorted(here)
    dense, pruned = record.states
    assert dense.live == dense.weights == pruned.weights == 61470
    assert 0.28 * 61470 < pruned.live < 0.32 * 61470
    assert [at.pruned for at in pruned.at] == [round(s * pruned.live) for s in record.sparsities]
    assert said == [f"audited:  {s.run}: step 3, {s.live} live weights" for s in record.states]
    write_record(root / audit.FILE, record)
    assert read_record(Audit, root / audit.FILE) == record


def test_runs_without_adam_state_are_left_out_by_name(root):
    finish(root, DENSE)
    finish(root, "lenet5_adamw_magnitude_50", optimizer="sgd")
    finish(root, "lenet5_adamw_magnitude_70", steps=0)
    finish(root, "lenet5_adamw_magnitude_90")
    (root / "lenet5_adamw_magnitude_90" / "checkpoint-last.pt").unlink()
    (root / "lenet5_adamw_movement_50" / "error.txt").write_text("it broke\n")
    record = audited(root)
    assert [s.run for s in record.states] == [DENSE]
    reasons = {s.run.removeprefix("lenet5_adamw_"): s.reason for s in record.skipped}
    assert reasons["magnitude_50"] == "its optimizer keeps momentum_buffer and no exp_avg and exp_avg_sq"
    assert reasons["magnitude_70"].startswith("step 0: no update was made")
    assert reasons["magnitude_90"] == "checkpoint-last.pt is not there"
    assert reasons["movement_50"] == "failed"


def test_nothing_to_audit(root):
    with pytest.raises(InputError, match="has nothing to audit.*: no run has been started"):
        audited(root)
    finish(root, DENSE, optimizer="sgd")
    with pytest.raises(
        InputError, match=f"{root} has nothing to audit.*: {DENSE}: its optimizer keeps momentum_buffer"
    ):
        audited(root)


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "part"])
def test_a_damaged_checkpoint_is_named(root, damage):
    finish(root, DENSE)
    path = root / DENSE / "checkpoint-last.pt"
    if damage == "part":
        checkpoint.save(path, {"model": {}})
    else:
        whole = path.read_bytes()
        path.write_bytes({"cut": whole[: len(whole) // 2], "text": b"no checkpoint", "empty": b""}[damage])
    results_kit.finish(root, DENSE, prunable_parameters=61470)  # its digest is that of the damaged file
    with pytest.raises(InputError, match=f"{path} is damaged .*: remove {DENSE}/summary.json and `make continue`"):
        audited(root)


def test_a_damaged_checkpoint_costs_no_other_run_its_audit(root):
    """And the report says what a look at the file's size says."""
    other = "lenet5_adamw_magnitude_50"
    for name in (DENSE, other):
        finish(root, name)
    path = root / other / "checkpoint-last.pt"
    with path.open("ab") as file:
        file.write(b"more")
    record = audited(root)
    assert [s.run for s in record.states] == [DENSE]
    reasons = {s.run: s.reason for s in record.skipped}
    assert reasons[other].startswith(f"{path} is damaged (it was changed after it was written")
    found = {r.id: r.problems for r in results.load(root)}
    assert found[DENSE] == () and found[other][0].startswith("checkpoint-last.pt was changed after it was written; ")
    path.unlink()
    assert f"- {other}: checkpoint-last.pt is not there any more" in list(remarks(results.load(root)))


@pytest.mark.parametrize("other", ["wider", "deeper"])
def test_a_checkpoint_of_another_model_is_named(root, other):
    from torch import nn

    finish(root, DENSE)
    model = task("lenet5").model("digits", Recipe())
    model[13] = nn.Linear(84, 11) if other == "wider" else nn.Sequential(nn.Linear(84, 9), nn.Linear(9, 10))
    with pytest.raises(audit.Unaudited, match=f"{root / DENSE / 'checkpoint-last.pt'} is of another model"):
        audit.moments(rundir.RunDir(root / DENSE).last, model)


def record_of(*states, scores="a b c d", sparsities=(0.5,)):
    """An audit whose states are (kept Jaccard, rank correlation) of the pairs a-b, a-c, a-d, b-c, b-d, c-d."""

    def square(values):
        upper = iter(values)
        m = [[1.0] * 4 for _ in range(4)]
        for i in range(4):
            for j in range(i + 1, 4):
                m[i][j] = m[j][i] = next(upper)
        return m

    names = scores.split()
    none = {"step": 1, "beta1": 0.9, "weights": 9, "live": 9, "ranked": 9, "v_zero": 0.0, "v_lost": 0.0}
    zero = dict.fromkeys(names, 0)

    def at(share, kept):
        return ScoresAt(sparsity=share, pruned=1, ties=zero, jaccard_pruned=square(kept), jaccard_kept=square(kept))

    made = [
        RunScores(
            run=f"run{n}",
            scores=names,
            spearman=square(spearman),
            at=[at(s, kept) for s in sparsities],
            lost=zero,
            **none,
        )
        for n, (kept, spearman) in enumerate(states)
    ]
    here = results_kit.PROVENANCE
    return Audit(commit=None, provenance=here, states=made, scores=names, sparsities=list(sparsities), skipped=[])


def test_one_method_under_two_names_is_said():
    low = [0.5, 0.4, 0.3, 0.2, 1.0, 0.1]
    found = list(audit.findings(record_of((low, low), (low, low), sparsities=(0.5, 0.9))))
    assert found == [
        "b and d chose the same mask in all 2 audited states at 50% and 90%: one method under 2 names.",
        "Jaccard index of every two other kept sets: from 0.100 (c and d in run0 at 50%) to 0.500 (a and b in run1 at "
        "90%).",
    ]


@pytest.mark.parametrize("turn", [1, -1])
def test_a_mask_that_differs_once_is_another(turn):
    same, once = [0.5, 0.4, 0.3, 0.2, 1.0, 0.1], [0.5, 0.4, 0.3, 0.2, 0.9999, 0.1]
    found = "\n".join(audit.findings(record_of(*[(same, same), (once, same)][::turn])))
    assert "same mask" not in found
    assert "b and d rank the weights alike in all 2 audited states: what differs is the share each layer" in found
    assert "b and d hardly differ: the Jaccard index of their kept sets is at least 0.9999." in found
    assert "to 0.500 (a and b in run1" in found


def test_three_names_of_one_method_are_one_sentence():
    values = [1.0, 0.4, 1.0, 0.4, 1.0, 0.4]
    found = list(audit.findings(record_of((values, values))))
    assert found[0] == "a, b and d chose the same mask in the one audited state at 50%: one method under 3 names."
    assert len(found) == 2
    everything = [1.0] * 6
    [only] = audit.findings(record_of((everything, everything)))
    assert only.startswith("a, b, c and d chose the same mask")


@pytest.mark.parametrize(("value", "text"), [(0.5, "0.500"), (0.9994, "0.999"), (0.99996, "0.99996"), (1.0, "1.000")])
def test_what_is_below_one_reads_so(value, text):
    assert audit.below_one(value) == text


def test_the_report_says_what_the_audit_found(root):
    finish(root, DENSE)
    finish(root, PRUNED, gone=0.7)
    written = report.write(results.load(root), graphs=False)
    assert "Audit of the scores" not in written.text.read_text() + written.markdown.read_text()
    write_record(root / audit.FILE, audited(root))
    written = report.write(results.load(root), graphs=False)
    for text in (written.text.read_text(), written.markdown.read_text()):
        assert "- bitter3 and bitter8 chose the same mask in all 2 audited states at 50%, 70% and 90%" in text
        assert "- Jaccard index of every two other kept sets: from 0." in text
    assert "## Audit of the scores" in written.markdown.read_text()


def test_a_damaged_audit_costs_no_report(root):
    finish(root, DENSE)
    (root / audit.FILE).write_text('{"schema": 1, "st')
    text = report.write(results.load(root), graphs=False).text.read_text()
    assert f"{root / audit.FILE}: it is no JSON at line 1" in text and "run `make audit` again" in text
    assert DENSE in text


def test_a_checkpoint_that_was_changed_is_named(root):
    """Values in it, so that it still loads."""
    finish(root, DENSE)
    path = root / DENSE / "checkpoint-last.pt"
    state = torch.load(path, weights_only=True)
    next(iter(state["model"].values())).view(-1)[0] += 1
    checkpoint.save(path, state)
    with pytest.raises(InputError, match=f"{path} is damaged .it was changed after it was written"):
        audited(root)


def test_the_table_of_a_state(root):
    finish(root, DENSE)
    [state] = audited(root).states
    lines = list(audit.table(state))
    assert lines[0].startswith(f"{DENSE}: step 3, 61470 of 61470 weights live; exp_avg_sq is 0 for ")
    assert sum("below the diagonal kept sets" in line for line in lines) == 3
    rows = [line.split() for line in lines if " bitter8 " in line]
    assert [row[2 + 3] for row in rows[:3]] == ["="] * 3  # the fourth column is bitter3
    assert all(len(line) <= 120 for line in lines)
    first, last = ([line.split() for line in lines if f" {name} " in line][2] for name in ("bitter0", "fisher"))
    at, end = state.at[2], len(state.scores) - 1
    kept, pruned = int(100 * at.jaccard_kept[end][0]), int(100 * at.jaccard_pruned[0][end])
    assert (int(last[2]), int(first[-1])) == (kept, pruned) and kept < pruned


def test_make_audit(root, repo):
    finish(root, DENSE)
    done = repo.make("audit", f"RESULTS={root}")
    assert done.returncode == 0, done.stderr
    assert "bitter3 and bitter8 chose the same mask in the one audited state" in done.stdout
    assert audit.load(root).states[0].run == DENSE
    assert (root / "graphs" / "audit_overlap.png").read_bytes().startswith(b"\x89PNG")


def test_make_audit_says_what_is_wrong(root, repo):
    for args, says in (
        ([], "there are no results yet"),
        ([f"RESULTS={root}"], f"{root} has nothing to audit"),
        ([f"RESULTS={root}", "EPOCHS=3"], "EPOCHS: a results directory goes on with"),
    ):
        done = repo.make("audit", *args)
        assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr
