"""Stage three: small heads on the frozen latent, from logged truth. No gradient reaches the latent."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from drivesim.models.heads import ACCELERATION_BINS_MPS2, OUTPUTS, READOUTS, RISKS, HeadConfig, make_head
from drivesim.models.predictor import LatentPredictor
from drivesim.runs import Run
from training.clips import Clips
from training.latents import Latents
from training.pretrain import cosine_schedule

STEP_S = 0.5


@dataclass(frozen=True)
class HeadsConfig:
    """Stage three."""

    steps: int = 1500
    batch: int = 256
    risk_states: int = 48
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    horizon: int = 6
    noise: float = 0.3  # on latents, in their standard deviations
    standing_share: float = 0.25  # of a policy batch: from these a policy learns to start again
    candidates: int = 6
    contested_share: float = 0.4  # of the risk states: where it is the car's own doing whether something happens


def soft_bins(acceleration: Tensor) -> Tensor:
    """Target distributions (b, bins): weight shared between the two neighbouring bins."""
    bins = torch.tensor(ACCELERATION_BINS_MPS2)
    value = acceleration.clamp(bins[0], bins[-1])
    upper = torch.searchsorted(bins, value.contiguous()).clamp(1, len(bins) - 1)
    low, high = bins[upper - 1], bins[upper]
    share = ((value - low) / (high - low))[:, None]
    one = nn.functional.one_hot
    return one(upper - 1, len(bins)).float() * (1 - share) + one(upper, len(bins)).float() * share


def imagined_kinematics(now: Tensor, speeds: Tensor, actions: Tensor, distances: Tensor) -> Tensor:
    """Kinematics (..., p, 16) of imagined steps: now (..., 16), speeds, distances (..., p), actions (..., p, 2)."""
    out = now[..., None, :].expand(*speeds.shape, now.shape[-1]).clone()
    out[..., 0] = speeds / 10.0
    out[..., 1] = actions[..., 0] / 3.0
    out[..., 2] = speeds * actions[..., 1] * 2.0
    out[..., 14] = (torch.arange(speeds.shape[-1]) + 1) * STEP_S / 4.0
    out[..., 15] = distances / 20.0
    return out


@torch.no_grad()
def imagined_pairs(predictor: LatentPredictor, context: Tensor, actions: Tensor, speed: Tensor) -> Tensor:
    """Now beside every imagined moment: pairs (b, k, p, 2, n, d), as `WorldModel.risks` asks.

    Args:
        context: (b, 2, n, d) last two latents; actions (b, k, p, 2); speed (b,) now, m/s.
    """
    k, p = actions.shape[1:3]
    wide = context.repeat_interleave(k, dim=0)
    imagined, _ = predictor.rollout(wide[:, 0], wide[:, 1], actions.flatten(0, 1), speed.repeat_interleave(k))
    now = context[:, None, None, 1].expand(-1, k, p, -1, -1)
    return torch.stack([now, imagined.view(now.shape)], dim=3)


def pairs(latents: Latents, rows: Tensor, rng: np.random.Generator) -> Tensor:
    """Last two latents (b, 2, n, d) of rows, in either appearance."""
    source = latents.a if rng.random() < 0.5 else latents.b
    return torch.stack([source[rows - 1], source[rows]], dim=1)


def with_past(clips: Clips) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Rows that have a predecessor in their episode."""
    return np.asarray(clips.starts(2) + 1)


