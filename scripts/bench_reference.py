"""What `make bench-models` compares with: training loops as they stand in tutorials, on torch and torchvision alone.

Images: a torchvision-style data set of PIL images, transforms, a DataLoader with two persistent workers, torch's own
optimizer, fp32, NCHW. Text: a loop in the manner of nanoGPT: windows of a memory map, fused AdamW, gradients clipped;
on a GPU bf16 and torch.compile. Nothing of lib is used here, so that tuning one side cannot tune the other.
"""

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

WORKERS = 2


class Pictures(Dataset):
    """uint8 (N, H, W) or (N, H, W, 3) and labels, as torchvision's MNIST and CIFAR-10 hold them."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: Callable):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int):
        from PIL import Image

        return self.transform(Image.fromarray(self.images[i])), int(self.labels[i])


def mnist_transform() -> Callable:
    return transforms.Compose([transforms.Pad(2), transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])


def cifar_transform() -> Callable:
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    return transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )


class Images:
    """Training of a classifier, in passes: `begin()` starts one and waits until its workers are ahead, `steps(n)` takes
    n batches of it, fewer than it has, so that the workers are at work as in the middle of an epoch."""

    def __init__(self, data: Pictures, batch: int, model: nn.Module, optimizer, device: torch.device, smoothing=0.0):
        pin = device.type == "cuda"
        self.loader = DataLoader(
            data, batch, shuffle=True, drop_last=True, num_workers=WORKERS, persistent_workers=True, pin_memory=pin
        )
        self.model, self.optimizer, self.device = model.to(device), optimizer, device
        self.criterion = nn.CrossEntropyLoss(label_smoothing=smoothing)

    def begin(self, seconds: float = 0.5) -> None:
        self.batches = iter(self.loader)
        time.sleep(seconds)

    def steps(self, n: int) -> float:
        """The mean loss of n batches, fetched once."""
        self.model.train()
        total = 0.0
        for _ in range(n):
            x, y = next(self.batches)
            x, y = x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)
            loss = self.criterion(self.model(x), y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.detach()
        return float(total) / n


class CausalSelfAttention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (y.reshape(b, t, self.heads, c // self.heads).transpose(1, 2) for y in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(b, t, c))


class Layer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = CausalSelfAttention(width, heads)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.feed(self.norm2(x))


class GPT(nn.Module):
    """GPT-2 of the same sizes; returns the loss, so that a compiler sees it whole."""

    def __init__(self, layers: int, heads: int, width: int, vocabulary: int, block: int):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(block, width)
        self.layers = nn.Sequential(*[Layer(width, heads) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        for p in self.parameters():
            if p.ndim >= 2:
                nn.init.normal_(p, std=0.02)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = self.tokens(x) + self.positions(torch.arange(x.shape[1], device=x.device))
        logits = self.head(self.norm(self.layers(h)))
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), y.view(-1))


class Text:
    """Training of GPT-2 on a stream of tokens; `steps(n)` takes n steps of `batch` windows in goes of `micro`."""

    def __init__(self, stream: np.ndarray, model: GPT, block: int, batch: int, micro: int, device: torch.device):
        gpu = device.type == "cuda"
        self.stream, self.block, self.device = stream, block, device
        self.micro, self.goes, self.gpu = micro, batch // micro, gpu
        self.model = model.to(device)
        decayed = [p for p in self.model.parameters() if p.ndim >= 2]
        others = [p for p in self.model.parameters() if p.ndim < 2]
        groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=6e-4, betas=(0.9, 0.95), fused=True)
        # On a CPU nanoGPT's own advice is to do without its compiler, and fp32 was faster here.
        self.network = torch.compile(self.model) if gpu else self.model
        self.cast = torch.autocast(device.type, torch.bfloat16, enabled=gpu)

    def batch(self) -> tuple[Tensor, Tensor]:
        at = torch.randint(len(self.stream) - self.block, (self.micro,))
        x = torch.stack([torch.from_numpy(self.stream[i : i + self.block].astype(np.int64)) for i in at])
        y = torch.stack([torch.from_numpy(self.stream[i + 1 : i + 1 + self.block].astype(np.int64)) for i in at])
        if self.gpu:
            return x.pin_memory().to(self.device, non_blocking=True), y.pin_memory().to(self.device, non_blocking=True)
        return x, y

    def steps(self, n: int) -> None:
        x, y = self.batch()
        for i in range(n):
            for group in self.optimizer.param_groups:
                group["lr"] = 6e-4 * (1 + math.cos(math.pi * i / n)) / 2
            for _ in range(self.goes):
                with self.cast:
                    loss = self.network(x, y) / self.goes
                x, y = self.batch()
                loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
