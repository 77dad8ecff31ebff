"""Photos that overlap: which ones show the same concrete and must never stand on two sides of a split.

Nothing in the data says so. Every photo was matched with its neighbours by number (SIFT features, and by RANSAC one
similarity for all of them): eight features and more agree only where two photos show the same concrete; of 100 pairs of
far numbers none had more than five. Numbers between two that belong together belong to them; what was in doubt was
looked at. The decks are five slabs, photographed piece by piece: a split by photo would test on cracks that training
has seen.
"""

from __future__ import annotations

PATCHES: dict[str, tuple[str, ...]] = {
    "decks": (
        "7007 7001 7003",
        "7013 7009 7012 7014 7015 7016",
        "7022 7019 7021 7023 7024 7025 7027 7029 7030",
        "7036 7032 7035 7037 7039",
        "7044 7043 7045 7048 7049 7050 7051 7052 7053 7054 7057",
    ),
    "walls": (
        "7072 7069 7070",
        "7074 7073",
        "7080 7081",
        "7103 7101 7102 7104 7105 7106",
        "7122 7124",
        "7125 7127",
        "7128 7129 7130",
    ),
    "pavements": ("007 008", "067 068", "070 071", "076 077", "087 088"),
    "h1": ("MAX_0006_5m MAX_0007_10m MAX_0008_15m",),
    "o6": ("MAX_0954 MAX_1464",),
}
"""Kind or place -> its patches: the photos of one, the first of which names it."""

_PATCH_OF = {
    (place, photo): line.split()[0] for place, lines in PATCHES.items() for line in lines for photo in line.split()
}


def patch_of(place: str, photo: str) -> str | None:
    """Name of the patch that a photo of a kind or place belongs to; None if it overlaps with no other."""
    return _PATCH_OF.get((place, photo))
