"""GPT-2 (Radford et al. 2019): a decoder-only transformer with pre-normalisation, learned positions and a tied head.

Names and shapes are those of OpenAI's release as Hugging Face has it, but that its Conv1D weights are stored the other
way round: transposed, they load here and give the same logits.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Size:
    layers: int
    heads: int
    width: int


# 124M, 350M, 774M and 1558M are the four of the paper (table 2, with the parameters counted right); tiny is for a CPU.
SIZES = {
    "tiny": Size(4, 4, 128),
    "124m": Size(12, 12, 768),
    "350m": Size(24, 16, 1024),
    "774m": Size(36, 20, 1280),
    "1558m": Size(48, 25, 1600),
}


class Attention(nn.Module):
    """Causal self-attention: (B, T, width) -> the same."""

    def __init__(self, size: Size):
        super().__init__()
        self.heads = size.heads
        self.c_attn = nn.Linear(size.width, 3 * size.width)
        self.c_proj = nn.Linear(size.width, size.width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, width = x.shape
        q, k, v = (y.view(b, t, self.heads, -1).transpose(1, 2) for y in self.c_attn(x).split(width, 2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).reshape(b, t, width))


class MLP(nn.Module):
    """Four times as wide inside, GELU in its tanh form, as released."""

    def __init__(self, width: int):
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, size: Size):
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(size.width), Attention(size)
        self.ln_2, self.mlp = nn.LayerNorm(size.width), MLP(size.width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT2(nn.Module):
    """int64 tokens (B, T), T <= block -> logits (B, T, vocabulary)."""

    def __init__(self, size: Size, vocabulary: int, block: int):
        super().__init__()
        self.block = block
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(vocabulary, size.width),
                "wpe": nn.Embedding(block, size.width),
                "h": nn.ModuleList(Block(size) for _ in range(size.layers)),
                "ln_f": nn.LayerNorm(size.width),
            }
        )
        self.lm_head = nn.Linear(size.width, vocabulary, bias=False)
        self.lm_head.weight = self.transformer["wte"].weight
        self.apply(initialise)
        for name, p in self.named_parameters():
            if name.endswith("c_proj.weight"):  # of what the residual stream adds up (section 2.3)
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * size.layers))

    def forward(self, tokens: Tensor) -> Tensor:
        t = self.transformer
        x = t["wte"](tokens) + t["wpe"](torch.arange(tokens.shape[1], device=tokens.device))
        for block in t["h"]:
            x = block(x)
        return self.lm_head(t["ln_f"](x))


def initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def network(size: str, vocabulary: int, block: int) -> GPT2:
    return GPT2(SIZES[size], vocabulary, block)
