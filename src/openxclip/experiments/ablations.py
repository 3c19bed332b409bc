"""The paper's ablations, and more: what each choice is worth, in each regime.

An ablation is a list of variants of one training; `paper` holds the published numbers of the same rows (section 4.4
and its tables; ViT-B/16, 8 frames, full on Kinetics-400, few on two clips per class of HMDB-51, zero on UCF-101).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from openxclip.errors import InputError
from openxclip.experiments.few_shot import with_targets
from openxclip.experiments.study import Regime, Study, Variant
from openxclip.inference.views import Views
from openxclip.reports.plots import MeanStd, Point
from openxclip.reports.table import Table, mean_std, percent
from openxclip.text.templates import BUILT_IN_TEMPLATES
from openxclip.training.config import (
    AveragingConfig,
    DistillationConfig,
    ExpansionConfig,
    InterpolatedConfig,
    TrainConfig,
)

TEXT_FACTOR = 0.1
"""On the learning rate of a text tower that learns beside the visual one: at the full rate both
collapsed with 800 steps of pretraining; with 2,400 they do not.

Chosen on the list `small-val` of moving shapes among 0.03, 0.1 and 0.3."""

AVERAGING = AveragingConfig(start=0.5)
"""Of few epochs, the early ones are too far from the end: chosen on `small-val` among all and the last half."""

NUM_COOP_VECTORS = 16  # as the paper's comparison has it
DENSE_STRIDE = 1

Paper = Mapping[Regime, float]


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """One question, and the variants that answer it."""

    title: str
    """What is varied."""
    rows: Sequence[tuple[Variant, Paper]]
    """Each variant, and what the paper reports for it, in percent."""
    x_label: str = ""
    """What the picture's axis shows."""
    regimes: tuple[Regime, ...] = ("zero", "few", "full")
    """Where the question makes sense."""
    notes: tuple[str, ...] = ()
    """What a reader has to know beside the numbers."""
    is_trade_off: bool = False
    """Whether the picture sets zero-shot against supervised, instead of a line for each regime."""


def _expansion(config: TrainConfig) -> ExpansionConfig:
    if config.expansion is None:
        raise InputError(
            f"recipe {config.recipe} has no expansion to vary; take one that starts from an image model with "
            "`expansion`, such as shapes_small"
        )
    return config.expansion


def _parts(message_tokens: bool, integration: bool, prompting: bool) -> Callable[[TrainConfig], TrainConfig]:
    def change(config: TrainConfig) -> TrainConfig:
        parts = _expansion(config)
        parts = replace(
            parts,
            message_tokens=message_tokens,
            integration=parts.integration if integration else None,
            prompting=parts.prompting if prompting else None,
        )
        return replace(config, expansion=parts)

    return change


def _without_prompting(config: TrainConfig) -> TrainConfig:
    return replace(config, expansion=replace(_expansion(config), prompting=None))


def _discrete(config: TrainConfig) -> TrainConfig:
    _expansion(config)
    return with_targets(config, "discrete", num_labels=1)  # K is counted where the labels are known


def _branches(visual: bool, text: bool) -> Callable[[TrainConfig], TrainConfig]:
    def change(config: TrainConfig) -> TrainConfig:
        factors = replace(config.optim.factors, visual=float(visual), text=float(text))
        return replace(config, optim=replace(config.optim, factors=factors))

    return change


def _towers(
    text: float,
    averaging: AveragingConfig | None = None,
    interpolated: InterpolatedConfig | None = None,
    distillation: DistillationConfig | None = None,
) -> Callable[[TrainConfig], TrainConfig]:
    """The visual tower at the full rate, the text tower at a share of it, and what keeps them near the image model.

    Whatever the recipe has of these gives way: the rows would not be what their names say.
    """

    def change(config: TrainConfig) -> TrainConfig:
        factors = replace(config.optim.factors, visual=1.0, text=text)
        return replace(
            config,
            optim=replace(config.optim, factors=factors),
            averaging=averaging,
            interpolated=interpolated,
            distillation=distillation,
        )

    return change


_both_towers = _towers(TEXT_FACTOR)


def _frame_mean_of_both(config: TrainConfig) -> TrainConfig:
    return _parts(False, False, False)(_both_towers(config))


def _templates(name: str) -> Callable[[TrainConfig], TrainConfig]:
    return lambda config: replace(_without_prompting(config), templates=BUILT_IN_TEMPLATES[name])


def _learnable_context(config: TrainConfig) -> TrainConfig:
    config = _without_prompting(config)
    return replace(config, expansion=replace(_expansion(config), num_context_vectors=NUM_COOP_VECTORS))


def _frames(num_frames: int) -> Callable[[TrainConfig], TrainConfig]:
    return lambda config: replace(config, num_frames=num_frames)


