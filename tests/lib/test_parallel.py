"""Compiled training steps: the same run but for rounding; evaluations stay as they are."""

import pytest
from train_kit import run


@pytest.mark.slow
def test_compiled_steps_are_the_same_run(tmp_path):
    settings = {"MAX_ITERS": "8", "LENET5_BATCH_SIZE": "64", "PRUNING_FREQUENCY": "2", "PRUNING_WARMUP": "0"}
    plain = run(tmp_path / "plain", "sgd", "magnitude", "0.5", COMPILE_NO="y", **settings)
    compiled = run(tmp_path / "compiled", "sgd", "magnitude", "0.5", COMPILE_YES="y", **settings)
    assert (plain.summary["compiled"], compiled.summary["compiled"]) == (False, True)
    assert compiled.summary["achieved_sparsity"] == plain.summary["achieved_sparsity"]
    for a, b in zip(plain.epochs, compiled.epochs, strict=True):
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-3)
    a, b = plain.last()["model"], compiled.last()["model"]
    assert a.keys() == b.keys()
    assert max((a[k].double() - b[k].double()).abs().max() for k in a) < 1e-2
