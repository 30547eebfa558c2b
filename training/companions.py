"""Make what lies beside a checkpoint, its critic and its distilled policy, on drives that its encoder has not learned.

    python -m training.companions runs/companions                                # for the shipped checkpoint
    python -m training.companions runs/companions --checkpoint runs/nano/checkpoints/last --only critic

`drivesim train` makes both on the run's own drives, on which the predictor errs less than elsewhere. Here the drives
are fresh (`recipes/companions.toml`): they are recorded and rendered where they are not there yet, encoded once, and
serve any checkpoint. Interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from drivesim.datatypes import default_rig
from drivesim.models import SHIPPED, WorldModel
from training.cache import build_cache
from training.clips import Clips
from training.latents import latents_of, save_latents
from training.recording import ensure_logs
from training.train import COMPANIONS, Recipe, load_recipe, teach_companions

RECIPE = Path(__file__).parent / "recipes" / "companions.toml"


def companions(
    recipe: Recipe, out: Path, checkpoint: Path, kinds: tuple[str, ...], tell: Callable[[str, float], None]
) -> None:
    """Record, render, encode, teach; `tell` hears what is done and how much of it.

    Raises:
        drivesim.models.CheckpointError: no such checkpoint.
    """
    model, kept = WorldModel.load(checkpoint), out / "checkpoints" / "latents.pt"
    torch.set_num_threads(recipe.threads)
    logs = ensure_logs(recipe.recording, out / "logs", recipe.seed, lambda share: tell("recording", share))
    build_cache(logs, out / "cache", default_rig(), recipe.cache, lambda share: tell("rendering", share))
    latents = latents_of(model, Clips.load(out / "cache"), kept, lambda share: tell("encoding", share))
    kept.parent.mkdir(exist_ok=True)
    save_latents(kept, latents)
    teach_companions(recipe, checkpoint, out, lambda stage, share, _: tell(stage, share), kinds)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the drives")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="world model; the shipped one by default")
    parser.add_argument("--drives", type=int, help="fresh drives; the recipe's number by default")
    parser.add_argument("--only", choices=COMPANIONS, help="one of the two alone")
    options = parser.parse_args()
    recipe = load_recipe(RECIPE)
    if options.drives:
        recipe = replace(recipe, recording=replace(recipe.recording, drives=options.drives))
    kinds = (options.only,) if options.only else COMPANIONS
    companions(
        recipe, options.out, options.checkpoint, kinds, lambda what, share: print(f"{what} {share:.0%}", flush=True)
    )
    print(f"beside {options.checkpoint}: {', '.join(kinds)}")


if __name__ == "__main__":
    main()
