"""Descend the cost through the frozen world model: route kinematics, predictor and risk heads in one graph.

`drive` is `proposals.drive_route` in torch, operation for operation (a law test holds the two together), so
the gradient that is followed is that of the cost the other strategies see.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drivesim.datatypes import RouteAhead
from drivesim.geometry import Polyline
from drivesim.planning.cost import cost_terms
from drivesim.planning.proposals import MAX_CURVATURE_1PM, STEP_S, SUBSTEPS, speed_caps
from drivesim.planning.search import FASTEST_MPS2, SLOWEST_MPS2, Problem

Array = NDArray[np.float64]

ADAM_DECAY, ADAM_SQUARE_DECAY, ADAM_FLOOR = 0.7, 0.9, 1e-6  # short memories: there are few steps


class DifferentiableModel(Protocol):
    """What descending asks of a world model beyond sampling."""

    def imagine_tensors(self, latents: Tensor, speed_mps: float, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (2, n, d) under actions (k, p, 2): imagined (k, p, n, d) and disagreement (k, p)."""
        ...

    def risk_tensors(self, current: Tensor, imagined: Tensor, kinematics: Tensor) -> Tensor:
        """Probabilities (k, p, q, 3) of moments (k, p, n, d), each asked about q times: kinematics (k, p, q, 16)."""
        ...


@dataclass(frozen=True)
class TensorFutures:
    """`proposals.Futures` as tensors: actions (k, p, 2), poses (k, p, 3), speeds (k, p), distances (k, p)."""

    actions: Tensor
    poses: Tensor
    speeds_mps: Tensor
    distances_m: Tensor


@dataclass(frozen=True)
class TensorRoute:
    """A route as tensors: the line by arc length, and the highest speeds along it every metre."""

    start_s_m: float
    line_s_m: Tensor
    points_m: Tensor
    caps_mps: Tensor

    @staticmethod
    def of(route: RouteAhead) -> TensorRoute:
        """From the planner's route.

        Raises:
            ValueError: fewer than two points.
        """
        line = Polyline.from_points(route.points_m)
        _, caps = speed_caps(line, route)
        return TensorRoute(
            line.project(0.0, 0.0)[0], torch.from_numpy(line.s_m), torch.from_numpy(line.points_m),
            torch.from_numpy(caps),
        )  # fmt: skip

    def at(self, s_m: Tensor) -> tuple[Tensor, Tensor]:
        """x and y (k,) at arc lengths (k,), held at the ends."""
        s = s_m.clamp(0.0, float(self.line_s_m[-1]))
        left = (torch.searchsorted(self.line_s_m, s.detach(), right=True) - 1).clamp(0, len(self.line_s_m) - 2)
        from_s = self.line_s_m[left]
        share = ((s - from_s) / (self.line_s_m[left + 1] - from_s))[:, None]
        point = self.points_m[left] + share * (self.points_m[left + 1] - self.points_m[left])
        return point[:, 0], point[:, 1]

    def cap(self, s_m: Tensor) -> Tensor:
        """Highest speed (k,) at arc lengths (k,), held at the ends."""
        s = s_m.clamp(0.0, float(len(self.caps_mps) - 1))
        if len(self.caps_mps) < 2:
            return self.caps_mps[0].expand(len(s))
        left = s.detach().long().clamp(0, len(self.caps_mps) - 2)
        return self.caps_mps[left] + (s - left) * (self.caps_mps[left + 1] - self.caps_mps[left])


def drive(speed_mps: float, route: TensorRoute, accelerations: Tensor) -> TensorFutures:
    """Drive profiles (k, p) float64 along the route with pure pursuit, differentiably."""
    k, h = len(accelerations), STEP_S / SUBSTEPS
    zero = accelerations.new_zeros(k)
    x, y, yaw, distance = zero, zero, zero, zero
    s, v = zero + route.start_s_m, zero + max(speed_mps, 0.0)
    actions, poses, speeds, distances = [], [], [], []
    for step in range(accelerations.shape[1]):
        v_start, yaw_start, distance_start = v, yaw, distance
        for _ in range(SUBSTEPS):
            room = (route.cap(s + v * STEP_S) - v) / STEP_S
            a = torch.minimum(accelerations[:, step], room.clamp(min=-3.0))
            v_next = (v + a * h).clamp(min=0.0)
            at_x, at_y = route.at(s + (0.9 * v).clamp(3.5, 14.0))
            dx, dy = at_x - x, at_y - y
            left = -torch.sin(yaw) * dx + torch.cos(yaw) * dy
            bend = (2.0 * left / (dx * dx + dy * dy).clamp(min=1.0)).clamp(-MAX_CURVATURE_1PM, MAX_CURVATURE_1PM)
            move = 0.5 * (v + v_next) * h
            x, y = x + move * torch.cos(yaw + 0.5 * bend * move), y + move * torch.sin(yaw + 0.5 * bend * move)
            yaw, s, v, distance = yaw + bend * move, s + move, v_next, distance + move
        driven = distance - distance_start
        curvature = torch.where(driven > 0.05, (yaw - yaw_start) / driven.clamp(min=0.05), 0.0)
        actions.append(torch.stack([(v - v_start) / STEP_S, curvature], dim=-1))
        poses.append(torch.stack([x, y, yaw], dim=-1))
        speeds.append(v)
        distances.append(distance)
    return TensorFutures(*(torch.stack(found, dim=1) for found in (actions, poses, speeds, distances)))


