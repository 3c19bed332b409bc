"""A device that refuses CPU tensors, without a GPU: code that mixes devices fails on it as it does on CUDA.

`install()` makes a device named "fenced" known to torch. Its tensors wrap CPU tensors and compute on the CPU, but an
operation on a fenced tensor and a CPU tensor raises, as on any accelerator. With `OPENXCLIP_DEVICE=fenced pytest`, all
tests run with `auto` on it.
"""

from types import ModuleType
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "fenced"

MOVES = (torch.ops.aten._to_copy, torch.ops.aten.to, torch.ops.aten.copy_)
"""Operations that take tensors of both devices."""


class FencedTensor(Tensor):
    """A tensor on the fenced device, around the CPU tensor that holds its values."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> Self:
        tensor = Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=torch.device(NAME, 0),
            requires_grad=values.requires_grad,
        )
        tensor.values = values
        return tensor

    def __repr__(self) -> str:
        return f"FencedTensor({self.values})"

    def tolist(self) -> Any:
        """As numbers, which every device gives."""
        return self.values.tolist()

    # Tells torch that it is a wrapper, so that a module's parameters can be swapped for it.
    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["values"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], *_: Any) -> "FencedTensor":
        return FencedTensor(inner["values"])

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        return run(function, arguments, named or {})


class Fence(TorchDispatchMode):
    """Creates tensors on the device, and moves them there and back."""

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        return run(function, arguments, named or {})


def run(function: Any, arguments: Any, named: dict[str, Any]) -> Any:
    """An operation, on the CPU tensors inside; its results are where its operands are."""
    values = tree_flatten((arguments, named))[0]
    operands = [value for value in values if isinstance(value, Tensor)]
    fenced = [operand for operand in operands if isinstance(operand, FencedTensor)]
    target = next((value for value in values if isinstance(value, torch.device)), None)
    packet = function.overloadpacket
    if fenced and packet not in MOVES:
        check_same_device(function, operands)
    to_fence = bool(fenced) if target is None else target.type == NAME
    if packet is torch.ops.aten.copy_:
        to_fence = isinstance(arguments[0], FencedTensor)
    unwrapped: dict[int, FencedTensor] = {}

    def unwrap(value: Any) -> Any:
        if isinstance(value, torch.device) and value.type == NAME:
            return torch.device("cpu")
        if not isinstance(value, FencedTensor):
            return value
        unwrapped[id(value.values)] = value
        return value.values

    def wrap(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) in unwrapped:
            return unwrapped[id(value)]
        with torch.inference_mode(value.is_inference()):  # a view of an ordinary tensor is one itself
            return FencedTensor(value)

    result = function(*tree_map(unwrap, arguments), **tree_map(unwrap, named))
    return tree_map(wrap, result) if to_fence else result


def check_same_device(function: Any, operands: list[Tensor]) -> None:
    """Refuse a CPU tensor beside a fenced one; a single CPU number may stand beside any tensor, as on CUDA."""
    for operand in operands:
        if not isinstance(operand, FencedTensor) and operand.ndim > 0:
            raise RuntimeError(
                f"{function}: expected all tensors to be on the same device, but found at least two devices, "
                f"{NAME}:0 and {operand.device}"
            )


def install() -> None:
    """Make the device known to torch, in this thread."""
    module = ModuleType(f"torch.{NAME}")
    module.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]  # type: ignore[attr-defined]
    module.is_available = lambda: True  # type: ignore[attr-defined]
    module.current_device = lambda: 0  # type: ignore[attr-defined]
    module.device_count = lambda: 1  # type: ignore[attr-defined]
    module._is_in_bad_fork = lambda: False  # type: ignore[attr-defined]
    module.manual_seed_all = lambda seed: None  # type: ignore[attr-defined]
    module.get_rng_state = lambda device: torch.get_rng_state()  # type: ignore[attr-defined]
    module.set_rng_state = lambda state, device: None  # type: ignore[attr-defined]
    _setup_privateuseone_for_python_backend(rename=NAME, backend_module=module)
    Fence().__enter__()
