//! The API as other programs see it: names of the JSON, shapes of problems, the event stream. The names are a promise.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod stage;

use serde_json::Value;
use stage::{Machine, names};

/// The body of an answer, and its status line and headers.
fn split(answer: &str) -> (&str, &str) {
    answer.split_once("\r\n\r\n").expect("an answer has a head")
}

fn problem(answer: &str) -> Value {
    let (head, body) = split(answer);
    assert!(head.contains("content-type: application/problem+json"), "{head}");
    serde_json::from_str(body).unwrap()
}

#[test]
fn status_has_the_names_that_scripts_rely_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    let from_up = ada.up();
    let status = ada.json(&["status"]);
    let expected = [
        "addresses",
        "device",
        "home",
        "http",
        "keeper",
        "name",
        "network",
        "peers",
        "person",
        "relay",
        "rooms",
        "since",
        "versions",
    ];
    assert_eq!(names(&status), expected);
    assert_eq!(names(&from_up), expected);
    for id in ["person", "device"] {
        let id = status[id].as_str().unwrap();
        assert!(
            id.len() == 64 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
            "{id}"
        );
    }
    assert!(
        status["addresses"][0].as_str().unwrap().starts_with("127.0.0.1:"),
        "{status}"
    );
    assert!(status["network"].as_str().unwrap().contains("this machine only"));
}

#[test]
fn requests_that_do_not_fit_are_problems_with_a_code() {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    ada.up();
    let ask = |method: &str, path: &str, headers: &str, body: &str| {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        problem(&ada.raw(&request))
    };
    let json = "content-type: application/json\r\n";
    for (method, path, headers, body, code, status) in [
        ("GET", "/", "", "", "no-endpoint", 404),
        ("GET", "/api/v1/nothing", "", "", "no-endpoint", 404),
        ("GET", "/api/v1/../status", "", "", "no-endpoint", 404),
        ("PUT", "/api/v1/status", "", "", "bad-method", 405),
        ("POST", "/api/v1/rooms", "", "{\"name\":\"x\"}", "not-json", 415),
        ("POST", "/api/v1/rooms", json, "{\"name\":", "bad-request", 400),
        (
            "POST",
            "/api/v1/rooms",
            json,
            "{\"name\":\"x\",\"colour\":1}",
            "bad-request",
            400,
        ),
        (
            "POST",
            "/api/v1/rooms",
            json,
            "{\"name\":\"x\",\"history\":\"0d\"}",
            "bad-request",
            400,
        ),
        (
            "POST",
            "/api/v1/joins",
            json,
            "{\"invite\":\"offhook:zz\"}",
            "bad-invite",
            422,
        ),
        ("GET", "/api/v1/rooms/Attic", "", "", "no-room", 404),
        ("GET", "/api/v1/rooms/%2E%2E", "", "", "no-room", 404),
        ("GET", "/api/v1/rooms/Attic/entries?limit=0", "", "", "bad-request", 400),
        (
            "GET",
            "/api/v1/rooms/Attic/entries?limit=1001",
            "",
            "",
            "bad-request",
            400,
        ),
        (
            "GET",
            "/api/v1/rooms/Attic/entries?cursor=x",
            "",
            "",
            "bad-request",
            400,
        ),
        ("GET", "/api/v1/search?words=%20", "", "", "bad-request", 400),
        ("GET", "/api/v1/search", "", "", "bad-request", 400),
        ("GET", "/api/v1/events", "last-event-id: x\r\n", "", "bad-request", 400),
        ("GET", "/api/v1/contacts/Zoe", "", "", "no-person", 404),
        ("GET", "/api/v1/entries/x", "", "", "no-entry", 404),
        (
            "POST",
            "/api/v1/backup",
            json,
            "{\"passphrase\":\"\"}",
            "bad-backup",
            422,
        ),
    ] {
        let problem = ask(method, path, headers, body);
        assert_eq!(
            (problem["code"].as_str(), problem["status"].as_u64()),
            (Some(code), Some(status)),
            "{method} {path}: {problem}"
        );
        assert!(problem["detail"].as_str().unwrap().len() > 10, "{problem}");
    }
    let large = ask(
        "POST",
        "/api/v1/rooms",
        json,
        &format!("{{\"name\":\"{}\"}}", "x".repeat(600_000)),
    );
    assert_eq!(large["code"], "too-large");
}

/// Follows the events until the node stops, from this address on.
fn follow(ada: &mut Machine, path: &str, header: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{header}\r\n");
    let follower = ada.another_terminal();
    let follower = std::thread::spawn(move || follower.raw(&request));
    // Long enough to be accepted; what is in the log is sent before the end in any case.
    std::thread::sleep(std::time::Duration::from_millis(500));
    ada.stop();
    let answer = follower.join().unwrap();
    let (head, body) = split(&answer);
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    body.to_owned()
}

