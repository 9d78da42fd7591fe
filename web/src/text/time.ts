// Times for people, in the language that is set.

const cache = new Map<string, Intl.DateTimeFormat>();

/** The browser's own kind of a language, where it has one: en-GB writes times otherwise than en-US. */
function localeOf(language: string): string {
  const tags = typeof navigator === "undefined" ? [] : navigator.languages;
  return tags.find((tag) => tag.startsWith(language)) ?? language;
}

function format(language: string, options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const key = language + JSON.stringify(options);
  let known = cache.get(key);
  if (!known) {
    known = new Intl.DateTimeFormat(localeOf(language), options);
    cache.set(key, known);
  }
  return known;
}

export const clock = (time: string, language: string) =>
  format(language, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }).format(new Date(time));

export const clockSeconds = (time: string, language: string) =>
  format(language, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" }).format(new Date(time));

export const fullTime = (time: string, language: string) =>
  format(language, { dateStyle: "full", timeStyle: "medium" }).format(new Date(time));

/** The local day as `2026-11-29`: equal for times of the same day. */
export function dayOf(time: string): string {
  const date = new Date(time);
  return `${date.getFullYear()}-${date.getMonth() + 1}-${date.getDate()}`;
}

export function dayName(time: string, language: string, today: string, yesterday: string, now = new Date()): string {
  const day = dayOf(time);
  if (day === dayOf(now.toISOString())) return today;
  const before = new Date(now);
  before.setDate(now.getDate() - 1);
  if (day === dayOf(before.toISOString())) return yesterday;
  const sameYear = new Date(time).getFullYear() === now.getFullYear();
  const options: Intl.DateTimeFormatOptions = { weekday: "long", day: "numeric", month: "long" };
  return format(language, sameYear ? options : { ...options, year: "numeric" }).format(new Date(time));
}

/** For lists: the clock today, the weekday this week, else the date. */
export function shortTime(time: string, language: string, now = new Date()): string {
  const at = new Date(time);
  if (dayOf(time) === dayOf(now.toISOString())) return clock(time, language);
  const days = (now.getTime() - at.getTime()) / 86_400_000;
  if (days < 6) return format(language, { weekday: "short" }).format(at);
  return format(language, { day: "numeric", month: "short" }).format(at);
}

/** "3 minutes ago"; null for less than a minute. */
export function ago(time: string, language: string, now = Date.now()): string | null {
  const seconds = Math.round((now - new Date(time).getTime()) / 1000);
  if (seconds < 60) return null;
  const relative = new Intl.RelativeTimeFormat(language, { numeric: "auto" });
  if (seconds < 3600) return relative.format(-Math.floor(seconds / 60), "minute");
  if (seconds < 86_400) return relative.format(-Math.floor(seconds / 3600), "hour");
  return relative.format(-Math.floor(seconds / 86_400), "day");
}

/** A length of time in its largest unit: "12 min". */
export function span(seconds: number, language: string): string {
  const [value, unit] = seconds < 60 ? [seconds, "second"] : seconds < 3600 ? [seconds / 60, "minute"] : seconds < 86_400 ? [seconds / 3600, "hour"] : [seconds / 86_400, "day"];
  return new Intl.NumberFormat(language, { style: "unit", unit, unitDisplay: "short", maximumFractionDigits: 0 }).format(Math.floor(value));
}
