"""One engine for many callers: shared batches, results as alone, errors and leavers that harm nobody else."""

import threading
import time
from concurrent.futures import CancelledError

import pytest
import torch
from tiny import TINY, tiny_model, tiny_tokenizer
from torch import Tensor
from torch.testing import assert_close

from openxclip.checkpoints.load import Loaded
from openxclip.errors import VideoError
from openxclip.inference.engine import Engine
from openxclip.inference.online import Online
from openxclip.inference.options import InferenceOptions
from openxclip.text.label_texts import LabelTexts
from openxclip.video.transforms import Preprocessor

pytestmark = pytest.mark.on_cpu


@pytest.fixture(scope="module")
def engine() -> Engine:
    loaded = Loaded(tiny_model(), tiny_tokenizer(), Preprocessor.official(32))
    return Engine(loaded, InferenceOptions(batch_size=4))


def clips(seed: int, num_views: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (num_views, TINY.num_frames, 3, 32, 32)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def label_sets(engine: Engine):
    return [
        engine.label_set(LabelTexts(labels=labels)) for labels in (["bade", "kilo"], ["mune", "piro", "suta"])
    ]


class Held:
    """Keeps the model's thread busy until it is let go, so that what arrives meanwhile is one line."""

    def __init__(self, online: Online) -> None:
        self.go, has_begun = threading.Event(), threading.Event()

        def work() -> None:
            has_begun.set()
            self.go.wait(30)

        self.future = online.call(work)
        assert has_begun.wait(30)


def wait_for_line(online: Online, length: int) -> None:
    """Until so much waits for the model."""
    until = time.monotonic() + 30
    while len(online._videos) + len(online._works) - 1 < length:  # beside the one that is held
        assert time.monotonic() < until
        time.sleep(0.005)


def test_videos_of_many_callers_share_batches_and_get_what_they_get_alone(engine) -> None:
    sizes: list[int] = []
    online = Online(engine, num_decoders=2, on_batch=lambda views, _: sizes.append(views))
    first, second = label_sets(engine)
    wanted = [(clips(i, num_views=1 + (i == 3) * 5), (first, second)[i % 2]) for i in range(9)]
    held = Held(online)
    futures = [online.score(lambda pixels=pixels: pixels, labels) for pixels, labels in wanted]
    embedding = online.embed(lambda: clips(20, 2))
    wait_for_line(online, 10)
    held.go.set()
    for future, (pixels, labels) in zip(futures, wanted, strict=True):
        assert_close(future.result(30), engine.probabilities(pixels, labels), atol=1e-5, rtol=1e-5)
    views = engine.model.encode_video(engine.preprocess.normalise(clips(20, 2))).video
    mean = torch.nn.functional.normalize(torch.nn.functional.normalize(views, dim=-1).mean(0), dim=-1)
    assert_close(embedding.result(30), mean.detach(), atol=1e-5, rtol=1e-4)
    online.close()
    assert sum(sizes) == 9 + 5 + 2
    assert max(sizes) == 6, "the video of six views goes alone, in two parts"
    assert sorted(sizes, reverse=True)[1] == 4, "others fill a batch"


def test_an_error_is_its_own_callers(engine) -> None:
    online = Online(engine)
    labels = label_sets(engine)[0]

    def unreadable() -> Tensor:
        raise VideoError("a.mp4", "damaged")

    bad, worse = online.score(unreadable, labels), online.call(lambda: 1 // 0)
    good = online.score(lambda: clips(0), labels)
    with pytest.raises(VideoError, match="damaged"):
        bad.result(30)
    with pytest.raises(ZeroDivisionError):
        worse.result(30)
    assert good.result(30).shape == (2,)
    wrong = online.score(lambda: clips(0)[:, :1], labels)  # one frame: the model refuses it
    with pytest.raises(Exception, match="frame"):
        wrong.result(30)
    assert online.score(lambda: clips(1), labels).result(30).shape == (2,), "the model's thread lives"

    def one_more(value: int):
        yield
        return value + 1

    assert online.after(lambda: 3, one_more).result(30) == 4
    online.close()
    assert not online.is_alive


def test_what_is_cancelled_is_not_computed(engine) -> None:
    sizes: list[int] = []
    online = Online(engine, on_batch=lambda views, _: sizes.append(views))
    labels, held = label_sets(engine)[0], Held(online)
    kept, left = (online.score(lambda i=i: clips(i), labels) for i in range(2))
    wait_for_line(online, 2)
    assert left.cancel()
    held.go.set()
    assert kept.result(30).shape == (2,)
    with pytest.raises(CancelledError):
        left.result(30)
    online.close()
    assert sizes == [1]


def test_closing_finishes_what_was_taken(engine) -> None:
    online = Online(engine)
    labels = label_sets(engine)[0]
    futures = [online.score(lambda i=i: clips(i), labels) for i in range(20)]
    online.close()
    assert all(future.done() and future.result().shape == (2,) for future in futures)


def test_long_work_lets_others_have_their_turn_and_can_be_left(engine) -> None:
    online = Online(engine)
    labels, seen = label_sets(engine)[0], []
    held = Held(online)

    def long(_: int):
        for i in range(100):
            seen.append(i)
            yield

    left = online.after(lambda: 0, long)
    quick = online.score(lambda: clips(0), labels)
    wait_for_line(online, 2)
    quick.add_done_callback(lambda _: seen.append("quick"))
    quick.add_done_callback(lambda _: left.cancel())
    held.go.set()
    assert quick.result(30).shape == (2,)
    online.close()
    assert left.cancelled()
    assert seen in ([0, "quick"], ["quick"])


def test_one_work_is_finished_before_the_next_begins(engine) -> None:
    online, seen = Online(engine), []

    def work(name: str):
        for _ in range(3):
            seen.append(name)
            yield

    held = Held(online)
    futures = [online.after(lambda name=name: name, work) for name in "ab"]
    wait_for_line(online, 2)
    held.go.set()
    for future in futures:
        future.result(30)
    online.close()
    assert seen in (list("aaabbb"), list("bbbaaa"))
