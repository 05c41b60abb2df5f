"""State pruning on a base that keeps one moment: scores that need no more run on it, the others are refused by name."""

import pytest
import torch
from train_kit import run

from lib import kconfig, ledger
from lib.config import InputError
from lib.matrix import plan
from lib.optim.base import OPTIMIZERS, Hyper, Optim
from lib.optim.kernel.base import Base
from lib.prune.importance import IMPORTANCE
from lib.records import Ledger
from lib.schema import parse

ONE_MOMENT = [n for n in IMPORTANCE if "exp_avg_sq" not in IMPORTANCE[n].needs]


class Lion(Base):
    """Chen et al. 2023 (arXiv 2302.06675), algorithm 2. The moment of a parameter is made at its first gradient."""

    def update(self, group, params, clip):
        for p in params:
            m = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
            p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * m.lerp(p.grad, 0.1).sign())
            m.lerp_(p.grad, 0.01)


def build(groups, hyper, read, base=""):
    return Lion(groups, {"lr": hyper.lr, "weight_decay": hyper.weight_decay}, hyper.clip_norm)


@pytest.fixture(autouse=True)
def lion(monkeypatch):
    """Under the name of a base that Kconfig knows."""
    record = Optim("adam", build, keeps=frozenset({"exp_avg"}), state=lambda read, base: {"exp_avg": 4})
    monkeypatch.setitem(OPTIMIZERS.load()._records, "adam", record)


def planned(*members, **symbols):
    lines = {"MODEL_LENET5": "y", "LENET5_DATASET_DIGITS": "y", "OPTIMIZER_ADAMWPRUNE": "y", "TARGET_SPARSITY": "0.5"}
    lines |= {"PRUNING_METHOD_STATE": "y", "ADAMWPRUNE_BASE_ADAM": "y", **dict.fromkeys(members, "y"), **symbols}
    return plan(kconfig.apply(None, [(k, v, "test") for k, v in lines.items()]))


def test_each_score_pairs_with_the_bases_that_keep_what_it_reads():
    variants = [f"ADAMWPRUNE_VARIANT_{n.upper()}" for n in IMPORTANCE]
    made = planned(*variants, "ADAMWPRUNE_BASE_ADAMW", "PRUNING_METHOD_NONE")
    pairs = {(s.adamwprune_base, s.adamwprune_variant) for s in made.specs}
    assert pairs == {("adamw", v) for v in ["", *IMPORTANCE]} | {("adam", v) for v in ["", *ONE_MOMENT]}
    assert "adamwprune x state: bitter7 reads exp_avg_sq, and adam keeps exp_avg" in made.left_out


def test_a_score_that_no_base_can_have_is_refused_before_anything_runs():
    with pytest.raises(InputError, match="BITTER7 ends in no run: adamwprune x state: bitter7 reads exp_avg_sq"):
        planned("ADAMWPRUNE_VARIANT_BITTER3", "ADAMWPRUNE_VARIANT_BITTER7")
    with pytest.raises(InputError, match="bitter7 reads exp_avg_sq, and adam keeps exp_avg"):
        planned()


@pytest.mark.parametrize("amsgrad", ["y", "n"])
def test_a_setting_that_the_base_has_not(amsgrad):
    with pytest.raises(InputError, match="ADAMWPRUNE_AMSGRAD is set, and the base adam has no AMSGrad: clear it"):
        planned("ADAMWPRUNE_VARIANT_BITTER3", ADAMWPRUNE_AMSGRAD=amsgrad)


@pytest.mark.parametrize("variant", ONE_MOMENT)
def test_it_reaches_its_sparsity_and_takes_what_is_predicted(tmp_path, variant):
    more = {"ADAMWPRUNE_BASE_ADAM": "y", f"ADAMWPRUNE_VARIANT_{variant.upper()}": "y", "PRUNING_AUDIT": "y"}
    r = run(tmp_path, "adamwprune", "state", "0.7", MAX_ITERS="12", LENET5_ADAM_LR="1e-4", **more)
    assert r.summary["status"] == "done" and r.summary["achieved_sparsity"] == round(0.7 * 61_470) / 61_470
    assert "exp_avg_sq" in r.prunes[-1]["audit"]["error"]
    found = parse(Ledger, r.summary["ledger"])
    assert list(ledger.unequal(found)) == [] and found.predicted.classes["masks"] == 61_470


def test_every_record_says_what_its_optimizer_can_tell():
    """Whether the state holds the mask is a fact of the record, for plans, and of the optimizer, for pruners."""
    for name in OPTIMIZERS:
        record = OPTIMIZERS[name]
        for base in ("adam", "adamw", "adamwadv", "adamwspam") if record.has_base else ("",):
            group = {"params": [torch.nn.Parameter(torch.ones(2, 2))], "weight_decay": 0.0}
            made = record.build([group], Hyper(1e-3), lambda cls: cls(), base)
            assert made.holds_masks == record.state_owner(base).holds_masks, (name, base)
