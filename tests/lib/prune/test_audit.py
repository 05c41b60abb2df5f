"""The audit of one state: small cases by hand, and random ones against plain code over sets and lists."""

import math

import numpy as np
import pytest
import torch

from lenet5.model import LeNet5
from lib.prune.base import PRUNERS
from lib.prune.importance import IMPORTANCE, State
from lib.prune.kernel import audit
from lib.prune.kernel.audit import audit_state
from lib.prune.kernel.pruner import Plan, prunable
from lib.prune.schedule import Schedule

STEP, BETA1 = 500, 0.9


def vectors(*rows, shape=None):
    tensors = [torch.tensor(r, dtype=torch.float32) for r in rows]
    return [t.reshape(shape) for t in tensors] if shape else tensors


def compare(record, matrix, a, b):
    i, j = record["scores"].index(a), record["scores"].index(b)
    assert matrix[i][j] == matrix[j][i]
    return matrix[i][j]


@pytest.fixture
def by_hand():
    """bitter1 is |w|: 1 2 3 4; bitter7 is |w| v^(1/4): 4 4 3 2."""
    return [("only", *vectors([1, -2, 3, -4], [1, 1, 1, 1], [256, 16, 1, 1 / 16], shape=(2, 2)))]


@pytest.mark.parametrize(
    ("share", "pruned", "kept", "ties"),
    [
        (0.25, 0 / 2, 2 / 4, 1),  # 1 and 4 go
        (0.5, 0 / 4, 0 / 4, 1),  # 1 2 and 3 4
        (0.75, 2 / 4, 0 / 2, 2),  # 1 2 3 and, of the two that tie at 4, the second
    ],
)
def test_overlap_by_hand(by_hand, share, pruned, kept, ties):
    record = audit_state(by_hand, STEP, BETA1, [share], ["bitter1", "bitter7"])
    [at] = record["at"]
    assert (at["sparsity"], at["pruned"]) == (share, 4 * share)
    assert compare(record, at["jaccard_pruned"], "bitter1", "bitter7") == pruned
    assert compare(record, at["jaccard_kept"], "bitter1", "bitter7") == kept
    assert at["ties"] == {"bitter1": 1, "bitter7": ties}


def test_spearman_by_hand(by_hand):
    """Ranks 1 2 3 4 and 3.5 3.5 2 1; centred, their product is -4.5 and their squares are 5 and 4.5."""
    record = audit_state(by_hand, STEP, BETA1, [0.5], ["bitter1", "bitter7"])
    assert compare(record, record["spearman"], "bitter1", "bitter7") == pytest.approx(
        -4.5 / math.sqrt(5 * 4.5), rel=1e-12
    )
    assert record["spearman"][0][0] == record["spearman"][1][1] == 1.0


def test_bitter4_brings_its_distribution():
    """Two layers of 4 at 50%: 0.35 and 0.65 of them are 1.4 and 2.6 weights, so 1 and 3. bitter3 takes all of one."""
    small = ("small", *vectors([1, 2, 3, 4], [1] * 4, [1] * 4))
    large = ("large", *vectors([5, 6, 7, 8], [1] * 4, [1] * 4))
    record = audit_state([small, large], STEP, BETA1, [0.5], ["bitter3", "bitter4"])
    [at] = record["at"]
    assert compare(record, at["jaccard_pruned"], "bitter3", "bitter4") == 1 / 7
    assert compare(record, record["spearman"], "bitter3", "bitter4") == 1.0


def test_what_is_pruned_counts_for_the_layers_of_a_distribution():
    """Half of the second layer is gone already; 2 of the 6 live weights make 4 of 8, of which it owes 3: one more."""
    small = ("small", *vectors([1, 2, 3, 4], [1] * 4, [1] * 4))
    large = ("large", *vectors([0, 0, 7, 8], [0, 0, 1, 1], [0, 0, 1, 1]))
    record = audit_state([small, large], STEP, BETA1, [1 / 3], ["bitter3", "bitter4"])
    assert (record["live"], record["weights"], record["at"][0]["pruned"]) == (6, 8, 2)
    assert compare(record, record["at"][0]["jaccard_pruned"], "bitter3", "bitter4") == 1 / 3  # {1, 2} and {1, 7}


