"""The class that small training runs learn: whether a tile is bright."""

BOLT = """
[[class]]
name = "bolt"
title = "Missing bolt"
importance = 1.0
recall_floor = 0.5
min_width_px = 1.0
coarsest_mm_per_px = 1.0
severity = "low"
"""
