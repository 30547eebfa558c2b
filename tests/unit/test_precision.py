"""Mixed precision is a wish: a machine that does not compute in it is not slowed down by it."""

from __future__ import annotations

import pytest
import torch

from training.precision import computes_in_half, half_precision


@pytest.mark.parametrize(("capability", "pays"), [("AVX512", True), ("AVX2", False), ("DEFAULT", False)])
def test_a_cpu_without_arithmetic_for_it_stays_in_single_precision(
    capability: str, pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    layer, rows = torch.nn.Linear(4, 3), torch.ones(2, 4)
    with half_precision(True):
        assert layer(rows).dtype == (torch.bfloat16 if pays else torch.float32)
    with half_precision(False):
        assert layer(rows).dtype == torch.float32
    assert computes_in_half() == pays
