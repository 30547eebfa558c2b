"""What a command checks before any work starts; everything here says what is wrong in one line."""

from __future__ import annotations

import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drivesim.suite import Suite


class WrongInput(ValueError):  # noqa: N818
    """Something that the user can put right; the message says how."""


def say_line(text: str) -> None:
    """One line on stderr."""
    print(" ".join(str(text).split()), file=sys.stderr, flush=True)


def require_free_ports(host: str, port: int) -> None:
    """CARLA speaks on `port` and streams on `port + 1`."""
    if port == 0:
        return
    for number in (port, port + 1):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, number))
            except OSError as error:
                raise WrongInput(
                    f"port {number} on {host} cannot be had ({error.strerror}): "
                    "stop what uses it, or give another --port"
                ) from None


def split_address(address: str) -> tuple[str, int]:
    """host:port."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise WrongInput(f"--carla {address!r}: write host:port, e.g. localhost:2000")
    return host, int(port)


def ready_suite(name: str, scenarios: list[str] | None) -> Suite:
    """The suite, or the part of it that was asked for, every scenario checked; its towns are made ready.

    Scenarios of a town that cannot be fetched here are left out, with a line that says so.
    """
    from drivesim.suite import load_scenario, load_suite
    from drivesim.town.towns import TownUnavailable, road_network

    suite = load_suite(name)
    for scenario in scenarios or ():
        if scenario not in suite.scenarios:
            load_scenario(scenario)  # outside the suite, any other scenario will do; an unknown one is refused
    wanted = tuple(dict.fromkeys(scenarios)) if scenarios else suite.scenarios
    towns = {scenario: load_scenario(scenario).town for scenario in wanted}
    missing: dict[str, str] = {}
    for town in dict.fromkeys(towns.values()):
        try:
            road_network(town, say_line)
        except TownUnavailable as error:
            missing[town] = str(error)
    left = tuple(scenario for scenario in wanted if towns[scenario] not in missing)
    if missing and not left:
        raise WrongInput(next(iter(missing.values())))
    for town, why in missing.items():
        say_line(f"left out {sum(where == town for where in towns.values())} scenario(s) in {town}: {why}")
    return replace(suite, scenarios=left)


def require_planners(names: list[str], checkpoint: Path | None, carla: tuple[str, int] | None = None) -> None:
    """Names and the checkpoint of learned planners, with the rig that will drive; `carla` is a server not our own."""
    from drivesim.build import NEEDS_CHECKPOINT, NEEDS_DISTILLED, NEEDS_TOWN, make_planner, require_planner

    for name in names:
        require_planner(name)
        if carla is not None and name in NEEDS_TOWN:
            raise WrongInput(
                f"planner {name!r} tries futures out in the embedded town and cannot through a CARLA server: "
                "leave --carla out"
            )
    if checkpoint is not None and NEEDS_CHECKPOINT & set(names):
        from drivesim.datatypes import default_rig
        from drivesim.models.world_model import WorldModel

        WorldModel.load(checkpoint, default_rig())
    for name in NEEDS_DISTILLED & set(names):
        make_planner(name, checkpoint)
