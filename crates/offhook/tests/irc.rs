//! IRC as a client sees it: checks written from modern.ircdocs.horse and the IRCv3 specifications, against real nodes.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod stage;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use stage::{Machine, PATIENCE};

/// A client that writes lines and reads lines.
struct Client {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Client {
    fn connect(at: &str) -> Self {
        let stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap());
        Self { stream, lines }
    }

    fn say(&mut self, line: &str) {
        self.stream.write_all(format!("{line}\r\n").as_bytes()).unwrap();
    }

    /// The next line, PINGs answered on the way; `None` at the end of the connection.
    fn next(&mut self) -> Option<String> {
        let start = Instant::now();
        let mut line = Vec::new();
        loop {
            match self.lines.read_until(b'\n', &mut line) {
                Ok(0) => return None,
                Ok(_) if line.ends_with(b"\n") => {
                    assert!(line.len() <= 8191 + 512, "a line is too long: {}", line.len());
                    let text = String::from_utf8(std::mem::take(&mut line))
                        .unwrap()
                        .trim_end()
                        .to_owned();
                    let body = if text.starts_with('@') {
                        text.split_once(' ').unwrap().1
                    } else {
                        &text
                    };
                    assert!(body.len() + 2 <= 512, "longer than a line may be: {body}");
                    match text.strip_prefix("PING ") {
                        Some(token) => self.say(&format!("PONG {token}")),
                        None => return Some(text),
                    }
                }
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    assert!(
                        start.elapsed() < PATIENCE,
                        "nothing came for too long; so far: {line:?}"
                    );
                }
                Err(_) => return None,
            }
        }
    }

    /// Lines up to and with the first that holds all of these.
    fn until(&mut self, wanted: &[&str]) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let Some(line) = self.next() else {
                panic!("the connection ended before {wanted:?}; it said {all:#?}");
            };
            let found = wanted.iter().all(|part| line.contains(part));
            all.push(line);
            if found {
                return all;
            }
            assert!(all.len() < 5000, "{wanted:?} does not come");
        }
    }

    /// The line that holds all of these.
    fn expect(&mut self, wanted: &[&str]) -> String {
        self.until(wanted).pop().unwrap()
    }

    /// Everything that comes before the answer to a PING.
    fn settle(&mut self) -> Vec<String> {
        self.say("PING settle");
        let mut lines = self.until(&["PONG", "settle"]);
        lines.pop();
        lines
    }
}

/// A tag's value.
fn tag<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (tags, _) = line.strip_prefix('@')?.split_once(' ')?;
    tags.split(';').find_map(|tag| {
        tag.split_once('=')
            .filter(|(known, _)| *known == name)
            .map(|(_, value)| value)
    })
}

/// Ada's node with a room, and IRC turned on.
struct Scene {
    ada: Machine,
    at: String,
    token: String,
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut ada = Machine::new(folder.path(), "ada");
        ada.up();
        ada.json(&["room", "new", "Kitchen"]);
        let on = ada.json(&["irc", "on", "--port", "0"]);
        let token = ada.json(&["token", "new", "irc", "--scope", "read,send"]);
        Self {
            at: on["at"].as_str().unwrap().to_owned(),
            token: token["token"].as_str().unwrap().to_owned(),
            ada,
            folder,
        }
    }

    /// Signs in as IRCv3 clients do.
    fn client(&self, name: &str, capabilities: &str) -> Client {
        let mut client = Client::connect(&self.at);
        client.say("CAP LS 302");
        assert!(client.expect(&["CAP", "LS"]).contains("sasl=PLAIN"));
        client.say("NICK someone");
        client.say(&format!("USER {name} 0 * :{name}"));
        client.say(&format!("CAP REQ :sasl {capabilities}"));
        client.expect(&["CAP", "ACK"]);
        client.say("AUTHENTICATE PLAIN");
        client.expect(&["AUTHENTICATE +"]);
        client.say(&format!(
            "AUTHENTICATE {}",
            base64(&format!("\0{name}\0{}", self.token))
        ));
        client.expect(&[" 903 "]);
        client.say("CAP END");
        client.expect(&[" 001 ada "]);
        client
    }

    fn full(&self, name: &str) -> Client {
        let all = "server-time message-tags batch echo-message labeled-response draft/chathistory draft/message-redaction \
                   draft/read-marker account-tag extended-join multi-prefix cap-notify";
        let mut client = self.client(name, all);
        client.settle();
        client
    }

    /// A second person in the room.
    fn bea(&self) -> Machine {
        let mut bea = Machine::new(self.folder.path(), "bea");
        bea.up();
        let invite = self.ada.json(&["invite", "Kitchen"]);
        bea.json(&["join", invite["invite"].as_str().unwrap()]);
        bea.wait_until("bea is in", |bea| bea.run(&["log", "Kitchen"]).code == 0);
        bea
    }
}

fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut coded = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            coded.push(if place > chunk.len() { '=' } else { char::from(letter) });
        }
    }
    coded
}

#[test]
fn nobody_comes_in_without_a_token() {
    let scene = Scene::new();
    let mut client = Client::connect(&scene.at);
    client.say("NICK x");
    client.say("JOIN #Kitchen");
    client.expect(&[" 451 "]);
    client.say("USER x 0 * :x");
    client.expect(&[" 464 "]);
    client.expect(&["ERROR"]);
    assert_eq!(client.next(), None, "the connection is closed");

    let mut client = Client::connect(&scene.at);
    client.say("CAP REQ sasl");
    client.say("AUTHENTICATE SCRAM-SHA-256");
    client.expect(&[" 908 ", "PLAIN"]);
    client.say("AUTHENTICATE PLAIN");
    client.say(&format!("AUTHENTICATE {}", base64("\0x\0wrong")));
    client.expect(&[" 904 "]);
    client.say("AUTHENTICATE PLAIN");
    client.say("AUTHENTICATE *");
    client.expect(&[" 906 "]);
    client.say("AUTHENTICATE PLAIN");
    client.say("AUTHENTICATE !!!");
    client.expect(&[" 904 "]);

    let metrics = scene.ada.json(&["token", "new", "m", "--scope", "metrics"]);
    let mut client = Client::connect(&scene.at);
    client.say(&format!("PASS {}", metrics["token"].as_str().unwrap()));
    client.say("NICK x");
    client.say("USER x 0 * :x");
    client.expect(&[" 464 "]);
    // PASS serves clients without SASL.
    let mut client = Client::connect(&scene.at);
    client.say(&format!("PASS {}", scene.token));
    client.say("NICK x");
    client.say("USER x 0 * :x");
    client.expect(&[" 001 ada "]);
}

#[test]
fn rooms_are_channels_and_what_is_said_goes_both_ways() {
    let scene = Scene::new();
    let bea = scene.bea();
    let mut client = scene.client(
        "weechat",
        "server-time message-tags echo-message labeled-response batch account-tag",
    );
    let welcome = client.settle();
    let all = welcome.join("\n");
    for part in [
        " 005 ada NETWORK=Offhook",
        "UTF8ONLY",
        "CHATHISTORY=1000",
        ":ada!ada@offhook JOIN #Kitchen",
        " 366 ada #Kitchen",
    ] {
        assert!(all.contains(part), "{part} in {all}");
    }
    let names = welcome.iter().find(|line| line.contains(" 353 ")).unwrap();
    assert!(names.contains("~ada") && names.contains("+bea"), "{names}");

    client.say("@label=l1 PRIVMSG #Kitchen :hello from IRC");
    let echo = client.expect(&["PRIVMSG #Kitchen", "hello from IRC"]);
    assert_eq!(tag(&echo, "label"), Some("l1"), "{echo}");
    assert!(
        tag(&echo, "time").is_some_and(|time| time.ends_with('Z') && time.len() == 24),
        "{echo}"
    );
    let id = tag(&echo, "msgid").unwrap().to_owned();
    bea.wait_until("the message is at bea's", |bea| {
        bea.texts("Kitchen").contains(&"hello from IRC".to_owned())
    });
    assert!(
        !client.settle().iter().any(|line| line.contains("hello from IRC")),
        "once"
    );

    bea.json(&["reply", &id, "hello back"]);
    let reply = client.expect(&[":bea!bea@offhook PRIVMSG #Kitchen", "hello back"]);
    assert_eq!(tag(&reply, "+draft/reply"), Some(id.as_str()));
    assert_eq!(tag(&reply, "account"), Some("bea"));
    bea.json(&["react", &id, "👍"]);
    let reaction = client.expect(&[":bea!bea@offhook TAGMSG #Kitchen"]);
    assert_eq!(
        (tag(&reaction, "+draft/react"), tag(&reaction, "+draft/reply")),
        (Some("👍"), Some(id.as_str()))
    );

    let said = bea.say("Kitchen", "teh cat");
    client.expect(&["teh cat"]);
    bea.json(&["edit", &said, "the cat"]);
    client.expect(&[":bea!bea@offhook PRIVMSG #Kitchen", "* edited: the cat"]);
    bea.json(&["delete", &said]);
    client.expect(&[":bea!bea@offhook NOTICE #Kitchen", "deleted a message"]);

    client.say(&format!("@+draft/reply={id};+draft/react=🎉 TAGMSG #Kitchen"));
    scene.ada.wait_until("the reaction is there", |ada| {
        ada.lines(&["log", "Kitchen"])
            .iter()
            .any(|line| line["reactions"].to_string().contains("🎉"))
    });
    // What the command line says in the same name comes too.
    scene.ada.say("Kitchen", "from the command line");
    client.expect(&[":ada!ada@offhook PRIVMSG #Kitchen", "from the command line"]);
}

