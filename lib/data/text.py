"""Text: one stream of tokens a split, kept in DATA_DIR/tokens as uint16 from the first use on.

Tokens are GPT-2's byte pairs (tiktoken, from the two files of the release in DATA_DIR/gpt2_bpe) or bytes. After every
document stands an end-of-text token.
"""

import hashlib
import json
import os
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from lib.config import InputError, write_atomic
from lib.data.base import DATASETS, check_files, fetch

SPLITS = ("train", "validation", "test")
HELD_OUT = 0.05  # of a text without splits of its own, for validation and for test each: its last parts
BPE = "gpt2_bpe"
STDLIB = "stdlib"  # the embedded text
BPE_FILES = {  # sha256, as tiktoken has them
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}
BPE_URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
GITHUB = "https://raw.githubusercontent.com/"
AT_ONCE = 1 << 20  # tokens that are looked at together
Documents = Iterator[tuple[str | None, bytes]]


@dataclass(frozen=True)
class Tokenizer:
    """encode(bytes) -> tokens, decode(tokens) -> text. end: the end-of-text token. size: how many tokens there are.

    lengths: a numpy array, token -> bytes of text that it stands for; 0 for the end of text.
    """

    name: str
    encode: Callable
    decode: Callable
    end: int
    lengths: object

    @property
    def size(self) -> int:
        return self.end + 1

    def count_bytes(self, tokens) -> int:
        """Bytes of text that an array of tokens stands for, read a part at a time: it may be larger than memory."""
        parts = (tokens[i : i + AT_ONCE] for i in range(0, len(tokens), AT_ONCE))
        return sum(int(self.lengths[part].sum()) for part in parts)


@dataclass(frozen=True)
class Text:
    """Splits of uint16 tokens, memory-mapped. hash: of all splits and the tokenizer."""

    train: object
    validation: object
    test: object
    tokenizer: Tokenizer
    hash: str

    @cached_property
    def size(self) -> dict[str, int]:
        """Bytes of text, by split: those of its own tokens, counted when they are asked for, and kept on no disk."""
        return {split: self.tokenizer.count_bytes(getattr(self, split)) for split in SPLITS}

    def trainable(self):
        """Training and validation data together."""
        import numpy as np

        return np.concatenate([self.train, self.validation])


@dataclass(frozen=True)
class TextSet:
    """One data set of text.

    documents(folder) yields (split, bytes); where split is None the whole is cut 90/5/5 by position. files: name ->
    checksum in `folder` of DATA_DIR, urls: where each is downloaded from. tokenizers: those it can have, the first
    where none is asked for.
    """

    name: str
    title: str
    documents: Callable[[Path], Documents]
    folder: str = ""
    files: dict[str, str] | None = None
    urls: dict[str, str] | None = None
    tokenizers: tuple[str, ...] = ("bpe", "bytes")
    imports: tuple[str, ...] = ("tiktoken",)

    @property
    def embedded(self) -> bool:
        return not self.folder

    def train_samples(self, full: bool) -> int:
        """None: an epoch of text is a number of steps (EVAL_INTERVAL)."""
        return 0

    def check(self, data_dir: Path, asked: str = "auto") -> None:
        if self.files:
            check_files(self.title, data_dir / self.folder, self.files, STDLIB)
        if "bpe" in (self.tokenizers[:1] if asked == "auto" else [asked]):
            check_files("GPT-2's byte pairs", data_dir / BPE, BPE_FILES, STDLIB)

    def download(self, data_dir: Path) -> None:
        for name, url in (self.urls or {}).items():
            fetch(url, data_dir / self.folder / name, self.files[name])
        if "bpe" in self.tokenizers:
            for name, want in BPE_FILES.items():
                fetch(BPE_URL + name, data_dir / BPE / name, want)

    def load(self, data_dir: Path, asked: str = "auto") -> Text:
        name = self.tokenizers[0] if asked == "auto" else asked
        if name not in self.tokenizers:
            raise InputError(f"{self.title} has no tokenizer {name}: choose {' or '.join(self.tokenizers)}")
        self.check(data_dir, name)
        return tokens(self, data_dir, tokenizer(name, data_dir))


@cache
def tokenizer(name: str, data_dir: Path) -> Tokenizer:
    import numpy as np

    if name == "bytes":
        return Tokenizer(
            "bytes",
            lambda text: np.frombuffer(text, np.uint8),
            lambda ids: bytes(int(i) for i in ids if i < 256).decode(errors="replace"),
            256,
            np.array([1] * 256 + [0]),
        )
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    vocab, encoder = (str(data_dir / BPE / f) for f in BPE_FILES)
    return byte_pairs(data_gym_to_mergeable_bpe_ranks(vocab, encoder, *BPE_FILES.values()))


