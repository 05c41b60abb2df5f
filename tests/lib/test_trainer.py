"""The training loop on embedded digits: what repeats, what arms share, what is best, and when it has diverged."""

import math
import os

import pytest
import torch
from train_kit import TASK, Like, Run, prepare, run

from lib import hyper
from lib.config import InputError
from lib.hyper import Recipe
from lib.optim.base import OPTIMIZERS
from lib.optim.kernel.adam import Adam
from lib.optim.kernel.sgd import SGD
from lib.trainer import Trainer, derive, train


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


ARMS = [
    ("sgd", "none", ""),
    ("adamw", "magnitude", "0.9"),
    ("adamwspam", "movement", "0.7"),
    ("adamwprune", "state", "0.9"),
]


@pytest.mark.parametrize("optimizer, method, sparsity", ARMS)
def test_the_same_spec_twice_is_bitwise_the_same(tmp_path, optimizer, method, sparsity):
    a, b = (run(tmp_path / x, optimizer, method, sparsity, MAX_ITERS="20") for x in "ab")
    assert a.exact() == b.exact()
    ours, theirs = a.last(), b.last()
    assert all(torch.equal(ours["model"][k], theirs["model"][k]) for k in ours["model"])
    assert a.summary["achieved_sparsity"] == (round(float(sparsity or 0) * 61_470) / 61_470)
    assert a.summary["status"] == "done" and a.summary["steps"] == 20


def test_adamwprune_without_pruning_is_its_base(tmp_path):
    for base in ("adam", "adamw", "adamwadv", "adamwspam"):
        theirs = run(tmp_path / base, base, MAX_ITERS="20")
        ours = run(tmp_path / f"prune-{base}", "adamwprune", MAX_ITERS="20", **{f"ADAMWPRUNE_BASE_{base.upper()}": "y"})
        told = ours.dir.spec().dict().keys()  # who it is; all the rest is what it did
        assert [{k: v for k, v in row.items() if k not in told} for row in ours.exact()] == [
            {k: v for k, v in row.items() if k not in told} for row in theirs.exact()
        ], base
        mine, its = ours.last()["model"], theirs.last()["model"]
        assert all(torch.equal(mine[k], its[k]) for k in its)


def first_losses(path, *args, **settings):
    """Losses of single steps, which the loop itself never fetches."""
    d, config, spec = prepare(path, *args, **settings)
    losses = []

    class Spy(Like):
        def loss(self, *given):
            found = TASK.loss(*given)
            losses.append(found.item())
            return found

    train(Spy(), d, config, spec)
    return losses


def test_arms_share_initial_weights_and_data_order(tmp_path):
    """The first loss is equal; later ones are not. Another seed has other weights and another order."""
    sgd = first_losses(tmp_path / "a", "sgd", MAX_ITERS="5")
    adamw = first_losses(tmp_path / "b", "adamw", "magnitude", "0.5", MAX_ITERS="5")
    state = first_losses(tmp_path / "c", "adamwprune", "state", "0.5", MAX_ITERS="5")
    other = first_losses(tmp_path / "d", "sgd", MAX_ITERS="5", SEEDS="1,")
    assert sgd[0] == adamw[0] == state[0] and sgd[1:] != adamw[1:]
    assert other[0] != sgd[0]


def test_the_order_is_that_of_the_epoch_not_of_what_was_drawn_before(tmp_path):
    """Batches of two arms are the same in the second epoch too, however many random numbers one has used."""
    seen = {}
    for optimizer in ("sgd", "adamwprune"):
        d, config, spec = prepare(tmp_path / optimizer, optimizer)
        labels = seen.setdefault(optimizer, [])

        class Spy(Like):
            name, load, model, evaluate = TASK.name, TASK.load, TASK.model, TASK.evaluate

            def batches(self, *given, labels=labels):
                for x, y in TASK.batches(*given):
                    labels.append(y)
                    yield x, y

            def loss(self, *given, optimizer=optimizer):
                if optimizer == "sgd":
                    torch.rand(7)
                return TASK.loss(*given)

        train(Spy(), d, config, spec)
    assert len(seen["sgd"]) > 36 and all(torch.equal(a, b) for a, b in zip(*seen.values(), strict=True))
    assert not torch.equal(seen["sgd"][0], seen["sgd"][18]), "each epoch has its own order"