def test_a_layer_that_has_lost_more_than_its_share_takes_nothing_back():
    """One of 5 live weights makes 4 of 8: 1.4 and 2.6 by depth, but 3 of the first layer are gone already."""
    small = ("small", *vectors([0, 0, 0, 9], [0, 0, 0, 1], [0, 0, 0, 1]))
    large = ("large", *vectors([5, 6, 7, 8], [1] * 4, [1] * 4))
    record = audit_state([small, large], STEP, BETA1, [0.2], ["bitter3", "bitter4"])
    assert record["at"][0]["jaccard_pruned"] == [[1.0, 1.0], [1.0, 1.0]]


def random_state(seed, levels=None, shapes=((6, 4), (3, 5, 2, 2), (7,), (2, 9))):
    """Layers of which a third is pruned; with few `levels` of every value, so that ties are the rule."""
    r = np.random.default_rng(seed)
    rows = []
    for i, shape in enumerate(shapes):
        w, m, v = r.normal(size=shape), r.normal(size=shape) * 1e-3, 10 ** r.uniform(-9, -5, shape)
        if levels:
            w, m = (r.integers(-levels, levels + 1, shape) / 4 for _ in range(2))
            v = np.full(shape, 1e-4)
        gone = r.random(shape) < 1 / 3
        rows.append((f"layer{i}", *(torch.tensor(np.where(gone, 0, x), dtype=torch.float32) for x in (w, m, v))))
    return rows


def plain(weights, name, k):
    """(scores of the live weights in order, positions of the k that go) of a score without its own distribution."""
    scores = []
    for _, w, m, v in weights:
        live = [i for i in range(w.numel()) if w.flatten()[i] != 0 or v.flatten()[i] != 0]
        w, m, v = (t.flatten()[live] for t in (w, m, v))
        rms = torch.tensor(math.sqrt(sum(x * x for x in w.tolist()) / len(live)))
        scores += IMPORTANCE[name].score(w, State(m, v, STEP, BETA1, rms)).tolist()
    last_first = sorted(range(len(scores)), key=lambda i: (scores[i], -i))
    return scores, set(last_first[:k])


def jaccard(a, b):
    return len(a & b) / len(a | b) if a | b else 1.0


def correlation(a, b):
    """Pearson's, of ranks that are counted out one by one."""

    def ranked(x):
        return np.array([sum(y < z for y in x) + (sum(y == z for y in x) + 1) / 2 for z in x])

    return np.corrcoef(ranked(a), ranked(b))[0, 1]


@pytest.mark.parametrize("levels", [None, 2])
@pytest.mark.parametrize("seed", range(3))
def test_against_plain_code(seed, levels):
    weights = random_state(seed, levels)
    names = [n for n in IMPORTANCE if IMPORTANCE[n].distribution is None]
    record = audit_state(weights, STEP, BETA1, [0.1, 0.5, 0.9], names)
    n = record["live"]
    assert n == sum(int(((w != 0) | (v != 0)).sum()) for _, w, _, v in weights) < record["weights"]
    assert record["ranked"] == n
    for at in record["at"]:
        k = round(at["sparsity"] * n)
        found = {name: plain(weights, name, k) for name in names}
        assert at["pruned"] == k
        for name, (scores, gone) in found.items():
            threshold = max(scores[i] for i in gone)
            assert at["ties"][name] == scores.count(threshold), name
        for a in names:
            for b in names:
                (first, gone), (second, other) = found[a], found[b]
                everything = set(range(n))
                assert compare(record, at["jaccard_pruned"], a, b) == jaccard(gone, other), (a, b)
                assert compare(record, at["jaccard_kept"], a, b) == jaccard(everything - gone, everything - other)
                want = pytest.approx(correlation(first, second), abs=1e-12)
                assert compare(record, record["spearman"], a, b) == want


