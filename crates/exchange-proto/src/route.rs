//! Routing: a pure function over tables. Later kinds of destination (ring groups, trunks) are further variants here.

use std::collections::BTreeMap;

use crate::sip::digest::Secret;

/// Who may register and call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// User part of its address, also its digest user name.
    pub name: String,
    /// What its password is checked against.
    pub secret: Secret,
    /// A short number by which it is also reached.
    pub extension: Option<String>,
}

/// The tables that routing reads.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    accounts: BTreeMap<String, Account>,
    extensions: BTreeMap<String, String>,
}

/// Where a dialled user part leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To all phones of an account.
    Account(String),
    /// Nowhere: answer 404.
    Unknown,
}

impl Tables {
    /// Builds the tables; of two accounts with one extension the first by name keeps it.
    pub fn new(accounts: Vec<Account>) -> Self {
        let mut tables = Self::default();
        for account in accounts {
            tables.accounts.insert(account.name.clone(), account);
        }
        for account in tables.accounts.values() {
            if let Some(extension) = &account.extension {
                tables
                    .extensions
                    .entry(extension.clone())
                    .or_insert_with(|| account.name.clone());
            }
        }
        tables
    }

    /// The account of that name.
    pub fn account(&self, name: &str) -> Option<&Account> {
        self.accounts.get(name)
    }

    /// Number of accounts.
    pub fn account_count(&self) -> usize {
        self.accounts.len()
    }
}

/// Where `dialled` leads: account names come before extensions.
pub fn route(tables: &Tables, dialled: &str) -> Destination {
    let name = tables
        .accounts
        .get_key_value(dialled)
        .map(|(name, _)| name)
        .or_else(|| tables.extensions.get(dialled));
    name.map_or(Destination::Unknown, |name| Destination::Account(name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str, extension: Option<&str>) -> Account {
        Account {
            name: name.to_owned(),
            secret: Secret::new(name, "r", "p"),
            extension: extension.map(str::to_owned),
        }
    }

    #[test]
    fn names_come_before_extensions() {
        let tables = Tables::new(vec![
            account("100", None),
            account("bob", Some("100")),
            account("eve", Some("101")),
        ]);
        assert_eq!(route(&tables, "100"), Destination::Account("100".to_owned()));
        assert_eq!(route(&tables, "101"), Destination::Account("eve".to_owned()));
        assert_eq!(route(&tables, "102"), Destination::Unknown);
    }
}