def _dense(config: TrainConfig) -> TrainConfig:
    return replace(config, data=replace(config.data, dense_stride=DENSE_STRIDE))


_PUBLISHED_FRAMES: tuple[tuple[int, Paper], ...] = (
    (2, {}),
    (4, {}),
    (8, {"full": 83.8}),
    (16, {"full": 84.7}),
)

_OPEN_VCLIP = _towers(TEXT_FACTOR, averaging=AVERAGING, interpolated=InterpolatedConfig())

ABLATIONS: dict[str, Ablation] = {
    "components": Ablation(
        title="what each part adds",
        rows=(
            (Variant(name="frame mean", change=_parts(False, False, False)), {"full": 80.0}),
            (Variant(name="+ CCT", change=_parts(True, False, False)), {"full": 81.2}),
            (Variant(name="+ MIT", change=_parts(True, True, False)), {"full": 81.7}),
            (Variant(name="+ prompting"), {"full": 82.3}),
        ),
        regimes=("zero", "motion", "few", "full"),
        notes=(
            "motion: the clips of zero, among the names that share colour and shape and differ in motion alone.",
        ),
    ),
    "targets": Ablation(
        title="class names against discrete labels",
        rows=(
            (Variant(name="discrete labels", change=_discrete), {"few": 32.0, "full": 81.6}),
            (Variant(name="class names, no prompting", change=_without_prompting), {}),
            (Variant(name="class names"), {"few": 50.8, "full": 82.3}),
        ),
        regimes=("few", "full"),
    ),
    "branches": Ablation(
        title="which towers learn beside the new parts",
        rows=(
            (Variant(name="both", change=_branches(True, True)), {"zero": 72.9, "few": 54.6, "full": 82.4}),
            (
                Variant(name="visual", change=_branches(True, False)),
                {"zero": 70.0, "few": 50.8, "full": 82.3},
            ),
            (Variant(name="text", change=_branches(False, True)), {"zero": 66.8, "few": 53.4, "full": 79.3}),
            (Variant(name="none", change=_branches(False, False)), {"zero": 64.2, "few": 47.3, "full": 79.1}),
        ),
    ),
    "prompts": Ablation(
        title="what the class names are written into",
        rows=(
            (Variant(name="bare name", change=_without_prompting), {"zero": 63.2, "few": 49.6, "full": 81.7}),
            (Variant(name="28 video templates", change=_templates("clip-video")), {}),
            (Variant(name="80 general templates", change=_templates("clip-80")), {}),
            (
                Variant(name="learnable context (CoOp)", change=_learnable_context),
                {"zero": 63.2, "few": 49.9, "full": 82.0},
            ),
            (Variant(name="video-specific"), {"zero": 70.0, "few": 50.8, "full": 82.3}),
        ),
        notes=("The paper's ensemble is one of 16 templates: zero 63.9, few 49.6, full 81.7.",),
    ),
    "frames": Ablation(
        title="number of frames",
        rows=tuple((Variant(name=str(n), change=_frames(n)), paper) for n, paper in _PUBLISHED_FRAMES),
        x_label="frames",
        notes=("The paper's numbers are with 4x3 views.",),
    ),
    "sampling": Ablation(
        title="frames of the whole video against neighbouring ones",
        rows=(
            (Variant(name="sparse"), {}),
            (Variant(name="dense", change=_dense, views=Views(dense_stride=DENSE_STRIDE)), {}),
        ),
    ),
    "views": Ablation(
        title="single against multi-view",
        rows=(
            (Variant(name="1x1"), {"full": 82.3}),
            (Variant(name="4x1", views=Views(4, 1)), {}),
            (Variant(name="1x3", views=Views(1, 3)), {}),
            (Variant(name="4x3", views=Views(4, 3)), {"full": 83.8}),
        ),
        x_label="temporal clips x spatial crops",
        notes=("Where videos are square, as moving shapes are, three crops show the same as one.",),
    ),
    "interpolation": Ablation(
        title="between the image model and the fine-tuned one (WiSE-FT)",
        rows=tuple((Variant(name=f"{r:g}", interpolate=r), {}) for r in (0.0, 0.25, 0.5, 0.75, 1.0)),
        x_label="share of the fine-tuned weights",
    ),
    "fine-tuning": Ablation(
        title="what fine-tuning gains on trained classes and keeps on new ones",
        rows=(
            (Variant(name="visual tower (X-CLIP)", change=_towers(text=0.0)), {"zero": 72.0, "full": 84.7}),
            (
                Variant(name="frame mean, both towers (ViFi-CLIP)", change=_frame_mean_of_both),
                {"zero": 76.8, "full": 83.9},
            ),
            (Variant(name="both towers", change=_both_towers), {}),
            (
                Variant(
                    name="both, halfway to the image model (WiSE-FT)", change=_both_towers, interpolate=0.5
                ),
                {},
            ),
            (
                Variant(
                    name="both, weights averaged (SWA)", change=_towers(TEXT_FACTOR, averaging=AVERAGING)
                ),
                {},
            ),
            (
                Variant(
                    name="both, loss at interpolated weights",
                    change=_towers(TEXT_FACTOR, interpolated=InterpolatedConfig()),
                ),
                {},
            ),
            (Variant(name="both, that and averaged", change=_OPEN_VCLIP), {}),
            (
                Variant(name="both, all three (Open-VCLIP)", change=_OPEN_VCLIP, interpolate=0.5),
                {"zero": 83.4},
            ),
            (
                Variant(
                    name="both, features distilled (FROSTER)",
                    change=_towers(TEXT_FACTOR, distillation=DistillationConfig()),
                ),
                {"zero": 84.8},
            ),
            (Variant(name="both, class descriptions", change=_both_towers, described=True), {}),
        ),
        regimes=("zero", "motion", "full"),
        is_trade_off=True,
        notes=(
            f"Where the text tower learns, it does so at {TEXT_FACTOR:g} of the visual tower's learning rate. Weights "
            "are averaged over the last half of the epochs.",
            "The papers' numbers are of ViT-B/16 trained on Kinetics-400, each with settings of its own: zero-shot on "
            "UCF-101 (mean over three splits), full with 16 frames and 4x3 views. On HMDB-51 and Kinetics-600 they "
            "report: X-CLIP 44.6, 65.2; ViFi-CLIP 51.3, 71.2; Open-VCLIP 53.9, 73.0; FROSTER 54.8, 74.8.",
        ),
    ),
}
"""Name on the command line -> ablation."""


