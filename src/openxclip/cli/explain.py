"""`openxclip explain`: show why a label got its score."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from openxclip.caches import cache_folder
from openxclip.cli.options import Json, LabelNames, LimitOptions, LoadOptions, Model, PromptOptions
from openxclip.inference.options import InferenceOptions

if TYPE_CHECKING:
    from openxclip.inference.explain import Explanation
    from openxclip.inference.recognizer import Recognizer


@dataclass(frozen=True, kw_only=True)
class ExplainOptions:
    """Options of `openxclip explain`."""

    video: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(help="a video file")]
    labels: LabelNames
    explain: Annotated[
        str | None, tyro.conf.arg(help='which of the labels to explain, as "a, b"; by default the best')
    ] = None
    top_k: Annotated[int, tyro.conf.arg(help="number of best labels to explain")] = 3
    model: Model = "microsoft/xclip-base-patch32"
    output: Annotated[Path, tyro.conf.arg(help="folder for pictures and numbers")] = Path("explanation")
    film: Annotated[
        Literal["webp", "mp4", "none"], tyro.conf.arg(help="format of each label's animation")
    ] = "webp"
    print_json: Json = False
    prompts: PromptOptions = field(default_factory=PromptOptions)
    load: LoadOptions = field(default_factory=lambda: LoadOptions(dtype="float32"))
    limits: LimitOptions = field(default_factory=LimitOptions)
    inference: InferenceOptions = field(default_factory=lambda: InferenceOptions(text_cache=cache_folder()))


def explain(options: Annotated[ExplainOptions, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]) -> int:
    """Show why labels got their scores: where the model looks, and which frames and words its score depends on.

    Writes explanation.png, explanation.json and an animation for each label (label-1.webp, best first) into the
    output folder. Weights are float32 unless --dtype is given: small differences need the precision.
    """
    from openxclip.errors import InputError
    from openxclip.text.labels import parse_labels

    if options.top_k < 1:
        raise InputError(f"--top-k must be at least 1, got {options.top_k}")
    labels = parse_labels(options.labels)
    wanted = None if options.explain is None else [name.strip() for name in options.explain.split(",")]
    texts, limits = options.prompts.texts(tuple(labels)), options.limits.limits()

    from openxclip.inference.explain import ids_of

    if wanted is not None:
        ids_of(labels, wanted)  # fail early
    import openxclip.reports.explanation  # noqa: F401  fail early, if matplotlib is missing
    from openxclip.inference.engine import Engine
    from openxclip.inference.recognizer import Recognizer

    engine = Engine.load(options.load.source(options.model), options.inference)
    found = _explained(Recognizer(engine, texts, limits), options.video, wanted, options.top_k)
    _write(options.output, found, options.film)
    print(json.dumps(found.numbers()) if options.print_json else _text(found, options.output))
    return 0


def _explained(recognizer: "Recognizer", video: Path, wanted: list[str] | None, top_k: int) -> "Explanation":
    """`Recognizer.explain` with a progress bar."""
    from openxclip.progress import progress_bar
    from openxclip.steps import finished

    with progress_bar() as bar:
        task = bar.add_task("explaining", total=None, note="")
        steps = recognizer.explain_in_steps(video, wanted, top_k=top_k)
        return finished(steps, lambda total: bar.update(task, total=total, advance=1))


def _write(folder: Path, explanation: "Explanation", film: str) -> None:
    from openxclip.files import atomic_write, write_json
    from openxclip.reports.explanation import write_explanation, write_film

    folder.mkdir(parents=True, exist_ok=True)
    write_explanation(folder / "explanation.png", explanation)
    for place, label in enumerate(explanation.labels, start=1):
        if film != "none":
            write_film(folder / f"label-{place}.{film}", explanation.frames, label)
    with atomic_write(folder / "explanation.json") as temporary:
        write_json(temporary, explanation.numbers())


def _text(explanation: "Explanation", folder: Path) -> str:
    lines = [explanation.path]
    for label in explanation.labels:
        frames = label.frame_relevance.argsort(descending=True)[:3] + 1
        lines.append(f"  {label.probability:6.1%}  {label.label}")
        lines.append(f"          most relevant frames: {', '.join(map(str, frames.tolist()))}")
        if label.words:
            words = ", ".join(f"{word} {loss:+.2f}" for word, loss in label.words)
            lines.append(f"          without each word the log-odds lose: {words}")
    lines.append(f"  pictures: {folder / 'explanation.png'}")
    return "\n".join(lines)
