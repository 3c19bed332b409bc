"""The web page, as a person uses it: real headless Chromium against a real server. Screenshots are kept in docs/."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from screenshots import CHROMIUM, keep_screenshot
from server import RunningServer, running_server
from videos import write_video

from openxclip.shapes.examples import EXAMPLE_LABELS, example_clips
from openxclip.shapes.long import LongVideo, usual_labels

playwright = pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.on_cpu

if CHROMIUM is None:
    pytest.skip("needs Chromium from the system's packages (scripts/browser.sh)", allow_module_level=True)

DESKTOP, PHONE = {"width": 1280, "height": 1250}, {"width": 390, "height": 844}
LABELS = list(EXAMPLE_LABELS)
ARGUMENTS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[RunningServer]:
    scratch = tmp_path_factory.mktemp("scratch")
    with running_server(
        scratch, "--model", "openxclip-tiny", "--dtype", "float32", "--max-megabytes", "2"
    ) as running:
        yield running


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    paths = []
    for clip in example_clips():
        paths.append(folder / f"{clip.kind.name}.mp4")
        paths[-1].write_bytes(clip.encode())
    return paths


class Visit:
    """A page of a fresh profile. Everything that it fetches and every error of its code is watched."""

    def __init__(self, browser, url: str, **settings) -> None:
        self.context = browser.new_context(**{"viewport": DESKTOP, "accept_downloads": True, **settings})
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on(
            "console", lambda message: self.errors.append(message.text) if "Refused" in message.text else None
        )
        self.page.goto(url)
        self.url = url

    def close(self) -> None:
        self.context.close()
        assert self.errors == []
        outside = [url for url in self.requests if not url.startswith((self.url, "blob:", "data:"))]
        assert outside == [], "nothing is fetched from outside"

    def recognise(self) -> None:
        self.page.get_by_role("button", name="Recognise").click()

    def best(self) -> str:
        self.page.wait_for_selector("#why:not([hidden]) #frames canvas")
        return self.page.locator("#best").inner_text()

    def error(self, place: str) -> str:
        box = self.page.locator(f"#{place}-error")
        box.wait_for(state="visible")
        assert box.get_attribute("role") == "alert"
        return box.inner_text()


@pytest.fixture
def visit(browser, server):
    visits: list[Visit] = []

    def begin(url: str = server.url, **settings) -> Visit:
        visits.append(Visit(browser, url, **settings))
        return visits[-1]

    yield begin
    for one in visits:
        one.close()


def until(page, expression: str) -> None:
    """Wait for something to be true in the page. Its policy forbids what the library's own way to wait needs."""
    end = time.monotonic() + 30
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(20)


def press_for_a_file(page):
    """The dialog that Space opens. On a busy machine Chromium may drop the first one that is asked for."""
    for _ in range(5):
        try:
            with page.expect_file_chooser(timeout=5000) as chooser:
                page.keyboard.press("Space")
        except playwright.TimeoutError:
            continue
        return chooser.value
    raise AssertionError("Space opens no dialog")


def add_labels(page, labels: list[str]) -> None:
    for label in labels:
        page.locator("#chip-input").fill(label)
        page.keyboard.press("Enter")


CONTRASTS = """() => {
  const channel = value => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const numbers = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest(".visually-hidden, .skip, noscript")) continue;
    const style = getComputedStyle(element), ink = numbers(style.color);
    if (element.disabled || element.closest(":disabled")) continue;
    const pages = [];
    for (let at = element; at; at = at.parentElement) {
      const around = getComputedStyle(at);
      if (around.backgroundImage !== "none") {
        pages.push(...around.backgroundImage.match(/rgba?\\([^)]*\\)/g).map(numbers));
      }
      const paint = numbers(around.backgroundColor);
      if (paint.length === 3 || paint[3] > 0) { pages.push(paint); break; }
    }
    for (const page of pages) {
      const [a, b] = [light(ink), light(page)].sort((x, y) => y - x);
      found.push([(a + 0.05) / (b + 0.05), element.tagName + ": " + element.textContent.trim().slice(0, 30)]);
    }
  }
  return found;
}"""


