// A key as people compare it by eye: its beginning, in blocks of four.

/** The first sixteen digits of an id in hex. */
export function fingerprint(id: string): string {
  return (id.slice(0, 16).match(/.{1,4}/g) ?? []).join(" ");
}
