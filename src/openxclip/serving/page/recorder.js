// Records a short video with the camera.

const MAX_SECONDS = 10;

export async function record(player, onStarted) {
  if (!navigator.mediaDevices || !window.MediaRecorder) {
    throw new Error("This browser cannot record here: it allows that only on https or on this machine itself.");
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    throw new Error(`The camera cannot be used (${error.name}). Allow it, or choose a file.`);
  }
  try {
    return await recorded(stream, player, onStarted);
  } finally {
    player.srcObject = null;
    for (const track of stream.getTracks()) track.stop();
  }
}

async function recorded(stream, player, onStarted) {
  const recorder = new MediaRecorder(stream);
  const parts = [];
  recorder.ondataavailable = (event) => parts.push(event.data);
  player.src = "";
  player.srcObject = stream;
  player.play();
  const done = new Promise((resolve) => (recorder.onstop = resolve));
  recorder.start();
  const stop = () => recorder.state !== "inactive" && recorder.stop();
  onStarted(stop);
  const timer = setTimeout(stop, 1000 * MAX_SECONDS);
  await done;
  clearTimeout(timer);
  return new File(parts, "recording.webm", { type: recorder.mimeType.split(";")[0] });
}
