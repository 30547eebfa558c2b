"""The latent world model: encoder, predictor, heads and their checkpoint (torch)."""

from drivesim.models.world_model import SHIPPED, CheckpointError, WorldModel, WorldModelConfig, read_card

__all__ = ["SHIPPED", "CheckpointError", "WorldModel", "WorldModelConfig", "read_card"]
