// A page from a disk may not start workers, so there the search runs in a frame that nobody sees. What the generator
// would load for this comes from another host; tools/site.py puts this file in its place.

class FrameWorker {
  onmessage = null;
  onerror = null;

  constructor(url) {
    this.inside = new Promise((resolve) => {
      this.frame = document.createElement('iframe');
      this.frame.hidden = true;
      // Some browsers begin with one empty document and go on with another: what is done to the first is lost.
      this.frame.addEventListener('load', () => resolve(this.load(url)), { once: true });
      document.body.append(this.frame);
    });
  }

  load(url) {
    const window = this.frame.contentWindow;
    window.postMessage = (answer) => {
      const data = structuredClone(answer);
      setTimeout(() => this.onmessage?.({ data }));
    };
    return new Promise((resolve) => {
      const script = Object.assign(window.document.createElement('script'), { src: url });
      script.addEventListener('load', () => resolve(window));
      script.addEventListener('error', (error) => this.onerror?.(error));
      window.document.head.append(script);
    });
  }

  // Both sides keep what they sent, and change it.
  async postMessage(question) {
    const data = structuredClone(question);
    const window = await this.inside;
    setTimeout(() => window.onmessage?.({ data }));
  }

  terminate() {
    this.frame.remove();
  }
}

if (location.protocol === 'file:') window.Worker = FrameWorker;
