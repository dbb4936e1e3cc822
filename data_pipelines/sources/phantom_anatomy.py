"""Procedural anatomy of a trunk: a patient drawn at random, painted onto any grid as organ labels.

Coordinates are millimetres, x to the patient's left, y to posterior, z to superior, the origin in mid-body at the
diaphragm. Two primitives make everything: an ellipsoid, tilted in the frontal plane, and a tube along z whose centre
and radii follow z. Later paint covers earlier, so the order below is anatomy: a lung ends where the liver begins.

One realistic level of difficulty, and prevalences near one half so that guessing the commonest answer does not win:
they are not those of any population.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

_NAMES = (
    "body fat ribs lung_left lung_right mediastinum trachea heart aorta liver spleen stomach gas kidney_left "
    "kidney_right discs lung_mass pleural_effusion liver_cyst_1 liver_cyst_2 liver_cyst_3 focal_uptake"
)
LABELS = {name: number for number, name in enumerate(_NAMES.split(), start=1)}
VERTEBRAE = tuple([f"vertebrae_T{n}" for n in range(4, 13)] + [f"vertebrae_L{n}" for n in range(1, 6)])
LABELS |= {name: 40 + i for i, name in enumerate(VERTEBRAE)}
PLACES = ("chest_left", "chest_right", "abdomen_left", "abdomen_right")
_SIDE = {"left": 1.0, "right": -1.0}


@dataclasses.dataclass(frozen=True)
class Patient:
    """What makes one patient different. mirrored: situs inversus. effusion, mass, scoliosis: "no", "left" or "right".
    curve_mm: sideways shift of the spine at its apex. cysts, focus: (x, y, z, radius)."""

    scale: float
    width: float
    mirrored: bool
    enlarged: bool
    heart_mm: float
    liver_scale: float
    effusion: str
    effusion_top_mm: float
    mass: str
    mass_xyzr: tuple[float, float, float, float]
    scoliosis: str
    curve_mm: float
    curve_z_mm: float
    kidney_scale: tuple[float, float]
    section_x_mm: float
    cysts: tuple[tuple[float, float, float, float], ...]
    place: str
    focus: tuple[float, float, float, float]

    @property
    def flip(self) -> float:
        """1, or -1 where the organs are mirrored: the sign of the side on which the heart's apex lies."""
        return -1.0 if self.mirrored else 1.0

    def spine_x(self, z: np.ndarray | float) -> np.ndarray:
        """x of the spine at height z."""
        return self.curve_mm * np.exp(-(((np.asarray(z, np.float32) - self.curve_z_mm) / 95.0) ** 2))

    def vertebra_z(self, name: str) -> float:
        """Height of a vertebra's centre."""
        return (195.0 - 29.0 * VERTEBRAE.index(name)) * self.scale

    def heart_axis(self) -> tuple[tuple[float, float, float], tuple[float, float, float], float]:
        """Centre, radii and tilt of the heart; the long axis runs down to the apex."""
        long, short = self.heart_mm, self.heart_mm * 0.74
        return (
            (self.flip * (6.0 + 0.33 * long), -28.0, 28.0 + 0.42 * long),
            (long, short, short * 1.02),
            self.flip * 0.62,
        )

    def heart_apex(self) -> tuple[float, float, float]:
        (x, y, z), (long, _, _), tilt = self.heart_axis()
        return x + self.flip * long * float(np.cos(tilt)), y, z - long * float(np.sin(abs(tilt)))

    def carina(self) -> tuple[float, float, float]:
        return 0.0, 12.0, 128.0 * self.scale


