"""`spanwatch data`: from folders of pictures to manifests of labelled tiles, and what is in them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from models.dataset import PARTS, Count, Manifest, ManifestError, Part, Split, counts, read_manifest, write_manifest
from models.taxonomy import Taxonomy, TaxonomyError, load_taxonomy
from stream.cli.common import JsonOption, err, guarded, out, print_json
from stream.errors import Misuse

data_app = typer.Typer(no_args_is_help=True, help="Labelled tiles for training and evaluation: make, count, split.")

DataArgument = Annotated[Path, typer.Argument(help="Folder with sdnet, concrete_damage, …", metavar="DATA")]
ManifestArgument = Annotated[Path, typer.Argument(help="CSV of image,group,<class>,…", metavar="MANIFEST.csv")]
FolderOption = Annotated[Path, typer.Option("--out", help="Folder to write to; it is made.", metavar="DIR")]
TaxonomyOption = Annotated[Path, typer.Option("--taxonomy", help="The classes.", metavar="FILE")]
TAXONOMY = Path("configs/taxonomy.toml")
PICTURES = (".png", ".jpg", ".jpeg", ".webp")


@data_app.command()
def convert(
    data: DataArgument, folder: FolderOption, taxonomy: TaxonomyOption = TAXONOMY, as_json: JsonOption = False
) -> None:
    """Make one manifest of all that DATA holds; larger pictures are cut into tiles, copies share one group.

    What a source does not label stays unknown. So does a class of which a tile shows too little to tell.

    Example: spanwatch data convert ../shared/data --out out/data
    """
    from models.sources.convert import convert as convert_data

    with _refusals():
        classes = _taxonomy(taxonomy)
        with err.status("reading, cutting, looking for copies …"):
            done = convert_data(data, folder, classes.names, classes.widths)
    for name in done.dropped:
        close = difflib.get_close_matches(name, classes.names, 1)
        hint = f"; did {taxonomy} mean it by {close[0]}?" if close else ""
        err.print(Text(f"left out: labels of {name}, which is no class of {taxonomy}{hint}", "yellow"), soft_wrap=True)
    if as_json:
        copies = [
            {"first": str(pair.first), "second": str(pair.second), "groups": pair.groups, "likeness": pair.likeness}
            for pair in done.duplicates
        ]
        print_json(
            {
                "manifest": str(done.path),
                "tiles": len(done.manifest),
                "duplicates": copies,
                "dropped": done.dropped,
                **_counted(done.manifest),
            }
        )
        return
    out.print(_table(counts(done.manifest)))
    for pair in done.duplicates:
        out.print(f"same picture, one group: {pair.first.name} and {pair.second.name}")
    merged = len({pair.groups for pair in done.duplicates})
    out.print(f"{len(done.manifest)} tiles, {merged} pairs of groups merged; written to {done.path}")


@data_app.command()
def stats(manifest: ManifestArgument, as_json: JsonOption = False) -> None:
    """Count what a manifest holds: per source and class, how many tiles show it, do not, or are not labelled.

    Example: spanwatch data stats out/data/manifest.csv
    """
    with _refusals():
        found = read_manifest(manifest)
    if as_json:
        print_json({"manifest": str(manifest), "tiles": len(found), **_counted(found)})
    else:
        out.print(_table(counts(found)))
        out.print(f"{len(found)} tiles of {len(set(found.groups))} groups")


@data_app.command()
def split(manifest: ManifestArgument, folder: FolderOption, as_json: JsonOption = False) -> None:
    """Write train.csv, validation.csv and test.csv; no group is ever in two of them, and its name alone decides.

    Example: spanwatch data split out/data/manifest.csv --out out/data
    """
    with _refusals():
        parts = Split().apply(read_manifest(manifest))
        folder.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            write_manifest(folder / f"{part}.csv", parts[part])
    for part in PARTS:
        path, tiles = folder / f"{part}.csv", parts[part]
        if as_json:
            print_json({"part": part, "manifest": str(path), "tiles": len(tiles), **_counted(tiles)})
        if not len(tiles):
            err.print(Text.assemble((f"no group falls into {part}:", "yellow"), f" {path} holds no tile"))
    if not as_json:
        out.print(_parts_table(parts))
        out.print(f"written to {folder}: " + ", ".join(f"{part}.csv" for part in PARTS))


@data_app.command()
def preview(
    sheet: Annotated[Path, typer.Option("--out", help="Picture to write.", metavar="SHEET.png")],
    data: Annotated[
        Path | None, typer.Option("--data", help="Paint on the surfaces in it, too.", metavar="DIR")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Another seed, other tiles.", min=0)] = 1,
    count: Annotated[int, typer.Option("--count", help="How many tiles.", min=1, max=1000)] = 60,
    taxonomy: TaxonomyOption = TAXONOMY,
) -> None:
    """Show composed tiles, as training sees them, on one contact sheet.

    Example: spanwatch data preview --data ../shared/data --out out/preview.png
    """
    from PIL import Image

    from models.synthesis import Composer, Surfaces, contact_sheet

    with _refusals():
        if sheet.suffix.lower() not in PICTURES:
            raise Misuse(f"--out {sheet} names no picture: let it end in {', '.join(PICTURES)}")
        surfaces = Surfaces.from_folder(data) if data else Surfaces.procedural()
        classes = _taxonomy(taxonomy)
        composer = Composer(classes.names, surfaces, seed, classes.widths)
        with err.status(f"composing {count} tiles …"):
            picture = contact_sheet(composer, count, math.ceil(math.sqrt(1.6 * count)))
        sheet.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(sheet)
    out.print(f"{count} tiles: {sheet}")


@contextmanager
def _refusals() -> Iterator[None]:
    """In here, what is wrong with a manifest, a picture or a folder ends the command with that sentence."""
    with guarded():
        try:
            yield
        except (ManifestError, TaxonomyError, OSError) as error:
            raise Misuse(str(error)) from error


def _taxonomy(path: Path) -> Taxonomy:
    if not path.is_file():
        raise Misuse(f"no taxonomy at {path}: name one with --taxonomy, such as configs/taxonomy.toml of the project")
    return load_taxonomy(path)


def _counted(manifest: Manifest) -> dict[str, Any]:
    return {"groups": len(set(manifest.groups)), "counts": [msgspec.to_builtins(one) for one in counts(manifest)]}


def _parts_table(parts: Mapping[Part, Manifest]) -> Table:
    table = Table("", *PARTS)
    table.add_row("tiles", *(f"{len(parts[part]):,}" for part in PARTS))
    table.add_row("groups", *(str(len(set(parts[part].groups))) for part in PARTS))
    for number, name in enumerate(parts["train"].classes):
        shown = [parts[part].labels[:, number] == 1 for part in PARTS]
        table.add_row(name, *(f"{rows.sum():,}" if rows.any() else "–" for rows in shown))
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _table(found: Iterable[Count]) -> Table:
    table = Table("source", "class", "shown", "absent", "unknown", "groups", "showing")
    for number, column in enumerate(table.columns):
        column.no_wrap = True
        column.justify = "right" if number > 1 else "left"
    last = ""
    for one in found:
        if last and one.source != last:
            table.add_section()
        numbers: Sequence[int] = (one.positives, one.negatives, one.unknown, one.groups, one.positive_groups)
        table.add_row(one.source if one.source != last else "", one.defect, *(f"{n:,}" if n else "–" for n in numbers))
        last = one.source
    return table
