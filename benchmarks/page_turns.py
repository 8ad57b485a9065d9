"""What stops a turn of the cloud: turns with and without news of the server, frame by frame.

python benchmarks/page_turns.py RUN [--points 1000000] [--pairs 6] [--at-once]

The page is open and the server has prepared everything. A turn is 45 frames by script, so that the
speed of the machine changes how long they take and not how many there are. In every second one the
page hears at the 20th frame that the server has news (`again`: pictures of objects, H), as it does
in the first seconds after it was opened. Printed are the slowest frame, the sum of the long tasks
(over 50 ms) of the page's main thread, and for frames over 200 ms the time in each of their steps.
`--at-once` turns as soon as all points are drawn, while the server still prepares.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from page import chromium, copied, grown, served
from page_browser import Page

SLOW = 200
"""Milliseconds; frames that take longer are listed with their steps."""
TURN = """
(news) => new Promise((done) => {
  const { cloud, orbit } = lift3d;
  const steps = (window.steps ??= {});
  for (const [of, name] of [[cloud, 'drawPoints'], [cloud, 'compose'], [cloud, 'sync'],
                            [cloud, 'setPalette'], [cloud.picking, 'copyOf'],
                            [lift3d.store, 'update'], [lift3d.picture, 'draw']]) {
    if (Object.hasOwn(of, name)) continue;
    const own = of[name];
    of[name] = function (...given) {
      const began = performance.now();
      const found = own.apply(this, given);
      steps[name] = (steps[name] ?? 0) + performance.now() - began;
      return found;
    };
  }
  const frames = [], long = [];
  const observer = new PerformanceObserver((list) =>
    list.getEntries().forEach((each) => long.push(each.duration)));
  observer.observe({ entryTypes: ['longtask'] });
  let number = 0, last = performance.now();
  const step = () => {
    const now = performance.now();
    frames.push([now - last, { ...steps }]);
    for (const name of Object.keys(steps)) delete steps[name];
    last = now;
    orbit.turn(6 * Math.sin(number / 9), 1);
    lift3d.moved();
    if (++number === 20 && news) lift3d.hear({ again: true });
    if (number < 45) requestAnimationFrame(step);
    else setTimeout(() => { observer.disconnect(); done([frames.slice(3), long]); }, 0);
  };
  requestAnimationFrame(step);
})
"""


def main() -> None:
    """Print every turn, and the medians of both kinds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--points", type=int, help="of the cloud; by default those of the run")
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--at-once", action="store_true")
    given = parser.parse_args()
    found: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    with copied(given.run) as copy:
        if given.points:
            grown(copy, given.points)
        with served(copy, read_only=True) as client, chromium() as browser:
            page = Page(browser, client.server.address, patience=900)
            if not given.at_once:
                client.prepared()
                time.sleep(1)
                page.settled()
                page.page.evaluate(TURN, False)  # programs are compiled, the budget is found
            for pair in range(given.pairs):
                for news in (pair % 2 == 0, pair % 2 == 1):
                    if not given.at_once:
                        page.settled()
                        time.sleep(0.5)
                    frames, long = page.page.evaluate(TURN, news)
                    slowest = max(each for each, _ in frames)
                    found[news].append((slowest, sum(long)))
                    print(f"news {news}: slowest {slowest:.0f} ms, long tasks {sum(long):.0f} ms")
                    for at, (each, steps) in enumerate(frames):
                        if each > SLOW:
                            told = {name: round(value) for name, value in steps.items()}
                            print(f"  frame {at}: {each:.0f} ms, of which {told}", flush=True)
            page.close()
    for news, values in found.items():
        slowest, total = np.median(values, axis=0)
        print(
            f"news {news}: median slowest frame {slowest:.0f} ms, long tasks {total:.0f} ms a turn"
        )


if __name__ == "__main__":
    main()
