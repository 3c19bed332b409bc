// Heat over frames, drawn from the numbers of /v1/explain.

const STOPS = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]]; // black, purple, red, orange, pale
const STRENGTH = 0.75; // opacity of the hottest patch

function colour(share) {
  const place = share * (STOPS.length - 1);
  const i = Math.min(STOPS.length - 2, Math.floor(place));
  return STOPS[i].map((value, channel) => value + (place - i) * (STOPS[i + 1][channel] - value));
}

// heat: rows of numbers; `hottest` gets the strongest colour.
function heatPicture(heat, hottest) {
  const height = heat.length, width = heat[0].length;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  heat.flat().forEach((value, i) => {
    const share = Math.max(0, Math.min(1, value / (hottest || 1)));
    pixels.data.set([...colour(share), 255 * STRENGTH * share], 4 * i);
  });
  context.putImageData(pixels, 0, 0);
  return canvas;
}

const hottestOf = (maps) => Math.max(...maps.flat(2));

// The map of a label for each frame: null where there is none.
export function mapsOf(label, kind, numFrames) {
  if (kind === "none" || !label || !label[kind]) return null;
  return kind === "sensitivity" ? label.sensitivity : Array(numFrames).fill(label.prompt_attention);
}

export function drawFrame(canvas, image, maps, t) {
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  if (!maps) return;
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(heatPicture(maps[t], hottestOf(maps)), 0, 0, canvas.width, canvas.height);
}

export function drawMatrix(canvas, matrix) {
  const size = matrix.length;
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(size, size);
  const strongest = Math.max(...matrix.flat());
  matrix.flat().forEach((value, i) => pixels.data.set([...colour(value / strongest), 255], 4 * i));
  context.putImageData(pixels, 0, 0);
}

export function loadImages(sources) {
  return Promise.all(
    sources.map((source) => {
      const image = new Image();
      image.src = source;
      return image.decode().then(() => image);
    }),
  );
}
