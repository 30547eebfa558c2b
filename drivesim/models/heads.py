"""Small heads on the frozen latent: a policy, the risk of an imagined moment, and read-outs for reports.

A head of towers has a low-rank latent tower beside a tower of its own for ego kinematics, because a wide
latent over-fits rare events and because motion the car measures itself needs no imagination. A head of slots
asks instead: the kinematics of a moment (how far along which bend, how fast, when) are a query, and the slots,
each of which listens to one sector around the car, are what it looks into.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

KINEMATICS = 16  # columns of `kinematics`, see drivesim.planning.kinematics
RISKS = ("collision", "near", "red_light")
READOUTS = (
    "lead_gap",
    "lead_speed",
    "lead_present",
    "red_light",
    "walker_ahead",
    "lateral",
    "heading",
    "speed",
    "curvature",
)
ACCELERATION_BINS_MPS2 = (-6.0, -4.0, -3.0, -2.0, -1.2, -0.6, -0.2, 0.2, 0.6, 1.2, 2.0, 3.0)


@dataclass(frozen=True)
class HeadConfig:
    """Sizes shared by the heads.

    Attributes:
        latent_size: slots times their width.
        policy, risk: what these heads are, "towers" or "slots". The clone is of towers, which clone better, and so are
            the read-outs, which have nothing to ask with.
        slots, query_width, query_heads: of a head of slots.
        groups: slots of each group, in their order. Where there are several, every group has a head of its own and
            their answers are averaged: one head of all would learn the scene by heart and pass the things over.
    """

    latent_size: int = 1024
    rank: int = 24
    kinematic_width: int = 48
    hidden: int = 128
    dropout: float = 0.2
    policy: str = "towers"
    risk: str = "towers"
    slots: int = 16
    query_width: int = 64
    query_heads: int = 4
    groups: tuple[int, ...] = ()


class TwoTowers(nn.Module):
    """A latent tower of low rank and a kinematic tower, joined by an MLP."""

    def __init__(
        self, config: HeadConfig, outputs: int, latents: int = 2, vision: bool = True, kinematics: int = KINEMATICS
    ) -> None:
        super().__init__()
        self.vision = vision
        self.latent = nn.Linear(latents * config.latent_size, config.rank) if vision else None
        self.kinematic = nn.Sequential(nn.Linear(kinematics, config.kinematic_width), nn.GELU())
        joined = config.kinematic_width + (config.rank if vision else 0)
        self.join = nn.Sequential(
            nn.LayerNorm(joined), nn.Dropout(config.dropout), nn.Linear(joined, config.hidden), nn.GELU(),
            nn.Dropout(config.dropout), nn.Linear(config.hidden, config.hidden), nn.GELU(),
            nn.Linear(config.hidden, outputs),
        )  # fmt: skip

    def forward(self, latents: Tensor, kinematics: Tensor) -> Tensor:
        """latents (b, 2, n, d) previous and current; kinematics (b, columns) -> (b, outputs)."""
        towers = [self.kinematic(kinematics)]
        if self.latent is not None:
            towers.append(self.latent(latents.flatten(1)))
        return torch.as_tensor(self.join(torch.cat(towers, dim=-1)))


class SlotQuery(nn.Module):
    """A query of kinematics over the slots of two latents, beside a low-rank look at all of them."""

    def __init__(self, config: HeadConfig, outputs: int, latents: int = 2, kinematics: int = KINEMATICS) -> None:
        super().__init__()
        width, self.heads = config.query_width, config.query_heads
        self.slot = nn.Linear(config.latent_size // config.slots, width)
        self.place = nn.Parameter(torch.randn(latents * config.slots, width) * 0.1)
        self.mix = nn.Sequential(
            nn.GELU(), nn.Dropout(config.dropout), nn.Linear(width, width), nn.LayerNorm(width)
        )  # fmt: skip
        self.kinematic = nn.Sequential(nn.Linear(kinematics, width), nn.GELU(), nn.Linear(width, width))
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.latent = nn.Linear(latents * config.latent_size, config.rank)
        joined = 2 * width + config.rank
        self.join = nn.Sequential(
            nn.LayerNorm(joined), nn.Linear(joined, config.hidden), nn.GELU(), nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.hidden), nn.GELU(), nn.Linear(config.hidden, outputs),
        )  # fmt: skip

    def forward(self, latents: Tensor, kinematics: Tensor) -> Tensor:
        """latents (b, 2, n, d) now and then; kinematics (b, columns) -> (b, outputs)."""
        read = self.key_value(self.mix(self.slot(latents).flatten(1, 2) + self.place))
        return self._told(read, self.latent(latents.flatten(1)), kinematics[:, None])[:, 0]

    def _told(self, read: Tensor, overview: Tensor, kinematics: Tensor) -> Tensor:
        """Keys and values of slots (b, m, 2 w), the low-rank look (b, rank), questions (b, q, columns) -> answers."""
        b, q = kinematics.shape[:2]
        asked = self.kinematic(kinematics)
        query, key, value = (
            x.view(b, -1, self.heads, x.shape[-1] // self.heads).transpose(1, 2)
            for x in (self.query(asked), *read.chunk(2, dim=-1))
        )
        found = nn.functional.scaled_dot_product_attention(query, key, value)
        parts = [found.transpose(1, 2).reshape(b, q, -1), asked, overview[:, None].expand(-1, q, -1)]
        return torch.as_tensor(self.join(torch.cat(parts, dim=-1)))

    def of_moments(self, now: Tensor, then: Tensor, kinematics: Tensor) -> Tensor:
        """`forward` for b moments imagined from one present, each asked q questions: the slots are read once.

        Args:
            now: (n, d); then: (b, n, d); kinematics: (b, q, columns).

        Returns:
            (b, q, outputs).
        """
        b, n, half = len(then), len(now), now.numel()
        read = [
            self.key_value(self.mix(self.slot(slots) + place)).expand(b, -1, -1)
            for slots, place in ((now, self.place[:n]), (then, self.place[n:]))
        ]
        of_now, of_then = self.latent.weight[:, :half], self.latent.weight[:, half:]
        overview = then.flatten(1) @ of_then.T + (of_now @ now.flatten() + self.latent.bias)
        return self._told(torch.cat(read, dim=1), overview, kinematics)


class Panel(nn.Module):
    """A head for each group of slots. In training each row is answered by one of them, drawn; then by their mean."""

    def __init__(self, groups: tuple[int, ...], heads: list[nn.Module]) -> None:
        super().__init__()
        self.groups, self.heads = groups, nn.ModuleList(heads)

    def answers(self, latents: Tensor, kinematics: Tensor) -> Tensor:
        """What each head says, (groups, b, outputs)."""
        parts = torch.split(latents, self.groups, dim=2)  # type: ignore[no-untyped-call, arg-type]
        return torch.stack([head(part, kinematics) for head, part in zip(self.heads, parts, strict=True)])

    def of_moments(self, now: Tensor, then: Tensor, kinematics: Tensor) -> Tensor:
        """The mean of `of_moments` of the heads."""
        groups = list(self.groups)
        parts = zip(self.heads, torch.split(now, groups), torch.split(then, groups, dim=1), strict=True)  # type: ignore[no-untyped-call]
        return torch.stack([of_moments(head, own, later, kinematics) for head, own, later in parts]).mean(0)

    def forward(self, latents: Tensor, kinematics: Tensor) -> Tensor:
        """As the heads: latents (b, 2, n, d), kinematics (b, columns) -> (b, outputs)."""
        answers = self.answers(latents, kinematics)
        if not self.training or len(answers) == 1:
            return answers.mean(0)
        asked = torch.randint(len(answers), (len(latents),), device=latents.device)
        return answers[asked, torch.arange(len(latents), device=latents.device)]


def of_moments(head: nn.Module, now: Tensor, then: Tensor, kinematics: Tensor) -> Tensor:
    """What any head says of moments (b, n, d) imagined from one present (n, d), asked (b, q, columns): (b, q, outputs).

    For use, not for training: there a panel draws who answers.
    """
    if isinstance(head, (SlotQuery, Panel)):
        return head.of_moments(now, then, kinematics)
    pair = torch.stack([now.expand(len(then), -1, -1), then], dim=1)
    return torch.stack([head(pair, kinematics[:, i]) for i in range(kinematics.shape[1])], dim=1)


OUTPUTS = {
    "policy": len(ACCELERATION_BINS_MPS2), "clone": len(ACCELERATION_BINS_MPS2), "risk": len(RISKS),
    "read": len(READOUTS),
}  # fmt: skip


def make_head(name: str, config: HeadConfig, vision: bool = True) -> nn.Module:
    """An untrained head, one of OUTPUTS; without vision there are no slots to ask, and it is of towers.

    Raises:
        ValueError: the configuration asks for a kind that there is not, or its groups are not the latent's slots.
    """
    kind = {"policy": config.policy, "risk": config.risk}.get(name, "towers")
    if kind not in ("towers", "slots"):
        raise ValueError(f"heads.{name} is {kind!r}: it is one of towers, slots")
    if config.groups and vision:
        width = config.latent_size // config.slots
        if sum(config.groups) != config.slots:
            raise ValueError(f"heads.groups {config.groups} are not the {config.slots} slots of the latent")
        parts = []
        for count in config.groups:
            hidden = config.hidden if 2 * count >= config.slots else config.hidden // 2  # few slots need no wide head
            parts.append(replace(config, groups=(), slots=count, latent_size=count * width, hidden=hidden))
        return Panel(config.groups, [make_head(name, part) for part in parts])
    if kind == "slots" and vision:
        return SlotQuery(config, OUTPUTS[name])
    return TwoTowers(config, OUTPUTS[name], vision=vision)


def expected_acceleration(logits: Tensor) -> Tensor:
    """Mean acceleration (...) in m/s2 of a policy's distribution over ACCELERATION_BINS_MPS2."""
    return torch.as_tensor((logits.softmax(-1) * torch.tensor(ACCELERATION_BINS_MPS2)).sum(-1))


def acceleration_quantile(logits: Tensor, quantile: float) -> Tensor:
    """Quantile (...) of a policy's distribution, interpolated between bins."""
    bins = torch.tensor(ACCELERATION_BINS_MPS2)
    cumulative = logits.softmax(-1).cumsum(-1)
    above = (cumulative >= quantile).float().argmax(-1)
    return bins[above]
