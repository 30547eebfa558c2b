"""The actors a town can hold: CARLA's blueprint ids with their sizes, masses and shapes."""

from __future__ import annotations

from dataclasses import dataclass

SHAPE_SEDAN, SHAPE_HATCH, SHAPE_SUV, SHAPE_VAN, SHAPE_TRUCK, SHAPE_BUS, SHAPE_TWO_WHEELER, SHAPE_WALKER, SHAPE_BOX = (
    range(9)
)

Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class ActorModel:
    """One blueprint; sizes are full lengths in metres, as CARLA's bounding boxes have them."""

    blueprint: str  # e.g. "vehicle.tesla.model3"
    shape: int  # SHAPE_*
    length_m: float
    width_m: float
    height_m: float
    wheelbase_m: float  # 0 for walkers and props
    mass_kg: float
    base_type: str  # car, truck, van, bus, motorcycle, bicycle, pedestrian, prop
    generation: int = 1
    wheels: int = 4
    colors: tuple[Rgb, ...] = ((120, 120, 120),)


_WHITE: Rgb = (225, 225, 222)
_BLACK: Rgb = (26, 26, 28)
_SILVER: Rgb = (156, 158, 162)
_GREY: Rgb = (84, 86, 90)
_BLUE: Rgb = (17, 37, 103)
_SKY: Rgb = (66, 116, 170)
_RED: Rgb = (160, 24, 24)
_GREEN: Rgb = (38, 82, 52)
_ORANGE: Rgb = (211, 112, 20)
_YELLOW: Rgb = (224, 186, 40)
_TAN: Rgb = (170, 148, 112)
_EVERYDAY = (_WHITE, _BLACK, _SILVER, _GREY, _BLUE, _RED)
_BRIGHT = (_RED, _YELLOW, _ORANGE, _SKY, _BLACK, _WHITE)
_MUTED = (_TAN, _GREEN, _SILVER, _SKY, _GREY)

# blueprint, shape, length, width, height, wheelbase, mass, base type, generation, colours
_FOUR_WHEELED: tuple[tuple[str, int, float, float, float, float, float, str, int, tuple[Rgb, ...]], ...] = (
    ("audi.a2", SHAPE_HATCH, 3.71, 1.79, 1.55, 2.41, 1050, "car", 1, _EVERYDAY),
    ("audi.etron", SHAPE_SUV, 4.86, 2.03, 1.65, 2.93, 2490, "car", 1, _EVERYDAY),
    ("audi.tt", SHAPE_SEDAN, 4.18, 1.99, 1.39, 2.51, 1450, "car", 1, _BRIGHT),
    ("bmw.grandtourer", SHAPE_VAN, 4.61, 2.24, 1.67, 2.78, 1560, "car", 1, _EVERYDAY),
    ("chevrolet.impala", SHAPE_SEDAN, 5.36, 2.03, 1.41, 2.84, 1700, "car", 1, _MUTED),
    ("citroen.c3", SHAPE_HATCH, 3.99, 1.85, 1.62, 2.54, 1170, "car", 1, _BRIGHT),
    ("dodge.charger_2020", SHAPE_SEDAN, 5.01, 2.10, 1.53, 3.05, 1900, "car", 2, _BRIGHT),
    ("dodge.charger_police", SHAPE_SEDAN, 4.97, 2.04, 1.55, 3.05, 1920, "car", 1, (_BLACK,)),
    ("dodge.charger_police_2020", SHAPE_SEDAN, 5.24, 2.10, 1.64, 3.05, 1950, "car", 2, (_BLACK,)),
    ("ford.crown", SHAPE_SEDAN, 5.37, 1.80, 1.57, 2.91, 1880, "car", 2, (_YELLOW, _WHITE, _BLACK)),
    ("ford.mustang", SHAPE_SEDAN, 4.72, 1.89, 1.30, 2.72, 1720, "car", 1, _BRIGHT),
    ("jeep.wrangler_rubicon", SHAPE_SUV, 3.87, 1.91, 1.88, 2.42, 1870, "car", 1, (_GREEN, _TAN, _ORANGE, _BLACK)),
    ("lincoln.mkz_2017", SHAPE_SEDAN, 4.90, 2.13, 1.51, 2.85, 1750, "car", 1, _EVERYDAY),
    ("lincoln.mkz_2020", SHAPE_SEDAN, 4.89, 1.84, 1.49, 2.85, 1760, "car", 2, _EVERYDAY),
    ("mercedes.coupe", SHAPE_SEDAN, 5.03, 2.15, 1.64, 2.95, 1850, "car", 1, _EVERYDAY),
    ("mercedes.coupe_2020", SHAPE_SEDAN, 4.67, 1.81, 1.44, 2.84, 1750, "car", 2, _EVERYDAY),
    ("micro.microlino", SHAPE_HATCH, 2.21, 1.48, 1.38, 1.57, 530, "car", 1, _BRIGHT),
    ("mini.cooper_s", SHAPE_HATCH, 3.81, 1.97, 1.48, 2.47, 1200, "car", 1, _BRIGHT),
    ("mini.cooper_s_2021", SHAPE_HATCH, 4.55, 2.10, 1.77, 2.67, 1390, "car", 2, _BRIGHT),
    ("nissan.micra", SHAPE_HATCH, 3.63, 1.85, 1.50, 2.43, 1010, "car", 1, _BRIGHT),
    ("nissan.patrol", SHAPE_SUV, 4.60, 1.93, 1.86, 2.89, 2400, "car", 1, _MUTED),
    ("nissan.patrol_2021", SHAPE_SUV, 5.57, 2.15, 2.05, 3.08, 2750, "car", 2, _EVERYDAY),
    ("seat.leon", SHAPE_HATCH, 4.19, 1.82, 1.47, 2.58, 1260, "car", 1, _EVERYDAY),
    ("toyota.prius", SHAPE_HATCH, 4.51, 2.01, 1.52, 2.70, 1390, "car", 1, _MUTED),
    ("volkswagen.t2", SHAPE_VAN, 4.48, 2.07, 2.04, 2.40, 1350, "van", 1, (_SKY, _ORANGE, _GREEN, _WHITE)),
    ("volkswagen.t2_2021", SHAPE_VAN, 4.44, 1.77, 1.99, 2.40, 1350, "van", 2, (_SKY, _ORANGE, _GREEN, _WHITE)),
    ("ford.ambulance", SHAPE_VAN, 6.36, 2.35, 2.43, 3.95, 4500, "van", 2, (_WHITE,)),
    ("mercedes.sprinter", SHAPE_VAN, 5.92, 1.99, 2.56, 3.67, 2800, "van", 2, (_WHITE, _SILVER, _GREY, _BLUE)),
    ("carlamotors.carlacola", SHAPE_TRUCK, 5.20, 2.61, 2.47, 3.20, 5500, "truck", 1, (_RED, _WHITE)),
    ("carlamotors.european_hgv", SHAPE_TRUCK, 7.93, 2.89, 3.46, 4.60, 9000, "truck", 2, (_WHITE, _BLUE, _RED)),
    ("carlamotors.firetruck", SHAPE_TRUCK, 8.47, 2.90, 3.84, 4.80, 13000, "truck", 2, (_RED,)),
    ("tesla.cybertruck", SHAPE_TRUCK, 6.27, 2.39, 2.10, 3.81, 3100, "truck", 1, (_SILVER,)),
    ("mitsubishi.fusorosa", SHAPE_BUS, 10.27, 3.94, 4.25, 5.70, 9500, "bus", 2, (_WHITE, _SKY, _YELLOW)),
)  # fmt: skip

