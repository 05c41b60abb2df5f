"""Text: tokens that decode to what was read, splits, and windows out of a stream."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from house import wait
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib import language
from lib.config import InputError
from lib.data import text
from lib.data.base import DATASETS, Share
from lib.data.kernel.windows import Windows, ahead
from lib.data.text import SPLITS, TextSet, byte_pairs, tokenizer
from lib.rundir import ROOT

CPU = torch.device("cpu")
TEXT = b"First Citizen:\nBefore we proceed any further, hear me speak.\n" * 20
REAL = ROOT / "data"


def text_set(*documents, **more):
    return TextSet("mine", "my text", lambda folder: iter(documents), tokenizers=("bytes",), **more)


def test_bytes_come_back_and_documents_end(tmp_path):
    data = text_set((None, TEXT), (None, b"\xff\x00 any byte"))
    found = data.load(tmp_path)
    stream = np.concatenate([getattr(found, s) for s in SPLITS])
    want = np.concatenate([np.frombuffer(TEXT, np.uint8), [256], np.frombuffer(b"\xff\x00 any byte", np.uint8), [256]])
    assert np.array_equal(stream, want)
    assert found.tokenizer.decode(found.train).startswith("First Citizen")


def test_a_text_without_splits_is_cut_by_position(tmp_path):
    found = text_set((None, TEXT)).load(tmp_path)
    whole = len(TEXT) + 1
    assert len(found.test) == len(found.validation) == int(0.05 * whole)
    assert len(found.train) == whole - 2 * int(0.05 * whole)
    assert sum(found.size.values()) == pytest.approx(len(TEXT), abs=2)


def test_splits_of_its_own_are_kept(tmp_path):
    found = text_set(("train", TEXT), ("validation", b"v" * 50), ("test", b"t" * 40)).load(tmp_path)
    assert (len(found.train), len(found.validation), len(found.test)) == (len(TEXT) + 1, 51, 41)
    assert found.size == {"train": len(TEXT), "validation": 50, "test": 40}


def test_tokens_are_made_once_and_anew_for_another_text(tmp_path, monkeypatch):
    first = text_set((None, TEXT)).load(tmp_path)
    folders = list((tmp_path / "tokens").iterdir())
    stamp = (folders[0] / "train.bin").stat().st_mtime_ns
    assert text_set((None, TEXT)).load(tmp_path).hash == first.hash
    assert (folders[0] / "train.bin").stat().st_mtime_ns == stamp
    assert text_set((None, TEXT + b"x")).load(tmp_path).hash != first.hash
    assert len(list((tmp_path / "tokens").iterdir())) == 2


def test_tokens_that_were_cut_short(tmp_path):
    text_set((None, TEXT)).load(tmp_path)
    (folder,) = (tmp_path / "tokens").iterdir()
    (folder / "train.bin").write_bytes(b"ab")
    with pytest.raises(InputError, match="train.bin is cut short or gone: delete"):
        text_set((None, TEXT)).load(tmp_path)


def test_writing_that_was_interrupted_is_done_again(tmp_path):
    text_set((None, TEXT)).load(tmp_path)
    (folder,) = (tmp_path / "tokens").iterdir()
    (folder / "sizes.json").unlink()
    (folder / "train.bin").write_bytes(b"ab")
    found = text_set((None, TEXT)).load(tmp_path)
    assert len(found.train) == json.loads((folder / "sizes.json").read_text())["train"]["tokens"]


def test_custom_text(tmp_path):
    folder = tmp_path / "text" / "custom"
    with pytest.raises(InputError, match="put one or more text files into"):
        DATASETS["custom"].documents(folder).__next__()
    folder.mkdir(parents=True)
    (folder / "b.txt").write_text("second")
    (folder / "a.txt").write_text("first")
    assert [t for _, t in DATASETS["custom"].documents(folder)] == [b"first", b"second"]
    (folder / "c.txt").write_text(" \n")
    with pytest.raises(InputError, match="c.txt is empty"):
        list(DATASETS["custom"].documents(folder))


def test_stdlib_is_this_pythons():
    data = DATASETS["stdlib"]
    assert data.embedded
    sources = [t for _, t in data.documents(None)]
    assert len(sources) > 100
    assert sum(map(len, sources)) > 2_000_000


def test_missing_and_damaged_files_are_named(tmp_path):
    data = DATASETS["shakespeare"]
    with pytest.raises(InputError, match="Tiny Shakespeare: input.txt not found in .*tinyshakespeare"):
        data.check(tmp_path)
    folder = tmp_path / "text" / "tinyshakespeare"
    folder.mkdir(parents=True)
    (folder / "input.txt").write_text("cut short")
    with pytest.raises(InputError, match="input.txt is damaged or cut short: md5 "):
        data.check(tmp_path)


def test_a_tokenizer_that_a_text_has_not(tmp_path):
    with pytest.raises(InputError, match="Python's standard library has no tokenizer bpe: choose bytes"):
        DATASETS["stdlib"].load(tmp_path, "bpe")


@pytest.mark.skipif(not (REAL / "gpt2_bpe").exists(), reason="GPT-2's byte pairs are not here")
def test_gpt2s_byte_pairs():
    by = tokenizer("bpe", REAL)
    assert list(by.encode(b"Hello world")) == [15496, 995]
    assert by.end == 50256
    assert by.decode(by.encode(TEXT)) == TEXT.decode()


@pytest.mark.skipif(not (REAL / "text" / "tinyshakespeare").exists(), reason="Tiny Shakespeare is not here")
def test_tiny_shakespeare():
    found = DATASETS["shakespeare"].load(REAL)
    assert sum(len(getattr(found, s)) for s in SPLITS) == 338_025 + 1
    assert found.size["test"] == 52_450 and sum(found.size.values()) == 1_115_394


WORDS = ["th", "the", " s", " sa", " sat", " c", " ca", " cat", ". ", " o", " on", " ma", " mat", "at", "he", " m"]
SPELLED = [bytes([i]) for i in range(256)] + [w.encode() for w in WORDS] + [b""]  # the last ends a text


def bytes_of(tokens) -> int:
    return sum(len(SPELLED[int(t)]) for t in tokens)


@pytest.fixture
def pairs(monkeypatch):
    """A tokenizer of byte pairs that knows words of one script and only single bytes of any other."""
    made = byte_pairs({spelled: i for i, spelled in enumerate(SPELLED[:-1])})
    monkeypatch.setattr(text, "tokenizer", lambda name, data_dir: made)
    return made


@given(st.lists(st.text(alphabet="the cat sat on a mat. γάτα猫", min_size=1), min_size=1), st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_of_tokens_are_those_of_the_text(pairs, documents, data):
    """Of all, and of both sides of a cut anywhere."""
    stream = np.concatenate([[*pairs.encode(d.encode()), pairs.end] for d in documents]).astype(np.uint16)
    at = data.draw(st.integers(0, len(stream)))
    assert pairs.count_bytes(stream) == sum(len(d.encode()) for d in documents)
    assert pairs.count_bytes(stream[:at]) + pairs.count_bytes(stream[at:]) == pairs.count_bytes(stream)
    assert pairs.count_bytes(stream[:at]) == bytes_of(stream[:at])


def test_a_text_that_ends_in_another_script(tmp_path, pairs):
    """The cut is by tokens, and a token of the last part is fewer bytes. Sizes that were stored are not believed."""
    documents = [(None, ("the cat sat on a mat. " * 400).encode()), (None, ("γάτα " * 150).encode())]
    found = text_set(*documents).load(tmp_path)
    size, tokens = found.size, {s: getattr(found, s) for s in SPLITS}
    whole = sum(len(t) for _, t in documents)
    assert size == {s: bytes_of(tokens[s]) for s in SPLITS}
    assert sum(size.values()) == whole
    assert size["test"] == len(tokens["test"]) - 1 < 0.5 * whole * len(tokens["test"]) / sum(map(len, tokens.values()))
    (path,) = (tmp_path / "tokens").glob("*/sizes.json")
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({s: stored[s] | {"bytes": 7} for s in SPLITS}))
    assert text_set(*documents).load(tmp_path).size == size


@pytest.mark.parametrize("eval_tokens", [0, 100, 10**6])
def test_bytes_a_token_are_of_what_is_evaluated(tmp_path, pairs, monkeypatch, eval_tokens):
    documents = [(None, ("the cat sat on a mat. " * 400).encode()), (None, ("γάτα " * 150).encode())]
    monkeypatch.setattr(language, "DATASETS", {"mine": text_set(*documents)})
    recipe = SimpleNamespace(block=16, eval_tokens=eval_tokens, tokenizer="auto")
    task = language.LanguageModel("mine", None)
    data = task.load("mine", recipe, tmp_path, CPU, False)
    most = task.most_windows(recipe)
    for name, split in (("validation", data.validation), ("test", data.test)):
        seen = torch.cat([y.flatten() for _, y in split.in_order(8, most)]).tolist()
        assert data.facts["bytes_per_token"][name] == bytes_of(seen) / len(seen)


def windows(n=1000, block=16, vocabulary=257):
    return Windows((np.arange(n) % 251).astype(np.uint16), block, CPU, vocabulary)


def test_targets_are_the_tokens_that_follow():
    for x, y in windows().epoch(5, 7, torch.Generator().manual_seed(0)):
        assert x.shape == y.shape == (7, 16)
        assert torch.equal((x + 1) % 251, y)


def test_windows_side_by_side_cover_the_stream_once():
    data = windows()
    x = torch.cat([x.flatten() for x, _ in data.in_order(4)])
    assert torch.equal(x, torch.arange(len(data) * 16) % 251)
    assert len(data) == 999 // 16
    assert sum(len(x) for x, _ in data.in_order(4, most=6)) == 6


def test_shares_of_processes_are_the_whole_batch():
    def drawn(share):
        made = Windows((np.arange(1000) % 251).astype(np.uint16), 16, CPU, 257, share=share)
        return [x for x, _ in made.epoch(3, 8, torch.Generator().manual_seed(3))]

    whole, parts = drawn(Share()), [drawn(Share(rank, 4)) for rank in range(4)]
    for i, x in enumerate(whole):
        assert torch.equal(x, torch.cat([p[i] for p in parts]))
    assert not torch.equal(whole[0], whole[1])


def test_a_stream_on_disk_is_read_as_the_one_in_memory(tmp_path, monkeypatch):
    import lib.data.kernel.windows as module

    stream = (np.arange(1000) % 251).astype(np.uint16)
    stream.tofile(tmp_path / "s.bin")
    monkeypatch.setattr(module, "RESIDENT", 10)
    lazy = Windows(np.memmap(tmp_path / "s.bin", np.uint16, "r"), 16, CPU, 257)
    for (a, _), (b, _) in zip(lazy.in_order(4), windows().in_order(4), strict=True):
        assert torch.equal(a, b)
    drawn = [data.epoch(5, 3, torch.Generator().manual_seed(1)) for data in (lazy, windows())]
    for (a, _), (b, _) in zip(*drawn, strict=True):
        assert torch.equal(a, b)


def test_what_is_made_ahead_is_made_in_time_and_in_order():
    """The next one is begun before the first is handed out, and no more than that; what fails, fails here."""
    made = []

    def source():
        for i in range(4):
            made.append(i)
            yield i
        raise OSError("the disk is gone")

    found = ahead(source())
    assert next(found) == 0
    wait(lambda: made == [0, 1])
    assert [next(found) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(OSError, match="the disk is gone"):
        next(found)


def test_streams_that_cannot_be_used():
    with pytest.raises(ValueError, match="a split has 16 tokens, and one sample takes 17"):
        windows(16)
    with pytest.raises(ValueError, match="a split holds the token 250, and the vocabulary has 100"):
        windows(vocabulary=100)
