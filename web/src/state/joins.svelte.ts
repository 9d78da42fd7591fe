// Joins under way, step by step, with the time of each.

import type { JoinStep } from "../api/types";

export interface TimedStep {
  step: JoinStep | { step: "started" };
  /** Since the join began. */
  ms: number;
}

export interface Join {
  room: string;
  name: string;
  began: number;
  steps: TimedStep[];
}

class Joins {
  #joins: Record<string, Join> = $state({});
  /** Steps of a join whose answer is not here yet. */
  #early: { room: string; step: JoinStep; at: number }[] = [];

  of(room: string): Join | undefined {
    return this.#joins[room];
  }

  begin(room: string, name: string, began: number): void {
    this.#joins[room] = { room, name, began, steps: [{ step: { step: "started" }, ms: Math.round(performance.now() - began) }] };
    for (const early of this.#early.splice(0)) this.step(early.room, early.step, early.at);
  }

  step(room: string, step: JoinStep, at = performance.now()): void {
    const join = this.#joins[room];
    if (!join) {
      this.#early = [...this.#early.slice(-50), { room, step, at }];
      return;
    }
    const last = join.steps.at(-1)?.step;
    // Knocking at one peer again and again is one line of the list.
    if (last && JSON.stringify(last) === JSON.stringify(step)) return;
    if (step.step === "readable" && last?.step === "readable") join.steps.pop();
    join.steps.push({ step, ms: Math.max(0, Math.round(at - join.began)) });
  }

  done(room: string): boolean {
    return this.#joins[room]?.steps.some((timed) => timed.step.step === "readable") ?? false;
  }

  drop(room: string): void {
    delete this.#joins[room];
  }
}

export const joins = new Joins();
