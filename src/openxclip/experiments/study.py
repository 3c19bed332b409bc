"""Trainings that ablations share: each is done once below one folder, and an interrupted study goes on.

clip-seed1/                the image model that a seed starts from, where the study pretrains its own
lists/                     test lists of moving shapes as video files
locks/                     held by the command that trains or scores, while others wait
runs/few-1a2b3c-seed1/     a training; `scores.json` in it holds what was measured of it
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from filelock import FileLock
from torch import Tensor

from openxclip.checkpoints.load import read_model
from openxclip.checkpoints.source import ModelSource
from openxclip.data.descriptions import parse_descriptions
from openxclip.data.media import Item, Manifest
from openxclip.evaluation.evaluate import Read
from openxclip.evaluation.protocols import scorer
from openxclip.files import atomic_write
from openxclip.inference.engine import Engine
from openxclip.inference.views import Views
from openxclip.processes import current
from openxclip.text.descriptions import Descriptions, texts_of
from openxclip.text.label_texts import LabelTexts
from openxclip.training.config import TrainConfig
from openxclip.training.train import train_on

logger = logging.getLogger(__name__)

Regime = Literal["zero", "motion", "few", "full"]
"""Zero-shot, few-shot and fully supervised, as the paper's tables name them; "motion" is zero-shot among candidates
that differ in their motion alone."""

MAX_KEPT_BYTES = 2**30  # of decoded test videos


@contextmanager
def alone(lock_file: Path) -> Iterator[None]:
    """Wait for other commands that share a study's folder; of several processes, the first waits for all."""
    if not current().is_first:
        yield
        return
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock_file, mode=0o666):
        yield


def _same(config: TrainConfig) -> TrainConfig:
    return config


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of an ablation: what it changes, in the training or in the scoring alone."""

    name: str
    """What the table calls it."""
    change: Callable[[TrainConfig], TrainConfig] = _same
    """The training it needs, from the study's own."""
    views: Views = field(default_factory=Views)
    """How a test video is looked at."""
    interpolate: float | None = None
    """Share of the fine-tuned weights beside the image model's (WiSE-FT)."""
    described: bool = False
    """Whether the study's descriptions stand instead of the class names, in training and in scoring."""


@dataclass(frozen=True, kw_only=True)
class Regimes:
    """What is trained and tested in each regime."""

    full: tuple[Manifest, Manifest]
    """Training and test videos of the same classes."""
    few: tuple[Callable[[int], Manifest], Manifest]
    """The few training videos of a seed, and the test."""
    zero: Manifest | None
    """Test videos of classes that `full` does not train, or None where there are none."""

    motion: tuple[Manifest, ...] = ()
    """The test of `zero` in parts, each with the candidates that share all but the motion."""

    def tests(self, regime: Regime) -> tuple[Manifest, ...]:
        """What a regime is tested on: one list, or several that count together; none where there is no test."""
        zero = () if self.zero is None else (self.zero,)
        return {"zero": zero, "motion": self.motion, "few": (self.few[1],), "full": (self.full[1],)}[regime]

    def names(self) -> tuple[Regime, ...]:
        """Those that can be measured."""
        return tuple(regime for regime in get_args(Regime) if self.tests(regime))


class ViewCache:
    """Decoded views of test videos, kept in memory: many variants are scored on the same videos."""

    def __init__(self, max_bytes: int = MAX_KEPT_BYTES) -> None:
        self.max_bytes = max_bytes
        self._views: dict[tuple[object, ...], Tensor] = {}
        self._num_bytes = 0

    def reader(self, engine: Engine, views: Views) -> Read:
        """Reads a video's views for a model, from memory where they are kept."""
        size = engine.preprocess.input_size_px, engine.model.config.num_frames

        def read(item: Item) -> Tensor:
            key = (item.media, item.path, size, views)
            if key in self._views:
                return self._views[key]
            pixels = engine.read_views(item.media.read, views)
            self._num_bytes += pixels.nbytes
            if self._num_bytes <= self.max_bytes:
                self._views[key] = pixels
            return pixels

        return read


