//! Who may do what over HTTP and IRC: sessions of browsers and tokens of programs, each with scopes.
//!
//! A secret is 32 random bytes, shown once; kept is its hash (a plain one: there is nothing to guess). A browser gets its session for a one-time
//! link, which lives in memory only. Keys survive a restart of the node and are not taken over by a restored home. What a key may do is looked up at every
//! request, and streams look again when keys change, so a revoked key is dead at once.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use offhook_node::journal::{self, KEYS_PREFIX, LocalChange};
use offhook_node::{NodeError, NodeHandle};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::problem::{Kind, Problem};

/// Sessions and tokens together.
const KEYS_MAX: usize = 256;
/// Links that wait to be used; the oldest goes.
const LINKS_MAX: usize = 16;
/// How long a link waits to be used.
const LINK_LIFE: Duration = Duration::from_secs(3600);
/// A session that was not used for so long ends.
const SESSION_LIFE_MS: i64 = 90 * 24 * 3600 * 1000;
/// How exactly it is known when a key was last used: every note is a write.
const USED_GRAIN_MS: i64 = 3600 * 1000;
/// The longest name of a key, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// What tokens of programs begin with, so that they are known when they are found somewhere.
const TOKEN_PREFIX: &str = "oht_";
/// The context of the hash of a secret.
const CONTEXT: &str = "offhook 1 api key";

/// One kind of thing that a key allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scope {
    /// Rooms, entries, people, events.
    Read,
    /// Say, edit, react, mark as read, keep drafts.
    Send,
    /// Everything, also keys, members, the recovery phrase.
    Admin,
    /// The figures of `/metrics`.
    Metrics,
}

impl Scope {
    /// Every scope.
    pub(crate) const ALL: [Self; 4] = [Self::Read, Self::Send, Self::Admin, Self::Metrics];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Send => "send",
            Self::Admin => "admin",
            Self::Metrics => "metrics",
        }
    }
}

impl std::str::FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|scope| scope.name() == text);
        named.ok_or_else(|| format!("`{text}` is no scope; there are read, send, admin and metrics"))
    }
}

/// What whoever asks may do.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    scopes: Vec<Scope>,
    /// The key's id; none for the control socket, whose file mode is the key.
    pub(crate) key: Option<String>,
}

impl Grant {
    /// Whoever reaches the control socket may do all.
    pub(crate) fn owner() -> Self {
        Self {
            scopes: vec![Scope::Admin],
            key: None,
        }
    }

    /// Whether a scope is granted.
    pub(crate) fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }

    /// The names of the scopes.
    pub(crate) fn names(&self) -> Vec<String> {
        self.scopes.iter().map(|scope| scope.name().to_owned()).collect()
    }
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KeyKind {
    /// A browser, by cookie.
    Session,
    /// A program, by token.
    Token,
}

/// A key, as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) kind: KeyKind,
    pub(crate) name: String,
    pub(crate) scopes: Vec<Scope>,
    hash: String,
    pub(crate) made_ms: i64,
    pub(crate) used_ms: i64,
}

impl Key {
    /// When it ends, unless it is used.
    pub(crate) fn expires_ms(&self) -> Option<i64> {
        (self.kind == KeyKind::Session).then(|| self.used_ms.saturating_add(SESSION_LIFE_MS))
    }

    fn is_live(&self, now_ms: i64) -> bool {
        self.expires_ms().is_none_or(|end| now_ms < end)
    }

    fn record(&self) -> LocalChange {
        (format!("{KEYS_PREFIX}{}", self.id), serde_json::to_vec(self).ok())
    }
}

/// All keys of a node.
#[derive(Debug)]
pub(crate) struct Access {
    node: NodeHandle,
    /// By the hash of the secret.
    keys: Mutex<BTreeMap<String, Key>>,
    links: Mutex<Vec<(String, Instant)>>,
    changed: watch::Sender<()>,
}

impl Access {
    /// Reads what is kept.
    pub(crate) async fn load(node: NodeHandle) -> Result<Self, NodeError> {
        let read = node
            .query(|peer| journal::locals(peer.store(), KEYS_PREFIX, KEYS_MAX))
            .await?;
        let records = read.map_err(|error| NodeError::Storage(error.to_string()))?;
        let keys = records
            .iter()
            .filter_map(|(_, json)| serde_json::from_slice::<Key>(json).ok());
        Ok(Self {
            keys: Mutex::new(keys.map(|key| (key.hash.clone(), key)).collect()),
            links: Mutex::default(),
            changed: watch::Sender::new(()),
            node,
        })
    }

    /// A one-time secret that a browser exchanges for a session, and how long it may wait.
    pub(crate) fn new_link(&self) -> Result<(String, Duration), Problem> {
        let secret = random_hex()?;
        let mut links = lock(&self.links);
        links.retain(|(_, made)| made.elapsed() < LINK_LIFE);
        if links.len() == LINKS_MAX {
            links.remove(0);
        }
        links.push((hash(&secret), Instant::now()));
        Ok((secret, LINK_LIFE))
    }

    /// Makes a session for a link's secret, which is worth nothing from then on.
    pub(crate) async fn redeem(&self, link: &str, name: &str) -> Result<(String, Key), Problem> {
        let wanted = hash(link);
        {
            let mut links = lock(&self.links);
            let found = links
                .iter()
                .position(|(hash, made)| *hash == wanted && made.elapsed() < LINK_LIFE);
            let Some(at) = found else {
                let detail = "this link was used already or is too old; `offhook open` makes another";
                return Err(Problem::new(Kind::NoAccess, detail));
            };
            links.remove(at);
        }
        let name: String = name.chars().take(NAME_BYTES_MAX / 4).collect();
        self.make(KeyKind::Session, name, vec![Scope::Admin], random_hex()?)
            .await
    }

