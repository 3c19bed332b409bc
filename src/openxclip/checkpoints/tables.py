"""Two-way tables between our parameter names and those of other formats, and strict loading with them.

A row is (ours, theirs, operation), with the placeholders below; the rows are in `names`. Every name of the file and of
the model must be used exactly once; otherwise the file is refused, and the error lists the differences.
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property

import torch
from torch import Tensor

from openxclip.errors import CheckpointError
from openxclip.models import XCLIP, XCLIPConfig
from openxclip.models.parts import ADDED_PARTS, AddedPart
from openxclip.wording import shortened

PLACEHOLDERS = {"*": r"(\d+)", "@": r"(weight|bias)", "#": r"(.+)"}
"""In a row's patterns: a layer's number, weight or bias, anything."""


class Op(Enum):
    """How their tensors are converted to ours."""

    COPY = auto()
    TRANSPOSE = auto()
    """Their (D, E) parameter, multiplied from the right, is the weight (E, D) of our Linear."""
    UNBATCH = auto()
    """Their (1, T, E) is our (T, E)."""
    UNBATCH_TWICE = auto()
    """Their (1, 1, D) is our (D,)."""
    FUSE = auto()
    """Their query, key and value in sequence are our fused `qkv`; key and value may already be one."""
    UNPATCH = auto()
    """Their (D, P * P * 3), for flattened patches, is the weight (D, 3, P, P) of our convolution."""


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    ours: str
    theirs: str | tuple[str, ...]
    op: Op = Op.COPY

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile("".join(PLACEHOLDERS.get(char, re.escape(char)) for char in self.ours))

    def names(self, ours: str) -> tuple[str, ...] | None:
        """Their names for our parameter, or None if this row does not match it."""
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
    """Regular expression of names that are not parameters; a file may contain them as well."""

    def lookup(self, ours: str) -> tuple[Op, tuple[str, ...]]:
        """The operation that converts their tensors to our parameter, and their names."""
        found = [(row.op, names) for row in self.rows if (names := row.names(ours)) is not None]
        (hit,) = found  # exactly one row must match; anything else is a mistake in the table
        return hit


def from_theirs(
    state: Mapping[str, Tensor], config: XCLIPConfig, table: Table, source: str
) -> dict[str, Tensor]:
    """Their tensors under our names.

    Raises:
        CheckpointError: names or shapes differ from the model's.
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
    """Our tensors under their names, without shared memory; inverse of `from_theirs`."""
    theirs: dict[str, Tensor] = {}
    for name, tensor in state.items():
        op, names = table.lookup(name)
        parts = [
            part.clone(memory_format=torch.contiguous_format)
            for part in _convert_back(tensor, op, len(names))
        ]
        theirs.update(zip(names, parts, strict=True))
    return theirs


def build(state: Mapping[str, Tensor], config: XCLIPConfig, table: Table, source: str) -> XCLIP:
    """Build a float32 model in eval mode with these weights; no initial values are computed.

    Raises:
        CheckpointError: the weights do not fit the configuration.
    """
    ours = from_theirs(state, config, table, source)
    model = _skeleton(config)
    # Copied: tensors of a file are views into it, and each view keeps the whole file open.
    weights = {name: tensor.to(torch.float32, copy=True) for name, tensor in ours.items()}
    model.load_state_dict(weights, strict=True, assign=True)
    return model.eval()


def _skeleton(config: XCLIPConfig) -> XCLIP:
    """The model on the meta device: names and shapes without memory for weights."""
    with torch.device("meta"):
        return XCLIP(config)


def _convert(tensors: list[Tensor], op: Op) -> Tensor:
    if op is Op.FUSE:
        return torch.cat(tensors)
    (tensor,) = tensors
    match op:
        case Op.TRANSPOSE:
            return tensor.T.contiguous()
        case Op.UNBATCH:
            return tensor.squeeze(0)
        case Op.UNBATCH_TWICE:
            return tensor.squeeze(0).squeeze(0)
        case Op.UNPATCH:
            side = math.isqrt(tensor.shape[1] // 3)
            return tensor.unflatten(1, (side, side, 3)).permute(0, 3, 1, 2).contiguous()
    return tensor


def _convert_back(tensor: Tensor, op: Op, num_names: int) -> list[Tensor]:
    match op:
        case Op.FUSE:
            third = len(tensor) // 3
            return list(tensor.split([third] * 3 if num_names == 3 else [third, 2 * third]))
        case Op.TRANSPOSE:
            return [tensor.T]
        case Op.UNBATCH:
            return [tensor[None]]
        case Op.UNBATCH_TWICE:
            return [tensor[None, None]]
        case Op.UNPATCH:
            return [tensor.permute(0, 2, 3, 1).flatten(1)]
    return [tensor]


def _differences(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], table: Table) -> list[str]:
    """Sentences about missing names, unexpected names and different shapes; none if the file fits."""
    missing = [name for name in wanted if name not in found]
    unexpected = [name for name in found if name not in wanted and not re.fullmatch(table.ignored, name)]
    shapes = [
        f"{name} is {tuple(found[name].shape)}, the model's is {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tensor.shape
    ]
    sentences = [
        f"the file has no {shortened(missing)}" if missing else "",
        f"the model has no {shortened(unexpected)}" if unexpected else "",
        f"other shapes: {shortened(shapes)}" if shapes else "",
        *(_advice(part, found, wanted) for part in ADDED_PARTS),
    ]
    return [sentence for sentence in sentences if sentence]


def _advice(part: AddedPart, found: Collection[str], wanted: Collection[str]) -> str:
    """Name the switch to set if one side has a whole part that the other lacks."""
    in_file, in_model = (any(re.fullmatch(part.pattern, name) for name in names) for names in (found, wanted))
    if in_model and not in_file:
        return f"it was trained without {part.name}: use {part.switch}"
    if in_file and not in_model:
        return f"it was trained with {part.name}: do not use {part.switch}"
    return ""