@pytest.mark.parametrize("name", IMPORTANCE.names())
def test_the_audit_takes_what_the_pruner_takes(build, name):
    """From a state of which 30% are pruned already: the next event, to 50%."""
    torch.manual_seed(0)
    model = LeNet5()
    optimizer, chosen = build("adamwprune", model), IMPORTANCE[name]
    plan = Plan(Schedule(((99, 0.5),), 0, 99, 1), chosen.distribution or "global", name)
    pruner = PRUNERS["state"].build(prunable(model), plan)
    pruner.attach(optimizer)

    def step():
        for p in model.parameters():
            p.grad = torch.randn(p.shape)
        optimizer.step()

    def live():
        return torch.cat([pruner.keep[n].reshape(-1) for n, _ in pruner.weights])

    step()
    with torch.no_grad():
        pruner.event(0.3)
    step()
    state, group = optimizer.state, optimizer.param_groups[0]
    layers = [audit.layer(n, p, state[p]["exp_avg"], state[p]["exp_avg_sq"]) for n, p in pruner.weights]
    scores = [audit.score(chosen, x, group["step"], group["beta1"]) for x in layers]
    k = round(0.5 * pruner.total) - sum(x.dead for x in layers)
    before, (bits, _) = live(), audit.select(chosen, scores, layers, k)
    with torch.no_grad():
        pruner.event(0.5)
    assert torch.equal(bits, audit.packed(~live()[before]))


@pytest.mark.parametrize("step", [1, 7, 500])
def test_all_scores_are_audited_and_bitter8_is_bitter3(step):
    for seed in range(3):
        record = audit_state(random_state(seed), step, BETA1, [0.3, 0.5, 0.97])
        assert record["scores"] == IMPORTANCE.names()
        for at in record["at"]:
            assert compare(record, at["jaccard_kept"], "bitter3", "bitter8") == 1.0
            assert compare(record, at["jaccard_pruned"], "bitter3", "bitter8") == 1.0
        assert compare(record, record["spearman"], "bitter3", "bitter8") == 1.0
        assert compare(record, record["at"][1]["jaccard_kept"], "bitter1", "bitter5") < 1


def test_underflow_is_counted_where_nothing_that_is_read_is_zero():
    """sqrt(|m|) of 1e-30 times 1e-30 is a denormal number; where m is 0 the score is 0 by right."""
    w, m, v = [1e-30, 1e-30, 1.0, 1.0, 0.5], [1e-30, 0.0, 1e-3, 0.0, 1e-25], [1.0, 1.0, 1.0, 0.0, 0.0]
    record = audit_state([("x", *vectors(w, m, v))], STEP, BETA1, [0.2])
    assert record["live"] == 5
    assert (record["v_zero"], record["v_lost"]) == (2 / 5, 1 / 5)  # the fifth has m and no v
    assert (record["lost"]["bitter1"], record["lost"]["bitter3"], record["lost"]["bitter0"]) == (0, 1 / 5, 1 / 5)
    held = [1.0, 1.0, 1.0, torch.finfo(torch.float32).tiny, 1e-42]
    record = audit_state([("x", *vectors(w, m, held))], STEP, BETA1, [0.2])
    assert (record["v_zero"], record["v_lost"]) == (2 / 5, 1 / 5)


