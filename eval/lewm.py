"""LeWM's planner as stable-worldmodel implements it: their model, their CEM solver, their planning configuration.

Maes, Le Lidec, Scieur, LeCun, Balestriero: LeWorldModel, arXiv 2603.19312; the package is stable-worldmodel (MIT). Two
lines prepare it, and leave torch alone:

    pip install --no-deps stable-worldmodel==0.1.1
    pip install -c constraints.txt einops gymnasium loguru transformers

(`pip install stable-worldmodel` serves as well, with 700 MB of data-set readers that no planner needs.) Its modules
are imported without the package's own `__init__`, which wants all of those and OpenCV. Sizes are those of its training
and planning configurations: ViT-tiny with patch 14 on one 224x224 frame, one vector of 192, a causal predictor of six
layers with three frames of history; 300 samples, 30 elites, 5 blocks of 5 actions, 30 iterations on Push-T and 10
elsewhere, cost of the last step. Weights are untrained: their values change no multiplication.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from drivesim.config import ConfigError

PACKAGE = "stable_worldmodel"
NEEDED = (PACKAGE, "einops", "gymnasium", "loguru", "transformers")
INSTALL = (
    "pip install --no-deps stable-worldmodel==0.1.1 && "
    "pip install -c constraints.txt einops gymnasium loguru transformers"
)
SIDE_PX, LATENT, HISTORY = 224, 192, 3
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, which their transform uses
ELITES = 30
HORIZON, BLOCK = 5, 5  # steps of the predictor in a plan, actions in a step
CONTROL_S = 0.1  # Push-T's: a plan of 25 actions is carried out to its end before the next one
ACTIONS = 2  # numbers in an action: ours as well as Push-T's


def missing() -> tuple[str, ...]:
    """Packages that are not installed; nothing is imported."""
    return tuple(name for name in NEEDED if importlib.util.find_spec(name) is None)


def versions() -> dict[str, str]:
    """What was measured."""
    return {name: importlib.metadata.version(name) for name in ("stable-worldmodel", "transformers", "torch")}


def _module(name: str) -> Any:
    """A module of the package, its two outermost `__init__` left aside."""
    spec = None if PACKAGE in sys.modules else importlib.util.find_spec(PACKAGE)
    if spec is not None and spec.submodule_search_locations:
        root = Path(spec.submodule_search_locations[0])
        for package, folder in ((PACKAGE, root), (f"{PACKAGE}.wm", root / "wm")):
            bare = types.ModuleType(package)
            bare.__path__ = [str(folder)]
            sys.modules[package] = bare
    return importlib.import_module(f"{PACKAGE}.{name}")


def build_model(actions: int = ACTIONS, seed: int = 0) -> Any:
    """LeWM of their training configuration with untrained weights, ready to imagine.

    Raises:
        ConfigError: packages are missing; the message says how to install them.
    """
    if lacking := missing():
        raise ConfigError(f"LeWM's planner needs {', '.join(lacking)}: {INSTALL}")
    parts, huggingface = _module("wm.lewm.module"), importlib.import_module("transformers")
    torch.manual_seed(seed)
    vit = huggingface.ViTConfig(
        hidden_size=LATENT, num_hidden_layers=12, num_attention_heads=3, intermediate_size=4 * LATENT,
        image_size=SIDE_PX, patch_size=14,
    )  # fmt: skip

    def projector() -> Any:
        return parts.MLP(input_dim=LATENT, output_dim=LATENT, hidden_dim=2048, norm_fn=torch.nn.BatchNorm1d)

    model = _module("wm.lewm").LeWM(
        encoder=huggingface.ViTModel(vit, add_pooling_layer=False, use_mask_token=False),
        predictor=parts.Predictor(
            num_frames=HISTORY, depth=6, heads=16, dim_head=64, mlp_dim=2048, input_dim=LATENT, hidden_dim=LATENT,
            dropout=0.1,
        ),
        action_encoder=parts.Embedder(input_dim=BLOCK * actions, emb_dim=LATENT),
        projector=projector(), pred_proj=projector(),
    )  # fmt: skip
    return model.eval().requires_grad_(False)


def picture_tensor(image: NDArray[np.uint8]) -> torch.Tensor:
    """One picture (h, w, 3) uint8 RGB, as their transform hands it to a solver: (1, 1, 3, 224, 224), normalised."""
    square = np.asarray(Image.fromarray(image).resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR), np.float32)
    scaled = (square / 255.0 - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
    return torch.from_numpy(scaled.transpose(2, 0, 1).copy())[None, None]


@dataclass(frozen=True)
class Sizes:
    """How long their search is."""

    samples: int = 300
    iterations: int = 30


class LeWMPlanner:
    """Plans once from a picture to a goal picture: both are encoded, then CEM searches."""

    def __init__(self, model: Any, sizes: Sizes, actions: int = ACTIONS, seed: int = 0) -> None:
        spaces = importlib.import_module("gymnasium").spaces
        self.sizes, self.actions, self.imagined = sizes, actions, 0
        self.solver = _module("solver").CEMSolver(
            model, batch_size=1, num_samples=sizes.samples, var_scale=1.0, n_steps=sizes.iterations,
            topk=min(ELITES, sizes.samples), device="cpu", seed=seed, callbacks=[self._counter()],
        )  # fmt: skip
        space = spaces.Box(-1.0, 1.0, shape=(1, actions), dtype=np.float32)
        config = types.SimpleNamespace(horizon=HORIZON, receding_horizon=HORIZON, action_block=BLOCK)
        self.solver.configure(action_space=space, n_envs=1, config=config)

    def _counter(self) -> Any:
        """Their way to look into a search: called once an iteration."""
        planner = self

        class Count(_module("solver.callbacks").Callback):  # type: ignore[misc]
            output_key = "candidates"

            def __call__(self, *, candidates: torch.Tensor, **_: Any) -> None:
                planner.imagined += candidates.shape[0] * candidates.shape[1]

        return Count()

    def plan(self, image: NDArray[np.uint8], goal: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Actions (25, actions) from here (h, w, 3) to there (h, w, 3); `imagined` then holds how many futures."""
        self.imagined = 0
        seen = {
            "pixels": picture_tensor(image), "goal": picture_tensor(goal), "action": torch.zeros(1, 1, self.actions),
        }  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()):  # the solver tells its time at every call
            found = self.solver(seen)["actions"]
        return np.asarray(found[0].reshape(HORIZON * BLOCK, self.actions).numpy())

    def futures(self, image: NDArray[np.uint8], goal: NDArray[np.uint8]) -> float:
        """Plan, and say how many futures were imagined."""
        self.plan(image, goal)
        return float(self.imagined)
