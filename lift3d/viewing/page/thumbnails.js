// Small pictures, fetched two at a time and only when they come into sight: a browser opens six
// connections to a server, and what a person waits for must not queue behind pictures.
// @ts-check

const AT_ONCE = 2;

class Thumbnails {
  constructor() {
    this.waiting = new Set();
    this.loading = 0;
    this.paused = 0;
    this.held = false; // while the cloud turns: a new picture would stop it for a moment
    this.observer = new IntersectionObserver(
      (entries) => {
        for (const each of entries) {
          if (each.isIntersecting) this.waiting.add(each.target);
          else this.waiting.delete(each.target);
        }
        this.next();
      },
      { rootMargin: "120px" },
    );
  }

  /** Give an image its source once it is in sight. @param {HTMLImageElement} image */
  show(image, source) {
    image.dataset.source = source;
    this.observer.observe(image);
  }

  hold(held) {
    this.held = held;
    if (!held) this.next();
  }

  /** Let something more important go first. */
  async after(work) {
    this.paused++;
    try {
      return await work;
    } finally {
      this.paused--;
      this.next();
    }
  }

  next() {
    for (const image of this.waiting) {
      if (this.loading >= AT_ONCE || this.paused || this.held) return;
      this.waiting.delete(image);
      if (!image.isConnected) continue;
      this.observer.unobserve(image);
      this.loading++;
      const done = () => {
        this.loading--;
        this.next();
      };
      image.addEventListener("load", done, { once: true });
      image.addEventListener(
        "error",
        () => {
          image.removeAttribute("src"); // nothing is shown rather than a broken picture
          done();
        },
        { once: true },
      );
      image.src = image.dataset.source;
    }
  }
}

export const thumbnails = new Thumbnails();
