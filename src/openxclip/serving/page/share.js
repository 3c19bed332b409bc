// A result as one HTML file: no script, no link, nothing to fetch.

const STYLE = `body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#0f172a;background:#fff}
li{background:linear-gradient(to right,#bfd3fb var(--s),#eef2f7 var(--s));margin:.3rem 0;padding:.4rem .8rem;border-radius:.4rem;display:flex;justify-content:space-between;gap:1rem}
ol{list-style:none;padding:0}img{width:23%;min-width:7rem;margin:.3rem;border-radius:.3rem}.quiet{color:#52606f}`;

const escaped = (text) => text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
const percent = (share) => `${(100 * share).toFixed(1)}%`;

// result: {name, model, scores, when}; pictures: data URIs; why: what the pictures show.
export function sharedPage(result, pictures, why) {
  const rows = result.scores.map(
    ({ label, probability }) =>
      `<li style="--s:${percent(probability)}"><span>${escaped(label)}</span><b>${percent(probability)}</b></li>`,
  );
  const images = pictures.map((source, t) => `<img src="${source}" alt="frame ${t + 1}">`);
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>${escaped(result.name)}</title><style>${STYLE}</style></head><body>
<h1>${escaped(result.scores[0].label)}</h1>
<p class="quiet">${escaped(result.name)}, recognised by ${escaped(result.model)} on ${escaped(result.when)}</p>
<ol>${rows.join("\n")}</ol>
${images.length ? `<h2>${escaped(why)}</h2><p>${images.join("")}</p>` : ""}
<p class="quiet">Made with OpenXCLIP.</p></body></html>`;
}

export function save(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/html" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