#[test]
fn long_and_many_lined_messages_arrive_whole_in_pieces() {
    let scene = Scene::new();
    let mut client = scene.full("a");
    let long = "word ".repeat(400);
    scene.ada.say("Kitchen", &format!("first\n{long}\nlast"));
    let lines = client.until(&["PRIVMSG #Kitchen", "last"]);
    let text: String = lines
        .iter()
        .filter_map(|line| line.split_once("PRIVMSG #Kitchen "))
        .map(|(_, text)| text.trim_start_matches(':'))
        .collect();
    assert_eq!(text.matches("word").count(), 400, "{lines:#?}");
    assert_eq!(
        lines.iter().filter(|line| tag(line, "msgid").is_some()).count(),
        1,
        "one id"
    );
}

#[test]
fn a_client_without_history_hears_each_line_once() {
    let scene = Scene::new();
    scene.ada.say("Kitchen", "before it was ever here");
    let mut client = scene.client("irssi", "server-time");
    let first = client.settle().join("\n");
    assert!(first.contains("before it was ever here"), "{first}");
    scene.ada.say("Kitchen", "while it is here");
    client.expect(&["while it is here"]);
    client.settle();
    client.say("QUIT");
    client.expect(&["ERROR"]);
    scene.ada.say("Kitchen", "while it is away");
    let mut client = scene.client("irssi", "server-time batch");
    let back = client.settle();
    let heard = |text: &str| back.iter().filter(|line| line.contains(text)).count();
    assert_eq!(
        (heard("before it"), heard("while it is here"), heard("while it is away")),
        (0, 0, 1),
        "{back:#?}"
    );
    let missed = back.iter().find(|line| line.contains("while it is away")).unwrap();
    assert!(
        tag(missed, "batch").is_some() && tag(missed, "time").is_some(),
        "{missed}"
    );
    // Another client with the same token has heard nothing yet.
    let other = scene.client("phone", "server-time").settle().join("\n");
    assert!(
        other.contains("before it was ever here") && other.contains("while it is away"),
        "{other}"
    );
}

