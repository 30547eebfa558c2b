"""The latent world model: encoder, predictor, heads and their checkpoint (torch)."""

from drivesim.models.weights_file import CheckpointError
from drivesim.models.world_model import SHIPPED, WorldModel, WorldModelConfig, named_weights, read_card

__all__ = ["SHIPPED", "CheckpointError", "WorldModel", "WorldModelConfig", "named_weights", "read_card"]
