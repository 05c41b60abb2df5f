"""When and how far: shapes at known points, exact ends at every length of run, and SPAM's resets."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lib.config import InputError, Steps
from lib.optim.base import Resets
from lib.prune.base import PRUNERS, PruningOptions
from lib.prune.schedule import SHAPES, schedule

SPAM = Resets(500, 150)


def options(shape="cubic", warmup="", ramp_end="75%", frequency=""):
    return PruningOptions(
        pruning_schedule=shape,
        pruning_warmup=Steps(warmup),
        pruning_ramp_end=Steps(ramp_end),
        pruning_frequency=Steps(frequency),
    )


KNOWN = {
    "cubic": [0.0, 0.271, 0.875, 0.999, 1.0],
    "linear": [0.0, 0.1, 0.5, 0.9, 1.0],
    "cubic_late": [0.0, 0.001, 0.125, 0.729, 1.0],
    "one_shot": [0.0, 0.0, 0.0, 0.0, 1.0],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape):
    assert [SHAPES[shape](p) for p in (0.0, 0.1, 0.5, 0.9, 1.0)] == pytest.approx(KNOWN[shape])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_run_of_1000_steps(shape):
    """Warm-up 100, ramp end 750, an event every 50: thirteen, the last at 750; the share at each is the shape's."""
    s = schedule(options(shape), 0.8, 1000)
    assert (s.warmup, s.ramp_end, s.frequency, s.shape, s.target) == (100, 750, 50, shape, 0.8)
    want = [(t, 0.8 * SHAPES[shape]((t - 100) / 650)) for t in range(150, 751, 50)]
    want = [e for e in want if e[1] > 0]
    assert [t for t, _ in s.events] == [t for t, _ in want] and len(want) == (1 if shape == "one_shot" else 13)
    assert [x for _, x in s.events] == pytest.approx([x for _, x in want])
    assert s.events[-1] == (750, 0.8)


def test_defaults():
    """Warm-up min(100, 10% of T), ramp end 75% of T, frequency max(1, min(50, ramp / 10))."""
    for total, warmup, end, frequency in [(1, 0, 1, 1), (2, 0, 2, 1), (3, 0, 2, 1), (10, 1, 8, 1), (100, 10, 75, 6)] + [
        (360, 36, 270, 23),
        (1000, 100, 750, 50),
        (100_000, 100, 75_000, 50),
    ]:
        s = schedule(PruningOptions(), 0.5, total)
        assert (s.warmup, s.ramp_end, s.frequency) == (warmup, end, frequency), total
        assert s.events[-1] == (end, 0.5)


def test_counts_and_shares_of_the_run():
    s = schedule(options(warmup="20%", ramp_end="600", frequency="1%"), 0.5, 1000)
    assert (s.warmup, s.ramp_end, s.frequency) == (200, 600, 10)
    assert s.events[0][0] == 210 and len(s.events) == 40


def test_a_shortened_run_scales_counts_and_not_shares():
    full = schedule(options(warmup="200", ramp_end="800", frequency="20"), 0.5, 1000)
    short = schedule(options(warmup="200", ramp_end="800", frequency="20"), 0.5, 100, scale=0.1)
    assert [(t / 10, pytest.approx(x)) for t, x in full.events] == [(t, x) for t, x in short.events]
    assert schedule(options(warmup="20%"), 0.5, 100, scale=0.1).warmup == 20
    default = schedule(PruningOptions(), 0.5, 5000, scale=0.1)
    assert (default.warmup, default.frequency) == (10, 5)


def test_asked():
    s = schedule(options("linear", warmup="0", ramp_end="10", frequency="5"), 0.8, 12)
    assert [s.asked(t) for t in (0, 4, 5, 9, 10, 12)] == pytest.approx([0, 0, 0.4, 0.4, 0.8, 0.8])


@pytest.mark.parametrize("total", [1, 2, 3, 10])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_shortest_runs_reach_their_target(total, shape):
    s = schedule(options(shape), 0.9, total)
    assert s.events[-1] == (s.ramp_end, 0.9) and 1 <= s.ramp_end <= total


