"""The two commands of the README: the preset quickstart, shortened, from `make` to its graphs."""

import json

import pytest


@pytest.mark.slow
@pytest.mark.quickstart
def test_make_runs_it_to_its_report(repo):
    done = repo.make("EPOCHS=1", "RESULTS=out")
    assert done.returncode == 0, done.stdout + done.stderr
    runs = json.loads((repo.path / "out" / "all_results.json").read_text())["runs"]
    assert len(runs) == 11
    assert {r["status"] for r in runs} == {"done"}
    assert all(r["achieved_sparsity"] == pytest.approx(r["target_sparsity"], abs=1e-4) for r in runs)
    drawn = {p.name for p in (repo.path / "out" / "graphs").iterdir()}
    assert "training_memory_comparison.png" in drawn
