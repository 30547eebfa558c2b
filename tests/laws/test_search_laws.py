"""Laws of the planner's search: whatever the world model says, and for every strategy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from drivesim.config import ConfigError
from drivesim.datatypes import (
    CameraRig,
    EgoState,
    LatentState,
    Observation,
    RouteAhead,
    Scenario,
    Waypoint,
    default_rig,
)
from drivesim.models import WorldModel, WorldModelConfig
from drivesim.models.predictor import PredictorConfig
from drivesim.planning import gradient
from drivesim.planning.cost import LatentPlannerConfig, cost_terms
from drivesim.planning.kinematics import imagined_kinematics, kinematics
from drivesim.planning.latent_planner import LatentPlanner
from drivesim.planning.proposals import HELD_MPS2, drive_route, held, two_phase
from drivesim.planning.search import STRATEGIES, Candidates, Problem, search, spread, to_knots

PROPOSALS = np.concatenate([two_phase(6), np.random.default_rng(7).normal(0.0, 2.0, (12, 6))])
SAMPLED = ("cem", "icem", "mppi")


def a_route(bend_1pm: float = 0.0, length_m: int = 64, limit_mps: float = 8.0) -> RouteAhead:
    s = np.arange(-2.0, length_m - 2.0)
    if bend_1pm == 0.0:
        points = np.stack([s, np.zeros(length_m)], axis=1)
    else:
        points = np.stack([np.sin(bend_1pm * s), 1.0 - np.cos(bend_1pm * s)], axis=1) / bend_1pm
    return RouteAhead(points, np.full(length_m, limit_mps), float(length_m))


def an_ego(speed_mps: float, time_us: int = 0) -> EgoState:
    return EgoState(time_us, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, speed_mps, 0.0, 0.0)


@pytest.fixture(scope="module")
def model() -> WorldModel:
    """An untrained model whose predictor and heads are far from "nothing changes"."""
    torch.manual_seed(0)
    small = WorldModelConfig(predictor=PredictorConfig(width=32, layers=1))
    made = WorldModel(small, default_rig().digest).eval()
    with torch.no_grad():
        for part, size in ((made.predictor, 0.05), (made.risk, 0.2)):
            for value in part.parameters():
                value.add_(size * torch.randn_like(value))
    return made


def a_problem(model: Any, name: str = "icem", speed_mps: float = 5.0, seed: int = 0, **sizes: Any) -> Problem:
    config, ego, route = LatentPlannerConfig(search=name, **sizes), an_ego(speed_mps), a_route(0.02)
    n, d = model.mean.shape if isinstance(model, WorldModel) else (1, 1)
    context = np.random.default_rng(seed).normal(0.0, 1.0, (2, n, d)).astype(np.float32)
    motion = kinematics(ego, route)
    return Problem(model, config, ego, route, context, motion, np.array([0.2, -0.5, 1.0]), 1.0)


@pytest.mark.parametrize("speed_mps", [0.0, 6.0])
@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_no_strategy_ends_dearer_than_the_best_proposal(model: WorldModel, name: str, speed_mps: float) -> None:
    problem = a_problem(model, name, speed_mps)
    proposed, found = problem.evaluate(PROPOSALS), search(problem, PROPOSALS, np.random.default_rng(1))
    assert found.costs.min() <= proposed.costs.min()
    np.testing.assert_array_equal(found.wanted[: len(PROPOSALS)], PROPOSALS)
    assert len(found.wanted) == len(found.costs) == len(found.doubt) == len(found.ahead)
    assert proposed.imagined <= found.imagined <= len(found.wanted) + (name == "gradient") * 4 * 4
    np.testing.assert_allclose(np.sum(list(found.terms.values()), axis=0), found.costs)
    assert found.wanted.min() >= -6.0


@pytest.mark.parametrize("speed_mps", [0.0, 3.0, 8.0])
def test_each_drive_is_imagined_once_and_costs_what_it_costs_alone(model: WorldModel, speed_mps: float) -> None:
    problem = a_problem(model, speed_mps=speed_mps)
    wanted = held(6)
    found = problem.evaluate(wanted)
    assert found.imagined == len(np.unique(np.round(found.futures.actions, 6), axis=0))
    assert (found.imagined < len(wanted)) == (speed_mps != 3.0)  # braking while standing, going on at the limit
    alone = [problem.evaluate(row[None]) for row in wanted]
    np.testing.assert_allclose(found.costs, [one.costs[0] for one in alone], rtol=1e-5)
    np.testing.assert_allclose(found.ahead, np.concatenate([one.ahead for one in alone]), atol=1e-4)
    for name, values in found.terms.items():
        np.testing.assert_allclose(values, [one.terms[name][0] for one in alone], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_the_seed_decides(model: WorldModel, name: str) -> None:
    problem = a_problem(model, name)
    a, b, c = (search(problem, PROPOSALS, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a.wanted, b.wanted)
    np.testing.assert_array_equal(a.costs, b.costs)
    assert np.array_equal(a.wanted, c.wanted) == (name not in SAMPLED)


def test_icem_is_smooth_noise_around_the_elites(model: WorldModel) -> None:
    """Written out once more: it must not change unnoticed."""
    problem = a_problem(model)
    found = search(problem, PROPOSALS, np.random.default_rng(5))
    rng, c, proposed = np.random.default_rng(5), problem.config, problem.evaluate(PROPOSALS)
    elite = PROPOSALS[np.argsort(proposed.costs)[: c.elites]]
    noise = np.repeat(rng.normal(0.0, c.noise_mps2, (c.samples, 1)), 6, axis=1)
    more = np.clip(elite[rng.integers(0, len(elite), c.samples)] + noise, -6.0, 2.5)
    np.testing.assert_array_equal(found.wanted, np.concatenate([PROPOSALS, more]))


def test_bracketing_looks_between_the_neighbours_of_the_cheapest(model: WorldModel) -> None:
    """The default search, written out once more: it must not change unnoticed."""
    problem, proposals = a_problem(model, "bracket"), held(6)
    assert problem.config.search == LatentPlannerConfig().search
    found = search(problem, proposals, np.random.default_rng(5))
    best, more = int(problem.evaluate(proposals).costs.argmin()), found.wanted[len(proposals) :]
    low, high = HELD_MPS2[max(best - 1, 0)], HELD_MPS2[min(best + 1, len(HELD_MPS2) - 1)]
    np.testing.assert_allclose(more, np.repeat(np.linspace(low, high, 8)[1:-1, None], 6, axis=1))


def test_bracketing_reaches_the_known_optimum_of_a_line_and_asks_for_one(model: WorldModel) -> None:
    plain = a_problem(None, "bracket", rounds=3)
    problem = Line(**{key: getattr(plain, key) for key in Problem.__dataclass_fields__})
    found = search(problem, held(6), np.random.default_rng(0))
    assert abs(found.wanted[found.costs.argmin(), 0] - 0.537) < 0.01
    with pytest.raises(ConfigError, match="knots is 3"):
        search(a_problem(model, "bracket", knots=3), PROPOSALS, np.random.default_rng(0))


def test_an_unknown_search_names_the_known_ones(model: WorldModel) -> None:
    with pytest.raises(ConfigError, match="did you mean 'icem'"):
        search(a_problem(model, "icen"), PROPOSALS, np.random.default_rng(0))


@dataclass(frozen=True)
class Quadratic(Problem):
    """A problem whose best profile is known."""

    def evaluate(self, wanted: np.ndarray) -> Candidates:
        cost = ((wanted - spread(np.array([[1.3, -2.2, 0.6]]), 6)) ** 2).sum(1)
        blank = np.zeros((len(wanted), 1, 1), np.float32)
        return Candidates(wanted, self.drive(wanted), cost, {"q": cost}, np.zeros(len(wanted)), blank, len(wanted))


class Line(Quadratic):
    """A problem of one number."""

    def evaluate(self, wanted: np.ndarray) -> Candidates:
        found = super().evaluate(wanted)
        return replace(found, costs=np.abs(wanted[:, 0] - 0.537))


@pytest.mark.parametrize("name", SAMPLED)
def test_sampling_reaches_the_known_optimum(name: str) -> None:
    plain = a_problem(None, name, samples=64, rounds=8, elites=8, knots=3)
    problem = Quadratic(**{key: getattr(plain, key) for key in Problem.__dataclass_fields__})
    costs = search(problem, two_phase(6), np.random.default_rng(0)).costs
    assert costs.min() < 0.3 < costs[: len(two_phase(6))].min()


def test_knots_are_the_inverse_of_spreading() -> None:
    knots = np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_allclose(to_knots(spread(knots, 6), 3), knots)
    assert spread(knots, 7).shape == (5, 7)


@pytest.mark.parametrize("bend_1pm", [0.0, 0.02, -0.12])
@pytest.mark.parametrize("speed_mps", [0.0, 3.0, 9.0])
def test_differentiable_kinematics_are_the_planners(bend_1pm: float, speed_mps: float) -> None:
    route = a_route(bend_1pm)
    plain = drive_route(speed_mps, route, PROPOSALS)
    tensors = gradient.drive(speed_mps, gradient.TensorRoute.of(route), torch.from_numpy(PROPOSALS))
    for name in ("actions", "poses", "speeds_mps", "distances_m"):
        np.testing.assert_allclose(getattr(tensors, name).numpy(), getattr(plain, name), atol=1e-9, err_msg=name)
    motion = kinematics(an_ego(speed_mps), route)
    features = imagined_kinematics(motion, plain.speeds_mps, plain.actions, plain.distances_m)
    np.testing.assert_allclose(gradient.features(motion, tensors).numpy(), features, atol=1e-6)


def test_the_gradient_of_the_distance_is_its_slope() -> None:
    route, wanted = a_route(0.02, limit_mps=30.0), np.array([[0.4, -0.3, 0.2, -0.8, 0.5, 0.1]])
    profile = torch.from_numpy(wanted).requires_grad_(True)
    distance = gradient.drive(5.0, gradient.TensorRoute.of(route), profile).distances_m[0, -1]
    (slope,) = torch.autograd.grad(distance, profile)
    for step in range(6):
        nudged = np.repeat(wanted, 2, axis=0)
        nudged[:, step] += [1e-5, -1e-5]
        ends = drive_route(5.0, route, nudged).distances_m[:, -1]
        assert float(slope[0, step]) == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-5)


def test_the_objective_is_the_cost(model: WorldModel) -> None:
    problem = a_problem(model)
    with torch.no_grad():
        costs = gradient.objective(problem, gradient.TensorRoute.of(problem.route), torch.from_numpy(PROPOSALS))
    np.testing.assert_allclose(costs.numpy(), problem.evaluate(PROPOSALS).costs, atol=1e-3)


def test_descending_goes_down(model: WorldModel) -> None:
    problem = a_problem(model, "gradient", gradient_steps=6)
    starts = to_knots(PROPOSALS[:6], 3)
    improved, imagined = gradient.descend(problem, starts)
    before = problem.evaluate(spread(starts, 6)).costs
    after = problem.evaluate(spread(improved, 6)).costs.reshape(2, 6).min(0)
    assert (after <= before + 1e-3).all() and after.sum() < before.sum() - 0.01
    assert imagined == 36


class Still:
    """A world that looks like a number and never changes, by its model; it can only be sampled."""

    def __init__(self) -> None:
        self.looks = 0.0

    def encode(self, images: np.ndarray, rig: CameraRig, ego: EgoState) -> LatentState:
        return LatentState(np.full((2, 3), self.looks, np.float32), ego.time_us, "still")

    def imagine(self, latents: np.ndarray, speed_mps: float, actions: np.ndarray) -> tuple[Any, Any]:
        k, p = actions.shape[:2]
        return np.tile(latents[1], (k, p, 1, 1)), np.zeros((k, p))

    def risks(self, current: np.ndarray, imagined: Any, features: np.ndarray) -> np.ndarray:
        return np.zeros((*features.shape[:3], 3), np.float32)

    def accelerations(
        self, previous: Any, current: Any, motion: Any, head: str = "", quantiles: Any = ()
    ) -> np.ndarray:
        return np.array([0.0, -1.0, 1.0])


def test_gradients_need_a_model_that_has_them() -> None:
    with pytest.raises(TypeError, match="Still can only be sampled"):
        search(a_problem(Still(), "gradient"), PROPOSALS, np.random.default_rng(0))


@pytest.mark.parametrize(("threshold", "falls_back"), [(0.0, False), (2.0, True), (4.0, False)])
def test_surprise_is_told_and_acted_on_where_asked(threshold: float, falls_back: bool) -> None:
    model, rig = Still(), default_rig()
    planner = LatentPlanner(model, replace(LatentPlannerConfig(), fallback_surprise=threshold))
    planner.reset(Scenario("s-v1", "Drivetown", "", (Waypoint(0, 0), Waypoint(9, 0)), 9.0), rig, 0)
    told: list[float | None] = []
    for tick in range(8):
        model.looks = 3.0 if tick >= 5 else 0.0  # something appears out of nothing
        seen = Observation(tick * 250_000, np.zeros((1, 2, 2, 3), np.uint8), an_ego(4.0, tick * 250_000), a_route())
        plan = planner.plan(seen, None, np.random.default_rng(tick))
        told.append(plan.diagnostics.get("surprise"))
        assert bool(plan.fallback) == (falls_back and tick in (5, 6))
        assert "expected" in plan.fallback or not plan.fallback
    assert told == [None, None, 0.0, 0.0, 0.0, 3.0, 3.0, 0.0]


def test_what_is_believed_is_what_is_seen_and_some_of_what_was_imagined() -> None:
    model, rig, believed = Still(), default_rig(), []
    for memory in (0.0, 0.25):
        planner = LatentPlanner(model, replace(LatentPlannerConfig(), memory=memory))
        planner.reset(Scenario("s-v1", "Drivetown", "", (Waypoint(0, 0), Waypoint(9, 0)), 9.0), rig, 0)
        for tick in range(4):
            model.looks = 4.0 if tick == 3 else 0.0
            seen = Observation(tick * 250_000, np.zeros((1, 2, 2, 3), np.uint8), an_ego(4.0, tick * 250_000), a_route())
            planner.plan(seen, None, np.random.default_rng(tick))
        believed.append(float(planner.history[-1].tokens.mean()))
    assert believed == [4.0, 3.0]


def test_a_margin_asks_farther_on_and_the_likelier_counts(model: WorldModel) -> None:
    bare, wary = (a_problem(model, margin_m=margin_m) for margin_m in (0.0, 2.0))
    futures = bare.drive(PROPOSALS)
    imagined, _ = model.imagine(bare.context, 5.0, futures.actions)
    here = bare.risks(futures, imagined)
    beyond = bare.risks(replace(futures, distances_m=futures.distances_m + 2.0), imagined)
    assert not np.allclose(here, beyond)
    terms = bare.scored(PROPOSALS, futures, here, np.zeros(len(PROPOSALS)), np.zeros((1, 1, 1), np.float32)).terms
    np.testing.assert_allclose(bare.evaluate(PROPOSALS).terms["odds"], terms["odds"])
    both = np.concatenate([np.maximum(here, beyond)[..., :2], here[..., 2:]], axis=-1)
    wanted = wary.scored(PROPOSALS, futures, both, np.zeros(len(PROPOSALS)), np.zeros((1, 1, 1), np.float32)).terms
    found = wary.evaluate(PROPOSALS).terms
    for name in ("collision", "odds", "near", "red light"):
        np.testing.assert_allclose(found[name], wanted[name])
    assert (found["odds"] >= terms["odds"] - 1e-12).all()


def costs_of(risk: float, eager: float = 1.0, policy: tuple[float, ...] = (0.0, -1.0, 1.0)) -> dict[str, float]:
    """The terms of one drive of two steps at 1 m/s2, all of whose risks are the same."""
    terms = cost_terms(
        LatentPlannerConfig(), eager, np.full((1, 2, 3), risk), np.zeros(1), np.ones((1, 2)), np.array([6.0]),
        np.array(policy), np.ones(2),
    )  # fmt: skip
    return {name: float(value[0]) for name, value in terms.items()}


def test_a_risk_counts_by_how_much_likelier_it_is_than_on_an_empty_street() -> None:
    c = LatentPlannerConfig()
    assert costs_of(c.odds_floor)["odds"] == 0.0 == costs_of(c.risk_floor)["collision"]
    twice, four_times = costs_of(2.0 * c.odds_floor)["odds"], costs_of(4.0 * c.odds_floor)["odds"]
    assert four_times == pytest.approx(2.0 * twice) == pytest.approx(4.0 * c.odds_weight * np.log(2.0))


def test_who_is_held_up_gets_used_to_what_stays_but_not_to_a_red_light_nor_to_a_policy_that_brakes() -> None:
    calm, eager = costs_of(0.2, 1.0, (-2.0, -3.0, -1.0)), costs_of(0.2, 5.0, (-2.0, -3.0, -1.0))
    assert all(eager[name] < calm[name] for name in ("collision", "odds", "near", "progress"))
    assert eager["red light"] == calm["red light"] > 0.0
    assert eager["trust"] == calm["trust"] > 0.0
    c = LatentPlannerConfig()
    assert costs_of(1.0, c.impatience_cap)["collision"] > 10.0, "never used to a certain crash"
    long, longest = costs_of(0.5, c.habit_cap), costs_of(0.5, c.impatience_cap)
    assert all(long[name] == longest[name] > 0.0 for name in ("collision", "odds", "near")), "a likely risk stays one"
    assert longest["progress"] == pytest.approx(long["progress"] * c.impatience_cap / c.habit_cap)


def test_who_drives_need_not_press_on() -> None:
    planner = LatentPlanner(Still())
    c = planner.config
    factors = [planner.eagerness(an_ego(0.0, tick * 1_000_000)) for tick in range(8)]
    assert factors[:3] == [1.0, 1.0, 1.0] and factors[-1] == pytest.approx(
        1.0 + c.impatience_1ps * (7.0 - c.patience_s)
    )
    planner.judged_us = None  # the same lost time, at another speed
    assert planner.eagerness(an_ego(6.0)) == pytest.approx(1.0 + (1.0 - c.calm) * (factors[-1] - 1.0))


def test_profiles_of_one_piece_are_held_and_none_is_carried_on() -> None:
    policy = np.array([0.3, -1.0, 1.0])
    one, three = LatentPlanner(Still()), LatentPlanner(Still(), LatentPlannerConfig(knots=3))
    one.last = three.last = np.linspace(-1.0, 1.0, 6)
    assert (np.ptp(one.proposals(policy), axis=1) == 0.0).all()
    assert (three.proposals(policy)[-1] == three.last).all()
    assert set(policy) <= set(one.proposals(policy)[:, 0])