EDGES = """() => {
  const channel = value => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  return [...document.querySelectorAll("select, .button, .chips, .drop, main button:not(li li button)")]
    .filter(element => element.checkVisibility() && !element.disabled && !element.closest(".chips li")).map(element => {
      const edge = light(numbers(getComputedStyle(element).borderTopColor));
      const around = light(numbers(getComputedStyle(element.closest(".card")).backgroundColor));
      return [(Math.max(edge, around) + 0.05) / (Math.min(edge, around) + 0.05), element.outerHTML.slice(0, 60)];
    });
}"""


LANE_CONTRASTS = """() => {
  const channel = value => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  return [...document.querySelectorAll("#lanes path")].map(path => {
    const line = light(numbers(getComputedStyle(path).stroke));
    const track = light(numbers(getComputedStyle(path.closest(".track")).backgroundColor));
    return (Math.max(line, track) + 0.05) / (Math.min(line, track) + 0.05);
  });
}"""


# --- what most people do ----------------------------------------------------------------------------------------


def test_an_example_in_one_click(visit) -> None:
    one = visit()
    keep_screenshot_after_examples(one.page, "page-empty.png")
    one.page.get_by_role("button", name="Try the example: green ring rising").click()
    assert one.best() == "green ring rising"
    until(one.page, "document.activeElement.id === 'results'")  # the example's button is gone
    assert one.page.locator("#frames canvas").count() == 8
    assert one.page.locator("#bars button").count() == 10
    assert one.page.locator("#words li").count() == 3
    until(one.page, "!document.querySelector('#go').disabled")
    until(one.page, "document.querySelector('#player').readyState > 2")
    one.page.evaluate("scrollTo(0, 0)")
    keep_screenshot(one.page, "page.png")


def keep_screenshot_after_examples(page, name: str) -> None:
    until(page, "document.querySelectorAll('#examples video').length === 6")
    page.evaluate(
        "document.querySelectorAll('#examples video').forEach(v => { v.pause(); v.currentTime = 1; })"
    )
    until(
        page, "[...document.querySelectorAll('#examples video')].every(v => !v.seeking && v.readyState > 1)"
    )
    keep_screenshot(page, name)


def test_upload_labels_and_the_result_of_each(visit, clips) -> None:
    one = visit()
    one.page.locator("#file").set_input_files(clips[2])
    add_labels(one.page, ["purple bar shrinking", "purple bar growing", 'a <b>$5</b> & "x"'])
    one.recognise()
    assert one.best() == "purple bar growing"
    rows = one.page.locator("#bars button").all_inner_texts()
    assert rows[0].startswith("purple bar growing")
    assert 'a <b>$5</b> & "x"' in " ".join(rows)
    shares = [float(re.search(r"([\d.]+) %", row)[1]) for row in rows]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.2)


def test_the_heat_belongs_to_the_label_and_the_map_that_are_chosen(visit) -> None:
    one = visit()
    one.page.get_by_role("button", name="Try the example: cyan cross bouncing").click()
    one.best()
    until(one.page, "!document.querySelector('#go').disabled")

    def picture() -> str:
        return one.page.evaluate("document.querySelector('#frames canvas').toDataURL()")

    seen = {picture()}
    for kind in ("sensitivity", "none"):
        one.page.locator(f"#maps [value={kind}]").check()
        seen.add(picture())
    assert len(seen) == 3
    one.page.locator("#maps [value=sensitivity]").check()
    fifth = one.page.locator("#bars button").nth(4)  # not explained at once
    name = fifth.locator("span").inner_text()
    fifth.click()
    until(one.page, f"document.querySelector('#why-title').textContent.includes({name!r})")
    assert fifth.get_attribute("aria-pressed") == "true"
    until(one.page, "document.querySelector('#frames canvas') !== null")
    assert picture() not in seen


def test_a_label_set_in_place_of_labels_and_a_closer_look(visit, clips) -> None:
    one = visit()
    one.page.locator("#file").set_input_files(clips[0])
    one.page.locator("#label-set").select_option("hmdb51")
    assert not one.page.locator("#chip-input").is_visible()
    one.page.locator("#views").select_option("4x3")
    one.recognise()
    one.best()
    asked = [url for url in one.requests if "/v1/predict" in url]
    assert len(asked) == 2, "once quickly, then closely"