#[test]
fn history_is_asked_for_by_id_and_by_time() {
    let scene = Scene::new();
    let said: Vec<String> = (0..9)
        .map(|n| {
            std::thread::sleep(Duration::from_millis(5));
            scene.ada.say("Kitchen", &format!("m{n}"))
        })
        .collect();
    let mut client = scene.full("a");
    let mut ask = |request: &str| -> (Vec<String>, Vec<String>) {
        client.say(&format!("CHATHISTORY {request}"));
        let lines = client.settle();
        let texts = lines.iter().filter(|line| line.contains("PRIVMSG"));
        let texts = texts
            .map(|line| line.rsplit([' ', ':']).next().unwrap().to_owned())
            .collect();
        (texts, lines)
    };
    let (texts, lines) = ask("LATEST #Kitchen * 3");
    assert_eq!(texts, ["m6", "m7", "m8"]);
    assert!(
        lines[0].contains("BATCH +") && lines[0].contains("chathistory #Kitchen"),
        "{lines:#?}"
    );
    assert!(lines.last().unwrap().contains("BATCH -"), "{lines:#?}");
    let batch = lines[0]
        .split('+')
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .to_owned();
    assert!(
        lines[1..lines.len() - 1]
            .iter()
            .all(|line| tag(line, "batch") == Some(batch.as_str()))
    );
    let time = |n: usize| {
        tag(
            lines.iter().find(|line| line.ends_with(&format!("m{n}"))).unwrap(),
            "time",
        )
        .unwrap()
        .to_owned()
    };
    let (seven, eight) = (time(7), time(8));
    assert_eq!(ask(&format!("LATEST #Kitchen msgid={} 10", said[6])).0, ["m7", "m8"]);
    assert_eq!(ask(&format!("BEFORE #Kitchen msgid={} 2", said[3])).0, ["m1", "m2"]);
    assert_eq!(ask(&format!("AFTER #Kitchen msgid={} 2", said[3])).0, ["m4", "m5"]);
    assert_eq!(
        ask(&format!("AROUND #Kitchen msgid={} 3", said[3])).0,
        ["m2", "m3", "m4"]
    );
    assert_eq!(
        ask(&format!("BETWEEN #Kitchen msgid={} msgid={} 9", said[1], said[4])).0,
        ["m2", "m3"]
    );
    assert_eq!(
        ask(&format!("BETWEEN #Kitchen msgid={} msgid={} 9", said[4], said[1])).0,
        ["m2", "m3"]
    );
    assert_eq!(ask(&format!("BEFORE #Kitchen timestamp={seven} 2")).0, ["m5", "m6"]);
    assert_eq!(ask(&format!("AFTER #Kitchen timestamp={seven} 5")).0, ["m8"]);
    let (none, empty) = ask(&format!("AFTER #Kitchen timestamp={eight} 5"));
    assert_eq!(
        (none.len(), empty.len()),
        (0, 2),
        "an empty answer is an empty batch: {empty:?}"
    );
    let (_, targets) = ask("TARGETS timestamp=2020-01-01T00:00:00.000Z timestamp=2999-01-01T00:00:00.000Z 10");
    assert!(
        targets
            .iter()
            .any(|line| line.contains("CHATHISTORY TARGETS #Kitchen 2")),
        "{targets:?}"
    );
    for (request, code) in [
        ("LATEST #nowhere * 3", "INVALID_TARGET"),
        ("LATEST #Kitchen", "NEED_MORE_PARAMS"),
        ("LATEST #Kitchen * many", "INVALID_PARAMS"),
        ("BEFORE #Kitchen yesterday 3", "INVALID_PARAMS"),
        ("SIDEWAYS #Kitchen * 3", "INVALID_PARAMS"),
    ] {
        let (_, lines) = ask(request);
        assert!(
            lines[0].contains(&format!("FAIL CHATHISTORY {code}")),
            "{request}: {lines:?}"
        );
    }
    client.say(&format!("MARKREAD #Kitchen timestamp={seven}"));
    client.expect(&["MARKREAD #Kitchen", &format!("timestamp={seven}")]);
}

