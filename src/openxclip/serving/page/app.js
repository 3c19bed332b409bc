// The page: a video and labels go to the server, a ranking and its reasons come back, or a timeline.

import { Problem, apiKey, follow, get, post, setApiKey } from "./api.js";
import { Chips } from "./chips.js";
import { record } from "./recorder.js";
import { Results } from "./results.js";
import { save, sharedPage, sharedTimeline } from "./share.js";
import { TimelineView, clock, condensed } from "./timeline.js";

const $ = (id) => document.getElementById(id);
const TOP_K = 10, NUM_EXPLAINED = 3, MAX_HISTORY = 12;
const HISTORY = "openxclip-history";

const state = { file: null, limits: null, model: "", isBusy: false, history: [], news: "" };
const chips = new Chips($("chip-list"), $("chip-input"), () => showError("labels", ""));
const results = new Results(explainMore);
const moments = new TimelineView(seek);

// --- messages -----------------------------------------------------------------------------------------------

function showError(place, text) {
  const box = $(`${place}-error`);
  box.textContent = text;
  box.hidden = !text;
}

function clearErrors() {
  for (const place of ["video", "labels", "general"]) showError(place, "");
}

function showProblem(problem) {
  $("key-row").hidden = problem.kind !== "unauthorized" && !apiKey();
  if (problem.kind === "unauthorized") $("key").focus();
  const places = { video: /^(video-|too-many-bytes|receive)/, labels: /label/ };
  const place = Object.keys(places).find((name) => places[name].test(problem.kind)) || "general";
  showError(place, problem.message);
}

function showProgress(share, text) {
  const bar = $("progress");
  bar.hidden = share === null;
  bar.classList.toggle("waiting", share === 1);
  bar.firstElementChild.style.width = `${100 * (share || 0)}%`;
  if (share !== null && share < 1) bar.setAttribute("aria-valuenow", Math.round(100 * share));
  else bar.removeAttribute("aria-valuenow");
  $("status").textContent = text;
}

// --- the video ----------------------------------------------------------------------------------------------

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

function chooseFile(file) {
  clearErrors();
  if (!file) return false;
  if (state.limits && file.size > state.limits.max_bytes) {
    showError("video", `${file.name} has ${megabytes(file.size)}. This server takes ${megabytes(state.limits.max_bytes)}: choose a shorter or smaller video.`);
    return false;
  }
  state.file = file;
  const player = $("player");
  URL.revokeObjectURL(player.src);
  player.src = URL.createObjectURL(file);
  player.onerror = () => {}; // what a browser cannot play, the server may still read
  $("file-name").textContent = file.name;
  $("drop").hidden = true;
  $("preview").hidden = false;
  return true;
}

function chooseAnother() {
  state.file = null;
  $("file").value = "";
  $("preview").hidden = true;
  $("drop").hidden = false;
  clearErrors();
  $("file").focus();
}

async function recordVideo() {
  clearErrors();
  const file = await record($("player"), (stop) => {
    $("drop").hidden = true;
    $("preview").hidden = false;
    $("stop").hidden = false;
    $("another").hidden = true;
    $("file-name").textContent = "recording, 10 seconds at most …";
    $("stop").onclick = stop;
    $("stop").focus();
  }).catch((error) => showError("video", error.message));
  $("stop").hidden = true;
  $("another").hidden = false;
  if (!file || !chooseFile(file)) return;
  $("go").focus();
}

function acceptDrops() {
  const drop = $("drop");
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  for (const name of ["dragleave", "drop"]) document.addEventListener(name, () => drop.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    chooseFile(event.dataTransfer.files[0]);
  });
}

// --- asking -------------------------------------------------------------------------------------------------

function labelFields() {
  chips.take();
  if ($("label-set").value) return [["label_set", $("label-set").value]];
  if (chips.labels.length < 2) {
    showError("labels", "Give at least two labels, so that there is something to choose from.");
    $("chip-input").focus();
    return null;
  }
  return chips.labels.map((label) => ["labels", label]);
}

// work(file, labels) asks the server.
async function attempt(work) {
  if (state.isBusy) return;
  clearErrors();
  if (!state.file) {
    showError("video", "Choose a video first.");
    $("file").focus();
    return;
  }
  const labels = labelFields();
  if (!labels) return;
  setBusy(true);
  try {
    if ($("key").value) setApiKey($("key").value);
    await work(state.file, labels);
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (problem.kind === "stopped") state.news = problem.message;
    else showProblem(problem);
  } finally {
    setBusy(false);
  }
}