def test_record_with_the_camera(visit) -> None:
    one = visit(permissions=["camera"])
    one.page.get_by_role("button", name="Record with the camera").click()
    stop = one.page.get_by_role("button", name="Stop recording")
    stop.wait_for(state="visible")
    one.page.wait_for_timeout(1500)
    stop.click()
    until(one.page, "document.querySelector('#file-name').textContent === 'recording.webm'")
    add_labels(one.page, ["a test picture", "surfing"])
    one.recognise()
    assert one.best() in ("a test picture", "surfing")


def test_a_chip_is_removed_while_another_is_being_typed(visit) -> None:
    one = visit()
    add_labels(one.page, ["one", "two"])
    one.page.locator("#chip-input").fill("three")
    one.page.get_by_role("button", name="Remove one").click()
    one.page.locator("#label-set").focus()
    assert one.page.locator("#chip-list li").count() == 2
    labels = [text.split("\n")[0] for text in one.page.locator("#chip-list li").all_inner_texts()]
    assert labels == ["two", "three"]


# --- what happens when -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def eventful_path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("eventful") / "eventful.mp4"
    LongVideo(key="web", seconds=60.0, labels=usual_labels(), quiet_seconds=9.0).write(path)
    return path


LANES = "#lanes .lane:not(.axis, .strip)"


def ask_timeline(one: Visit, path: Path, labels: list[str], window: str = "2") -> None:
    one.page.locator("#file").set_input_files(path)
    add_labels(one.page, labels)
    one.page.locator("#window").select_option(window)
    one.page.get_by_role("button", name="Timeline").click()


def wait_for_moments(one: Visit) -> None:
    until(one.page, "!document.querySelector('#moments').hidden && !document.querySelector('#go').disabled")


def player_seconds(one: Visit) -> float:
    one.page.evaluate("document.querySelector('#player').pause()")
    return one.page.evaluate("document.querySelector('#player').currentTime")


def test_a_timeline_and_its_moments_in_the_player(visit, eventful_path) -> None:
    one = visit()
    one.page.locator("#quiet").check()
    ask_timeline(one, eventful_path, list(usual_labels()))
    wait_for_moments(one)
    rows = one.page.locator("#moments-list button")
    labels = [row.split("\n")[1] for row in rows.all_inner_texts()]
    assert labels == ["cyan ring rising", "cyan ring rising", "blue bar moving left"]
    assert one.page.locator("#status").inner_text() == f"{rows.count()} segments."
    names = one.page.locator(f"{LANES} .name").all_inner_texts()
    assert names == ["cyan ring rising", "blue bar moving left", "none of these"]
    assert one.page.locator(LANES).first.locator("i").count() == 2
    widths = one.page.evaluate(
        "[...document.querySelectorAll('#lanes img')].map(image => image.naturalWidth)"
    )
    assert widths == [160] * 10
    last = rows.last
    start = float(re.match(r"0:(\d+\.\d)", last.inner_text())[1])
    last.click()
    assert player_seconds(one) == pytest.approx(start, abs=0.1)
    assert "now" in last.get_attribute("class")
    for track in (one.page.locator(f"{LANES} .track").first, one.page.locator("#lanes .strip .track")):
        one.page.evaluate("document.querySelector('#player').currentTime = 0")
        box = track.bounding_box()
        track.click(position={"x": box["width"] / 2, "y": 5})
        assert player_seconds(one) == pytest.approx(30.0, abs=0.3)
    until(one.page, "document.querySelector('#player').readyState > 1")
    one.page.evaluate("scrollTo(0, 0)")
    keep_screenshot(one.page, "page-timeline.png")


def test_a_timeline_is_saved_as_a_page_without_links(visit, browser, eventful_path, tmp_path) -> None:
    one = visit()
    ask_timeline(one, eventful_path, list(usual_labels()))
    wait_for_moments(one)
    rows = one.page.locator("#moments-list button").all_inner_texts()
    with one.page.expect_download() as download:
        one.page.locator("#share-moments").click()
    assert download.value.suggested_filename == "eventful timeline.html"
    path = tmp_path / "saved.html"
    download.value.save_as(path)
    assert not re.search(r"<script|<a |https?://|url\(", path.read_text(encoding="utf-8"))
    saved = Visit(browser, path.as_uri(), offline=True)
    assert saved.page.locator("ol li").count() == len(rows)
    assert rows[0].split("\n")[1] in saved.page.locator("ol li").first.inner_text()
    widths = saved.page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert widths == [160] * 10
    assert saved.page.locator(".lane i").count() == len(rows)
    assert saved.requests[0] == path.as_uri()
    saved.close()


