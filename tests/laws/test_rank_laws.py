"""Laws of ranks and devices: two processes that share a step do what one would, and nothing is tied to the CPU."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from drivesim.datatypes import default_rig
from drivesim.models.encoder import EncoderConfig
from drivesim.models.views import ViewLayout
from training.batches import Batch
from training.objectives import spread
from training.pretrain import PretrainConfig, Pretrainer
from training.ranks import Ranks, join


def latents_and_episodes() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(24, 3, 4, generator=generator), torch.arange(4).repeat_interleave(6)


def spread_and_slope(rows: slice) -> tuple[Tensor, Tensor]:
    """SIGReg of some rows through a weight, and the weight's gradient."""
    latents, episodes = latents_and_episodes()
    weight = nn.Parameter(torch.eye(4) * 1.5)
    own = episodes[rows] - episodes[rows].min()
    loss = spread(latents[rows] @ weight, own, torch.Generator().manual_seed(1))
    loss.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    return loss.detach(), weight


def share_a_step(rank: int, port: int, folder: str) -> None:
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    ranks = join("cpu")
    loss, weight = spread_and_slope(slice(12 * rank, 12 * rank + 12))
    ranks.average([weight])
    assert weight.grad is not None
    other = nn.Linear(2, 2)
    nn.init.constant_(other.weight, float(rank))
    ranks.agree(other)
    ranks.wait()
    torch.save({"loss": loss, "grad": weight.grad, "agreed": other.weight.detach()}, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_ranks_compute_the_statistic_and_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spawn(share_a_step, (port, str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    whole, weight = spread_and_slope(slice(0, 24))
    assert weight.grad is not None
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.allclose(found["loss"], whole, rtol=1e-5)
        assert torch.allclose(found["grad"], weight.grad, rtol=1e-4, atol=1e-6)
        assert (found["agreed"] == 0.0).all()


def test_ranks_throw_their_own_dice_and_one_process_those_it_always_had() -> None:
    cpu = torch.device("cpu")
    assert Ranks(cpu).seeds(3, 7) == [3, 7]
    assert Ranks(cpu, 0, 2).seeds(3, 7) != Ranks(cpu, 1, 2).seeds(3, 7)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_an_error_with_advice() -> None:
    with pytest.raises(ValueError, match="--device cpu"):
        join("cuda")


@pytest.mark.parametrize("frozen", [False, True])
def test_stage_one_runs_on_another_device_than_the_cpu(frozen: bool) -> None:
    """On "meta" tensors hold nothing, but an operation that mixes devices fails as it would on a GPU."""
    meta, layout, b, m, t = torch.device("meta"), ViewLayout.of(default_rig()), 4, 2, 2
    n, v = 4 * (b + m + t), len(layout.views)
    cameras = torch.from_numpy(np.broadcast_to(layout.ego_from_camera, (n, v, 3, 4)).astype(np.float32))
    batch = Batch(
        torch.zeros(n, v, 3, 72, 128, dtype=torch.uint8), torch.from_numpy(layout.intrinsics.astype(np.float32)),
        cameras, torch.zeros(b, 3, 2), torch.zeros(b, 3), torch.zeros(2, m, 2, 2), torch.zeros(m), t,
    )  # fmt: skip
    model = Pretrainer(EncoderConfig()).to(meta)
    groups = torch.arange(2).repeat_interleave(2)
    dice = torch.Generator().manual_seed(0)
    loss, _, _ = model.loss(batch.to(meta), groups, PretrainConfig(half=False), dice, frozen)
    loss.backward()  # type: ignore[no-untyped-call]
    assert all((p.grad is None) == frozen for p in model.encoder.parameters())
    assert all(p.grad is not None and p.grad.device.type == "meta" for p in model.predictor.parameters())
