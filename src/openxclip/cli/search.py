"""`openxclip search`: find videos and moments by words or by example."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from openxclip.cli.options import Json, LoadOptions
from openxclip.inference.options import InferenceOptions

if TYPE_CHECKING:
    from openxclip.search.index import Hit


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Options of `openxclip search`."""

    text: Annotated[
        tyro.conf.Positional[str],
        tyro.conf.arg(help="what to look for, in your own words; none with --video"),
    ] = ""
    index: Annotated[str, tyro.conf.arg(help="folder of the index")]
    video: Annotated[
        str | None, tyro.conf.arg(help="find videos similar to this one, and near duplicates")
    ] = None
    top_k: Annotated[int, tyro.conf.arg(help="number of results to show")] = 10
    rerank: Annotated[
        int, tyro.conf.arg(help="number of candidates to score with video-specific prompts; 0 for none")
    ] = 100
    filter: Annotated[
        str | None,
        tyro.conf.arg(
            help="SQL condition on the columns, e.g. \"duration_seconds < 30 and path like '%cam2%'\""
        ),
    ] = None
    html: Annotated[
        Path | None, tyro.conf.arg(help="also write the results as an HTML page with pictures")
    ] = None
    model: Annotated[
        str | None, tyro.conf.arg(help="current location of the index's model, if it was moved")
    ] = None
    print_json: Json = False
    load: LoadOptions = field(default_factory=LoadOptions)
    inference: InferenceOptions = field(default_factory=InferenceOptions)


def search(options: Annotated[SearchOptions, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]) -> int:
    """Find the windows of an index that match a text or look like a video.

    The nearest embeddings are found first; then the best --rerank of them are scored with video-specific prompts. The
    model is the index's. Scores are comparable within a search, not across searches. Without stored context, candidates
    are decoded again; those that cannot be read are counted and rank behind the others, by the text alone.
    """
    from openxclip.errors import InputError

    if bool(options.text) == (options.video is not None):
        raise InputError("give either a text, or --video with a file")
    for name in ("top_k", "rerank"):
        if getattr(options, name) < (name == "top_k"):
            raise InputError(f"--{name.replace('_', '-')} is {getattr(options, name)}; it is too small")
    import openxclip.search.index as index
    from openxclip.inference.engine import Engine

    settings = index.read_settings(options.index)
    if settings is None:
        raise InputError(f"there is no index at {options.index}; create one with openxclip index")
    source = options.load.source(options.model or settings.model)
    source = replace(source, num_frames=source.num_frames or settings.num_frames)
    if source.dtype == "auto":
        source = replace(source, dtype=settings.dtype)
    found = index.Index.for_search(options.index, Engine.load(source, options.inference))
    if options.video is not None:
        hits = found.similar(options.video, top_k=options.top_k, where=options.filter)
    else:
        hits = found.search(options.text, top_k=options.top_k, rerank=options.rerank, where=options.filter)
    print(json.dumps([asdict(hit) for hit in hits]) if options.print_json else _text(hits))
    if options.html is not None:
        from openxclip.search.sheet import write_sheet

        write_sheet(options.html, options.text or f"like {options.video}", hits)
    return 0


def _text(hits: "Sequence[Hit]") -> str:
    prompted_alike = len({hit.is_prompted for hit in hits}) < 2
    return "\n".join(
        f"{hit.score:6.3f}  {_time(hit.start_seconds)}-{_time(hit.end_seconds)}  {hit.path}"
        + ("  (near duplicate)" if hit.is_near_duplicate else "")
        + ("" if prompted_alike or hit.is_prompted else "  (by the text alone)")
        for hit in hits
    )


def _time(seconds: float) -> str:
    return f"{int(seconds) // 60}:{seconds % 60:04.1f}"
