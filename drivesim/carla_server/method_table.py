"""Every method that the 0.9.16 client can call, from the groups of handlers.

`python -m drivesim.carla_server.method_table` prints the README's table of them; `--write` puts it into the README.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from drivesim.carla_server.calls_actors import actor_calls
from drivesim.carla_server.calls_lights import light_calls
from drivesim.carla_server.calls_objects import object_calls
from drivesim.carla_server.calls_outside import outside_calls
from drivesim.carla_server.calls_parts import part_calls
from drivesim.carla_server.calls_recorder import recorder_calls
from drivesim.carla_server.calls_session import session_calls
from drivesim.carla_server.calls_vehicles import vehicle_calls
from drivesim.carla_server.calls_world import world_calls
from drivesim.carla_server.refusals import Refused
from drivesim.carla_server.rpc import Call

if TYPE_CHECKING:
    from drivesim.carla_server.server import CarlaServer

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- table of methods: begin -->", "<!-- table of methods: end -->"
SERVED, KEPT, REFUSED = "served", "accepted", "refused"


def method_table(server: CarlaServer) -> dict[str, Call]:
    """Method name to its call."""
    table: dict[str, Call] = {}
    for group in (
        session_calls,
        world_calls,
        object_calls,
        actor_calls,
        part_calls,
        vehicle_calls,
        light_calls,
        recorder_calls,
        outside_calls,
    ):
        table.update(group(server))
    return table


def answer_of(call: Call) -> str:
    """Served, accepted (answered, without effect) or refused (a RuntimeError with a text)."""
    if isinstance(call.handler, Refused):
        return REFUSED
    return SERVED if call.real else KEPT


def markdown(table: dict[str, Call]) -> str:
    """The README's table: method, answer, what to know."""
    lines = ["| method | answer | note |", "|---|---|---|"]
    for name in sorted(table):
        call = table[name]
        about = call.note or (getattr(call.handler, "__doc__", None) or "").strip().split("\n")[0]
        lines.append(f"| `{name}` | {answer_of(call)} | {about.rstrip('.').replace('|', '/')} |")
    counts = [sum(answer_of(call) == kind for call in table.values()) for kind in (SERVED, KEPT, REFUSED)]
    summary = f"{len(table)} methods: {counts[0]} {SERVED}, {counts[1]} {KEPT} without effect, {counts[2]} {REFUSED}."
    return "\n".join([summary, "", *lines])


def with_table(readme: str, table: str) -> str:
    """The README's text with this table between its marks."""
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}"


def main() -> None:
    """Print the table, or write it into the README."""
    from drivesim.carla_server.server import CarlaServer
    from drivesim.town.towns import BUILTIN_TOWN

    table = markdown(method_table(CarlaServer(BUILTIN_TOWN, port=0)))
    if "--write" in sys.argv[1:]:
        README.write_text(with_table(README.read_text(encoding="utf-8"), table), encoding="utf-8")
    else:
        print(table)


if __name__ == "__main__":
    main()
