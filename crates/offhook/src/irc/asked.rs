//! What clients ask about channels and persons: NAMES, WHO, WHOIS, MODE, TOPIC, LIST.

use tokio::io::{AsyncRead, AsyncWrite};

use super::line::Message;
use super::names::Place;
use super::session::{End, Session};
use super::told::HOST;

impl<T: AsyncRead + AsyncWrite + Unpin> Session<T> {
    fn channel(&self, target: &str) -> Option<Place> {
        let found = self.names.place(target).filter(|_| target.starts_with('#'));
        found.map(|(_, place)| place.clone())
    }

    pub(super) async fn names_of(&mut self, message: &Message) -> Result<(), End> {
        let target = message.param(0).unwrap_or("*").to_owned();
        match self.channel(&target) {
            Some(place) => self.send_names(&place).await,
            None => self.numeric("366", &[&target], "End of /NAMES list").await,
        }
    }

    pub(super) async fn who(&mut self, message: &Message) -> Result<(), End> {
        let target = message.param(0).unwrap_or("*").to_owned();
        let members: Vec<(String, &str, String)> = match self.channel(&target) {
            Some(place) => place
                .members
                .values()
                .map(|(prefix, nick)| (place.target.clone(), *prefix, nick.clone()))
                .collect(),
            None => {
                let known = self.names.person(&target).map(|person| self.names.nick(person));
                known.into_iter().map(|nick| ("*".to_owned(), "", nick)).collect()
            }
        };
        for (channel, prefix, nick) in members {
            let flags = format!("H{prefix}");
            let real = format!("0 {nick}");
            self.send_numeric("352", &[&channel, &nick, HOST, HOST, &nick, &flags, &real])
                .await?;
        }
        self.numeric("315", &[&target], "End of WHO list").await
    }

    pub(super) async fn whois(&mut self, message: &Message) -> Result<(), End> {
        let wanted = message.param(1).or(message.param(0)).unwrap_or_default().to_owned();
        let Some(person) = self.names.person(&wanted).map(str::to_owned) else {
            self.numeric("401", &[&wanted], "No such nick").await?;
            return self.numeric("318", &[&wanted], "End of /WHOIS list").await;
        };
        let nick = self.names.nick(&person);
        self.send_numeric(
            "311",
            &[
                &nick,
                &nick,
                HOST,
                "*",
                &format!("key {}", &person[..16.min(person.len())]),
            ],
        )
        .await?;
        let rooms = self.names.channels().filter_map(|(_, place)| {
            let (prefix, _) = place.members.get(&person)?;
            Some(format!("{prefix}{}", place.target))
        });
        let rooms = rooms.collect::<Vec<_>>().join(" ");
        if !rooms.is_empty() {
            self.send_numeric("319", &[&nick, &rooms]).await?;
        }
        self.numeric("318", &[&nick], "End of /WHOIS list").await
    }

    pub(super) async fn mode(&mut self, message: &Message) -> Result<(), End> {
        let target = message.param(0).unwrap_or_default().to_owned();
        match (self.channel(&target), message.param(1)) {
            (Some(_), None) => self.send_numeric("324", &[&target, "+"]).await,
            // Lists of bans, which there are none.
            (Some(_), Some("b" | "+b")) => self.numeric("368", &[&target], "End of channel ban list").await,
            (Some(_), Some(_)) => {
                let text = "roles are given with `offhook room role` or in the browser";
                self.numeric("482", &[&target], text).await
            }
            (None, _) if target.eq_ignore_ascii_case(&self.names.my_nick) => self.send_numeric("221", &["+"]).await,
            (None, _) => self.numeric("403", &[&target], "there is no such room here").await,
        }
    }

    pub(super) async fn topic(&mut self, message: &Message) -> Result<(), End> {
        let target = message.param(0).unwrap_or_default().to_owned();
        match (self.channel(&target), message.params.get(1)) {
            (Some(_), None) => self.numeric("331", &[&target], "No topic is set").await,
            (Some(_), Some(_)) => self.numeric("482", &[&target], "rooms have names and no topics").await,
            (None, _) => self.numeric("403", &[&target], "there is no such room here").await,
        }
    }

    pub(super) async fn list(&mut self) -> Result<(), End> {
        let rooms: Vec<(String, usize, String)> = self
            .names
            .channels()
            .map(|(_, place)| (place.target.clone(), place.members.len(), place.view.name.clone()))
            .collect();
        for (target, members, name) in rooms {
            self.send_numeric("322", &[&target, &members.to_string(), &name])
                .await?;
        }
        self.numeric("323", &[], "End of /LIST").await
    }
}
