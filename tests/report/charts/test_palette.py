from __future__ import annotations

import itertools

import pytest

from tuner.report.charts.palette import HUES, PAPER, Palette, define_symbols

Triple = tuple[float, float, float]

# How people with each kind of colour blindness see red, green and blue (Machado, Oliveira and
# Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency", 2009).
SIGHT = {
    "usual": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "without red": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "without green": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "without blue": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}


def light(colour: str) -> list[float]:
    """Returns the light of a colour in red, green and blue, from 0 to 1."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]


def contrast(one: str, other: str) -> float:
    """Returns the contrast of two colours as the WCAG has it, from 1 to 21."""
    dark, bright = sorted(
        0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in (light(one), light(other))
    )
    return (bright + 0.05) / (dark + 0.05)


def lab(colour: str, sight: str) -> Triple:
    """Returns a colour in CIELAB, as it is seen."""
    seen = [
        max(0.0, sum(f * part for f, part in zip(row, light(colour), strict=True)))
        for row in SIGHT[sight]
    ]
    r, g, b = seen
    xyz = (
        (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505,
        0.2126 * r + 0.7152 * g + 0.0722 * b,
        (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089,
    )
    x, y, z = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_every_hue_stands_out_from_the_paper(theme: int) -> None:
    for hue in HUES:
        assert contrast(hue[theme], PAPER[theme]) >= 3


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_any_two_hues_differ_for_everybody(theme: int, sight: str) -> None:
    for one, other in itertools.combinations([hue[theme] for hue in HUES], 2):
        pairs = zip(lab(one, sight), lab(other, sight), strict=True)
        assert sum((a - b) ** 2 for a, b in pairs) ** 0.5 > 20


def test_an_optimizer_s_colour_and_shape_are_its_own() -> None:
    names = tuple(f"optimizer {number}" for number in range(56))
    palette = Palette(names)
    assert len({(palette.kind(name), palette.symbol(name)) for name in names}) == len(names)
    assert len({palette.symbol(name) for name in names[: len(HUES)]}) == len(HUES)


def test_every_shape_of_the_palette_is_defined() -> None:
    defined = str(define_symbols())
    palette = Palette(tuple(map(str, range(30))))
    assert all(f'id="s-{palette.symbol(name)}"' in defined for name in palette.optimizers)
