"""Composed tiles of damaged concrete with exact masks: for training, never for a figure on their own.

    composer = Composer(taxonomy.names, Surfaces.procedural(), seed=1)
    composed = composer.compose(17)  # always the same tile

A defect counts as present when enough of it can be seen (`labels.rules`), as absent when there is none of it, and as
unknown in between.
"""

from models.synthesis.composer import Composed, Composer
from models.synthesis.sheet import contact_sheet
from models.synthesis.surfaces import Surfaces

__all__ = ["Composed", "Composer", "Surfaces", "contact_sheet"]