    /// Makes a token for a program.
    pub(crate) async fn new_token(&self, name: String, mut scopes: Vec<Scope>) -> Result<(String, Key), Problem> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            let detail = format!("a token's name must be 1 to {NAME_BYTES_MAX} bytes long");
            return Err(Problem::new(Kind::Length, detail));
        }
        if scopes.is_empty() {
            let detail = "say what the token may do: read, send, admin or metrics";
            return Err(Problem::new(Kind::BadRequest, detail));
        }
        if self
            .list()
            .iter()
            .any(|key| key.kind == KeyKind::Token && key.name == name)
        {
            let detail = format!("there is a token named `{name}` already; revoke it, or choose another name");
            return Err(Problem::new(Kind::Already, detail));
        }
        scopes.sort_unstable();
        scopes.dedup();
        let secret = format!("{TOKEN_PREFIX}{}", random_hex()?);
        self.make(KeyKind::Token, name, scopes, secret).await
    }

    async fn make(
        &self,
        kind: KeyKind,
        name: String,
        scopes: Vec<Scope>,
        secret: String,
    ) -> Result<(String, Key), Problem> {
        let now_ms = Timestamp::now().as_millisecond();
        let key = Key {
            id: random_hex()?[..16].to_owned(),
            kind,
            name,
            scopes,
            hash: hash(&secret),
            made_ms: now_ms,
            used_ms: now_ms,
        };
        let mut changes = vec![key.record()];
        {
            let mut keys = lock(&self.keys);
            if keys.len() >= KEYS_MAX {
                changes.extend(make_room(&mut keys, now_ms)?);
            }
            keys.insert(key.hash.clone(), key.clone());
        }
        let kept = self.node.write_local(changes, None).await;
        if let Err(error) = kept {
            lock(&self.keys).remove(&key.hash);
            return Err(Problem::new(Kind::Storage, error.to_string()));
        }
        Ok((secret, key))
    }

    /// What a secret allows; `None` where it is no key of ours.
    pub(crate) fn grant(&self, secret: &str) -> Option<Grant> {
        let now_ms = Timestamp::now().as_millisecond();
        let mut keys = lock(&self.keys);
        let key = keys.get_mut(&hash(secret)).filter(|key| key.is_live(now_ms))?;
        if now_ms.saturating_sub(key.used_ms) > USED_GRAIN_MS {
            key.used_ms = now_ms;
            let (node, record) = (self.node.clone(), key.record());
            // Only a note of when: losing it costs nothing.
            tokio::spawn(async move { node.write_local(vec![record], None).await });
        }
        Some(Grant {
            scopes: key.scopes.clone(),
            key: Some(key.id.clone()),
        })
    }

    /// Whether a grant still holds.
    pub(crate) fn holds(&self, grant: &Grant) -> bool {
        let Some(id) = &grant.key else { return true };
        let now_ms = Timestamp::now().as_millisecond();
        lock(&self.keys)
            .values()
            .any(|key| key.id == *id && key.is_live(now_ms))
    }

    /// Tells when a key was taken away.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// All keys that hold, the oldest first.
    pub(crate) fn list(&self) -> Vec<Key> {
        let now_ms = Timestamp::now().as_millisecond();
        let mut keys: Vec<Key> = lock(&self.keys)
            .values()
            .filter(|key| key.is_live(now_ms))
            .cloned()
            .collect();
        keys.sort_by(|a, b| (a.made_ms, &a.id).cmp(&(b.made_ms, &b.id)));
        keys
    }

    /// Takes a key away, named by its id or, for a token, its name.
    pub(crate) async fn revoke(&self, wanted: &str) -> Result<(), Problem> {
        let found = self
            .list()
            .into_iter()
            .find(|key| key.id == wanted || key.kind == KeyKind::Token && key.name == wanted);
        let Some(key) = found else {
            let detail = format!("there is no token or session `{wanted}`; `offhook token list` shows those there are");
            return Err(Problem::new(Kind::NoToken, detail));
        };
        // Gone from memory first: it must not work while the disk is slow.
        lock(&self.keys).remove(&key.hash);
        self.changed.send_replace(());
        let forget = vec![(format!("{KEYS_PREFIX}{}", key.id), None)];
        let written = self.node.write_local(forget, None).await;
        written.map_err(|error| Problem::new(Kind::Storage, error.to_string()))
    }
}

/// Drops what has ended, else the session that was not used for the longest. Tokens are never dropped.
fn make_room(keys: &mut BTreeMap<String, Key>, now_ms: i64) -> Result<Vec<LocalChange>, Problem> {
    let mut sessions: Vec<&Key> = keys.values().filter(|key| key.kind == KeyKind::Session).collect();
    sessions.sort_by_key(|key| key.used_ms);
    let ended = sessions.iter().filter(|key| !key.is_live(now_ms)).count();
    let gone: Vec<(String, String)> = sessions
        .iter()
        .take(ended.max(1))
        .map(|key| (key.hash.clone(), format!("{KEYS_PREFIX}{}", key.id)))
        .collect();
    if gone.is_empty() {
        let detail = format!("there are {KEYS_MAX} tokens, which is the most; revoke one");
        return Err(Problem::new(Kind::Limit, detail));
    }
    for (hash, _) in &gone {
        keys.remove(hash);
    }
    Ok(gone.into_iter().map(|(_, name)| (name, None)).collect())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds these locks can panic half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hash(secret: &str) -> String {
    crate::api::model::hex(&blake3::derive_key(CONTEXT, secret.as_bytes()))
}

fn random_hex() -> Result<String, Problem> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Problem::new(Kind::Internal, error.to_string()))?;
    Ok(crate::api::model::hex(&bytes))
}
