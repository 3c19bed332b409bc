"""The packet table: which frame is in which packet, and what to decode for some frames.

Pure bookkeeping over one demuxing pass, without decoding. Three orders occur: *decode order*, the order
of the packets in the file (a `position`), *presentation order*, the order of the frames on the screen (an
`index`), and the presentation time stamp (`pts`) that ties both together.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

# Codecs whose every packet yields exactly one frame with the packet's pts, and that can start at any key
# frame. Others (VP8 with its invisible packets, AV1, ...) are decoded from the start.
SEEKABLE_CODECS = frozenset({"h264", "hevc", "vp9", "mpeg1video", "mpeg2video", "mpeg4"})

CODECS_THAT_SKIP = frozenset({"h264", "hevc"})
"""Only these codecs mark packets that no other packet refers to."""

# In typical frame intervals: a larger gap may be a lost packet.
_MAX_GAP = 1.5


class PacketInfo(NamedTuple):
    """The facts about a packet from the demuxing pass."""

    pts: int | None
    dts: int | None
    is_keyframe: bool
    is_discard: bool  # needed as a reference, but cut off by an edit list
    is_corrupt: bool


def scan(packets: Iterable[Any]) -> list[PacketInfo]:
    """The facts of every packet that holds data, in decode order."""
    return [PacketInfo(p.pts, p.dts, p.is_keyframe, p.is_discard, p.is_corrupt) for p in packets if p.size]


@dataclass(frozen=True)
class Run:
    """One stretch of decoding: from a key frame to a wanted packet; other key frames may be in between."""

    start: int  # position of the key frame
    stop: int  # position after the last wanted packet
    positions: frozenset[int]  # wanted packets
    index_of_pts: dict[int, int]  # wanted frames

    @property
    def num_packets(self) -> int:
        """The packets to decode."""
        return self.stop - self.start

    def joined(self, following: "Run") -> "Run":
        """This run joined with a later one, without a break."""
        return Run(
            self.start,
            max(self.stop, following.stop),
            self.positions | following.positions,
            self.index_of_pts | following.index_of_pts,
        )


@dataclass(frozen=True)
class PacketTable:
    """Frames and packets of a stream with reliable pts."""

    pts: np.ndarray  # (num_frames,) int64, ascending: the frames in presentation order
    positions: np.ndarray  # (num_frames,) decode-order position of each frame's packet
    key_pts: np.ndarray  # (num_keys,) int64, ascending
    key_positions: np.ndarray  # (num_keys,) ascending
    packets: Sequence[PacketInfo]  # decode order
    position_of_pts: dict[int, int]
    is_even: bool  # no frame is missing between others, as far as the time stamps show

    @classmethod
    def build(cls, packets: Sequence[PacketInfo], reorders: bool) -> "PacketTable | None":
        """The table, or None if the packets do not determine the frames and decoding is required.

        Args:
            packets: in decode order.
            reorders: whether the codec reports that presentation order differs from storage order.
        """
        if not packets or any(p.pts is None or p.is_corrupt for p in packets):
            return None
        if reorders and len(packets) > 1 and all(p.pts == p.dts for p in packets):
            return None  # stamped in decode order by a tool without time stamps: not presentation times
        pts = np.array([p.pts for p in packets], dtype=np.int64)
        key_positions = np.flatnonzero([p.is_keyframe for p in packets])
        shown = np.flatnonzero([not p.is_discard for p in packets])
        positions = shown[np.argsort(pts[shown], kind="stable")]
        key_pts = pts[key_positions]
        starts_clean = len(key_positions) > 0 and key_positions[0] == 0 and pts.min() == pts[0]
        if not starts_clean or len(np.unique(pts)) < len(pts) or np.any(np.diff(key_pts) <= 0):
            return None
        if not len(positions):
            return None
        position_of_pts = dict(zip(pts.tolist(), range(len(pts)), strict=True))
        gaps = np.diff(np.sort(pts))
        is_even = not len(gaps) or bool(gaps.max() <= _MAX_GAP * np.median(gaps))
        return cls(pts[positions], positions, key_pts, key_positions, packets, position_of_pts, is_even)

    def seek_time(self, position: int) -> int:
        """Time stamp for seeking to this packet or before it, never after it."""
        packet = self.packets[position]
        assert packet.pts is not None
        return packet.pts if packet.dts is None else min(packet.pts, packet.dts)

    def plan(self, indices: Iterable[int]) -> list[Run]:
        """The stretches to decode for these frames, each frame once.

        A frame belongs to the last key frame that is SHOWN no later than it. In an open GOP the frames that
        follow a key frame in the file but precede it on the screen thus belong to the key frame before.
        """
        wanted = np.unique(np.fromiter(indices, dtype=np.int64))
        keys = np.searchsorted(self.key_pts, self.pts[wanted], side="right") - 1
        runs: list[Run] = []
        for key in np.unique(keys):
            run = self._run(int(self.key_positions[key]), wanted[keys == key])
            if (
                runs and run.start < runs[-1].stop
            ):  # in an open GOP: the packets of both would be decoded twice
                run = runs.pop().joined(run)
            runs.append(run)
        return runs

    def _run(self, start: int, wanted: np.ndarray) -> Run:
        positions = self.positions[wanted]
        index_of_pts = dict(zip(self.pts[wanted].tolist(), wanted.tolist(), strict=True))
        return Run(start, int(positions.max()) + 1, frozenset(positions.tolist()), index_of_pts)


def share_out(runs: Sequence[Run], num_shares: int) -> list[list[Run]]:
    """The runs in at most this many shares of about equal packets, the largest first: for parallel decoders."""
    shares: list[list[Run]] = [[] for _ in range(min(num_shares, len(runs)))]
    for run in sorted(runs, key=lambda run: run.num_packets, reverse=True):
        min(shares, key=_num_packets).append(run)
    return sorted(shares, key=_num_packets, reverse=True)


def _num_packets(runs: Iterable[Run]) -> int:
    return sum(run.num_packets for run in runs)
