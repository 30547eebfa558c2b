"""Scenery kept on disk: placing the houses of a large town takes minutes, reading them a moment."""

from __future__ import annotations

import hashlib
import uuid
import zipfile
from dataclasses import fields
from pathlib import Path

import numpy as np

from drivesim.town import scenery
from drivesim.town.roads import RoadNetwork
from drivesim.town.scenery import Scenery
from drivesim.town.towns import cache_folder


def load_scenery(network: RoadNetwork, seed: int = 0) -> Scenery:
    """What `scenery.scenery` gives, from the cache folder where it has been made before by the same code."""
    path = _file(network, seed)
    if path.is_file():
        try:
            with np.load(path, allow_pickle=False) as data:
                return Scenery(**{item.name: data[item.name] for item in fields(Scenery)})
        except (ValueError, OSError, KeyError, zipfile.BadZipFile):  # cut short: make it again
            path.unlink(missing_ok=True)
    made = scenery.scenery(network, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.{uuid.uuid4().hex[:12]}.partial.npz")  # two processes may write at once
    np.savez(partial, **{item.name: getattr(made, item.name) for item in fields(Scenery)})
    partial.replace(path)
    return made


def _file(network: RoadNetwork, seed: int) -> Path:
    """Named by the roads, the seed and the code that places things."""
    digest = hashlib.sha256(Path(str(scenery.__file__)).read_bytes())
    for item in fields(RoadNetwork):
        if item.name != "name":
            digest.update(np.ascontiguousarray(getattr(network, item.name)).data)
    name = network.name.rsplit("/", 1)[-1]
    safe = "".join(letter if letter.isalnum() or letter in "_.-" else "_" for letter in name)
    return cache_folder() / "scenery" / f"{safe}-{digest.hexdigest()[:16]}-s{seed}.npz"