def test_seeds_differ():
    purposes = [derive(seed, p) for seed in range(20) for p in ("init", "order/1", "order/2", "dropout")]
    assert len(set(purposes)) == len(purposes) and all(0 <= x < 2**63 for x in purposes)


@pytest.mark.parametrize("optimizer, method", [("adamw", "magnitude"), ("adamwprune", "state"), ("sgd", "movement")])
def test_best_is_chosen_after_the_last_event(tmp_path, optimizer, method):
    """95% after one epoch of many: the accuracy before is higher than after, and still it is not the best."""
    r = run(tmp_path, optimizer, method, "0.99", MAX_ITERS="0", LENET5_EPOCHS="5", PRUNING_RAMP_END="66")
    end = r.prunes[-1]["step"]
    assert end == 66  # in the fourth epoch of 18 steps
    late = [e for e in r.epochs if e["step"] >= end]
    assert len(r.epochs) == 5 and len(late) == 2
    assert max(e["validation_accuracy"] for e in r.epochs) > max(e["validation_accuracy"] for e in late)
    best = max(late, key=lambda e: e["validation_accuracy"])
    assert (r.summary["best_epoch"], r.summary["best_accuracy"]) == (best["epoch"], best["validation_accuracy"])
    assert {e["sparsity"] for e in late} == {r.summary["achieved_sparsity"]} == {round(0.99 * 61_470) / 61_470}
    kept = torch.load(r.dir.best, weights_only=True)
    zeros = sum(int((v == 0).sum()) for k, v in kept["model"].items() if v.ndim >= 2)
    assert kept["epoch"] == best["epoch"] and zeros == round(0.99 * 61_470)


@pytest.mark.parametrize("method, optimizer", [("magnitude", "sgd"), ("movement", "adamw"), ("state", "adamwprune")])
def test_one_epoch_reaches_its_target(tmp_path, method, optimizer):
    r = run(tmp_path, optimizer, method, "0.7", MAX_ITERS="0", LENET5_EPOCHS="1", LENET5_RECIPE_EPOCHS="10")
    assert (r.summary["steps"], r.start["scale"], len(r.epochs)) == (18, 0.1, 1)
    assert r.summary["achieved_sparsity"] == r.epochs[-1]["sparsity"] == round(0.7 * 61_470) / 61_470
    assert r.summary["best_epoch"] == 1


@pytest.mark.parametrize("steps", ["1", "2", "3"])
def test_the_shortest_runs_reach_their_target(tmp_path, steps):
    r = run(tmp_path, "adamwprune", "state", "0.9", MAX_ITERS=steps)
    assert r.summary["steps"] == int(steps) and r.summary["achieved_sparsity"] == round(0.9 * 61_470) / 61_470


def test_summary_is_written_last(tmp_path, monkeypatch):
    """Its presence means that the run finished: when it appears everything else is there, and is not touched again."""
    seen = {}
    write = os.replace

    def watch(source, target, *rest, **more):
        if str(target).endswith("summary.json"):
            seen.update({f.name: f.stat().st_mtime_ns for f in tmp_path.glob("*/*") if not f.name.startswith(".")})
        return write(source, target, *rest, **more)

    monkeypatch.setattr(os, "replace", watch)
    r = run(tmp_path, "adamw", "magnitude", "0.5")
    names = {"config", "spec.json", "metrics.jsonl", "checkpoint-last.pt", "checkpoint-best.pt"}
    assert seen.keys() == names and r.rows[-1]["event"] == "end"
    assert all((r.dir.path / n).stat().st_mtime_ns == t for n, t in seen.items())