def contested(risk: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """Where a state's candidates differ in colliding or in crossing a red line within two seconds.

    Args:
        risk: (b, k, p, 3) labels of RISKS.

    Returns:
        (b,) bool.
    """
    within = risk[:, :, :4].max(2)
    return np.asarray((within.min(1) < within.max(1))[:, [RISKS.index("collision"), RISKS.index("red_light")]].any(1))


class HeadTrainer:
    """Four heads in one loop; each has its own loss, none touches the latent."""

    def __init__(
        self, clips: Clips, latents: Latents, predictor: LatentPredictor, heads: HeadConfig, config: HeadsConfig
    ) -> None:
        self.clips, self.latents, self.predictor, self.config = clips, latents, predictor, config
        self.policy, self.clone = make_head("policy", heads), make_head("clone", heads)
        self.risk, self.read = make_head("risk", heads), make_head("read", heads)
        self.table = {key: torch.from_numpy(value) for key, value in clips.table.items()}
        self.rows = with_past(clips)
        calm = self.rows[clips.table["mode"][self.rows] == 0]
        self.calm = calm if len(calm) else self.rows  # a handful of drives may hold no calm one
        # States that already collide teach nothing: whatever one does, the first step collides.
        risky = (clips.table["risk_valid"][self.rows] > 0.5) & (clips.table["risk"][self.rows][:, :, 0, 0].min(1) < 0.5)
        self.risk_rows = self.rows[risky]
        eventful = clips.table["risk"][self.risk_rows].reshape(len(self.risk_rows), -1).max(1) > 0.5
        self.eventful, self.calm_risk = self.risk_rows[eventful], self.risk_rows[~eventful]
        self.contested = self.risk_rows[contested(clips.table["risk"][self.risk_rows])]
        self.standing = self.rows[clips.table["speed"][self.rows] < 1.0]

    def pick(self, common: np.ndarray, rare: np.ndarray, size: int, rng: np.random.Generator) -> Tensor:  # type: ignore[type-arg]
        """Half of the batch from the rare rows, where there are both kinds."""
        if not len(rare) or not len(common):
            return torch.from_numpy(rng.choice(common if len(common) else rare, size))
        half = size // 2
        return torch.from_numpy(np.concatenate([rng.choice(common, size - half), rng.choice(rare, half)]))

    def risk_states(self, rng: np.random.Generator) -> Tensor:
        """States to ask about: half calm; of the eventful half most are contested, the hard negatives of a planner.

        With eventful states alone, the head learns where danger is and neglects which of a state's drives meets it:
        a head that saw no imagined latent ranked the drives of one state better.
        """
        size = self.config.risk_states
        hard = round(self.config.contested_share * size) if len(self.contested) else 0
        if not hard or not len(self.calm_risk):
            return self.pick(self.calm_risk, self.eventful, size, rng)
        some = max(0, size // 2 - hard)
        parts = (self.calm_risk, size - some - hard), (self.eventful, some), (self.contested, hard)
        return torch.from_numpy(np.concatenate([rng.choice(rows, count) for rows, count in parts]))

    def noisy(self, rows: Tensor, rng: np.random.Generator) -> Tensor:
        """Last two latents with noise, so that a head leans on no single direction."""
        latents = pairs(self.latents, rows, rng)
        return latents + self.config.noise * torch.randn_like(latents)

    def policy_loss(self, rng: np.random.Generator) -> Tensor:
        """Cross-entropy to what the careful expert would do at this state, risky states included."""
        standing = round(self.config.standing_share * self.config.batch) if len(self.standing) else 0
        common = rng.choice(self.rows, self.config.batch - standing)
        rows = torch.from_numpy(np.concatenate([common, rng.choice(self.standing, standing)]) if standing else common)
        logits = self.policy(self.noisy(rows, rng), self.table["kinematics"][rows])
        return torch.as_tensor(-(soft_bins(self.table["expert"][rows, 0]) * logits.log_softmax(-1)).sum(-1).mean())

    def clone_loss(self, rng: np.random.Generator) -> Tensor:
        """Behaviour cloning: what the expert did on its own calm drives, nothing else."""
        rows = torch.from_numpy(rng.choice(self.calm, self.config.batch))
        logits = self.clone(self.noisy(rows, rng), self.table["kinematics"][rows])
        return torch.as_tensor(-(soft_bins(self.table["action"][rows, 0]) * logits.log_softmax(-1)).sum(-1).mean())

    def foreseen(self, context: Tensor, actions: Tensor, speed: Tensor) -> Tensor:
        """What the risk head looks at: now beside every imagined moment (controls look at something else).

        Args:
            context: (b, 2, n, d) last two latents; actions (b, k, p, 2); speed (b,) now, m/s.

        Returns:
            (b, k, p, 2, n, d).
        """
        return imagined_pairs(self.predictor, context, actions, speed)

    def risk_queries(self, context: Tensor, rows: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Questions about hypothetical drives, with the answers.

        Args:
            context: (b, 2, n, d) last two latents of rows (b,); chosen (b, k) candidates of each.

        Returns:
            pairs (m, 2, n, d), kinematics (m, 16) and labels (m, 3), where m = b * k * horizon.
        """
        horizon, index = self.config.horizon, torch.arange(len(rows))[:, None]
        actions, speeds, distances, labels = (
            self.table[name][rows][index, chosen][:, :, :horizon]
            for name in ("candidate_action", "candidate_speed", "candidate_distance", "risk")
        )
        now = self.table["kinematics"][rows][:, None].expand(-1, chosen.shape[1], -1)
        features = imagined_kinematics(now, speeds, actions, distances)
        pairs = self.foreseen(context, actions, self.table["speed"][rows])
        return pairs.flatten(0, 2), features.flatten(0, 2), labels.flatten(0, 2)

    def risk_loss(self, rng: np.random.Generator) -> Tensor:
        """Binary cross-entropy at imagined moments of hypothetical drives."""
        rows = self.risk_states(rng)
        context = self.noisy(rows, rng)
        chosen = torch.from_numpy(rng.integers(0, self.table["risk"].shape[1], (len(rows), self.config.candidates)))
        pairs, features, labels = self.risk_queries(context, rows, chosen)
        return nn.functional.binary_cross_entropy_with_logits(self.risk(pairs, features), labels)

    def read_loss(self, rng: np.random.Generator) -> Tensor:
        """Probes for reports, on encoded latents."""
        rows = torch.from_numpy(rng.choice(self.rows, self.config.batch))
        out = self.read(self.noisy(rows, rng), torch.zeros(len(rows), 16))
        table = self.table
        present = table["lead_present"][rows]
        binary = ("lead_present", "red_light", "walker_ahead")
        total = torch.zeros(())
        for column, name in enumerate(READOUTS):
            target = table[name][rows]
            if name in binary:
                total = total + nn.functional.binary_cross_entropy_with_logits(out[:, column], target)
                continue
            scale = {
                "lead_gap": 10.0,
                "lead_speed": 4.0,
                "lateral": 0.5,
                "heading": 0.1,
                "speed": 4.0,
                "curvature": 0.03,
            }[name]
            weight = present if name.startswith("lead") else torch.ones_like(present)
            error = nn.functional.smooth_l1_loss(out[:, column] / scale, target / scale, reduction="none")
            total = total + (weight * error).sum() / weight.sum().clamp(min=1.0)
        return total


def train_heads(
    trainer: HeadTrainer, run: Run, seed: int, on_step: Callable[[int, dict[str, float]], None] | None = None,
    names: tuple[str, ...] = tuple(OUTPUTS),
) -> dict[str, nn.Module]:  # fmt: skip
    """Train all heads, or some; returns them by name."""
    config, modules = trainer.config, nn.ModuleDict({name: getattr(trainer, name) for name in names})
    torch.manual_seed(seed + 2)
    optimizer = torch.optim.AdamW(modules.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    modules.train()
    for step in range(config.steps):
        rng = np.random.default_rng([seed, 11, step])
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * cosine_schedule(step, config.steps, 0.05)
        began = time.monotonic()
        losses: dict[str, Tensor] = {name: getattr(trainer, f"{name}_loss")(rng) for name in names}
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(modules.parameters(), 5.0)
        optimizer.step()
        metrics = {key: float(value.detach()) for key, value in losses.items()} | {"step_s": time.monotonic() - began}
        run.log(stage="heads", step=step, **metrics)
        if on_step is not None:
            on_step(step, metrics)
    modules.eval()
    return {name: getattr(trainer, name) for name in names}
