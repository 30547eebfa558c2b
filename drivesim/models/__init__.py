"""The latent world model: encoder, predictor, heads and their checkpoint (torch)."""

from drivesim.models.world_model import CheckpointError, WorldModel, WorldModelConfig, read_card

__all__ = ["CheckpointError", "WorldModel", "WorldModelConfig", "read_card"]
