"""Street lamps as CARLA's light manager has them: switched by clients, or by the sun.

On and off are drawn; intensity, colour and group are kept and read back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.carla_server.structs import flag, identifier, number

GROUP_STREET = 2
FULL_INTENSITY = 5000.0
WARM_WHITE = (255, 209, 163)
ARM_M, BULB_M = 1.5, 7.8
DARK_SHARE = 0.05  # of night, from which lamps burn
FOG_PER_M = 0.012  # so do they in fog this thick


class StreetLamps:
    """The lamps of a map in rows; ids are row + 1."""

    def __init__(self, lamps: NDArray[np.float64]) -> None:
        """lamps: (n, 4) foot x, y, z, yaw of the arm."""
        yaw = lamps[:, 3]
        arm = np.column_stack([ARM_M * np.cos(yaw), ARM_M * np.sin(yaw), np.full(len(yaw), BULB_M)])
        self.bulb = lamps[:, :3] + arm
        self.intensity = np.full(len(lamps), FULL_INTENSITY)
        self.color = np.tile(np.array(WARM_WHITE, np.int64), (len(lamps), 1))
        self.group = np.full(len(lamps), GROUP_STREET, np.int64)
        self.by_sun = True
        self.forced = np.full(len(lamps), -1, np.int8)  # 1 on, 0 off, -1 as the sun says

    def active(self, weather: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(n,) which burn in this weather (14,)."""
        return np.asarray(np.where(self.forced >= 0, self.forced == 1, self.by_sun and is_dark(weather)))

    def switched_off(self) -> NDArray[np.bool_]:
        """(n,) which stay dark although it may be night."""
        return np.asarray((self.forced == 0) | (~np.bool_(self.by_sun) & (self.forced < 0)))

    def follow_sun(self, active: bool) -> None:
        """Leave it to the sun from now on, or leave them as they were last set (dark where they were not)."""
        self.by_sun = active
        if active:
            self.forced[:] = -1

    def update(self, state: Any) -> None:
        """Take one LightState; an id that no lamp has is passed over.

        Raises:
            ValueError, TypeError: malformed fields.
        """
        row = identifier(state[0]) - 1
        if not 0 <= row < len(self.intensity):
            return
        intensity, group, color, on = number(state[2]), identifier(state[3], 8), state[4], flag(state[5])
        self.color[row] = [identifier(channel, 8) for channel in color[:3]]
        self.intensity[row], self.group[row], self.forced[row] = max(intensity, 0.0), group, on

    def to_wire(self, weather: NDArray[np.float64]) -> list[Any]:
        """LightState of every lamp."""
        columns = (self.bulb, self.intensity, self.group, self.color, self.active(weather))
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [[row + 1, *fields] for row, fields in enumerate(rows)]


def is_dark(weather: NDArray[np.float64]) -> bool:
    """Do lamps that follow the sun burn in this weather (14,)? As the renderer has it."""
    from drivesim.town.render.appearance import Appearance  # late: a server without cameras starts without it

    look = Appearance.from_weather(weather)
    return bool(look.night > DARK_SHARE or look.fog_per_m > FOG_PER_M)