def draw_patient(rng: np.random.Generator) -> Patient:
    """One patient. Every finding is independent of every other."""
    scale, mirrored = float(rng.uniform(0.9, 1.1)), bool(rng.random() < 0.45)
    flip = -1.0 if mirrored else 1.0
    enlarged = bool(rng.random() < 0.5)
    mass, scoliosis, effusion = (str(rng.choice(["no", "left", "right"], p=[0.44, 0.28, 0.28])) for _ in range(3))
    side = _SIDE.get(mass, 1.0)
    place = str(rng.choice(PLACES))
    section = -flip * 62.0 * scale
    return Patient(
        scale=scale,
        width=float(rng.uniform(0.92, 1.1)),
        mirrored=mirrored,
        enlarged=enlarged,
        heart_mm=float(rng.uniform(78, 90) if enlarged else rng.uniform(54, 65)),
        liver_scale=float(rng.uniform(0.88, 1.14)),
        effusion=effusion,
        effusion_top_mm=float(rng.uniform(45, 90)),
        mass=mass,
        mass_xyzr=(
            side * rng.uniform(68, 92),
            rng.uniform(-30, 35),
            rng.uniform(105, 165) * scale,
            rng.uniform(17, 27),
        ),
        scoliosis=scoliosis,
        curve_mm=_SIDE.get(scoliosis, 0.0) * float(rng.uniform(30, 44)),
        curve_z_mm=float(rng.uniform(-20, 90)),
        kidney_scale=(float(rng.uniform(0.75, 1.2)), float(rng.uniform(0.75, 1.2))),
        section_x_mm=section,
        cysts=_draw_cysts(rng, section, int(rng.integers(4)), scale),
        place=place,
        focus=_draw_focus(rng, place, scale),
    )


def _draw_cysts(
    rng: np.random.Generator, section_x: float, count: int, scale: float
) -> tuple[tuple[float, float, float, float], ...]:
    """Cysts that the ultrasound section cuts near their middle, apart from each other."""
    cysts: list[tuple[float, float, float, float]] = []
    while len(cysts) < count:
        y, z, r = rng.uniform(-52, 25), rng.uniform(-72, -22) * scale, rng.uniform(11, 17)
        if all(np.hypot(y - b, z - c) > r + d + 5 for _, b, c, d in cysts):
            cysts.append((section_x + float(rng.uniform(-3, 3)), float(y), float(z), float(r)))
    return tuple(cysts)


def _draw_focus(rng: np.random.Generator, place: str, scale: float) -> tuple[float, float, float, float]:
    region, side = place.split("_")
    low, high = (65.0, 150.0) if region == "chest" else (-135.0, -45.0)
    x = _SIDE[side] * rng.uniform(40, 95)
    return float(x), float(rng.uniform(-35, 30)), float(rng.uniform(low, high) * scale), float(rng.uniform(13, 19))


@dataclasses.dataclass(frozen=True)
class Grid:
    """Sample points: first_mm is the centre of the first voxel, step_mm the distance between centres, all (x, y, z)."""

    first_mm: tuple[float, float, float]
    step_mm: tuple[float, float, float]
    size: tuple[int, int, int]

    @classmethod
    def around(
        cls, centre_mm: tuple[float, float, float], step_mm: tuple[float, float, float], size: tuple[int, int, int]
    ) -> "Grid":
        first = (c - s * (n - 1) / 2 for c, s, n in zip(centre_mm, step_mm, size, strict=True))
        return cls(tuple(first), step_mm, size)  # type: ignore[arg-type]

    def axis(self, i: int) -> np.ndarray:
        return (self.first_mm[i] + self.step_mm[i] * np.arange(self.size[i])).astype(np.float32)

    def to_voxel(self, point_mm: tuple[float, float, float]) -> tuple[float, float, float]:
        """Coordinates that count from the edge of the first voxel."""
        x, y, z = ((p - f) / s + 0.5 for p, f, s in zip(point_mm, self.first_mm, self.step_mm, strict=True))
        return x, y, z

    def affine_lps(self) -> np.ndarray:
        affine = np.diag([*self.step_mm, 1.0])
        affine[:3, 3] = self.first_mm
        return affine


