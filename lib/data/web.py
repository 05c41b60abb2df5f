"""Text from the web, too large to read at once: documents come in a stream from the Hugging Face Hub and are written as
tokens, from where an interruption left off. Needs the extra `text` (datasets) to be prepared, not to be used.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lib.config import InputError, write_atomic
from lib.data.base import DATASETS, MissingData, check_files, fetch
from lib.data.text import BPE, BPE_FILES, BPE_URL, HELD_OUT, SPLITS, STDLIB, Text, tokenizer

MOST = 10_000_000_000  # tokens: 20 GB, and more than the recipes here train on
AT_ONCE = 2000  # documents between two notes of how far it is


@dataclass(frozen=True)
class WebSet:
    """documents(skip) yields texts from number `skip` on. estimate: tokens to come, for the bar."""

    name: str
    title: str
    documents: Callable[[int], Iterator[str]]
    estimate: int
    most: int = MOST
    tokenizers: tuple[str, ...] = ("bpe",)
    imports: tuple[str, ...] = ("tiktoken",)
    embedded: bool = False

    def train_samples(self, full: bool) -> int:
        return 0

    def folder(self, data_dir: Path) -> Path:
        return data_dir / "text" / self.name

    def state(self, data_dir: Path) -> dict:
        """How far the preparation is: {documents, tokens, bytes, done, sha256 of all where it is done}."""
        path = self.folder(data_dir) / "progress.json"
        return json.loads(path.read_text()) if path.is_file() else dict.fromkeys(("documents", "tokens", "bytes"), 0)

    def check(self, data_dir: Path) -> None:
        state, path = self.state(data_dir), self.folder(data_dir) / "tokens.bin"
        if not state.get("done"):
            raise MissingData(
                f"{self.title}: not prepared in {path.parent} ({state['tokens']:,} tokens so far). `make data` "
                f"prepares it, and goes on where it was interrupted; DATA_DIR= names another place; the embedded "
                f"text is `{STDLIB}` (GPT2_DATASET_STDLIB=y in the place of this one)"
            )
        if not path.is_file() or path.stat().st_size != 2 * state["tokens"]:
            raise InputError(f"{self.title}: {path} is cut short: delete {path.parent}, and prepare it again")
        check_files("GPT-2's byte pairs", data_dir / BPE, BPE_FILES, STDLIB)

    def download(self, data_dir: Path) -> None:
        for name, want in BPE_FILES.items():
            fetch(BPE_URL + name, data_dir / BPE / name, want)
        prepare(self, data_dir)

    def load(self, data_dir: Path, asked: str = "auto") -> Text:
        import numpy as np

        if asked not in ("auto", "bpe"):
            raise InputError(f"{self.title} has no tokenizer {asked}: choose bpe")
        self.check(data_dir)
        state = self.state(data_dir)
        whole = np.memmap(self.folder(data_dir) / "tokens.bin", np.uint16, "r")
        held = int(HELD_OUT * len(whole))
        cuts = dict(zip(SPLITS, np.split(whole, [len(whole) - 2 * held, len(whole) - held]), strict=True))
        return Text(*cuts.values(), tokenizer("bpe", data_dir), state["sha256"])


def prepare(data: WebSet, data_dir: Path) -> None:
    """Write what is not written yet. A note after every AT_ONCE documents says how much of the file is whole; what a
    crash left behind it is cut off."""
    from tqdm import tqdm

    state, folder = data.state(data_dir), data.folder(data_dir)
    if state.get("done"):
        return
    folder.mkdir(parents=True, exist_ok=True)
    path, by = folder / "tokens.bin", tokenizer("bpe", data_dir)
    path.touch()
    os.truncate(path, 2 * state["tokens"])
    with path.open("ab") as file, tqdm(total=data.estimate, initial=state["tokens"], unit="token", unit_scale=True,
                                       desc=data.title, disable=None) as bar:  # fmt: skip
        for texts in by_many(data.documents(state["documents"]), AT_ONCE):
            count = write(file, texts, by)
            state["documents"] += len(texts)
            state["tokens"] += count
            state["bytes"] += sum(len(t.encode(errors="replace")) for t in texts)
            write_atomic(folder / "progress.json", json.dumps(state))
            bar.update(count)
            if state["tokens"] >= data.most:
                break
    if not state["tokens"]:
        raise InputError(f"{data.title}: no document came")
    with path.open("rb") as file:
        state |= {"done": True, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    write_atomic(folder / "progress.json", json.dumps(state))


def write(file, texts: list[str], by) -> int:
    """Append documents, each with its end of text; how many tokens they are. On the disk when this returns."""
    import numpy as np

    count = 0
    for text in texts:
        ids = np.append(np.asarray(by.encode(text.encode(errors="replace")), np.uint16), np.uint16(by.end))
        file.write(ids.tobytes())
        count += len(ids)
    file.flush()
    os.fsync(file.fileno())
    return count


def by_many(texts: Iterator[str], n: int) -> Iterator[list[str]]:
    held = []
    for text in texts:
        held.append(text)
        if len(held) == n:
            yield held
            held = []
    if held:
        yield held


def hub(path: str, name: str | None = None) -> Callable[[int], Iterator[str]]:
    """The `text` of each document of a data set on the Hub."""

    def documents(skip):
        try:
            from datasets import load_dataset
        except ModuleNotFoundError:
            raise InputError(f"{path} is fetched with the package datasets: pip install -e '.[text]'") from None
        for row in load_dataset(path, name, split="train", streaming=True).skip(skip):
            yield row["text"]

    return documents


for _set in (
    WebSet("finewebedu", "FineWeb-Edu", hub("HuggingFaceFW/fineweb-edu", "sample-10BT"), 9_900_000_000),
    WebSet("openwebtext", "OpenWebText", hub("Skylion007/openwebtext"), 9_000_000_000),
    WebSet("tinystories", "TinyStories", hub("roneneldan/TinyStories"), 470_000_000),
):
    DATASETS.add(_set.name, _set)
