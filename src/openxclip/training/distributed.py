"""Engines that distribute the weights over the processes of a run: one process, replicas (DDP), or shards (FSDP2).

All three use torch's own tools. They differ in how gradients are summed, and in the communication for full weights.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from openxclip.errors import InputError
from openxclip.models import XCLIP
from openxclip.processes import current
from openxclip.training.config import TrainConfig
from openxclip.training.loop import clip_gradient
from openxclip.training.objective import Objective
from openxclip.training.options import Sharding
from openxclip.training.tensors import full


class Distributed(Protocol):
    """The interface of the engine that holds the weights of a training."""

    def loss(
        self, pixels: Tensor, targets: Tensor, weights: Tensor, drawn: int, kept: Tensor | None
    ) -> Tensor:
        """See `Objective`."""

    def adding(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Context for a backward pass that adds to the gradient; the last one of a step sums over all processes."""

    def clip(self, parameters: Iterable[nn.Parameter], limit: float) -> float:
        """Scale the gradient down to this norm -> the norm it had."""

    def whole_model(self) -> XCLIP:
        """The model with all its weights, for reading; every process must call this."""


class Alone:
    """One process."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective

    def loss(
        self, pixels: Tensor, targets: Tensor, weights: Tensor, drawn: int, kept: Tensor | None
    ) -> Tensor:
        """See `Objective`."""
        return self._objective(pixels, targets, weights, drawn, kept)

    def adding(self, *, is_last: bool) -> AbstractContextManager[None]:
        """A single process."""
        del is_last
        return nullcontext()

    def clip(self, parameters: Iterable[nn.Parameter], limit: float) -> float:
        """Scale the gradient down to this norm -> the norm it had."""
        return clip_gradient(parameters, limit)

    def whole_model(self) -> XCLIP:
        """The model itself."""
        return self._objective.model


class Replicated(Alone):
    """A replica in each process; gradients are averaged during the backward pass (DDP)."""

    def __init__(self, objective: Objective) -> None:
        super().__init__(objective)
        self._replica = DistributedDataParallel(objective, gradient_as_bucket_view=True)

    def loss(
        self, pixels: Tensor, targets: Tensor, weights: Tensor, drawn: int, kept: Tensor | None
    ) -> Tensor:
        """See `Objective`."""
        return self._replica(pixels, targets, weights, drawn, kept)

    @contextmanager
    def adding(self, *, is_last: bool) -> Iterator[None]:
        """Gradients are synchronised once per step."""
        with nullcontext() if is_last else self._replica.no_sync():
            yield


class Sharded:
    """Sharded weights of each block (FSDP2), for models too large to replicate.

    In bfloat16, weights are communicated and computed in it, except on a CPU, whose layer norms only accept weights of
    their input's type; gradients are summed in float32. Scalar weights, such as the temperature, cannot be sharded:
    each process has all of them.
    """

    def __init__(self, objective: Objective, *, use_bfloat16: bool) -> None:
        self._objective = objective
        model = objective.model
        device = model.logit_scale.device.type
        mesh = init_device_mesh(device, (current().count,))
        weights = torch.bfloat16 if use_bfloat16 and device != "cpu" else torch.float32
        policy = MixedPrecisionPolicy(weights, torch.float32, cast_forward_inputs=False)
        self._uncut = {parameter for parameter in objective.parameters() if parameter.ndim == 0}
        blocks = [*model.visual.blocks, *(() if model.text is None else model.text.blocks)]
        for block in blocks:
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(objective, mesh=mesh, mp_policy=policy, ignored_params=self._uncut)

    def loss(
        self, pixels: Tensor, targets: Tensor, weights: Tensor, drawn: int, kept: Tensor | None
    ) -> Tensor:
        """See `Objective`."""
        return self._objective(pixels, targets, weights, drawn, kept)

    @contextmanager
    def adding(self, *, is_last: bool) -> Iterator[None]:
        """Gradients are synchronised once per step."""
        cast(FSDPModule, self._objective).set_requires_gradient_sync(is_last)
        yield
        if is_last:
            for parameter in self._uncut:
                if parameter.grad is not None:
                    dist.all_reduce(parameter.grad)
                    parameter.grad /= current().count

    def clip(self, parameters: Iterable[nn.Parameter], limit: float) -> float:
        """Scale the gradient down to this norm -> the norm it had."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        cut = [gradient.to_local() for gradient in gradients if isinstance(gradient, DTensor)]
        uncut = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
        norm = math.sqrt(current().sums([_square(cut)])[0] + _square(uncut))
        if norm > limit:
            for gradient in gradients:
                gradient *= limit / (norm + 1e-6)
        return norm

    def whole_model(self) -> XCLIP:
        """A copy with gathered weights."""
        model = self._objective.model
        with torch.device(model.logit_scale.device):
            whole = XCLIP(model.config)
        whole.load_state_dict({name: full(tensor) for name, tensor in model.state_dict().items()})
        return whole


def _square(tensors: Sequence[Tensor]) -> float:
    """The sum of all squares; waits for the device once."""
    if not tensors:
        return 0.0
    return torch.stack([tensor.float().square().sum() for tensor in tensors]).sum().item()


def check_sharding(config: TrainConfig, sharding: Sharding, num_processes: int) -> None:
    """Refuse sharded weights if they are not possible.

    Raises:
        InputError: there is one process, or the recipe needs whole weights.
    """
    if sharding != "blocks":
        return
    if num_processes == 1:
        raise InputError("sharded weights need more than one process; leave --shard out, or give --processes")
    if config.averaging is not None or config.interpolated is not None:
        raise InputError("averaging and interpolated need whole weights in each process; leave --shard out")


def distribute(objective: Objective, sharding: Sharding, *, use_bfloat16: bool) -> Distributed:
    """The engine for the processes of this run."""
    if sharding == "blocks":
        return Sharded(objective, use_bfloat16=use_bfloat16)
    return Alone(objective) if current().count == 1 else Replicated(objective)
