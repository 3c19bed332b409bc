"""Searching an index: what the two stages find of what prompting everything finds, their time, and their disk.

Rendered clips and the shipped model; then a million vectors as wide as those of B/32.
"""

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks.options import Options
from benchmarks.report import Section
from openxclip import XCLIP, Engine, ModelSource, load
from openxclip.checkpoints.load import Loaded
from openxclip.inference.views import Views
from openxclip.progress import progress_bar
from openxclip.reports.table import Table
from openxclip.search.embedding import IndexRow, window_numbers, window_row
from openxclip.search.index import Index
from openxclip.shapes.clip import ShapesClip
from openxclip.shapes.splits import WORLDS
from openxclip.tagging.decoding import Facts
from openxclip.tagging.sources import Source

SUITE = "search"
NUM_CLIPS, NUM_FILES = 5000, 500
NUM_VECTORS, VECTORS_AT_ONCE = 1_000_000, 50_000
EMBED_DIM = 512  # of B/32
TOP_K, RERANK = 10, 100
BATCH_SIZE = 32


def run(options: Options) -> Section:
    """Recall and time, then size."""
    del options
    engine = Engine.load(ModelSource(source="openxclip-tiny", dtype="float32"))
    with TemporaryDirectory() as folder:
        tables = (two_stages(engine, Path(folder)), million(wide_engine(), Path(folder)))
    return Section(suite=SUITE, tables=tables)


def two_stages(engine: Engine, folder: Path, num_clips: int = NUM_CLIPS, num_files: int = NUM_FILES) -> Table:
    """Every novel class as a query, over clips of novel classes."""
    rng, novel = np.random.default_rng(0), WORLDS["full"].novel
    clips = [ShapesClip(kind=novel[rng.integers(len(novel))], key=f"search-{i}") for i in range(num_clips)]
    kept = Index.open(str(folder / "kept"), engine, "openxclip-tiny")
    _add(kept, _rows(engine, clips))
    queries = [kind.name for kind in novel]
    recalls = []
    for query in queries:
        found = {hit.path for hit in kept.search(query, top_k=TOP_K, rerank=RERANK)}
        everything = {hit.path for hit in kept.search(query, top_k=TOP_K, rerank=num_clips)}
        recalls.append(len(found & everything) / TOP_K)
    whole = _seconds(lambda query: kept.search(query, top_k=TOP_K, rerank=num_clips), queries[:10])
    quick = _seconds(lambda query: kept.search(query, top_k=TOP_K, rerank=RERANK), queries)
    plain = _seconds(lambda query: kept.search(query, top_k=TOP_K, rerank=0), queries)
    again = _decoded_again(engine, folder, clips[:num_files], queries)
    bytes_kept = _bytes(folder / "kept") / num_clips
    return Table(
        title=f"Searching {num_clips:,} rendered clips, {len(queries)} queries",
        command=f"python -m benchmarks {SUITE}",
        columns=("how", "seconds a query", f"recall@{TOP_K}", "bytes a video"),
        rows=(
            ("every clip prompted", f"{whole:.4f}", "1", f"{bytes_kept:.0f}"),
            (
                f"two stages, {RERANK} prompted, context kept",
                f"{quick:.4f}",
                f"{np.mean(recalls):.3f}",
                f"{bytes_kept:.0f}",
            ),
            (
                "nearest embeddings alone",
                f"{plain:.4f}",
                f"{_recall_of_one(kept, queries, num_clips):.3f}",
                "-",
            ),
            (
                f"two stages, {RERANK} decoded again, of {num_files} files",
                f"{again[0]:.4f}",
                "-",
                f"{again[1]:.0f}",
            ),
        ),
        notes=(f"Recall: of the ten that prompting every clip finds. Least of a query: {min(recalls):.1f}.",),
    )


def _recall_of_one(index: Index, queries: Sequence[str], num_clips: int) -> float:
    shares = []
    for query in queries:
        found = {hit.path for hit in index.search(query, top_k=TOP_K, rerank=0)}
        shares.append(
            len(found & {hit.path for hit in index.search(query, top_k=TOP_K, rerank=num_clips)}) / TOP_K
        )
    return float(np.mean(shares))


def _decoded_again(
    engine: Engine, folder: Path, clips: Sequence[ShapesClip], queries: Sequence[str]
) -> tuple[float, float]:
    """Seconds a query, and bytes a video, of an index without context over files."""
    (folder / "files").mkdir()
    for i, clip in enumerate(clips):
        (folder / "files" / f"{i}.mp4").write_bytes(clip.encode())
    index = Index.open(str(folder / "again"), engine, "openxclip-tiny", keep_context=False)
    index.update(str(folder / "files"))
    seconds = _seconds(lambda query: index.search(query, top_k=TOP_K, rerank=RERANK), queries[:5])
    return seconds, _bytes(folder / "again") / len(clips)