def byte_pairs(ranks: dict[bytes, int]) -> Tokenizer:
    """The tokenizer of these byte pairs, token -> its number from 0 on, and the end of text after them."""
    import numpy as np
    import tiktoken
    from tiktoken_ext.openai_public import r50k_pat_str

    end, lengths = len(ranks), np.zeros(len(ranks) + 1, np.int64)
    lengths[list(ranks.values())] = [len(token) for token in ranks]
    special = {"<|endoftext|>": end}
    made = tiktoken.Encoding("gpt2", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens=special)
    return Tokenizer("bpe", lambda text: made.encode_ordinary(text.decode(errors="replace")), made.decode, end, lengths)


def tokens(data: TextSet, data_dir: Path, by: Tokenizer) -> Text:
    """The splits as tokens, from DATA_DIR/tokens, where they are written first if they are not there."""
    source = list(data.documents(data_dir / data.folder))
    digest = hashlib.sha256(by.name.encode())
    for split, text in source:
        digest.update(f"{split}/{len(text)}/".encode())
        digest.update(text)
    folder = data_dir / "tokens" / f"{data.name}-{by.name}-{digest.hexdigest()[:16]}"
    if not (folder / "sizes.json").exists():
        write(folder, data.title, source, by)
    sizes = json.loads((folder / "sizes.json").read_text())
    return Text(*(read(folder, split, sizes[split]["tokens"]) for split in SPLITS), by, digest.hexdigest())


def write(folder: Path, title: str, source: list[tuple[str | None, bytes]], by: Tokenizer) -> None:
    """Tokens of every split, and last their sizes: where those are, all is whole."""
    import numpy as np
    from tqdm import tqdm

    parts: dict[str, list] = {s: [] for s in (*SPLITS, None)}
    for split, text in tqdm(source, f"tokens of {title}", unit="document", disable=None, leave=False):
        parts[split].append(np.append(np.asarray(by.encode(text), np.uint16), np.uint16(by.end)))
    found = {s: np.concatenate(p) if p else np.empty(0, np.uint16) for s, p in parts.items()}
    whole = found.pop(None)
    if len(whole):
        held = int(HELD_OUT * len(whole))
        found = dict(zip(SPLITS, np.split(whole, [len(whole) - 2 * held, len(whole) - held]), strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    for split, t in found.items():
        part = folder / f".{split}.{os.getpid()}"
        t.tofile(part)
        part.replace(folder / f"{split}.bin")
    write_atomic(folder / "sizes.json", json.dumps({s: {"tokens": len(found[s])} for s in SPLITS}))


def read(folder: Path, split: str, count: int):
    import numpy as np

    path = folder / f"{split}.bin"
    if not path.exists() or path.stat().st_size != 2 * count:
        raise InputError(f"{path} is cut short or gone: delete {folder}, and it is made again")
    return np.memmap(path, np.uint16, "r") if count else np.empty(0, np.uint16)


def lines_of(**files: str) -> Callable[[Path], Documents]:
    """Documents that are whole files: split -> name."""

    def documents(folder):
        for split, name in files.items():
            yield None if split == "whole" else split, (folder / name).read_bytes()

    return documents


def custom(folder: Path) -> Documents:
    """Your own text: every file under DATA_DIR/text/custom is a document, in the order of their names."""
    files = sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else []
    if not files:
        raise InputError(f"custom text: put one or more text files into {folder}; each is a document")
    for path in files:
        text = path.read_bytes()
        if not text.strip():
            raise InputError(f"custom text: {path} is empty")
        yield None, text


def stdlib(folder: Path) -> Documents:
    """The modules of the Python that runs this."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        yield None, path.read_bytes()


SHAKESPEARE = {"input.txt": "6fb458f1232090904fb40fe944165e91"}
WIKITEXT = {
    "train.txt": "34a77ebe59551b3a3b3d8c0a2797c976",
    "valid.txt": "d756d22ab2310e7e60c094bea5c5a8eb",
    "test.txt": "781c9418ab9414bd09e4aad825aae752",
}
DATASETS.add("stdlib", TextSet("stdlib", "Python's standard library", stdlib, tokenizers=("bytes",), imports=()))
DATASETS.add("custom", TextSet("custom", "your own text", custom, "text/custom"))
DATASETS.add(
    "shakespeare",
    TextSet(
        "shakespeare",
        "Tiny Shakespeare",
        lines_of(whole="input.txt"),
        "text/tinyshakespeare",
        SHAKESPEARE,
        {"input.txt": GITHUB + "karpathy/char-rnn/master/data/tinyshakespeare/input.txt"},
    ),
)
DATASETS.add(
    "wikitext2",
    TextSet(
        "wikitext2",
        "WikiText-2",
        lines_of(train="train.txt", validation="valid.txt", test="test.txt"),
        "text/wikitext-2",
        WIKITEXT,
        {n: f"{GITHUB}pytorch/examples/main/word_language_model/data/wikitext-2/{n}" for n in WIKITEXT},
    ),
)
