"""Labels and the sentences that represent them: names or descriptions in prompt templates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from openxclip.errors import InputError
from openxclip.text.descriptions import check_descriptions, texts_of
from openxclip.text.labels import check_labels
from openxclip.text.templates import SLOT, fill


@dataclass(frozen=True, kw_only=True)
class LabelTexts:
    """A label set as text."""

    labels: Sequence[str]
    """Class names, in the order of their ids."""
    templates: Sequence[str] = (SLOT,)
    """Sentences with {} for the class name; several make an ensemble, as in CLIP."""
    descriptions: Mapping[str, str | Sequence[str]] | None = None
    """Texts used instead of the class names; every label needs at least one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(check_labels(self.labels, "labels")))
        if isinstance(self.templates, str) or not self.templates:
            raise InputError(
                f"templates must be a list of at least one, got {self.templates!r}; for a single one pass [template]"
            )
        object.__setattr__(self, "templates", tuple(self.templates))
        if self.descriptions is not None:
            checked = check_descriptions(self.descriptions, "descriptions")
            object.__setattr__(self, "descriptions", checked)
        self.sentences()

    def sentences(self) -> list[list[str]]:
        """The sentences of each label: each of its texts in each template.

        Raises:
            InputError: a template has no slot for the class name, or a label has no description.
        """
        texts = texts_of(self.labels, self.descriptions)
        return [[fill(template, text) for text in own for template in self.templates] for own in texts]