def test_full_train_holds_nothing_out(tmp_path):
    r = run(tmp_path, "adamw", "magnitude", "0.5", FULL_TRAIN="y", MAX_ITERS="30")
    assert r.start["steps_per_epoch"] == (1197 + 300) // 64
    assert all(e["validation_accuracy"] is None and e["validation_loss"] is None for e in r.epochs)
    s = r.summary
    assert [s[k] for k in ("final_accuracy", "final_loss", "best_accuracy", "best_epoch", "test_accuracy_best")] == [
        None
    ] * 5
    assert [s[k] for k in ("std_last10", "peak_to_final", "peak_epoch")] == [None, None, None]
    assert s["test_accuracy_last"] > 10 and not r.dir.best.exists()


@pytest.mark.parametrize("each", ["y", "n"])
def test_test_data_each_epoch_only_when_asked(tmp_path, each):
    r = run(tmp_path, "adamw", TEST_EACH_EPOCH=each)
    tested = [e.get("test_accuracy") for e in r.epochs]
    assert len(tested) == 3
    assert r.summary["test_accuracy_optimistic"] == (max(tested) if each == "y" else None)
    assert (tested == [None] * 3) == (each == "n")


def test_test_each_epoch_changes_no_honest_figure(tmp_path):
    plain = run(tmp_path / "a", "adamw", "magnitude", "0.5")
    tested = run(tmp_path / "b", "adamw", "magnitude", "0.5", TEST_EACH_EPOCH="y")
    assert {k: v for k, v in plain.exact()[-1].items() if not k.endswith("_optimistic")} == {
        k: v for k, v in tested.exact()[-1].items() if not k.endswith("_optimistic")
    }


def test_last_and_best_are_tested_on_their_own_weights(tmp_path):
    """Test figures come from a second evaluation of the weights that the checkpoints hold."""
    r = run(tmp_path, "sgd", MAX_ITERS="90", LENET5_SGD_LR="0.4", LENET5_LR_SCHEDULE_CONSTANT="y")
    data = TASK.load("digits", Recipe(), None, torch.device("cpu"), False)
    for which, file in (("last", r.dir.last), ("best", r.dir.best)):
        model = TASK.model("digits", Recipe())
        model.load_state_dict(torch.load(file, weights_only=True)["model"])
        found = TASK.evaluate(model, data.test, Recipe())
        assert r.summary[f"test_accuracy_{which}"] == found.accuracy
        assert r.summary[f"test_loss_{which}"] == found.loss
    assert r.summary["best_epoch"] < len(r.epochs), "the recipe should make the last epoch worse than the best"


@pytest.mark.parametrize(
    "optimizer, setting", [("adamw", {"LENET5_ADAM_LR": "1e30"}), ("sgd", {"LENET5_SGD_LR": "1e30"})]
)
def test_divergence_is_a_status(tmp_path, optimizer, setting):
    r = run(tmp_path, optimizer, LENET5_LR_WARMUP="0", **setting)
    assert r.summary["status"] == "diverged" and r.summary["reason"]
    assert r.rows[-1]["event"] == "end" and r.rows[-1]["status"] == "diverged"
    written = r.dir.metrics.read_text() + r.dir.summary.read_text()
    assert "NaN" not in written and "Infinity" not in written
    assert r.summary["test_accuracy_last"] is None and r.summary["steps"] < 40


class Poisoned(Like):
    """The task, with a loss that is not a number on the calls (from 1) in `bad`."""

    def __init__(self, bad):
        self.bad, self.calls = set(bad), 0

    def loss(self, *given):
        self.calls += 1
        return TASK.loss(*given) * (math.nan if self.calls in self.bad else 1.0)


def poisoned(path, bad, *args, **settings):
    d, config, spec = prepare(path, *args, **settings)
    train(Poisoned(bad), d, config, spec)
    return Run(d.path)


@pytest.mark.parametrize("bad, steps", [(range(1, 11), 10), (range(21, 31), 30)])
def test_ten_bad_steps_in_a_row_are_divergence(tmp_path, bad, steps):
    r = poisoned(tmp_path, bad, "adamw", MAX_ITERS="40")
    assert (r.summary["status"], r.summary["steps"], r.summary["skipped_steps"]) == ("diverged", steps, 10)
    assert "10 steps in a row" in r.summary["reason"]