function setBusy(isBusy) {
  state.isBusy = isBusy;
  $("go").disabled = $("go-timeline").disabled = isBusy;
  $("results").setAttribute("aria-busy", String(isBusy));
  if (!isBusy) showProgress(null, state.news);
  state.news = "";
}

// First one view, which is quick, then more if they are wanted, then the reasons.
async function ask(file, labels) {
  const fields = [["video", file], ...labels, ["top_k", TOP_K]];
  showProgress(0, "Sending …");
  const onUpload = (share) => showProgress(share, share < 1 ? "Sending …" : "Looking …");
  const first = await post("v1/predict", [...fields, ["views", "1x1"]], onUpload);
  const result = { name: file.name, model: first.model, scores: first.scores, when: new Date().toLocaleString(), file, labels };
  showRanking(result);
  if ($("views").value !== "1x1") {
    showProgress(1, "Looking more closely …");
    result.scores = (await post("v1/predict", [...fields, ["views", $("views").value]])).scores;
    results.show(result);
  }
  showProgress(1, "Looking for the reasons …");
  const why = await post("v1/explain", [["video", file], ...labels, ["top_k", NUM_EXPLAINED]]);
  result.explanation = why;
  await results.show(result);
  remember(result);
  state.news = `It looks like ${result.scores[0].label}, ${(100 * result.scores[0].probability).toFixed(1)} percent.`;
  $("results").scrollIntoView({ block: "nearest" });
}

function showRanking(result) {
  $("moments").hidden = true;
  $("results").setAttribute("aria-labelledby", "results-title");
  return results.show(result);
}

async function askTimeline(file, labels) {
  const seconds = Number($("window").value), stopping = new AbortController();
  const windows = [["window", `${seconds}s`], ["stride", `${seconds / 2}s`]];
  const fields = [["video", file], ...labels, ...windows, ["min_seconds", seconds / 2], ["close_gap_seconds", seconds / 2]];
  fields.push(["thumbnails", true]);
  if ($("quiet").checked) fields.push(["background", "self"]);
  $("cancel").hidden = false;
  $("cancel").onclick = () => stopping.abort();
  showProgress(0, "Sending …");
  try {
    const answer = await follow("v1/timeline", fields, {
      onUpload: (share) => showProgress(share, share < 1 ? "Sending …" : "Watching …"),
      onProgress: ({ share, seconds_seen, seconds_total }) =>
        showProgress(share ?? 1, `Watching … ${clock(seconds_seen, 0)}${seconds_total ? ` of ${clock(seconds_total, 0)}` : ""}`),
      signal: stopping.signal,
    });
    const result = { name: file.name, model: answer.model, timeline: condensed(answer), when: new Date().toLocaleString(), file, labels };
    moments.show(result);
    remember(result);
    const number = result.timeline.num_segments;
    state.news = number === 1 ? "One segment." : `${number} segments.`;
    $("results").scrollIntoView({ block: "nearest" });
  } finally {
    $("cancel").hidden = true;
  }
}

function seek(result, seconds) {
  if (!result.file) return "The video of this earlier result is not kept. Choose it again to see more.";
  if (result.file !== state.file && (state.isBusy || !chooseFile(result.file))) return "The video is not loaded now.";
  $("player").currentTime = seconds;
  $("player").scrollIntoView({ block: "nearest" });
  return "";
}

async function explainMore(label) {
  const { file, labels, explanation } = results.result;
  if (!file) {
    $("why-status").textContent = "The video of this earlier result is not kept. Recognise it again to see more.";
    return;
  }
  try {
    const more = await post("v1/explain", [["video", file], ...labels, ["explain", label]]);
    explanation.labels.push(...more.labels);
    if (results.chosen === label) await results.showWhy();
    store();
  } catch (problem) {
    $("why-status").textContent = problem.message;
  }
}

// --- history ------------------------------------------------------------------------------------------------

function remember(result) {
  state.history.unshift(result);
  state.history.length = Math.min(state.history.length, MAX_HISTORY);
  store();
  drawHistory();
}

