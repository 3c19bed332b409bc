"""The text features that training compares videos with.

Shapes: K classes, E joint embedding.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
from torch import Tensor

from openxclip.inference.label_set import label_encoder
from openxclip.models import XCLIP
from openxclip.text.label_texts import LabelTexts
from openxclip.text.tokenizer import MissingTokenizer, Tokenizer


class TextTargets:
    """Class names encoded by one model: in all templates at once, or in one drawn per step (FROSTER)."""

    def __init__(
        self,
        model: XCLIP,
        tokenizer: Tokenizer | MissingTokenizer,
        texts: LabelTexts,
        template_draw: Literal["all", "one"],
    ) -> None:
        """
        Args:
            model: encodes them. Features that training does not change are encoded once, here.
            tokenizer: of the model.
            texts: class names and templates.
            template_draw: whether a step uses all templates, or draws one.
        """
        parts = [texts]
        if template_draw == "one":
            parts = [replace(texts, templates=(template,)) for template in texts.templates]
        self.encoders = [label_encoder(model, tokenizer, part) for part in parts]
        self.frozen: list[Tensor] | None = None
        """The features (K, E) of each draw, if training does not change them."""
        first = self.encoders[0]()
        if not first.requires_grad:
            self.frozen = [first, *(encode() for encode in self.encoders[1:])]

    def draw(self, rng: np.random.Generator) -> int:
        """Draw the texts of a step; nothing is drawn if there is only one choice."""
        return 0 if len(self.encoders) == 1 else int(rng.integers(len(self.encoders)))

    def features(self, drawn: int) -> Tensor:
        """Text features (K, E) of a draw."""
        return self.encoders[drawn]() if self.frozen is None else self.frozen[drawn]
