"""A rival's checkpoint: the shipped model's file and interface, the rival's encoder, predictor and heads inside."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from safetensors import safe_open

from drivesim.config import from_dict
from drivesim.models import WorldModel, WorldModelConfig
from drivesim.models.heads import OUTPUTS, make_head
from drivesim.models.predictor import LatentPredictor
from drivesim.models.weights_file import CheckpointError
from training.rivals.table import RIVALS
from training.rivals.token_predictor import TokenPredictor


def sized(name: str, config: WorldModelConfig) -> WorldModelConfig:
    """The config with predictor and heads as wide as the rival's latent; slots that changes shape are no rival's."""
    config = replace(config, encoder=replace(config.encoder, things=0, stance=0))
    encoder = RIVALS[name].encoder(config.encoder).config
    n, d = encoder.slots, encoder.latent_dim
    predictor = replace(config.predictor, slots=n, latent_dim=d)
    return replace(config, predictor=predictor, heads=replace(config.heads, latent_size=n * d, slots=n, groups=()))


def blank(name: str, config: WorldModelConfig, rig_digest: str) -> WorldModel:
    """An untrained world model of a rival's shape; `config` is one that `sized` gave.

    Raises:
        RivalUnavailableError: a package that it is made of is not installed.
    """
    rival, model = RIVALS[name], WorldModel(config, rig_digest)
    model.encoder = rival.encoder(config.encoder)
    n, d = config.predictor.slots, config.predictor.latent_dim
    model.mean, model.scale = model.mean.new_zeros(n, d), model.scale.new_ones(n, d)
    model.predictor = TokenPredictor(config.predictor) if rival.tokens else LatentPredictor(config.predictor)
    for head in OUTPUTS:
        setattr(model, head, make_head(head, config.heads, rival.vision))
    return model


def load_rival(path: Path) -> WorldModel:
    """A rival's checkpoint as a world model.

    Raises:
        CheckpointError: no such file, or not a rival's.
    """
    if not path.exists():
        raise CheckpointError(f"no rival at {path}: train it with eval.rivals first")
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    name = json.loads(header.get("card", "{}")).get("rival")
    if name not in RIVALS:
        raise CheckpointError(f"{path} is not a rival's checkpoint: its card names {name!r}")
    model = blank(name, from_dict(WorldModelConfig, json.loads(header["config"])), header["rig"])
    own = model.state_dict()
    model.load_state_dict({key: value.to(own[key].dtype) for key, value in tensors.items()})
    return model.eval()
