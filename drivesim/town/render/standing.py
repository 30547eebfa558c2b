"""What stands in a town as it is shown now: things can be left out, lamps switched off, surfaces repainted."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from drivesim.town.render import staging
from drivesim.town.render.scene import KIND_HOUSE, KIND_LAMP, KIND_LAND, KIND_PROP, KIND_TREE, Scene

Floats = NDArray[np.float64]
LAND_FAR_PX = 90.0  # a chunk of land less than this in radius shows its coarse mesh
PROP_FAR_PX = 3.0  # benches and bins less than this in radius are not drawn
NOT_DRAWN = -1  # as a mesh


class Standing:
    """The scene's instances, shadow casters and lamps, less what is left out. Change it only while nobody draws."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.instances = staging.static_instances(scene)
        self.instances.far_px[scene.kind == KIND_LAND] = LAND_FAR_PX
        self.instances.far_px[scene.kind == KIND_PROP] = PROP_FAR_PX
        self.casters = scene.casters
        self.lamps = scene.lamps
        self.lamp_top = scene.lamp_top
        self.paint: dict[int, tuple[int, int, int]] = {}  # instance -> colour in place of its tint
        self.version = 0  # counts changes, so that kept shadows are made anew

    def leave_out(self, feet: Floats, dark: NDArray[np.bool_]) -> None:
        """Show everything but these; replaces what was left out before.

        Args:
            feet: (n, 2) x, y of the things that are not drawn and cast no shadow.
            dark: (l,) lamps, in the order of the scenery, that give no light.
        """
        scene = self._scene
        gone = _stands_on(scene.position, feet) & (scene.kind != KIND_LAND)
        out = gone & (scene.kind == KIND_LAMP)
        out |= (scene.kind == KIND_LAMP) & _stands_on(scene.position, self._lamp_feet[dark])
        signal = np.where(out, staging.SWITCHED_OFF, scene.signal).astype(np.int32)
        self.instances = self.instances._replace(
            mesh=np.where(gone, NOT_DRAWN, scene.mesh).astype(np.int32),
            far=np.where(gone, NOT_DRAWN, scene.far).astype(np.int32), signal=signal,
        )  # fmt: skip
        self.casters = np.ascontiguousarray(scene.casters[~_stands_on(scene.casters, feet)])
        lit = ~(dark | _stands_on(self._lamp_feet, feet))
        self.lamps = np.ascontiguousarray(scene.lamps[lit])
        self.lamp_top = np.ascontiguousarray(scene.lamp_top[lit])
        self.version += 1

    def repaint(self, foot: Floats, color: tuple[int, int, int]) -> bool:
        """Give the house or tree that stands on (2,) x, y another colour; False if nothing there can take one."""
        takes_paint = (self._scene.kind == KIND_HOUSE) | (self._scene.kind == KIND_TREE)
        found = np.flatnonzero(_stands_on(self._scene.position, foot[None]) & takes_paint)
        self.paint.update(dict.fromkeys(found.tolist(), color))
        return len(found) > 0

    def restore(self) -> None:
        """Everything as the scene has it."""
        if self.version or self.paint:
            self.paint.clear()
            self.leave_out(np.zeros((0, 2)), np.zeros(len(self._scene.lamps), bool))

    def tinted(self, tint: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An appearance's tints (n, 3, 3) with what was repainted."""
        if not self.paint:
            return tint
        tint = tint.copy()
        for instance, color in self.paint.items():
            tint[instance, 0] = color
        return tint

    @cached_property
    def _lamp_feet(self) -> Floats:
        """(l, 2), in the order of the scenery's lamps; a bulb hangs out along its lamp's arm."""
        at = np.flatnonzero(self._scene.kind == KIND_LAMP)
        feet, yaw = self._scene.position[at, :2], self._scene.yaw[at]
        bulbs = feet + 1.5 * np.stack([np.cos(yaw), np.sin(yaw)], axis=1)
        order = [int(np.argmin(((bulbs - top) ** 2).sum(1))) for top in self._scene.lamp_top[:, :2]]
        return feet[order].reshape(-1, 2)


def _stands_on(rows: Floats, feet: Floats) -> NDArray[np.bool_]:
    """Which rows (x, y, ...) have one of the feet (n, 2) to the bit: both come from one scenery."""
    return np.isin(rows[:, 0] + 1j * rows[:, 1], feet[:, 0] + 1j * feet[:, 1])
