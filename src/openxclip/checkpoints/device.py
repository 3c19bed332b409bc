"""Device and precision of a model: from names as users give them to torch devices and dtypes."""

import os

import torch

from openxclip.errors import InputError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DEVICE_VARIABLE = "OPENXCLIP_DEVICE"
"""Environment variable that sets the device that "auto" means."""


def resolve_device(device: str) -> torch.device:
    """The torch device that a name stands for.

    Args:
        device: the name of any torch device; "auto" is the device named by $OPENXCLIP_DEVICE, else CUDA if it is
            available, else the CPU. "auto" never picks Apple's GPU, which is untested: ask for "mps" by name.

    Raises:
        InputError: torch does not know the device, or it is unavailable.
    """
    if device != "auto":
        return _usable(device, f"device {device!r}")
    named = os.environ.get(DEVICE_VARIABLE, "")
    if named not in ("", "auto"):
        return _usable(named, f"{DEVICE_VARIABLE}: device {named!r}")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _usable(name: str, described: str) -> torch.device:
    """The device, after a test allocation on it; `described` begins the error message."""
    try:
        probe = torch.zeros(1, device=name)
        probe.item()  # the meta device has no values
        return probe.device
    except (
        RuntimeError,
        AssertionError,
        ImportError,
    ) as error:  # builds without CUDA, devices without a module
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise InputError(f"{described} cannot be used ({reason}); use 'auto', 'cpu' or 'cuda'") from error


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The torch dtype of a name; "auto" is bfloat16 on devices with instructions for it, else float32.

    Raises:
        InputError: there is no such dtype.
    """
    if dtype == "auto":
        return torch.bfloat16 if _computes_in_bfloat16(device) else torch.float32
    if dtype not in DTYPES:
        raise InputError(f"no dtype {dtype!r}; choose 'auto' or one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _computes_in_bfloat16(device: torch.device) -> bool:
    """Whether the device has bfloat16 instructions; emulation is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # older torch cannot tell
        return False
    has = torch.cpu.get_capabilities()
    return bool(has.get("amx_bf16") or has.get("avx512_bf16"))