class Painter:
    """Label volume (Z, Y, X) of a grid; each call paints one shape, over everything or only over given labels."""

    def __init__(self, grid: Grid) -> None:
        self.x, self.y, self.z = (grid.axis(i) for i in range(3))
        self.labels = np.zeros((len(self.z), len(self.y), len(self.x)), np.uint8)

    def ellipsoid(self, name: str, centre, radii, tilt: float = 0.0, over: tuple[str, ...] = ()) -> None:
        """tilt: radians by which the long x axis turns down towards the patient's left."""
        (cx, cy, cz), (a, b, c) = centre, radii
        cos, sin = float(np.cos(tilt)), float(np.sin(tilt))
        reach_x, reach_z = float(np.hypot(a * cos, c * sin)), float(np.hypot(a * sin, c * cos))
        sx, sy, sz = _within(self.x, cx, reach_x), _within(self.y, cy, b), _within(self.z, cz, reach_z)
        dx, dz = self.x[None, sx] - cx, self.z[sz, None] - cz
        frontal = ((dx * cos - dz * sin) / a) ** 2 + ((dx * sin + dz * cos) / c) ** 2
        self._fill(name, (sz, sy, sx), frontal[:, None] + (((self.y[sy] - cy) / b) ** 2)[None, :, None] < 1, over)

    def tube(
        self,
        name: str,
        low: float,
        high: float,
        centre: Callable[[np.ndarray], tuple],
        radii: Callable[[np.ndarray], tuple],
        over: tuple[str, ...] = (),
        ring: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None,
    ) -> None:
        """Between z = low and high, inside the ellipse with `centre(z)` and `radii(z)` in x and y; ring(q, y, z) may
        choose from the squared elliptic radius instead."""
        sz = slice(*np.searchsorted(self.z, [low, high]))
        z = self.z[sz]
        if not len(z):
            return
        (cx, cy), (a, b) = centre(z), radii(z)
        ones = np.ones_like(z)
        reach = (float(np.max(np.abs(ones * cx) + a)) if ring is None else np.inf, float(np.max(np.abs(ones * cy) + b)))
        sx = _within(self.x, 0.0, reach[0])
        sy = _within(self.y, 0.0, reach[1])
        across = ((self.x[None, sx] - (ones * cx)[:, None]) / (ones * a)[:, None]) ** 2
        along = ((self.y[None, sy] - (ones * cy)[:, None]) / (ones * b)[:, None]) ** 2
        q = across[:, None, :] + along[:, :, None]
        inside = q < 1 if ring is None else ring(q, self.y[None, sy, None], z[:, None, None])
        self._fill(name, (sz, sy, sx), inside, over)

    def _fill(self, name: str, where: tuple[slice, slice, slice], inside: np.ndarray, over: tuple[str, ...]) -> None:
        target = self.labels[where]
        if over:
            inside = inside & np.isin(target, [LABELS[o] for o in over])
        target[inside] = LABELS[name]


def _within(axis: np.ndarray, centre: float, reach: float) -> slice:
    return slice(*np.searchsorted(axis, [centre - reach, centre + reach]))


def paint(patient: Patient, grid: Grid) -> np.ndarray:
    """uint8 labels (Z, Y, X) of the patient's anatomy, see LABELS; 0 is air."""
    painter = Painter(grid)
    _paint_trunk(painter, patient)
    _paint_chest(painter, patient)
    _paint_abdomen(painter, patient)
    _paint_spine(painter, patient)
    _paint_lesions(painter, patient)
    return painter.labels


def _paint_trunk(painter: Painter, p: Patient) -> None:
    s, w = p.scale, p.width

    def girth(z: np.ndarray) -> np.ndarray:  # shoulders slope into the neck
        return 1.0 - 0.62 / (1.0 + np.exp(-(z - 248.0 * s) / 9.0))

    def middle(z: np.ndarray) -> tuple:
        return np.zeros_like(z), np.zeros_like(z)

    def cage(z: np.ndarray) -> np.ndarray:
        return np.sqrt(np.clip(1.0 - (np.clip(z / s, 0, 239) / 240.0) ** 3, 0.02, 1))

    painter.tube("fat", -420, 420, middle, lambda z: (168 * s * w * girth(z), 112 * s * girth(z)))
    painter.tube("body", -420, 420, middle, lambda z: (155 * s * w * girth(z), 100 * s * girth(z)))
    painter.tube(
        "ribs",
        -70 * s,
        225 * s,
        middle,
        lambda z: (142 * s * cage(z), 92 * s * cage(z)),
        ring=lambda q, y, z: (np.abs(q - 1) < 0.07) & (np.cos((z - 0.45 * y) * (2 * np.pi / (27.0 * s))) > 0.45),
    )