fn ids(body: &str) -> Vec<u64> {
    let ids = body.lines().filter_map(|line| line.strip_prefix("id: "));
    ids.map(|id| id.trim().parse().unwrap()).collect()
}

#[test]
fn a_number_that_is_no_longer_kept_resumes_with_a_reset() {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    ada.up();
    ada.json(&["room", "new", "Kitchen"]);
    let body = follow(&mut ada, "/api/v1/events", "last-event-id: 5\r\n");
    assert!(body.contains("event: reset\ndata: {\"event\":\"reset\"}"), "{body}");
    assert!(ids(&body)[0] > 1_700_000_000_000_000, "{body}");
}

#[test]
fn events_go_on_over_a_kill_and_nothing_is_told_twice() {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    ada.up();
    let api = |ada: &Machine, method: &str, path: &str, body: &str| {
        let json = "content-type: application/json\r\nconnection: close\r\n";
        let length = body.len();
        ada.raw(&format!(
            "{method} /api/v1{path} HTTP/1.1\r\nhost: localhost\r\n{json}content-length: {length}\r\n\r\n{body}"
        ))
    };
    let newest = |ada: &Machine| {
        let listed = api(ada, "GET", "/events/consumers", "");
        let listed: Value = serde_json::from_str(split(&listed).1).unwrap();
        listed["newest"].as_u64().unwrap()
    };
    let start = newest(&ada);
    assert!(
        api(
            &ada,
            "PUT",
            "/events/consumers/bot",
            &format!("{{\"acknowledged\":{start}}}")
        )
        .contains(" 204 ")
    );
    ada.json(&["room", "new", "Kitchen"]);
    ada.say("Kitchen", "before the kill");
    let before = newest(&ada);
    ada.kill();
    ada.up();
    ada.say("Kitchen", "after the kill");
    let after = newest(&ada);
    assert!(after > before);
    let body = follow(&mut ada, "/api/v1/events?consumer=bot", "");
    let told = ids(&body);
    assert_eq!(
        told[..usize::try_from(after - start).unwrap()],
        (start + 1..=after).collect::<Vec<_>>()
    );
    for text in ["before the kill", "after the kill"] {
        let new = body
            .lines()
            .filter(|line| line.contains(text) && line.contains("\"new\":true"));
        assert_eq!(new.count(), 1, "{body}");
    }
    ada.up();
    let ahead = format!("{{\"acknowledged\":{}}}", after + 1_000_000);
    assert!(api(&ada, "PUT", "/events/consumers/bot", &ahead).contains(" 400 "));
    assert!(
        api(
            &ada,
            "PUT",
            "/events/consumers/bot",
            &format!("{{\"acknowledged\":{after}}}")
        )
        .contains(" 204 ")
    );
    let body = follow(&mut ada, "/api/v1/events?consumer=bot", "");
    assert!(!body.contains("kill"), "{body}");
}

#[test]
fn what_is_kept_about_a_room_is_the_same_for_every_client() {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    ada.up();
    let room = ada.json(&["room", "new", "Kitchen"])["room"]
        .as_str()
        .unwrap()
        .to_owned();
    let ask = |method: &str, path: &str, body: &str| {
        let length = body.len();
        let json = "content-type: application/json\r\nconnection: close\r\n";
        let answer = ada.raw(&format!(
            "{method} /api/v1{path} HTTP/1.1\r\nhost: localhost\r\n{json}content-length: {length}\r\n\r\n{body}"
        ));
        let (head, body) = split(&answer);
        assert!(head.contains(" 20"), "{method} {path}: {answer}");
        serde_json::from_str::<Value>(body).unwrap_or_default()
    };
    ask("PUT", &format!("/rooms/{room}/draft"), "{\"text\":\"half a thou\"}");
    ask("PATCH", &format!("/rooms/{room}"), "{\"pinned\":true,\"muted\":true}");
    let shown = ask("GET", &format!("/rooms/{room}"), "");
    assert_eq!(
        (&shown["pinned"], &shown["muted"], &shown["note_to_self"]),
        (&true.into(), &true.into(), &false.into())
    );
    assert_eq!(shown["draft"]["text"], "half a thou");
    ask("PUT", &format!("/rooms/{room}/draft"), "{\"text\":\"\"}");
    ask("PATCH", &format!("/rooms/{room}"), "{\"pinned\":false}");
    let shown = ask("GET", &format!("/rooms/{room}"), "");
    assert_eq!(
        (&shown["pinned"], &shown["muted"], &shown["draft"]),
        (&false.into(), &true.into(), &Value::Null)
    );

    let note = ask("POST", "/note-to-self", "");
    assert_eq!(ask("POST", "/note-to-self", "")["room"], note["room"], "there is one");
    let note = note["room"].as_str().unwrap();
    assert_eq!(ask("GET", &format!("/rooms/{note}"), "")["note_to_self"], true);

    ask("PUT", "/settings/web", "{\"theme\":\"dark\"}");
    assert_eq!(ask("GET", "/settings/web", "")["theme"], "dark");
    assert_eq!(ask("PATCH", "/identity", "{\"name\":\"Ada L.\"}")["name"], "Ada L.");
    ask("PUT", "/focus", &format!("{{\"room\":\"{room}\"}}"));
    ask("GET", "/near", "");
}

