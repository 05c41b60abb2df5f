"""Text from the web: written once, and after an interruption as if there had been none."""

import json
import shutil

import numpy as np
import pytest

from lib.config import InputError
from lib.data import web
from lib.data.base import DATASETS, MissingData
from lib.data.text import BPE, SPLITS
from lib.rundir import ROOT

TEXTS = [f"Document {i}: " + "some words, again and again. " * (i % 7 + 1) for i in range(53)]
pytestmark = pytest.mark.skipif(not (ROOT / "data" / BPE).exists(), reason="GPT-2's byte pairs are not here")


class Broken(Exception):
    pass


@pytest.fixture
def folder(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "data" / BPE, tmp_path / BPE)
    monkeypatch.setattr(web, "AT_ONCE", 10)
    return tmp_path


def made(stop: int = len(TEXTS), **more):
    """The data set; its stream breaks before document `stop`."""

    def documents(skip):
        yield from TEXTS[skip:stop]
        if stop < len(TEXTS):
            raise Broken

    return web.WebSet("mine", "my web", documents, 1000, **more)


def stream(folder, data):
    found = data.load(folder)
    return np.concatenate([getattr(found, s) for s in SPLITS]), found


def test_documents_come_back(folder):
    data = made()
    data.download(folder)
    tokens, found = stream(folder, data)
    ends = np.flatnonzero(tokens == 50256)
    assert len(ends) == len(TEXTS)
    starts = [0, *(ends[:-1] + 1)]
    assert [found.tokenizer.decode(tokens[a:b].tolist()) for a, b in zip(starts, ends, strict=True)] == TEXTS
    assert sum(found.size.values()) == pytest.approx(sum(map(len, TEXTS)), abs=2)


@pytest.mark.parametrize("stop", [0, 7, 10, 34])
def test_an_interruption_leaves_no_trace(folder, stop):
    whole = made()
    whole.download(folder)
    want, found = stream(folder, whole)
    shutil.rmtree(whole.folder(folder))
    with pytest.raises(Broken):
        made(stop).download(folder)
    with pytest.raises(MissingData, match="my web: not prepared in .*tokens so far"):
        made().check(folder)
    with (made().folder(folder) / "tokens.bin").open("ab") as f:
        f.write(b"what a crash left")
    made().download(folder)
    tokens, again = stream(folder, made())
    assert np.array_equal(tokens, want)
    assert again.hash == found.hash


def test_it_ends_where_it_is_enough(folder):
    data = made(most=300)
    data.download(folder)
    state = data.state(folder)
    assert 300 <= state["tokens"] < 900
    assert state["documents"] % 10 == 0


def test_what_is_done_is_not_done_again(folder):
    made().download(folder)
    made(stop=0).download(folder)


def test_files_that_were_cut_short(folder):
    made().download(folder)
    path = made().folder(folder) / "tokens.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(InputError, match="tokens.bin is cut short: delete"):
        made().load(folder)


def test_nothing_came(folder):
    with pytest.raises(InputError, match="my web: no document came"):
        web.WebSet("none", "my web", lambda skip: iter(()), 1).download(folder)


def test_the_hub_needs_its_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(InputError, match=r"fetched with the package datasets: pip install -e '.\[text\]'"):
        next(DATASETS["tinystories"].documents(0))


def test_the_state_is_plain(folder):
    made().download(folder)
    state = json.loads((made().folder(folder) / "progress.json").read_text())
    assert set(state) == {"documents", "tokens", "bytes", "done", "sha256"}
