// A result as one HTML file: no script, no link, nothing to fetch.

const STYLE = `body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#0f172a;background:#fff}
ol li{background:linear-gradient(to right,#bfd3fb var(--s),#eef2f7 var(--s));margin:.3rem 0;padding:.4rem .8rem;border-radius:.4rem;display:flex;justify-content:space-between;gap:1rem}
ol{list-style:none;padding:0}.frame{width:23%;min-width:7rem;margin:.3rem;border-radius:.3rem}.quiet{color:#52606f}
.lane{display:grid;grid-template-columns:10rem minmax(0,1fr);gap:.6rem;align-items:center;margin-bottom:.3rem}
.track{position:relative;height:2.4rem;background:#eef2f7;border-radius:.3rem;overflow:hidden}
.lane i{position:absolute;top:0;bottom:0;min-width:3px;border-bottom:.25rem solid #2563eb;background:#bfd3fb}
.lane svg{position:absolute;inset:.15rem 0;width:100%;height:calc(100% - .3rem)}
.lane path{fill:none;stroke:#2563eb;stroke-width:1.5;vector-effect:non-scaling-stroke}
.strip .track{display:flex;height:auto;background:none}.strip .track>*{flex:1;min-width:0;width:0;aspect-ratio:4/3;object-fit:cover}
.axis .track{display:flex;justify-content:space-between;height:1.4rem;background:none;color:#52606f;font-size:.8rem}`;

const escaped = (text) => text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
const percent = (share) => `${(100 * share).toFixed(1)}%`;

// result: {name, model, scores, when}; pictures: data URIs; why: what the pictures show.
export function sharedPage(result, pictures, why) {
  const rows = result.scores.map(
    ({ label, probability }) =>
      `<li style="--s:${percent(probability)}"><span>${escaped(label)}</span><b>${percent(probability)}</b></li>`,
  );
  const images = pictures.map((source, t) => `<img class="frame" src="${source}" alt="frame ${t + 1}">`);
  return whole(
    result,
    `<h1>${escaped(result.scores[0].label)}</h1>
<p class="quiet">${escaped(result.name)}, recognised by ${escaped(result.model)} on ${escaped(result.when)}</p>
<ol>${rows.join("\n")}</ol>
${images.length ? `<h2>${escaped(why)}</h2><p>${images.join("")}</p>` : ""}`,
  );
}

// result: {name, model, timeline, when}; lanes: how the page draws them; clock writes seconds.
export function sharedTimeline(result, lanes, clock) {
  const { segments, num_segments, breaks, duration_seconds } = result.timeline;
  const when = (item) => `${clock(item.start_seconds)} – ${clock(item.end_seconds)}`;
  const rows = segments.map(
    (segment) =>
      `<li style="--s:${percent(segment.score)}"><span>${when(segment)} ${escaped(segment.label)}</span><b>${percent(segment.score)}</b></li>`,
  );
  const gaps = breaks.map((gap) => `<li>${when(gap)} ${escaped(gap.reason)}</li>`);
  return whole(
    result,
    `<h1>What happens when</h1>
<p class="quiet">${escaped(result.name)}, ${clock(duration_seconds)}, watched by ${escaped(result.model)} on ${escaped(result.when)}</p>
<div>${lanes}</div>
<h2>${num_segments > segments.length ? `The first ${segments.length} of ${num_segments} segments` : "Segments"}</h2>
<ol>${rows.join("\n")}</ol>
${gaps.length ? `<h2>What cannot be shown</h2><ul>${gaps.join("\n")}</ul>` : ""}`,
  );
}

function whole(result, body) {
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>${escaped(result.name)}</title><style>${STYLE}</style></head><body>
${body}
<p class="quiet">Made with OpenXCLIP.</p></body></html>`;
}

export function save(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/html" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
