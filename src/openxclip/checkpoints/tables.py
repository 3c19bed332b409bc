"""Two-way tables between our parameter names and those of other formats, and strict loading through them.

A row is (ours, theirs, operation), with the placeholders below. Every name of the file and of the model is used exactly
once, or the file is refused with the differences.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from openxclip.errors import CheckpointError
from openxclip.models import XCLIP, XCLIPConfig

PLACEHOLDERS = {"*": r"(\d+)", "@": r"(weight|bias)", "#": r"(.+)"}
"""In a row's patterns: a layer's number, weight or bias, anything."""

NUM_NAMES_SHOWN = 10  # more than these help nobody in an error message


class Op(Enum):
    """What turns their tensor into ours."""

    COPY = auto()
    TRANSPOSE = auto()
    """Their (D, E) parameter, multiplied from the right, is the weight (E, D) of our Linear."""
    UNBATCH = auto()
    """Their (1, T, E) is our (T, E)."""
    FUSE = auto()
    """Their query, key and value, one after the other, are our fused `qkv`."""


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    ours: str
    theirs: str | tuple[str, str, str]
    op: Op = Op.COPY

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile("".join(PLACEHOLDERS.get(char, re.escape(char)) for char in self.ours))

    def names(self, ours: str) -> tuple[str, ...] | None:
        """Their names for our parameter, or None if this row is not about it."""
        match = self._pattern.fullmatch(ours)
        if match is None:
            return None
        patterns = (self.theirs,) if isinstance(self.theirs, str) else self.theirs
        return tuple(_fill(pattern, match.groups()) for pattern in patterns)


def _fill(pattern: str, values: Iterable[str]) -> str:
    remaining = iter(values)
    return re.sub(r"[*@#]", lambda _: next(remaining), pattern)


@dataclass(frozen=True)
class Table:
    """The names of one format."""

    rows: tuple[Row, ...]
    ignored: str = "(?!)"
    """Regular expression of names that hold no parameter; the only ones that a file may have beyond the model's."""

    def lookup(self, ours: str) -> tuple[Op, tuple[str, ...]]:
        """What turns their tensors into our parameter, and their names."""
        found = [(row.op, names) for row in self.rows if (names := row.names(ours)) is not None]
        (hit,) = found  # a parameter that two rows name, or none, is a mistake in this file
        return hit


def _linear_block(ours: str, theirs: str, names: Mapping[str, str]) -> Iterator[Row]:
    """Rows of a transformer block for the layers that are the same in both, weight and bias alike."""
    for our_layer, their_layer in names.items():
        yield Row(f"{ours}.{our_layer}.@", f"{theirs}.{their_layer}.@")


def _official_attention(ours: str, theirs: str) -> tuple[Row, Row]:
    return (
        Row(f"{ours}.qkv.@", f"{theirs}.in_proj_@"),
        Row(f"{ours}.proj.@", f"{theirs}.out_proj.@"),
    )


def _huggingface_attention(ours: str, theirs: str) -> tuple[Row, Row]:
    query, key, value = (f"{theirs}.{letter}_proj.@" for letter in "qkv")
    return (
        Row(f"{ours}.qkv.@", (query, key, value), Op.FUSE),
        Row(f"{ours}.proj.@", f"{theirs}.out_proj.@"),
    )


