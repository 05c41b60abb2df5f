"""What a processor could do, for the share of it that training uses (MFU). A table; no torch.

Dense matrix products in bf16, in TFLOP/s, as the vendors' data sheets have them (without sparsity).
"""

import re

# Words of a device's name, in the order they are looked for: the first that is in the name decides.
BF16_TFLOPS = (
    ("B200", 2250),
    ("GH200", 989),
    ("H200", 989),
    ("H100 PCIe", 756),
    ("H100 NVL", 835),
    ("H100", 989),
    ("A100", 312),
    ("A10G", 70),
    ("A10", 125),
    ("L40S", 362),
    ("L40", 181),
    ("L4", 121),
    ("RTX 6000 Ada", 364),
    ("RTX A6000", 155),
    ("RTX 5090", 210),
    ("RTX 4090", 165),
    ("RTX 3090", 71),
    ("MI325X", 1307),
    ("MI300X", 1307),
    ("MI250X", 383),
    ("W7900", 123),
)


def peak_flops(device: str, precision: str) -> float | None:
    """FLOP/s of one device at bf16, by its name; None where it is not in the table, or computes in fp32."""
    if precision != "bf16":
        return None
    found = (t for words, t in BF16_TFLOPS if re.search(rf"\b{re.escape(words)}\b", device, re.IGNORECASE))
    return next((1e12 * t for t in found), None)


def mfu(flops_per_s: float | None, device: str, precision: str, devices: int = 1) -> float | None:
    """Model FLOPs utilisation in percent (Chowdhery et al. 2022, appendix B): the model's own arithmetic, whatever was
    computed twice, by what the devices could do."""
    peak = peak_flops(device, precision)
    return 100 * flops_per_s / (peak * devices) if peak and flops_per_s else None
