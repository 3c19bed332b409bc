// The results card: ranked bars, and why a label got its score.

import { drawFrame, drawMatrix, loadImages, mapsOf } from "./heat.js";

const $ = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const signed = (value) => `${value >= 0 ? "+" : "−"}${Math.abs(value).toFixed(2)}`;

export class Results {
  // onWanted(label) is called when a label's explanation is asked for and not there yet.
  constructor(onWanted) {
    this.onWanted = onWanted;
    this.result = null;
    this.chosen = null;
    this.images = [];
    $("maps").addEventListener("change", () => this.drawFrames());
  }

  // result: {name, model, scores, explanation?, when}
  show(result) {
    const isOther = result !== this.result;
    this.result = result;
    $("empty").hidden = true;
    $("found").hidden = false;
    $("best").textContent = result.scores[0].label;
    if (isOther || !result.scores.some((score) => score.label === this.chosen)) this.chosen = result.scores[0].label;
    this.drawBars();
    return this.showWhy();
  }

  drawBars() {
    const focused = $("bars").contains(document.activeElement) ? document.activeElement.dataset.label : null;
    $("bars").replaceChildren(...this.result.scores.map((score) => this.bar(score)));
    if (focused) $("bars").querySelector(`[data-label="${CSS.escape(focused)}"]`)?.focus();
  }

  bar({ label, probability }) {
    const item = document.createElement("li"), button = document.createElement("button");
    const name = document.createElement("span"), share = document.createElement("b");
    button.type = "button";
    button.dataset.label = label;
    button.setAttribute("aria-pressed", String(label === this.chosen));
    button.style.setProperty("--share", `${100 * probability}%`);
    name.textContent = label;
    share.textContent = percent(probability);
    button.append(name, share);
    button.onclick = () => this.choose(label);
    item.append(button);
    return item;
  }

  choose(label) {
    this.chosen = label;
    for (const button of $("bars").querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button.dataset.label === label));
    }
    this.showWhy();
  }

  explained() {
    return this.result.explanation?.labels.find((label) => label.label === this.chosen);
  }

  async showWhy() {
    const label = this.explained();
    $("why").hidden = !this.result.explanation;
    if (!this.result.explanation) return;
    if (!label) {
      $("why-title").textContent = `Why “${this.chosen}”`;
      $("frames").replaceChildren();
      $("words").replaceChildren();
      $("why-status").textContent = `Looking for the reasons of “${this.chosen}” …`;
      this.onWanted(this.chosen);
      return;
    }
    $("why-title").textContent = `Why “${this.chosen}” got ${percent(label.probability)}`;
    $("why-status").textContent = label.prompt_attention ? "" : "This model has no video-specific prompts.";
    const prompt = $("maps").querySelector("[value=prompt_attention]");
    prompt.disabled = !label.prompt_attention;
    if (prompt.disabled && prompt.checked) $("maps").querySelector("[value=sensitivity]").checked = true;
    this.images = await loadImages(this.result.explanation.frames);
    this.drawFrames();
    this.drawWords(label.words);
    $("messages").hidden = !this.result.explanation.message_attention;
    if (!$("messages").hidden) drawMatrix($("message-map"), this.result.explanation.message_attention);
  }

  mapKind() {
    return $("maps").querySelector("input:checked").value;
  }

  drawFrames() {
    const label = this.explained();
    if (!label) return;
    const maps = mapsOf(label, this.mapKind(), this.images.length);
    const strongest = Math.max(...label.frame_relevance.map(Math.abs), 1e-9);
    const figures = this.images.map((image, t) => {
      const figure = document.createElement("figure"), canvas = document.createElement("canvas");
      const caption = document.createElement("figcaption"), worth = label.frame_relevance[t];
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `Frame ${t + 1}, worth ${signed(worth)}`);
      drawFrame(canvas, image, maps, t);
      const number = document.createElement("span"), value = document.createElement("span");
      number.textContent = t + 1;
      value.textContent = signed(worth);
      caption.append(number, value);
      figure.append(canvas, signedBar(worth / strongest), caption);
      return figure;
    });
    $("frames").replaceChildren(...figures);
  }

  drawWords(words) {
    const strongest = Math.max(...words.map(([, worth]) => Math.abs(worth)), 1e-9);
    const items = words.map(([word, worth]) => {
      const item = document.createElement("li"), name = document.createElement("span"), value = document.createElement("b");
      name.textContent = word;
      value.textContent = signed(worth);
      item.append(name, signedBar(worth / strongest), value);
      return item;
    });
    if (!items.length) {
      const item = document.createElement("li");
      item.className = "quiet";
      item.textContent = "A single word: nothing to leave out.";
      items.push(item);
    }
    $("words").replaceChildren(...items);
  }

  pictures() {
    return [...$("frames").querySelectorAll("canvas")].map((canvas) => canvas.toDataURL("image/jpeg", 0.85));
  }

  why() {
    const kinds = { prompt_attention: "What the prompt reads", sensitivity: "What the score depends on", none: "Frames" };
    return `${kinds[this.mapKind()]}: ${this.chosen}`;
  }
}

// share: -1 to 1; negative ones are drawn in the colour of a gain without it.
function signedBar(share) {
  const bar = document.createElement("div"), span = document.createElement("span");
  bar.className = share < 0 ? "signed loss" : "signed";
  span.style.width = `${100 * Math.abs(share)}%`;
  bar.append(span);
  return bar;
}
