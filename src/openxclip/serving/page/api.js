// The server's HTTP API. A failed request rejects with a Problem: its kind, and one line for people.

export class Problem extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

const KEY = "openxclip-key";
export const apiKey = () => sessionStorage.getItem(KEY) || "";

export function setApiKey(key) {
  if (!/^[\x21-\x7e]*$/.test(key)) throw new Problem("unauthorized", "An API key has no spaces and no letters beyond ASCII.");
  sessionStorage.setItem(KEY, key);
}

const UNREACHABLE = "The server does not answer. Is it still running?";

export async function get(address) {
  let response;
  try {
    response = await fetch(address, { headers: headers() });
  } catch {
    throw new Problem("unreachable", UNREACHABLE);
  }
  if (!response.ok) throw problemOf(response.status, await response.text());
  return response;
}

// Sends a form; onUpload gets the share that has been sent, 0 to 1.
export async function post(address, fields, onUpload = () => {}) {
  return JSON.parse(await send(address, fields, { onUpload }));
}

// Sends a form and follows the events of the answer: onProgress gets the data of each, the last one resolves or rejects.
export async function follow(address, fields, { onUpload, onProgress, signal }) {
  let taken = 0, last = null;
  const onText = (text) => {
    for (let end; (end = text.indexOf("\n\n", taken)) >= 0; taken = end + 2) {
      const [, name, data] = text.slice(taken, end).match(/^event: (\w+)\ndata: (.*)$/s);
      if (name === "progress") onProgress(JSON.parse(data));
      else last = { name, data };
    }
  };
  onText(await send(address, fields, { onUpload, onText, signal, accept: "text/event-stream" }));
  if (!last) throw new Problem("unreachable", UNREACHABLE);
  if (last.name === "error") throw problemOf(0, last.data);
  return JSON.parse(last.data);
}

// Resolves to the text of the answer; onText gets what has come of it so far.
function send(address, fields, { onUpload, onText = () => {}, signal = null, accept = "application/json" }) {
  const body = new FormData();
  for (const [name, value] of fields) body.append(name, value);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", address);
    for (const [name, value] of Object.entries({ Accept: accept, ...headers() })) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => event.lengthComputable && onUpload(event.loaded / event.total);
    request.onprogress = () => request.status === 200 && onText(request.responseText);
    request.onload = () =>
      request.status === 200 ? resolve(request.responseText) : reject(problemOf(request.status, request.responseText));
    request.onerror = () => reject(new Problem("unreachable", UNREACHABLE));
    request.onabort = () => reject(new Problem("stopped", "Stopped."));
    signal?.addEventListener("abort", () => request.abort());
    request.send(body);
  });
}

function headers() {
  return apiKey() ? { Authorization: `Bearer ${apiKey()}` } : {};
}

function problemOf(status, text) {
  try {
    const problem = JSON.parse(text);
    return new Problem(problem.type.split(":").pop(), `${problem.title}: ${problem.detail}.`.replace("..", "."));
  } catch {
    return new Problem("unknown", `The server answered with status ${status}.`);
  }
}
