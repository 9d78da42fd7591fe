//! One IRC client: comes in, gets what it missed, then says and hears.
//!
//! What a client has heard is known by number: after what was sent comes a PING with the number of the last event in it, and the PONG that answers it says
//! that everything before has arrived. The number is kept for each client (token and SASL name). A client without `draft/chathistory` that comes back
//! gets every entry that it has not heard, each once, in one `chathistory` batch a room; one that was never here gets the newest
//! [`BACKLOG_LINES`] of each room. One with the capability asks for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use offhook_node::journal::local;
use tokio::io::{self, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufWriter, WriteHalf};
use tokio::sync::watch;
use tokio::time::Instant;

use super::intake::{Intake, Taken};
use super::line::{LineError, Message, REST_BYTES_MAX, parse};
use super::names::{Names, Place};
use super::registration::Registration;
use super::told::{HOST, Shown, Takes, mask};
use crate::access::{Grant, Scope};
use crate::api::feed::Follower;
use crate::api::model::{Event, Line};
use crate::api::{Surface, entries};
use crate::problem::{Kind, Problem};
use crate::proto::history::EntryId;
use crate::proto::peer::{Command, Post, Reply};

/// Lines of each room for a client that was never here.
const BACKLOG_LINES: usize = 50;
/// Targets of one message.
const TARGETS_MAX: usize = 4;
/// A client that says nothing for so long is asked whether it is there.
const PING_PERIOD: Duration = Duration::from_secs(60);
/// How often at most the place of a client is written down.
const KEEP_PERIOD: Duration = Duration::from_secs(2);
/// The records of what clients have heard.
const HEARD: &str = "irc-heard/";
/// The longest name of a client in a record, in bytes.
const CLIENT_BYTES_MAX: usize = 64;
/// What a PING that counts begins with.
const PING_MARK: &str = "oh-";
/// Entries said by this client that were answered already, remembered until their event comes.
const OWN_MAX: usize = 256;

/// Why a session ends.
pub(super) enum End {
    /// The connection is gone.
    Io,
    /// The client is told this.
    Because(String),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Io
    }
}

/// One client's session.
pub(super) struct Session<T> {
    pub(super) surface: Surface,
    out: BufWriter<WriteHalf<T>>,
    pub(super) registration: Registration,
    pub(super) names: Names,
    pub(super) shown: Shown,
    follower: Option<Follower>,
    /// Answers to a labelled command, until it is done.
    gathered: Option<Vec<Message>>,
    /// Channels that the client has parted from; that changes nothing for others.
    parted: BTreeSet<String>,
    own: BTreeSet<String>,
    batches: u64,
    /// The last event sent, the number in the PING that is out, and what was answered.
    sent: u64,
    asked: Option<u64>,
    heard: u64,
    kept: (u64, Instant),
}

