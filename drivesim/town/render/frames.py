"""All views of one call in one compiled loop: visibility, lit lenses, shading, rain."""

from __future__ import annotations

import numpy as np

from drivesim.town.render.glow import draw_halos
from drivesim.town.render.kernels import kernel
from drivesim.town.render.rain import draw_rain
from drivesim.town.render.shading import shade_view
from drivesim.town.render.staging import draw_signals, sort_actors
from drivesim.town.render.visibility import draw_instances


@kernel
def render_views(  # type: ignore[no-untyped-def]
    first,
    last,
    origins,
    axes,
    lens,
    hide,
    seeds,
    meshes,
    actors,
    actor_order,
    static,
    order,
    count,
    light_state,
    ground,
    paint,
    s,
    slots,
    pixels,
    depth,
    semantic,
    instance,
    post,
    lamp_top,
    half_size,
):
    """Views first..last-1; origins (v, 3) f64, axes (v, 3, 3) f32, lens (6,) f32 per view, outputs (v, h * w)."""
    look = paint.look
    for v in range(first, last):
        for k in range(s.inverse_z.shape[0]):
            s.inverse_z[k] = np.float32(0.001)
            s.slot[k] = np.int32(-1)
        for x in range(s.column.shape[0]):
            s.tangent[x] = (s.column[x] - lens[v, 1]) / lens[v, 0]
        near_first = sort_actors(actor_order, actors, origins[v])
        used = draw_instances(
            actor_order, near_first, origins[v], axes[v], lens[v], meshes, actors, look, s, slots, 0, hide
        )
        used = draw_instances(order, count, origins[v], axes[v], lens[v], meshes, static, look, s, slots, used, -1)
        draw_signals(order, count, static, light_state, origins[v], axes[v], lens[v], s, slots, used)
        shade_view(
            origins[v],
            axes[v],
            lens[v],
            s,
            slots,
            ground,
            paint,
            seeds[v],
            pixels[v],
            depth[v],
            semantic[v],
            instance[v],
        )
        if post and look[21] > np.float32(0):
            draw_halos(
                lamp_top,
                order,
                count,
                static,
                light_state,
                actors,
                half_size,
                hide,
                origins[v],
                axes[v],
                lens[v],
                depth[v],
                pixels[v],
                look[21],
            )
        if post and look[24] > np.float32(0):
            draw_rain(pixels[v], s.column.shape[0], look[24], look[34], seeds[v])