def features(motion: NDArray[np.float32], futures: TensorFutures, farther_m: float = 0.0) -> Tensor:
    """`kinematics.imagined_kinematics` in torch: (k, p, 16) float32."""
    k, p = futures.speeds_mps.shape
    own = {
        0: futures.speeds_mps / 10.0,
        1: futures.actions[..., 0] / 3.0,
        2: futures.speeds_mps * futures.actions[..., 1] * 2.0,
        14: ((torch.arange(p) + 1) * STEP_S / 4.0).expand(k, p),
        15: (futures.distances_m + farther_m) / 20.0,
    }
    now = torch.from_numpy(motion)
    columns = [own[i].float() if i in own else now[i].expand(k, p) for i in range(len(now))]
    return torch.stack(columns, dim=-1)


def objective(problem: Problem, route: TensorRoute, wanted: Tensor) -> Tensor:
    """Costs (k,) of acceleration profiles (k, p): what `Problem.evaluate` says, with gradients."""
    model = cast(DifferentiableModel, problem.model)
    futures = drive(problem.ego.speed_mps, route, wanted)
    context = torch.from_numpy(problem.context)
    imagined, disagreement = model.imagine_tensors(context, problem.ego.speed_mps, futures.actions.float())
    asked = torch.stack([features(problem.motion, futures, margin) for margin in problem.config.margins_m], dim=2)
    told = model.risk_tensors(context[1], imagined, asked).double()
    risk = torch.cat([told[..., :2].amax(2), told[:, :, 0, 2:]], dim=-1)
    weight = torch.from_numpy(problem.config.discount ** np.arange(wanted.shape[1]))
    terms = cost_terms(
        problem.config, problem.eager, risk, disagreement.double().mean(1), futures.actions[..., 0],
        futures.distances_m[:, -1], problem.policy, weight,
    )  # fmt: skip
    return torch.as_tensor(sum(terms.values()))


def descend(problem: Problem, starts: Array) -> tuple[Array, int]:
    """Improve knots (m, n) by Adam (Kingma 2015); each keeps the best of the points it came by.

    Returns:
        the knots (m, n), and how many futures were imagined for it.

    Raises:
        TypeError: the world model has no gradients to follow.
    """
    if not hasattr(problem.model, "imagine_tensors") or not hasattr(problem.model, "risk_tensors"):
        raise TypeError(
            f"search by gradient needs a world model with imagine_tensors and risk_tensors; "
            f"{type(problem.model).__name__} can only be sampled: use search cem, icem or mppi"
        )
    c, route = problem.config, TensorRoute.of(problem.route)
    knots = torch.from_numpy(np.clip(starts, SLOWEST_MPS2, FASTEST_MPS2))
    held = -(-c.steps // starts.shape[1])
    mean, square = torch.zeros_like(knots), torch.zeros_like(knots)
    best, best_cost = knots.clone(), torch.full((len(knots),), float("inf"), dtype=torch.float64)
    for step in range(1, c.gradient_steps + 1):
        knots.requires_grad_(True)
        costs = objective(problem, route, knots.repeat_interleave(held, dim=1)[:, : c.steps])
        (slope,) = torch.autograd.grad(costs.sum(), knots)
        knots, costs = knots.detach(), costs.detach()
        better = costs < best_cost
        best, best_cost = torch.where(better[:, None], knots, best), torch.minimum(costs, best_cost)
        mean = ADAM_DECAY * mean + (1.0 - ADAM_DECAY) * slope
        square = ADAM_SQUARE_DECAY * square + (1.0 - ADAM_SQUARE_DECAY) * slope**2
        size = (square / (1.0 - ADAM_SQUARE_DECAY**step)).sqrt() + ADAM_FLOOR
        knots = knots - c.gradient_rate_mps2 * mean / (1.0 - ADAM_DECAY**step) / size
        knots = knots.clamp(SLOWEST_MPS2, FASTEST_MPS2)
    return np.concatenate([best.numpy(), knots.numpy()]), len(starts) * c.gradient_steps
