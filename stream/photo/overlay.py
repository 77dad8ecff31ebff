"""A photo with its findings drawn on it, small enough for a report: outlines, what they are, how sure."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from stream.messages import Region

# Apart for colour-blind eyes as well, and all of them away from the greys and browns of concrete.
COLOURS: dict[str, tuple[int, int, int]] = {
    "crack": (230, 40, 30),
    "spalling": (0, 114, 220),
    "exposed_rebar": (200, 40, 180),
    "corrosion_stain": (255, 150, 0),
    "efflorescence": (70, 200, 240),
    "algae": (0, 170, 100),
}
_SPARE = ((240, 228, 66), (120, 94, 240), (0, 220, 170), (255, 105, 140))
_FILL_ALPHA = 56
_PANEL = (16, 20, 24, 190)
_WHITE, _BLACK = (255, 255, 255, 255), (0, 0, 0, 255)
_QUALITY = 88

Colour = tuple[int, int, int]
Outline = list[tuple[int, int]]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw(image: NDArray[np.uint8], regions: Sequence[Region], title: Sequence[str], max_side_px: int = 2000) -> bytes:
    """Draw regions, a title and a legend on a photo; a JPEG of the whole frame, scaled down to `max_side_px`.

    Args:
        image: uint8 RGB [height, width, 3]; it is left as it is.
        regions: polygons in pixels of `image`; the surest are drawn last, on top.
        title: lines for the upper left corner; may be empty.
    """
    picture = _scaled(image, max_side_px)
    pen = ImageDraw.Draw(picture, "RGBA")  # on an RGB picture this mode blends, so regions shine through each other
    font = ImageFont.load_default(size=max(11, round(max(picture.size) / 75)))
    width = max(2, round(max(picture.size) / 650))
    ordered = sorted(regions, key=lambda region: (region.score, region.cell))
    scale = np.array(picture.size) / image.shape[1::-1]
    outlines = [[(round(x * scale[0]), round(y * scale[1])) for x, y in region.polygon] for region in ordered]
    for region, outline in zip(ordered, outlines, strict=True):
        pen.polygon(outline, fill=(*colour(region.defect), _FILL_ALPHA))
    # Panels over fills, outlines over panels, labels over all: nothing is hidden altogether.
    _panel(pen, [(line, None) for line in title], font, _Corner(outlines, top=True))
    _panel(pen, _legend(ordered), font, _Corner(outlines, top=False))
    for region, outline in zip(ordered, outlines, strict=True):
        pen.line([*outline, *outline[:2]], fill=(*colour(region.defect), 255), width=width, joint="curve")
    for region, outline in zip(ordered, outlines, strict=True):
        _label(pen, f"{spoken(region.defect)} {_shown(region.score)}", outline, colour(region.defect), font)
    return _jpeg(picture)


def thumbnail(image: NDArray[np.uint8], max_side_px: int = 320) -> bytes:
    """A small JPEG of a photo, uint8 RGB [height, width, 3]."""
    return _jpeg(_scaled(image, max_side_px))


def colour(defect: str) -> Colour:
    """The defect's colour; a class of another taxonomy gets one of a few spare ones, always the same."""
    return COLOURS.get(defect) or _SPARE[zlib.crc32(defect.encode()) % len(_SPARE)]


def spoken(defect: str) -> str:
    """`exposed_rebar` as people say it."""
    return defect.replace("_", " ").capitalize()


def _shown(score: float) -> str:
    return f"{min(score, 0.99):.2f}"  # a score of 1.00 would read as certainty


def _scaled(image: NDArray[np.uint8], max_side_px: int) -> Image.Image:
    height, width = image.shape[:2]
    factor = min(1.0, max_side_px / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if factor < 1.0 else image.copy()
    return Image.fromarray(np.asarray(small, dtype=np.uint8))


def _label(pen: ImageDraw.ImageDraw, text: str, outline: Outline, back: Colour, font: Font) -> None:
    """Above the region's upper left corner, or inside it where the picture ends; never beyond the border."""
    wide, high, pad = _size(pen, text, font)
    limit = pen.im.size
    x = min(max(min(x for x, _ in outline), 0), max(limit[0] - wide, 0))
    y = min(y for _, y in outline)
    y = y - high if y >= high else min(max(y, 0), max(limit[1] - high, 0))
    pen.rectangle((x, y, x + wide, y + high), fill=(*back, 235))
    ink = (
        _WHITE
        if sum(weight * part for weight, part in zip((299, 587, 114), back, strict=True)) < 140_000
        else (0, 0, 0, 255)
    )
    pen.text((x + pad, y + pad // 2), text, font=font, fill=ink)


def _size(pen: ImageDraw.ImageDraw, text: str, font: Font) -> tuple[int, int, int]:
    """Width and height of a line with its margin, and the margin."""
    ascent = pen.textbbox((0, 0), "Ág", font=font)[3]
    pad = max(3, round(ascent / 3))
    return round(pen.textlength(text, font=font)) + 2 * pad, round(ascent) + pad, pad


def _legend(regions: Sequence[Region]) -> list[tuple[str, Colour | None]]:
    lines: list[tuple[str, Colour | None]] = []
    for defect in sorted({region.defect for region in regions}):
        scores = [region.score for region in regions if region.defect == defect]
        count = f"{len(scores)} region{'s' if len(scores) != 1 else ''}"
        lines.append((f"{spoken(defect)}: {count}, up to {_shown(max(scores))}", colour(defect)))
    return lines


@dataclass(frozen=True)
class _Corner:
    """Where a panel goes: at the top or the bottom, to the left, the right or the middle, where it hides least."""

    outlines: Sequence[Outline]
    top: bool

    def place(self, picture: tuple[int, int], wide: int, high: int) -> tuple[int, int]:
        y = 0 if self.top else picture[1] - high
        free = max(picture[0] - wide, 0)
        x = min((0, free, free // 2), key=lambda x: sum(_shared(one, (x, y, wide, high)) for one in self.outlines))
        return x, y


def _shared(outline: Outline, box: tuple[int, int, int, int]) -> int:
    """Pixels that the outline's bounding box has in common with a box of x, y, width and height."""
    x, y, wide, high = box
    xs, ys = [corner[0] for corner in outline], [corner[1] for corner in outline]
    across = min(max(xs), x + wide) - max(min(xs), x)
    down = min(max(ys), y + high) - max(min(ys), y)
    return max(across, 0) * max(down, 0)


def _panel(pen: ImageDraw.ImageDraw, lines: Sequence[tuple[str, Colour | None]], font: Font, corner: _Corner) -> None:
    """A dark box, one line of text each; a line with a colour gets a swatch before it."""
    if not lines:
        return
    sizes = [_size(pen, text, font) for text, _ in lines]
    line_high, pad = sizes[0][1], sizes[0][2]
    swatch = line_high if any(mark for _, mark in lines) else 0
    wide, high = max(size[0] for size in sizes) + swatch, line_high * len(lines) + pad
    x, y = corner.place(pen.im.size, wide, high)
    pen.rectangle((x, y, x + wide, y + high), fill=_PANEL)
    for text, mark in lines:
        if mark:
            pen.rectangle((x + pad, y + pad, x + line_high - pad // 2, y + line_high - pad // 2), fill=(*mark, 255))
        pen.text((x + swatch + pad, y + pad), text, font=font, fill=_WHITE)
        y += line_high


def _jpeg(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=_QUALITY, optimize=True)
    return out.getvalue()
