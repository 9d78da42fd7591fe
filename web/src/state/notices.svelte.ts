// What is said to the person in passing: short notes at the edge, and the one polite live region.

export interface Toast {
  id: number;
  text: string;
  action?: { label: string; run: () => void };
  tone: "plain" | "bad";
}

const SHOWN_MS = 6000;

class Notices {
  toasts: Toast[] = $state([]);
  /** What a screen reader says next. */
  spoken: string = $state("");
  #next = 1;

  say(text: string, tone: Toast["tone"] = "plain", action?: Toast["action"], lasts_ms = SHOWN_MS): number {
    const toast: Toast = action ? { id: this.#next++, text, tone, action } : { id: this.#next++, text, tone };
    this.toasts = [...this.toasts.slice(-2), toast];
    this.announce(text);
    setTimeout(() => this.drop(toast.id), lasts_ms);
    return toast.id;
  }

  drop(id: number): void {
    this.toasts = this.toasts.filter((toast) => toast.id !== id);
  }

  announce(text: string): void {
    // The same words twice are two announcements: a region that does not change is not read.
    this.spoken = this.spoken === text ? `${text}\u00a0` : text;
  }
}

export const notices = new Notices();