def test_a_score_of_one_value_has_no_correlation():
    weights = [("x", *vectors([1, 1, -1, 1], [1, 2, 3, 4], [1, 1, 1, 1]))]
    record = audit_state(weights, STEP, BETA1, [0.5], ["bitter1", "bitter3"])
    assert record["spearman"] == [[None, None], [None, 1.0]]
    assert record["at"][0]["ties"]["bitter1"] == 4
    # Position decides: the first two are kept. bitter3 keeps the last two.
    assert compare(record, record["at"][0]["jaccard_kept"], "bitter1", "bitter3") == 0.0


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_sets_that_are_empty_are_equal(share):
    weights = [("x", *vectors([1, 2, 3, 4], [4, 3, 2, 1], [1, 1, 1, 1]))]
    [at] = audit_state(weights, STEP, BETA1, [share])["at"]
    assert at["pruned"] == round(share * 4)
    assert {v for key in ("jaccard_pruned", "jaccard_kept") for row in at[key] for v in row} == {1.0}


@pytest.mark.parametrize("live", range(20, 31))
def test_ranks_are_of_every_ith_weight_where_there_are_many(monkeypatch, live):
    monkeypatch.setattr(audit, "RANKED", 10)
    flat = torch.arange(float(live))
    parts = list(flat.split([3, 0, 1, 8, live - 12]))
    assert torch.equal(audit.thinned(parts), flat[:: -(-live // 10)])
    weights = [(str(i), p + 1, p + 1, p + 1) for i, p in enumerate(parts)]
    assert audit_state(weights, STEP, BETA1, [0.5])["ranked"] == len(flat[:: -(-live // 10)])


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 64, 1001])
def test_bits(n):
    g = torch.Generator().manual_seed(n)
    a, b = (torch.rand(n, generator=g) < 0.6 for _ in range(2))
    bits = audit.packed(a), audit.packed(b)
    assert bits[0].dtype == torch.uint8 and len(bits[0]) == -(-n // 8)
    assert audit.in_common(*bits) == int((a & b).sum())
    assert audit.in_common(bits[0], bits[0]) == int(a.sum())


def test_layout_dtype_and_the_tensors_themselves():
    """Row-major order decides ties whatever lies in memory; nothing that is given changes."""
    weights = random_state(1, levels=2, shapes=((4, 3, 2, 2), (6, 5)))
    turned = [(n, *(t.transpose(0, -1).contiguous().transpose(0, -1) for t in row)) for n, *row in weights]
    half = [(n, w.bfloat16(), m, v) for n, w, m, v in weights]  # quarters are whole in bfloat16
    before = [t.clone() for _, *row in weights for t in row]
    want = audit_state(weights, STEP, BETA1, [0.3, 0.6])
    assert audit_state(turned, STEP, BETA1, [0.3, 0.6]) == want
    assert audit_state(half, STEP, BETA1, [0.3, 0.6]) == want
    assert all(torch.equal(a, b) for a, b in zip(before, (t for _, *row in weights for t in row), strict=True))


def test_a_layer_that_is_gone_entirely():
    weights = [*random_state(0), ("gone", *(torch.zeros(3, 3) for _ in range(3)))]
    assert audit_state(weights, STEP, BETA1, [0.5])["live"] == audit_state(weights[:-1], STEP, BETA1, [0.5])["live"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"step": 0}, "step 0: no update was made"),
        ({"sparsities": [0.5, 1.0]}, "sparsity 1.0: give a share above 0 and below 1"),
        ({"sparsities": [0]}, "sparsity 0: "),
        ({"weights": [("x", *(torch.zeros(3),) * 3)]}, "no weight is live"),
        ({"weights": [("x", torch.ones(3), torch.zeros(3), torch.zeros(3))]}, "exp_avg_sq is 0 for every live weight"),
        (
            {"weights": [("x", *vectors([1, 2], [float("nan"), 1], [1, 1]))]},
            "bitter0: the score of a weight in x is not",
        ),
        ({"weights": [("x", torch.ones(3), torch.ones(2), torch.ones(3))]}, r"x: .* are of shapes \[\(3,\), \(2,\)"),
    ],
)
def test_what_cannot_be_audited(by_hand, change, says):
    given = {"weights": by_hand, "step": STEP, "beta1": BETA1, "sparsities": [0.5]} | change
    with pytest.raises(ValueError, match=says):
        audit_state(**given)
