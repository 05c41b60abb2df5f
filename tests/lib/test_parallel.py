"""Compiled training steps: the same run but for rounding; evaluations stay as they are."""

import pytest
from train_kit import run

from lib.config import InputError


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


def test_compiling_needs_a_compiler(tmp_path, monkeypatch):
    from lib import resolve
    from lib.runner import check

    monkeypatch.setattr(resolve, "COMPILER", "no-such-compiler")
    with pytest.raises(InputError, match="COMPILE_YES needs a C.. compiler, and no-such-compiler is not found"):
        check(config())


def config():
    from lib import kconfig

    lines = {"MODEL_LENET5": "y", "LENET5_DATASET_DIGITS": "y", "OPTIMIZER_SGD": "y", "PRUNING_METHOD_NONE": "y"}
    lines |= {"COMPILE_YES": "y", "DEVICE_CPU": "y"}
    return kconfig.apply(None, [(k, v, "test") for k, v in lines.items()])
