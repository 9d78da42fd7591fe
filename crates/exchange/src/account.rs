//! Making an account, and showing it once as text and as a QR code; the password itself is not kept.

use offhook_exchange_proto::route::Account;
use offhook_exchange_proto::sip::digest::Secret;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

use crate::store::Store;
use crate::{Error, Settings};

/// Letters that are not mistaken for each other; 20 of them are 100 bits.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
const PASSWORD_LETTERS: usize = 20;

/// What to type into a phone.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct NewAccount {
    /// User name, also the authentication name.
    pub user: String,
    /// Password, shown only now.
    pub password: String,
    /// Domain and digest realm.
    pub domain: String,
    /// Server, port and transport as a SIP URI.
    pub server: String,
    /// Short number.
    pub extension: String,
}

impl NewAccount {
    /// For reading.
    pub fn text(&self) -> String {
        format!(
            "user      {}\npassword  {}\nserver    {}\ndomain    {}\nextension {}\n",
            self.user, self.password, self.server, self.domain, self.extension
        )
    }

    /// The same for a camera, drawn with half blocks.
    pub fn qr(&self) -> String {
        // This much text always fits into a code.
        QrCode::new(self.text())
            .map(|code| code.render::<Dense1x2>().quiet_zone(true).build())
            .unwrap_or_default()
    }
}

/// Adds an account with a fresh password and the lowest free extension.
pub fn add(store: &Store, settings: &Settings, name: &str) -> Result<NewAccount, Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > 32 || !name.chars().all(allowed) {
        return Err(Error::AccountName(name.to_owned()));
    }
    let bytes = crate::random::<PASSWORD_LETTERS>()?;
    let password: String = bytes
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]))
        .collect();
    let extension = store.free_extension()?;
    let here = std::net::SocketAddr::new(settings.advertised(), settings.port);
    let server = store.server()?.unwrap_or_else(|| here.to_string());
    store.add_account(&Account {
        name: name.to_owned(),
        secret: Secret::new(name, &settings.domain, &password),
        extension: Some(extension.clone()),
    })?;
    Ok(NewAccount {
        user: name.to_owned(),
        password,
        domain: settings.domain.clone(),
        server: format!("sip:{server}"),
        extension,
    })
}
