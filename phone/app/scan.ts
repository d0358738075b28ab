/** Reads QR codes from the camera or a photo: the browser's own reader where there is one, else ours in wasm, loaded when needed. */

interface Detector {
  detect(source: CanvasImageSource): Promise<{ rawValue: string }[]>;
}

declare const BarcodeDetector: {
  new (options: { formats: string[] }): Detector;
  getSupportedFormats(): Promise<string[]>;
};

/** Looking more often only warms the phone. */
const INTERVAL_MS = 100;
/** A code that fills a third of this is still well above two pixels a module. */
const LONGEST_SIDE = 640;

type Reader = (source: CanvasImageSource, width: number, height: number) => Promise<string[]>;

export class CameraProblem extends Error {}

/** Shows the camera in `video` and calls `found` with what it reads, until the returned function is called. */
export async function startCamera(video: HTMLVideoElement, found: (text: string) => void): Promise<() => void> {
  if (!navigator.mediaDevices) throw new CameraProblem("This browser gives no camera to web pages. Paste the link instead.");
  const [stream, read] = await Promise.all([openCamera(), reader()]);
  let stopped = false;
  const stop = () => {
    stopped = true;
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
  };
  video.srcObject = stream;
  await video.play().catch(() => undefined);
  const look = async () => {
    if (stopped) return;
    if (video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA && video.videoWidth > 0) {
      const texts = await read(video, video.videoWidth, video.videoHeight).catch(() => []);
      if (!stopped) texts.forEach(found);
    }
    setTimeout(() => void look(), INTERVAL_MS);
  };
  void look();
  return stop;
}

/** Reads a photo. */
export async function readPhoto(file: Blob): Promise<string[]> {
  const bitmap = await createImageBitmap(file);
  try {
    return await (await reader())(bitmap, bitmap.width, bitmap.height);
  } finally {
    bitmap.close();
  }
}

async function openCamera(): Promise<MediaStream> {
  try {
    return await navigator.mediaDevices.getUserMedia({
      audio: false,
      video: { facingMode: "environment", width: { ideal: 1280 }, height: { ideal: 960 } },
    });
  } catch (error) {
    const name = error instanceof DOMException ? error.name : "";
    if (name === "NotAllowedError") {
      throw new CameraProblem("The camera was not allowed. Allow it for this page in the browser's settings, or paste the link.");
    }
    if (name === "NotFoundError" || name === "OverconstrainedError") throw new CameraProblem("There is no camera here. Paste the link instead.");
    if (name === "NotReadableError") throw new CameraProblem("Another app is using the camera. Close it and try again, or paste the link.");
    throw new CameraProblem("The camera did not start. Paste the link instead.");
  }
}

async function reader(): Promise<Reader> {
  return (await browserReader()) ?? (await wasmReader());
}

async function browserReader(): Promise<Reader | null> {
  if (!("BarcodeDetector" in globalThis)) return null;
  const formats = await BarcodeDetector.getSupportedFormats().catch((): string[] => []);
  if (!formats.includes("qr_code")) return null;
  const detector = new BarcodeDetector({ formats: ["qr_code"] });
  return async (source) => (await detector.detect(source)).map((code) => code.rawValue);
}

async function wasmReader(): Promise<Reader> {
  const [{ default: init, readQrCodes }, { default: url }] = await Promise.all([
    import("../build/scan/happy_phone.js"),
    import("../build/scan/happy_phone_bg.wasm?url"),
  ]);
  await init({ module_or_path: url });
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new CameraProblem("This browser cannot look at pictures. Paste the link instead.");
  return async (source, width, height) => {
    const scale = Math.min(1, LONGEST_SIDE / Math.max(width, height));
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    context.drawImage(source, 0, 0, canvas.width, canvas.height);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    return readQrCodes(new Uint8Array(data.buffer), canvas.width, canvas.height);
  };
}
