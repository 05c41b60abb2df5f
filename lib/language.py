"""Language models: tokens in, the next token out."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from lib import batching
from lib.config import InputError
from lib.data.base import DATASETS
from lib.data.kernel.windows import Windows
from lib.task import WHOLE, Data, Scores, alone

SAMPLED, TOP, TEMPERATURE = 200, 50, 0.8


@dataclass(frozen=True)
class LanguageModel:
    """`network(size, vocabulary, block)` makes the model, whose block it keeps as an attribute."""

    name: str
    network: Callable[[str, int, int], nn.Module]
    metric: str = "perplexity"

    def load(self, dataset, recipe, data_dir, device, full_train, share=WHOLE):
        raw = DATASETS[dataset].load(data_dir, recipe.tokenizer)
        return self.splits(raw, dataset, recipe, device, full_train, share)

    def splits(self, raw, dataset, recipe, device, full_train, share=WHOLE):
        splits = {"train": raw.train, "validation": raw.validation, "test": raw.test}
        if full_train:
            splits = {"train": raw.trainable(), "test": raw.test}
        title = DATASETS[dataset].title
        try:
            made = {
                split: Windows(stream, recipe.block, device, raw.tokenizer.size, f"{title}, {split},", share)
                for split, stream in splits.items()
            }
        except ValueError as e:
            raise InputError(f"{e}: give more text, or a smaller {self.name.upper()}_BLOCK") from None
        facts = {
            "tokenizer": raw.tokenizer.name,
            "block": recipe.block,
            "bytes_per_token": {
                split: raw.tokenizer.count_bytes(targets) / len(targets)
                for split in ("validation", "test")
                if len(targets := self.targets(getattr(raw, split), recipe))
            },
        }
        return Data(made["train"], made.get("validation"), made["test"], raw.hash, facts, raw.tokenizer)

    def targets(self, stream, recipe):
        """The tokens of a split that an evaluation predicts."""
        windows = min((len(stream) - 1) // recipe.block, self.most_windows(recipe) or len(stream))
        return stream[1 : windows * recipe.block + 1]

    def most_windows(self, recipe) -> int:
        """Windows of an evaluation; 0 is all."""
        return math.ceil(recipe.eval_tokens / recipe.block)

    def model(self, dataset, recipe):
        record = DATASETS[dataset]
        name = record.tokenizers[0] if recipe.tokenizer == "auto" else recipe.tokenizer
        return self.network(recipe.size, VOCABULARY[name], recipe.block)

    def batches(self, data, recipe, generator):
        return data.train.epoch(recipe.eval_interval, recipe.batch_size, generator)

    def loss(self, model, batch, label_smoothing):
        x, y = batch
        return F.cross_entropy(model(x).flatten(0, 1), y.flatten(), label_smoothing=label_smoothing)

    @torch.inference_mode()
    def evaluate(self, model, split, recipe, add=alone):
        """Mean cross-entropy of a token, over windows side by side: all, or the first that have EVAL_TOKENS."""
        training = model.training
        model.eval()
        total, count = 0.0, 0
        for x, y in split.in_order(recipe.eval_batch_size, self.most_windows(recipe)):
            logits = model(x)[: len(y)].flatten(0, 1)
            total = total + F.cross_entropy(logits, y.flatten(), reduction="sum").double()
            count += y.numel()
        model.train(training)
        loss, count = add(torch.tensor([float(total), count], dtype=torch.float64)).tolist()
        return Scores(loss / count, None)

    def batching(self, dataset, recipe, gib, devices=1):
        return batching.language(recipe.size, recipe.block, recipe.batch_size, gib, recipe.micro_batch, devices)

    def blocks(self, model):
        return list(model.transformer["h"])

    def flops_per_token(self, model):
        """6 for each weight that multiplies, and 12 x layers x width x block of attention (Chowdhery et al. 2022,
        appendix B). Positions are added, and the tied embedding multiplies once, as the head."""
        weights = sum(p.numel() for p in model.parameters()) - model.transformer["wpe"].weight.numel()
        width = model.transformer["wte"].weight.shape[1]
        return float(6 * weights + 12 * len(model.transformer["h"]) * width * model.block)

    @torch.inference_mode()
    def shown(self, model, data, add=alone):
        """Text as the model writes it, from an end of text on: SAMPLED tokens, each drawn from the TOP likeliest."""
        training = model.training
        model.eval()
        drawn = torch.Generator(data.test.device).manual_seed(0)
        ids = torch.full((1, 1), data.tokenizer.end, device=data.test.device)
        for _ in range(SAMPLED):
            logits = model(ids[:, -model.block :])[0, -1, : data.tokenizer.size].float()
            best, which = (logits / TEMPERATURE).topk(TOP)
            pick = torch.multinomial(best.softmax(0), 1, generator=drawn)
            ids = torch.cat([ids, which[pick][None]], 1)
        model.train(training)
        return {"sample": data.tokenizer.decode(ids[0, 1:].tolist())}


VOCABULARY = {"bpe": 50304, "bytes": 320}  # 50,257 and 257 tokens, rounded up so that matrices fit a processor's tiles
