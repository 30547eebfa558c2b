"""Run CARLA's own smoke tests, examples and utilities against servers that this starts; prints a table.

    python tools/carla_smoke.py PATH/TO/PythonAPI [--only test_map --only generate_traffic] [--tests] [--scripts]

PythonAPI is CARLA's folder of that name (0.9.16). Its files run as they are, each test in a process and on a server of
its own; the smoke tests want port 3654, most examples port 2000. Scripts that never end are stopped after some seconds.
Those that open a window run with SDL's dummy driver where pygame is installed, and are skipped where it is not.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from drivesim.carla_server.embedded import EmbeddedServer

SMOKE_PORT, EXAMPLE_PORT = 3654, 2000
SMOKE_TOWN = "Town03"  # the tests load it themselves after each other
# test_collision_sensor drives 40 m north from (30, -6) and wants a wall there; in Town01 a house stands in the way
OTHER_TOWNS = {"test_collision_sensor": "Town01"}
NOT_FOR_THIS_CLIENT = {
    "test_geoconversion": "carla.Map.get_georeference is not in the client from PyPI",
    "start_replaying": "Client.replay_file of the client from PyPI takes no weather and no map",
}
ABORTS_AT_EXIT = "terminate called without an active exception"  # the client, when its threads outlive Python
TEST_LIMIT_S = 1800.0
END_WAIT_S = 15.0


@dataclass(frozen=True)
class Script:
    """A script, how to call it, and how long it may run before it is stopped."""

    path: str
    arguments: tuple[str, ...] = ()
    seconds: float = 20.0
    needs: tuple[str, ...] = ()  # packages
    goes_on: bool = False  # on the server of the script before


WINDOW = ("pygame",)
SCRIPTS = (
    Script("examples/generate_traffic.py", ("-n", "30", "-w", "20", "--seed", "7"), 25.0),
    Script("examples/generate_traffic.py", ("-n", "20", "-w", "10", "--asynch"), 20.0),
    Script("examples/vehicle_gallery.py"),
    Script("examples/sensor_synchronization.py"),
    Script("examples/dynamic_weather.py", seconds=8.0),
    Script("examples/tutorial.py", seconds=60.0),
    Script("examples/vehicle_physics.py", seconds=60.0),
    Script("examples/get_component_test.py"),
    Script("examples/start_recording.py", ("-n", "10", "-t", "6", "-f", "smoke.log"), 40.0),
    Script("examples/show_recorder_file_info.py", ("-f", "smoke.log"), goes_on=True),
    Script("examples/show_recorder_collisions.py", ("-f", "smoke.log"), goes_on=True),
    Script("examples/show_recorder_actors_blocked.py", ("-f", "smoke.log"), goes_on=True),
    Script("examples/start_replaying.py", ("-f", "smoke.log"), goes_on=True),
    Script("examples/lidar_to_camera.py", ("-f", "5"), 60.0, ("PIL", "matplotlib")),
    Script("examples/synchronous_mode.py", needs=WINDOW),
    Script("examples/client_bounding_boxes.py", needs=WINDOW),
    Script("examples/bounding_boxes.py", needs=WINDOW),
    Script("examples/manual_control.py", ("--sync", "--autopilot"), needs=WINDOW),
    Script("examples/automatic_control.py", ("--sync", "--seed", "3"), needs=WINDOW),
    Script("examples/visualize_multiple_sensors.py", needs=WINDOW),
    Script("examples/no_rendering_mode.py", needs=WINDOW),
    Script("examples/draw_skeleton.py", needs=(*WINDOW, "PIL")),
    Script("util/config.py", ("--list",)),
    Script("util/config.py", ("--inspect",), goes_on=True),
    Script("util/config.py", ("--map", "Town01", "--weather", "HardRainNoon", "--fps", "20"), 40.0, goes_on=True),
    Script("util/config.py", ("--list-blueprints", "vehicle.*"), goes_on=True),
    Script("util/environment.py", ("--sun", "sunset", "--fog", "30", "--lights", "on"), goes_on=True),
    Script("util/test_connection.py", goes_on=True),
    Script("util/check_map.py", goes_on=True),
    Script("util/extract_spawn_points.py", ("-o", "."), goes_on=True),
    Script("util/lane_explorer.py", ("-t", "0.1"), 8.0, goes_on=True),
    Script("util/apply_texture.py", ("--list",), needs=("imageio",), goes_on=True),
    Script("util/check_collisions_substepping.py", seconds=120.0),
    Script("util/check_lidar_bb.py", seconds=90.0),
    Script("util/check_raycast_sensors_determinism.py", seconds=90.0),
    Script("util/raycast_sensor_testing.py", ("-ln", "1", "-lp", "100000"), needs=WINDOW),
    Script("util/vehicle_physics_tester.py", ("--filter", "vehicle.tesla.*", "--accel"), 90.0),
    Script(
        "util/performance_benchmark.py",
        ("--ticks", "40", "--maps", "Town02", "--sync"),
        240.0,
        (*WINDOW, "tr", "cpuinfo", "psutil", "GPUtil"),
    ),
)


def tests_of(file: Path) -> list[str]:
    """`Class.test` of every test in a file, without importing it."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    classes = [node for node in body if isinstance(node, ast.ClassDef) and any(
        isinstance(base, ast.Name) and base.id.endswith("SmokeTest") for base in node.bases)]  # fmt: skip
    return [f"{cls.name}.{item.name}" for cls in classes for item in cls.body
            if isinstance(item, ast.FunctionDef) and item.name.startswith("test_")]  # fmt: skip