// Kept for this tab, without the videos; the oldest go where the browser gives no more room.
function store() {
  const kept = state.history.map(({ file, ...rest }) => ({ ...rest, labels: rest.labels.filter(([name]) => name !== "video") }));
  while (kept.length) {
    try {
      sessionStorage.setItem(HISTORY, JSON.stringify(kept));
      return;
    } catch {
      kept.pop();
    }
  }
}

function drawHistory() {
  $("history-card").hidden = !state.history.length;
  $("history").replaceChildren(
    ...state.history.map((result) => {
      const item = document.createElement("li"), button = document.createElement("button");
      const image = document.createElement("img"), text = document.createElement("span"), small = document.createElement("small");
      button.type = "button";
      image.alt = "";
      const frames = result.explanation?.frames ?? result.timeline?.pictures.map((picture) => picture?.image);
      image.src = frames?.[Math.floor(frames.length / 2)] ?? "page/icon.svg";
      small.textContent = `${result.name}, ${result.when}`;
      text.append(result.timeline ? "Timeline" : result.scores[0].label, small);
      button.append(image, text);
      button.onclick = () => {
        if (result.timeline) moments.show(result);
        else showRanking(result);
        $("results").focus();
      };
      item.append(button);
      return item;
    }),
  );
}

// --- beginning ----------------------------------------------------------------------------------------------

async function showServer() {
  const about = await (await get("v1/models")).json();
  const model = about.models[0];
  state.limits = about.limits;
  $("model").textContent = `${model.id} · ${model.num_frames} frames · ${model.device}`;
  $("video-hint").textContent = `Up to ${megabytes(about.limits.max_bytes)} and ${about.limits.max_seconds} seconds.`;
  for (const set of about.label_sets) $("label-set").add(new Option(`${set.name} (${set.num_labels})`, set.name));
  const isTooLarge = (set) => set.num_labels > about.limits.max_labels;
  for (const set of about.label_sets.filter(isTooLarge)) $("label-set").querySelector(`[value="${set.name}"]`).disabled = true;
  if (about.limits.max_views < 12) $("views").querySelector('[value="4x3"]').disabled = true;
}

async function showExamples() {
  const examples = await (await get("v1/examples")).json();
  for (const example of examples) {
    const blob = await (await get(example.url)).blob();
    const button = document.createElement("button"), video = document.createElement("video");
    button.type = "button";
    video.src = URL.createObjectURL(blob);
    video.muted = video.loop = video.playsInline = true;
    video.autoplay = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    button.append(video, example.name);
    button.setAttribute("aria-label", `Try the example: ${example.name}`);
    button.onclick = () => {
      if (state.isBusy || !chooseFile(new File([blob], `${example.name}.mp4`, { type: "video/mp4" }))) return;
      $("label-set").value = "";
      updateLabelSet();
      chips.set(example.labels);
      attempt(ask).then(() => $("results").focus());
    };
    $("examples").append(button);
  }
}

function updateLabelSet() {
  $("chips").hidden = $("chip-hint").hidden = Boolean($("label-set").value);
  showError("labels", "");
}

function switchTheme() {
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
}

function share() {
  save(fileName(results.result), sharedPage(results.result, results.pictures(), results.why()));
}

function shareMoments() {
  save(fileName(moments.result, " timeline"), sharedTimeline(moments.result, $("lanes").innerHTML, clock));
}

function fileName({ name }, ending = "") {
  return `${name.replace(/\.\w+$/, "").replace(/[^\p{L}\p{N} _-]/gu, "_") || "result"}${ending}.html`;
}

async function begin() {
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(ask);
  });
  $("file").addEventListener("change", () => chooseFile($("file").files[0]));
  $("go-timeline").onclick = () => attempt(askTimeline);
  $("player").ontimeupdate = () => moments.result?.file === state.file && moments.move($("player").currentTime);
  $("another").onclick = chooseAnother;
  $("record").onclick = recordVideo;
  $("theme").onclick = switchTheme;
  $("share").onclick = share;
  $("share-moments").onclick = shareMoments;
  $("label-set").addEventListener("change", updateLabelSet);
  $("key").addEventListener("change", start);
  acceptDrops();
  state.history = JSON.parse(sessionStorage.getItem(HISTORY) || "[]");
  drawHistory();
  await start();
}

async function start() {
  clearErrors();
  try {
    if ($("key").value) setApiKey($("key").value);
    if (!state.limits) await showServer();
    if (!$("examples").childElementCount) await showExamples();
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    showProblem(problem);
  }
}

begin();