_OFFICIAL_MLP = {"mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
_OFFICIAL_BLOCK = {"attn_norm": "ln_1", "mlp_norm": "ln_2"} | _OFFICIAL_MLP
_OFFICIAL_FRAME_BLOCK = {
    "message_proj": "message_fc",
    "cross_norm": "message_ln",
    "intra_norm": "ln_1",
    "mlp_norm": "ln_2",
} | _OFFICIAL_MLP

_HUGGINGFACE_MLP = {"mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
_HUGGINGFACE_BLOCK = {"attn_norm": "layer_norm1", "mlp_norm": "layer_norm2"} | _HUGGINGFACE_MLP
_HUGGINGFACE_FRAME_BLOCK = {
    "message_proj": "message_fc",
    "cross_norm": "message_ln",
    "intra_norm": "layer_norm1",
    "mlp_norm": "layer_norm2",
} | _HUGGINGFACE_MLP

_PROMPTING_LAYERS = (  # the official code and the Hugging Face port agree here
    Row("prompting.alpha", "prompts_generator.alpha"),
    Row("prompting.layers.*.query_norm.@", "prompts_generator.decoder.*.norm1.@"),
    Row("prompting.layers.*.cross_attn.query.weight", "prompts_generator.decoder.*.cross_attn.q_proj.weight"),
    Row("prompting.layers.*.cross_attn.key.weight", "prompts_generator.decoder.*.cross_attn.k_proj.weight"),
    Row("prompting.layers.*.cross_attn.value.weight", "prompts_generator.decoder.*.cross_attn.v_proj.weight"),
    Row("prompting.layers.*.cross_attn.proj.@", "prompts_generator.decoder.*.cross_attn.proj.@"),
    Row("prompting.layers.*.mlp_norm.@", "prompts_generator.decoder.*.norm3.@"),
    Row("prompting.layers.*.mlp.fc1.@", "prompts_generator.decoder.*.mlp.0.@"),
    Row("prompting.layers.*.mlp.fc2.@", "prompts_generator.decoder.*.mlp.3.@"),
)

NATIVE = Table(rows=(Row("#", "#"),))
"""Our own names."""

OFFICIAL = Table(
    rows=(
        Row("logit_scale", "logit_scale"),
        Row("visual.patch_embedding.weight", "visual.conv1.weight"),
        Row("visual.class_embedding", "visual.class_embedding"),
        Row("visual.position_embedding", "visual.positional_embedding"),
        Row("visual.pre_norm.@", "visual.ln_pre.@"),
        *_linear_block("visual.blocks.*", "visual.transformer.resblocks.*", _OFFICIAL_FRAME_BLOCK),
        *_official_attention("visual.blocks.*.cross_attn", "visual.transformer.resblocks.*.message_attn"),
        *_official_attention("visual.blocks.*.intra_attn", "visual.transformer.resblocks.*.attn"),
        Row("visual.post_norm.@", "visual.ln_post.@"),
        Row("visual.proj.weight", "visual.proj", Op.TRANSPOSE),
        Row("integration.position_embedding", "mit.positional_embedding", Op.UNBATCH),
        *_linear_block("integration.blocks.*", "mit.resblocks.*", _OFFICIAL_BLOCK),
        *_official_attention("integration.blocks.*.attn", "mit.resblocks.*.attn"),
        Row("prompting.patch_norm.@", "prompts_visual_ln.@"),
        Row("prompting.patch_proj.weight", "prompts_visual_proj", Op.TRANSPOSE),
        Row("prompting.context_norm.@", "prompts_generator.norm.@"),
        *_PROMPTING_LAYERS,
        Row("text.token_embedding.weight", "token_embedding.weight"),
        Row("text.position_embedding", "positional_embedding"),
        *_linear_block("text.blocks.*", "transformer.resblocks.*", _OFFICIAL_BLOCK),
        *_official_attention("text.blocks.*.attn", "transformer.resblocks.*.attn"),
        Row("text.final_norm.@", "ln_final.@"),
        Row("text.proj.weight", "text_projection", Op.TRANSPOSE),
    )
)
"""The official code's names, which extend OpenAI's."""

OPENAI_CLIP = Table(
    rows=OFFICIAL.rows,
    # Sizes kept beside the weights, and causal masks that a TorchScript archive stores as tensors.
    ignored=r"input_resolution|context_length|vocab_size|.*\.attn_mask",
)
"""OpenAI CLIP's names: the official ones, for a model without the parts that X-CLIP adds."""

HUGGINGFACE = Table(
    rows=(
        Row("logit_scale", "logit_scale"),
        Row("visual.patch_embedding.weight", "vision_model.embeddings.patch_embedding.weight"),
        Row("visual.class_embedding", "vision_model.embeddings.class_embedding"),
        Row("visual.position_embedding", "vision_model.embeddings.position_embedding.weight"),
        Row("visual.pre_norm.@", "vision_model.pre_layernorm.@"),
        *_linear_block("visual.blocks.*", "vision_model.encoder.layers.*", _HUGGINGFACE_FRAME_BLOCK),
        *_huggingface_attention("visual.blocks.*.cross_attn", "vision_model.encoder.layers.*.message_attn"),
        *_huggingface_attention("visual.blocks.*.intra_attn", "vision_model.encoder.layers.*.self_attn"),
        Row("visual.post_norm.@", "vision_model.post_layernorm.@"),
        Row("visual.proj.weight", "visual_projection.weight"),
        Row("integration.position_embedding", "mit.position_embedding", Op.UNBATCH),
        *_linear_block("integration.blocks.*", "mit.encoder.layers.*", _HUGGINGFACE_BLOCK),
        *_huggingface_attention("integration.blocks.*.attn", "mit.encoder.layers.*.self_attn"),
        Row("prompting.patch_norm.@", "prompts_visual_layernorm.@"),
        Row("prompting.patch_proj.weight", "prompts_visual_projection", Op.TRANSPOSE),
        Row("prompting.context_norm.@", "prompts_generator.layernorm.@"),
        *_PROMPTING_LAYERS,
        Row("text.token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
        Row("text.position_embedding", "text_model.embeddings.position_embedding.weight"),
        *_linear_block("text.blocks.*", "text_model.encoder.layers.*", _HUGGINGFACE_BLOCK),
        *_huggingface_attention("text.blocks.*.attn", "text_model.encoder.layers.*.self_attn"),
        Row("text.final_norm.@", "text_model.final_layer_norm.@"),
        Row("text.proj.weight", "text_projection.weight"),
    ),
    ignored=r"(text|vision)_model\.embeddings\.position_ids",  # buffers in files of older transformers versions
)
"""The names of XCLIPModel in transformers."""


class Part(NamedTuple):
    """A part of the model that a configuration can leave out."""

    name: str
    switch: str
    """What leaves it out."""
    pattern: str
    """Regular expression of its parameters' names, in any format."""


PARTS = (
    Part("video-specific prompting", "prompting=None", r"prompt(s_\w+|ing)\b.*"),
    Part("the multi-frame integration transformer", "integration=None", r"(mit|integration)\..*"),
    Part(
        "message tokens",
        "vision.message_tokens=False",
        r"vis\w+\..*\.(message_\w+|cross_norm|cross_attn)\..*",
    ),
    Part("learnable context", "text.num_context_vectors=None", r"text\.context\..*"),
    Part("discrete labels", "num_discrete_labels=None", r"discrete\..*"),
)


def part_of(name: str) -> str:
    """Which part of `PARTS` a parameter belongs to, by its name in any format."""
    return next(part.name for part in PARTS if re.fullmatch(part.pattern, name))


def from_theirs(
    state: Mapping[str, Tensor], config: XCLIPConfig, table: Table, source: str
) -> dict[str, Tensor]:
    """Their tensors under our names.

    Raises:
        CheckpointError: names or shapes are not exactly those of the model.
    """
    skeleton = _skeleton(config).state_dict()
    problems = _differences(state, to_theirs(skeleton, table), table)
    if problems:
        raise CheckpointError(f"{source}: the weights do not fit the model: {'; '.join(problems)}")
    ours = {}
    for name in skeleton:
        op, names = table.lookup(name)
        ours[name] = _convert([state[n] for n in names], op)
    return ours


def to_theirs(state: Mapping[str, Tensor], table: Table) -> dict[str, Tensor]:
    """Our tensors under their names, each in memory of its own; inverse of `from_theirs`."""
    theirs: dict[str, Tensor] = {}
    for name, tensor in state.items():
        op, names = table.lookup(name)
        parts = [part.clone(memory_format=torch.contiguous_format) for part in _convert_back(tensor, op)]
        theirs.update(zip(names, parts, strict=True))
    return theirs


def build(state: Mapping[str, Tensor], config: XCLIPConfig, table: Table, source: str) -> XCLIP:
    """A float32 model in eval mode with exactly these weights; no time goes into initial values."""
    ours = from_theirs(state, config, table, source)
    model = _skeleton(config)
    model.load_state_dict({name: tensor.float() for name, tensor in ours.items()}, strict=True, assign=True)
    return model.eval()


def _skeleton(config: XCLIPConfig) -> XCLIP:
    """The model's names and shapes, without memory for its weights."""
    with torch.device("meta"):
        return XCLIP(config)


def _convert(tensors: list[Tensor], op: Op) -> Tensor:
    if op is Op.FUSE:
        return torch.cat(tensors)
    (tensor,) = tensors
    if op is Op.TRANSPOSE:
        return tensor.T.contiguous()
    return tensor.squeeze(0) if op is Op.UNBATCH else tensor


def _convert_back(tensor: Tensor, op: Op) -> list[Tensor]:
    if op is Op.FUSE:
        return list(tensor.chunk(3))
    if op is Op.TRANSPOSE:
        return [tensor.T]
    return [tensor.unsqueeze(0) if op is Op.UNBATCH else tensor]


def _differences(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], table: Table) -> list[str]:
    """Sentences about what the file lacks, what it has too much, and which shapes differ; none if it fits."""
    missing = [name for name in wanted if name not in found]
    unexpected = [name for name in found if name not in wanted and not re.fullmatch(table.ignored, name)]
    shapes = [
        f"{name} is {tuple(found[name].shape)}, the model's is {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tensor.shape
    ]
    sentences = [
        f"the file has no {_listed(missing)}" if missing else "",
        f"the model has no {_listed(unexpected)}" if unexpected else "",
        f"other shapes: {_listed(shapes)}" if shapes else "",
        *(_advice(part, found, wanted) for part in PARTS),
    ]
    return [sentence for sentence in sentences if sentence]


def _advice(part: Part, found: Collection[str], wanted: Collection[str]) -> str:
    """Names the switch to set where one side has a whole part that the other lacks."""
    in_file, in_model = (any(re.fullmatch(part.pattern, name) for name in names) for names in (found, wanted))
    if in_model and not in_file:
        return f"it was trained without {part.name}: use {part.switch}"
    if in_file and not in_model:
        return f"it was trained with {part.name}: do not use {part.switch}"
    return ""


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:NUM_NAMES_SHOWN])
    return shown if len(names) <= NUM_NAMES_SHOWN else f"{shown} and {len(names) - NUM_NAMES_SHOWN} more"
