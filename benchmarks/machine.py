"""What a result was measured on."""

import os
import platform
import re
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

CPU_INFO = Path("/proc/cpuinfo")
FLAGS = ("amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni", "avx512f", "avx2")
PACKAGES = ("openxclip", "torch", "transformers", "av", "torchcodec", "decord2", "opencv-python-headless")


def _cpu() -> str:
    """The processor's name, as Linux tells it."""
    if CPU_INFO.exists():
        match = re.search(r"^model name\s*:\s*(.+)$", CPU_INFO.read_text(), re.MULTILINE)
        if match:
            return match[1].strip()
    return platform.processor() or platform.machine()


def _cpu_flags() -> tuple[str, ...]:
    """Which of `FLAGS` the processor has; empty where no one says."""
    words = set(CPU_INFO.read_text().split()) if CPU_INFO.exists() else set()
    return tuple(flag for flag in FLAGS if flag in words)


def _gpu() -> str | None:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine and the versions of all that was compared."""

    cpu: str = field(default_factory=_cpu)
    """Name of the processor."""
    num_cores: int = field(default_factory=lambda: os.cpu_count() or 1)
    """As the system counts them."""
    cpu_flags: tuple[str, ...] = field(default_factory=_cpu_flags)
    """Instruction sets that matter here."""
    num_threads: int = field(default_factory=torch.get_num_threads)
    """Threads that torch computes with."""
    gpu: str | None = field(default_factory=_gpu)
    """Name of the first CUDA device, if there is one."""
    load: float = field(default_factory=lambda: os.getloadavg()[0])
    """Processes that wanted to run when the measurement began: above 0.5 or so, something else also ran."""
    system: str = field(default_factory=lambda: f"{platform.platform()}, Python {platform.python_version()}")
    """Operating system and Python."""
    versions: dict[str, str] = field(default_factory=_versions)
    """Package -> version."""

    @property
    def slug(self) -> str:
        """For a file name: the GPU, or the processor and its cores."""
        name = self.gpu or f"{self.cpu} {self.num_cores} cores"
        return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")

    def markdown(self) -> str:
        """A list for the report."""
        versions = ", ".join(f"{package} {number}" for package, number in self.versions.items())
        lines = (
            f"processor: {self.cpu}, {self.num_cores} cores, {', '.join(self.cpu_flags) or 'flags unknown'}",
            f"GPU: {self.gpu or 'none'}",
            f"threads of torch: {self.num_threads}",
            f"load when the measurement began: {self.load:.2f}",
            f"system: {self.system}",
            f"versions: {versions}",
        )
        return "\n".join(f"- {line}" for line in lines)