#[test]
fn what_is_wrong_is_said_and_hurts_nobody() {
    let scene = Scene::new();
    let mut client = scene.full("a");
    let mut other = scene.full("b");
    client
        .stream
        .write_all(&[b"PRIVMSG #Kitchen :\xff\xfe\r\n".as_slice(), &[b'x'; 9000], b"\r\n"].concat())
        .unwrap();
    client.expect(&["FAIL", "INVALID_UTF8"]);
    client.expect(&[" 417 "]);
    for (line, answer) in [
        ("NONSENSE", " 421 "),
        ("P@NG", " 421 "),
        ("PRIVMSG", " 411 "),
        ("PRIVMSG #Kitchen", " 412 "),
        ("PRIVMSG #nowhere :x", " 403 "),
        ("JOIN #nowhere", " 403 "),
        ("NICK other", " 432 "),
        ("USER a 0 * :a", " 462 "),
        ("MODE #Kitchen +m", " 482 "),
        ("TOPIC #Kitchen :x", " 482 "),
        ("KICK #Kitchen bea", "FAIL KICK"),
        ("REDACT #Kitchen nothing", "FAIL REDACT UNKNOWN_MSGID"),
        ("CAP NONSENSE", " 410 "),
        ("MODE #Kitchen", " 324 "),
        ("TOPIC #Kitchen", " 331 "),
        ("WHO #Kitchen", " 315 "),
        ("WHOIS ada", " 318 "),
        ("LIST", " 323 "),
        ("NAMES #Kitchen", " 366 "),
    ] {
        client.say(line);
        client.expect(&[answer]);
    }
    client.say("@label=z NONSENSE");
    assert_eq!(tag(&client.expect(&[" 421 "]), "label"), Some("z"));
    client.say("@label=z PONG x");
    assert!(client.expect(&["label=z"]).ends_with(" ACK"));
    client.say("PART #Kitchen");
    client.expect(&["PART #Kitchen"]);
    scene.ada.say("Kitchen", "unseen");
    other.expect(&["unseen"]);
    assert!(!client.settle().iter().any(|line| line.contains("unseen")));
    client.say("JOIN #Kitchen");
    client.expect(&[" 366 "]);

    // A token that may only read says nothing; one that is revoked is out.
    let read = scene.ada.json(&["token", "new", "reader", "--scope", "read"]);
    let mut reader = Client::connect(&scene.at);
    reader.say(&format!("PASS {}", read["token"].as_str().unwrap()));
    reader.say("NICK r");
    reader.say("USER r 0 * :r");
    reader.expect(&[" 001 "]);
    reader.say("PRIVMSG #Kitchen :x");
    reader.expect(&[" 404 "]);
    scene.ada.json(&["token", "revoke", "reader"]);
    reader.expect(&["ERROR"]);

    // A client that does not read holds nobody up.
    let mut deaf = Client::connect(&scene.at);
    deaf.say(&format!("PASS {}", scene.token));
    deaf.say("NICK d");
    deaf.say("USER d 0 * :d");
    for n in 0..50 {
        scene.ada.say("Kitchen", &format!("{n} {}", "x".repeat(2000)));
    }
    other.expect(&["PRIVMSG #Kitchen :49 x"]);

    assert_eq!(scene.ada.json(&["irc", "off"])["on"], false);
    client.expect(&["ERROR"]);
    assert!(TcpStream::connect(&scene.at).is_err());
}

#[test]
fn people_come_go_and_change_and_rooms_of_two_are_queries() {
    let mut scene = Scene::new();
    let mut client = scene.full("a");
    let bea = scene.bea();
    client.expect(&[":bea!bea@offhook JOIN #Kitchen bea"]);
    client.expect(&["MODE #Kitchen +v bea"]);
    bea.wait_until("bea knows ada", |bea| bea.run(&["chat", "ada"]).code == 0);
    let pair = bea.json(&["chat", "ada"])["room"].as_str().unwrap().to_owned();
    bea.say(&pair, "psst");
    client.expect(&[":bea!bea@offhook PRIVMSG ada", "psst"]);
    client.say("PRIVMSG bea :what is it?");
    client.expect(&[":ada!ada@offhook PRIVMSG bea", "what is it?"]);
    bea.wait_until("the answer is there", |bea| {
        bea.texts(&pair).contains(&"what is it?".to_owned())
    });
    scene.ada.json(&["room", "rename", "Kitchen", "Living Room"]);
    client.expect(&[":ada!ada@offhook JOIN #Living_Room"]);
    client.expect(&["PART #Kitchen"]);
    scene.ada.json(&["room", "role", "Living Room", "bea", "moderator"]);
    client.expect(&["MODE #Living_Room +o bea"]);
    scene.ada.json(&["room", "remove", "Living Room", "bea"]);
    client.expect(&[":bea!bea@offhook PART #Living_Room"]);
    scene.ada.json(&["room", "new", "Attic"]);
    client.expect(&[":ada!ada@offhook JOIN #Attic"]);

    // It is on again after a restart, and the client comes back by itself.
    scene.ada.stop();
    client.expect(&["ERROR"]);
    scene.ada.up();
    scene
        .ada
        .wait_until("IRC is on again", |ada| ada.json(&["irc", "status"])["on"] == true);
    let all = scene.full("a");
    drop(all);
}
