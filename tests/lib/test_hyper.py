"""Lengths and learning rates: arithmetic that can be checked by hand."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import hyper
from lib.config import Config, InputError
from lib.hyper import Recipe, learning_rate, length


def recipe(**values) -> Recipe:
    return dataclasses.replace(Recipe(epochs=10, batch_size=64), **values)


@pytest.mark.parametrize(
    ("values", "max_iters", "samples", "steps", "per_epoch", "evaluations", "scale"),
    [
        ({}, 0, 1197, 180, 18, 10, 1.0),
        ({"epochs": 1}, 0, 1197, 18, 18, 1, 1.0),
        ({}, 3, 1197, 3, 18, 1, 1.0),  # no RECIPE_EPOCHS: nothing says that it was shortened
        ({"recipe_epochs": 10}, 3, 1197, 3, 18, 1, 3 / 180),
        ({"recipe_epochs": 10}, 19, 1197, 19, 18, 2, 19 / 180),
        ({"epochs": 2, "recipe_epochs": 10}, 0, 1197, 36, 18, 2, 0.2),
        ({"epochs": 20, "recipe_epochs": 10}, 0, 1197, 360, 18, 20, 1.0),  # longer is not stretched
        ({"batch_size": 5000}, 0, 1197, 10, 1, 10, 1.0),  # one batch of all there is
        ({"batch_size": 1197}, 0, 1197, 10, 1, 10, 1.0),
        ({"batch_size": 1198 // 2}, 0, 1197, 10, 1, 10, 1.0),
    ],
)
def test_length(values, max_iters, samples, steps, per_epoch, evaluations, scale):
    found = length(recipe(**values), max_iters, samples)
    assert (found.steps, found.steps_per_epoch, found.evaluations) == (steps, per_epoch, evaluations)
    assert found.scale == pytest.approx(scale)


@pytest.mark.parametrize(
    ("step", "total", "warmup", "schedule", "final", "factor"),
    [
        (1, 100, 0, "cosine", 0.0, 1.0),
        (100, 100, 0, "cosine", 0.0, 0.0),
        (100, 100, 0, "cosine", 0.1, 0.1),
        (51, 101, 0, "cosine", 0.0, 0.5),
        (51, 101, 0, "cosine", 0.2, 0.6),
        (1, 100, 9, "cosine", 0.0, 0.1),
        (9, 100, 9, "cosine", 0.0, 0.9),
        (10, 100, 9, "cosine", 0.0, 1.0),
        (10, 100, 9, "constant", 0.0, 1.0),
        (100, 100, 9, "constant", 0.0, 1.0),
        (5, 100, 9, "constant", 0.0, 0.5),
        (1, 1, 0, "cosine", 0.0, 1.0),
    ],
)
def test_learning_rate(step, total, warmup, schedule, final, factor):
    assert learning_rate(step, total, warmup, schedule, final) == pytest.approx(factor)


@given(total=st.integers(1, 500), share=st.floats(0, 0.9), final=st.floats(0, 1))
def test_learning_rate_rises_then_falls(total, share, final):
    warmup = int(share * total)
    rates = [learning_rate(t, total, warmup, "cosine", final) for t in range(1, total + 1)]
    assert all(0 <= r <= 1 + 1e-12 for r in rates)
    assert all(a < b for a, b in zip(rates[:warmup], rates[1 : warmup + 1], strict=False))
    after = rates[warmup:]
    assert all(a >= b - 1e-12 for a, b in zip(after, after[1:], strict=False))
    assert math.isclose(max(rates), 1.0)
    if len(after) > 1:
        assert math.isclose(after[-1], final, abs_tol=1e-12)


def test_read_recipe_takes_the_models_own_symbols():
    values = {"LENET5_EPOCHS": "7", "RESNET18_EPOCHS": "8", "EPOCHS": "9", "LENET5_BATCH": "512"}
    assert hyper.read_recipe(Config(values, {}), "lenet5", "mnist") == Recipe(epochs=7, batch_size=512)


@pytest.mark.parametrize(("asked", "batches"), [("0", (512, 64, 512)), ("512", (512,) * 3), ("7", (7,) * 3)])
def test_a_data_set_has_a_batch_of_its_own_unless_one_is_set(asked, batches):
    """Whatever other data sets the matrix has; a newcomer has the model's."""
    values = {"LENET5_BATCH_SIZE": asked, "LENET5_BATCH": "512", "LENET5_BATCH_DIGITS": "64"}
    sets = ("mnist", "digits", "newcomer")
    assert tuple(hyper.read_recipe(Config(values, {}), "lenet5", d).batch_size for d in sets) == batches


@pytest.mark.parametrize(
    ("name", "value"),
    [("EPOCHS", "0"), ("BATCH_SIZE", "-1"), ("ADAM_LR", "0"), ("SGD_LR", "-1"), ("ADAM_BETA1", "1")]
    + [("LR_FINAL", "1.1"), ("ADAM_WEIGHT_DECAY", "-0.1"), ("LABEL_SMOOTHING", "1"), ("CLIP_NORM", "nan")]
    + [("ADAM_LR", "inf")],
)
def test_bounds_of_the_recipe(name, value):
    with pytest.raises(InputError, match=f"CONFIG_LENET5_{name}={value!r}: give a finite number"):
        hyper.read_recipe(Config({f"LENET5_{name}": value}, {}), "lenet5", "mnist")
