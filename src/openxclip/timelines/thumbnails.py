"""Thumbnails of a video that is played once: evenly spaced and bounded in number for any length."""

import math
from collections.abc import Iterable, Iterator

from openxclip.errors import InputError
from openxclip.timelines.timeline import Thumbnail
from openxclip.timelines.windows import Playing
from openxclip.video.convert import FrameSize
from openxclip.video.jpeg import jpeg
from openxclip.video.playback import Break, PlayedFrame

LONG_SIDE_PX = 160
FIRST_INTERVAL_SECONDS = 0.5


class Thumbnails:
    """Keeps the first frame of each interval.

    Whenever there are more than `max_count`, every other one is dropped and the interval doubles. At the end there are
    between half of `max_count` and `max_count`, unless the video is shorter or has gaps.
    """

    def __init__(self, player: Playing, max_count: int = 60) -> None:
        if max_count < 1:
            raise InputError(f"max_count must be 1 or more, got {max_count}")
        self._player, self._max_count = player, max_count
        self._interval = FIRST_INTERVAL_SECONDS
        self._size: FrameSize | None = None
        self._kept: dict[int, Thumbnail] = {}
        """Number of the interval -> its thumbnail."""

    def watch(self, played: Iterable[PlayedFrame | Break]) -> Iterator[PlayedFrame | Break]:
        """Pass all items on, and keep a thumbnail per interval."""
        for item in played:
            if isinstance(item, PlayedFrame):
                self._look_at(item)
            yield item

    def pictures(self) -> tuple[Thumbnail, ...]:
        """The thumbnails, by time."""
        return tuple(self._kept.values())

    def _look_at(self, frame: PlayedFrame) -> None:
        number = math.floor(frame.seconds / self._interval)
        if number in self._kept:
            return
        self._kept[number] = self._thumbnail(frame)
        while len(self._kept) > self._max_count:
            self._interval *= 2
            halved: dict[int, Thumbnail] = {}
            for number, thumbnail in self._kept.items():
                halved.setdefault(number // 2, thumbnail)
            self._kept = halved

    def _thumbnail(self, frame: PlayedFrame) -> Thumbnail:
        if self._size is None:
            sides = frame.image.width, frame.image.height
            short = max(1, round(LONG_SIDE_PX * min(sides) / max(sides)))
            self._size = FrameSize(short_side_px=short)
        pixels = self._player.pixels(frame, self._size)
        return Thumbnail(seconds=frame.seconds, jpeg=jpeg(pixels.transpose(1, 2, 0)))