def run_tests(api: Path, only: list[str]) -> tuple[int, int, int]:
    """Files that passed whole, files that this client can run, and tests that failed."""
    passed = files = failures = 0
    for file in sorted((api / "test" / "smoke").glob("test_*.py")):
        if only and file.stem not in only:
            continue
        if file.stem in NOT_FOR_THIS_CLIENT:
            line(file.stem, "", "not run", 0.0, NOT_FOR_THIS_CLIENT[file.stem])
            continue
        files += 1
        bad = sum(not run_test(api, file.stem, test) for test in tests_of(file))
        failures += bad
        passed += bad == 0
    return passed, files, failures


def run_test(api: Path, module: str, test: str) -> bool:
    """One test in a process of its own, on a server of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(api / "carla"), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-W", "ignore", "-m", "unittest", f"smoke.{module}.{test}"]
    began_s = time.monotonic()
    with EmbeddedServer(OTHER_TOWNS.get(module, SMOKE_TOWN), port=SMOKE_PORT):
        try:
            done = subprocess.run(command, cwd=api / "test", env=environment, capture_output=True, text=True,
                                  timeout=TEST_LIMIT_S, check=False)  # fmt: skip
        except subprocess.TimeoutExpired:
            line(module, test, "did not end", time.monotonic() - began_s, f"in {TEST_LIMIT_S:.0f} s")
            return False
    good = done.returncode == 0 or done.stderr.rstrip().endswith("\nOK")  # the client may abort after the last word
    line(module, test, "passed" if good else "failed", time.monotonic() - began_s, "" if good else why(done.stderr))
    return good


def run_scripts(api: Path, only: list[str]) -> int:
    """How many failed."""
    failures, server, folder = 0, None, tempfile.mkdtemp(prefix="carla-smoke-")
    try:
        for script in SCRIPTS:
            name = Path(script.path).stem
            if only and name not in only and not (script.goes_on and server is not None):
                continue
            if name in NOT_FOR_THIS_CLIENT:
                line(script.path, " ".join(script.arguments), "not run", 0.0, NOT_FOR_THIS_CLIENT[name])
                continue
            missing = [package for package in script.needs if importlib.util.find_spec(package) is None]
            if missing or not (api / script.path).is_file():
                line(script.path, " ".join(script.arguments), "not run", 0.0, f"needs {', '.join(missing or ['it'])}")
                continue
            if server is None or not script.goes_on:
                if server is not None:
                    server.stop()
                server = EmbeddedServer("Town10HD", port=EXAMPLE_PORT)
                server.__enter__()
            failures += not run_script(api, script, folder)
    finally:
        if server is not None:
            server.stop()
    return failures


def run_script(api: Path, script: Script, folder: str) -> bool:
    """Run one until it ends or its time is over; it is good if it raised nothing."""
    environment = {**os.environ, "SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy", "MPLBACKEND": "Agg",
                   "PYTHONPATH": os.pathsep.join([str(api / "carla"), os.environ.get("PYTHONPATH", "")])}  # fmt: skip
    command = [sys.executable, "-W", "ignore", "-u", str((api / script.path).resolve()), *script.arguments]
    began_s = time.monotonic()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT,
                                   stdin=subprocess.DEVNULL)  # fmt: skip
        stopped = False
        try:
            process.wait(script.seconds)
        except subprocess.TimeoutExpired:
            stopped = True
            process.send_signal(signal.SIGINT)
            try:
                process.wait(END_WAIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        out.seek(0)
        said = out.read()
    raised = [part for part in said.split("Traceback (most recent call last)")[1:] if "KeyboardInterrupt" not in part]
    ended = process.returncode == 0 or said.rstrip().endswith(ABORTS_AT_EXIT)
    good = not raised and "error has occurred" not in said and (stopped or ended)
    verdict = ("ran until stopped" if stopped else "ended") if good else "failed"
    line(script.path, " ".join(script.arguments), verdict, time.monotonic() - began_s, "" if good else why(said))
    return good


def why(said: str) -> str:
    """The line that says most: the last error."""
    lines = [text.strip() for text in said.splitlines() if text.strip()]
    errors = [text for text in lines if "Error" in text or "what():" in text or "error" in text.lower()]
    return (errors or lines or ["nothing was said"])[-1][:160].replace("|", "/")


def line(*cells: object) -> None:
    """A row of the table."""
    said = [f"{cell:.0f}" if isinstance(cell, float) else str(cell) for cell in cells]
    print("| " + " | ".join(said) + " |", flush=True)


def main() -> int:
    """Parse, run, sum up."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("python_api", type=Path, help="CARLA's PythonAPI folder")
    parser.add_argument("--only", action="append", default=[], help="a file's name without .py; repeat for more")
    parser.add_argument("--tests", action="store_true", help="the smoke tests alone")
    parser.add_argument("--scripts", action="store_true", help="the examples and utilities alone")
    options = parser.parse_args()
    api = options.python_api.resolve()
    if not (api / "test" / "smoke").is_dir():
        parser.error(f"{api} holds no test/smoke")
    both = not (options.tests or options.scripts)
    line("file", "test or arguments", "result", "seconds", "why")
    line(*["---"] * 5)
    failures, text = 0, []
    if options.tests or both:
        passed, files, failures = run_tests(api, options.only)
        text.append(f"smoke: {passed} of {files} files passed whole")
    if options.scripts or both:
        bad = run_scripts(api, options.only)
        failures += bad
        text.append(f"scripts: {bad} failed")
    print("\n" + "; ".join(text))
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
