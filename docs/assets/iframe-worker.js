// The search of the site runs in a worker, which browsers refuse to start for a page opened as a file. Then a hidden
// frame does its work: it has a window of its own, in which the worker's script runs as it is.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.srcdoc = "<body></body>";
      this.ready = new Promise((resolve) => this.frame.addEventListener("load", resolve, { once: true })).then(() => {
        const inside = this.frame.contentWindow;
        inside.importScripts = async (...urls) => {
          for (const one of urls) await run(this.frame, one);
        };
        inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
        return run(this.frame, new URL(url, document.baseURI).href);
      });
      document.body.append(this.frame);
    }

    // Messages wait for the script, and keep their order.
    async postMessage(data) {
      await this.ready;
      this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }));
    }

    terminate() {
      this.frame.remove();
    }
  };

  function run(frame, url) {
    return new Promise((resolve, reject) => {
      const script = frame.contentDocument.createElement("script");
      script.src = url;
      script.onload = resolve;
      script.onerror = () => reject(new Error(`cannot load ${url}`));
      frame.contentDocument.body.append(script);
    });
  }
}