class Study:
    """Trains and scores variants below one folder."""

    def __init__(
        self,
        regimes: Regimes,
        recipes: Mapping[Regime, Callable[[int], TrainConfig]],
        output: Path,
        *,
        data: str,
        descriptions: str | None = None,
        device: str = "auto",
        on_work: Callable[[str], None] = lambda what: None,
    ) -> None:
        """`recipes` give the config of a regime for a seed; "zero" is tested with what "full" trains.

        `descriptions` are for the variants that ask for them, as `parse_descriptions` takes them.

        Raises:
            InputError: the descriptions cannot be read, or a class of a regime has none.
        """
        self.texts = {descriptions: parse_descriptions(descriptions)}
        for regime in regimes.names():
            for test in regimes.tests(regime):
                texts_of(test.labels, self.texts[descriptions])
        self.regimes = regimes
        self.recipes = recipes
        self.output = output
        self.data = data
        self.descriptions = descriptions
        self.device = device
        self.on_work = on_work
        self._cache = ViewCache()

    def _descriptions(self, config: TrainConfig) -> Descriptions | None:
        """Those of a training, read once for the whole study."""
        if config.descriptions not in self.texts:
            self.texts[config.descriptions] = parse_descriptions(config.descriptions)
        return self.texts[config.descriptions]

    def top1(self, variant: Variant, regime: Regime, seed: int) -> float:
        """Train the variant if that was not done yet, score it if that was not done yet -> share in 0..1."""
        trained: Regime = "few" if regime == "few" else "full"
        config = variant.change(self.recipes[trained](seed))
        if variant.described:
            config = replace(config, descriptions=self.descriptions)
        clips = self.regimes.few[0](seed) if trained == "few" else self.regimes.full[0]
        run = self.output / "runs" / f"{trained}-{self._digest(config, clips)}-seed{seed}"
        tests = self.regimes.tests(regime)
        lists = " + ".join(f"{test.name} {test.fingerprint()}" for test in tests)
        key = f"{lists}, {variant.views}, {variant.interpolate}"
        with alone(self.output / "locks" / f"{run.name}.lock"):
            scores = current().from_first(partial(_known_scores, run / "scores.json"))
            if key not in scores:
                self.on_work(f"{variant.name}, {regime}, seed {seed}")
                self._train(config, clips, run)
                scores[key] = self._score(run, config, variant, tests)
                if current().is_first:
                    with atomic_write(run / "scores.json") as temporary:
                        temporary.write_text(json.dumps(scores, indent=1))
        return scores[key]

    def _train(self, config: TrainConfig, clips: Manifest, run: Path) -> None:
        descriptions = self._descriptions(config)
        train_on(config, clips, None, run, descriptions=descriptions, device=self.device, data=self.data)

    def _digest(self, config: TrainConfig, clips: Manifest) -> str:
        """Names a training by its settings, clips, start and texts, wherever the study's folder lies."""
        init = config.init and config.init.removeprefix(str(self.output.resolve()))
        settings = asdict(replace(config, init=init, descriptions=None))
        values = [settings, clips.fingerprint(), self._descriptions(config)]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:6]

    def _score(self, run: Path, config: TrainConfig, variant: Variant, tests: Sequence[Manifest]) -> float:
        """Top-1 over the videos of all tests."""
        loaded, _ = read_model(
            ModelSource(
                source=str(run),
                device=self.device,
                dtype="float32",
                interpolate=variant.interpolate,
                image_model=None if variant.interpolate is None else config.init,
            )
        )
        engine = Engine(loaded)

        def texts(labels: Sequence[str]) -> LabelTexts:
            descriptions = self._descriptions(config)
            return LabelTexts(labels=labels, templates=config.templates, descriptions=descriptions)

        score = scorer(engine, variant.views, texts, read=self._cache.reader(engine, variant.views))
        evaluations = [score(test) for test in tests]
        for evaluation in evaluations:
            if evaluation.num_unreadable:
                logger.warning(
                    "%s: %d of %d videos cannot be read and are not counted",
                    evaluation.data,
                    evaluation.num_unreadable,
                    evaluation.num_videos,
                )
        counts = [evaluation.num_videos - evaluation.num_unreadable for evaluation in evaluations]
        right = [evaluation.top1 * count for evaluation, count in zip(evaluations, counts, strict=True)]
        return sum(right) / sum(counts)


def _known_scores(path: Path) -> dict[str, float]:
    """What was scored before, in this call or an earlier one."""
    return json.loads(path.read_text()) if path.exists() else {}