@pytest.mark.parametrize(
    "warmup, end",
    [("500", "500"), ("600", "500"), ("75%", "75%"), ("100%", "75%"), ("1000", ""), ("", "1001"), ("0", "2000")],
)
def test_lengths_that_do_not_fit(warmup, end):
    with pytest.raises(InputError, match=r"PRUNING_WARMUP=.*PRUNING_RAMP_END=.*1000 steps"):
        schedule(options(warmup=warmup, ramp_end=end), 0.5, 1000)


lengths = st.one_of(st.just(""), st.integers(0, 3000).map(str), st.integers(0, 100).map(lambda p: f"{p}%"))
resets = st.none() | st.builds(lambda wait, more: Resets(wait + more, wait), st.integers(1, 200), st.integers(1, 700))


@st.composite
def cases(draw):
    chosen = options(draw(st.sampled_from(sorted(SHAPES))), draw(lengths), draw(lengths), draw(lengths))
    total = draw(st.integers(1, 5000))
    scale = draw(st.just(1.0) | st.floats(0.001, 1.0))
    return chosen, draw(st.floats(0.01, 0.999)), total, scale, draw(resets)


def check(s, target, total, reset):
    steps, shares = zip(*s.events, strict=True)
    assert all(a < b for a, b in zip(steps, steps[1:], strict=False)), s
    assert all(a < b for a, b in zip(shares, shares[1:], strict=False)), s
    assert steps[0] >= 1 and steps[-1] <= s.ramp_end <= total and shares[0] > 0
    assert shares[-1] == target
    if reset is None:
        assert steps[-1] == s.ramp_end
        assert all((t - s.warmup) % s.frequency == 0 for t in steps[:-1])
        assert all(t > s.warmup for t in steps)
        return
    for t in steps:
        # The reset happens at the start of its step, the event after the update: with the reset step itself these
        # are the `wait` steps whose updates are scaled down.
        assert t < reset.interval or t % reset.interval >= reset.wait, (t, s)
    end, since = s.ramp_end, s.ramp_end % reset.interval
    meets = end >= reset.interval and since < reset.wait
    assert steps[-1] == (end - since - 1 if meets else end)


@settings(max_examples=600)
@given(cases())
def test_any_schedule(case):
    chosen, target, total, scale, reset = case
    try:
        s = schedule(chosen, target, total, scale, reset)
    except InputError:
        plain = chosen.pruning_warmup == "" and chosen.pruning_ramp_end in ("", "75%")
        assert not plain, "the defaults fit every run"
        return
    check(s, target, total, reset)


@settings(max_examples=300)
@given(
    st.integers(1, 5000), st.integers(151, 1200), st.sampled_from(sorted(SHAPES)), st.floats(0.01, 0.99), st.just(150)
)
@example(1070, 500, "cubic", 0.9, 150)
@example(668, 500, "cubic", 0.9, 150)  # the ramp ends on the step of the first reset
@example(667, 500, "cubic", 0.9, 150)
@example(866, 500, "cubic", 0.9, 150)  # and on the last that waits
@example(867, 500, "cubic", 0.9, 150)
def test_spam_with_default_lengths(total, interval, shape, target, wait):
    check(schedule(options(shape), target, total, resets=Resets(interval, wait)), target, total, Resets(interval, wait))


@pytest.mark.parametrize("interval", range(160, 601, 20))
def test_five_thousand_steps_of_spam(interval):
    reset = Resets(interval, 150)
    for total in range(4900, 5000, 7):
        check(schedule(PruningOptions(), 0.9, total, resets=reset), 0.9, total, reset)


@pytest.mark.slow
def test_every_length_of_run_with_spam():
    for interval in [151, 152, 160, 200, 300, 301, 450, 500, 600]:
        for total in range(1, 3001):
            check(
                schedule(PruningOptions(), 0.9, total, resets=Resets(interval, 150)), 0.9, total, Resets(interval, 150)
            )