def _paint_chest(painter: Painter, p: Patient) -> None:
    s, mirror = p.scale, p.flip

    def taper(z: np.ndarray) -> np.ndarray:
        return np.sqrt(np.clip(1.0 - (np.clip(z / s + 35.0, 0, 249) / 250.0) ** 2.6, 0.01, 1))

    for side, sign in _SIDE.items():
        painter.tube(
            f"lung_{side}",
            -35 * s,
            214 * s,
            lambda z, sign=sign: (sign * 66 * s * np.ones_like(z), 2 * np.ones_like(z)),
            lambda z: (63 * s * taper(z), 80 * s * taper(z)),
        )
    upright = lambda x, y: lambda z: (x * np.ones_like(z), y * np.ones_like(z))  # noqa: E731
    column = lambda a, b: lambda z: (a * np.ones_like(z), b * np.ones_like(z))  # noqa: E731
    painter.tube("mediastinum", 0, 240 * s, upright(0, 5), column(23 * s, 62 * s))
    painter.tube("trachea", p.carina()[2], 300 * s, upright(0, 12), column(10, 10))
    painter.ellipsoid("heart", *p.heart_axis())
    painter.tube("aorta", -230 * s, 150 * s, upright(mirror * 24, 42), column(13, 13))


def _paint_abdomen(painter: Painter, p: Patient) -> None:
    s, flip, big = p.scale, p.flip, p.liver_scale * p.scale
    painter.ellipsoid("stomach", (flip * 62 * s, -25, -36 * s), (44 * s, 46 * s, 44 * s))
    painter.ellipsoid("gas", (flip * 62 * s, -42, -18 * s), (30 * s, 24 * s, 18 * s))
    painter.ellipsoid("spleen", (flip * 92 * s, 38, -48 * s), (32 * s, 44 * s, 44 * s))
    painter.ellipsoid("liver", (-flip * 8 * s, -42, -30 * s), (62 * big, 36 * big, 34 * big))
    painter.ellipsoid("liver", (-flip * 62 * s, -6, -48 * s), (74 * big, 80 * big, 66 * big))
    for (side, sign), size in zip(_SIDE.items(), p.kidney_scale, strict=True):
        painter.ellipsoid(
            f"kidney_{side}", (sign * 62 * s, 48, -112 * s), (26 * size * s, 24 * size * s, 46 * size * s)
        )


def _paint_spine(painter: Painter, p: Patient) -> None:
    s = p.scale

    def centre(z: np.ndarray) -> tuple:
        return p.spine_x(z), 68.0 * np.ones_like(z)

    painter.tube("discs", -300, 300, centre, lambda z: (19 * s * np.ones_like(z), 18 * s * np.ones_like(z)))
    for name in VERTEBRAE:
        z = p.vertebra_z(name)
        reach = lambda h: (21 * s * np.ones_like(h), 20 * s * np.ones_like(h))  # noqa: E731
        painter.tube(name, z - 11.5 * s, z + 11.5 * s, centre, reach)


def _paint_lesions(painter: Painter, p: Patient) -> None:
    if p.effusion != "no":
        lung = f"lung_{p.effusion}"
        everywhere = lambda z: (np.zeros_like(z), np.zeros_like(z))  # noqa: E731
        wide = lambda z: (400 * np.ones_like(z), 400 * np.ones_like(z))  # noqa: E731
        painter.tube("pleural_effusion", -60, p.effusion_top_mm, everywhere, wide, over=(lung,))
    if p.mass != "no":
        *centre, radius = p.mass_xyzr
        painter.ellipsoid("lung_mass", centre, (radius,) * 3, over=(f"lung_{p.mass}",))
    for i, (*centre, radius) in enumerate(p.cysts):
        painter.ellipsoid(f"liver_cyst_{i + 1}", centre, (radius,) * 3, over=("liver",))
