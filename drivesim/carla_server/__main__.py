"""`python -m drivesim.carla_server`: serve one town until interrupted (used by EmbeddedServer)."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path

from drivesim.carla_server.recordings import Recordings
from drivesim.carla_server.server import CarlaServer

SWITCH_INTERVAL_S = 0.0005  # calls are answered while a painter holds the interpreter


def main() -> int:
    """Parse, bind, say so on stdout, serve."""
    parser = argparse.ArgumentParser(prog="python -m drivesim.carla_server")
    parser.add_argument("--town", default="Town02")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--capacity", type=int, default=512)
    parser.add_argument("--recordings", type=Path, default=None)
    parser.add_argument("--any-recording-path", action="store_true")
    parser.add_argument("--reap", action="store_true")
    parser.add_argument("--draw-ahead", action="store_true")
    parser.add_argument("--until-stdin-closes", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s", stream=sys.stderr)
    places = Recordings(options.recordings, anywhere=options.any_recording_path)
    try:
        server = CarlaServer(options.town, options.host, options.port, seed=options.seed, capacity=options.capacity,
                             draw_ahead=options.draw_ahead, recordings=places, reap=options.reap)  # fmt: skip
    except (OSError, RuntimeError, ValueError) as error:
        print(f"cannot serve: {error}", flush=True)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: server.stop())
    if options.until_stdin_closes:
        threading.Thread(target=_stop_with_stdin, args=(server,), daemon=True).start()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    print(f"serving {options.host} {server.port} {options.town}", flush=True)
    server.serve()
    return 0


def _stop_with_stdin(server: CarlaServer) -> None:
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    raise SystemExit(main())
