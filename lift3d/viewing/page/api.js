// Requests to the server, and what it tells by itself. Every failure is an Error with its reason.
// @ts-check

/** Who edits: kept in this browser, so that undo takes back one's own edits after a reload too. */
export const person = (() => {
  let known = localStorage.getItem("lift3d-person");
  if (!known) {
    known = `u${Math.floor(Math.random() * 0xffffff).toString(16).padStart(6, "0")}`;
    localStorage.setItem("lift3d-person", known);
  }
  return known;
})();

export class Trouble extends Error {
  /** @param {number} status @param {any} content */
  constructor(status, content) {
    super(content.error ?? `the server answered ${status}`);
    this.status = status;
    this.content = content;
  }
}

/** Requests that are not answered yet; tests wait until there is none. */
export const requests = { open: 0 };

async function counted(work) {
  requests.open++;
  try {
    return await work();
  } finally {
    requests.open--;
  }
}

async function ask(address, options = {}) {
  let answer;
  try {
    const headers = { "X-Person": person, ...options.headers };
    answer = await fetch(address, { ...options, headers });
  } catch {
    throw new Trouble(0, { error: "the server does not answer; what is listed as kept is on its disk" });
  }
  if (answer.ok) return answer;
  const content = await answer.json().catch(() => ({}));
  throw new Trouble(answer.status, content);
}

export const getJson = (address) => counted(async () => (await ask(address)).json());

/** An array of bytes, and the headers that come with it. */
export function getBytes(address) {
  return counted(async () => {
    const answer = await ask(address);
    return { buffer: await answer.arrayBuffer(), header: (name) => Number(answer.headers.get(name)) };
  });
}

export function getPicture(address) {
  return counted(async () => createImageBitmap(await (await ask(address)).blob()));
}

export function post(address, content) {
  return counted(async () => {
    const answer = await ask(address, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(content),
    });
    return answer.json();
  });
}

/** Hear what others do. @param {(told: any) => void} hear @param {(there: boolean) => void} state */
export function listen(hear, state) {
  const stream = new EventSource(`/api/events?who=${person}`);
  stream.onmessage = (event) => hear(JSON.parse(event.data));
  stream.onopen = () => state(true);
  stream.onerror = () => state(false);
}
