"""Saved in the middle of the ramp, loaded into fresh objects, and from there bit for bit as if never stopped."""

import io

import pytest
import torch
from prune_kit import SPARSE, Session, digest, optimizer_for, pairs, same


def saved(session):
    file = io.BytesIO()
    torch.save(session.state(), file)
    file.seek(0)
    return file


def check(build, method, name, base="", **options):
    whole = Session(build, method, name, base, **options)
    whole.train(1, 40)
    target = round(whole.pruner.plan.schedule.target * whole.pruner.total)
    assert 0 < whole.pruner.count() <= target and not whole.pruner.finished
    if not whole.pruner.reversible:
        assert whole.pruner.count() < target
    kept, file = digest(whole.pruner), saved(whole)
    whole.train(41, 90)

    resumed = Session(build, method, name, base, seed=2, **options)
    resumed.load(torch.load(file, weights_only=True))
    assert digest(resumed.pruner) == kept
    before = len(resumed.rows)  # what is sparse from the start has had an event
    resumed.train(41, 90)
    same(whole.state(), resumed.state())
    later = resumed.rows[before:]
    assert later and whole.rows[-len(later) :] == later
    assert resumed.pruner.count() == target


@pytest.mark.parametrize("method, name, base", [p for p in pairs() if p[0] != "magnitude_one_shot"])
def test_stopped_and_continued_is_never_stopped(build, method, name, base):
    check(build, method, name, base)


@pytest.mark.parametrize("method", ["magnitude", "movement", "rigl"])
def test_with_amsgrad_and_clip(build, method):
    check(build, method, "adamwadv")


@pytest.mark.parametrize("variant", ["bitter2", "bitter4", "bitter8", "fisher"])
def test_with_other_scores(build, variant):
    check(build, "state", "adamwprune", "adamw", variant=variant)


@pytest.mark.parametrize("method", ["magnitude", "state", "movement", "random"])
def test_with_other_distributions(build, method):
    check(build, method, optimizer_for(method), distribution="erk", floor=0.05)
    check(build, method, optimizer_for(method), distribution="nm", pattern=(1, 2), target=0.5)


@pytest.mark.parametrize("method", ["magnitude", "state"])
def test_without_the_optimizers_state_there_is_no_mask(build, method):
    """What is pruned would train again, and the record would count it as pruned."""
    whole, resumed = (Session(build, method, optimizer_for(method), seed=s) for s in (1, 2))
    whole.train(1, 40)
    resumed.model.load_state_dict(whole.model.state_dict())
    resumed.pruner.load_state_dict(whole.pruner.state_dict())
    with pytest.raises(ValueError, match="the optimizer's state holds no mask: load it with the pruner's state"):
        resumed.train(41, 41)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_one_shot_stopped_before_and_after_its_event(build, name):
    for stop in (40, 80):
        whole, resumed = (Session(build, "magnitude_one_shot", name, seed=s) for s in (1, 2))
        whole.train(1, stop)
        assert whole.pruner.count() == (round(0.8 * whole.pruner.total) if stop == 80 else 0)
        resumed.load(torch.load(saved(whole), weights_only=True))
        whole.train(stop + 1, 90)
        resumed.train(stop + 1, 90)
        same(whole.state(), resumed.state())
        assert resumed.pruner.count() == round(0.8 * resumed.pruner.total)


@pytest.mark.parametrize("method", SPARSE)
def test_what_is_loaded_is_a_copy(build, method):
    name = optimizer_for(method)
    a, b = Session(build, method, name), Session(build, method, name, seed=2)
    a.train(1, 40)
    before = saved(a)
    b.load(a.state())
    b.train(41, 90)
    same(torch.load(before, weights_only=True), a.state())


@pytest.mark.parametrize("method", ["magnitude", "state", "movement"])
def test_a_checkpoint_at_the_end_stays_pruned(build, method):
    """Loaded into what was never pruned, nothing that is pruned moves again."""
    name = optimizer_for(method)
    a, b = Session(build, method, name), Session(build, method, name, seed=2)
    a.train(1, 90)
    kept = digest(a.pruner)
    b.load(torch.load(saved(a), weights_only=True))
    assert b.pruner.finished
    b.train(1, 30)
    assert digest(b.pruner) == kept and b.pruner.count() == round(0.8 * b.pruner.total)
    assert all(not p[~b.pruner.keep[n]].any() for n, p in b.pruner.weights)


def test_loading_a_state_from_before_the_first_event_takes_the_mask_away(build):
    a, b = (Session(build, "magnitude", "adamw", seed=s) for s in (1, 2))
    a.train(1, 5)
    b.train(1, 60)
    assert not a.pruner.count() and b.pruner.count()
    b.load(a.state())
    assert not b.pruner.count()
    a.train(6, 90)
    b.train(6, 90)
    same(a.state(), b.state())
