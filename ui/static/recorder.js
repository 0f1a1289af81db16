// The microphone: one button that starts and ends a recording and shows its time.

const TYPES = ["audio/webm;codecs=opus", "audio/mp4", "audio/ogg;codecs=opus"]; // the server reads all of them
const MAX_S = 120;

export class Recorder {
  // `done(blob, problem)` gets the recording, or the sentence that says why there is none.
  constructor(button, done) {
    this.button = button;
    this.done = done;
    button.onclick = () => (this.running ? this.running.stop() : this.#start());
  }

  async #start() {
    if (!navigator.mediaDevices) return this.done(null, "This browser records on https pages and on localhost only. Choose a file instead.");
    let stream;
    try {
      // as recorded: echo cancelling and noise suppression change the voice
      stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
    } catch (problem) {
      const denied = problem.name === "NotAllowedError";
      return this.done(null, denied ? "The browser may not use the microphone. Allow it beside the address." : "There is no microphone.");
    }
    const mimeType = TYPES.find((type) => MediaRecorder.isTypeSupported(type));
    const recorder = new MediaRecorder(stream, { mimeType, audioBitsPerSecond: 192000 });
    const pieces = [];
    recorder.ondataavailable = ({ data }) => pieces.push(data);
    recorder.onstop = () => {
      clearInterval(clock);
      for (const track of stream.getTracks()) track.stop();
      this.running = null;
      this.button.textContent = "Record again";
      delete this.button.dataset.recording;
      this.done(new Blob(pieces, { type: recorder.mimeType }));
    };
    let clock;
    recorder.onstart = () => {
      const began = performance.now(); // sound may come seconds after `start` on a busy machine
      clock = setInterval(() => {
        const passed_s = Math.floor((performance.now() - began) / 1000);
        this.button.textContent = `Stop recording (${passed_s} s)`;
        if (passed_s >= MAX_S) recorder.stop();
      }, 250);
    };
    this.button.textContent = "Stop recording (0 s)";
    this.button.dataset.recording = "";
    this.running = recorder;
    recorder.start();
  }
}
