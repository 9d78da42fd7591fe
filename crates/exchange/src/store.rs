//! Accounts, bindings, call records and the nonce key in one SQLite file: WAL, `synchronous=FULL`, one writer.
//!
//! `exchange user add` may write accounts while the exchange runs; SQLite's `data_version` tells the exchange.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use offhook_exchange_proto::StoreCommand;
use offhook_exchange_proto::bridge::CallRecord;
use offhook_exchange_proto::flow::Transport;
use offhook_exchange_proto::registrar::{Binding, Change};
use offhook_exchange_proto::replica::{decode, encode};
use offhook_exchange_proto::route::{Account, Tables};
use offhook_exchange_proto::sip::digest::Secret;
use rusqlite::{Connection, OptionalExtension, params};

use crate::Error;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS account (
        name TEXT PRIMARY KEY, sha256 TEXT NOT NULL, md5 TEXT NOT NULL, extension TEXT UNIQUE) STRICT;
    CREATE TABLE IF NOT EXISTS bindings (account TEXT PRIMARY KEY, body BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS call_record (
        call TEXT PRIMARY KEY, caller TEXT NOT NULL, dialled TEXT NOT NULL, answered_by TEXT,
        started_ms INTEGER NOT NULL, answered_ms INTEGER, ended_ms INTEGER NOT NULL,
        disposition TEXT NOT NULL, status INTEGER, transferred_to TEXT) STRICT;
    CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;";

/// A call record as it is read back.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[allow(missing_docs)]
pub struct StoredRecord {
    pub call: String,
    pub from: String,
    pub to: String,
    pub answered_by: Option<String>,
    pub started_ms: i64,
    pub answered_ms: Option<i64>,
    pub ended_ms: i64,
    pub disposition: String,
    pub status: Option<u16>,
    pub transferred_to: Option<String>,
}

/// The embedded store.
pub struct Store {
    /// Its folder.
    pub(crate) home: PathBuf,
    connection: Connection,
    data_version: i64,
}

impl Store {
    /// Opens or makes the store in a folder.
    pub fn open(home: &Path) -> Result<Self, Error> {
        make_home(home)?;
        let connection = Connection::open(home.join("exchange.db"))?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(SCHEMA)?;
        let mut store = Self {
            home: home.to_owned(),
            connection,
            data_version: 0,
        };
        store.changed_by_others()?;
        Ok(store)
    }

    /// Whether another process has written since the last call.
    pub fn changed_by_others(&mut self) -> Result<bool, Error> {
        let version = self.connection.query_row("PRAGMA data_version", [], |row| row.get(0))?;
        Ok(std::mem::replace(&mut self.data_version, version) != version)
    }

    /// The key of nonces, made at the first start.
    pub fn nonce_key(&self) -> Result<[u8; 32], Error> {
        let fresh = crate::random::<32>()?;
        self.connection.execute(
            "INSERT OR IGNORE INTO setting VALUES ('nonce_key', ?1)",
            params![fresh.as_slice()],
        )?;
        let key = self
            .connection
            .query_row("SELECT value FROM setting WHERE name = 'nonce_key'", [], |row| {
                row.get(0)
            })?;
        Ok(key)
    }

    /// The domain of the accounts: the one given at first, or the default. Once there are accounts it stays.
    pub fn domain(&self, wanted: Option<&str>) -> Result<String, Error> {
        let held = self.text_setting("domain")?;
        let has_accounts = !self.accounts()?.is_empty();
        match (held, wanted) {
            (Some(held), Some(wanted)) if held != wanted && has_accounts => Err(Error::DomainChange(held)),
            (Some(held), None) => Ok(held),
            (_, wanted) => {
                let domain = wanted.unwrap_or(crate::DOMAIN_DEFAULT);
                self.set_text("domain", domain)?;
                Ok(domain.to_owned())
            }
        }
    }

    /// Notes where phones reach the exchange, for the accounts made later.
    pub fn remember_server(&self, server: &str) -> Result<(), Error> {
        self.set_text("server", server)
    }

    /// Where phones reached the exchange when it ran last.
    pub fn server(&self) -> Result<Option<String>, Error> {
        self.text_setting("server")
    }

    fn text_setting(&self, name: &str) -> Result<Option<String>, Error> {
        let sql = "SELECT CAST(value AS TEXT) FROM setting WHERE name = ?1";
        Ok(self.connection.query_row(sql, [name], |row| row.get(0)).optional()?)
    }

    fn set_text(&self, name: &str, value: &str) -> Result<(), Error> {
        let sql = "INSERT OR REPLACE INTO setting VALUES (?1, CAST(?2 AS BLOB))";
        self.connection.execute(sql, params![name, value])?;
        Ok(())
    }

    /// Adds an account.
    pub fn add_account(&self, account: &Account) -> Result<(), Error> {
        let added = self.connection.execute(
            "INSERT OR IGNORE INTO account VALUES (?1, ?2, ?3, ?4)",
            params![
                account.name,
                account.secret.sha256,
                account.secret.md5,
                account.extension
            ],
        )?;
        if added == 1 {
            Ok(())
        } else {
            Err(Error::AccountExists(account.name.clone()))
        }
    }

    /// What is written until [`Store::end`] is written together.
    pub(crate) fn begin(&self) -> Result<(), Error> {
        Ok(self.connection.execute_batch("BEGIN IMMEDIATE")?)
    }

    /// See [`Store::begin`].
    pub(crate) fn end(&self) -> Result<(), Error> {
        Ok(self.connection.execute_batch("COMMIT")?)
    }

    /// Takes an account as another instance has it.
    pub(crate) fn put_account(&self, account: &Account) -> Result<(), Error> {
        // Of two accounts with one extension, made at two instances at once, the later one goes without.
        let clash = "SELECT 1 FROM account WHERE extension = ?1 AND name <> ?2";
        let taken = self
            .connection
            .query_row(clash, params![account.extension, account.name], |_| Ok(()))
            .optional()?;
        let extension = account.extension.as_ref().filter(|_| taken.is_none());
        self.connection.execute(
            "INSERT OR REPLACE INTO account VALUES (?1, ?2, ?3, ?4)",
            params![account.name, account.secret.sha256, account.secret.md5, extension],
        )?;
        Ok(())
    }

    /// Takes a call record as another instance has it.
    pub(crate) fn put_record(&self, record: &CallRecord) -> Result<(), Error> {
        write_record(&self.connection, record)
    }

    /// The number of this instance, drawn at its first start.
    pub(crate) fn node_id(&self) -> Result<u64, Error> {
        let fresh = u64::from_le_bytes(crate::random()?) >> 1;
        let sql = "INSERT OR IGNORE INTO setting VALUES ('node_id', CAST(?1 AS BLOB))";
        self.connection.execute(sql, [fresh.to_string()])?;
        let held = self.text_setting("node_id")?.and_then(|text| text.parse().ok());
        Ok(held.unwrap_or(fresh))
    }

    /// Removes an account and its bindings; whether it was there.
    pub fn remove_account(&self, name: &str) -> Result<bool, Error> {
        self.connection
            .execute("DELETE FROM bindings WHERE account = ?1", [name])?;
        Ok(self.connection.execute("DELETE FROM account WHERE name = ?1", [name])? == 1)
    }

    /// The lowest free number from 100.
    pub fn free_extension(&self) -> Result<String, Error> {
        let mut statement = self
            .connection
            .prepare("SELECT 1 FROM account WHERE extension = ?1 OR name = ?1")?;
        for number in 100..100_000 {
            let number = number.to_string();
            if statement.query_row([&number], |_| Ok(())).optional()?.is_none() {
                return Ok(number);
            }
        }
        Err(Error::AccountExists("with every extension".to_owned()))
    }

    /// What routing reads.
    pub fn tables(&self) -> Result<Tables, Error> {
        Ok(Tables::new(self.accounts()?))
    }

    /// All accounts, by name.
    pub fn accounts(&self) -> Result<Vec<Account>, Error> {
        let mut statement = self
            .connection
            .prepare("SELECT name, sha256, md5, extension FROM account ORDER BY name")?;
        let accounts = statement.query_map([], |row| {
            let secret = Secret {
                sha256: row.get(1)?,
                md5: row.get(2)?,
            };
            Ok(Account {
                name: row.get(0)?,
                secret,
                extension: row.get(3)?,
            })
        })?;
        Ok(accounts.collect::<Result<_, _>>()?)
    }

    /// Bindings that survive a restart: connections of stream transports do not.
    pub fn bindings(&self) -> Result<Vec<(String, Vec<Binding>)>, Error> {
        let mut statement = self.connection.prepare("SELECT account, body FROM bindings")?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
        let mut all = Vec::new();
        for row in rows {
            let (account, body) = row?;
            // Of another build or damaged: the phones will register again.
            let Ok(mut bindings) = decode::<Vec<Binding>>(&body) else {
                continue;
            };
            bindings.retain(|binding| binding.flow.transport == Transport::Udp);
            all.push((account, bindings));
        }
        Ok(all)
    }

    /// Stores a batch in one transaction; whether there was anything.
    pub fn commit<'a>(&mut self, batch: impl IntoIterator<Item = &'a StoreCommand>) -> Result<bool, Error> {
        let mut batch = batch.into_iter().peekable();
        if batch.peek().is_none() {
            return Ok(false);
        }
        let transaction = self.connection.transaction()?;
        for command in batch {
            match command {
                StoreCommand::Bindings(Change::Bindings { account, bindings }) => {
                    write_bindings(&transaction, account, bindings)?
                }
                StoreCommand::Record(record) => write_record(&transaction, record)?,
            }
        }
        transaction.commit()?;
        Ok(true)
    }

    /// Call records, newest first.
    pub fn records(&self, count_max: u32) -> Result<Vec<StoredRecord>, Error> {
        let mut statement = self.connection.prepare(
            "SELECT call, caller, dialled, answered_by, started_ms, answered_ms, ended_ms, disposition, status,
             transferred_to FROM call_record ORDER BY ended_ms DESC, call LIMIT ?1",
        )?;
        let rows = statement.query_map([count_max], |row| {
            Ok(StoredRecord {
                call: row.get(0)?,
                from: row.get(1)?,
                to: row.get(2)?,
                answered_by: row.get(3)?,
                started_ms: row.get(4)?,
                answered_ms: row.get(5)?,
                ended_ms: row.get(6)?,
                disposition: row.get(7)?,
                status: row.get(8)?,
                transferred_to: row.get(9)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn write_bindings(connection: &Connection, account: &str, bindings: &[Binding]) -> Result<(), Error> {
    if bindings.is_empty() {
        connection
            .prepare_cached("DELETE FROM bindings WHERE account = ?1")?
            .execute([account])?;
    } else {
        let body = encode(&bindings);
        connection
            .prepare_cached("INSERT INTO bindings VALUES (?1, ?2) ON CONFLICT (account) DO UPDATE SET body = ?2")?
            .execute(params![account, body])?;
    }
    Ok(())
}

/// The key is the call: a record that comes twice is written once.
fn write_record(connection: &Connection, record: &CallRecord) -> Result<(), Error> {
    let sql = "INSERT OR IGNORE INTO call_record VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    connection.prepare_cached(sql)?.execute(params![
        record.call,
        record.from,
        record.to,
        record.answered_by,
        record.started.0 as i64,
        record.answered.map(|at| at.0 as i64),
        record.ended.0 as i64,
        record.disposition.as_str(),
        record.status,
        record.transferred_to,
    ])?;
    Ok(())
}

/// Makes the folder where it is missing, for its owner alone: password hashes and the private key are in it.
pub(crate) fn make_home(home: &Path) -> Result<(), Error> {
    let folder = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(home);
    folder.map_err(|source| Error::Home {
        path: home.to_owned(),
        source,
    })
}
