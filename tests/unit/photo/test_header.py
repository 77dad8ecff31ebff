"""What a photo says of itself: real drone frames, nonsense, and files that are no photos."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base
from PIL.TiffImagePlugin import IFDRational

from stream.errors import BadFrame
from stream.messages import Position
from stream.photo.header import Header, ground_resolution, read_header, sniff
from tests import badphotos

FLIGHT = Path(__file__).parents[2] / "data" / "flight"
MANY = 10**9
DJI = (FLIGHT / "DJI_0025.JPG").read_bytes()
NS = "http://www.dji.com/drone-dji/1.0/"


def read(data: bytes) -> Header:
    return read_header(data, max_pixels=MANY)


def with_exif(camera: dict[int, Any] | None = None, gps: dict[int, Any] | None = None, **root: Any) -> bytes:
    exif = Image.Exif()
    for name, value in root.items():
        exif[Base[name]] = value
    exif.get_ifd(IFD.Exif).update(camera or {})
    exif.get_ifd(IFD.GPSInfo).update(gps or {})
    return badphotos.encoded(Image.new("RGB", (8, 6)), exif=exif)


def with_xmp(packet: str) -> bytes:
    return badphotos.encoded(Image.new("RGB", (8, 6)), xmp=packet.encode())


def xmp(attributes: str = "", inside: str = "", before: str = "") -> str:
    return (
        f'{before}<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description xmlns:d="{NS}" {attributes}>{inside}</rdf:Description></rdf:RDF></x:xmpmeta>'
    )


def gps(**changes: Any) -> dict[int, Any]:
    tags: dict[int, Any] = {
        GPS.GPSLatitudeRef: "S",
        GPS.GPSLatitude: (33.0, 51.0, 30.0),
        GPS.GPSLongitudeRef: "E",
        GPS.GPSLongitude: (151.0, 12.0, 36.0),
        GPS.GPSAltitudeRef: b"\x01",
        GPS.GPSAltitude: 12.5,
    }
    return tags | {GPS[name]: value for name, value in changes.items()}


def test_reads_a_real_dji_frame() -> None:
    header = read(DJI)
    assert (header.width, header.height, header.orientation) == (4000, 2250, 1)
    assert header.captured_at == datetime(2016, 6, 23, 16, 32, 50, tzinfo=UTC)
    assert header.position is not None
    assert header.position.latitude_deg == pytest.approx(46.842774, abs=1e-6)
    assert header.position.longitude_deg == pytest.approx(-91.993826, abs=1e-6)
    assert header.position.altitude_m == pytest.approx(198.509)
    facts = header.facts
    assert (facts.format, facts.make, facts.model) == ("JPEG", "DJI", "FC300S")
    assert (facts.focal_length_mm, facts.focal_length_35mm, facts.relative_altitude_m) == (3.61, 20.0, 40.0)
    assert (facts.gimbal_yaw_deg, facts.gimbal_pitch_deg, facts.gimbal_roll_deg) == (-132.0, -89.9, 0.0)


def test_reads_the_zone_of_the_camera_clock_from_the_gps_time() -> None:
    header = read((FLIGHT / "IMG_9391.jpg").read_bytes())  # its clock says 13:22:09, five hours behind its GPS time
    assert header.captured_at == datetime(2014, 10, 19, 18, 22, 9, tzinfo=UTC)


def test_reads_the_same_from_the_beginning_of_the_file() -> None:
    assert read(DJI[: 512 * 1024]) == read(DJI)


def test_a_photo_put_together_by_us_says_so() -> None:
    with Image.open(FLIGHT / "deck-7036.jpg") as image:
        assert "put together" in image.getexif()[Base.ImageDescription]


def test_a_header_is_a_value() -> None:
    header = read(DJI)
    with pytest.raises(AttributeError):
        header.width = 1  # type: ignore[misc]


ORIGINAL = Base.DateTimeOriginal
NOON = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("camera", "place", "expected"),
    [
        ({}, {}, None),
        ({ORIGINAL: "2026:05:01 12:00:00"}, {}, NOON),
        ({ORIGINAL: "2026:05:01 14:00:00", Base.OffsetTimeOriginal: "+02:00"}, {}, NOON),
        ({ORIGINAL: "2026:05:01 12:00:00", Base.SubsecTimeOriginal: "25"}, {}, NOON.replace(microsecond=250_000)),
        ({ORIGINAL: "2026:05:01 12:00:00", Base.OffsetTimeOriginal: "local"}, {}, NOON),
        ({}, {"GPSDateStamp": "2026:05:01", "GPSTimeStamp": (12.0, 0.0, 0.0)}, NOON),
        # 5:30 ahead and four seconds fast: the camera's own seconds are kept, they order the flight
        (
            {ORIGINAL: "2026:05:01 17:30:04"},
            {"GPSDateStamp": "2026:05:01", "GPSTimeStamp": (12.0, 0.0, 0.0)},
            NOON.replace(second=4),
        ),
        # a clock that was never set
        ({ORIGINAL: "1970:01:01 00:00:00"}, {"GPSDateStamp": "2026:05:01", "GPSTimeStamp": (12.0, 0.0, 0.0)}, NOON),
        ({ORIGINAL: "0000:00:00 00:00:00"}, {}, None),
        ({ORIGINAL: "    :  :     :  :  "}, {}, None),
        ({ORIGINAL: "9999:99:99 99:99:99"}, {}, None),
        ({ORIGINAL: "0001:01:01 00:00:00", Base.OffsetTimeOriginal: "+14:00"}, {}, None),
        ({ORIGINAL: "2026:05:01 12:00:00"}, {"GPSDateStamp": "0000:00:00", "GPSTimeStamp": (0.0, 0.0, 0.0)}, NOON),
        ({ORIGINAL: "2026:05:01 12:00:00"}, {"GPSDateStamp": "2026:05:01", "GPSTimeStamp": (99.0, 0.0, 0.0)}, NOON),
    ],
)
def test_reads_when_the_shutter_opened(
    camera: dict[int, Any], place: dict[str, Any], expected: datetime | None
) -> None:
    assert read(with_exif(camera, gps(**place))).captured_at == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Position(latitude_deg=-33.858333333333334, longitude_deg=151.21, altitude_m=-12.5)),
        (
            {"GPSAltitudeRef": b"\x00"},
            Position(latitude_deg=-33.858333333333334, longitude_deg=151.21, altitude_m=12.5),
        ),
        ({"GPSAltitude": IFDRational(1, 0)}, Position(latitude_deg=-33.858333333333334, longitude_deg=151.21)),
        ({"GPSLatitude": (IFDRational(0, 0), 0.0, 0.0)}, None),
        ({"GPSLatitude": (91.0, 0.0, 0.0)}, None),
        ({"GPSLongitude": (181.0, 0.0, 0.0)}, None),
        ({"GPSLatitudeRef": "Q"}, None),
        ({"GPSLatitude": (33.0, 51.0)}, None),
        ({"GPSLatitude": (0.0, 0.0, 0.0), "GPSLongitude": (0.0, 0.0, 0.0)}, None),
        ({"GPSStatus": "V"}, None),
    ],
)
def test_reads_where_the_camera_was(changes: dict[str, Any], expected: Position | None) -> None:
    found = read(with_exif(gps=gps(**changes))).position
    if expected is None or found is None:
        assert found is expected
    else:
        assert found.latitude_deg == pytest.approx(expected.latitude_deg)
        assert found.longitude_deg == pytest.approx(expected.longitude_deg)
        assert found.altitude_m == expected.altitude_m


def test_nonsense_in_exif_is_no_fact_and_no_error() -> None:
    facts = read(
        with_exif(
            {Base.FocalLength: IFDRational(0, 0), Base.FocalLengthIn35mmFilm: 0},
            Orientation=99,
            Make="\0\0",
            Model="\x07",
        )
    ).facts
    assert (facts.orientation, facts.make, facts.model) == (1, None, None)
    assert (facts.focal_length_mm, facts.focal_length_35mm) == (None, None)


@pytest.mark.parametrize(
    "packet",
    [
        xmp('d:RelativeAltitude="+12.50" d:GimbalPitchDegree="-88.0"'),
        xmp(inside="<d:RelativeAltitude>+12.50</d:RelativeAltitude><d:GimbalPitchDegree>-88.0</d:GimbalPitchDegree>"),
        xmp('d:RelativeAltitude="+12.50"', "<d:GimbalPitchDegree>-88.0</d:GimbalPitchDegree>") + "\n  \0",
    ],
)
def test_reads_both_forms_of_dji_xmp(packet: str) -> None:
    facts = read(with_xmp(packet)).facts
    assert (facts.relative_altitude_m, facts.gimbal_pitch_deg, facts.gimbal_yaw_deg) == (12.5, -88.0, None)


BOMB = '<!DOCTYPE x [<!ENTITY a "1"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    "packet",
    [
        "",
        "<x:xmpmeta",
        xmp('d:RelativeAltitude="high"'),
        xmp('d:RelativeAltitude="nan"'),
        xmp('e:RelativeAltitude="1"'),
        xmp(inside="<d:RelativeAltitude>&b;</d:RelativeAltitude>", before=BOMB),
        xmp('d:RelativeAltitude="5"', before=BOMB),
        '<?xml version="1.0" encoding="no-such"?>' + xmp('d:RelativeAltitude="5"'),
    ],
)
def test_broken_or_hostile_xmp_leaves_the_facts_empty(packet: str) -> None:
    assert read(with_xmp(packet)).facts.relative_altitude_m is None


EXIF_END = DJI.index(b"\xff\xdb")


@pytest.mark.filterwarnings("ignore:::PIL")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(4, 4000), st.integers(0, 255)), min_size=1, max_size=12))
def test_no_damage_in_the_labels_of_a_photo_raises_anything_but_bad_frame(changes: list[tuple[int, int]]) -> None:
    data = bytearray(DJI[: EXIF_END + 30_000])
    for place, value in changes:
        data[place] = value
    try:
        header = read(bytes(data))
    except BadFrame as error:
        assert error.reason in ("truncated", "corrupt", "not_a_photo")
    else:
        assert 1 <= header.orientation <= 8
        assert msgspec.json.decode(msgspec.json.encode(header), type=Header) == header


@pytest.mark.parametrize(
    ("data", "reason", "says"),
    [
        (badphotos.empty(), "empty", "copy it again"),
        (badphotos.text(), "not_a_photo", "Flight log"),
        (b"%PDF-1.7 \x00\x01", "not_a_photo", "PDF"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "not_a_photo", "HEIC"),
        (bytes(range(256)), "not_a_photo", "unknown kind"),
        (badphotos.raw_dng(), "not_a_photo", "raw"),
        (badphotos.video(), "video", "ffmpeg -i"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "video", "AVI"),
        (b"\x1a\x45\xdf\xa3" + bytes(40), "video", "Matroska"),
        (b"\x00\x00\x00\x14ftypqt  \x00\x00\x00\x00", "video", "MOV"),
        (badphotos.jpeg()[:40], "truncated", "40 bytes"),
        (badphotos.jpeg()[:200], "truncated", "copy it again"),
        (badphotos.png()[:20], "truncated", "copy it again"),
        (badphotos.giant_png(), "too_large", "900.0 megapixels"),
        (badphotos.giant_jpeg(), "too_large", "100.0"),
        (badphotos.jpeg(20, 10)[:2] + bytes(600) + badphotos.SCAN, "not_a_photo", "unknown"),
    ],
)
def test_says_what_is_wrong_and_what_can_be_done(data: bytes, reason: str, says: str) -> None:
    with pytest.raises(BadFrame) as caught:
        read_header(data, max_pixels=100_000_000)
    assert caught.value.reason == reason
    assert says in str(caught.value)


def test_the_limit_on_pixels_is_ours_and_not_the_decoders() -> None:
    assert read(badphotos.giant_png()).width == 30_000
    edge = badphotos.jpeg(40, 30)
    assert read_header(edge, max_pixels=1200).width == 40
    with pytest.raises(BadFrame, match="40 x 30"):
        read_header(edge, max_pixels=1199)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_width_and_height_are_those_of_the_upright_photo(orientation: int) -> None:
    for data in (
        badphotos.rotated_jpeg(orientation, 40, 30),
        badphotos.encoded(Image.new("RGB", (40, 30)), "TIFF", tiffinfo={Base.Orientation: orientation}),
    ):
        header = read(data)
        assert header.orientation == orientation
        assert (header.stored_width, header.stored_height) == (40, 30)
        assert (header.width, header.height) == ((30, 40) if orientation >= 5 else (40, 30))


def test_ground_resolution_of_a_real_frame() -> None:
    # 40 m up, 20 mm lens, 4000 px for 36 mm: 40 000 * 36 / (20 * 4000)
    assert ground_resolution(read(DJI)) == pytest.approx(18.0, rel=1e-4)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"gimbal_pitch_deg": -60.0}, 18.0 / 0.8660254),
        ({"gimbal_pitch_deg": -59.9}, None),
        ({"gimbal_pitch_deg": 0.0}, None),
        ({"gimbal_pitch_deg": None}, None),
        ({"relative_altitude_m": 0.0}, None),
        ({"relative_altitude_m": -3.0}, None),
        ({"focal_length_35mm": None}, None),
    ],
)
def test_ground_resolution_only_where_the_photo_says_enough(change: dict[str, Any], expected: float | None) -> None:
    header = read(DJI)
    changed = msgspec.structs.replace(header, facts=msgspec.structs.replace(header.facts, **change))
    found = ground_resolution(changed)
    assert found == (None if expected is None else pytest.approx(expected, rel=1e-4))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "BMP"])
def test_sniff_knows_each_format_that_is_read(kind: str) -> None:
    data = badphotos.encoded(Image.new("RGB", (20, 20)), kind)
    assert sniff(data[:400]) == "photo"
    assert read(data).facts.format == kind


def test_sniff_of_other_files() -> None:
    assert sniff(badphotos.video()) == "video"
    assert sniff(b"G" + bytes(187) + b"G") == "video"
    for data in (b"", badphotos.text(), b"BM is how this note begins, and it is text", b"\x00\x00\x00\x18ftypavif"):
        assert sniff(data) is None
