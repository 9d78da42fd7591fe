//! HTTP on loopback: who comes in, and who does not.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod stage;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;
use stage::{Machine, PATIENCE};

const JSON: &str = "content-type: application/json";

/// A node and where it speaks HTTP.
struct Page {
    ada: Machine,
    host: String,
    _folder: tempfile::TempDir,
}

/// An answer, taken apart.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn code(&self) -> String {
        let problem: Value = serde_json::from_str(&self.body).unwrap_or_default();
        problem["code"].as_str().unwrap_or_default().to_owned()
    }

    fn json(&self) -> Value {
        assert_eq!(self.status / 100, 2, "{} {}", self.head, self.body);
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Page {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut ada = Machine::new(folder.path(), "ada");
        let status = ada.up();
        let host = status["http"]
            .as_str()
            .unwrap()
            .trim_start_matches("http://")
            .to_owned();
        Self {
            ada,
            host,
            _folder: folder,
        }
    }

    /// One request with exactly these headers.
    fn bare(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n");
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    /// One request that names the host as it should.
    fn ask(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        let host = format!("host: {}", self.host);
        self.bare(method, path, &[&[host.as_str()], headers].concat(), body)
    }

    fn origin(&self) -> String {
        format!("origin: http://{}", self.host)
    }

    /// Signs in as a browser does and returns the cookie's header.
    fn sign_in(&self) -> String {
        let link = self.ada.json(&["open", "--print"]);
        let url = link["url"].as_str().unwrap();
        let (page, secret) = url.split_once("/#token=").unwrap();
        assert_eq!(page, format!("http://{}", self.host));
        let body = format!("{{\"token\":\"{secret}\"}}");
        let signed = self.ask("POST", "/api/v1/session", &[&self.origin(), JSON], &body);
        assert_eq!(signed.json()["scopes"][0], "admin");
        let cookie = signed
            .head
            .lines()
            .find_map(|line| line.strip_prefix("set-cookie: "))
            .unwrap();
        assert!(
            cookie.contains("httponly") && cookie.contains("samesite=strict"),
            "{cookie}"
        );
        let again = self.ask("POST", "/api/v1/session", &[&self.origin(), JSON], &body);
        assert_eq!(
            (again.status, again.code().as_str()),
            (401, "no-access"),
            "a link is good once"
        );
        format!("cookie: {}", cookie.split(';').next().unwrap())
    }

    fn token(&self, name: &str, scopes: &str) -> String {
        let made = self.ada.json(&["token", "new", name, "--scope", scopes]);
        format!("authorization: Bearer {}", made["token"].as_str().unwrap())
    }
}

#[test]
fn a_browser_signs_in_once_and_stays_so_over_a_restart() {
    let mut page = Page::new();
    let cookie = page.sign_in();
    assert_eq!(page.ask("GET", "/api/v1/status", &[], "").code(), "no-access");
    assert_eq!(
        page.ask("GET", "/api/v1/session", &[&cookie], "").json()["scopes"][0],
        "admin"
    );
    page.ada.stop();
    let status = page.ada.up();
    assert_eq!(status["http"], format!("http://{}", page.host), "the same port");
    let made = page.ask("POST", "/api/v1/note-to-self", &[&cookie, &page.origin()], "");
    assert_eq!(made.status, 201);
    assert_eq!(
        page.ask("DELETE", "/api/v1/session", &[&cookie, &page.origin()], "")
            .status,
        204
    );
    assert_eq!(page.ask("GET", "/api/v1/session", &[&cookie], "").status, 401);
}

#[test]
fn pages_of_others_get_nothing() {
    let page = Page::new();
    let cookie = page.sign_in();
    let host = format!("host: {}", page.host);
    let port = page.host.rsplit(':').next().unwrap();
    let localhost = format!("host: localhost:{port}");
    assert_eq!(
        page.bare("GET", "/api/v1/status", &[&localhost, &cookie], "").status,
        200
    );
    // A name that was rebound to this machine, another port, no port, two names, none.
    for hosts in [
        vec![format!("host: evil.example:{port}")],
        vec!["host: 127.0.0.1:1".to_owned()],
        vec!["host: 127.0.0.1".to_owned()],
        vec![format!("host: {}.", page.host)],
        vec![host.clone(), "host: evil.example".to_owned()],
        vec![],
    ] {
        let mut headers: Vec<&str> = hosts.iter().map(String::as_str).collect();
        headers.push(&cookie);
        for path in ["/api/v1/status", "/"] {
            let answer = page.bare("GET", path, &headers, "");
            assert!(matches!(answer.status, 400 | 421), "{hosts:?} {path}: {}", answer.head);
        }
    }
    // Pages of others, by script, by event stream, by upgrade.
    let upgrade = ["upgrade: websocket", "connection: upgrade", "sec-websocket-version: 13"];
    for foreign in [
        "origin: http://evil.example",
        "origin: null",
        "origin: http://127.0.0.1:1",
        "sec-fetch-site: same-site",
    ] {
        for (method, path) in [
            ("GET", "/api/v1/status"),
            ("GET", "/api/v1/events"),
            ("POST", "/api/v1/rooms"),
        ] {
            let mut headers = vec![host.as_str(), &cookie, foreign];
            assert_eq!(
                page.bare(method, path, &headers, "").code(),
                "foreign-origin",
                "{foreign} {method} {path}"
            );
            headers.extend(upgrade);
            assert_eq!(
                page.bare(method, path, &headers, "").code(),
                "foreign-origin",
                "upgrade, {foreign}"
            );
        }
    }
    let mut headers = vec![host.as_str(), &cookie];
    headers.extend(upgrade);
    assert_eq!(
        page.bare("GET", "/api/v1/events", &headers, "").code(),
        "foreign-origin",
        "an upgrade without origin"
    );
    // What a form of another page can send: no origin, or another type than JSON.
    let form = "content-type: application/x-www-form-urlencoded";
    let posted = page.ask("POST", "/api/v1/note-to-self", &[&cookie, form], "a=b");
    assert_eq!(posted.code(), "foreign-origin");
    for kind in [form, "content-type: text/plain", "content-type: multipart/form-data"] {
        let posted = page.ask(
            "POST",
            "/api/v1/rooms",
            &[&cookie, &page.origin(), kind],
            "{\"name\":\"x\"}",
        );
        assert_eq!(posted.code(), "not-json", "{kind}");
    }
    let rooms = page.ask("GET", "/api/v1/rooms", &[&cookie], "").json();
    assert_eq!(rooms["rooms"].as_array().unwrap().len(), 0, "nothing was made");
    let answer = page.ask("GET", "/api/v1/rooms", &[&cookie], "");
    assert!(
        !answer.head.contains("access-control-allow"),
        "no CORS: {}",
        answer.head
    );
}

#[test]
fn a_token_does_what_its_scopes_say_until_it_is_revoked() {
    let page = Page::new();
    let room = page.ada.json(&["room", "new", "Kitchen"])["room"]
        .as_str()
        .unwrap()
        .to_owned();
    let entries = format!("/api/v1/rooms/{room}/entries");
    let (read, send, admin) = (
        page.token("r", "read"),
        page.token("s", "send,read"),
        page.token("a", "admin"),
    );
    let say = |token: &str| page.ask("POST", &entries, &[token, JSON], "{\"text\":\"hello\"}");
    assert_eq!(page.ask("GET", &entries, &[&read], "").status, 200);
    assert_eq!((say(&read).status, say(&read).code().as_str()), (403, "scope"));
    assert_eq!(say(&send).status, 201);
    let phrase = |token: &str| page.ask("GET", "/api/v1/identity/phrase", &[token], "").status;
    assert_eq!((phrase(&read), phrase(&send), phrase(&admin)), (403, 403, 200));
    assert_eq!(page.ask("GET", "/api/v1/tokens", &[&send], "").status, 403);
    for wrong in [
        "authorization: Bearer oht_00",
        "authorization: Basic x",
        "authorization: Bearer ",
    ] {
        assert_eq!(
            page.ask("GET", "/api/v1/status", &[wrong], "").code(),
            "no-access",
            "{wrong}"
        );
    }
    let listed = page.ada.lines(&["token", "list"]);
    assert_eq!(listed.len(), 3);
    assert!(listed.iter().all(|token| token.get("token").is_none()), "{listed:?}");
    page.ada.json(&["token", "revoke", "s"]);
    assert_eq!(say(&send).code(), "no-access");
    assert_eq!(page.ada.run(&["token", "revoke", "s"]).code, 4);
    assert_eq!(
        page.ada.run(&["token", "new", "r", "--scope", "read"]).code,
        6,
        "the name is taken"
    );
    assert_eq!(page.ada.run(&["token", "new", "x", "--scope", "all"]).code, 2);
}

#[test]
fn the_client_is_served_and_nothing_else() {
    let page = Page::new();
    let index = page.ask("GET", "/", &[], "");
    assert_eq!(index.status, 200);
    assert!(index.body.to_lowercase().contains("offhook"));
    for header in [
        "content-security-policy: default-src 'none'; script-src 'self'",
        "x-content-type-options: nosniff",
        "x-frame-options: deny",
        "referrer-policy: no-referrer",
        "content-type: text/html",
    ] {
        assert!(index.head.contains(header), "{header} in {}", index.head);
    }
    let tag = index.head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    let again = page.ask("GET", "/", &[&format!("if-none-match: {tag}")], "");
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    assert_eq!(page.ask("GET", "/rooms/whatever", &[], "").body, index.body);
    for path in [
        "/..%2f..%2fetc/passwd",
        "/../../../../etc/passwd",
        "/assets/../../identity.key",
        "/%2e%2e/identity.key",
        "//etc/passwd",
    ] {
        let answer = page.ask("GET", path, &[], "");
        assert!(
            answer.body == index.body || answer.status == 404,
            "{path}: {}",
            answer.body
        );
    }
    assert_eq!(page.ask("POST", "/", &[&page.origin()], "").status, 405);
    assert_eq!(page.ask("GET", "/api/v1/nothing", &[], "").code(), "no-endpoint");
}

#[test]
fn files_are_taken_in_and_read_in_parts_and_no_form_can_send_them() {
    const BYTES: &str = "content-type: application/octet-stream";
    let page = Page::new();
    let room = page.ada.json(&["room", "new", "Study"])["room"]
        .as_str()
        .unwrap()
        .to_owned();
    let (cookie, origin) = (page.sign_in(), page.origin());
    let headers = [cookie.as_str(), &origin, BYTES];
    let taken = page.ask(
        "POST",
        "/api/v1/files?name=page.html",
        &headers,
        "<script>alert(1)</script>",
    );
    assert_eq!((taken.status, &taken.json()["type"]), (201, &"text/html".into()));
    let file = taken.json()["file"].as_str().unwrap().to_owned();
    let body = format!(r#"{{"text":"","files":["{file}"]}}"#);
    let entries = format!("/api/v1/rooms/{room}/entries");
    let sent = page.ask("POST", &entries, &[&cookie, &origin, JSON], &body).json();
    let at = format!("/api/v1/entries/{}/files/{file}", sent["id"].as_str().unwrap());

    let read = page.ask("GET", &at, &[&cookie], "");
    assert_eq!((read.status, read.body.as_str()), (200, "<script>alert(1)</script>"));
    for header in [
        "content-type: application/octet-stream",
        "content-disposition: attachment; filename*=utf-8''page%2ehtml",
        "x-content-type-options: nosniff",
        "content-security-policy: default-src 'none'",
        "content-length: 25",
    ] {
        assert!(read.head.contains(header), "{header}: {}", read.head);
    }
    let part = page.ask("GET", &at, &[&cookie, "range: bytes=8-12"], "");
    assert_eq!((part.status, part.body.as_str()), (206, "alert"));
    assert!(part.head.contains("content-range: bytes 8-12/25"), "{}", part.head);
    assert_eq!(page.ask("GET", &at, &[&cookie, "range: bytes=25-"], "").status, 416);

    // A form's types, another place for this one, a file that was not taken in, a token that may only read.
    let refused = |method: &str, path: &str, headers: &[&str], body: &str| page.ask(method, path, headers, body).code();
    for kind in [
        "text/plain",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
    ] {
        let kind = format!("content-type: {kind}");
        assert_eq!(
            refused("POST", "/api/v1/files?name=x", &[&cookie, &origin, &kind], "x"),
            "not-json"
        );
    }
    assert_eq!(refused("POST", &entries, &headers, &body), "not-json");
    assert_eq!(refused("POST", &entries, &[&cookie, &origin, JSON], &body), "no-file");
    let reader = page.token("reader", "read");
    assert_eq!(refused("POST", "/api/v1/files?name=x", &[&reader, BYTES], "x"), "scope");
    assert_eq!(refused("GET", &at.replace(&file, "00"), &[&cookie], ""), "no-file");
    assert_eq!(refused("POST", "/api/v1/files", &headers, "x"), "bad-request");
}

#[test]
fn http_can_be_turned_off_and_its_port_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    let status = ada.up_with(&["--http", "off"]);
    assert_eq!(status["http"], Value::Null);
    assert_eq!(ada.run(&["open", "--print"]).code, 6);
    assert_eq!(ada.run(&["up", "--http", "0.0.0.0:80"]).code, 2, "loopback only");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    ada.stop();
    let ran = ada.run(&["up", "--http", &port]);
    assert_eq!((ran.code, ran.stderr.contains("--http")), (7, true), "{}", ran.stderr);
}