/// Talks to one client until it or the program ends.
pub(super) async fn run<T: AsyncRead + AsyncWrite + Unpin>(
    client: T,
    surface: Surface,
    grant: Option<Grant>,
    mut ending: watch::Receiver<bool>,
) {
    let (read, write) = io::split(client);
    let mut stopping = surface.ending();
    let mut session = Session::new(surface, write, grant);
    let mut intake = Intake::new(read);
    let talked = tokio::select! {
        end = session.talk(&mut intake) => end,
        // An error means that the sender is gone, which is an end too.
        _ = ending.wait_for(|end| *end) => End::Because("IRC was turned off".to_owned()),
        _ = stopping.wait_for(|end| *end) => End::Because("the node stops".to_owned()),
    };
    session.keep_heard(true).await;
    if let End::Because(why) = talked {
        session.gathered = None;
        // It may be gone already.
        let _ = session.send(Message::new("ERROR", &[&why])).await;
        let _ = session.out.shutdown().await;
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Session<T> {
    fn new(surface: Surface, write: WriteHalf<T>, grant: Option<Grant>) -> Self {
        let mut registration = Registration::default();
        registration.grant = grant;
        Self {
            surface,
            out: BufWriter::new(write),
            registration,
            names: Names::default(),
            shown: Shown::default(),
            follower: None,
            gathered: None,
            parted: BTreeSet::new(),
            own: BTreeSet::new(),
            batches: 0,
            sent: 0,
            asked: None,
            heard: 0,
            kept: (0, Instant::now()),
        }
    }

    async fn talk<R: AsyncRead + Unpin>(&mut self, intake: &mut Intake<R>) -> End {
        match self.talk_on(intake).await {
            Err(end) => end,
            Ok(never) => match never {},
        }
    }

    async fn talk_on<R: AsyncRead + Unpin>(&mut self, intake: &mut Intake<R>) -> Result<std::convert::Infallible, End> {
        let mut ping = tokio::time::interval(PING_PERIOD);
        ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ping.tick().await;
        loop {
            tokio::select! {
                taken = intake.next() => {
                    let taken = taken?.ok_or(End::Io)?;
                    let pause = intake.pace();
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                    self.take(taken).await?;
                }
                event = next_event(&mut self.follower) => {
                    let (number, event) = event.ok_or_else(|| End::Because("the token was revoked".to_owned()))?;
                    self.tell_event(event).await?;
                    self.sent = number;
                    self.ask_heard().await?;
                }
                _ = ping.tick() => self.send(Message::new("PING", &[HOST])).await?,
            }
            self.out.flush().await?;
            self.keep_heard(false).await;
        }
    }

    /// The own nick, or what the client would like to be called, or `*`.
    pub(super) fn nick(&self) -> &str {
        match (self.follower.is_some(), &self.registration.nick) {
            (true, _) => &self.names.my_nick,
            (false, Some(nick)) => nick,
            (false, None) => "*",
        }
    }

    /// Whether the client has come in.
    pub(super) fn is_in(&self) -> bool {
        self.follower.is_some()
    }

    async fn take(&mut self, taken: Taken) -> Result<(), End> {
        let message = match taken {
            Taken::Line(line) => parse(&line),
            Taken::TooLong => Err(LineError::TooLong),
            Taken::NotUtf8 => {
                return self
                    .fail("*", "INVALID_UTF8", &[], "only UTF-8 is understood here")
                    .await;
            }
        };
        match message {
            Ok(message) => self.obey(message).await,
            Err(LineError::Empty) => Ok(()),
            Err(LineError::TooLong) => self.numeric("417", &[], "Input line was too long").await,
            Err(LineError::BadCommand) => self.numeric("421", &["*"], "Unknown command").await,
        }
    }

    /// Carries out a command; where it is labelled, all that it answers carries the label.
    async fn obey(&mut self, message: Message) -> Result<(), End> {
        let label = message
            .tag_value("label")
            .filter(|label| !label.is_empty() && label.len() <= 64);
        let label = label
            .filter(|_| self.registration.has("labeled-response"))
            .map(str::to_owned);
        if label.is_some() {
            self.gathered = Some(Vec::new());
        }
        self.dispatch(&message).await?;
        let (Some(label), Some(mut answers)) = (label, self.gathered.take()) else {
            return Ok(());
        };
        if answers.len() > 1 {
            let batch = self.next_batch();
            self.send(
                Message::new("BATCH", &[&format!("+{batch}"), "labeled-response"])
                    .from(HOST)
                    .tag("label", label),
            )
            .await?;
            for answer in answers {
                let answer = if answer.tag_value("batch").is_none() {
                    answer.tag("batch", batch.clone())
                } else {
                    answer
                };
                self.send(answer).await?;
            }
            return self
                .send(Message::new("BATCH", &[&format!("-{batch}")]).from(HOST))
                .await;
        }
        let answer = answers.pop().unwrap_or_else(|| Message::new("ACK", &[]).from(HOST));
        self.send(answer.tag("label", label)).await
    }

    async fn dispatch(&mut self, message: &Message) -> Result<(), End> {
        match message.command.as_str() {
            "CAP" => {
                let nick = self.nick().to_owned();
                let answers = self.registration.cap(message, &nick);
                self.send_all(answers).await?;
                self.come_in().await
            }
            "AUTHENTICATE" => {
                let nick = self.nick().to_owned();
                let access = self.surface.access();
                let answers = self.registration.authenticate(message, &nick, &access);
                self.send_all(answers).await
            }
            "PASS" => {
                let password = message.param(0).unwrap_or_default();
                // `name:token` too: clients that keep one password field for both write it so.
                let token = password.rsplit(':').next().unwrap_or_default();
                let access = self.surface.access();
                self.registration.password(token, &access);
                Ok(())
            }
            "NICK" if !self.is_in() => {
                match message.param(0) {
                    Some(nick) => self.registration.nick = Some(nick.chars().take(32).collect()),
                    None => return self.numeric("431", &[], "No nickname given").await,
                }
                self.come_in().await
            }
            "USER" if !self.is_in() => {
                self.registration.user = message.param(0).map(str::to_owned);
                self.come_in().await
            }
            "PING" => {
                let token = message.param(0).unwrap_or(HOST).to_owned();
                self.send(Message::new("PONG", &[HOST, &token]).from(HOST)).await
            }
            "PONG" => {
                self.hear(message);
                self.ask_heard().await
            }
            "QUIT" => Err(End::Because("goodbye".to_owned())),
            _ if !self.is_in() => self.numeric("451", &[], "You have not registered").await,
            _ => self.command(message).await,
        }
    }

    async fn command(&mut self, message: &Message) -> Result<(), End> {
        match message.command.as_str() {
            "PRIVMSG" | "NOTICE" => self.say(message).await,
            "TAGMSG" => self.react(message).await,
            "REDACT" => self.redact(message).await,
            "CHATHISTORY" => self.chathistory(message).await,
            "MARKREAD" => self.mark_read(message).await,
            "JOIN" => self.join(message).await,
            "PART" => self.part(message).await,
            "NAMES" => self.names_of(message).await,
            "WHO" => self.who(message).await,
            "WHOIS" => self.whois(message).await,
            "MODE" => self.mode(message).await,
            "TOPIC" => self.topic(message).await,
            "LIST" => self.list().await,
            "MOTD" => self.numeric("422", &[], "There is no message of the day").await,
            "NICK" => {
                let text = "your name is that of the node; change it with `offhook up --name NAME`";
                let wanted = message.param(0).unwrap_or("*").to_owned();
                self.numeric("432", &[&wanted], text).await
            }
            "USER" | "PASS" => self.numeric("462", &[], "You may not reregister").await,
            "AWAY" | "USERHOST" | "ISON" | "USERIP" => Ok(()),
            "KICK" | "INVITE" | "SETNAME" => {
                let text = "this is done with the command line or in the browser";
                self.fail(&message.command, "NOT_HERE", &[], text).await
            }
            _ => self.numeric("421", &[&message.command], "Unknown command").await,
        }
    }

    /// Once everything is said: welcomes the client, or tells it to sign in.
    async fn come_in(&mut self) -> Result<(), End> {
        if self.is_in() || !self.registration.is_ready() {
            return Ok(());
        }
        let Some(grant) = self.registration.grant.clone() else {
            let text =
                "Sign in with SASL PLAIN or PASS; the password is a token: offhook token new NAME --scope read,send";
            self.numeric("464", &[], text).await?;
            return Err(End::Because(text.to_owned()));
        };
        self.read_names().await?;
        let newest = self.surface.newest_event();
        let heard = self.read_heard().await;
        let place = match self.registration.has("draft/chathistory") {
            true => newest,
            false => heard.unwrap_or(newest),
        };
        self.follower = Some(Follower::new(self.surface.clone(), grant, place));
        (self.sent, self.heard) = (place, heard.unwrap_or(0));
        self.welcome().await?;
        for (_, place) in self
            .names
            .channels()
            .map(|(id, place)| (id.clone(), place.clone()))
            .collect::<Vec<_>>()
        {
            self.enter(&place).await?;
        }
        if !self.registration.has("draft/chathistory") {
            match heard {
                Some(_) => self.tell_missed(newest).await?,
                None => self.tell_newest().await?,
            }
        }
        self.ask_heard().await
    }

    async fn welcome(&mut self) -> Result<(), End> {
        let nick = self.names.my_nick.clone();
        self.numeric("001", &[], &format!("Welcome to Offhook, {nick}")).await?;
        let version = concat!("offhook-", env!("CARGO_PKG_VERSION"));
        self.numeric("002", &[], &format!("Your host is {HOST}, running {version}"))
            .await?;
        self.numeric("003", &[], "This node is yours").await?;
        self.send_numeric("004", &[HOST, version, "", "qaov"]).await?;
        let tokens = [
            "NETWORK=Offhook",
            "CASEMAPPING=ascii",
            "CHANTYPES=#",
            "PREFIX=(qaov)~&@+",
            "CHANMODES=,,,",
            "NICKLEN=64",
            "CHANNELLEN=64",
            "CHATHISTORY=1000",
            "MSGREFTYPES=msgid,timestamp",
            "UTF8ONLY",
        ];
        let params = [&tokens[..], &["are supported by this server"]].concat();
        self.send_numeric("005", &params).await?;
        self.numeric("422", &[], "There is no message of the day").await
    }

    /// A channel appears at the client.
    pub(super) async fn enter(&mut self, place: &Place) -> Result<(), End> {
        let me = mask(&self.names.my_nick);
        let join = match self.registration.has("extended-join") {
            true => Message::new("JOIN", &[&place.target, &self.names.my_nick, &self.names.my_name]),
            false => Message::new("JOIN", &[&place.target]),
        };
        self.send(join.from(&me)).await?;
        self.numeric("331", &[&place.target], "No topic is set").await?;
        self.send_names(place).await
    }

    pub(super) async fn send_names(&mut self, place: &Place) -> Result<(), End> {
        let words: Vec<String> = place
            .members
            .values()
            .map(|(prefix, nick)| format!("{prefix}{nick}"))
            .collect();
        let mut held = String::new();
        for word in words {
            if held.len() + word.len() > REST_BYTES_MAX - 200 {
                self.send_numeric("353", &["=", &place.target, &std::mem::take(&mut held)])
                    .await?;
            }
            if !held.is_empty() {
                held.push(' ');
            }
            held.push_str(&word);
        }
        self.send_numeric("353", &["=", &place.target, &held]).await?;
        self.numeric("366", &[&place.target], "End of /NAMES list").await
    }

    /// Everything that a client which was here before has not heard, room by room.
    async fn tell_missed(&mut self, newest: u64) -> Result<(), End> {
        let mut missed: BTreeMap<String, Vec<Line>> = BTreeMap::new();
        while self.sent < newest {
            let Some((number, event)) = next_event(&mut self.follower).await else {
                return Err(End::Because("the token was revoked".to_owned()));
            };
            match event {
                Event::Entry {
                    new: true,
                    line: Some(line),
                    room,
                    ..
                } => missed.entry(room).or_default().push(*line),
                Event::Reset {} => {
                    self.sent = number;
                    self.notice("You were away for long: what is shown is only the newest of each room")
                        .await?;
                    self.tell_newest().await?;
                    self.follower = self
                        .registration
                        .grant
                        .clone()
                        .map(|grant| Follower::new(self.surface.clone(), grant, newest));
                    self.sent = newest;
                    return Ok(());
                }
                _ => {}
            }
            self.sent = number;
        }
        for (room, lines) in missed {
            self.tell_batch(&room, lines).await?;
        }
        Ok(())
    }

    /// The newest of each room.
    async fn tell_newest(&mut self) -> Result<(), End> {
        let rooms: Vec<String> = self.names.places.keys().cloned().collect();
        for room in rooms {
            let lines = entries::newest_lines(&self.surface, &room, BACKLOG_LINES)
                .await
                .unwrap_or_default();
            self.tell_batch(&room, lines).await?;
        }
        Ok(())
    }

    /// Lines of one room as a batch, where the client knows batches.
    pub(super) async fn tell_batch(&mut self, room: &str, lines: Vec<Line>) -> Result<(), End> {
        let takes = self.takes();
        let told: Vec<Message> = lines
            .iter()
            .flat_map(|line| self.shown.first(line, &self.names, takes))
            .collect();
        let Some(target) = self.names.places.get(room).map(|place| place.target.clone()) else {
            return Ok(());
        };
        if !told.is_empty() || self.gathered.is_some() {
            self.send_batch(&["chathistory", &target], told).await?;
        }
        Ok(())
    }

    /// Messages as a batch of a type, where the client knows batches.
    pub(super) async fn send_batch(&mut self, about: &[&str], messages: Vec<Message>) -> Result<(), End> {
        if !self.registration.has("batch") {
            return self.send_all(messages).await;
        }
        let batch = self.next_batch();
        let begin = format!("+{batch}");
        self.send(Message::new("BATCH", &[&[begin.as_str()], about].concat()).from(HOST))
            .await?;
        for message in messages {
            self.send(message.tag("batch", batch.clone())).await?;
        }
        self.send(Message::new("BATCH", &[&format!("-{batch}")]).from(HOST))
            .await
    }

    async fn tell_event(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::Entry {
                room,
                id,
                new,
                line: Some(line),
            } => {
                if new && !self.names.places.contains_key(&room) {
                    self.refresh().await?;
                }
                if self.parted.contains(&room) {
                    return Ok(());
                }
                let takes = self.takes();
                if new && self.own.remove(&id) {
                    // Said here and answered already.
                    self.shown.first(&line, &self.names, takes);
                    return Ok(());
                }
                let told = self.shown.event(&line, new, &self.names, takes);
                self.send_all(told).await
            }
            Event::Room { .. } => self.refresh().await,
            Event::Notice { text, .. } | Event::Near { text: Some(text) } => self.notice(&text).await,
            Event::Reset {} => {
                self.notice("Something was missed: ask for the history of your rooms again")
                    .await
            }
            _ => Ok(()),
        }
    }

    /// Reads names and members again and tells what is different now.
    async fn refresh(&mut self) -> Result<(), End> {
        let before = std::mem::take(&mut self.names);
        self.read_names().await?;
        if before.my_nick != self.names.my_nick {
            let nick = self.names.my_nick.clone();
            self.send(Message::new("NICK", &[&nick]).from(&mask(&before.my_nick)))
                .await?;
        }
        let now: Vec<(String, Place)> = self
            .names
            .channels()
            .map(|(id, place)| (id.clone(), place.clone()))
            .collect();
        for (id, place) in &now {
            let was = before.places.get(id).filter(|was| was.target == place.target);
            match was {
                Some(was) => self.tell_members(was, place).await?,
                None if self.parted.contains(id) => {}
                None => self.enter(place).await?,
            }
        }
        for (id, was) in before.channels() {
            if !now
                .iter()
                .any(|(now_id, place)| now_id == id && place.target == was.target)
            {
                self.send(Message::new("PART", &[&was.target, "no longer there"]).from(&mask(&before.my_nick)))
                    .await?;
            }
        }
        Ok(())
    }

    async fn tell_members(&mut self, was: &Place, now: &Place) -> Result<(), End> {
        for (person, (_, nick)) in &was.members {
            match now.members.get(person) {
                None => {
                    self.send(Message::new("PART", &[&now.target]).from(&mask(nick)))
                        .await?
                }
                Some((_, new)) if new != nick && *person != self.names.me => {
                    self.send(Message::new("NICK", &[new]).from(&mask(nick))).await?;
                }
                Some(_) => {}
            }
        }
        for (person, (prefix, nick)) in &now.members {
            let had = was.members.get(person).map(|(prefix, _)| *prefix);
            if had.is_none() {
                let join = match self.registration.has("extended-join") {
                    true => Message::new("JOIN", &[&now.target, nick, nick]),
                    false => Message::new("JOIN", &[&now.target]),
                };
                self.send(join.from(&mask(nick))).await?;
            }
            if had.unwrap_or_default() != *prefix {
                let taken = had.and_then(letter).map(|letter| ("-", letter));
                for (sign, letter) in taken.into_iter().chain(letter(prefix).map(|letter| ("+", letter))) {
                    let change = Message::new("MODE", &[&now.target, &format!("{sign}{letter}"), nick]);
                    self.send(change.from(HOST)).await?;
                }
            }
        }
        Ok(())
    }

    /// `PRIVMSG` and `NOTICE`.
    async fn say(&mut self, message: &Message) -> Result<(), End> {
        let (Some(targets), Some(text)) = (message.param(0), message.param(1)) else {
            let number = if message.param(0).is_none() { "411" } else { "412" };
            return self.numeric(number, &[], "Say to whom, and what").await;
        };
        let action = text
            .strip_prefix("\u{1}ACTION ")
            .map(|text| text.trim_end_matches('\u{1}'));
        let text = match action {
            Some(action) => format!("/me {action}"),
            // Other CTCP asks for what is nobody's business.
            None if text.starts_with('\u{1}') => return Ok(()),
            None => text.to_owned(),
        };
        let reply_to = message.tag_value("+draft/reply").and_then(|id| id.parse().ok());
        for target in targets.split(',').take(TARGETS_MAX) {
            let post = Post::Text {
                text: text.clone(),
                reply_to,
                files: Vec::new(),
            };
            match self.post_to(target, post).await {
                Err(problem) => self.refuse(target, &problem).await?,
                Ok(id) => self.echo(&id).await?,
            }
        }
        Ok(())
    }

    /// The client's own message as others see it, where it wants that.
    async fn echo(&mut self, id: &EntryId) -> Result<(), End> {
        let line = entries::line(&self.surface, *id).await;
        if self.own.len() >= OWN_MAX {
            self.own.clear();
        }
        self.own.insert(id.to_string());
        if let (true, Ok(line)) = (self.registration.has("echo-message"), line) {
            if !self.names.places.contains_key(&line.room) {
                self.refresh().await?;
            }
            let takes = self.takes();
            let told = self.shown.first(&line, &self.names, takes);
            self.send_all(told).await?;
        }
        Ok(())
    }

    async fn post_to(&mut self, target: &str, post: Post) -> Result<EntryId, Problem> {
        let may = self
            .registration
            .grant
            .as_ref()
            .is_some_and(|grant| grant.has(Scope::Send));
        if !may {
            return Err(Problem::new(Kind::Scope, "the token does not have the scope `send`"));
        }
        let room = match (self.names.place(target), self.names.person(target)) {
            (Some((_, place)), _) => place.view.room,
            (None, Some(person)) => entries::chat_with(&self.surface, person).await?,
            (None, None) => {
                let detail = format!("there is no room or person `{target}` here");
                return Err(Problem::new(Kind::NoRoom, detail));
            }
        };
        let command = Command::Post {
            room,
            post,
            client_id: None,
        };
        match self.surface.command(command).await? {
            Reply::Entry(id) => Ok(id),
            _ => Err(Problem::new(
                Kind::Internal,
                "the node answered with something that was not asked for",
            )),
        }
    }

    /// `TAGMSG`: reactions; other tags (typing) are not passed on.
    async fn react(&mut self, message: &Message) -> Result<(), End> {
        let target = message.param(0).unwrap_or_default().to_owned();
        let on = message.tag_value("+draft/react").map(|emoji| (emoji, true));
        let change = on.or_else(|| message.tag_value("+draft/unreact").map(|emoji| (emoji, false)));
        let entry = message.tag_value("+draft/reply").and_then(|id| id.parse().ok());
        let (Some((emoji, on)), Some(entry)) = (change, entry) else {
            return Ok(());
        };
        let post = Post::React {
            target: entry,
            emoji: emoji.to_owned(),
            on,
        };
        match self.post_to(&target, post).await {
            Err(problem) => self.refuse(&target, &problem).await,
            Ok(_) => Ok(()),
        }
    }

    /// `REDACT` (IRCv3 draft *message-redaction*).
    async fn redact(&mut self, message: &Message) -> Result<(), End> {
        let target = message.param(0).unwrap_or_default().to_owned();
        let Some(entry) = message.param(1).and_then(|id| id.parse().ok()) else {
            let id = message.param(1).unwrap_or("*").to_owned();
            return self
                .fail(
                    "REDACT",
                    "UNKNOWN_MSGID",
                    &[&target, &id],
                    "there is no such message here",
                )
                .await;
        };
        match self.post_to(&target, Post::Delete { target: entry }).await {
            Err(problem) => {
                self.fail(
                    "REDACT",
                    "REDACT_FORBIDDEN",
                    &[&target, &entry.to_string()],
                    &problem.detail,
                )
                .await
            }
            Ok(_) => Ok(()),
        }
    }

    async fn refuse(&mut self, target: &str, problem: &Problem) -> Result<(), End> {
        let number = if problem.kind == Kind::NoRoom { "403" } else { "404" };
        self.numeric(number, &[target], &problem.detail).await
    }

    async fn join(&mut self, message: &Message) -> Result<(), End> {
        for target in message.param(0).unwrap_or_default().split(',').take(TARGETS_MAX) {
            let found = self
                .names
                .place(target)
                .map(|(id, place)| (id.to_owned(), place.clone()));
            match found {
                Some((id, place)) if target.starts_with('#') => {
                    if self.parted.remove(&id) {
                        self.enter(&place).await?;
                    }
                }
                _ => {
                    let text = "there is no such room here; make rooms and join them with `offhook room new` and `offhook join`";
                    self.numeric("403", &[target], text).await?;
                }
            }
        }
        Ok(())
    }

    async fn part(&mut self, message: &Message) -> Result<(), End> {
        for target in message.param(0).unwrap_or_default().split(',').take(TARGETS_MAX) {
            let found = self
                .names
                .place(target)
                .map(|(id, place)| (id.to_owned(), place.target.clone()));
            match found {
                Some((id, name)) if target.starts_with('#') => {
                    self.parted.insert(id);
                    let me = mask(&self.names.my_nick);
                    self.send(Message::new("PART", &[&name, "out of sight; `offhook room leave` leaves"]).from(&me))
                        .await?;
                }
                _ => self.numeric("403", &[target], "there is no such room here").await?,
            }
        }
        Ok(())
    }

    pub(super) fn takes(&self) -> Takes {
        Takes {
            tags: self.registration.has("message-tags"),
            redaction: self.registration.has("draft/message-redaction"),
        }
    }

    async fn read_names(&mut self) -> Result<(), End> {
        let read = self.surface.query(Names::read).await;
        self.names = read.map_err(|problem| End::Because(problem.detail))?;
        Ok(())
    }

    // What was heard.

    fn heard_record(&self) -> Option<String> {
        let key = self.registration.grant.as_ref()?.key.as_deref().unwrap_or("socket");
        let name = self.registration.client.as_ref().or(self.registration.user.as_ref())?;
        let name: String = name.chars().take(CLIENT_BYTES_MAX / 4).collect();
        Some(format!("{HEARD}{key}/{name}"))
    }

    async fn read_heard(&self) -> Option<u64> {
        let name = self.heard_record()?;
        let read = self.surface.query(move |peer| {
            local(peer.store(), &name).map_err(|error| Problem::new(Kind::Storage, error.to_string()))
        });
        String::from_utf8(read.await.ok()??).ok()?.parse().ok()
    }

    /// Asks the client to say that it has got what was sent.
    async fn ask_heard(&mut self) -> Result<(), End> {
        if self.is_in() && self.asked.is_none() && self.sent > self.heard {
            self.asked = Some(self.sent);
            self.send(Message::new("PING", &[&format!("{PING_MARK}{}", self.sent)]))
                .await?;
        }
        Ok(())
    }

    fn hear(&mut self, pong: &Message) {
        let number = pong
            .params
            .iter()
            .find_map(|param| param.strip_prefix(PING_MARK)?.parse().ok());
        if number.is_some() && number == self.asked {
            self.heard = self.asked.take().unwrap_or(self.heard);
        }
    }

    /// Writes down what was heard, now and then, and at the end.
    async fn keep_heard(&mut self, is_end: bool) {
        let (kept, at) = self.kept;
        let is_due = is_end || kept == 0 || at.elapsed() > KEEP_PERIOD;
        if self.is_in() && self.heard > kept && is_due {
            if let Some(name) = self.heard_record() {
                let record = (name, Some(self.heard.to_string().into_bytes()));
                // Not kept means told again, which is the lesser evil.
                let _ = self.surface.write_local(vec![record]).await;
            }
            self.kept = (self.heard, Instant::now());
        }
    }

    // Sending.

    fn next_batch(&mut self) -> String {
        self.batches += 1;
        format!("b{}", self.batches)
    }

    async fn notice(&mut self, text: &str) -> Result<(), End> {
        let nick = self.nick().to_owned();
        self.send(Message::new("NOTICE", &[&nick, text]).from(HOST)).await
    }

    /// A numeric whose last parameter is a sentence.
    pub(super) async fn numeric(&mut self, number: &str, params: &[&str], text: &str) -> Result<(), End> {
        self.send_numeric(number, &[params, &[text]].concat()).await
    }

    pub(super) async fn send_numeric(&mut self, number: &str, params: &[&str]) -> Result<(), End> {
        let nick = self.nick().to_owned();
        let params = [&[nick.as_str()], params].concat();
        self.send(Message::new(number, &params).from(HOST)).await
    }

    /// A standard reply (IRCv3 *standard replies*).
    pub(super) async fn fail(&mut self, command: &str, code: &str, about: &[&str], text: &str) -> Result<(), End> {
        let params = [&[command, code], about, &[text]].concat();
        self.send(Message::new("FAIL", &params).from(HOST)).await
    }

    pub(super) async fn send_all(&mut self, messages: Vec<Message>) -> Result<(), End> {
        for message in messages {
            self.send(message).await?;
        }
        Ok(())
    }

    /// Sends a message with the tags that the client takes, or gathers it for a label.
    pub(super) async fn send(&mut self, mut message: Message) -> Result<(), End> {
        if let Some(gathered) = &mut self.gathered {
            gathered.push(message);
            return Ok(());
        }
        let has = |capability| self.registration.has(capability);
        message.tags.retain(|(name, _)| match name.as_str() {
            "time" => has("server-time"),
            "batch" => has("batch"),
            "label" => has("labeled-response"),
            "account" => has("account-tag"),
            _ => has("message-tags"),
        });
        let line = message.line();
        self.out.write_all(line.as_bytes()).await?;
        self.out.write_all(b"\r\n").await?;
        Ok(())
    }
}

/// The next event of a client that is in; never one of another.
async fn next_event(follower: &mut Option<Follower>) -> Option<(u64, Event)> {
    match follower {
        Some(follower) => follower.next().await,
        None => std::future::pending().await,
    }
}

/// The mode letter of a nick prefix.
fn letter(prefix: &str) -> Option<&'static str> {
    match prefix {
        "~" => Some("q"),
        "&" => Some("a"),
        "@" => Some("o"),
        "+" => Some("v"),
        _ => None,
    }
}
