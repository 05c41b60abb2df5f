"""docs/loading_weights.md: its code, in its order, on a run that has just been trained."""

import re

import pytest
import torch
from train_kit import run

from lib.rundir import ROOT

PAGE = (ROOT / "docs" / "loading_weights.md").read_text()
RUN = re.search(r'RunDir\("([^"]+)"\)', PAGE)[1]


@pytest.mark.filterwarnings("ignore:.*[Ss]parse:UserWarning")
def test_the_code_of_the_page(tmp_path, monkeypatch, one_thread):
    done = run(tmp_path, "adamwprune", "state", "0.7", MAX_ITERS="30")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    found, printed = {}, []
    found["print"] = printed.append
    for block in blocks:
        exec(block.replace(RUN, str(done.dir.path)), found)
    accuracy, sparsity = printed
    assert accuracy == pytest.approx(done.summary["test_accuracy_best"])
    assert sparsity == pytest.approx(0.7, abs=1e-5)
    assert found["predicted"].shape == (10,)
    after = sum(int((w == 0).sum()) for w in found["weights"].values())
    assert after >= found["zeros"], "training on has un-pruned weights"
    again = torch.load("sparse.pt", weights_only=True)
    name, w = next(iter(found["weights"].items()))
    assert torch.equal(again[name].to_dense(), w.detach().flatten(1))
    assert again.keys() == found["model"].state_dict().keys()
