"""The next tick's words one after the other, each given those before it; behind the predictor's interface."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from drivesim.models.predictor import LatentPredictor, PredictorConfig, action_features
from drivesim.runs import Run
from training.clips import Clips
from training.dynamics import DynamicsConfig
from training.latents import Latents
from training.pretrain import cosine_schedule, restore, save
from training.rivals.tokens import WORDS, nearest_word, spelt

Past = tuple[Tensor, Tensor]


class TokenBlock(nn.Module):
    """Transformer block that keeps the keys and values of what it has read."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.read, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, past: Past | None, causal: bool) -> tuple[Tensor, Past]:
        """x (b, q, width) after `past`; with `causal` no token sees a later one of x."""
        b, q, width = x.shape
        query, key, value = (
            part.view(b, q, self.heads, -1).transpose(1, 2) for part in self.read(self.norm_1(x)).chunk(3, dim=-1)
        )
        if past is not None:
            key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        known = key.shape[2] - q
        mask = torch.ones(q, key.shape[2], dtype=torch.bool).tril(known) if causal else None
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, q, width))
        return x + self.mlp(self.norm_2(x)), (key, value)


class TokenPredictor(LatentPredictor):
    """A small language model of the latent. It is a `LatentPredictor` to its users; there is one member, no doubt."""

    def __init__(self, config: PredictorConfig) -> None:
        nn.Module.__init__(self)
        self.config = config
        n, d, width = config.slots, config.latent_dim, config.width
        self.codes: Tensor
        self.register_buffer("codes", torch.zeros(n, WORDS, d))
        self.embed = nn.Linear(d, width)
        self.place = nn.Parameter(torch.randn(3, n, width) * 0.02)  # before, now, next
        self.condition = nn.Sequential(nn.Linear(5, width), nn.SiLU(), nn.Linear(width, width))
        self.layers = nn.ModuleList(TokenBlock(width, config.heads) for _ in range(config.layers))
        self.final = nn.LayerNorm(width)
        self.words = nn.Linear(width, WORDS)

    def run(self, x: Tensor, past: list[Past] | None, causal: bool) -> tuple[Tensor, list[Past]]:
        """All blocks."""
        kept = []
        for i, layer in enumerate(self.layers):
            x, now = layer(x, None if past is None else past[i], causal)
            kept.append(now)
        return x, kept

    def context(
        self, previous: Tensor, current: Tensor, action: Tensor, speed_mps: Tensor
    ) -> tuple[Tensor, list[Past]]:
        """Read two ticks (b, n, d) and the action: the condition (b, 1, width), and what was read."""
        told = self.condition(action_features(action, speed_mps))[:, None]
        ticks = torch.cat([self.embed(previous) + self.place[0], self.embed(current) + self.place[1]], dim=1)
        return told, self.run(ticks + told, None, False)[1]

    def logits(self, previous: Tensor, current: Tensor, action: Tensor, speed_mps: Tensor, target: Tensor) -> Tensor:
        """Teacher-forced scores (b, n, words) of the next tick, whose codes are target (b, n, d)."""
        told, past = self.context(previous, current, action, speed_mps)
        written = torch.cat([torch.zeros_like(told), self.embed(target[:, :-1])], dim=1)
        out, _ = self.run(written + self.place[2] + told, past, True)
        return torch.as_tensor(self.words(self.final(out)))

    def ask(self, actions: Tensor, speeds_mps: Tensor) -> list[tuple[Tensor, ...]]:
        """Actions and speeds, step by step: they are read along with the ticks."""
        return [(actions[:, step], speeds_mps[:, step]) for step in range(actions.shape[1])]

    def answer(self, previous: Tensor, current: Tensor, asked: tuple[Tensor, ...]) -> tuple[Tensor, None]:
        """`step` for one of the things that `ask` says."""
        return self.step(previous, current, *asked)

    def step(self, previous: Tensor, current: Tensor, action: Tensor, speed_mps: Tensor) -> tuple[Tensor, None]:
        """Write the likeliest word of every slot in turn: (1, b, n, d)."""
        told, past = self.context(previous, current, action, speed_mps)
        written, codes = torch.zeros_like(told), []
        for slot in range(self.config.slots):
            out, past = self.run(written + self.place[2, slot] + told, past, False)
            word = self.words(self.final(out[:, 0])).argmax(1)
            codes.append(self.codes[slot, word])
            written = self.embed(codes[-1])[:, None]
        return torch.stack(codes, dim=1)[None], None


Transition = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def logged(
    clips: Clips, latents: Latents, starts: NDArray[np.int64], size: int, rng: np.random.Generator
) -> Transition:
    """Transitions of the log, in either look: before, now, action, speed, next."""
    rows = torch.from_numpy(rng.choice(starts, size))
    source = latents.a if rng.random() < 0.5 else latents.b
    action, speed = (torch.from_numpy(clips.table[key])[rows + 1] for key in ("action", "speed"))
    return source[rows], source[rows + 1], action, speed, source[rows + 2]


def branched(
    clips: Clips, latents: Latents, usable: NDArray[np.int64], size: int, rng: np.random.Generator
) -> Transition:
    """Transitions within branches: the state and its first tick, or three ticks of the branch."""
    chosen, side = rng.choice(usable, size), int(rng.integers(2))
    h = int(rng.integers(clips.branch_action.shape[2]))
    rows = torch.from_numpy(clips.branch_start[chosen])
    branch = latents.branch[chosen, side]
    now = latents.a[rows] if h == 0 else branch[:, h - 1]
    before = latents.a[rows - 1] if h == 0 else latents.a[rows] if h == 1 else branch[:, h - 2]
    action = torch.from_numpy(clips.branch_action[chosen, side, h])
    return before, now, action, torch.from_numpy(clips.branch_speed[chosen, side, h]), branch[:, h]


def train_tokens(
    clips: Clips, latents: Latents, codes: Tensor, predictor: PredictorConfig, config: DynamicsConfig, run: Run,
    seed: int, on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> TokenPredictor:  # fmt: skip
    """Stage two of the tokens rival: next-word cross-entropy; resumes.

    Args:
        codes: (n, k, d) the encoder's codes, standardised as the latents are.
    """
    torch.manual_seed(seed + 1)
    model = TokenPredictor(predictor)
    model.codes.copy_(codes)
    optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    path = run.checkpoints / "dynamics.pt"
    first, starts, usable = restore(path, model, optimizer), clips.starts(3), clips.branched()
    for step in range(first, config.steps):
        rng = np.random.default_rng([seed, 7, step])
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * cosine_schedule(step, config.steps, config.warmup)
        began = time.monotonic()
        # As many predicted ticks a step as other rivals' rollouts have.
        parts = [logged(clips, latents, starts, config.batch * config.horizon // 2, rng)]
        if config.branches and len(usable):
            parts.append(branched(clips, latents, usable, config.pairs * config.horizon // 2, rng))
        before, now, action, speed, then = (torch.cat(column) for column in zip(*parts, strict=True))
        words = nearest_word(model.codes, then)
        logits = model.logits(before, now, action, speed, spelt(model.codes, words))
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), words.flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        right = (logits.detach().argmax(2) == words).float().mean()
        metrics = {"loss": float(loss.detach()), "right": float(right), "step_s": time.monotonic() - began}
        run.log(stage="dynamics", step=step, **metrics)
        if on_step is not None:
            on_step(step, metrics)
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            save(path, step + 1, model, optimizer)
    return model.eval()