@pytest.mark.parametrize(
    "optimizer, method, value, says",
    [
        ("sgd", "random", math.inf, "6 weights were not finite at step 10"),
        ("adamw", "movement", -math.inf, "6 weights were not finite at step 10"),
        ("adamw", "magnitude", math.nan, "a pruning score is not a number"),
    ],
)
def test_weights_that_are_not_finite_when_it_prunes(tmp_path, monkeypatch, optimizer, method, value, says):
    """What is pruned of them would be 0 from there on, and the run would look as if nothing had been."""
    for cls in (Adam, SGD):

        def update(self, group, params, clip, plain=cls.update):
            plain(self, group, params, clip)
            if group["step"] == 10 and params[0].ndim == 4:
                params[0][:, 0, 0, 0] = value

        monkeypatch.setattr(cls, "update", update)
    settings = {"PRUNING_RAMP_END": "10", "PRUNING_SCHEDULE_ONE_SHOT": "y"}
    r = run(tmp_path, optimizer, method, "0.9", **settings)
    assert (r.summary["status"], r.summary["steps"]) == ("diverged", 10) and says in r.summary["reason"]


@pytest.mark.parametrize("bad", [{3}, {1, 20, 40}, {*range(2, 11), *range(12, 21)}])
def test_fewer_are_skipped_and_counted(tmp_path, bad):
    """Nine in a row, and the last step of an epoch and of the run: the run goes on and its losses stay numbers."""
    r = poisoned(tmp_path, bad, "adamwprune", "state", "0.7")
    assert (r.summary["status"], r.summary["skipped_steps"]) == ("done", len(bad))
    assert r.epochs[-1]["skipped"] == len(bad) and all(math.isfinite(e["train_loss"]) for e in r.epochs)
    assert r.summary["achieved_sparsity"] == round(0.7 * 61_470) / 61_470


def test_a_skipped_last_event_delays_the_best(tmp_path):
    """The ramp ends on the last step of an epoch, and that step is skipped: this epoch is not at the final sparsity."""
    settings = {"MAX_ITERS": "54", "PRUNING_RAMP_END": "36", "PRUNING_SCHEDULE_ONE_SHOT": "y"}
    plain = poisoned(tmp_path / "a", {}, "adamw", "magnitude", "0.99", **settings)
    r = poisoned(tmp_path / "b", {36}, "adamw", "magnitude", "0.99", **settings)
    target = round(0.99 * 61_470) / 61_470
    assert [e["sparsity"] == target for e in plain.epochs] == [False, True, True]
    assert [e["sparsity"] == target for e in r.epochs] == [False, False, True]
    assert r.epochs[1]["validation_accuracy"] > r.epochs[2]["validation_accuracy"]
    assert r.prunes[-1]["step"] == 37 and r.summary["best_epoch"] == 3


def test_a_last_event_on_a_skipped_last_step_is_made_up_for(tmp_path):
    r = poisoned(tmp_path, {40}, "adamwprune", "state", "0.7", PRUNING_RAMP_END="100%")
    assert r.summary["achieved_sparsity"] == r.epochs[-1]["sparsity"] == round(0.7 * 61_470) / 61_470
    assert r.summary["skipped_steps"] == 1 and r.prunes[-1]["step"] == 40 and r.summary["best_epoch"] == 3


def test_a_loss_that_is_the_mean_of_its_steps(tmp_path):
    losses = first_losses(tmp_path, "sgd", MAX_ITERS="18")
    (folder,) = tmp_path.iterdir()
    assert Run(folder).epochs[0]["train_loss"] == pytest.approx(sum(losses) / 18)


