// The words in the language that is set.

import { settings } from "../state/settings.svelte";
import { de } from "./de";
import { en, type Words } from "./en";

const LANGUAGES: Record<string, Words> = { en, de };

class Spoken {
  /** `en` or `de`. */
  readonly language: string = $derived.by(() => {
    if (settings.language !== "system") return settings.language;
    const wanted = navigator.languages.map((tag) => tag.slice(0, 2));
    return wanted.find((tag) => tag in LANGUAGES) ?? "en";
  });
  readonly words: Words = $derived(LANGUAGES[this.language] ?? en);
}

export const spoken = new Spoken();
