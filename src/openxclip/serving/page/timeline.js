// The timeline card: a lane for each label, and the list of segments. Both seek in the player.

const $ = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(0)} %`;
const MAX_LANES = 40, MAX_POINTS = 300, MAX_LISTED = 300, NUM_WITHOUT_SEGMENTS = 3, NUM_COLOURS = 6, NUM_PICTURES = 10;

export function clock(seconds, digits = 1) {
  const units = Math.round(seconds * 10 ** digits), whole = Math.floor(units / 10 ** digits), two = (n) => String(n).padStart(2, "0");
  const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  const fraction = digits ? `.${units % 10 ** digits}` : "";
  return `${hours ? `${hours}:${two(minutes)}` : minutes}:${two(whole % 60)}${fraction}`;
}

// What is drawn of an answer of /v1/timeline: bounded, so that the session can keep it.
export function condensed({ duration_seconds, window_seconds, stride_seconds, labels, segments, windows, breaks, background, thumbnails }) {
  const seen = windows.filter((window) => window.scores);
  const lane = (name, of) => ({ name, points: pointsOf(windows, of) });
  const lanes = lanesOf(labels, segments, seen).map((k) => ({ ...lane(labels[k], (window) => window.scores[k]), colour: k % NUM_COLOURS }));
  if (background) lanes.push(lane("none of these", (window) => window.none));
  const pictures = picturesOf(thumbnails, duration_seconds);
  return { duration_seconds, window_seconds, stride_seconds, lanes, pictures, breaks: breaks.slice(0, MAX_LISTED), segments: segments.slice(0, MAX_LISTED), num_segments: segments.length };
}

// Places of the labels that have segments, as they begin; without any segment of those that come nearest to one.
function lanesOf(labels, segments, seen) {
  const found = [...new Set(segments.map((segment) => labels.indexOf(segment.label)))];
  if (found.length) return found.slice(0, MAX_LANES);
  const best = labels.map((_, k) => seen.reduce((most, window) => Math.max(most, window.scores[k]), 0));
  return [...labels.keys()].sort((a, b) => best[b] - best[a]).slice(0, NUM_WITHOUT_SEGMENTS);
}

// For equal parts of the video the thumbnail nearest to its middle, null where none lies in it.
function picturesOf(thumbnails, duration_seconds) {
  const number = Math.min(NUM_PICTURES, thumbnails.length), part = duration_seconds / number;
  return Array.from({ length: number }, (_, i) => {
    const middle = (i + 0.5) * part, away = ({ seconds }) => Math.abs(seconds - middle);
    const nearest = thumbnails.reduce((best, one) => (away(one) < away(best) ? one : best));
    return away(nearest) <= part / 2 ? nearest : null;
  });
}

// [seconds, score or null] of windows by their middle; of many windows the best of each group.
function pointsOf(windows, of) {
  const size = Math.ceil(windows.length / MAX_POINTS) || 1, points = [];
  for (let start = 0; start < windows.length; start += size) {
    const group = windows.slice(start, start + size), scores = group.filter((window) => window.scores).map(of);
    const middle = (group[0].start_seconds + group[group.length - 1].end_seconds) / 2;
    points.push([middle, scores.length ? Math.max(...scores) : null]);
  }
  return points;
}

export class TimelineView {
  // onSeek(result, seconds) returns what there is to say about it.
  constructor(onSeek) {
    this.onSeek = onSeek;
    this.result = null;
  }

  // result: {name, model, timeline: what `condensed` gives}
  show(result) {
    this.result = result;
    const { timeline } = result, { segments, num_segments } = timeline;
    $("empty").hidden = $("found").hidden = true;
    $("moments").hidden = false;
    $("results").setAttribute("aria-labelledby", "moments-heading");
    $("moments-about").textContent =
      `${result.name}, ${clock(timeline.duration_seconds)}, windows of ${timeline.window_seconds} s every ${timeline.stride_seconds} s. Choose a moment to see it.`;
    $("moments-status").textContent = "";
    $("moments-none").hidden = num_segments > 0 && num_segments === segments.length;
    $("moments-none").textContent = num_segments ? `The first ${segments.length} of ${num_segments}.` : "None of the labels is certain for long enough. The lanes show those that come nearest.";
    $("moments-list").replaceChildren(...segments.map((segment) => this.row(segment)));
    $("moments-gaps").replaceChildren(...timeline.breaks.map((gap) => element("li", { textContent: `${clock(gap.start_seconds)} to ${clock(gap.end_seconds)}: ${gap.reason}` })));
    $("lanes").replaceChildren(this.strip(), ...timeline.lanes.map((lane) => this.lane(lane)), this.axis());
    this.move(0);
  }

  seek(seconds) {
    this.move(seconds);
    $("moments-status").textContent = this.onSeek(this.result, seconds);
  }

  // The player is here now.
  move(seconds) {
    if (!this.result) return;
    $("lanes").style.setProperty("--at", Math.min(1, seconds / this.result.timeline.duration_seconds));
    this.result.timeline.segments.forEach((segment, i) => {
      const isNow = segment.start_seconds <= seconds && seconds < segment.end_seconds;
      $("moments-list").children[i].firstChild.classList.toggle("now", isNow);
    });
  }

  row({ label, start_seconds, end_seconds, score }) {
    const button = element("button", { type: "button", onclick: () => this.seek(start_seconds) });
    button.append(
      element("span", { className: "when", textContent: `${clock(start_seconds)} – ${clock(end_seconds)}` }),
      element("span", { className: "label", textContent: label }),
      element("b", { textContent: percent(score) }),
    );
    const item = element("li");
    item.append(button);
    return item;
  }

  lane({ name, points, colour }) {
    const { duration_seconds, segments } = this.result.timeline;
    const row = element("div", { className: `lane ${colour === undefined ? "" : `colour-${colour}`}` });
    const track = element("div", { className: "track" });
    for (const segment of segments.filter((segment) => segment.label === name)) {
      const stretch = element("i", { title: `${clock(segment.start_seconds)} – ${clock(segment.end_seconds)}` });
      stretch.style.left = `${(100 * segment.start_seconds) / duration_seconds}%`;
      stretch.style.width = `${(100 * (segment.end_seconds - segment.start_seconds)) / duration_seconds}%`;
      track.append(stretch);
    }
    track.append(curve(points, duration_seconds));
    this.seekOnClick(track);
    row.append(element("span", { className: "name", textContent: name }), track);
    return row;
  }

  seekOnClick(track) {
    track.onclick = (event) => {
      const box = track.getBoundingClientRect();
      this.seek(Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * this.result.timeline.duration_seconds);
    };
  }

  strip() {
    const row = element("div", { className: "lane strip" }), track = element("div", { className: "track" });
    for (const picture of this.result.timeline.pictures)
      track.append(picture ? element("img", { alt: "", src: picture.image, title: clock(picture.seconds) }) : element("span"));
    this.seekOnClick(track);
    row.append(element("span", { className: "name" }), track);
    return row;
  }

  axis() {
    const row = element("div", { className: "lane axis" }), track = element("div", { className: "track" });
    for (const part of [0, 1, 2, 3, 4]) track.append(element("span", { textContent: clock((part * this.result.timeline.duration_seconds) / 4, 0) }));
    row.append(element("span", { className: "name" }), track);
    return row;
  }
}

function element(name, values = {}) {
  return Object.assign(document.createElement(name), values);
}

// A line for each run of windows that were seen, 0 to 1 over the length of the video.
function curve(points, duration_seconds) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  let isSeen = false, line = "";
  for (const [seconds, score] of points) {
    if (score !== null) line += `${isSeen ? "L" : "M"}${((100 * seconds) / duration_seconds).toFixed(3)},${(1 - score).toFixed(3)}`;
    isSeen = score !== null;
  }
  svg.setAttribute("viewBox", "0 0 100 1");
  svg.setAttribute("preserveAspectRatio", "none");
  path.setAttribute("d", line);
  svg.append(path);
  return svg;
}