def test_the_learning_rate_of_each_step(tmp_path):
    """Warm-up and cosine on both groups alike, from the peak of the optimizer's own family."""
    d, config, spec = prepare(tmp_path, "adamwprune", MAX_ITERS="20", LENET5_LR_WARMUP="4", LENET5_ADAM_LR="0.01")

    class Silent:
        def phase(self, name):
            pass

        def stop(self):
            pass

    trainer = Trainer(TASK, spec, config, d, Silent())
    seen = []
    trainer.optimizer.on_updated.append(lambda: seen.append([g["lr"] for g in trainer.optimizer.param_groups]))
    trainer.run()
    want = [0.01 * hyper.learning_rate(t, 20, 4, "cosine", 0.0) for t in range(1, 21)]
    assert seen == [[x, x] for x in want]
    assert want[:5] == pytest.approx([0.002, 0.004, 0.006, 0.008, 0.01]) and want[-1] == 0.0


def test_adamwadv_replaces_schedule_and_clip(tmp_path):
    """Its definition says cosine and norm 1.0, whatever the recipe says; adamwprune on it does the same."""
    for name, base in (("adamwadv", {}), ("adamwprune", {"ADAMWPRUNE_BASE_ADAMWADV": "y"})):
        d, config, spec = prepare(tmp_path / name, name, LENET5_LR_SCHEDULE_CONSTANT="y", LENET5_CLIP_NORM="5", **base)
        trainer = Trainer(TASK, spec, config, d, None)
        assert trainer.lr_schedule == OPTIMIZERS["adamwadv"].replaces("")["lr_schedule"] == "cosine"
        assert {g["clip_norm"] for g in trainer.optimizer.param_groups} == {1.0}
        assert {g["amsgrad"] for g in trainer.optimizer.param_groups} == {True}
    d, config, spec = prepare(tmp_path / "w", "adamw", LENET5_LR_SCHEDULE_CONSTANT="y", LENET5_CLIP_NORM="5")
    trainer = Trainer(TASK, spec, config, d, None)
    assert trainer.lr_schedule == "constant" and {g["clip_norm"] for g in trainer.optimizer.param_groups} == {5.0}


def test_records_begin_with_the_start_though_rigl_prunes_at_step_0(tmp_path):
    rows = run(tmp_path, "adamw", "rigl", "0.9", MAX_ITERS="20")
    assert rows.rows[0]["event"] == "start" and rows.prunes[0]["step"] == 0 and rows.prunes[-1]["step"] == 15


def test_all_methods_share_their_events_on_spam(tmp_path):
    """Resets at 40 and 80 of 100 steps: magnitude on adamwspam and state on that base prune at the same steps."""
    spam = {"SPAM_DELTA_T": "40", "SPAM_WARMUP": "15", "MAX_ITERS": "100"}
    a = run(tmp_path / "a", "adamwspam", "magnitude", "0.9", **spam)
    b = run(tmp_path / "b", "adamwprune", "state", "0.9", ADAMWPRUNE_BASE_ADAMWSPAM="y", **spam)
    steps = [r["step"] for r in a.prunes]
    assert steps == [r["step"] for r in b.prunes]
    assert all(t < 40 or t % 40 >= 15 for t in steps) and steps[-1] == 75
    assert [r["pruned"] for r in a.prunes] == [r["pruned"] for r in b.prunes]


def test_resets_too_close_to_prune_are_refused(tmp_path):
    d, config, spec = prepare(tmp_path, "adamwspam", "magnitude", "0.9", SPAM_DELTA_T="120")
    with pytest.raises(InputError, match="SPAM_DELTA_T=120 with SPAM_WARMUP=150"):
        Trainer(TASK, spec, config, d, None)


def test_the_device_that_is_not_there_is_refused(tmp_path, monkeypatch):
    d, config, spec = prepare(tmp_path, "adamw", DEVICE_CPU="n", DEVICE_CUDA="y")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="DEVICE_CUDA"):
        Trainer(TASK, spec, config, d, None)


@pytest.mark.parametrize("method", ["set", "rigl"])
def test_what_was_grown_and_stays_0_is_live(tmp_path, method):
    """A unit that is dead passes no gradient to it; the run is at its target all the same."""
    r = run(tmp_path, "adamw", method, "0.9", MAX_ITERS="40")
    assert r.summary["achieved_sparsity"] == round(0.9 * 61_470) / 61_470
