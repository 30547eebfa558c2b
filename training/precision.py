"""Mixed precision: bfloat16 where the machine computes in it.

A CPU without AVX-512 has no arithmetic for it: every convolution is converted there and back, and a step of stage one
takes six times as long as in single precision. So a recipe's `half` is a wish, and the machine decides.
"""

from __future__ import annotations

import torch


def computes_in_half(kind: str = "cpu") -> bool:
    """Whether a device type ("cpu", "cuda") is faster in bfloat16 than in single precision."""
    if kind == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def half_precision(wanted: bool, kind: str = "cpu") -> torch.autocast:
    """A context in which `kind` computes in bfloat16 where that is safe, if it is wanted and pays."""
    return torch.autocast(kind, torch.bfloat16, enabled=wanted and computes_in_half(kind))
