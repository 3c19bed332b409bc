"""The text features that a training compares videos with.

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
    """Class names as one model sees them: in all templates at once, or in one that each step draws (FROSTER)."""

    def __init__(
        self,
        model: XCLIP,
        tokenizer: Tokenizer | MissingTokenizer,
        texts: LabelTexts,
        template_draw: Literal["all", "one"],
    ) -> None:
        """
        Args:
            model: encodes them. What it does not train, is encoded once, here.
            tokenizer: of the model.
            texts: class names and templates.
            template_draw: whether a step takes all templates, or draws one.
        """
        parts = [texts]
        if template_draw == "one":
            parts = [replace(texts, templates=(template,)) for template in texts.templates]
        self.encoders = [label_encoder(model, tokenizer, part) for part in parts]
        self.frozen: list[Tensor] | None = None
        """The features (K, E) of each draw, where training does not change them."""
        first = self.encoders[0]()
        if not first.requires_grad:
            self.frozen = [first, *(encode() for encode in self.encoders[1:])]

    def draw(self, rng: np.random.Generator) -> int:
        """Which of the texts a step takes; nothing is drawn where there is one choice."""
        return 0 if len(self.encoders) == 1 else int(rng.integers(len(self.encoders)))

    def features(self, drawn: int) -> Tensor:
        """Text features (K, E) of what `draw` gave."""
        return self.encoders[drawn]() if self.frozen is None else self.frozen[drawn]
