"""What the first bytes of a file say it is: a still photo, a video, or something else."""

from __future__ import annotations

from typing import Literal

Kind = Literal["photo", "video"]

JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")  # the last two are BigTIFF

_EBML, _ASF = b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"
_VIDEO_STARTS = (
    (_EBML, "a Matroska or WebM video"),
    (_ASF, "a Windows Media video"),
    (b"FLV\x01", "a Flash video"),
    (b"\x00\x00\x01\xba", "an MPEG video"),
    (b"\x00\x00\x01\xb3", "an MPEG video"),
)
# ISO base media: a `ftyp` box whose brand tells stills (HEIC, AVIF) from films; old QuickTime begins with other boxes.
_STILL_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis", b"crx "}
_QUICKTIME_BOXES = (b"moov", b"mdat", b"wide", b"pnot")
_TS_PACKET = 188

_OTHERS = (
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"GIF8", "a GIF picture"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture"),
    (b"FUJIFILMCCD-RAW", "a raw photo (Fujifilm RAF)"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"\x7fELF", "a program"),
)


def sniff(head: bytes) -> Kind | None:
    """Tell a still photo (JPEG, PNG, TIFF, WebP, BMP) from a video by the file's first bytes; None: neither.

    Cheap and never wrong about a video, but no promise that a photo opens: `read_header` says that. 400 bytes suffice.
    """
    if head.startswith((JPEG, PNG, *_TIFF)) or _is_webp(head) or _is_bmp(head):
        return "photo"
    return "video" if _video(head) else None


def describe(head: bytes) -> str:
    """What the bytes look like, for the sentence `this looks like …`."""
    video = _video(head)
    if video:
        return video
    if head[4:8] == b"ftyp":
        return f"a {head[8:12].decode('ascii', 'replace').strip().upper()} picture"
    for start, name in _OTHERS:
        if head.startswith(start):
            return name
    return _text(head) or "data of an unknown kind"


def _is_webp(head: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def _is_bmp(head: bytes) -> bool:
    # Two letters alone would take in too much text: the reserved words and the header's size have to fit as well.
    return (
        head[:2] == b"BM" and head[6:10] == b"\0\0\0\0" and head[14:18] in (b"\x28\0\0\0", b"\x6c\0\0\0", b"\x7c\0\0\0")
    )


def _video(head: bytes) -> str | None:
    box, brand = head[4:8], head[8:12]
    if box == b"ftyp":
        if brand in _STILL_BRANDS:
            return None
        return "a QuickTime video (MOV)" if brand == b"qt  " else "an MP4 video"
    if box in _QUICKTIME_BOXES:
        return "a QuickTime video (MOV)"
    if head[:4] == b"RIFF" and brand == b"AVI ":
        return "an AVI video"
    if len(head) > _TS_PACKET and head[0] == head[_TS_PACKET] == 0x47:
        return "an MPEG transport stream"
    return next((name for start, name in _VIDEO_STARTS if head.startswith(start)), None)


def _text(head: bytes) -> str | None:
    start = head[:256]
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:  # a character cut at the end of the sample is still text
            return None
        text = start[: error.start].decode("utf-8")
    if not all(letter.isprintable() or letter.isspace() for letter in text):
        return None
    line = " ".join(text.split())[:40]
    return f"text beginning {line!r}" if line else "white space"