#[test]
fn a_page_can_stand_around_an_entry() {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    ada.up();
    ada.json(&["room", "new", "Kitchen"]);
    let said: Vec<String> = (0..9).map(|n| ada.say("Kitchen", &n.to_string())).collect();
    let page = |query: &str| {
        let answer = ada.raw(&format!(
            "GET /api/v1/rooms/Kitchen/entries?{query} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        ));
        let page: Value = serde_json::from_str(split(&answer).1).unwrap();
        let texts = page["entries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|line| line["text"].as_str().unwrap().to_owned());
        (texts.collect::<Vec<_>>(), page)
    };
    let (texts, around) = page(&format!("around={}&limit=5", said[4]));
    assert_eq!(texts, ["2", "3", "4", "5", "6"]);
    assert_eq!(
        page(&format!("limit=2&cursor={}", around["older"].as_str().unwrap())).0,
        ["0", "1"]
    );
    let (texts, newest) = page(&format!("limit=3&cursor={}", around["newer"].as_str().unwrap()));
    assert_eq!(
        (texts, &newest["newer"]),
        (vec!["7".to_owned(), "8".to_owned()], &Value::Null)
    );
    assert_eq!(page(&format!("after={}&limit=1", said[0])).0, ["1"]);
    let (texts, newest) = page("limit=2");
    assert_eq!(
        (texts, &newest["newer"]),
        (vec!["7".to_owned(), "8".to_owned()], &Value::Null)
    );
}

#[test]
fn the_recovery_phrase_has_24_words() {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    let status = ada.up();
    let phrase = ada.json(&["identity", "phrase"]);
    assert_eq!(names(&phrase), ["person", "phrase"]);
    assert_eq!(phrase["person"], status["person"]);
    assert_eq!(phrase["phrase"].as_str().unwrap().split(' ').count(), 24);
}

#[test]
fn the_description_is_the_one_that_is_checked_in_and_every_address_in_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    let made = ada.run(&["openapi"]).stdout;
    let checked_in = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    let checked_in = std::fs::read_to_string(checked_in).unwrap_or_default();
    assert!(
        made == checked_in,
        "the API changed: run `offhook openapi > docs/openapi.json`"
    );
    let api: Value = serde_json::from_str(&made).unwrap();
    assert!(api["openapi"].as_str().unwrap().starts_with("3.1"));
    ada.up();
    let in_words = include_str!("../../../docs/api.md");
    for (path, item) in api["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().filter(|key| *key != "parameters") {
            if path.ends_with("/events") {
                continue;
            }
            let asked = path.replace(['{', '}'], "");
            let request = format!(
                "{} {asked} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
                method.to_uppercase()
            );
            let answer = ada.raw(&request);
            let code = answer
                .split("\"code\":\"")
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            assert!(
                !matches!(code, Some("no-endpoint" | "bad-method")),
                "{method} {path}: {answer}"
            );
        }
        let words = path.trim_start_matches("/api/v1");
        assert!(
            in_words.contains(&format!("{words}`")) || in_words.contains(&format!("{words} ")),
            "docs/api.md lacks {words}"
        );
    }
}

#[test]
fn metrics_name_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    let status = ada.up();
    ada.json(&["room", "new", "Kitchen"]);
    ada.say("Kitchen", "hello");
    let answer = ada.raw("GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let (head, body) = split(&answer);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(
        body.contains("offhook_messages 1\n") && body.contains("process_resident_memory_bytes "),
        "{body}"
    );
    for secret in [
        "Kitchen",
        "ada",
        &status["person"].as_str().unwrap()[..8],
        &status["device"].as_str().unwrap()[..8],
    ] {
        assert!(!body.contains(secret), "{secret} in {body}");
    }
}

