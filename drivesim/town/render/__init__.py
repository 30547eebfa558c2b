"""The camera renderer of the town: a deferred rasteriser in numba.

renderer = TownRenderer(network)
rendered = renderer.render(state, views, Appearance.from_weather(state.weather, seed=0))
"""

from drivesim.town.render.appearance import Appearance
from drivesim.town.render.renderer import OUTPUTS, Rendered, TownRenderer, Views

__all__ = ["OUTPUTS", "Appearance", "Rendered", "TownRenderer", "Views"]
