"""Copies of a tile are found under any name, and concrete that merely looks alike stays apart."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from random import Random

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.dataset import Manifest, read_tile
from models.sources.duplicates import Pair, merge_groups, near_duplicates

DECK = Path(__file__).parents[2] / "data" / "flight" / "deck-7036.jpg"
SIDE = 256


def save(path: Path, tile: NDArray[np.uint8], quality: int = 95) -> Path:
    cv2.imwrite(str(path), tile[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return path


def manifest(groups: dict[Path, str]) -> Manifest:
    return Manifest(("crack",), tuple(groups), tuple(groups.values()), np.zeros((len(groups), 1), np.float32))


@pytest.fixture(scope="module")
def deck(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, str]:
    """60 tiles of one real deck, each called a group of its own: much alike, and no two the same."""
    folder, photo = tmp_path_factory.mktemp("deck"), read_tile(DECK)
    places = [(y * SIDE, x * SIDE) for y in range(4, 10) for x in range(10)]
    cut = {f"{y}-{x}": np.ascontiguousarray(photo[y : y + SIDE, x : x + SIDE]) for y, x in places}
    return {save(folder / f"{name}.jpg", tile): f"deck/{name}" for name, tile in cut.items()}


def cropped(tile: NDArray[np.uint8], left: int, top: int, right: int, bottom: int) -> NDArray[np.uint8]:
    inner = tile[top : SIDE - bottom, left : SIDE - right]
    return np.asarray(cv2.resize(inner, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def test_tiles_of_one_plain_deck_are_not_taken_for_copies(deck: dict[Path, str]) -> None:
    assert near_duplicates(manifest(deck)) == []


@pytest.mark.parametrize(
    ("change", "at_least"), [("encoded", 1.0), ("brighter", 0.95), ("cropped", 0.95), ("smaller", 1.0)]
)
def test_copies_are_found_and_nothing_else_is(
    deck: dict[Path, str], tmp_path: Path, change: str, at_least: float
) -> None:
    copies: dict[Path, str] = {}
    for path in deck:
        tile, quality = read_tile(path), 95
        if change == "encoded":
            quality = 35
        elif change == "brighter":
            tile = np.clip(tile * 1.2 + 10.0, 0, 255).astype(np.uint8)
        elif change == "cropped":
            tile = cropped(tile, 5, 4, 6, 5)
        else:
            tile = np.asarray(cv2.resize(tile, (150, 150), interpolation=cv2.INTER_AREA), dtype=np.uint8)
        copies[save(tmp_path / path.name, tile, quality)] = f"copy/{path.stem}"
    found = near_duplicates(manifest({**deck, **copies}))
    assert {pair.first.name == pair.second.name for pair in found} == {True}
    assert len(found) >= at_least * len(deck)


def test_the_same_joint_in_other_concrete_is_no_copy(tmp_path: Path) -> None:
    """Coarse light and one dark line at the same place are all that a coarse hash would see."""
    tiles: dict[Path, str] = {}
    for number in range(12):
        grain = np.random.default_rng(number).normal(0.0, 25.0, (SIDE, SIDE)).astype(np.float32)
        grey = 130.0 + np.linspace(-40, 40, SIDE)[None, :] + cv2.GaussianBlur(grain, (0, 0), 2.0)
        grey[100:112] -= 60.0
        tile = np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
        tiles[save(tmp_path / f"{number}.jpg", tile)] = f"joint/{number}"
    assert near_duplicates(manifest(tiles)) == []


def test_blank_tiles_say_nothing_and_copies_inside_a_group_need_no_word(deck: dict[Path, str], tmp_path: Path) -> None:
    blank = {save(tmp_path / f"{n}.jpg", np.full((SIDE, SIDE, 3), 200, np.uint8)): f"blank/{n}" for n in range(5)}
    path, group = next(iter(deck.items()))
    again = {save(tmp_path / "again.jpg", read_tile(path)): group}
    assert near_duplicates(manifest({**blank, path: group, **again})) == []


LINKS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12)


def pair(one: int, other: int) -> Pair:
    return Pair(Path("a"), Path("b"), (f"group/{one}", f"group/{other}"), 1.0)


@given(LINKS, st.randoms())
def test_groups_that_hang_together_become_one_and_no_others_do(links: list[tuple[int, int]], random: Random) -> None:
    before = manifest({Path(str(n)): f"group/{n}" for n in range(10)})
    after = merge_groups(before, [pair(*link) for link in links])
    together = np.eye(10, dtype=bool)
    for one, other in links:
        together[one, other] = together[other, one] = True
    for _ in range(10):  # the closure, the slow way
        together = together @ together
    for n in range(10):
        assert after.groups[n] == f"group/{np.flatnonzero(together[n]).min()}"
    assert after.images == before.images and after.labels is before.labels
    random.shuffle(links)
    assert merge_groups(before, [pair(*link[::-1]) for link in links]).groups == after.groups


def test_a_long_chain_of_copies_is_one_group() -> None:
    names = [f"group/{n:04d}" for n in range(3000)]
    before = manifest({Path(name): name for name in names})
    chain = [Pair(Path(a), Path(b), (a, b), 1.0) for a, b in pairwise(reversed(names))]
    assert set(merge_groups(before, chain).groups) == {"group/0000"}
