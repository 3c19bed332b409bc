"""What tagging many ten-second videos costs: a model from measured times of the stages, and a simulation beside it.

Prints the table of docs/scale.md; a test keeps the page current. A stage is a number of cores or GPUs and the seconds
that a video takes of one of them. Stages on the same cores share them; stages on different ones overlap, and the
slowest sets the pace.
"""

import heapq
from dataclasses import dataclass

# Measured: benchmarks/results/amd-epyc-2-cores-2026-11-29-tagging.md and nvidia-h200-2026-11-27-gpu.md.
DECODE_CORE_SECONDS = 1 / 55.8  # eight frames of 224 px of a clip of 320 x 240 px, on one core of an AMD EPYC
B32_CORE_SECONDS = 2 / 8.3  # B/32-8 in bfloat16 on two cores of it, with 400 labels
B16_GPU_SECONDS = 1 / 1217  # B/16-8 in bfloat16, compiled, batches of 32, on an NVIDIA H200
MEGABYTES = 0.35  # of a clip, as those of ucf8


@dataclass(frozen=True)
class Hardware:
    """Machines of one kind."""

    name: str
    cores: int
    gpus: int
    megabytes_per_second: float
    """From storage, of each machine."""

    def seconds(self) -> dict[str, float]:
        """Seconds a video of each stage of one machine, when that stage has all that it needs."""
        read = MEGABYTES / self.megabytes_per_second
        if self.gpus:
            decode = DECODE_CORE_SECONDS / self.cores
            return {"read": read, "decode": decode, "model": B16_GPU_SECONDS / self.gpus}
        return {"read": read, "decode and model": (DECODE_CORE_SECONDS + B32_CORE_SECONDS) / self.cores}


HARDWARE = (
    Hardware("laptop or small server, 2 cores, B/32-8", 2, 0, 500.0),
    Hardware("server, 64 cores, B/32-8", 64, 0, 1000.0),
    Hardware("one H200 with 16 cores, B/16-8", 16, 1, 1000.0),
    Hardware("one H200 with 64 cores, B/16-8", 64, 1, 1000.0),
    Hardware("the same, from an object store at 100 MB/s", 64, 1, 100.0),
)


def bottleneck(hardware: Hardware) -> tuple[str, float]:
    """The slowest stage, and the seconds a video that it takes."""
    return max(hardware.seconds().items(), key=lambda stage: stage[1])


def simulated(seconds: list[float], num_machines: list[int], num_videos: int, room: int = 8) -> float:
    """Seconds until all videos have passed stages of so many workers each, with `room` videos between two stages."""
    free = [[0.0] * number for number in num_machines]
    left: list[list[float]] = [[] for _ in seconds]  # when each video left each stage
    for video in range(num_videos):
        ready = 0.0
        for stage, duration in enumerate(seconds):
            start = max(ready, heapq.heappop(free[stage]))
            end = start + duration
            if stage + 1 < len(seconds) and video >= room:  # it waits until there is room behind it
                end = max(end, left[stage + 1][video - room])
            heapq.heappush(free[stage], end)
            left[stage].append(end)
            ready = end
    return max(left[-1])


def table() -> str:
    """Markdown."""
    lines = [
        "| hardware | videos a second | bottleneck | 1 million videos | 1 billion videos |",
        "|---|---|---|---|---|",
    ]
    for hardware in HARDWARE:
        stage, seconds = bottleneck(hardware)
        hours = seconds * 1e6 / 3600
        lines.append(
            f"| {hardware.name} | {1 / seconds:,.1f} | {stage} | {hours:,.1f} machine hours | "
            f"{hours * 1000:,.0f} machine hours |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
