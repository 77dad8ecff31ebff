"""What a photo says of itself, read from its first kilobytes before anything is decoded; no numpy, no cv2 here."""

from __future__ import annotations

import io
import math
from datetime import datetime
from typing import NoReturn

import msgspec
from PIL import Image
from PIL.ExifTags import Base
from PIL.TiffImagePlugin import TiffImageFile

from stream.errors import BadFrame
from stream.messages import PhotoFacts, Position
from stream.photo import exif
from stream.photo.magic import JPEG, Kind, describe, sniff

__all__ = ["Header", "Kind", "ground_resolution", "read_header", "sniff"]

# Only formats whose truncated files are refused at every cut (tests/unit/photo): Pillow knows others, some of which run
# programs (EPS) or fill what is missing. JPEG opens MPO too, the form in which some drones write stills.
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP")

# Pillow's own limit is a process-wide figure and warns at half of it. Ours is `max_pixels`, checked on the header.
Image.MAX_IMAGE_PIXELS = None

_FULL_FRAME_MM = 36.0
_MAX_TILT_DEG = 30.0
_REDUCED_IMAGE = 1


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """One photo's description of itself."""

    width: int
    height: int
    """In pixels, after the orientation has been applied."""
    stored_width: int
    stored_height: int
    """As the file stores it."""
    captured_at: datetime | None
    """UTC; see `exif.captured_at` for how the zone is found."""
    position: Position | None
    facts: PhotoFacts

    @property
    def orientation(self) -> int:
        """EXIF 1 to 8."""
        return self.facts.orientation


def read_header(data: bytes, *, max_pixels: int) -> Header:
    """Read size, time, place and camera; `data` may be the beginning of a longer file.

    Raises:
        BadFrame: `empty`, `video`, `not_a_photo`, `truncated` (it ends before the picture begins), `corrupt`,
            `too_large`; the message says what can be done. Nonsense in EXIF or XMP is not an error: that fact is None.
    """
    _refuse_what_is_no_photo(data)
    image = _open(data)
    try:
        stored_width, stored_height = image.size
        pixels = stored_width * stored_height
        if pixels > max_pixels:
            raise BadFrame(
                "too_large",
                f"{stored_width} x {stored_height} = {pixels / 1e6:.1f} megapixels are more than the limit of"
                f" {max_pixels / 1e6:.1f}: raise max_pixels under [worker], or cut the photo into parts",
            )
        if pixels == 0:
            raise BadFrame("corrupt", f"the header says {stored_width} x {stored_height} pixels; copy the file again")
        _refuse_raw(image, data)
        return _describe(image)
    finally:
        image.close()


def _refuse_what_is_no_photo(data: bytes) -> None:
    if not data:
        raise BadFrame("empty", "the file has no bytes: the card was full or the copy broke off; copy it again")
    kind = sniff(data)
    if kind == "video":
        raise BadFrame(
            "video",
            f"this is {describe(data)}, not a photo: cut it into stills and send those, for example"
            " ffmpeg -i VIDEO -vf fps=1 -q:v 2 still-%05d.jpg",
        )
    if kind is None:
        raise BadFrame(
            "not_a_photo",
            f"this looks like {describe(data)}; what can be read is JPEG, PNG, TIFF, WebP and BMP: export it as one",
        )


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except exif.NONSENSE as error:
        # Of a whole JPEG the scan is there, so a header that cannot be read without one was cut off.
        if len(data) < 64 or (data.startswith(JPEG) and b"\xff\xda" not in data):
            raise BadFrame(
                "truncated", f"the file ends after {len(data)} bytes, before the picture begins; copy it again"
            ) from error
        raise BadFrame(
            "corrupt", f"the photo's header cannot be read ({_short(error)}); copy the file again"
        ) from error


def _short(error: BaseException) -> str:
    """Pillow names the address of the buffer, which differs in every run and says nothing."""
    return str(error).split(" <")[0] or type(error).__name__


def _refuse_raw(image: Image.Image, data: bytes) -> None:
    """A raw file is a TIFF whose first picture is a small preview: inspecting that would call unseen concrete clean."""
    if not isinstance(image, TiffImageFile):
        return
    tags = exif.attempt(lambda: dict(image.tag_v2)) or {}
    reduced = exif.number(tags.get(Base.NewSubfileType)) or 0.0
    if Base.DNGVersion in tags or int(reduced) & _REDUCED_IMAGE or data[8:10] == b"CR":
        _raw()


def _raw() -> NoReturn:
    raise BadFrame(
        "not_a_photo",
        "this is a raw photo (DNG, CR2, NEF …), whose readable part is only a preview: set the camera to JPEG, or"
        " develop it to JPEG or TIFF first",
    )


def _describe(image: Image.Image) -> Header:
    width, height = image.size
    tags = exif.Tags(image.getexif)
    orientation = exif.orientation(tags)
    if orientation >= 5 and isinstance(image, TiffImageFile):
        width, height = height, width  # Pillow gives the size of a TIFF as it will be, not as it is stored
    drone = exif.drone_facts(image.info.get("xmp"))
    turned = (height, width) if orientation >= 5 else (width, height)
    return Header(
        width=turned[0],
        height=turned[1],
        stored_width=width,
        stored_height=height,
        captured_at=exif.captured_at(tags),
        position=exif.position(tags),
        facts=PhotoFacts(
            format="JPEG" if image.format == "MPO" else image.format,  # an MPO's first picture is a plain JPEG
            make=exif.text(tags.root.get(Base.Make)),
            model=exif.text(tags.root.get(Base.Model)),
            orientation=orientation,
            focal_length_mm=exif.positive(tags.camera.get(Base.FocalLength)),
            focal_length_35mm=exif.positive(tags.camera.get(Base.FocalLengthIn35mmFilm)),
            relative_altitude_m=drone.get("RelativeAltitude"),
            gimbal_yaw_deg=drone.get("GimbalYawDegree"),
            gimbal_pitch_deg=drone.get("GimbalPitchDegree"),
            gimbal_roll_deg=drone.get("GimbalRollDegree"),
        ),
    )


def ground_resolution(header: Header) -> float | None:
    """Millimetres of ground per pixel in the middle of the photo; None if the photo does not say enough.

        mm/px = distance * 36 mm / (focal length at 35 mm film * longer side in px),  distance = height / cos(tilt)

    It takes the longer side for the 36 mm of a full frame (makers who match the diagonal instead are 4 to 5 % off) and
    the ground for as high as the take-off point, which a bridge deck need not be. Beyond 30 degrees from straight down
    the scale changes too much within one photo to be one figure.
    """
    facts = header.facts
    height_m, pitch, focal = facts.relative_altitude_m, facts.gimbal_pitch_deg, facts.focal_length_35mm
    if height_m is None or pitch is None or focal is None or height_m <= 0:
        return None
    tilt_deg = abs(pitch + 90.0)
    if tilt_deg > _MAX_TILT_DEG:
        return None
    distance_mm = height_m * 1000.0 / math.cos(math.radians(tilt_deg))
    return distance_mm * _FULL_FRAME_MM / (focal * max(header.stored_width, header.stored_height))
