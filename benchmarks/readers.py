"""Ways to read some frames of a clip at a smaller size: ours, and each peer as its documentation recommends.

A peer is imported where it is used: only this benchmark needs it.

Shapes: T frames, H and W the size asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from openxclip.video.convert import FrameSize
from openxclip.video.decode import read_frames
from openxclip.video.sampling import centred


@dataclass(frozen=True, kw_only=True)
class Job:
    """Frames spread over a clip, scaled down."""

    path: Path
    """The clip."""
    num_frames: int
    """T, how many frames are wanted."""
    width_px: int
    """W; only ours finds the size out by itself."""
    height_px: int
    """H."""
    num_threads: int
    """Of the decoder; 0 is automatic."""

    def indices(self, length: int) -> np.ndarray:
        """Which frames (T,) of a clip of `length` frames."""
        return centred(length, self.num_frames)


Reader = Callable[[Job], np.ndarray]
"""A job -> its frames (T, H, W, 3), RGB. Each opens the file and finds its length by itself."""


def ours(job: Job) -> np.ndarray:
    """`read_frames`."""
    side_px = min(job.width_px, job.height_px)
    frames = read_frames(job.path, job.indices, FrameSize(short_side_px=side_px), num_threads=job.num_threads)
    return frames.data.transpose(0, 2, 3, 1)


def pyav(job: Job) -> np.ndarray:
    """The usual loop: decode from the start to the last wanted frame, convert the wanted ones."""
    with av.open(str(job.path)) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.thread_count = "AUTO", job.num_threads
        wanted = job.indices(stream.frames)
        frames = []
        for i, frame in enumerate(container.decode(stream)):
            if i in wanted:
                frames.append(frame.to_ndarray(width=job.width_px, height=job.height_px, format="rgb24"))
            if i == wanted[-1]:
                break
    return np.stack(frames)


def torchcodec_exact(job: Job) -> np.ndarray:
    """torchcodec as it comes: it looks through all packets first."""
    return _torchcodec(job, "exact")


def torchcodec_approximate(job: Job) -> np.ndarray:
    """torchcodec, trusting the header: faster, and right where the frame rate is constant."""
    return _torchcodec(job, "approximate")


def _torchcodec(job: Job, seek_mode: str) -> np.ndarray:
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    decoder = VideoDecoder(
        str(job.path),
        dimension_order="NHWC",
        num_ffmpeg_threads=job.num_threads,
        seek_mode=seek_mode,
        transforms=[Resize((job.height_px, job.width_px))],
    )
    return decoder.get_frames_at(job.indices(len(decoder)).tolist()).data.numpy()


def decord2(job: Job) -> np.ndarray:
    """decord2's reader, which scales, and its batch."""
    import decord

    reader = decord.VideoReader(
        str(job.path), width=job.width_px, height=job.height_px, num_threads=job.num_threads
    )
    return reader.get_batch(job.indices(len(reader)).tolist()).asnumpy()


def opencv(job: Job) -> np.ndarray:
    """OpenCV: grab every frame, retrieve the wanted ones; setting a position is slower and less exact."""
    import cv2

    capture = cv2.VideoCapture(str(job.path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, job.num_threads])
    wanted = job.indices(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    frames = []
    for i in range(wanted[-1] + 1):
        capture.grab()
        if i in wanted:
            picture = cv2.resize(capture.retrieve()[1], (job.width_px, job.height_px))
            frames.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
    capture.release()
    return np.stack(frames)


OURS = "ours"
READERS: dict[str, Reader] = {
    OURS: ours,
    "PyAV loop": pyav,
    "torchcodec": torchcodec_exact,
    "torchcodec approximate": torchcodec_approximate,
    "decord2": decord2,
    "OpenCV": opencv,
}
"""Name -> reader."""
