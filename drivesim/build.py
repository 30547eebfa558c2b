"""The only room that knows concrete classes: what the names on the command line mean.

Every table maps a name to a factory that imports its room when it is called, so that a baseline does not
load torch. A newcomer is one file with a class and one line here; from outside, `package.module:Class`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drivesim.config import ConfigError, from_dict, nearest
from drivesim.interfaces import Controller, Encoder, Planner, World

if TYPE_CHECKING:
    from drivesim.planning.batch_planners import BatchPlanner
    from drivesim.scoring.outcome import EpisodeMetric
    from drivesim.worlds.imagined_batch import ImaginationCore, Kinematics, LatentStart

PlannerFactory = Callable[[Path | None], Planner]


@lru_cache(maxsize=2)
def load_world_model(checkpoint: Path | None) -> Any:
    """The world model of a checkpoint (None: the shipped one), loaded once per process.

    Raises:
        drivesim.models.CheckpointError: it is missing or cannot be used.
    """
    from drivesim.models import SHIPPED, WorldModel

    return WorldModel.load(checkpoint or SHIPPED)


def _latent(checkpoint: Path | None) -> Planner:
    from drivesim.planning.latent_planner import LatentPlanner

    return LatentPlanner(load_world_model(checkpoint))


def _searching(search: str, **sizes: Any) -> PlannerFactory:
    """The latent planner with another search and its sizes."""

    def factory(checkpoint: Path | None) -> Planner:
        from drivesim.planning.latent_planner import LatentPlanner, LatentPlannerConfig

        config = LatentPlannerConfig(search=search, **sizes)
        return LatentPlanner(load_world_model(checkpoint), config, f"latent-{search}")

    return factory


def _latent_oracle(_checkpoint: Path | None) -> Planner:
    from drivesim.planning.oracle import OraclePlanner

    return OraclePlanner(make_controller())


def _latent_policy(checkpoint: Path | None) -> Planner:
    from drivesim.planning.behavior_cloning import PolicyPlanner

    return PolicyPlanner(load_world_model(checkpoint), "latent-policy", "policy")


def _latent_distilled(checkpoint: Path | None) -> Planner:
    from drivesim.models import SHIPPED
    from drivesim.models.distilled import DistilledPolicy, distilled_path
    from drivesim.planning.cost import LatentPlannerConfig
    from drivesim.planning.distilled import DistilledPlanner

    model = load_world_model(checkpoint)
    head = DistilledPolicy.load(distilled_path(checkpoint or SHIPPED), model.digest)
    return DistilledPlanner(model, head, from_dict(LatentPlannerConfig, head.teacher))  # as eager as it was taught


def _behaviour_cloning(checkpoint: Path | None) -> Planner:
    from drivesim.planning.behavior_cloning import PolicyPlanner

    return PolicyPlanner(load_world_model(checkpoint))


def _readout_rule(checkpoint: Path | None) -> Planner:
    from drivesim.planning.readout_rule import ReadoutRulePlanner

    return ReadoutRulePlanner(load_world_model(checkpoint))


def _batch_policy(name: str, head: str) -> Callable[[Any], BatchPlanner]:
    def factory(model: Any) -> BatchPlanner:
        from drivesim.planning.batch_planners import BatchPolicy

        return BatchPolicy(model, name, head)

    return factory


def _batch_constant_velocity(_model: Any) -> BatchPlanner:
    from drivesim.planning.batch_planners import BatchConstantVelocity

    return BatchConstantVelocity()


def _batch_readout_rule(_model: Any) -> BatchPlanner:
    from drivesim.planning.batch_planners import BatchReadoutRule

    return BatchReadoutRule()


def _constant_velocity(_checkpoint: Path | None) -> Planner:
    from drivesim.planning.constant_velocity import ConstantVelocityPlanner

    return ConstantVelocityPlanner()


def _expert(_checkpoint: Path | None) -> Planner:
    from drivesim.planning.expert import ExpertPlanner

    return ExpertPlanner()


def _latent_encoder(checkpoint: Path | None) -> Encoder:
    encoder: Encoder = load_world_model(checkpoint)
    return encoder


def _town_world(**options: Any) -> World:
    from drivesim.worlds.town_world import TownWorld

    return TownWorld(**options)


def _carla_world(**options: Any) -> World:
    from drivesim.worlds.carla_world import CarlaWorld

    return CarlaWorld(**options)


def _latent_world(*, starts: Iterable[LatentStart], checkpoint: Path | None = None) -> World:
    from drivesim.worlds.latent_world import LatentWorld

    return LatentWorld(*make_imagination(checkpoint), starts)


PLANNERS: dict[str, PlannerFactory] = {
    "latent": _latent,
    "latent-proposals": _searching("proposals"),
    "latent-icem": _searching("icem"),
    "latent-cem": _searching("cem", samples=20, rounds=3, elites=6),
    "latent-mppi": _searching("mppi", samples=20, rounds=3),
    "latent-gradient": _searching("gradient"),
    "latent-policy": _latent_policy,
    "latent-distilled": _latent_distilled,
    "latent-oracle": _latent_oracle,
    "behaviour-cloning": _behaviour_cloning,
    "readout-rule": _readout_rule,
    "constant-velocity": _constant_velocity,
    "expert": _expert,
}
NEEDS_CHECKPOINT = frozenset(
    ("latent", "latent-proposals", "latent-icem", "latent-cem", "latent-mppi", "latent-gradient", "latent-policy")
) | {"latent-distilled", "behaviour-cloning", "readout-rule"}
NEEDS_DISTILLED = frozenset(("latent-distilled",))  # a head beside the checkpoint, see `training.distill`
NEEDS_TOWN = frozenset(("latent-oracle",))  # they try futures out: only in the embedded town, in their own process
ENCODERS: dict[str, Callable[[Path | None], Encoder]] = {"latent": _latent_encoder}
WORLDS: dict[str, Callable[..., World]] = {"town": _town_world, "carla": _carla_world, "latent": _latent_world}
# The same planners for many imagined drives at once; they take a world model with batched questions.
BATCH_PLANNERS: dict[str, Callable[[Any], BatchPlanner]] = {
    "latent-policy": _batch_policy("latent-policy", "policy"),
    "behaviour-cloning": _batch_policy("behaviour-cloning", "clone"),
    "constant-velocity": _batch_constant_velocity,
    "readout-rule": _batch_readout_rule,
}


def make_planner(name: str, checkpoint: Path | None = None) -> Planner:
    """A planner by name, or by `package.module:Class` (called without arguments).

    Args:
        checkpoint: weights of a learned planner; None is the shipped one.

    Raises:
        ConfigError: unknown name, or no such class.
    """
    if ":" in name:
        return checked(_from_outside(name)(), name)
    return checked(_entry(PLANNERS, "planner", name)(checkpoint), name)


def make_world(name: str, **options: Any) -> World:
    """A world by name with its constructor's options.

    Raises:
        ConfigError: unknown name.
    """
    made: World = _entry(WORLDS, "world", name)(**options)
    return made


def make_imagination(checkpoint: Path | None = None) -> tuple[ImaginationCore, Kinematics]:
    """What a latent world runs on: the model with batched questions, and what its heads are told of motion.

    Raises:
        drivesim.models.CheckpointError: the checkpoint cannot be used.
    """
    from drivesim.models.imagination import Imagination
    from drivesim.planning.batch_following import BatchKinematics

    return Imagination(load_world_model(checkpoint)), BatchKinematics()


def make_controller() -> Controller:
    """The tracker that every planner shares."""
    from drivesim.control.tracker import TrajectoryTracker

    return TrajectoryTracker()


def metrics() -> dict[str, EpisodeMetric]:
    """All metrics by name."""
    from drivesim.scoring.outcome import METRICS

    return {metric.name: metric for metric in METRICS}


def require_planner(name: str) -> None:
    """Raise ConfigError unless `name` can be made; loads no weights."""
    if ":" in name:
        _from_outside(name)
    else:
        _entry(PLANNERS, "planner", name)


def checked(planner: Any, name: str) -> Planner:
    """A planner that has all that `drivesim.interfaces.Planner` asks for.

    Raises:
        ConfigError: it lacks something; the message says what.
    """
    for attribute in ("name", "needs_images", "privileged", "reset", "plan"):
        if not hasattr(planner, attribute):
            raise ConfigError(f"planner {name!r} lacks {attribute!r}; see Planner in drivesim/interfaces.py")
    found: Planner = planner
    return found


def _entry(table: Mapping[str, Any], what: str, name: str) -> Any:
    if name not in table:
        raise ConfigError(f"unknown {what} {name!r}: {nearest(name, table)}, or package.module:Class")
    return table[name]


def _from_outside(name: str) -> Any:
    module_name, _, class_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"planner {name!r}: cannot import {module_name} ({error})") from error
    if not hasattr(module, class_name):
        raise ConfigError(f"planner {name!r}: {module_name} has no {class_name!r}")
    return getattr(module, class_name)