def test_progress_is_shown_and_a_timeline_can_be_stopped(browser, tmp_path) -> None:
    """A server whose model is large enough that there is something to see."""
    video = write_video(tmp_path / "endless.mp4", num_frames=1200, fps=2)
    with running_server(tmp_path / "scratch", "--model", "openxclip-tiny", "--dtype", "float32") as server:
        one = Visit(browser, server.url)
        ask_timeline(one, video, ["a", "b"], window="1")
        until(one.page, "document.querySelector('#status').textContent.includes('of 10:00')")
        bar = one.page.locator("#progress")
        first = int(bar.get_attribute("aria-valuenow"))
        until(
            one.page, f"Number(document.querySelector('#progress').getAttribute('aria-valuenow')) > {first}"
        )
        one.page.get_by_role("button", name="Stop", exact=True).click()
        until(one.page, "document.querySelector('#status').textContent === 'Stopped.'")
        assert one.page.locator("#general-error").is_hidden()
        assert one.page.locator("#cancel").is_hidden()
        assert one.page.locator("#go-timeline").is_enabled()
        assert one.page.locator("#moments").is_hidden()
        one.close()


def test_a_timeline_that_fails_says_why(browser, visit, tmp_path) -> None:
    one = visit()
    one.page.get_by_role("button", name="Timeline").click()
    assert "Choose a video first" in one.error("video")
    wrong = tmp_path / "notes.mp4"
    wrong.write_text("these are notes")
    ask_timeline(one, wrong, ["a", "b"])
    assert "cannot be read" in one.error("video")
    limits = ("--timeline-deadline-seconds", "0.5")
    with running_server(tmp_path / "scratch", "--model", "openxclip-tiny", *limits) as server:
        late = Visit(browser, server.url)
        video = write_video(tmp_path / "endless.mp4", num_frames=1200, fps=2)
        ask_timeline(late, video, ["a", "b"], window="1")
        assert "0.5 s" in late.error("general")
        late.close()


def test_a_timeline_without_segments_shows_what_comes_nearest(visit, tmp_path) -> None:
    video = write_video(tmp_path / "even.mp4", num_frames=100, fps=5)
    one = visit()
    one.page.locator("#quiet").check()
    ask_timeline(one, video, LABELS)
    wait_for_moments(one)
    assert one.page.locator("#moments-list li").count() == 0
    assert "nearest" in one.page.locator("#moments-none").inner_text()
    names = one.page.locator(f"{LANES} .name").all_inner_texts()
    assert len(names) == 4
    assert names[-1] == "none of these"


def test_a_timeline_by_keyboard_alone_and_again_after_a_reload(visit, eventful_path) -> None:
    one = visit()
    one.page.locator("#file").set_input_files(eventful_path)
    add_labels(one.page, list(usual_labels()))
    one.page.locator("#window").select_option("2")
    one.page.locator("#go").focus()
    one.page.keyboard.press("Tab")
    assert one.page.evaluate("document.activeElement.id") == "go-timeline"
    for _ in range(2):
        one.page.keyboard.press("Tab")
    assert one.page.evaluate("document.activeElement.id") == "quiet"
    one.page.keyboard.press("Space")
    one.page.locator("#go-timeline").focus()
    one.page.keyboard.press("Enter")
    wait_for_moments(one)
    one.page.locator("#results").focus()
    one.page.keyboard.press("Tab")
    assert "cyan ring" in one.page.evaluate("document.activeElement.textContent")
    one.page.keyboard.press("Enter")
    begin = one.page.evaluate("document.activeElement.firstChild.textContent")
    assert player_seconds(one) == pytest.approx(float(re.match(r"0:(\d+\.\d)", begin)[1]), abs=0.1)
    outline = one.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none", "the focus is visible"
    one.page.reload()
    one.page.locator("#history button").click()
    assert "cyan ring" in one.page.locator("#moments-list button").first.inner_text()
    one.page.locator("#moments-list button").first.click()
    assert "not kept" in one.page.locator("#moments-status").inner_text()
    assert one.page.locator("#found").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_timeline_on_a_phone_in_both_themes(scheme, visit, eventful_path) -> None:
    one = visit(viewport=PHONE, color_scheme=scheme, has_touch=True, is_mobile=True)
    ask_timeline(one, eventful_path, [*usual_labels()[:5], "a label of very many words " * 4])
    wait_for_moments(one)
    assert one.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert [text for ratio, text in one.page.evaluate(CONTRASTS) if ratio < 4.5] == []
    assert [control for ratio, control in one.page.evaluate(EDGES) if ratio < 3] == []
    colours = one.page.evaluate(LANE_CONTRASTS)
    assert len(colours) == one.page.locator("#lanes path").count() > 0
    assert min(colours) >= 3
    heights = one.page.evaluate(
        "[...document.querySelectorAll('#moments-list button')].map(button => button.offsetHeight)"
    )
    assert min(heights) >= 44, "large enough for a finger"


