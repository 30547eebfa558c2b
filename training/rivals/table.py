"""All rivals by name: what they are, what they may see, and how they are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from drivesim.models.encoder import EncoderConfig, SlotEncoder
from training.clips import Clips
from training.pretrain import PretrainConfig
from training.rivals.bev import BirdsEyeView, bev_of
from training.rivals.cloning import Cloning
from training.rivals.contrastive import Contrastive, WithoutBranches, WithoutCrossAppearance
from training.rivals.ema_target import EMATarget, StopGradient
from training.rivals.lewm import LeWM, VectorEncoder
from training.rivals.pretrained_image import PretrainedEncoder
from training.rivals.reconstruction import Reconstruction
from training.rivals.shaping import Shaper
from training.rivals.sigreg import PlainSIGReg
from training.rivals.supervised import Supervised
from training.rivals.tokens import TokenEncoder, Tokens
from training.rivals.untrained import Blind, scale
from training.rivals.vicreg import VICReg

MakeShaper = Callable[[SlotEncoder, PretrainConfig], Shaper]
Fit = Callable[[SlotEncoder, Clips, PretrainConfig, int], None]


@dataclass(frozen=True)
class Rival:
    """One row of the table.

    Attributes:
        idea: in one line.
        targets: what shapes the latent beside images, calibration, motion and actions: "", "pixels", "truth", "images
            of the world" (other people's labelled pictures).
        shaper: its objective; "bev" is made with its maps by `shaper_of`. None: none.
        encoder: from a config to the encoder, blank; fit: what is done to it without an objective.
        planner: what drives with it: "latent", or the head of a policy.
        imagines, branches: whether stage two is trained at all, and with branches.
        tokens: whether its predictor writes words.
        vision: whether the heads are given the latent.
    """

    idea: str
    shaper: MakeShaper | None = None
    targets: str = ""
    encoder: Callable[[EncoderConfig], SlotEncoder] = SlotEncoder
    fit: Fit | None = None
    planner: str = "latent"
    imagines: bool = True
    branches: bool = True
    tokens: bool = False
    vision: bool = True


def _components(encoder: SlotEncoder, clips: Clips, _config: PretrainConfig, seed: int) -> None:
    assert isinstance(encoder, PretrainedEncoder)
    encoder.fit(clips, seed)


def _blank_pretrained(config: EncoderConfig) -> SlotEncoder:
    return PretrainedEncoder(config)


RIVALS: dict[str, Rival] = {
    "contrastive": Rival("the shipped objective", Contrastive),
    "no-branches": Rival("shipped, without counterfactual branches", WithoutBranches, branches=False),
    "no-cross-appearance": Rival(
        "shipped, without the other rendering and without branches", WithoutCrossAppearance, branches=False
    ),
    "ema-target": Rival("MSE to a slow copy's latent, episode-centred SIGReg", EMATarget),
    "stop-gradient": Rival("MSE to the detached latent, episode-centred SIGReg", StopGradient),
    "vicreg": Rival("MSE, variance and covariance (PLDM's way)", VICReg),
    "sigreg": Rival("MSE to a live target, plain SIGReg per slot", PlainSIGReg),
    "lewm": Rival("one vector a tick, MSE and SIGReg (LeWorldModel)", LeWM, encoder=VectorEncoder),
    "reconstruction": Rival("recurrent, must show what was seen (Dreamer's way)", Reconstruction, "pixels"),
    "bev": Rival("must draw the map from above (MILE's way)", targets="truth"),
    "tokens": Rival(
        "VQ-VAE words, next word by next word (the language models' way)", Tokens, "pixels", TokenEncoder, tokens=True
    ),
    "pretrained-image": Rival(
        "frozen ImageNet features (DINO-WM's way)", None, "images of the world", _blank_pretrained, _components
    ),
    "supervised": Rival("upper control: taught the read-outs", Supervised, "truth"),
    "cloning": Rival("behaviour cloning from scratch", Cloning, planner="clone", imagines=False),
    "random": Rival("lower control: never trained", fit=scale),
    "ego-status": Rival("control without vision: kinematics alone", encoder=Blind, imagines=False, vision=False),
}  # fmt: skip


def shaper_of(
    name: str, encoder: SlotEncoder, config: PretrainConfig, clips: Clips, logs: Path | None, keep: Path
) -> Shaper | None:
    """The objective of a rival on these clips; None where it has none.

    Raises:
        RivalUnavailableError: it needs what is not there.
    """
    if name == "bev":
        return BirdsEyeView(encoder, config, bev_of(clips, logs, keep))
    make = RIVALS[name].shaper
    return None if make is None else make(encoder, config)