# blueprint, length, width (with rider), height, wheelbase, mass, base type
_TWO_WHEELED: tuple[tuple[str, float, float, float, float, float, str], ...] = (
    ("bh.crossbike", 1.49, 0.86, 1.60, 1.02, 90, "bicycle"),
    ("diamondback.century", 1.65, 0.55, 1.62, 1.02, 88, "bicycle"),
    ("gazelle.omafiets", 1.84, 0.55, 1.64, 1.12, 94, "bicycle"),
    ("harley-davidson.low_rider", 2.35, 0.76, 1.66, 1.63, 380, "motorcycle"),
    ("kawasaki.ninja", 2.03, 0.80, 1.64, 1.41, 270, "motorcycle"),
    ("vespa.zx125", 1.82, 0.86, 1.62, 1.28, 190, "motorcycle"),
    ("yamaha.yzf", 2.21, 0.87, 1.66, 1.40, 275, "motorcycle"),
)

# CARLA's children are 1.10 to 1.32 m, everybody else 1.6 to 1.9 m
_CHILDREN = frozenset((9, 10, 11, 12, 13, 14, 48, 49))
_CLOTHES: tuple[Rgb, ...] = (
    (52, 58, 78), (140, 36, 40), (198, 190, 172), (44, 92, 74), (92, 70, 54), (214, 150, 44), (60, 60, 62),
    (112, 134, 168),
)  # fmt: skip

