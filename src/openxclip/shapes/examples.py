"""Six clips of classes that the shipped model never saw, to try it on, and names to choose from."""

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
"""The right name of each clip and a near miss: another motion or another colour. Any other names do as well."""


def example_clips() -> tuple[ShapesClip, ...]:
    """One of each novel colour-shape pair, not chosen by what the model makes of them."""
    return tuple(row.clip for row in shapes_list("test-novel").rows[::CLIPS_BETWEEN])