#[test]
fn strangers_nearby_ask_and_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let [mut ada, mut bea] = ["ada", "bea"].map(|name| Machine::new(folder.path(), name));
    let [adas, beas] = [&mut ada, &mut bea].map(|node| node.up()["device"].as_str().unwrap().to_owned());
    ada.json(&["room", "new", "Kitchen"]);
    let sees = |whom: &str| {
        let whom = whom.to_owned();
        move |node: &Machine| {
            let near = node.json(&["near"])["near"].as_array().cloned().unwrap_or_default();
            near.into_iter().find(|near| near["device"] == whom.as_str())
        }
    };
    for node in [&ada, &bea] {
        assert_eq!(
            node.json(&["near"])["visible"],
            false,
            "nobody is seen who did not say so"
        );
        assert_eq!(node.json(&["near", "show"])["visible"], true);
    }
    ada.wait_until("Ada sees Bea's name", |ada| {
        sees(&beas)(ada).is_some_and(|near| near["claims"] == "bea")
    });
    bea.wait_until("Bea sees Ada", |bea| sees(&adas)(bea).is_some());

    // Wrong calls say what is wrong and what would be right.
    let refused = |node: &Machine, method: &str, path: &str, body: &str| {
        let told = problem(&node.raw(&format!(
            "{method} /api/v1{path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )));
        (
            told["status"].as_u64().unwrap(),
            told["detail"].as_str().unwrap().to_owned(),
        )
    };
    let (status, told) = refused(&ada, "POST", "/near/nobody/invite", "{}");
    assert!(status == 404 && told.contains("`offhook near` lists"), "{told}");
    let (status, told) = refused(&ada, "POST", &format!("/near/{beas}/invite"), "{\"room\":\"Attic\"}");
    assert!(status == 404 && told.contains("no room `Attic`"), "{told}");
    let (status, told) = refused(&ada, "POST", &format!("/near/{beas}/invite"), "{\"rom\":\"Kitchen\"}");
    assert!(status >= 400 && told.contains("rom"), "{told}");
    let (status, told) = refused(&ada, "POST", "/near/requests/abcd", "{\"answer\":\"accept\"}");
    assert!(status == 404 && told.contains("no invitation"), "{told}");
    let (_, told) = refused(&ada, "POST", "/near/requests/abcd", "{\"answer\":\"perhaps\"}");
    assert!(told.contains("perhaps") && told.contains("accept"), "{told}");

    // No, then, from the other side, yes.
    let standing = |node: &Machine, whom: &str, wanted: &str| {
        let (whom, wanted) = (whom.to_owned(), wanted.to_owned());
        node.wait_until(&format!("it is {wanted}"), |node| {
            sees(&whom)(node).is_some_and(|near| near["invited"][0]["standing"] == wanted.as_str())
        });
    };
    ada.json(&["near", "invite", &beas, "Kitchen"]);
    standing(&ada, &beas, "shown");
    let again = ada.run(&["near", "invite", &beas, "Kitchen"]);
    assert!(again.stderr.contains("wait for its answer"), "{}", again.stderr);
    let asked = bea.json(&["near"])["requests"][0].clone();
    assert_eq!(
        (&asked["claims"], &asked["room_name"], &asked["name"]),
        (&"ada".into(), &"Kitchen".into(), &Value::Null)
    );
    assert!(bea.lines(&["room", "list"]).is_empty() && bea.lines(&["contact", "list"]).is_empty());
    bea.json(&["near", "decline"]);
    standing(&ada, &beas, "declined");
    bea.json(&["near", "invite", &adas]);
    ada.wait_until("Ada is asked", |ada| {
        let near = ada.json(&["near"]);
        near["requests"]
            .as_array()
            .is_some_and(|asked| asked.len() == 1 && asked[0]["room_name"].is_null())
    });
    let chat = ada.json(&["near", "accept"]);
    let chat = chat["room"].as_str().unwrap();
    bea.wait_until("Bea is in the room of two", |bea| {
        bea.lines(&["room", "list"])
            .iter()
            .any(|room| room["room"] == chat && room["standing"] == "member")
    });
    ada.say(chat, "hello over there");
    bea.wait_until("it arrives", |bea| bea.texts(chat) == ["hello over there"]);
    assert!(
        ada.run(&["near", "accept"])
            .stderr
            .contains("nobody near here invites you now")
    );

    // Whoever hides is seen without a name, over a restart too.
    assert_eq!(bea.json(&["near", "hide"])["visible"], false);
    bea.stop();
    bea.up();
    assert_eq!(bea.json(&["near"])["visible"], false);
    ada.wait_until("Bea has no name for strangers", |ada| {
        sees(&beas)(ada).is_some_and(|near| near["claims"].is_null() && near["name"] == "bea")
    });
}
