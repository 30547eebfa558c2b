"""The predictor: what the latent will be, given what it is and what the car does.

Two modes behind one interface. "autoregressive" imagines half a second at a time and goes on from what it
imagined. "prefix" tells every horizon at once from the last encoded latents and the actions up to there
(Fast-LeWM, arXiv 2606.26217): no error is fed back, and the pose that the actions lead to, known by dead
reckoning, is told outright.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from drivesim.config import ConfigError
from drivesim.models.attention import Attention

STEP_S = 0.5
MODES = ("autoregressive", "prefix")
PREFIX_FEATURES = 13
ROWS_AT_ONCE = 128  # more do not fit a core's cache: all horizons of 128 candidates at once cost a half more


@dataclass(frozen=True)
class PredictorConfig:
    """Sizes of the predictor. Actions are acceleration, curvature and the speed at the start of the step.

    The defaults are what a checkpoint means that does not say; recipes choose.

    Raises:
        ConfigError: an unknown mode.
    """

    slots: int = 16
    latent_dim: int = 64
    width: int = 128
    layers: int = 2
    heads: int = 4
    members: int = 2  # their disagreement says how far to trust a prediction
    mode: str = "autoregressive"
    own_blocks: bool = False  # members part before the last block, not only before the last linear layer
    slot_modulation: bool = False  # slots answer to the action each in its own way
    dropout: float = 0.0
    error_head: bool = False  # doubt is the error that a small head expects, beside the members' disagreement
    prefix_width: int = 64  # of the recurrent net that reads the actions, in prefix mode
    horizon: int = 6  # steps told at once in prefix mode; longer rollouts go on from there

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"predictor mode {self.mode!r} is none of {', '.join(MODES)}")


def action_features(actions: Tensor, speed_mps: Tensor) -> Tensor:
    """Scaled inputs (..., 5) from actions (..., 2) and the speed (...) at the start of the step.

    Distance and turn within the step are given outright: they decide how the picture moves.
    """
    acceleration, curvature = actions[..., 0], actions[..., 1]
    distance = torch.relu(speed_mps + 0.25 * acceleration) * 0.5
    return torch.stack(
        [acceleration / 3.0, curvature * 10.0, speed_mps / 10.0, distance / 5.0, curvature * distance * 10.0], dim=-1
    )


def speeds_along(actions: Tensor, speed_mps: Tensor) -> Tensor:
    """Speeds (b, p + 1) in m/s from the speed (b,) now under actions (b, p, 2); nobody drives backwards."""
    speeds = [speed_mps]
    for step in range(actions.shape[1]):
        speeds.append(torch.relu(speeds[-1] + STEP_S * actions[:, step, 0]))
    return torch.stack(speeds, dim=1)


def prefix_features(actions: Tensor, speed_mps: Tensor) -> Tensor:
    """Scaled inputs (b, p, 13): every step's own features, and where the steps so far have brought the car.

    Args:
        actions: (b, p, 2) m/s2 and 1/m, each held for half a second; speed_mps (b,) now.

    The pose is dead reckoning in the ego frame of now (x forward, y left); beside it stands by how much it
    differs from going on at this speed, which is what tells two branches of one state apart.
    """
    speeds = speeds_along(actions, speed_mps)
    before, after = speeds[:, :-1], speeds[:, 1:]
    distance = torch.relu(before + 0.25 * actions[..., 0]) * STEP_S
    turn = actions[..., 1] * distance
    yaw = turn.cumsum(1)
    along = (distance * (yaw - 0.5 * turn).cos()).cumsum(1)
    aside = (distance * (yaw - 0.5 * turn).sin()).cumsum(1)
    now = speed_mps[:, None].expand_as(after)
    time_s = STEP_S * torch.arange(1, actions.shape[1] + 1, dtype=actions.dtype, device=actions.device).expand_as(after)
    pose = [along / 10, aside / 2, yaw * 3, after / 10, now / 10, (along - now * time_s) / 3, (after - now) / 5]
    return torch.cat([action_features(actions, before), torch.stack([*pose, time_s / 2 - 0.75], dim=-1)], dim=-1)


class SlotAttention(Attention):
    """Self-attention written out: among sixteen tokens twice as fast on a CPU as the fused kernel, and its gradient."""

    def forward(self, queries: Tensor, memory: Tensor, bias: Tensor | None = None) -> Tensor:
        """queries (b, q, d), memory (b, k, d), bias (b, q, k) -> (b, q, d)."""
        b, q, d = queries.shape
        query = self.query(queries).view(b, q, self.heads, -1).transpose(1, 2) * (d // self.heads) ** -0.5
        key, value = (x.view(b, -1, self.heads, d // self.heads) for x in self.key_value(memory).chunk(2, dim=-1))
        likeness = query @ key.permute(0, 2, 3, 1)
        if bias is not None:
            likeness = likeness + bias[:, None]
        mixed = likeness.softmax(dim=-1) @ value.transpose(1, 2)
        return torch.as_tensor(self.out(mixed.transpose(1, 2).reshape(b, q, d)))


class Block(nn.Module):
    """Transformer block with AdaLN-zero conditioning (DiT; LeWM's predictor).

    Args:
        slots: with more than none, each slot has a modulation of its own beside the condition's.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0, slots: int = 0) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width, elementwise_affine=False)
        self.norm_2 = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = SlotAttention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.slot = nn.Parameter(torch.zeros(slots, 6 * width)) if slots else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (b, n, d), condition (b, d)."""
        return self.modulated(x, self.modulation(condition))

    def modulated(self, x: Tensor, modulation: Tensor) -> Tensor:
        """`forward` where what `modulation` makes of the condition, (b, 6 d), is there already."""
        modulation = modulation[:, None]
        if self.slot is not None:
            modulation = modulation + self.slot
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = modulation.chunk(6, dim=-1)
        normed = self.norm_1(x) * (1 + scale_1) + shift_1
        x = x + gate_1 * self.dropout(self.attention(normed, normed))
        normed = self.norm_2(x) * (1 + scale_2) + shift_2
        return torch.as_tensor(x + gate_2 * self.dropout(self.mlp(normed)))


class LatentPredictor(nn.Module):
    """[z_{t-1}, z_t], actions of half a second each, speed -> z_{t+1}, z_{t+2}, ... for each ensemble member."""

    def __init__(self, config: PredictorConfig) -> None:
        super().__init__()
        self.config = config
        width, prefix = config.width, config.mode == "prefix"
        self.embed = nn.Linear(2 * config.latent_dim, width)
        self.position = nn.Parameter(torch.randn(config.slots, width) * 0.02)
        self.prefix = nn.GRU(PREFIX_FEATURES, config.prefix_width, batch_first=True) if prefix else None
        told = PREFIX_FEATURES + config.prefix_width if prefix else 5
        self.condition = nn.Sequential(nn.Linear(told, width), nn.SiLU(), nn.Linear(width, width))
        shared = config.layers - 1 if config.own_blocks else config.layers
        self.blocks = nn.ModuleList(self._block() for _ in range(shared))
        self.last = nn.ModuleList(self._block() for _ in range(config.members if config.own_blocks else 0))
        self.norm = nn.LayerNorm(width)
        self.members = nn.ModuleList(nn.Linear(width, config.latent_dim) for _ in range(config.members))
        for member in self.members:
            nn.init.normal_(next(member.parameters()), std=0.01)  # the weight: start near "nothing changes"
        self.expected = (
            nn.Sequential(nn.Linear(2 * width, 64), nn.GELU(), nn.Linear(64, 1)) if config.error_head else None
        )

    def _block(self) -> Block:
        c = self.config
        return Block(c.width, c.heads, c.dropout, c.slots if c.slot_modulation else 0)

    def _modulations(self, condition: Tensor) -> list[Tensor]:
        """What every block makes of conditions (..., width): (..., 6 width) each."""
        return [torch.as_tensor(block.modulation(condition)) for block in (*self.blocks, *self.last)]  # type: ignore[operator]

    def _answers(
        self, x: Tensor, condition: Tensor, modulations: list[Tensor] | None = None
    ) -> tuple[list[Tensor], Tensor | None]:
        """Embedded latents (b, n, width) under a condition (b, width), and `_modulations` of it where they are known.

        Returns:
            what each member adds to the present latent (b, n, d), and the logarithm (b,) of the squared error that
            is expected of them, where a head says so. That head shapes nothing but itself.
        """
        told = iter(self._modulations(condition) if modulations is None else modulations)
        for block in self.blocks:
            x = block.modulated(x, next(told))  # type: ignore[operator]
        own = [self.norm(block.modulated(x, next(told))) for block in self.last]  # type: ignore[operator]
        parts = own or [self.norm(x)] * len(self.members)
        expected = None
        if self.expected is not None:
            seen = torch.cat([parts[0].mean(dim=1), condition], dim=-1).detach()
            expected = self.expected(seen)[..., 0].float()
        return [member(part) for member, part in zip(self.members, parts, strict=True)], expected

    def _embedded(self, previous: Tensor, current: Tensor) -> Tensor:
        return torch.as_tensor(self.embed(torch.cat([previous, current], dim=-1)) + self.position)

    def forward(self, previous: Tensor, current: Tensor, action: Tensor, speed_mps: Tensor) -> Tensor:
        """One step: previous, current (b, n, d); action (b, 2); speed (b,) -> (members, b, n, d)."""
        return self.step(previous, current, action, speed_mps)[0]

    def step(
        self, previous: Tensor, current: Tensor, action: Tensor, speed_mps: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """`forward`, and the logarithm (b,) of the squared error expected of it (None without such a head)."""
        if self.prefix is not None:
            members, expected = self._told(previous, current, action[:, None], speed_mps, None)
            return members[:, :, 0], None if expected is None else expected[:, 0]
        return self.answer(previous, current, self.ask(action[:, None], speed_mps[:, None])[0])

    def ask(self, actions: Tensor, speeds_mps: Tensor) -> list[tuple[Tensor, ...]]:
        """What each of p steps asks for, of actions (b, p, 2) and the speeds (b, p) at their starts.

        It does not depend on what is imagined, so all steps are worked out at once: each alone is slow.
        """
        condition = self.condition(action_features(actions, speeds_mps))
        told = [condition, *self._modulations(condition)]
        return [tuple(each[:, step] for each in told) for step in range(actions.shape[1])]

    def answer(self, previous: Tensor, current: Tensor, asked: tuple[Tensor, ...]) -> tuple[Tensor, Tensor | None]:
        """`step` for one of the things that `ask` worked out."""
        condition, *modulations = asked
        added, expected = self._answers(self._embedded(previous, current), condition, modulations)
        return torch.stack([current + member for member in added]), expected

    def _told(
        self, previous: Tensor, current: Tensor, actions: Tensor, speed_mps: Tensor, horizons: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """All horizons at once: (members, b, p, n, d), and (b, p) of the expected error's logarithm."""
        assert self.prefix is not None
        features = prefix_features(actions, speed_mps)
        read, _ = self.prefix(features)
        told = torch.cat([features, read.to(features.dtype)], dim=-1)
        if horizons is not None:
            told = told[:, horizons]
        x, parts, errors = self._embedded(previous, current)[:, None], [], []
        for condition in self.condition(told).split(max(1, ROWS_AT_ONCE // max(1, len(x))), dim=1):
            b, p, width = condition.shape
            added, expected = self._answers(x.expand(-1, p, -1, -1).flatten(0, 1), condition.reshape(b * p, width))
            parts.append(torch.stack([current[:, None] + member.view(b, p, *current.shape[1:]) for member in added]))
            errors += [] if expected is None else [expected.view(b, p)]
        return torch.cat(parts, dim=2), torch.cat(errors, dim=1) if errors else None

    def unroll(
        self, previous: Tensor, current: Tensor, actions: Tensor, speed_mps: Tensor, horizons: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """What every member imagines along several steps; they go on from their mean.

        Args:
            previous, current: (b, n, d).
            actions: (b, p, 2), each held for half a second.
            speed_mps: (b,) now; later speeds follow from the accelerations.
            horizons: (q,) the steps asked for, in order; all by default.

        Returns:
            (members, b, p or q, n, d), and the logarithm (b, p or q) of the expected squared error, if any.
        """
        prefixes = self.config.mode == "prefix"
        at_once = self.config.horizon if prefixes else 1
        if horizons is not None and actions.shape[1] <= at_once and prefixes:
            return self._told(previous, current, actions, speed_mps, horizons)
        parts, errors, speeds = [], [], speeds_along(actions, speed_mps)
        asked = [] if prefixes else self.ask(actions, speeds[:, :-1])
        for first in range(0, actions.shape[1], at_once):
            if prefixes:
                part = actions[:, first : first + at_once]
                members, expected = self._told(previous, current, part, speeds[:, first], None)
            else:
                one, expected = self.answer(previous, current, asked[first])
                members, expected = one[:, :, None], None if expected is None else expected[:, None]
            mean = members.mean(0)
            previous, current = mean[:, -2] if mean.shape[1] > 1 else current, mean[:, -1]
            parts.append(members)
            errors += [] if expected is None else [expected]
        out, expected = torch.cat(parts, dim=2), torch.cat(errors, dim=1) if errors else None
        if horizons is None:
            return out, expected
        return out[:, :, horizons], None if expected is None else expected[:, horizons]

    def rollout(self, previous: Tensor, current: Tensor, actions: Tensor, speed_mps: Tensor) -> tuple[Tensor, Tensor]:
        """Imagine several steps; the arguments are `unroll`'s.

        Returns:
            latents (b, p, n, d), the members' mean, and the doubt (b, p) about them: the members' root mean squared
            difference, to which an error head adds the error it expects (squares are added).
        """
        members, expected = self.unroll(previous, current, actions, speed_mps)
        mean = members.mean(0)
        square = (members - mean).square().mean(dim=(0, 3, 4))
        return mean, (square if expected is None else square + expected.exp()).sqrt()