# --- what can go wrong ------------------------------------------------------------------------------------------


def test_a_wrong_file_a_large_file_and_nothing_at_all(visit, tmp_path, clips) -> None:
    one = visit()
    one.recognise()
    assert "Choose a video first" in one.error("video")
    wrong = tmp_path / "notes.mp4"
    wrong.write_text("these are notes")
    one.page.locator("#file").set_input_files(wrong)
    one.recognise()
    assert "at least two labels" in one.error("labels")
    add_labels(one.page, ["a", "b"])
    one.recognise()
    assert "cannot be read" in one.error("video")
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(2_500_000))
    one.page.get_by_role("button", name="Another video").click()
    one.page.locator("#file").set_input_files(large)
    assert "2.5 MB" in one.error("video")
    one.page.locator("#file").set_input_files(clips[0])
    add_labels(one.page, ["c" * 250])
    one.recognise()
    assert "250 characters" in one.error("labels")
    assert one.page.locator("#found").is_hidden()


def test_a_server_that_is_gone_is_named(browser, tmp_path, clips) -> None:
    with running_server(tmp_path / "scratch", "--model", "openxclip-tiny") as server:
        one = Visit(browser, server.url)
        one.page.locator("#file").set_input_files(clips[0])
        add_labels(one.page, ["a", "b"])
        server.stop()
        one.recognise()
        assert "does not answer" in one.error("general")
        one.close()


def test_a_key_is_asked_for_where_the_server_wants_one(browser, tmp_path) -> None:
    (tmp_path / "keys").write_text("open-sesame\n")
    with running_server(tmp_path / "scratch", "--api-key-file", str(tmp_path / "keys")) as server:
        one = Visit(browser, server.url)
        assert "API key" in one.error("general")
        one.page.locator("#key").fill("сезам")
        one.page.keyboard.press("Tab")
        assert "ASCII" in one.error("general")
        one.page.locator("#key").fill("open-sesame")
        one.page.keyboard.press("Enter")
        one.page.get_by_role("button", name="Try the example: white star orbiting").click()
        assert one.best() == "white star orbiting"
        one.close()


# --- for everybody ----------------------------------------------------------------------------------------------


