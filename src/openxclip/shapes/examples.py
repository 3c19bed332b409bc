"""Six example clips of classes that the shipped model never saw, and candidate labels."""

from openxclip.shapes.clip import ShapesClip
from openxclip.shapes.splits import shapes_list

CLIPS_BETWEEN = 13 * 8  # of 66 classes with 8 clips each: another pair and another motion each time

EXAMPLE_LABELS = (
    "red circle moving left",
    "red circle moving right",
    "green ring rising",
    "green ring falling",
    "purple bar growing",
    "purple bar shrinking",
    "orange triangle spinning clockwise",
    "orange triangle spinning anticlockwise",
    "cyan cross bouncing",
    "blue cross bouncing",
    "white star orbiting",
    "white star zigzagging",
)
"""The correct name of each clip and a near miss: another motion or another colour. Any other names work as well."""


def example_clips() -> tuple[ShapesClip, ...]:
    """One clip of each novel colour-shape pair, not selected by the model's results."""
    return tuple(row.clip for row in shapes_list("test-novel").rows[::CLIPS_BETWEEN])
