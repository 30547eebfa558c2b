"""The latent world model as planners and reports use it: numpy in, numpy out; one checkpoint, one file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor, nn

from drivesim.config import from_dict
from drivesim.datatypes import CameraRig, EgoState, LatentState
from drivesim.models.encoder import EncoderConfig, SlotEncoder
from drivesim.models.fused_rollout import FusedRollout
from drivesim.models.heads import (
    READOUTS,
    RISKS,
    HeadConfig,
    acceleration_quantile,
    expected_acceleration,
    make_head,
    of_moments,
)
from drivesim.models.predictor import LatentPredictor, PredictorConfig
from drivesim.models.views import ViewLayout
from drivesim.models.weights_file import CheckpointError, read_weights, write_weights

FORMAT = "drivesim-world-model-1"
SHIPPED = Path(__file__).parent.parent / "weights" / "nano-v5.safetensors"


def named_weights(name: str) -> Path:
    """The file of weights that lie in drivesim/weights under that name, or the file of that path."""
    lying = SHIPPED.with_name(f"{name}.safetensors")
    return lying if lying.exists() else Path(name)


@dataclass(frozen=True)
class WorldModelConfig:
    """All sizes of a world model."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    heads: HeadConfig = field(default_factory=HeadConfig)


class WorldModel(nn.Module):
    """Encoder, predictor and heads, with the standardisation between them.

    `risk` and `read` look at (a current latent, an imagined one); `policy` and `clone` at the last two.
    """

    def __init__(self, config: WorldModelConfig, rig_digest: str) -> None:
        super().__init__()
        self.config, self.rig_digest = config, rig_digest
        n, d = config.encoder.slots, config.encoder.latent_dim
        self.encoder, self.predictor = SlotEncoder(config.encoder), LatentPredictor(config.predictor)
        self.mean: Tensor
        self.scale: Tensor
        self.risk_temperature: Tensor
        self.register_buffer("mean", torch.zeros(n, d))
        self.register_buffer("scale", torch.ones(n, d))
        self.register_buffer("risk_temperature", torch.ones(len(RISKS)))
        self.policy, self.clone = make_head("policy", config.heads), make_head("clone", config.heads)
        self.risk, self.read = make_head("risk", config.heads), make_head("read", config.heads)
        self._layouts: dict[str, ViewLayout] = {}
        self._digest = ""
        self._fused: FusedRollout | None = None

    @property
    def digest(self) -> str:
        """Identity of the encoder's weights; latents of different digests never mix."""
        if not self._digest:
            h = hashlib.sha256()
            for tensor in (*self.encoder.state_dict().values(), self.mean, self.scale):
                h.update(tensor.detach().cpu().float().numpy().tobytes())
            self._digest = h.hexdigest()[:12]
        return self._digest

    @torch.inference_mode()
    def encode(self, images: NDArray[np.uint8], rig: CameraRig, ego: EgoState) -> LatentState:
        """Images (cameras, h, w, 3) uint8 RGB of one tick -> standardised latent (n, d)."""
        layout = self._layouts.setdefault(rig.digest, ViewLayout.of(rig))
        views = torch.from_numpy(layout.extract(images)).permute(0, 3, 1, 2)[None]
        latent = self.encoder(views, torch.from_numpy(layout.intrinsics), torch.from_numpy(layout.ego_from_camera))
        tokens = ((latent[0] - self.mean) / self.scale).numpy()
        return LatentState(tokens, ego.time_us, self.digest)

    @torch.inference_mode()
    def rollout(
        self, latents: NDArray[np.float32], speed_mps: float, actions: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Imagine (k, p, n, d) from latents (2, n, d) under actions (k, p, 2)."""
        return np.asarray(self.imagine(latents, speed_mps, actions)[0].numpy())

    @torch.inference_mode()
    def imagine(
        self, latents: NDArray[np.float32], speed_mps: float, actions: NDArray[np.float64]
    ) -> tuple[Tensor, Tensor]:
        """Imagined latents (k, p, n, d) and the ensemble's disagreement (k, p)."""
        start, wanted = torch.from_numpy(latents), torch.from_numpy(actions).float()
        if self.training or not FusedRollout.fits(self.predictor):
            return self.imagine_tensors(start, speed_mps, wanted)
        if self._fused is None or not self._fused.current:
            self._fused = FusedRollout.of(self.predictor)
        k = len(actions)
        previous, current = start[0].expand(k, -1, -1), start[1].expand(k, -1, -1)
        return self._fused.rollout(previous, current, wanted, torch.full((k,), float(speed_mps)))

    def imagine_tensors(self, latents: Tensor, speed_mps: float, actions: Tensor) -> tuple[Tensor, Tensor]:
        """`imagine` with gradients: latents (2, n, d) under actions (k, p, 2)."""
        k = len(actions)
        previous, current = latents[0].expand(k, -1, -1), latents[1].expand(k, -1, -1)
        return self.predictor.rollout(previous, current, actions, torch.full((k,), float(speed_mps)))

    @torch.inference_mode()
    def risks(
        self, current: NDArray[np.float32], imagined: Tensor, kinematics: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Calibrated probabilities (k, p, q, 3) of RISKS at imagined moments (k, p, n, d), each asked q times.

        Args:
            current: (n, d) the latent from which it was imagined.
            kinematics: (k, p, q, 16).
        """
        risk = self.risk_tensors(torch.from_numpy(current), imagined, torch.from_numpy(kinematics))
        return np.asarray(risk.numpy())

    def risk_tensors(self, current: Tensor, imagined: Tensor, kinematics: Tensor) -> Tensor:
        """`risks` with gradients: current (n, d), imagined (k, p, n, d), kinematics (k, p, q, 16)."""
        logits = of_moments(self.risk, current, imagined.flatten(0, 1), kinematics.flatten(0, 1))
        return torch.as_tensor((logits / self.risk_temperature).sigmoid().view(*kinematics.shape[:3], -1))

    @torch.inference_mode()
    def accelerations(
        self, previous: NDArray[np.float32], current: NDArray[np.float32], kinematics: NDArray[np.float32],
        head: str = "policy", quantiles: tuple[float, ...] = (0.15, 0.5, 0.85),
    ) -> NDArray[np.float64]:  # fmt: skip
        """What a policy head would do now: mean, then quantiles, of acceleration in m/s2.

        Args:
            head: "policy" (taught what a careful expert would do at every logged state) or "clone"
                (taught what the expert did).
        """
        asked: nn.Module = getattr(self, head)
        pair = torch.from_numpy(np.stack([previous, current]))[None]
        logits = asked(pair, torch.from_numpy(kinematics)[None])[0]
        values = [expected_acceleration(logits), *(acceleration_quantile(logits, q) for q in quantiles)]
        return np.array([float(value) for value in values])

    @torch.inference_mode()
    def readout(
        self, previous: NDArray[np.float32], current: NDArray[np.float32], kinematics: NDArray[np.float32]
    ) -> dict[str, float]:
        """What probes read from the last two latents: a report's instrument, never a planner's input."""
        pair = torch.from_numpy(np.stack([previous, current]))[None]
        values = self.read(pair, torch.from_numpy(kinematics)[None])[0]
        return dict(zip(READOUTS, values.tolist(), strict=True))

    def save(self, path: Path, card: dict[str, Any]) -> None:
        """Write one .safetensors file (half precision) with config, rig and card in its header."""
        header = {
            "format": FORMAT, "rig": self.rig_digest, "config": json.dumps(asdict(self.config)),
            "card": json.dumps(card),
        }  # fmt: skip
        write_weights(path, self.state_dict(), header)

    @staticmethod
    def load(path: Path, rig: CameraRig | None = None) -> WorldModel:
        """Read what `save` wrote.

        Raises:
            CheckpointError: no such file, not a world model, or trained for another rig than `rig`.
        """
        header, tensors = read_weights(path, FORMAT, "run `drivesim train`, or name another one")
        if rig is not None and header["rig"] != rig.digest:
            raise CheckpointError(
                f"{path} was trained for rig {header['rig']}, not for {rig.id} ({rig.digest}): "
                "use its rig or train for yours"
            )
        model = WorldModel(from_dict(WorldModelConfig, json.loads(header["config"])), header["rig"])
        state = {key: value.to(tensors[key].dtype) for key, value in model.state_dict().items() if key in tensors}
        missing = set(model.state_dict()) - set(state)
        if missing:
            raise CheckpointError(
                f"{path} lacks {sorted(missing)[0]}: it was written by another version; train it again"
            )
        model.load_state_dict(tensors)
        return model.eval()


def read_card(path: Path) -> dict[str, Any]:
    """The model card inside a checkpoint."""
    with safe_open(path, framework="pt") as file:
        card: dict[str, Any] = json.loads((file.metadata() or {}).get("card", "{}"))
    return card