def wide_engine(embed_dim: int = EMBED_DIM) -> Engine:
    """The shipped model with wider embeddings and random weights: timing does not depend on their values."""
    torch.manual_seed(0)
    small = load("openxclip-tiny", dtype="float32")
    model = XCLIP(replace(small.model.config, embed_dim=embed_dim)).eval()
    return Engine(Loaded(model, small.tokenizer, small.preprocess))


def million(engine: Engine, folder: Path, num_vectors: int = NUM_VECTORS) -> Table:
    """Random vectors beside those of clips: time of a search, with every row compared and with an index of vectors."""
    index = Index.open(str(folder / "million"), engine, "openxclip-tiny", keep_context=False)
    rng, novel = np.random.default_rng(1), WORLDS["full"].novel
    real = [ShapesClip(kind=kind, key="million") for kind in novel]
    _add(index, _rows(engine, real, with_context=False))
    with progress_bar() as bar:
        task = bar.add_task("vectors", total=num_vectors, note="")
        for start in range(0, num_vectors, VECTORS_AT_ONCE):
            vectors = rng.normal(size=(VECTORS_AT_ONCE, index.settings.embed_dim)).astype(np.float16)
            index.add_rows(
                [_row(f"random {start + i}", vector, vector[:0]) for i, vector in enumerate(vectors)]
            )
            bar.advance(task, VECTORS_AT_ONCE)
    queries = [kind.name for kind in novel[:20]]
    every, of_every = _seconds(lambda query: _nearest(index, query), queries), _peak_gib()
    right = [_nearest(index, query) for query in queries]
    started = time.perf_counter()
    index.build_ann()
    built = time.perf_counter() - started
    quick = _seconds(lambda query: _nearest(index, query), queries)
    found = [_nearest(index, query) for query in queries]
    recall = np.mean([len({*a} & {*b}) / TOP_K for a, b in zip(right, found, strict=True)])
    return Table(
        title=f"Searching {num_vectors:,} vectors of {index.settings.embed_dim} 16-bit numbers",
        command=f"python -m benchmarks {SUITE}",
        columns=("how", "seconds a query", f"recall@{TOP_K}"),
        rows=(
            ("every row", f"{every:.3f}", "1"),
            (f"index of vectors (IVF, built in {built:.0f} s)", f"{quick:.3f}", f"{recall:.2f}"),
        ),
        notes=(
            f"The process' peak memory with torch and adding rows: {of_every:.1f} GiB, after building the index of "
            f"vectors {_peak_gib():.1f} GiB; the table has {_bytes(folder / 'million') / 2**30:.2f} GiB on disk.",
        ),
    )


def _nearest(index: Index, query: str) -> list[str]:
    return [hit.path for hit in index.search(query, top_k=TOP_K, rerank=0)]


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _rows(engine: Engine, clips: Sequence[ShapesClip], *, with_context: bool = True) -> list[IndexRow]:
    """Rows of rendered clips, as indexing computes them, without files."""
    facts = Facts(
        duration_seconds=2.0, fps=16.0, width=128, height=128, codec="none", content_hash=None,
        windows=((0.0, 2.0),), num_windows=1,
    )  # fmt: skip
    rows: list[IndexRow] = []
    with progress_bar() as bar:
        task = bar.add_task("clips", total=len(clips), note="")
        for start in range(0, len(clips), BATCH_SIZE):
            chunk = clips[start : start + BATCH_SIZE]
            pixels = torch.cat([engine.read_views(clip.read, Views()) for clip in chunk])
            for i, numbers in enumerate(window_numbers(engine, with_context, pixels)):
                source = Source(f"{chunk[i].kind.name}/{start + i}")
                row = window_row(engine.model.config.embed_dim, source, facts, 0, numbers[None].float())
                rows.append({**row, **MARKS})
            bar.advance(task, len(chunk))
    return rows


MARKS = {"root": "rendered", "fingerprint": "1"}


def _row(path: str, embedding: np.ndarray, context: np.ndarray) -> IndexRow:
    return {
        "path": path, "start_seconds": 0.0, "end_seconds": 2.0, "duration_seconds": 2.0, "fps": 16.0, "width": 128,
        "height": 128, "codec": "none", "embedding": embedding, "context": context, **MARKS,
    }  # fmt: skip


def _add(index: Index, rows: Sequence[IndexRow]) -> None:
    for start in range(0, len(rows), 1000):
        index.add_rows(rows[start : start + 1000])


def _seconds(search: Callable[[str], object], queries: Sequence[str]) -> float:
    """Median time of a query."""
    search(queries[0])
    times = []
    for query in queries:
        started = time.perf_counter()
        search(query)
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