def test_events_around_a_reset():
    """Resets at 500 and 1000; events every 50 from 450 on. On 500 it goes to 499, while the moments recover to 650."""
    given_ = options("linear", warmup="400", ramp_end="900", frequency="50")
    plain, s = schedule(given_, 0.5, 1200), schedule(given_, 0.5, 1200, resets=SPAM)
    assert [t for t, _ in plain.events] == list(range(450, 901, 50))
    assert [t for t, _ in s.events] == [450, 499, 650, 700, 750, 800, 850, 900]
    assert [x for _, x in s.events] == pytest.approx([0.5 * (t - 400) / 500 for t, _ in s.events])


@pytest.mark.parametrize(
    "end, last", [("499", 499), ("500", 499), ("501", 499), ("649", 499), ("650", 650), ("1000", 999), ("1149", 999)]
)
def test_the_last_event_goes_before_the_reset_it_would_meet(end, last):
    s = schedule(options(ramp_end=end), 0.7, 1200, resets=SPAM)
    assert s.events[-1] == (last, 0.7)


def test_a_reset_beyond_the_run_changes_nothing():
    assert schedule(PruningOptions(), 0.7, 400, resets=SPAM) == schedule(PruningOptions(), 0.7, 400)


@pytest.mark.parametrize("interval", [1, 20, 149, 150])
def test_resets_without_a_step_to_prune_on(interval):
    with pytest.raises(InputError, match=rf"SPAM_DELTA_T={interval} .*SPAM_WARMUP=150"):
        schedule(PruningOptions(), 0.7, 400, resets=Resets(interval, 150))
    assert schedule(PruningOptions(), 0.7, 4000, resets=Resets(151, 150)).events[-1][1] == 0.7


@pytest.mark.parametrize("shape", SHAPES)
def test_long_runs_end_exactly(shape):
    """1 - (1 - p)^3 rounds to 1 next to the ramp's end; the last event is there all the same."""
    s = schedule(options(shape, frequency="1"), 0.9, 450_000)
    assert s.events[-1] == (337_500, 0.9)
    assert all(t < 337_500 and x < 0.9 for t, x in s.events[:-1])


# --- the shape that a method brings


@pytest.mark.parametrize("asked", SHAPES)
def test_constant_is_sparse_from_step_0(asked):
    """The steps of any other shape, and one more at 0; the target at each."""
    s = schedule(options(asked), 0.8, 1000, own="constant")
    assert [t for t, _ in s.events] == [0, *range(150, 751, 50)] and {x for _, x in s.events} == {0.8}
    assert (s.warmup, s.ramp_end, s.frequency, s.shape, s.target) == (100, 750, 50, "constant", 0.8)
    assert [s.asked(t) for t in (0, 1, 999)] == [0.8] * 3


@pytest.mark.parametrize("asked", SHAPES)
@pytest.mark.parametrize("total", [1, 2, 10, 1000])
def test_one_shot_is_one_event_at_the_end_of_the_ramp(asked, total):
    s = schedule(options(asked), 0.8, total, own="one_shot")
    assert s.events == ((s.ramp_end, 0.8),) and s.shape == "one_shot" and s.ramp_end == max(1, round(0.75 * total))


@settings(max_examples=300)
@given(cases())
def test_any_constant_schedule(case):
    """Strictly rising steps from 0 to the end of the ramp, none of them where SPAM's moments recover."""
    chosen, target, total, scale, reset = case
    try:
        s = schedule(chosen, target, total, scale, reset, own="constant")
    except InputError:
        return
    steps, shares = zip(*s.events, strict=True)
    assert steps[0] == 0 and list(steps) == sorted(set(steps)) and set(shares) == {target}
    assert len(steps) >= 2 and steps[-1] <= s.ramp_end <= total
    other = schedule(chosen, target, total, scale, reset)
    assert steps[-1] == other.events[-1][0] and {t for t, _ in other.events} <= set(steps)


def test_only_what_a_method_says_replaces_the_shape():
    owns = {n: PRUNERS[n].schedule for n in ("magnitude", "movement", "state", "magnitude_one_shot", "set", "rigl")}
    assert list(owns.values()) == ["", "", "", "one_shot", "constant", "constant"]
    assert schedule(options("linear"), 0.8, 100) == schedule(options("cubic"), 0.8, 100, own="linear")
