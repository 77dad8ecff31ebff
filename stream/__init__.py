"""spanwatch: drone photos of concrete structures in, located defects out, without losing a frame."""

__version__ = "0.1.0"