# blueprint, length, width, height, mass, colour
_PROPS: tuple[tuple[str, float, float, float, float, Rgb], ...] = (
    ("trafficcone01", 0.40, 0.40, 0.55, 4, _ORANGE), ("trafficcone02", 0.36, 0.36, 0.72, 5, _ORANGE),
    ("constructioncone", 0.36, 0.36, 0.64, 4, _ORANGE), ("streetbarrier", 0.38, 1.24, 1.08, 30, _ORANGE),
    ("warningconstruction", 0.60, 1.20, 1.10, 20, _YELLOW), ("warningaccident", 0.60, 1.20, 1.10, 20, _YELLOW),
    ("trafficwarning", 2.50, 2.40, 3.20, 600, _YELLOW), ("barrel", 0.58, 0.58, 0.86, 25, _ORANGE),
    ("box01", 0.66, 0.66, 0.60, 15, _TAN), ("box02", 0.60, 0.60, 0.56, 12, _TAN), ("box03", 0.72, 0.56, 0.50, 12, _TAN),
    ("creasedbox01", 0.84, 0.64, 0.45, 10, _TAN), ("container", 2.00, 4.80, 1.90, 1500, _GREEN),
    ("bin", 0.60, 0.60, 1.05, 30, _GREEN), ("trashcan01", 0.56, 0.56, 1.00, 25, _GREY),
    ("garbage01", 0.64, 0.60, 0.20, 2, _GREY), ("trashbag", 0.55, 0.55, 0.60, 8, _BLACK),
    ("bench01", 0.62, 1.52, 0.90, 60, _TAN), ("bench02", 0.60, 1.50, 0.48, 50, _TAN),
    ("busstop", 1.90, 4.20, 2.70, 900, _GREY), ("advertisement", 0.30, 1.30, 2.40, 200, _GREY),
    ("mailbox", 0.52, 0.52, 1.20, 60, _BLUE), ("vendingmachine", 0.90, 1.10, 1.90, 300, _RED),
    ("fountain", 5.20, 5.20, 2.20, 9000, _SILVER), ("plantpot01", 0.90, 0.90, 0.80, 80, _TAN),
    ("table", 1.20, 1.20, 0.76, 30, _TAN), ("chainbarrier", 0.16, 1.50, 0.90, 20, _GREY),
    ("briefcase", 0.46, 0.16, 0.34, 5, _BLACK), ("shoppingcart", 0.90, 0.56, 1.02, 20, _SILVER),
    ("dirtdebris01", 1.60, 1.40, 0.20, 50, _TAN), ("dirtdebris02", 1.20, 1.10, 0.16, 30, _TAN),
    ("ironplank", 1.60, 2.60, 0.05, 80, _GREY),
)  # fmt: skip


def _walker(number: int) -> ActorModel:
    child = number in _CHILDREN
    height_m = 1.10 + 0.05 * (number % 5) if child else 1.62 + 0.04 * (number * 7 % 7)
    across_m = 0.50 if child else 0.68  # CARLA's own boxes are 0.38 across; arms and legs need more to be hit
    color = _CLOTHES[number * 5 % len(_CLOTHES)]
    return ActorModel(f"walker.pedestrian.{number:04d}", SHAPE_WALKER, 0.38, across_m, round(height_m, 2), 0.0,
                      32.0 if child else 75.0, "pedestrian", 1 + (number > 14), 0, (color,))  # fmt: skip


def _models() -> tuple[ActorModel, ...]:
    cars = [ActorModel("vehicle." + name, shape, length, width, height, base, float(mass), kind, generation, 4, colors)
            for name, shape, length, width, height, base, mass, kind, generation, colors in _FOUR_WHEELED]  # fmt: skip
    bikes = [ActorModel("vehicle." + name, SHAPE_TWO_WHEELER, length, width, height, base, mass, kind, 1, 2, _BRIGHT)
             for name, length, width, height, base, mass, kind in _TWO_WHEELED]  # fmt: skip
    props = [ActorModel("static.prop." + name, SHAPE_BOX, length, width, height, 0.0, mass, "prop", 1, 0, (color,))
             for name, length, width, height, mass, color in _PROPS]  # fmt: skip
    model3 = ActorModel("vehicle.tesla.model3", SHAPE_SEDAN, 4.79, 2.16, 1.49, 2.88, 1850.0, "car", 1, 4,
                        (_BLUE, (180, 44, 44), (137, 0, 0), _ORANGE, (220, 220, 220), (30, 30, 32)))  # fmt: skip
    first = [model3, _walker(1)]  # rows 0 and 1 are the two that tests and examples reach for
    return (*first, *cars, *bikes, *(_walker(number) for number in range(2, 50)), *props)


MODELS: tuple[ActorModel, ...] = _models()
MODEL_INDEX: dict[str, int] = {model.blueprint: row for row, model in enumerate(MODELS)}


def model_row(name: str) -> int:
    """The row of a blueprint id in `MODELS`.

    Raises:
        KeyError: no such blueprint; the message lists the nearest.
    """
    if name in MODEL_INDEX:
        return MODEL_INDEX[name]
    import difflib

    near = difflib.get_close_matches(name, MODEL_INDEX, 3) or sorted(MODEL_INDEX)[:5]
    raise KeyError(f"no blueprint {name!r}; near: {', '.join(near)} ({len(MODELS)} in drivesim.town.catalogue)")
