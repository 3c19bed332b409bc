"""What models cost and how well they recognise, as published: X-CLIP's own figures, and other models'.

Nothing here is counted or measured by us. A multiply-add is one FLOP, as is the custom in these papers.
"""

from dataclasses import dataclass

from openxclip.errors import InputError

XCLIP_PAPER = "Ni et al. 2022 (arXiv 2208.02816), table 1"


@dataclass(frozen=True, kw_only=True)
class PublishedCost:
    """One model on Kinetics-400."""

    name: str
    """As its paper calls it; of X-CLIP the name of our preset."""
    gflops_per_view: float
    """10⁹ multiply-adds of one view."""
    num_clips: int
    """Temporal clips that are averaged."""
    num_crops: int
    """Spatial crops of each clip."""
    top1: float | None
    """Top-1 accuracy in percent over all views, or None if none was published."""
    pretraining: str
    """Images, or images and texts, that it was pretrained on."""
    source: str
    """Where the figures stand."""

    def __post_init__(self) -> None:
        if not (self.gflops_per_view > 0 and self.num_clips >= 1 and self.num_crops >= 1):
            raise InputError(f"{self.name}: cost and number of views must be positive, got {self}")
        if self.top1 is not None and not 0 < self.top1 < 100:
            raise InputError(f"{self.name}: top1 must be percent, got {self.top1}")

    @property
    def views(self) -> str:
        """Temporal clips x spatial crops."""
        return f"{self.num_clips}x{self.num_crops}"

    @property
    def gflops_per_video(self) -> float:
        """Of all views together."""
        return self.gflops_per_view * self.num_clips * self.num_crops


def _xclip(name: str, gflops_per_view: float, top1: float | None) -> PublishedCost:
    few_shot = "Ni et al. 2022 (arXiv 2208.02816), model zoo of the official code"
    return PublishedCost(
        name=name,
        gflops_per_view=gflops_per_view,
        num_clips=4,
        num_crops=3,
        top1=top1,
        pretraining="CLIP-400M",
        source=few_shot if top1 is None else XCLIP_PAPER,
    )


XCLIP_COSTS = (
    _xclip("B/32-8", 39, 80.4),
    _xclip("B/32-16", 75, 81.1),
    _xclip("B/16-8", 145, 83.8),
    _xclip("B/16-16", 287, 84.7),
    _xclip("B/16-32", 571, None),  # few-shot and zero-shot only
    _xclip("L/14-8", 658, 87.1),
    _xclip("L/14@336-16", 3086, 87.7),
)
"""One for each preset."""


def _other(
    name: str,
    gflops_per_view: float,
    views: tuple[int, int],
    top1: float,
    pretraining: str,
    source: str = XCLIP_PAPER,
) -> PublishedCost:
    return PublishedCost(
        name=name,
        gflops_per_view=gflops_per_view,
        num_clips=views[0],
        num_crops=views[1],
        top1=top1,
        pretraining=pretraining,
        source=source,
    )


_MVITV2 = "Li et al. 2021 (arXiv 2112.01526), model zoo of the official code"
_VIVIT = "Arnab et al. 2021 (arXiv 2103.15691), table of Kinetics-400"  # TFLOPs of all views: 11.94 for 3

OTHER_COSTS = (
    _other("MViTv1-B 64x3", 455, (3, 3), 81.2, "none"),
    _other("MViTv2-B 32x3", 225, (5, 1), 82.9, "none", _MVITV2),
    _other("MViTv2-L@312 40x3", 2828, (5, 3), 86.1, "ImageNet-21K", _MVITV2),
    _other("UniFormer-B", 259, (4, 3), 83.0, "ImageNet-1K"),
    _other("TimeSformer-L", 2380, (1, 3), 80.7, "ImageNet-21K"),
    _other("Motionformer-HR", 959, (10, 3), 81.1, "ImageNet-21K"),
    _other("Video Swin-L", 604, (4, 3), 83.1, "ImageNet-21K"),
    _other("Video Swin-L@384", 2107, (10, 5), 84.9, "ImageNet-21K"),
    _other("ViViT-L/16x2 FE", 3980, (1, 3), 81.7, "ImageNet-21K", _VIVIT),
    _other("ViViT-L/16x2 FE (JFT)", 3980, (1, 3), 83.5, "JFT-300M", _VIVIT),
    # The final version of ViViT's paper has 84.9, at 47.77 TFLOPs for the same 12 views.
    _other("ViViT-H/16x2 (JFT)", 8316, (4, 3), 84.8, "JFT-300M"),
    _other("TokenLearner-L/10", 4076, (4, 3), 85.4, "JFT-300M"),
    _other("MTV-H", 3705, (4, 3), 89.1, "WTS"),
    _other("ActionCLIP-B/16", 563, (10, 3), 83.8, "CLIP-400M"),
)
"""Models of others. Where the source is X-CLIP's table, the figures are those that it gives for them."""