def test_by_keyboard_alone(visit, clips) -> None:
    one = visit()
    until(one.page, "document.querySelectorAll('#examples video').length === 6")

    def focused(what: str) -> str:
        return one.page.evaluate(f"document.activeElement.{what}")

    def tab_to(name: str) -> None:
        for _ in range(40):
            one.page.keyboard.press("Tab")
            if focused("id") == name:
                return
        raise AssertionError(f"{name} is not reached by Tab")

    one.page.keyboard.press("Tab")
    assert focused("className") == "skip"
    tab_to("file")
    press_for_a_file(one.page).set_files(clips[5])
    tab_to("chip-input")
    one.page.keyboard.type("white star zigzagging, white star orbiting, gone,")
    one.page.keyboard.press("Backspace")
    tab_to("go")
    one.page.keyboard.press("Enter")
    assert one.best() == "white star orbiting"
    assert one.page.locator("#bars button").count() == 2
    until(one.page, "!document.querySelector('#go').disabled")
    assert "white star orbiting" in one.page.locator("#status").inner_text(), "said by a screen reader"
    one.page.locator("#bars button").first.focus()
    one.page.keyboard.press("Tab")
    one.page.keyboard.press("Enter")
    until(one.page, "document.querySelector('#why-title').textContent.includes('zigzagging')")
    outline = one.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none", "the focus is visible"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_in_both_themes(scheme, visit) -> None:
    one = visit(viewport=PHONE, color_scheme=scheme, has_touch=True, is_mobile=True)
    one.page.get_by_role("button", name="Try the example: orange triangle spinning clockwise").click()
    assert one.best() == "orange triangle spinning clockwise"
    until(one.page, "!document.querySelector('#go').disabled")
    width = one.page.evaluate("document.documentElement.scrollWidth")
    assert width <= PHONE["width"], "nothing has to be scrolled sideways"
    background = one.page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = np.mean([int(value) for value in re.findall(r"\d+", background)[:3]])
    assert (brightness < 60) == (scheme == "dark")
    contrasts = one.page.evaluate(CONTRASTS)
    assert len(contrasts) > 40
    assert [text for ratio, text in contrasts if ratio < 4.5] == []
    edges = one.page.evaluate(EDGES)
    assert len(edges) > 10
    assert [control for ratio, control in edges if ratio < 3] == []
    one.page.locator("#results").evaluate("element => element.scrollIntoView()")
    keep_screenshot(one.page, f"page-phone-{scheme}.png")


def test_the_theme_can_be_switched(visit) -> None:
    one = visit(color_scheme="light")

    def background() -> str:
        return one.page.evaluate("getComputedStyle(document.body).backgroundColor")

    light = background()
    one.page.locator("#theme").click()
    assert background() != light
    one.page.locator("#theme").click()
    assert background() == light


def test_every_control_has_a_name(visit) -> None:
    one = visit()
    one.page.get_by_role("button", name="Try the example: red circle moving left").click()
    one.best()
    nameless = one.page.evaluate("""() => [...document.querySelectorAll("button, input, select, video, canvas")]
      .filter(e => e.checkVisibility() && !(e.ariaLabel || e.textContent.trim() || (e.labels && e.labels.length)
        || e.closest("button[aria-label]"))).map(e => e.outerHTML)""")
    assert nameless == []


# --- keeping results --------------------------------------------------------------------------------------------


def test_a_result_is_saved_as_a_page_without_links(visit, browser, tmp_path) -> None:
    one = visit()
    one.page.get_by_role("button", name="Try the example: white star orbiting").click()
    one.best()
    until(one.page, "!document.querySelector('#go').disabled")
    one.page.locator("#bars button").nth(1).click()  # explained as well, and what is saved
    second = one.page.locator("#bars button").nth(1).locator("span").inner_text()
    until(one.page, f"document.querySelector('#why-title').textContent.includes({second!r})")
    with one.page.expect_download() as download:
        one.page.get_by_role("button", name="Save as a page").click()
    assert download.value.suggested_filename == "white star orbiting.html"
    path = tmp_path / "saved.html"
    download.value.save_as(path)
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"<script|<a |https?://|url\(", text)
    saved = Visit(browser, path.as_uri(), offline=True)
    assert saved.page.locator("h1").inner_text() == "white star orbiting"
    assert saved.page.locator("h2").inner_text() == f"What the prompt reads: {second}"
    widths = saved.page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert widths == [256] * 8
    assert saved.requests[0] == path.as_uri()
    saved.close()


def test_earlier_results_come_back_also_after_a_reload(visit) -> None:
    one = visit()
    for name in ("green ring rising", "purple bar growing"):
        example = one.page.get_by_role("button", name=f"Try the example: {name}")
        if not example.is_visible():  # the empty state is gone: by a file, as people do it
            one.page.reload()
        example.click()
        assert one.best() == name
        until(one.page, "!document.querySelector('#go').disabled")
    one.page.reload()
    earlier = one.page.locator("#history button")
    assert earlier.count() == 2
    earlier.nth(1).click()
    assert one.best() == "green ring rising"
    one.page.locator("#bars button").nth(7).click()
    until(one.page, "document.querySelector('#why-status').textContent.includes('not kept')")
    assert one.page.locator("#frames canvas").count() == 0, "nothing of another label is left"
    last = one.page.locator("#bars button").nth(7).locator("span").inner_text()
    assert last in one.page.locator("#why-title").inner_text()