class AblationResult:
    """What an ablation found: a value for each variant, regime and seed."""

    def __init__(self, ablation: Ablation, study: Study, seeds: Sequence[int]) -> None:
        self.ablation = ablation
        self.seeds = seeds
        self.regimes = [regime for regime in ablation.regimes if regime in study.regimes.names()]
        self.values = {
            (variant.name, regime): [study.top1(variant, regime, seed) for seed in seeds]
            for regime in self.regimes
            for variant, _ in ablation.rows
        }

    def table(self, command: str, data: str) -> Table:
        """A row for each variant; the paper's columns only where it has numbers."""
        published = [r for r in self.regimes if any(r in paper for _, paper in self.ablation.rows)]
        rows = [
            (
                variant.name,
                *(percent(self.values[variant.name, regime]) for regime in self.regimes),
                *(paper.get(regime, "") for regime in published),
            )
            for variant, paper in self.ablation.rows
        ]
        seeds = ", ".join(map(str, self.seeds))
        spread = "; ± is the sample standard deviation over them" if len(self.seeds) > 1 else ""
        return Table(
            title=f"{self.ablation.title}: top-1 on {data}, %",
            command=command,
            columns=("", *self.regimes, *(f"paper, {regime}" for regime in published)),
            rows=tuple(rows),
            notes=(f"Seeds {seeds}{spread}.", *self.ablation.notes),
        )

    def trade_off(self) -> dict[str, tuple[MeanStd, MeanStd]]:
        """For `plot_trade_off`: (supervised, zero-shot) of each variant."""
        return {
            variant.name: (
                mean_std(self.values[variant.name, "full"]),
                mean_std(self.values[variant.name, "zero"]),
            )
            for variant, _ in self.ablation.rows
        }

    def points(self) -> dict[str, list[Point]]:
        """For `plot_lines`: a line for each regime."""
        return {
            regime: [
                (_number(variant.name), *mean_std(self.values[variant.name, regime]))
                for variant, _ in self.ablation.rows
            ]
            for regime in self.regimes
        }


def _number(name: str) -> float | str:
    return float(name) if name.replace(".", "").isdecimal() else name


def without_descriptions(ablation: Ablation) -> Ablation:
    """For classes that nobody has described: the same without the rows that need it."""
    rows = tuple((variant, paper) for variant, paper in ablation.rows if not variant.described)
    if len(rows) == len(ablation.rows):
        return ablation
    note = "The row of class descriptions is left out; --descriptions gives them."
    return replace(ablation, rows=rows, notes=(*ablation.notes, note))


def named(names: Iterable[str]) -> dict[str, Ablation]:
    """Ablations by name; "all" are all.

    Raises:
        InputError: there is none of that name.
    """
    names = list(names)
    if "all" in names:
        return ABLATIONS
    for name in names:
        if name not in ABLATIONS:
            raise InputError(f"there is no ablation {name!r}; choose from {', '.join(ABLATIONS)}, or all")
    return {name: ABLATIONS[name] for name in names}
