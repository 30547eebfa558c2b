"""One drive of a recording, from its plan to its log."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import CameraRig, Contact, Control, Frame, default_rig
from drivesim.geometry.bicycle import actions_from_motion
from drivesim.interfaces import Planner
from drivesim.logs import LogHeader, LogWriter
from drivesim.planning.expert import ExpertPlanner, expert_action
from drivesim.recording.config import RecordConfig
from drivesim.recording.drivers import LogDriver, PlannerDriver, draw_style
from drivesim.recording.events import Events
from drivesim.recording.plans import DrivePlan
from drivesim.worlds.town_world import TownWorld

AFTER_COLLISION_S = 1.0
EVENT_PERIOD_S = 0.25
GOAL_M = 5.0


@dataclass(frozen=True)
class DriveSummary:
    """How one drive of a recording went."""

    name: str
    town: str
    mode: int
    ticks: int
    end: str  # "timeout", "collision" or "completed"
    collided: str  # kind of the first collision's other, "" without one
    events: tuple[str, ...]
    driven_m: float
    wall_s: float


@dataclass(frozen=True)
class _Tick:
    """A logged tick that waits for the next one, which tells what was done."""

    frame: Frame
    expert: NDArray[np.float64]
    state: Any


class _Journal:
    """Collects ticks: the contacts since the last one go into each, the realised action into the one before."""

    def __init__(self, writer: LogWriter, mode: int, period_s: float) -> None:
        self._writer, self._mode, self._period_s = writer, mode, period_s
        self._labels = ExpertPlanner()
        self._labels.forget()
        self._waiting: _Tick | None = None
        self._contacts: list[Contact] = []
        self.ticks = 0

    def notice(self, frame: Frame) -> None:
        """Remember the contacts of a world step."""
        self._contacts.extend(frame.contacts)

    def log(self, frame: Frame, control: Control, state: Any) -> None:
        """A tick of the log and the control that follows it."""
        self._release(frame)
        whole = replace(frame, control=control, contacts=tuple(self._contacts))
        self._contacts = []
        self._waiting = _Tick(whole, np.array(expert_action(frame, self._labels)), state)

    def _release(self, following: Frame | None) -> None:
        if self._waiting is None:
            return
        action = None if following is None else realised_action(self._waiting.frame, following)
        tick = self._waiting
        self._writer.append(tick.frame, action=action, expert=tick.expert, mode=self._mode, state=tick.state)
        self._waiting, self.ticks = None, self.ticks + 1

    def finish(self) -> None:
        """Write the last tick, which has no action."""
        self._release(None)


class _Pictures:
    """Renders logged ticks, where a rig is asked for; a log of states alone never loads the renderer."""

    def __init__(self, world: TownWorld, rig: CameraRig | None, seed: int) -> None:
        self._world, self._rig, self._look = world, rig, None
        if rig is not None:
            from drivesim.town.render import Appearance

            self._look = Appearance.from_weather(world.town.state.weather, seed)

    def added(self, frame: Frame) -> Frame:
        """The frame with its pictures."""
        return frame if self._rig is None else replace(frame, images=self.taken())

    def taken(self) -> NDArray[np.uint8]:
        """(v, h, w, 3) of this tick.

        Raises:
            ValueError: there is no rig.
        """
        if self._rig is None:
            raise ValueError("no rig to take pictures with")
        return self._world.render(self._rig, self._look)


def realised_action(frame: Frame, following: Frame) -> NDArray[np.float64]:
    """(2,) mean acceleration and curvature from one tick to the next."""
    egos = (frame.ego, following.ego)
    poses = np.array([[ego.x_m, ego.y_m, ego.yaw_rad] for ego in egos])
    speeds = np.array([ego.speed_mps for ego in egos])
    return np.asarray(actions_from_motion(poses, speeds, (following.time_us - frame.time_us) * 1e-6)[0])


def record_drive(
    world: TownWorld, plan: DrivePlan, path: Path, config: RecordConfig, rig: CameraRig | None,
    planner: Planner | None = None,
) -> DriveSummary:  # fmt: skip
    """Drive a plan and write its log to `path`, replacing what is there; a planner drives where there is one."""
    began = time.perf_counter()
    rng = np.random.default_rng([plan.seed, 21])
    frame = world.reset(plan.scenario, plan.seed)
    events = Events(plan, world.route, world.town, world.ego_row, rng)
    events.start(frame)
    driver: LogDriver | PlannerDriver
    if planner is None:
        driver = LogDriver(draw_style(plan.mode, rng), rng)
        driven_by: dict[str, Any] = {"style": asdict(driver.style)}
    else:
        driver, driven_by = at_the_wheel(world, plan, planner, rig), {"planner": planner.name}
    frame = world.step(driver.control(frame, config.dt_s))  # the first frame that has the events' actors
    header = LogHeader(
        town=plan.scenario.town, seed=plan.seed, dt_s=config.dt_s, period_s=config.period_s, scenario=plan.scenario,
        rig=rig, images=config.images, ego_row=world.ego_row, appearance_seed=plan.appearance_seed,
        extra=driven_by | {"plan": {"red_light": plan.red_light, "lead": plan.lead}},
    )  # fmt: skip
    expected = int(config.seconds / config.period_s) + 2
    block = 16 if config.images else min(expected, 64)
    with LogWriter(path, header, block_ticks=block, expected_ticks=expected, overwrite=True) as writer:
        journal = _Journal(writer, plan.mode, config.period_s)
        pictures = _Pictures(world, rig, plan.appearance_seed)
        end, collided, driven_m = _drive(world, driver, events, journal, frame, config, pictures)
        journal.finish()
        summary = DriveSummary(
            plan.name, plan.scenario.town, plan.mode, journal.ticks, end, collided, tuple(events.happened), driven_m,
            time.perf_counter() - began,
        )  # fmt: skip
        writer.close(end=end, summary=asdict(summary))
    return summary


def at_the_wheel(world: TownWorld, plan: DrivePlan, planner: Planner, rig: CameraRig | None) -> PlannerDriver:
    """A planner that drives the plan, seeing what the log's pictures would show."""
    eyes, enter = rig or default_rig(), getattr(planner, "enter", None)
    if enter is not None:  # it tries its futures out in the world itself
        enter(world)
    driver = PlannerDriver(planner, eyes, _Pictures(world, eyes, plan.appearance_seed).taken)
    driver.reset(plan.scenario, plan.seed)
    return driver


def _drive(
    world: TownWorld, driver: LogDriver | PlannerDriver, events: Events, journal: _Journal, frame: Frame,
    config: RecordConfig, pictures: _Pictures,
) -> tuple[str, str, float]:  # fmt: skip
    """Step until time is up, the goal is reached, or a second after the first collision."""
    collided, driven_m = "", 0.0
    last_step = round(config.seconds / config.dt_s)
    event_steps = max(round(EVENT_PERIOD_S / config.dt_s), 1)
    end = "timeout"
    for step in range(last_step + 1):
        journal.notice(frame)
        if frame.contacts and not collided:
            collided, end = frame.contacts[0].kind, "collision"
            last_step = min(last_step, step + round(AFTER_COLLISION_S / config.dt_s))
        if step % event_steps == 0:
            events.step(frame, step * config.dt_s)
        control = driver.control(frame, config.dt_s)
        if step % config.steps_per_tick == 0:
            journal.log(pictures.added(frame), control, world.town.copy_state())
        if step >= last_step:
            break
        if frame.route.remaining_m < GOAL_M:
            return ("completed" if not collided else end), collided, driven_m
        frame = world.step(control)
        driven_m += max(frame.ego.speed_mps, 0.0) * config.dt_s
    return end, collided, driven_m
