//! The certificate for SIP over TLS: the operator's `exchange.crt` and `exchange.key`, else one made at first start.

use std::path::Path;
use std::sync::Arc;

use rsipstack::transport::tls::ReloadableCertResolver;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ServerConfig, crypto};

use crate::Error;

/// Reads or makes the certificate and gives the acceptor of connections.
pub fn acceptor(home: &Path, domain: &str) -> Result<TlsAcceptor, Error> {
    let (certificate, key) = certificate(home, domain)?;
    let provider = Arc::new(crypto::ring::default_provider());
    let resolver = ReloadableCertResolver::new(&certificate, &key, provider.clone()).map_err(wrong)?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificate(home: &Path, domain: &str) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let paths = (home.join("exchange.crt"), home.join("exchange.key"));
    if let (Ok(certificate), Ok(key)) = (std::fs::read(&paths.0), std::fs::read(&paths.1)) {
        return Ok((certificate, key));
    }
    let made = rcgen::generate_simple_self_signed(vec![domain.to_owned(), "localhost".to_owned()]).map_err(wrong)?;
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    write_private(&paths.1, &key)?;
    write_private(&paths.0, &certificate)?;
    Ok((certificate.into_bytes(), key.into_bytes()))
}

fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let wrong = |source| Error::Home {
        path: path.to_owned(),
        source,
    };
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(wrong)?;
    file.write_all(text.as_bytes()).map_err(wrong)
}

fn wrong(error: impl std::fmt::Display) -> Error {
    Error::Certificate(error.to_string())
}
