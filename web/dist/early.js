// Asks for what is needed first while the page itself is still being read and compiled: the client takes these answers instead of asking again.
// Not where the address holds a secret to sign in with: what is asked then comes after it.
if (!/^#[^/]/.test(location.hash)) {
  const paths = ["/rooms", "/status"];
  const [page, room] = location.hash.replace(/^#\//, "").split("/");
  if (page === "room" && room) paths.push(`/rooms/${room}/entries?limit=80`, `/rooms/${room}/members`);
  window.early = new Map(paths.map((path) => [path, fetch(`/api/v1${path}`, { credentials: "same-origin" }).catch(() => undefined)]));
}
