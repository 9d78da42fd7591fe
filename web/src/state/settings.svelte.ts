// What a person has set in this browser. Kept in its local storage; the node knows nothing of it.

const KEY = "offhook.settings";

interface Kept {
  theme: "system" | "light" | "dark";
  contrast: "system" | "more";
  motion: "system" | "less";
  language: "system" | "en" | "de";
  virtual: boolean;
  notify: boolean;
}

const DEFAULTS: Kept = {
  theme: "system",
  contrast: "system",
  motion: "system",
  language: "system",
  virtual: true,
  notify: false,
};

export function readStored<T extends object>(key: string, defaults: T): T {
  try {
    return { ...defaults, ...(JSON.parse(localStorage.getItem(key) ?? "{}") as Partial<T>) };
  } catch {
    return { ...defaults };
  }
}

export function store(key: string, value: unknown): void {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // Storage is full or forbidden: it holds for this visit then.
  }
}

class Settings {
  #kept: Kept = $state(readStored(KEY, DEFAULTS));

  constructor() {
    // Another window of the same browser.
    addEventListener("storage", (event) => {
      if (event.key === KEY) this.#kept = readStored(KEY, DEFAULTS);
    });
  }

  get theme() {
    return this.#kept.theme;
  }
  get contrast() {
    return this.#kept.contrast;
  }
  get motion() {
    return this.#kept.motion;
  }
  get language() {
    return this.#kept.language;
  }
  get virtual() {
    return this.#kept.virtual;
  }
  get notify() {
    return this.#kept.notify;
  }

  change(change: Partial<Kept>): void {
    Object.assign(this.#kept, change);
    store(KEY, this.#kept);
  }
}

export const settings = new Settings();
